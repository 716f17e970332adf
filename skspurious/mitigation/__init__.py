"""Classifiers that improve the worst group: one method, one file."""

from skspurious.mitigation._afr import AFRClassifier
from skspurious.mitigation._auto import AutoRetrainer
from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._george import GEORGEClassifier
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._jtt import JTTClassifier
from skspurious.mitigation._last_layer import LastLayerRetrainer
from skspurious.mitigation._lff import LfFClassifier
from skspurious.mitigation._nsf import NSFClassifier
from skspurious.mitigation._pruned import PrunedRetrainer, SpuriousSamplePruner
from skspurious.mitigation._prusc import PruSCNetwork
from skspurious.mitigation._self import SELFClassifier
from skspurious.mitigation._spare import SPAREClassifier
from skspurious.mitigation._xrm import XRMClassifier

__all__ = [
    "AFRClassifier",
    "AutoRetrainer",
    "BalancedRetrainer",
    "ERMClassifier",
    "GEORGEClassifier",
    "GroupDROClassifier",
    "JTTClassifier",
    "LastLayerRetrainer",
    "LfFClassifier",
    "NSFClassifier",
    "PruSCNetwork",
    "PrunedRetrainer",
    "SELFClassifier",
    "SPAREClassifier",
    "SpuriousSamplePruner",
    "XRMClassifier",
]
