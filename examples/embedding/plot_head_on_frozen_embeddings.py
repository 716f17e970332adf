"""
Does a new head on frozen embeddings help the worst group?
==========================================================

The backbone is trained and stays as it is. A Pipeline takes its embeddings, finds groups in them,
and trains a linear head that minimises the loss of the worst group. No group label is used, and it
takes seconds.
"""

# %%
# Digits on coloured backgrounds; the colour is right for 95 % of the training images.
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    group_report,
)
from skspurious.datasets import load_spurious_digits
from skspurious.networks import LeNet

train = load_spurious_digits(split="train")
test = load_spurious_digits(split="test")

# %%
# The backbone, by plain training: it has learned the colour.
backbone = ERMClassifier(
    LeNet,
    module_params={"n_classes": 2, "image_size": train.data.shape[-1]},
    lr=0.03,
    max_epochs=10,
    batch_size=32,
    random_state=0,
)
backbone.fit(train.data, train.target)

# %%
# ``FrozenEstimator`` keeps the Pipeline from training the backbone again. The inferrer hands the
# groups on together with the embeddings, so that the head has them with nothing configured.
pipeline = make_pipeline(
    TorchFeatureExtractor(FrozenEstimator(backbone)),
    SpuriousGroupInferrer(random_state=0),
    GroupDROClassifier(lr=0.1, max_epochs=200, random_state=0),
)
pipeline.fit(train.data, train.target)
print("group sizes found:", pipeline[1].cluster_sizes_.tolist())

# %%
# The true groups, for the table alone.
reports = {
    name: group_report(test.target, model.predict(test.data), sample_group=test.sample_group)
    for name, model in {"plain training": backbone, "new head": pipeline}.items()
}
print(
    pd.DataFrame(
        {
            name: {"average": r.average_accuracy, "worst group": r.worst_group_accuracy}
            for name, r in reports.items()
        }
    ).round(3)
)

# %%
# Much better, and not yet good: a head can only use what is in the embedding.
#
# **When it fails.** A backbone that has learned nothing but the colour, or one trained so long
# that the groups no longer lie apart (``pipeline[1].silhouette_``), needs end-to-end training:
# pass the first two steps as ``group_inferrer`` of a classifier with the whole network as its
# ``module``.
