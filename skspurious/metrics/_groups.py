"""The worst group of any metric, accuracies per group, and the adjusted accuracy."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import unique_labels

from skspurious.data import encode_groups
from skspurious.functional._metrics import adjusted_mean, group_counts, group_means
from skspurious.metrics._named import get_metric

__all__ = [
    "adjusted_accuracy",
    "group_accuracy",
    "group_metric",
    "worst_group",
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
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups. A group whose weights sum to 0 is empty.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, for instance ``clf.groups_``. By default those that occur in
        ``sample_group``.
    empty : {"raise", "nan"}, default="raise"
        What an expected group without samples does: raise a ValueError, or make the result NaN,
        because the worst group is then not known. It never counts as 0.

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
    worst_group : The worst group of another metric.

    Examples
    --------
    >>> from skspurious.metrics import worst_group_accuracy
    >>> y_true, y_pred = [0, 0, 0, 1, 1], [0, 0, 1, 1, 0]
    >>> worst_group_accuracy(y_true, y_pred, sample_group=["a", "a", "a", "b", "b"])
    0.5
    """
    accuracy = _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty)[0]
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
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect. By default those that occur.
    empty : {"raise", "nan"}, default="raise"
        What an expected group without samples does.

    Returns
    -------
    error : float

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
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, in the order of the result. By default those that occur, sorted.
    empty : {"raise", "nan"}, default="raise"
        What an expected group without samples does: raise a ValueError, or get NaN.

    Returns
    -------
    accuracy : Series of shape (n_groups,)
        Indexed by group.

    Examples
    --------
    >>> from skspurious.metrics import group_accuracy
    >>> group_accuracy([0, 0, 1, 1], [0, 0, 0, 1], sample_group=["a", "a", "b", "b"])
    group
    a    1.0
    b    0.5
    Name: accuracy, dtype: float64
    """
    accuracy, _, values = _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty)
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
        What a training group without an evaluated sample does: raise a ValueError, or make the
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
    accuracy, _, values = _accuracies(y_true, y_pred, sample_group, None, None, empty)
    position = {value: i for i, value in enumerate(values.tolist())}
    missing = [group for group, size in sizes.items() if size > 0 and group not in position]
    if missing and empty == "raise":
        raise empty_error(missing)
    means = [accuracy[position[group]] if group in position else np.nan for group in sizes]
    return adjusted_mean(means, list(sizes.values()))


def worst_group(
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
        What the metric compares them with: predicted classes, scores or probabilities.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect. By default those that occur.
    empty : {"raise", "nan"}, default="raise"
        What a group does that has no samples, or on which the metric is not defined.
    greater_is_better : bool, default=None
        Whether the worst value is the smallest. None means what the name says, and True for a
        callable.
    labels : array-like of shape (n_classes,), default=None
        The classes, in the order of the columns of ``y_pred``. By default those of ``y_true``,
        sorted. Of two, the second is the positive class.
    **metric_params : dict
        Further keywords of the metric.

    Returns
    -------
    value : float
        Of a loss, the largest.

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
    >>> from skspurious.metrics import worst_group
    >>> y_true, proba = [0, 1, 0, 1], [0.2, 0.9, 0.8, 0.6]
    >>> worst_group("roc_auc", y_true, proba, sample_group=["field", "field", "lake", "lake"])
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
        As for :func:`worst_group`.
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_classes)
        Predicted classes, scores or probabilities.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples within their groups.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, in the order of the result. By default those that occur, sorted.
    empty : {"raise", "nan"}, default="raise"
        What a group does that has no samples, or on which the metric is not defined.
    labels : array-like of shape (n_classes,), default=None
        The classes. By default those of ``y_true``, sorted.
    **metric_params : dict
        Further keywords of the metric.

    Returns
    -------
    values : Series of shape (n_groups,)
        Indexed by group.

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
    y_true = column_or_1d(y_true)
    y_pred = np.asarray(y_pred)
    if metric.takes_classes:
        y_pred = _check_predicted_classes(y_true, y_pred)
    check_consistent_length(y_true, y_pred, sample_weight)
    group, values = _encode(sample_group, len(y_true), groups)
    weight = None if sample_weight is None else column_or_1d(sample_weight).astype(np.float64)
    counts = group_counts(group, len(values), sample_weight=weight)
    if empty == "raise" and np.any(counts == 0):
        raise empty_error(values[counts == 0])
    labels = np.unique(y_true) if labels is None else np.asarray(labels)

    rows = np.split(
        np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=len(values)))[:-1]
    )
    result = np.full(len(values), np.nan)
    for g in np.flatnonzero(counts > 0):
        index = rows[g]
        part = {} if weight is None else {"sample_weight": weight[index]}
        try:
            result[g], why = _on_one_group(
                metric, y_true[index], y_pred[index], labels, {**metric_params, **part}
            )
        except ValueError as error:
            raise ValueError(
                f"{metric.name} failed on group {values.tolist()[g]!r} ({len(index)} samples): "
                f"{error}"
            ) from error
        if why is not None and empty == "raise":
            raise ValueError(
                f"{metric.name} is not defined on group {values.tolist()[g]!r} ({len(index)} "
                f"samples, classes {np.unique(y_true[index]).tolist()[:10]}): {why}. A group that "
                "crosses label and attribute holds one class only: pass the spurious attribute "
                "alone as sample_group, choose a metric such as 'accuracy' or 'log_loss', or pass "
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


# --------------------------------------------------------------------------------------
# Shared with the reports


def check_empty(empty):
    """Compare ``empty`` with its allowed values."""
    if empty not in ("raise", "nan"):
        raise ValueError(f"empty must be 'raise' or 'nan'; got {empty!r}.")


def is_correct(y_true, y_pred):
    """Whether each predicted class is right, after checks that they are comparable."""
    y_true, y_pred = column_or_1d(y_true), np.asarray(y_pred)
    y_pred = _check_predicted_classes(y_true, y_pred)
    check_consistent_length(y_true, y_pred)
    return np.asarray(y_true == y_pred, dtype=bool)


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


def _accuracies(y_true, y_pred, sample_group, sample_weight, groups, empty):
    """Accuracies, counts and values of the groups."""
    check_empty(empty)
    correct = is_correct(y_true, y_pred)
    group, values = _encode(sample_group, len(correct), groups)
    weight = None
    if sample_weight is not None:
        weight = column_or_1d(sample_weight).astype(np.float64)
        check_consistent_length(correct, weight)
    counts = group_counts(group, len(values), sample_weight=weight)
    if empty == "raise" and np.any(counts == 0):
        raise empty_error(values[counts == 0])
    return group_means(correct, group, len(values), sample_weight=weight), counts, values


def _encode(sample_group, n_samples, groups):
    if n_samples == 0:
        raise ValueError("y_true has 0 samples; a group metric needs at least one.")
    if sample_group is None:
        raise ValueError("sample_group is None; give the group of every sample.")
    return encode_groups(sample_group, n_samples=n_samples, groups=groups)


def empty_error(groups):
    groups = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    return ValueError(
        f"{len(groups)} expected group(s) have no samples, or only weight 0: {groups[:10]}. "
        "Evaluate on samples of every group, name only those that occur, or pass empty='nan'."
    )


def _check_predicted_classes(y_true, y_pred):
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
