"""Splits that keep every group, groups to select by, and how far a selection is to be trusted."""

from skspurious.model_selection._split import EveryGroupKFold, every_group_train_test_split
from skspurious.model_selection._trust import selection_trust
from skspurious.model_selection._trust_result import SelectionTrust
from skspurious.model_selection._view_groups import with_view_groups

__all__ = [
    "EveryGroupKFold",
    "SelectionTrust",
    "every_group_train_test_split",
    "selection_trust",
    "with_view_groups",
]
