"""Find the hidden groups on which a classifier fails, and make its worst group hold."""

from skspurious._version import __version__
from skspurious.data import GroupedData, make_sample_group
from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SemiSupervisedGroupInferrer, SpuriousGroupInferrer
from skspurious.metrics import group_report, worst_group_accuracy, worst_group_scorer
from skspurious.mitigation import (
    AFRClassifier,
    AutoRetrainer,
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    LfFClassifier,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SELFClassifier,
    SPAREClassifier,
    SpuriousSamplePruner,
    XRMClassifier,
)
from skspurious.persistence import load_model, save_model

__all__ = [
    "AFRClassifier",
    "AutoRetrainer",
    "BalancedRetrainer",
    "ERMClassifier",
    "GEORGEClassifier",
    "GroupDROClassifier",
    "GroupedData",
    "JTTClassifier",
    "LastLayerRetrainer",
    "LfFClassifier",
    "NSFClassifier",
    "PruSCNetwork",
    "PrunedRetrainer",
    "SELFClassifier",
    "SPAREClassifier",
    "SemiSupervisedGroupInferrer",
    "SpuriousGroupInferrer",
    "SpuriousSamplePruner",
    "TorchFeatureExtractor",
    "XRMClassifier",
    "__version__",
    "group_report",
    "load_model",
    "make_sample_group",
    "save_model",
    "worst_group_accuracy",
    "worst_group_scorer",
]
