"""Optimal k-means of numbers, by dynamic programming."""

from collections.abc import Callable

import numpy as np

__all__ = ["kmeans_1d"]


def kmeans_1d(
    position: np.ndarray, max_clusters: int, *, sample_count: np.ndarray | None = None
) -> list[np.ndarray]:
    """Optimal k-means of numbers, for every k up to `max_clusters` at once.

    In one dimension every optimal cluster is an interval of the sorted values, so dynamic
    programming over the cuts finds the global optimum: no seeds, no restarts.

    Parameters
    ----------
    position : ndarray of shape (n_samples,)
        The numbers.
    max_clusters : int
        Largest number of clusters, at most the number of distinct values.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each number counts; None is once.

    Returns
    -------
    centers : list of ndarray
        ``centers[k - 1]`` has shape (k,) and is sorted, float64.

    Raises
    ------
    ValueError
        If there are fewer distinct numbers than clusters.

    Notes
    -----
    Cost O(k n log n): the best last cut grows with the end of the interval, so each layer is
    filled by halving.

    References
    ----------
    H. Wang, M. Song. "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic
    Programming." The R Journal 3(2), 2011.

    Examples
    --------
    >>> kmeans_1d(np.array([0.0, 0.2, 5.0, 9.0]), 3)[2]
    array([0.1, 5. , 9. ])
    """
    values, inverse = np.unique(position, return_inverse=True)
    weight = np.bincount(inverse.ravel(), weights=sample_count).astype(np.float64)
    n = len(values)
    if max_clusters > n:
        raise ValueError(
            f"max_clusters={max_clusters} is larger than the number of distinct values {n}: "
            "lower it."
        )
    offset = np.average(values, weights=weight)
    centered = values - offset
    prefix = np.zeros((3, n + 1))
    moments = np.stack([weight, weight * centered, weight * centered**2])
    np.cumsum(moments, axis=1, out=prefix[:, 1:])

    def cost(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        w, wx, wxx = prefix[:, stop] - prefix[:, start]
        return np.maximum(wxx - wx**2 / w, 0.0)

    # error[e] is the least cost of values[:e] in k intervals, cut[k - 1][e] where the last begins
    end = np.arange(1, n + 1)
    error = np.concatenate([[0.0], cost(np.zeros(n, dtype=np.int64), end)])
    cuts = [np.zeros(n + 1, dtype=np.int64)]
    for k in range(2, max_clusters + 1):
        error, cut = _fill_layer(error, cost, k, n)
        cuts.append(cut)

    result = []
    for k in range(1, max_clusters + 1):
        edge = np.empty(k + 1, dtype=np.int64)
        edge[k] = n
        for i in range(k, 0, -1):
            edge[i - 1] = cuts[i - 1][edge[i]]
        w, wx = np.diff(prefix[:2, edge], axis=1)
        result.append(wx / w + offset)
    return result


def _fill_layer(
    error: np.ndarray, cost: Callable[[np.ndarray, np.ndarray], np.ndarray], k: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least cost and best last cut of every prefix in k intervals, one halving level at a time."""
    new_error = np.full(n + 1, np.inf)
    cut = np.zeros(n + 1, dtype=np.int64)
    first, last = np.array([k]), np.array([n])  # prefixes still to fill, as ranges of their ends
    lowest, highest = np.array([k - 1]), np.array([n - 1])  # and the range of their best cut
    while len(first):
        middle = (first + last) // 2
        stop = np.minimum(highest, middle - 1)
        length = stop - lowest + 1
        begin = np.concatenate([[0], np.cumsum(length)[:-1]])
        start = np.arange(length.sum()) - np.repeat(begin - lowest, length)
        total = error[start] + cost(start, np.repeat(middle, length))
        least = np.minimum.reduceat(total, begin)
        hit = np.flatnonzero(total == np.repeat(least, length))
        best = start[hit[np.searchsorted(hit, begin)]]  # the first of equals
        new_error[middle], cut[middle] = least, best
        first, last, lowest, highest = (
            np.concatenate(pair)
            for pair in (
                (first, middle + 1),
                (middle - 1, last),
                (lowest, best),
                (best, highest),
            )
        )
        open_ = first <= last
        first, last, lowest, highest = (a[open_] for a in (first, last, lowest, highest))
    return new_error, cut
