"""Splits that keep every stratum on both sides, and subsets that balance groups."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skspurious.functional._arguments import codes, number, takes

__all__ = ["balanced_subset", "stratified_split"]


@takes(group=codes())
def balanced_subset(group: ArrayLike, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose as many rows of every group as the smallest group has.

    Parameters
    ----------
    group : array-like of shape (n_samples,), int
        Group of every row, ids from 0. Ids that do not occur count as no group.
    rng : numpy.random.Generator
        Decides which rows of a group are chosen: without replacement, all equally likely.

    Returns
    -------
    rows : ndarray of int64
        Sorted.

    Raises
    ------
    ValueError
        If there are no rows.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.functional import balanced_subset
    >>> group = np.array([0, 0, 0, 0, 2, 2])
    >>> group[balanced_subset(group, np.random.default_rng(0))]
    array([0, 0, 2, 2])
    """
    group = np.asarray(group)
    order = rng.permutation(len(group))
    if len(group) == 0:
        raise ValueError("group has 0 rows; a balanced subset needs at least one.")
    sizes = np.bincount(group)
    n_kept = sizes[sizes > 0].min()
    # Rank of each row within its group, in the permuted order.
    by_group = order[np.argsort(group[order], kind="stable")]
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.arange(len(group)) - start
    return np.sort(by_group[rank < n_kept])


@takes(strata=codes(None), fraction=number)
def stratified_split(
    strata: ArrayLike, fraction: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split samples in two so that no stratum of two or more samples misses a side.

    Parameters
    ----------
    strata : array-like of shape (n_samples,)
        Stratum of each sample, for instance the group; ids may have gaps.
    fraction : float
        Share of the samples that goes to validation, in (0, 1).
    rng : numpy.random.Generator
        Decides which samples of a stratum go where.

    Returns
    -------
    train_index, valid_index : ndarrays of int64
        Sorted and disjoint; together all samples.

    Raises
    ------
    ValueError
        If ``fraction`` is not in (0, 1) or ``strata`` is not one-dimensional.

    Notes
    -----
    A stratum of n samples gives ``fraction * n`` of them to validation, rounded so that the
    total is right (largest remainders), but at least 1 and at most n - 1. A stratum with one
    sample stays in training. So with many tiny strata the validation part is larger than
    ``fraction``, with many singletons smaller. scikit-learn's ``StratifiedShuffleSplit`` refuses
    strata of one sample, and may leave small ones out of a side.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.functional import stratified_split
    >>> strata = np.repeat([0, 1, 2], [90, 8, 2])
    >>> train, valid = stratified_split(strata, 0.2, np.random.default_rng(0))
    >>> np.bincount(strata[train]), np.bincount(strata[valid])
    (array([72,  7,  1]), array([18,  1,  1]))
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), for instance 0.1; got {fraction}.")
    strata = np.asarray(strata)
    if strata.ndim != 1:
        raise ValueError(f"strata must have shape (n_samples,); got {strata.shape}.")
    _, stratum, size = np.unique(strata, return_inverse=True, return_counts=True)
    n_valid = _allocate(size, fraction)
    # Rank of each sample within its stratum under a random order.
    order = np.lexsort((rng.random(len(stratum)), stratum))
    start = np.cumsum(size) - size
    rank = np.empty(len(stratum), dtype=np.int64)
    rank[order] = np.arange(len(stratum)) - np.repeat(start, size)
    is_valid = rank < n_valid[stratum]
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)


def _allocate(size: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Validation samples per stratum: near ``fraction * size``, between 1 and size - 1."""
    ideal = fraction * size
    lowest, highest = np.minimum(1, size - 1), size - 1
    n_valid = np.clip(np.floor(ideal).astype(np.int64), lowest, highest)
    missing = round(fraction * float(size.sum())) - int(n_valid.sum())
    while missing > 0 and np.any(n_valid < highest):
        by_remainder = np.argsort(-(ideal - n_valid), kind="stable")
        by_remainder = by_remainder[n_valid[by_remainder] < highest[by_remainder]][:missing]
        n_valid[by_remainder] += 1
        missing -= len(by_remainder)
    return n_valid
