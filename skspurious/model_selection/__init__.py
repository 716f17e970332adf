"""Splitters that keep every group in every fold."""

from skspurious.model_selection._split import EveryGroupKFold, every_group_train_test_split

__all__ = ["EveryGroupKFold", "every_group_train_test_split"]
