"""
Can the best worst group be searched for without group labels?
==============================================================

Scans of handwritten digits, on backgrounds whose colour nearly always tells the class. No one has
labelled the colours. Training infers groups from a network's early outputs, the search scores by
groups that views of the pictures find, and no group label is used.
"""

# %%
# The data: 0-4 against 5-9, on two colours; in the test set every colour is equally frequent.
from sklearn.model_selection import GridSearchCV

from skspurious import ERMClassifier, SPAREClassifier, group_report, worst_group_scorer
from skspurious.datasets import load_spurious_digits
from skspurious.networks import LeNet

train = load_spurious_digits(split="train")
test = load_spurious_digits(split="test")
network = {
    "module": LeNet,
    "module_params": {"n_classes": len(train.target_names), "image_size": train.data.shape[-1]},
}

# %%
# Plain training follows the colour: right on average, wrong on the rare combinations.
erm = ERMClassifier(**network, lr=0.03, max_epochs=15, random_state=0)
erm.fit(train.data, train.target)
before = group_report(test.target, erm.predict(test.data), sample_group=test.sample_group)
print("worst group of plain training:", before.accuracy.min())

# %%
# The search. Each candidate infers the groups of its own training folds and balances them. Its
# score is not by these: the scorer looks at views of the fold left out, such as its border and its
# colours, and takes the samples that they mislead for the minority. All candidates are scored by
# the same groups.
spare = SPAREClassifier(**network, init_epochs=3, max_epochs=20, random_state=0)
search = GridSearchCV(
    spare,
    {"lr": [0.01, 0.03]},
    scoring=worst_group_scorer,
    cv=2,
    error_score="raise",
)
search.fit(train.data, train.target)
print("chosen:", search.best_params_)

# %%
# The test set's true groups, which nothing has seen until now.
after = group_report(test.target, search.predict(test.data), sample_group=test.sample_group)
print(after)
print("worst group:", before.accuracy.min(), "->", after.accuracy.min())

# %%
# **When it fails.** The spurious feature must be learned before the core feature, as simple ones
# are. Where it is not, the early outputs do not separate by it, ``silhouette_`` is low, and the
# clusters mean nothing. Look at ``search.best_estimator_.group_inferrer_[-1].silhouette_``.
