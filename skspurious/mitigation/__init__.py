"""Classifiers whose worst group holds: one method, one file."""

from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._george import make_george
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._spare import make_spare

__all__ = [
    "BalancedRetrainer",
    "ERMClassifier",
    "GroupDROClassifier",
    "make_george",
    "make_spare",
]
