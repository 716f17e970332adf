"""k-means that keeps tiny clusters: every row counts, through faiss, exact in one dimension."""

import math
from collections.abc import Callable, Sequence

import numpy as np

__all__ = [
    "assign_nearest",
    "find_line",
    "kmeans_1d",
    "kmeans_centers",
    "merge_small_clusters",
    "row_ids",
    "seed_centers",
    "select_subclusters",
    "squared_distances_to",
    "unique_rows",
]

_SHORT_ITERATIONS = 4  # Lloyd iterations of every restart; only the best one goes on
_BLOCK_ITERATIONS = 10  # Lloyd iterations between two looks at the objective
_COORDINATE_LIMIT = 1e15  # squares of float32 coordinates stay finite below this


def unique_rows(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows in an order that does not depend on the order of the input.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    rows : ndarray of shape (n_distinct, n_features)
        The distinct rows, ordered by their bytes.
    index : ndarray of shape (n_distinct,), int64
        Where each occurs first: ``rows`` equals ``X[index]``.
    count : ndarray of shape (n_distinct,), int64
        How often each occurs.

    Examples
    --------
    >>> rows, index, count = unique_rows(np.array([[1.0], [0.0], [1.0]]))
    >>> rows.ravel(), index, count
    (array([0., 1.]), array([1, 0]), array([1, 2]))
    """
    X = np.ascontiguousarray(X) + 0.0  # -0.0 and 0.0 are equal but differ in their bytes
    _, index, count = np.unique(_row_bytes(X), return_index=True, return_counts=True)
    return X[index], index, count.astype(np.int64)


def row_ids(X: np.ndarray) -> np.ndarray:
    """Number of every row among the distinct rows, which have an order of their own.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    row_id : ndarray of shape (n_samples,), int64
        Position of the row in ``unique_rows(X)[0]``: the same for equal rows.

    Examples
    --------
    >>> row_ids(np.array([[1.0], [0.0], [1.0]]))
    array([1, 0, 1])
    """
    return np.unique(_row_bytes(np.ascontiguousarray(X) + 0.0), return_inverse=True)[1].ravel()


def _row_bytes(X: np.ndarray) -> np.ndarray:
    """Every row as one value, whose order is that of its bytes."""
    return X.view(np.dtype((np.void, X.dtype.itemsize * X.shape[1]))).ravel()


def find_line(X: np.ndarray) -> np.ndarray | None:
    """Coordinates along the line on which all rows lie, or None if there is no such line.

    The outputs of a softmax over two classes, and every single feature, lie on a line;
    distances between rows are then differences of the returned coordinates.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    position : ndarray of shape (n_samples,), float64, or None
        Signed distance from the mean along the line.

    Examples
    --------
    >>> find_line(np.array([[0.0, 1.0], [0.6, 0.4], [1.0, 0.0]])).round(3)
    array([-0.754,  0.094,  0.66 ])
    >>> find_line(np.eye(3)) is None
    True
    """
    rounding = 4.0 * np.finfo(X.dtype).eps * float(np.abs(X).max(initial=0.0))
    X = X.astype(np.float64)
    X -= X.mean(axis=0)
    length = np.linalg.norm(X, axis=1)
    farthest = int(np.argmax(length))
    if length[farthest] == 0.0:
        return np.zeros(len(X))
    direction = X[farthest] / length[farthest]
    direction *= np.sign(direction[np.argmax(np.abs(direction) > 0.0)])  # same sign for any order
    position = X @ direction
    X -= position[:, None] * direction
    residual = float(np.sqrt(np.einsum("ij,ij->i", X, X).max()))
    on_line = residual <= 1e-7 * length[farthest] + rounding
    return position if on_line else None


# ------------------------------------------------------------------------- k-means


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
        trial = _draw_rows(closest * weight, rng.random(n_trials))
        candidate = np.minimum(_squared_distances(X, norm, trial), closest[:, None])
        best = int(np.argmin(weight @ candidate))
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
    X: np.ndarray, centers: np.ndarray, *, chunk_size: int = 16384
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
    chunk_size : int, default=16384
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
        rows = (X[start : start + chunk_size] - origin) / scale
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


def select_subclusters(
    parent: np.ndarray,
    *,
    new_silhouette: np.ndarray,
    old_silhouette: np.ndarray,
    loss: np.ndarray,
    size: np.ndarray,
    valid_size: np.ndarray | None = None,
    min_silhouette: float = 0.0,
    min_share: float = 0.005,
    min_size: int = 25,
    min_rest: int = 1,
) -> np.ndarray:
    """Which parts of clusters become clusters themselves, by GEORGE's four criteria [1]_.

    A part is kept where (i) its samples have a larger mean silhouette after all clusters are
    split than before, and one above `min_silhouette`; (ii) its mean loss is at least that of its
    cluster; (iii) it has at least `min_size` samples and at least `min_share` of all; and (iv) at
    least `min_size` validation samples fall into it.

    Parameters
    ----------
    parent : ndarray of shape (n_parts,), int64
        The cluster of every part.
    new_silhouette, old_silhouette : ndarray of shape (n_parts,)
        Mean silhouette of the part's samples among the parts, and among the clusters.
    loss : ndarray of shape (n_parts,)
        Mean loss of the part's samples.
    size : ndarray of shape (n_parts,)
        Samples of every part.
    valid_size : ndarray of shape (n_parts,), default=None
        Validation samples of every part; None leaves out criterion (iv).
    min_silhouette : float, default=0.0
        Floor of criterion (i).
    min_share : float, default=0.005
        Smallest share of the samples of all parts.
    min_size : int, default=25
        Fewest samples, also in validation.
    min_rest : int, default=1
        Fewest samples that may be left in a cluster, unless none are: where there are fewer, the
        smallest of its kept parts is given back.

    Returns
    -------
    kept : ndarray of shape (n_parts,), bool

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré. "No Subclass Left Behind: Fine-Grained
       Robustness in Coarse-Grained Classification Problems." NeurIPS 2020. arXiv:2011.12945.

    Examples
    --------
    >>> select_subclusters(
    ...     np.array([0, 0]),
    ...     new_silhouette=np.array([0.8, 0.9]),
    ...     old_silhouette=np.array([0.5, 0.4]),
    ...     loss=np.array([0.1, 2.0]),  # 0.385 in the cluster
    ...     size=np.array([170, 30]),
    ... )
    array([False,  True])
    """
    total = np.bincount(parent, weights=size)
    cluster_loss = np.bincount(parent, weights=loss * size) / total
    kept = new_silhouette > np.maximum(old_silhouette, min_silhouette)
    kept &= loss >= cluster_loss[parent] - 1e-9 * np.abs(cluster_loss[parent])
    kept &= size >= max(min_share * size.sum(), min_size)
    if valid_size is not None:
        kept &= valid_size >= min_size
    for cluster in range(len(total)):
        own = np.flatnonzero(parent == cluster)
        while kept[own].any() and 0 < size[own][~kept[own]].sum() < min_rest:
            left = own[kept[own]]
            kept[left[np.argmin(size[left])]] = False
    return kept


# ------------------------------------------------------------- one dimension, exactly


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
    squared = norm[:, None] + norm[rows] - 2.0 * inner_products(X, X[rows])
    return np.maximum(squared, 0.0)


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
