"""Per-group sums, means and intervals: pure functions on arrays of group indices."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from skspurious.functional._arguments import array, codes, count, number, takes

__all__ = ["adjusted_mean", "group_counts", "group_means", "wilson_interval"]


@takes(
    group=codes(), n_groups=count, sample_weight=array(1, lowest=0), rows=("group", "sample_weight")
)
def group_counts(
    group: ArrayLike, n_groups: int, *, sample_weight: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Count the samples of each group, or add up their weights.

    Parameters
    ----------
    group : array-like of shape (n_samples,)
        Group index of each sample, in 0 to ``n_groups - 1``.
    n_groups : int
        Number of groups. A group that does not occur keeps its place, with count 0.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights; by default each sample counts 1.

    Returns
    -------
    counts : ndarray of shape (n_groups,), dtype float64

    Raises
    ------
    ValueError
        If an index lies outside 0 to ``n_groups - 1``.

    Examples
    --------
    >>> from skspurious.functional import group_counts
    >>> group_counts([0, 2, 2], 3)
    array([1., 0., 2.])
    """
    group = _check_index(group, n_groups)
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    return np.bincount(group, weights=weight, minlength=n_groups).astype(np.float64)


@takes(
    values=array(1),
    group=codes(),
    n_groups=count,
    sample_weight=array(1, lowest=0),
    rows=("values", "group", "sample_weight"),
)
def group_means(
    values: ArrayLike,
    group: ArrayLike,
    n_groups: int,
    *,
    sample_weight: ArrayLike | None = None,
) -> NDArray[np.float64]:
    r"""Mean of the values in each group, NaN where a group has no samples.

    :math:`m_g = \sum_i w_i v_i [g_i = g] / \sum_i w_i [g_i = g]`

    Parameters
    ----------
    values : array-like of shape (n_samples,)
        What to average, for instance whether a prediction is right.
    group : array-like of shape (n_samples,)
        Group index of each sample, in 0 to ``n_groups - 1``.
    n_groups : int
        Number of groups.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights. A group whose weights sum to 0 counts as empty.

    Returns
    -------
    means : ndarray of shape (n_groups,), dtype float64

    Raises
    ------
    ValueError
        If an index lies outside 0 to ``n_groups - 1``.

    Examples
    --------
    >>> from skspurious.functional import group_means
    >>> group_means([True, False, True], [0, 2, 2], 3)
    array([1. , nan, 0.5])
    """
    values = np.asarray(values, dtype=np.float64)
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    counts = group_counts(group, n_groups, sample_weight=weight)
    weighted = values if weight is None else values * weight
    sums = np.bincount(_check_index(group, n_groups), weights=weighted, minlength=n_groups)
    means = np.full(n_groups, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def adjusted_mean(group_mean: ArrayLike, group_weight: ArrayLike) -> float:
    r"""Average the means of the groups under given group weights.

    :math:`\sum_g w_g m_g / \sum_g w_g` over the groups with :math:`w_g > 0`.

    Parameters
    ----------
    group_mean : array-like of shape (n_groups,)
        Mean of each group; NaN marks a group without samples.
    group_weight : array-like of shape (n_groups,)
        Non-negative weights, for instance the group sizes in training. They need not sum to 1.

    Returns
    -------
    mean : float
        NaN if a group of positive weight has no mean.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are 0.

    Examples
    --------
    >>> adjusted_mean([1.0, 0.5], [3, 1])
    0.875
    """
    mean = np.asarray(group_mean, dtype=np.float64)
    weight = np.asarray(group_weight, dtype=np.float64)
    if not np.all(np.isfinite(weight)) or np.any(weight < 0) or not np.any(weight > 0):
        raise ValueError(
            f"group_weight must be finite, at least 0, and positive for some group; got {weight}."
        )
    counts = weight > 0
    return float(np.average(mean[counts], weights=weight[counts]))


@takes(n_success=array(lowest=0), n=array(lowest=0), confidence=number)
def wilson_interval(
    n_success: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Wilson score interval of a proportion [1]_.

    With :math:`p` the observed proportion and :math:`z` the normal quantile,

    .. math::
        \frac{p + z^2/2n \pm z\sqrt{p(1 - p)/n + z^2/4n^2}}{1 + z^2/n}.

    It keeps an honest width for tiny and for perfect groups: 5 right of 5 is [0.57, 1].

    Parameters
    ----------
    n_success : array-like of shape (n_groups,)
        Number of successes.
    n : array-like of shape (n_groups,)
        Number of trials.
    confidence : float, default=0.95
        Two-sided confidence level, in (0, 1).

    Returns
    -------
    low, high : ndarrays of shape (n_groups,), dtype float64
        NaN where ``n`` is 0.

    Raises
    ------
    ValueError
        If ``confidence`` is not in (0, 1) or ``n_success`` is not in 0 to ``n``.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical
       inference", Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> from skspurious.functional import wilson_interval
    >>> low, high = wilson_interval([5, 50], [5, 100])
    >>> low.round(3), high.round(3)
    (array([0.566, 0.404]), array([1.   , 0.596]))
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), for instance 0.95; got {confidence}.")
    lengths = np.size(n_success), np.size(n)
    if np.ndim(n_success) and np.ndim(n) and lengths[0] != lengths[1]:
        raise ValueError(f"n_success and n differ in length: {lengths[0]} and {lengths[1]}.")
    k, n = np.broadcast_arrays(
        np.asarray(n_success, dtype=np.float64), np.asarray(n, dtype=np.float64)
    )
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("n_success must be between 0 and n.")
    # binomtest(...).proportion_ci(method="wilson") of SciPy takes one proportion at a time.
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    trials = np.where(n > 0, n, np.nan)
    p = k / trials
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # The ends are 0 and 1 exactly where nothing or everything succeeds; rounding must not show.
    low = np.where(k == 0, 0 * p, np.clip(centre - half, 0, 1))
    high = np.where(k == n, 1 + 0 * p, np.clip(centre + half, 0, 1))
    return low, high


def _check_index(group: ArrayLike, n_groups: int) -> NDArray[np.int64]:
    index = np.asarray(group)
    if index.size == 0:
        return np.zeros(0, dtype=np.int64)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(
            f"group must be a 1-D array of integers, as encode_groups gives it; got shape "
            f"{index.shape} and dtype {index.dtype}."
        )
    if index.min() < 0 or index.max() >= n_groups:
        raise ValueError(
            f"group must lie in 0 to {n_groups - 1} for n_groups={n_groups}; got values from "
            f"{index.min()} to {index.max()}."
        )
    return index.astype(np.int64, copy=False)
