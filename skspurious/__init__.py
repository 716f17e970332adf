"""Find the hidden groups on which a classifier fails, and make its worst group hold."""

from skspurious._version import __version__
from skspurious.data import GroupedData, make_sample_group
from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SemiSupervisedGroupInferrer, SpuriousGroupInferrer
from skspurious.metrics import group_report, worst_group_accuracy, worst_group_scorer
from skspurious.mitigation import (
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SPAREClassifier,
    SpuriousSamplePruner,
)
from skspurious.persistence import load_model, save_model

__all__ = [
    "BalancedRetrainer",
    "ERMClassifier",
    "GEORGEClassifier",
    "GroupDROClassifier",
    "GroupedData",
    "JTTClassifier",
    "LastLayerRetrainer",
    "NSFClassifier",
    "PruSCNetwork",
    "PrunedRetrainer",
    "SPAREClassifier",
    "SemiSupervisedGroupInferrer",
    "SpuriousGroupInferrer",
    "SpuriousSamplePruner",
    "TorchFeatureExtractor",
    "__version__",
    "group_report",
    "load_model",
    "make_sample_group",
    "save_model",
    "worst_group_accuracy",
    "worst_group_scorer",
]
