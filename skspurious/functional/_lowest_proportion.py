"""An interval for the lowest of several proportions, of which each is known from a sample."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc, expit

__all__ = ["lowest_proportion_interval"]

Array = NDArray[np.float64]

_N_HALVINGS = 60
_FARTHEST = 40.0  # logit between which an end is looked for


def lowest_proportion_interval(
    n_success: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[float, float]:
    r"""Interval for the lowest of several proportions.

    The lowest of the observed proportions is too low: one of many groups is low by chance. The
    interval inverts a test of :math:`\min_g p_g = t` by the distribution of the lowest observed
    proportion :math:`m = \min_g k_g / n_g` when every group is drawn anew. That is the stratified
    parametric bootstrap, whose distribution is known here: with binomial counts
    :math:`K_g \sim B(n_g, p_g(t))`,

    .. math::
        P_t(M \ge m) = \prod_g P(K_g \ge m n_g).

    The other proportions are estimated by :math:`\tilde p_g = (k_g + 1/2) / (n_g + 1)`. For the
    upper end all below :math:`t` are raised to it, so that it allows for a lowest of many; if none
    is below, the lowest is lowered. For the lower end one group has :math:`t`, the one for which
    the end is lowest: a tiny perfect group may be the worst one. Both tails use mid-p values,
    for counts are few.

    Parameters
    ----------
    n_success, n : array-like of shape (n_groups,)
        Number of successes, and of trials, at least one.
    confidence : float, default=0.95
        Two-sided confidence level, in (0, 1).

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If `confidence` is not in (0, 1), a group has no trials, or `n_success` is not in 0 to `n`.

    Examples
    --------
    >>> from skspurious.functional import lowest_proportion_interval
    >>> low, high = lowest_proportion_interval([80], [100])
    >>> round(low, 2), round(high, 2)
    (0.71, 0.87)
    >>> low, high = lowest_proportion_interval([80] * 16, [100] * 16)
    >>> round(low, 2), round(high, 2)
    (0.8, 0.9)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), for instance 0.95; got {confidence}.")
    k, n = np.asarray(n_success, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if np.any(n < 1) or np.any(k < 0) or np.any(k > n):
        raise ValueError("Every group needs a trial, and n_success between 0 and n.")
    tail = (1.0 - confidence) / 2.0
    others = (k + 0.5) / (n + 1.0)
    least = (k / n).min()

    def is_too_low(t: Array) -> NDArray[np.bool_]:
        """Of each group, whether it cannot have the lowest proportion t."""
        at_least, above = _tails(least, n, others)
        own = [_exclusive_product(p) * q for p, q in zip((at_least, above), _tails(least, n, t))]
        return (own[0] + own[1]) / 2.0 < tail

    def is_too_high(t: Array) -> NDArray[np.bool_]:
        p = np.maximum(others, t)
        p[others.argmin()] = t[0]
        at_least, above = (part.prod() for part in _tails(least, n, p))
        return np.array([1.0 - (at_least + above) / 2.0 < tail])

    low = _boundary(is_too_low, len(k)).min() if least > 0 else 0.0
    high = _boundary(lambda t: ~is_too_high(t), 1)[0] if least < 1 else 1.0
    return float(min(low, least)), float(max(high, least))


def _tails(least: float, n: Array, p: Array) -> tuple[Array, Array]:
    """P(K / n >= least) and P(K / n > least) of binomial counts."""
    first, last = np.ceil(least * n - 1e-9), np.floor(least * n + 1e-9)
    at_least = np.where(first > 0, bdtrc(np.maximum(first - 1, 0), n.astype(int), p), 1.0)
    return at_least, bdtrc(last, n.astype(int), p)


def _exclusive_product(values: Array) -> Array:
    """Of every entry the product of all others."""
    left = np.concatenate([[1.0], np.cumprod(values)[:-1]])
    right = np.concatenate([[1.0], np.cumprod(values[::-1])[:-1]])[::-1]
    return left * right


def _boundary(is_below: Callable[[Array], NDArray[np.bool_]], size: int) -> Array:
    """Where a condition that holds below ends, by halving on the scale of the logit."""
    low, high = np.full(size, -_FARTHEST), np.full(size, _FARTHEST)
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2.0
        below = is_below(expit(middle))
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return expit(high)
