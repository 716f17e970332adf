"""Classifiers whose worst group holds: one method, one file."""

from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._george import make_george
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._jtt import JTTClassifier
from skspurious.mitigation._last_layer import LastLayerRetrainer
from skspurious.mitigation._nsf import NSFClassifier
from skspurious.mitigation._pruned import PrunedRetrainer, SpuriousSamplePruner
from skspurious.mitigation._prusc import PruSCNetwork
from skspurious.mitigation._spare import make_spare

__all__ = [
    "BalancedRetrainer",
    "ERMClassifier",
    "GroupDROClassifier",
    "JTTClassifier",
    "LastLayerRetrainer",
    "NSFClassifier",
    "PruSCNetwork",
    "PrunedRetrainer",
    "SpuriousSamplePruner",
    "make_george",
    "make_spare",
]
