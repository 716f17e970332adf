"""Sample weights that balance groups, for any estimator that takes weights."""

from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight

from skspurious.data import encode_groups
from skspurious.utils._rows import as_labels

__all__ = ["group_sample_weight"]


def group_sample_weight(y, sample_group):
    r"""Weights under which every (class, group) has the same total weight.

    :math:`w_i = n / (m \, n_{g_i})` with :math:`m` the number of (class, group) pairs that occur
    and :math:`n_g` their sizes, so the mean weight is 1. ``sample_weight`` is the one per-sample
    array that scikit-learn hands to ``fit`` everywhere, so this balances the groups for any of
    its estimators.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample, or its spurious attribute alone: it is crossed with the class,
        which changes nothing where it contains the class already.

    Returns
    -------
    sample_weight : ndarray of shape (n_samples,), dtype float64

    Raises
    ------
    ValueError
        If the lengths differ or a value is missing.

    Examples
    --------
    >>> from skspurious.metrics import group_sample_weight
    >>> group_sample_weight([0, 0, 0, 1], ["grass", "grass", "sand", "sand"])
    array([0.66666667, 0.66666667, 1.33333333, 1.33333333])
    """
    label, _ = encode_groups(column_or_1d(as_labels(y, "y")), name="y")
    if len(label) == 0:
        raise ValueError("y has 0 samples; weights that balance groups need at least one.")
    group, groups = encode_groups(sample_group, n_samples=len(label))
    return compute_sample_weight("balanced", label * len(groups) + group)
