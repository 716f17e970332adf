"""Splitters that keep every group in every fold, and the trust in what a search has chosen."""

from skspurious.model_selection._split import EveryGroupKFold, every_group_train_test_split
from skspurious.model_selection._trust import selection_trust
from skspurious.model_selection._trust_result import SelectionTrust

__all__ = [
    "EveryGroupKFold",
    "SelectionTrust",
    "every_group_train_test_split",
    "selection_trust",
]
