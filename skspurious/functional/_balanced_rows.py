"""Samples among which clusters say nothing about the class."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["balanced_rows", "cluster_class_counts", "mixed_cells"]


def cluster_class_counts(
    cluster: ArrayLike,
    label: ArrayLike,
    *,
    n_classes: int | None = None,
) -> np.ndarray:
    """Number of samples of every class in every cluster.

    Parameters
    ----------
    cluster : array-like of shape (n_samples,), int
        Clusters 0 to n_clusters-1.
    label : array-like of shape (n_samples,), int
        Classes 0 to n_classes-1.
    n_classes : int, default=None
        Number of classes. None takes the largest code plus 1.

    Returns
    -------
    counts : ndarray of shape (n_clusters, n_classes), int64
        Row k is cluster k and column c is class c, also where they have no samples.

    Raises
    ------
    ValueError
        If the two do not have one number for every sample, or there is no sample.

    Examples
    --------
    >>> cluster_class_counts([0, 0, 0, 1], [0, 0, 1, 1])
    array([[2, 1],
           [0, 1]])
    """
    cluster, label = np.asarray(cluster, dtype=np.int64), np.asarray(label, dtype=np.int64)
    if cluster.ndim != 1 or cluster.shape != label.shape or len(cluster) == 0:
        raise ValueError(
            f"cluster has shape {cluster.shape} and label {label.shape}: give one of each for "
            "every sample."
        )
    # contingency_matrix of scikit-learn leaves out codes without samples, and rows would move up.
    n_clusters = int(cluster.max()) + 1
    n_classes = int(label.max()) + 1 if n_classes is None else n_classes
    counts = np.bincount(cluster * n_classes + label, minlength=n_clusters * n_classes)
    return counts.reshape(n_clusters, n_classes)


def mixed_cells(counts: np.ndarray, *, min_cell_size: int = 1) -> np.ndarray:
    """Which cells, of a class in a cluster, are in clusters of two classes or more.

    Parameters
    ----------
    counts : ndarray of shape (n_clusters, n_classes)
        Samples of every class in every cluster.
    min_cell_size : int, default=1
        Fewest samples of a cell that counts.

    Returns
    -------
    is_mixed : bool ndarray of shape (n_clusters, n_classes)

    Examples
    --------
    >>> import numpy as np
    >>> mixed_cells(np.array([[9, 2, 0], [0, 5, 0], [4, 4, 4]]))
    array([[ True,  True, False],
           [False, False, False],
           [ True,  True,  True]])
    """
    is_cell = counts >= max(min_cell_size, 1)
    return is_cell & (is_cell.sum(1, keepdims=True) >= 2)


def balanced_rows(
    cluster: ArrayLike,
    label: ArrayLike,
    rng: np.random.Generator,
    *,
    balance: str = "within_cluster",
    min_cell_size: int = 1,
    max_cell_size: int | None = None,
) -> np.ndarray:
    """Choose rows so that clusters say nothing about the class.

    A cell is what a cluster has of one class. There are three ways to choose:

    - "within_cluster" [1]_: of each cluster with two classes or more, every class gives as many
      samples as the smallest cell of the cluster has. Clusters of one class are left out. A class
      that is in no other cluster gives as many samples as the other classes do on average.
    - "cell": every cell gives the same number, the median size of the cells unless
      ``max_cell_size`` is given. A cell that has fewer gives some of its samples several times.
    - "random", for comparison: clusters are ignored. Every class gives as many samples, at
      random, as it does on average with "within_cluster"; where that finds none, as many as the
      smallest class has.

    Parameters
    ----------
    cluster : array-like of shape (n_samples,), int
        Clusters 0 to n_clusters-1.
    label : array-like of shape (n_samples,), int
        Classes 0 to n_classes-1.
    rng : numpy.random.Generator
        Draws the samples.
    balance : {"within_cluster", "cell", "random"}, default="within_cluster"
        How rows are chosen, see above.
    min_cell_size : int, default=1
        Fewest samples of a cell that counts.
    max_cell_size : int, default=None
        Most samples that are taken of a cell. None sets no limit.

    Returns
    -------
    rows : ndarray, int64
        Sorted; none comes twice, except with "cell".

    Raises
    ------
    ValueError
        If ``balance`` is unknown, or cluster and label do not have one number for every sample.

    References
    ----------
    .. [1] P. Le, J. Schlötterer, C. Seifert, "Out of Spuriousity: Improving Robustness to
       Spurious Correlations without Group Annotations", TMLR 2025. arXiv:2407.14974.

    Examples
    --------
    >>> import numpy as np
    >>> cluster, label = np.repeat([0, 0, 1, 1, 2], [90, 10, 5, 45, 50]), np.repeat(
    ...     [0, 1, 0, 1, 0], [90, 10, 5, 45, 50]
    ... )
    >>> rows = balanced_rows(cluster, label, np.random.default_rng(0))
    >>> np.unique([cluster[rows], label[rows]], axis=1, return_counts=True)
    (array([[0, 0, 1, 1],
           [0, 1, 0, 1]]), array([10, 10,  5,  5]))
    """
    cluster, label = np.asarray(cluster, dtype=np.int64), np.asarray(label, dtype=np.int64)
    counts = cluster_class_counts(cluster, label)
    is_mixed = mixed_cells(counts, min_cell_size=min_cell_size)
    smallest = np.where(is_mixed, counts, len(label)).min(1, keepdims=True)
    quota = np.where(is_mixed, smallest, 0)
    if max_cell_size is not None:
        quota = np.minimum(quota, max_cell_size)
    cell = cluster * counts.shape[1] + label
    extra = np.empty(0, dtype=np.int64)
    if balance == "within_cluster":
        extra = _draw(label, _missing_classes(quota, np.bincount(label)), rng)
    elif balance == "cell":
        is_cell = counts >= max(min_cell_size, 1)
        typical = np.ceil(np.median(counts[is_cell])) if is_cell.any() else 0
        quota = is_cell * int(typical if max_cell_size is None else max_cell_size)
    elif balance == "random":
        size = np.bincount(label)
        size = size[size > 0]
        n_each = min(round(quota.sum() / len(size)) or size.min(), size.min())
        cell, quota = label, np.where(np.bincount(label) > 0, n_each, 0)
    else:
        raise ValueError(f"balance must be 'within_cluster', 'cell' or 'random'; got {balance!r}.")
    return np.sort(np.concatenate([_draw(cell, quota.ravel(), rng), extra]))


def _missing_classes(quota: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Samples for the classes that no mixed cluster has: as many as the others have on average."""
    total = quota.sum(0)
    if not total.any():
        return np.zeros_like(size)
    return np.where(total == 0, np.minimum(size, round(total[total > 0].mean())), 0)


def _draw(part: np.ndarray, quota: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows of every part as its quota says, again and again if it has fewer."""
    order = np.lexsort((rng.random(len(part)), part))
    size = np.bincount(part, minlength=len(quota))
    start = np.cumsum(size) - size
    quota = np.where(size > 0, quota, 0)
    first = np.repeat(np.cumsum(quota) - quota, quota)
    place = np.arange(quota.sum()) - first
    return order[np.repeat(start, quota) + place % np.repeat(size, quota)]
