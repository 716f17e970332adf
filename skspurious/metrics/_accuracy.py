"""Accuracies of groups: each, the worst, and the mean under the training mix."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from skspurious.data import OverlappingGroups
from skspurious.functional._metrics import adjusted_mean, group_means
from skspurious.metrics._checks import (
    check_empty,
    empty_error,
    find_members,
    group_index,
    is_correct,
    training_sizes,
)

__all__ = [
    "adjusted_accuracy",
    "group_accuracy",
    "worst_group_accuracy",
    "worst_group_error",
]


def worst_group_accuracy(
    y_true, y_pred, *, sample_group, sample_weight=None, groups=None, empty="raise"
):
    r"""Accuracy of the group on which it is lowest.

    :math:`\min_g \frac{1}{n_g} \sum_{i: g_i = g} [\hat y_i = y_i]`

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups. A group whose weights sum to 0 is empty.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, for instance ``clf.groups_``. By default those that occur in
        ``sample_group``.
    empty : {"raise", "nan"}, default="raise"
        What to do with an expected group without samples: raise a ValueError, or make the result
        NaN, because the worst group is then not known. It never counts as 0.

    Returns
    -------
    accuracy : float

    Raises
    ------
    ValueError
        If lengths differ, a sample has a group that is not among ``groups``, or a group is empty
        and ``empty="raise"``.

    See Also
    --------
    group_report : All groups, with intervals.
    worst_group_metric : The worst group of another metric.

    Examples
    --------
    >>> from skspurious.metrics import worst_group_accuracy
    >>> y_true, y_pred = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    >>> worst_group_accuracy(y_true, y_pred, sample_group=["a", "a", "a", "b", "b"])
    0.5
    """
    accuracy, _ = _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty)
    return float(np.min(accuracy))


def worst_group_error(
    y_true, y_pred, *, sample_group, sample_weight=None, groups=None, empty="raise"
):
    """Error rate of the group on which it is highest: 1 - ``worst_group_accuracy``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect. By default those that occur.
    empty : {"raise", "nan"}, default="raise"
        What to do with an expected group without samples: raise a ValueError, or make the result
        NaN.

    Returns
    -------
    error : float

    Raises
    ------
    ValueError
        If lengths differ, a sample has a group that is not among ``groups``, or a group is empty
        and ``empty="raise"``.

    Examples
    --------
    >>> from skspurious.metrics import worst_group_error
    >>> worst_group_error([0, 0, 1, 1], [0, 0, 0, 1], sample_group=["a", "a", "b", "b"])
    0.5
    """
    return 1.0 - worst_group_accuracy(
        y_true,
        y_pred,
        sample_group=sample_group,
        sample_weight=sample_weight,
        groups=groups,
        empty=empty,
    )


def group_accuracy(y_true, y_pred, *, sample_group, sample_weight=None, groups=None, empty="raise"):
    """Accuracy of every group.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, in the order of the result. By default those that occur, sorted.
    empty : {"raise", "nan"}, default="raise"
        What to do with an expected group without samples: raise a ValueError, or give NaN.

    Returns
    -------
    accuracy : Series of shape (n_groups,)
        Indexed by group.

    Raises
    ------
    ValueError
        If lengths differ, a sample has a group that is not among ``groups``, or a group is empty
        and ``empty="raise"``.

    Examples
    --------
    >>> from skspurious.metrics import group_accuracy
    >>> group_accuracy([0, 0, 1, 1], [0, 0, 0, 1], sample_group=["a", "a", "b", "b"])
    group
    a    1.0
    b    0.5
    Name: accuracy, dtype: float64
    """
    accuracy, values = _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty)
    return pd.Series(accuracy, index=group_index(values, sample_group), name="accuracy")


def adjusted_accuracy(
    y_true, y_pred, *, sample_group, train_group=None, group_sizes=None, empty="raise"
):
    r"""Mean of the group accuracies, weighted by the group sizes in training.

    :math:`\sum_g n^{train}_g \, a_g / \sum_g n^{train}_g`

    Papers report several "averages" and rarely say which. This is the one of the Waterbirds
    convention [1]_: the evaluation set has another mix of groups than training, and the average
    is weighted back to the training mix. It is neither the mean over the evaluation samples
    (``accuracy_score``) nor the unweighted mean over groups (``group_accuracy(...).mean()``),
    which other code calls by this same name.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each evaluated sample: any hashable values; several columns are crossed.
    train_group : array-like of shape (n_train,) or (n_train, n_attributes), default=None
        Group of each training sample, in the values of ``sample_group``.
    group_sizes : mapping or Series from group to number, default=None
        Instead of ``train_group``: the training size, or any weight, of each group.
    empty : {"raise", "nan"}, default="raise"
        What to do with a training group without evaluated samples: raise a ValueError, or make the
        result NaN. Groups that do not occur in training have weight 0.

    Returns
    -------
    accuracy : float

    Raises
    ------
    ValueError
        If not exactly one of ``train_group`` and ``group_sizes`` is given, or a training group is
        empty and ``empty="raise"``.

    References
    ----------
    .. [1] S. Sagawa, P. W. Koh, T. B. Hashimoto and P. Liang, "Distributionally Robust Neural
       Networks for Group Shifts", ICLR 2020, arXiv:1911.08731, appendix C.1.

    Examples
    --------
    >>> from skspurious.metrics import adjusted_accuracy
    >>> y_true, y_pred, group = [0, 0, 1, 1], [0, 0, 0, 1], ["a", "a", "b", "b"]
    >>> adjusted_accuracy(y_true, y_pred, sample_group=group, group_sizes={"a": 90, "b": 10})
    0.95
    """
    check_empty(empty)
    sizes = training_sizes(train_group, group_sizes)
    if sizes is None:
        raise ValueError(
            "adjusted_accuracy needs the training mix: give train_group= (the group of every "
            "training sample) or group_sizes= (the size of every group)."
        )
    if isinstance(sample_group, OverlappingGroups | Mapping):
        raise ValueError(
            "The adjusted accuracy is a mean over groups that divide the samples; sample_group "
            "overlaps. Take group_accuracy, or accuracy_score for the mean over the samples."
        )
    accuracy, values = _accuracies(y_true, y_pred, sample_group, None, None, empty)
    position = {value: i for i, value in enumerate(values.tolist())}
    missing = [group for group, size in sizes.items() if size > 0 and group not in position]
    if missing and empty == "raise":
        raise empty_error(missing)
    means = [accuracy[position[group]] if group in position else np.nan for group in sizes]
    return adjusted_mean(means, list(sizes.values()))


def _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty):
    """Accuracy of each group, and the values of the groups."""
    correct = is_correct(y_true, y_pred)
    members = find_members(sample_group, len(correct), groups, sample_weight, empty)
    rows, group, values, weight, _ = members
    return group_means(correct[rows], group, len(values), sample_weight=weight), values
