"""What every metric per group asks of its arguments."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import unique_labels

from skspurious.data import encode_groups
from skspurious.functional._metrics import group_counts


def check_empty(empty):
    """Compare ``empty`` with its allowed values."""
    if empty not in ("raise", "nan"):
        raise ValueError(f"empty must be 'raise' or 'nan'; got {empty!r}.")


def encode_expected_groups(sample_group, n_samples, groups, sample_weight, empty):
    """Groups as numbers, what each number stands for, and the weights; an empty group may raise.

    Returns
    -------
    group : ndarray of shape (n_samples,)
    values : ndarray of shape (n_groups,)
    weight : ndarray of shape (n_samples,), float64, or None
    counts : ndarray of shape (n_groups,), float64
        Samples of each group, or the sum of their weights.
    """
    check_empty(empty)
    if n_samples == 0:
        raise ValueError("y_true has 0 samples; a group metric needs at least one.")
    if sample_group is None:
        raise ValueError("sample_group is None; give the group of every sample.")
    group, values = encode_groups(sample_group, n_samples=n_samples, groups=groups)
    weight = None if sample_weight is None else column_or_1d(sample_weight).astype(np.float64)
    check_consistent_length(group, weight)
    counts = group_counts(group, len(values), sample_weight=weight)
    if empty == "raise" and np.any(counts == 0):
        raise empty_error(values[counts == 0])
    return group, values, weight, counts


def empty_error(groups):
    """The error that says which expected groups have no samples."""
    groups = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    return ValueError(
        f"{len(groups)} expected group(s) have no samples, or only weight 0: {groups[:10]}. "
        "Evaluate on samples of every group, name only those that occur, or pass empty='nan'."
    )


def is_correct(y_true, y_pred):
    """Whether each predicted class is right, after checks that they are comparable."""
    y_true, y_pred = column_or_1d(y_true), np.asarray(y_pred)
    y_pred = check_predicted_classes(y_true, y_pred)
    check_consistent_length(y_true, y_pred)
    return np.asarray(y_true == y_pred, dtype=bool)


def check_predicted_classes(y_true, y_pred):
    """Predicted classes as a column, after checks that they are classes and comparable."""
    if y_pred.ndim == 2 and y_pred.shape[1] > 1:
        raise ValueError(
            f"y_pred has shape {y_pred.shape}, and predicted classes have shape (n_samples,); "
            "pass predict(X), not predict_proba(X)."
        )
    y_pred = column_or_1d(y_pred)
    if y_pred.dtype.kind == "f" and np.any(y_pred % 1 != 0):
        raise ValueError(
            "y_pred holds numbers that are not whole: scores or probabilities. Pass the predicted "
            "classes, predict(X)."
        )
    if y_true.dtype.kind != y_pred.dtype.kind:
        unique_labels(y_true, y_pred)  # raises on a mix of strings and numbers
    return y_pred


def group_index(values, sample_group):
    """Index of groups: tuples become levels, named as the columns of ``sample_group``."""
    if values.dtype == object and all(isinstance(value, tuple) for value in values):
        columns = getattr(sample_group, "columns", None)
        names = None if columns is None else [str(column) for column in columns]
        return pd.MultiIndex.from_tuples(values.tolist(), names=names)
    return pd.Index(values, name="group")


def training_sizes(train_group, group_sizes):
    """Training size of each group as a dict, or None if neither is given."""
    if train_group is not None and group_sizes is not None:
        raise ValueError("Give train_group or group_sizes, not both.")
    if train_group is not None:
        group, values = encode_groups(train_group, name="train_group")
        return dict(zip(values.tolist(), group_counts(group, len(values)).tolist(), strict=True))
    if group_sizes is None:
        return None
    if isinstance(group_sizes, pd.Series):
        group_sizes = group_sizes.to_dict()
    if not isinstance(group_sizes, Mapping):
        raise TypeError(
            "group_sizes must map each group to its size, for instance {'a': 90, 'b': 10}; got "
            f"{type(group_sizes).__name__}."
        )
    return {group: float(size) for group, size in group_sizes.items()}
