"""What every metric per group asks of its arguments."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import unique_labels

from skspurious.data import OverlappingGroups, encode_groups
from skspurious.functional._metrics import group_counts
from skspurious.utils._frames import as_pandas
from skspurious.utils._rows import as_column, as_labels


class Members(NamedTuple):
    """Who is in which group: an entry for each sample and group that it is in.

    ``rows``: the sample; ``group``: the number of the group; ``values``: what each number stands
    for; ``weight``: of the sample, or None; ``counts``: entries of each group, or the sum of their
    weights.
    """

    rows: np.ndarray
    group: np.ndarray
    values: np.ndarray
    weight: np.ndarray | None
    counts: np.ndarray


def check_empty(empty):
    """Compare ``empty`` with its allowed values."""
    if empty not in ("raise", "nan"):
        raise ValueError(f"empty must be 'raise' or 'nan'; got {empty!r}.")


def find_members(sample_group, n_samples, groups=None, sample_weight=None, empty="raise"):
    """The samples of every group, and their weights; an empty group may raise.

    Parameters
    ----------
    sample_group : array-like, OverlappingGroups, or dict from group to mask
    n_samples : int
    groups : array-like of shape (n_groups,), default=None
        The groups to expect.
    sample_weight : array-like of shape (n_samples,), default=None
    empty : {"raise", "nan"}, default="raise"

    Returns
    -------
    members : Members
    """
    check_empty(empty)
    if n_samples == 0:
        raise ValueError("y_true has 0 samples; a group metric needs at least one.")
    if sample_group is None:
        raise ValueError("sample_group is None; give the group of every sample.")
    if isinstance(sample_group, Mapping):
        sample_group = OverlappingGroups(sample_group)
    weight = None if sample_weight is None else check_weight(sample_weight, n_samples)
    if isinstance(sample_group, OverlappingGroups):
        rows, group, values = _members_of_masks(sample_group, n_samples, groups)
        weight = None if weight is None else weight[rows]
    else:
        rows = np.arange(n_samples)
        group, values = encode_groups(sample_group, n_samples=n_samples, groups=groups)
    counts = group_counts(group, len(values), sample_weight=weight)
    if empty == "raise" and np.any(counts == 0):
        raise empty_error(values[counts == 0])
    return Members(rows, group, values, weight, counts)


def _members_of_masks(overlapping, n_samples, groups):
    """Rows, groups and values of groups that overlap."""
    if len(overlapping) != n_samples:
        raise ValueError(
            f"sample_group has masks of {len(overlapping)} rows for {n_samples} samples."
        )
    number, values = encode_groups(overlapping.groups, groups=groups)
    column, rows = np.nonzero(overlapping.masks.T)
    return rows, number[column], values


def check_weight(sample_weight, n_samples):
    """Weights as numbers, which are finite and not negative."""
    weight = as_column(sample_weight, "sample_weight")
    try:
        weight = column_or_1d(weight).astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"sample_weight must be numbers of shape (n_samples,): {error}."
        ) from error
    if len(weight) != n_samples:
        raise ValueError(f"sample_weight has {len(weight)} rows for {n_samples} samples.")
    is_bad = ~np.isfinite(weight) | (weight < 0)
    if is_bad.any():
        row = int(np.flatnonzero(is_bad)[0])
        raise ValueError(
            f"sample_weight must be finite and at least 0; got {weight[row]} at row {row} "
            f"({is_bad.sum()} such rows). Give rows that are not to count weight 0."
        )
    return weight


def check_labels(y, name):
    """Classes as a column, none of them missing."""
    if y is None:
        raise ValueError(f"{name} is None; give a class label for every sample.")
    return column_or_1d(as_labels(y, name))


def empty_error(groups):
    """The error that says which expected groups have no samples."""
    groups = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    return ValueError(
        f"{len(groups)} expected group(s) have no samples in sample_group, or only weight 0: "
        f"{groups[:10]}. Evaluate on samples of every group, name only those that occur, or pass "
        "empty='nan'."
    )


def is_correct(y_true, y_pred):
    """Whether each predicted class is right, after checks that they are comparable."""
    y_true = check_labels(y_true, "y_true")
    y_pred = check_predicted_classes(y_true, as_labels(y_pred, "y_pred"))
    check_consistent_length(y_true, y_pred)
    return np.asarray(y_true == y_pred, dtype=bool)


def check_predicted_classes(y_true, y_pred):
    """Predicted classes as a column, after checks that they are classes and comparable."""
    if y_pred is None:
        raise ValueError("y_pred is None; give the predicted class of every sample.")
    if y_pred.ndim == 2 and y_pred.shape[1] > 1:
        raise ValueError(
            f"y_pred has shape {y_pred.shape}, and predicted classes have shape (n_samples,); "
            "pass predict(X), not predict_proba(X)."
        )
    y_pred = check_labels(y_pred, "y_pred")
    if y_pred.dtype.kind == "f" and np.any(y_pred != np.floor(y_pred)):
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
        columns = getattr(as_pandas(sample_group), "columns", None)
        names = None if columns is None else [str(column) for column in columns]
        return pd.MultiIndex.from_tuples(values.tolist(), names=names)
    return pd.Index(values, name="group")


def training_sizes(train_group, group_sizes):
    """Training size of each group as a dict, or None if neither is given."""
    if train_group is not None and group_sizes is not None:
        raise ValueError("Give train_group or group_sizes, not both.")
    if isinstance(train_group, OverlappingGroups | Mapping):
        raise ValueError(
            "The adjusted accuracy is a mean over groups that divide the samples; train_group "
            "overlaps. Leave it out."
        )
    if train_group is not None:
        group, values = encode_groups(train_group, name="train_group")
        if len(group) == 0:
            raise ValueError("train_group has 0 rows; give the group of every training sample.")
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
    sizes = {group: float(size) for group, size in group_sizes.items()}
    if not all(np.isfinite(size) and size >= 0 for size in sizes.values()) or not any(
        sizes.values()
    ):
        raise ValueError(
            f"group_sizes must be finite, at least 0, and positive for some group; got {sizes}."
        )
    return sizes
