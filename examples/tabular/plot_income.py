"""
Whose high income does a model find?
====================================

The census table *Adult* [1]_: does a person earn more than 50,000 dollars? A model that is right
for five people of six misses two of five well-paid women.

.. [1] B. Becker, R. Kohavi. "Adult." UCI Machine Learning Repository, 1996.
   https://doi.org/10.24432/C5XW20. CC BY 4.0.
"""

# %%
# A table with its split, as ``adult.csv.gz``: a column of labels, numbers and categories.
import os
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    group_report,
    worst_group_scorer,
)
from skspurious.pipeline import make_pipeline

path = Path(os.environ.get("SKSPURIOUS_DATA", "."), "tabular", "adult.csv.gz")
if not path.is_file():
    raise SystemExit(
        f"This example needs the table {path}: set SKSPURIOUS_DATA to the folder that has "
        "tabular/adult.csv.gz."
    )
table = pd.read_csv(path, skipinitialspace=True)
test = table.split == "test"
X = table.drop(columns=["income", "split", "fnlwgt"])
y = table.income
group = table[["income", "sex"]]  # two columns are crossed
print(pd.crosstab(table.income[~test], table.sex[~test]))


# %%
# Numbers are scaled and categories encoded; a small network follows. Everything is one Pipeline.
# This Pipeline lets the groups through: in scikit-learn's the first step would drop them.
def make_model(classifier):
    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (
            OneHotEncoder(handle_unknown="ignore", min_frequency=20, sparse_output=False),
            make_column_selector(dtype_exclude="number"),
        ),
    )
    return make_pipeline(columns, classifier)


def network():
    return nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 2))


settings = {"optimizer": "adam", "max_epochs": 5, "batch_size": 256, "random_state": 0}
plain = make_model(ERMClassifier(network, **settings)).fit(X[~test], y[~test])

# %%
# Rows and groups travel together through the Pipeline and the search, whose scorer looks at the
# worst group of each fold.
search = GridSearchCV(
    make_model(GroupDROClassifier(network, **settings)),
    {"groupdroclassifier__lr": [0.003, 0.01]},
    scoring=worst_group_scorer,
    cv=3,
)
search.fit(GroupedData(X[~test], group[~test]), y[~test])
print("chosen:", search.best_params_)

# %%
# Prediction needs no groups; they are looked at in the report alone.
reports = {
    name: group_report(y[test], model.predict(X[test]), sample_group=group[test])
    for name, model in {"plain training": plain, "GroupDRO": search}.items()
}
for name, report in reports.items():
    print(f"{name}\n{report}\n")

# %%
# The worst group gains at a price in the average: some men with a low income are now mistaken.
#
# **When it fails.** Groups must be known for the training set, or inferred; and a group that is
# worse because its labels are noisy, not because the model uses a shortcut, gains little.
