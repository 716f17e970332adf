"""k-means that keeps tiny clusters: every row counts, through faiss."""

import math
from collections.abc import Sequence

import numpy as np

from skspurious.functional._rows import row_chunks

__all__ = [
    "assign_nearest",
    "kmeans_centers",
    "merge_small_clusters",
    "seed_centers",
    "squared_distances_to",
]

_SHORT_ITERATIONS = 4  # Lloyd iterations of every restart; only the best one goes on
_BLOCK_ITERATIONS = 10  # Lloyd iterations between two looks at the objective
_COORDINATE_LIMIT = 1e15  # squares of float32 coordinates stay finite below this


def seed_centers(
    X: np.ndarray,
    n_clusters: int,
    *,
    rng: np.random.Generator,
    sample_count: np.ndarray | None = None,
) -> np.ndarray:
    """Draw initial centers by greedy k-means++.

    Each center is a row drawn with probability proportional to its squared distance from the
    centers before it; of a few such draws the one that lowers the inertia most is kept. The
    first k of the centers are themselves a seeding for k clusters.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    n_clusters : int
        Number of centers, at most the number of rows.
    rng : numpy.random.Generator
        Source of the draws.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.

    Returns
    -------
    index : ndarray of shape (n_clusters,), int64
        Rows that are the centers, in the order they were drawn.

    References
    ----------
    D. Arthur, S. Vassilvitskii. "k-means++: The Advantages of Careful Seeding." SODA 2007.
    """
    n_trials = 2 + int(math.log(n_clusters))
    weight = np.ones(len(X)) if sample_count is None else sample_count.astype(np.float64)
    norm = np.einsum("ij,ij->i", X, X)
    index = np.empty(n_clusters, dtype=np.int64)
    index[0] = _draw_rows(weight, rng.random(1))[0]
    closest = _squared_distances(X, norm, index[:1])[:, 0]
    for i in range(1, n_clusters):
        share = closest if sample_count is None else closest * weight
        trial = _draw_rows(share, rng.random(n_trials))
        candidate = _squared_distances(X, norm, trial)
        np.minimum(candidate, closest[:, None], out=candidate)
        inertia = sum(weight[part] @ candidate[part] for part in row_chunks(*X.shape))
        best = int(np.argmin(inertia))
        index[i], closest = trial[best], candidate[:, best]
    return index


def kmeans_centers(
    X: np.ndarray,
    n_clusters: int,
    *,
    seeds: Sequence[np.ndarray] | None = None,
    n_init: int = 10,
    max_iter: int = 300,
    sample_count: np.ndarray | None = None,
    random_state: int = 0,
    use_gpu: bool = False,
) -> np.ndarray:
    """Centers of k-means by faiss on all rows, without its subsampling.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows; computed in float32, so center and scale them before.
    n_clusters : int
        Number of clusters k.
    seeds : sequence of ndarray of shape (>= n_clusters,), default=None
        Row indices of initial centers, one array a restart, of which the first k are used;
        None draws `n_init` of them with :func:`seed_centers`.
    n_init : int, default=10
        Number of restarts when `seeds` is None. Every restart runs a few Lloyd iterations, the
        one with the lowest inertia runs until it stops improving.
    max_iter : int, default=300
        Largest number of Lloyd iterations of the best restart.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.
    random_state : int, default=0
        Seed of the restarts when `seeds` is None.
    use_gpu : bool, default=False
        Whether faiss uses the GPUs it sees.

    Returns
    -------
    centers : ndarray of shape (n_clusters, n_features), float32

    Raises
    ------
    ValueError
        If there are fewer rows than clusters.

    Notes
    -----
    The Lloyd iterations are faiss's; its defaults are not used, because they cluster a sample of
    256 rows a cluster, in which a cluster of 7 rows among 10,000 does not occur.

    References
    ----------
    M. Douze et al. "The Faiss library." 2024. arXiv:2401.08281.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> np.sort(kmeans_centers(X, 2), axis=0).round(2).ravel()
    array([0.05, 5.05], dtype=float32)
    """
    X = np.ascontiguousarray(X, dtype=np.float32)
    if n_clusters > len(X):
        raise ValueError(
            f"n_clusters={n_clusters} is larger than the number of rows {len(X)}: lower it."
        )
    if n_clusters == 1:
        return np.average(X, axis=0, weights=sample_count)[None].astype(np.float32)
    if n_clusters == len(X):
        return X.copy()
    if seeds is None:
        rng = np.random.default_rng(random_state)
        seeds = [
            seed_centers(X, n_clusters, rng=rng, sample_count=sample_count) for _ in range(n_init)
        ]
    weight = None if sample_count is None else sample_count.astype(np.float32)

    best, lowest = X[seeds[0][:n_clusters]], math.inf
    if len(seeds) > 1:
        for seed in seeds:
            start = X[seed[:n_clusters]]
            centers, inertia = _run_lloyd(X, start, weight, _SHORT_ITERATIONS, use_gpu)
            if inertia[-1] < lowest:
                best, lowest = centers, inertia[-1]
    for _ in range(0, max_iter, _BLOCK_ITERATIONS):
        best, inertia = _run_lloyd(X, best, weight, min(_BLOCK_ITERATIONS, max_iter), use_gpu)
        if inertia[-1] >= inertia[-2] * (1.0 - 1e-6):
            break
    return best


def assign_nearest(
    X: np.ndarray, centers: np.ndarray, *, chunk_size: int = 8192
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest center of every row, through a faiss index.

    faiss computes in float32; rows whose two nearest centers it cannot tell apart are decided in
    float64, ties going to the lower center. So the result for a row depends on nothing else.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    centers : ndarray of shape (n_centers, n_features)
        The centers.
    chunk_size : int, default=8192
        Rows converted at a time.

    Returns
    -------
    label : ndarray of shape (n_samples,), int64
        Index of the nearest center.
    squared_distance : ndarray of shape (n_samples,), float64
        Squared distance to it.

    Examples
    --------
    >>> assign_nearest(np.array([[0.25], [1.0], [0.5]]), np.array([[0.0], [1.0]]))
    (array([0, 1, 0]), array([0.0625, 0.    , 0.25  ]))
    """
    import faiss

    origin = centers.mean(axis=0, dtype=np.float64)
    points = centers - origin
    scale = float(np.sqrt(np.einsum("ij,ij->i", points, points).mean())) or 1.0
    points /= scale
    index = faiss.IndexFlatL2(points.shape[1])
    index.add(_as_coordinates(points))
    limit = np.einsum("ij,ij->i", points, points).max()

    label = np.zeros(len(X), dtype=np.int64)
    squared_distance = np.empty(len(X))
    for start in range(0, len(X), chunk_size):
        rows = X[start : start + chunk_size] - origin
        rows /= scale
        if len(points) > 1:
            squared, nearest = index.search(_as_coordinates(rows), 2)
            chosen = nearest[:, 0]
            rounding = 1e-5 * (np.einsum("ij,ij->i", rows, rows) + limit)
            unsure = np.flatnonzero(squared[:, 1] - squared[:, 0] <= rounding)
            if len(unsure):
                exact = squared_distances_to(rows[unsure], points)
                tie = exact.min(axis=1) + 1e-7 * rounding[unsure]
                chosen[unsure] = np.argmax(exact <= tie[:, None], axis=1)
            label[start : start + chunk_size] = chosen
        rows -= points[label[start : start + chunk_size]]
        squared_distance[start : start + chunk_size] = np.einsum("ij,ij->i", rows, rows)
    return label, squared_distance * scale**2


def squared_distances_to(
    X: np.ndarray, points: np.ndarray, *, chunk_size: int = 4096
) -> np.ndarray:
    """Squared Euclidean distance of every row to a few points, by matrix products in float64.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    points : ndarray of shape (n_points, n_features)
        The points.
    chunk_size : int, default=4096
        Rows converted to float64 at a time.

    Returns
    -------
    squared_distance : ndarray of shape (n_samples, n_points), float64

    Examples
    --------
    >>> squared_distances_to(np.array([[0.0], [3.0]]), np.array([[1.0], [2.0]]))
    array([[1., 4.],
           [4., 1.]])
    """
    origin = points.mean(axis=0, dtype=np.float64)  # near the rows, so that little cancels
    centered = points - origin
    norm = np.einsum("ij,ij->i", centered, centered)
    result = np.empty((len(X), len(points)))
    for start in range(0, len(X), chunk_size):
        part = X[start : start + chunk_size] - origin
        part_norm = np.einsum("ij,ij->i", part, part)
        squared = part_norm[:, None] + norm - 2.0 * inner_products(part, centered)
        result[start : start + chunk_size] = np.maximum(squared, 0.0)
    return result


def merge_small_clusters(
    X: np.ndarray,
    centers: np.ndarray,
    *,
    min_cluster_size: int = 1,
    sample_count: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Drop the centers of too small clusters; their rows go to the nearest center that is left.

    The smallest cluster goes first, until all are large enough or one is left. Empty clusters
    always go. The other centers stay where they are, so a row's cluster still is its nearest
    center.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    centers : ndarray of shape (n_clusters, n_features)
        The centers.
    min_cluster_size : int, default=1
        Fewest rows that a cluster may have.
    sample_count : ndarray of shape (n_samples,), default=None
        How often each row counts; None is once.

    Returns
    -------
    kept : ndarray of shape (n_kept,), int64
        Indices of the centers that are left.
    label : ndarray of shape (n_samples,), int64
        Cluster of every row, in 0..n_kept-1.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [1.0]])
    >>> merge_small_clusters(X, np.array([[0.0], [1.0]]), min_cluster_size=2)
    (array([0]), array([0, 0, 0]))
    """
    kept = np.arange(len(centers))
    while True:
        label, _ = assign_nearest(X, centers[kept])
        size = np.bincount(label, weights=sample_count, minlength=len(kept))
        smallest = int(np.argmin(size))
        if len(kept) == 1 or size[smallest] >= max(min_cluster_size, 1):
            return kept, label
        kept = np.delete(kept, smallest)


# ------------------------------------------------------------------------- helpers


def inner_products(X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """``X @ Y.T`` of finite rows, without warnings about what was never computed.

    OpenBLAS multiplies padding along with the rows, and whatever lies there can set the flags
    of the processor that NumPy reports (numpy/numpy#24067).
    """
    with np.errstate(all="ignore"):
        return X @ Y.T


def _as_coordinates(X: np.ndarray) -> np.ndarray:
    """Rows as faiss takes them: contiguous float32, finite squares."""
    X = np.clip(X, -_COORDINATE_LIMIT, _COORDINATE_LIMIT)
    return np.ascontiguousarray(X, dtype=np.float32)


def _draw_rows(weight: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Rows drawn in proportion to their weight, one for each number in [0, 1)."""
    cumulative = np.cumsum(weight, dtype=np.float64)
    if cumulative[-1] <= 0.0:
        return (uniform * len(weight)).astype(np.int64)
    row = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return np.minimum(row, len(weight) - 1)


def _squared_distances(X: np.ndarray, norm: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared distances of all rows to some of them, shape (n_samples, len(rows))."""
    squared = norm[:, None] + norm[rows]
    for part in row_chunks(*X.shape):
        squared[part] -= 2.0 * inner_products(X[part], X[rows])
    return np.maximum(squared, 0.0, out=squared)


def _run_lloyd(
    X: np.ndarray, centers: np.ndarray, weight: np.ndarray | None, n_iter: int, use_gpu: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Centers after `n_iter` Lloyd iterations of faiss, and the inertia before each of them."""
    import faiss

    kmeans = faiss.Kmeans(
        X.shape[1],
        len(centers),
        niter=n_iter,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=len(X),
        gpu=use_gpu,
    )
    kmeans.train(X, weights=weight, init_centroids=np.ascontiguousarray(centers))
    return np.asarray(kmeans.centroids, dtype=np.float32), np.asarray(kmeans.obj, dtype=np.float64)
