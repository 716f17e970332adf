"""Any metric, computed on the rows of each group alone: on all groups, or on the worst."""

import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length

from skspurious.metrics._accuracy import group_accuracy
from skspurious.metrics._checks import (
    check_empty,
    check_labels,
    check_predicted_classes,
    find_members,
    group_index,
)
from skspurious.metrics._named import get_metric
from skspurious.utils._rows import as_column

__all__ = ["group_metric", "worst_group_metric"]


def worst_group_metric(
    metric,
    y_true,
    y_pred,
    *,
    sample_group,
    sample_weight=None,
    groups=None,
    empty="raise",
    greater_is_better=None,
    labels=None,
    **metric_params,
):
    """Value of any metric on the group where it is worst.

    Parameters
    ----------
    metric : str or callable
        A name (``"accuracy"``, ``"balanced_accuracy"``, ``"zero_one_loss"``, ``"f1"``,
        ``"f1_macro"``, ``"f1_micro"``, ``"f1_weighted"``, the same for ``"precision"`` and
        ``"recall"``, ``"matthews_corrcoef"``, ``"roc_auc"``, ``"roc_auc_ovr"``,
        ``"roc_auc_ovo"``, ``"average_precision"``, ``"log_loss"``), or a callable
        ``metric(y_true, y_pred, **metric_params)`` that also takes ``sample_weight`` if weights
        are given. It is computed on the rows of each group alone.
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_classes)
        What the metric compares with the true classes: predicted classes, scores or
        probabilities.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect. By default those that occur.
    empty : {"raise", "nan"}, default="raise"
        What to do with a group that has no samples, or on which the metric is not defined: raise
        a ValueError, or count it as NaN.
    greater_is_better : bool, default=None
        Whether the worst value is the smallest. None takes what a named metric says, and True for
        a callable.
    labels : array-like of shape (n_classes,), default=None
        The classes, in the order of the columns of ``y_pred``. By default those of ``y_true``,
        sorted. Of two, the second is the positive class.
    **metric_params : dict
        Further keywords of the metric.

    Returns
    -------
    value : float
        The smallest value over the groups; of a loss, the largest.

    Raises
    ------
    ValueError
        If a group is empty or the metric is not defined on it, and ``empty="raise"``.

    Notes
    -----
    Metrics that compare classes (F1, ROC AUC, ...) are not defined on a group that holds one
    class, and a group that crosses label and attribute holds only one. Pass the spurious
    attribute alone as ``sample_group`` for these.

    Examples
    --------
    >>> from skspurious.metrics import worst_group_metric
    >>> y_true, proba = [0, 1, 0, 1], [0.2, 0.9, 0.8, 0.6]
    >>> groups = ["field", "field", "lake", "lake"]
    >>> worst_group_metric("roc_auc", y_true, proba, sample_group=groups)
    0.0
    """
    metric = get_metric(metric, greater_is_better)
    values = group_metric(
        metric,
        y_true,
        y_pred,
        sample_group=sample_group,
        sample_weight=sample_weight,
        groups=groups,
        empty=empty,
        labels=labels,
        **metric_params,
    ).to_numpy()
    return float(values.min() if metric.greater_is_better else values.max())


def group_metric(
    metric,
    y_true,
    y_pred,
    *,
    sample_group,
    sample_weight=None,
    groups=None,
    empty="raise",
    labels=None,
    **metric_params,
):
    """Value of any metric on every group.

    Parameters
    ----------
    metric : str or callable
        A name or a callable, as for :func:`worst_group_metric`.
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_classes)
        Predicted classes, scores or probabilities.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, in the order of the result. By default those that occur, sorted.
    empty : {"raise", "nan"}, default="raise"
        What to do with a group that has no samples, or on which the metric is not defined: raise
        a ValueError, or count it as NaN.
    labels : array-like of shape (n_classes,), default=None
        The classes, in the order of the columns of ``y_pred``. By default those of ``y_true``,
        sorted.
    **metric_params : dict
        Further keywords of the metric.

    Returns
    -------
    values : Series of shape (n_groups,)
        Indexed by group.

    Raises
    ------
    ValueError
        If a group is empty or the metric is not defined on it, and ``empty="raise"``; or if the
        metric itself raises, with the group in the message.

    Examples
    --------
    >>> from skspurious.metrics import group_metric
    >>> y_true, y_pred = [0, 1, 0, 1], [0, 1, 1, 1]
    >>> group_metric("recall_macro", y_true, y_pred, sample_group=["a", "a", "b", "b"])
    group
    a    1.0
    b    0.5
    Name: recall_macro, dtype: float64
    """
    check_empty(empty)
    metric = get_metric(metric)
    if metric == get_metric("accuracy") and not metric_params:
        return group_accuracy(
            y_true,
            y_pred,
            sample_group=sample_group,
            sample_weight=sample_weight,
            groups=groups,
            empty=empty,
        )
    y_true = check_labels(y_true, "y_true")
    y_pred = as_column(y_pred, "y_pred")
    if metric.takes_classes:
        y_pred = check_predicted_classes(y_true, y_pred)
    check_consistent_length(y_true, y_pred)
    members = find_members(sample_group, len(y_true), groups, sample_weight, empty)
    rows, group, values, weight, counts = members
    labels = np.unique(y_true) if labels is None else np.asarray(labels)

    starts = np.cumsum(np.bincount(group, minlength=len(values)))[:-1]
    entries = np.split(np.argsort(group, kind="stable"), starts)
    result = np.full(len(values), np.nan)
    for g in np.flatnonzero(counts > 0):
        index = rows[entries[g]]
        weights = {} if weight is None else {"sample_weight": weight[entries[g]]}
        name = f"group {values.tolist()[g]!r} ({len(index)} samples"
        kwargs = metric_params | weights
        try:
            result[g], why = _on_one_group(metric, y_true[index], y_pred[index], labels, kwargs)
        except ValueError as error:
            raise ValueError(f"{metric.name} failed on {name}): {error}") from error
        if why is not None and empty == "raise":
            raise ValueError(
                f"{metric.name} is not defined on {name}, classes "
                f"{np.unique(y_true[index]).tolist()[:10]}): {why}. A group that crosses label and "
                "attribute holds one class only: pass the spurious attribute alone as "
                "sample_group, choose a metric such as 'accuracy' or 'log_loss', or pass "
                "empty='nan'."
            )
    return pd.Series(result, index=group_index(values, sample_group), name=metric.name)


def _on_one_group(metric, y_true, y_pred, labels, kwargs):
    """Value on the rows of one group, or NaN and the reason why there is none."""
    n_present = len(np.unique(y_true))
    needed = {"any": 1, "two": 2, "all": max(2, len(labels))}[metric.n_classes]
    if n_present < needed:
        return np.nan, f"it needs {needed} classes and the group has {n_present}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)
        try:
            value = float(metric.call(y_true, y_pred, labels, **kwargs))
        except UndefinedMetricWarning as warning:
            return np.nan, str(warning).rstrip(".")
    return (value, None) if not np.isnan(value) else (value, "the metric returned NaN")
