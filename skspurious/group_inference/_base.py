"""What the methods share: the clustering of one class, and groups as centers nested in classes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from skspurious.functional._clustering import (
    assign_nearest,
    find_line,
    kmeans_1d,
    kmeans_centers,
    merge_small_clusters,
    seed_centers,
    squared_distances_to,
    unique_rows,
)
from skspurious.functional._silhouette import score_partitions


@dataclass(frozen=True)
class MethodDefaults:
    """What "auto" means for one method."""

    normalize: bool
    max_clusters: int = 1
    criterion: str = "macro"
    high_power: float = 1.0


class ClusterSettings(NamedTuple):
    """Resolved parameters of the clustering of a class."""

    choose: object  # picks one of several SilhouetteScore by its index
    criterion: str
    max_clusters: int
    min_cluster_size: int
    min_silhouette: float | None
    n_components: object
    n_init: int
    silhouette: str
    silhouette_size: int
    seed: int
    device: str
    gpu_min_elements: float


class ClassClusters(NamedTuple):
    """Clusters of one class, the largest first."""

    centers: np.ndarray
    silhouette: float
    search: list  # one tuple a candidate: n_clusters, silhouette, macro_silhouette, selected


def cluster_class(X, n_clusters, settings):
    """Cluster the rows of one class.

    Everything is computed on the distinct rows in an order of their own, so the order of the
    input has no influence, and the seed is the same for every class, so neither have the names
    of the classes.
    """
    rows, _, count = unique_rows(X)
    if len(rows) == 1:
        return ClassClusters(rows.astype(np.float64), np.nan, [])
    work, restore = _center_and_reduce(rows, count, settings)
    position = find_line(rows if settings.n_components is None else work)
    n_distinct = len(rows) if position is None else len(np.unique(position))
    one_cluster = ClassClusters(restore(np.zeros((1, work.shape[1]))), np.nan, [])
    if n_clusters == "auto":
        candidates = range(2, min(settings.max_clusters, n_distinct, len(X) - 1) + 1)
    else:
        candidates = [n_clusters] if 1 < n_clusters <= n_distinct else []
    if len(candidates) == 0:
        return one_cluster

    centers, labels = [], []
    for candidate in _candidate_centers(work, position, count, candidates, settings):
        kept, label = merge_small_clusters(
            work, candidate, min_cluster_size=settings.min_cluster_size, sample_count=count
        )
        if len(kept) > 1:
            centers.append(candidate[kept])
            labels.append(label)
    if not labels:
        return one_cluster

    scores = score_partitions(
        work if position is None else position[:, None],
        labels,
        method=settings.silhouette,
        sample_count=count,
        n_per_cluster=settings.silhouette_size,
        random_state=settings.seed,
        device=settings.device,
    )
    best = settings.choose(scores)
    floor = settings.min_silhouette if n_clusters == "auto" else None
    if floor is not None and getattr(scores[best], settings.criterion) < floor:
        best = None
    search = [
        (len(c), score.mean, score.macro, i == best)
        for i, (c, score) in enumerate(zip(centers, scores))
    ]
    if best is None:
        return one_cluster._replace(search=search)
    order = _order_by_size(labels[best], count)
    return ClassClusters(restore(centers[best][order]), scores[best].mean, search)


def _center_and_reduce(rows, count, settings):
    """Centered rows of unit scale, by PCA if asked, and the way back for their centers."""
    mean = np.average(rows, axis=0, weights=count)
    work = (rows - mean).astype(rows.dtype, copy=False)
    components = None
    if settings.n_components is not None:
        n_components = settings.n_components
        if n_components >= 1:
            n_components = min(n_components, int(count.sum()), rows.shape[1])
        pca = PCA(n_components, random_state=settings.seed)
        pca.fit(work if count.max() == 1 else np.repeat(work, count, axis=0))
        components = pca.components_
        work = work @ components.T
    scale = np.sqrt(np.average(squared_norm(work), weights=count)) or 1.0
    work = (work / scale).astype(rows.dtype, copy=False)

    def restore(centers):
        centers = centers * np.float64(scale)
        return (centers if components is None else centers @ components) + mean

    return work, restore


def _candidate_centers(work, position, count, candidates, settings):
    """Centers for each number of clusters, in float64."""
    if position is not None:
        for values in kmeans_1d(position, max(candidates), sample_count=count)[candidates[0] - 1 :]:
            label = np.searchsorted((values[1:] + values[:-1]) / 2.0, position)
            yield _cluster_means(work, label, count)
        return
    rng = np.random.default_rng(settings.seed)
    rows = np.ascontiguousarray(work, dtype=np.float32)
    weight = None if count.max() == 1 else count
    seeds = [
        seed_centers(rows, max(candidates), rng=rng, sample_count=weight)
        for _ in range(settings.n_init)
    ]
    use_gpu = rows.size >= settings.gpu_min_elements
    for k in candidates:
        centers = kmeans_centers(rows, k, seeds=seeds, sample_count=weight, use_gpu=use_gpu)
        yield centers.astype(np.float64)


def _cluster_means(rows, label, count):
    member = np.zeros((label.max() + 1, len(rows)))
    member[label, np.arange(len(rows))] = count
    return (member @ rows) / member.sum(axis=1, keepdims=True)


def _order_by_size(label, count):
    """Clusters by decreasing size; of equal ones the one with the first row first."""
    size = np.bincount(label, weights=count)
    _, first = np.unique(label, return_index=True)
    return np.lexsort((first, -size))


class CentroidGroups:
    """Groups as centers nested in classes: a new row belongs to the nearest center of its class.

    Parameters
    ----------
    centers : ndarray of shape (n_groups, n_features)
    group_class : ndarray of shape (n_groups,)
        Class code of every group.
    """

    def __init__(self, centers, group_class):
        self.centers = centers
        self.group_class = group_class
        self.variance = 0.0

    def fit(self, X, code):
        """Drop empty groups and learn the variance; groups and distances of the rows."""
        group = self.assign(X, code)
        used = np.unique(group)
        if len(used) < len(self.centers):
            self.centers, self.group_class = self.centers[used], self.group_class[used]
            group = self.assign(X, code)
        squared = squared_norm(X - self.centers[group])
        self.variance = float(squared.mean() / X.shape[1])
        return group, np.sqrt(squared)

    def assign(self, X, code=None):
        """Group of every row, in its class, or of all groups where `code` is None."""
        if code is None:
            return assign_nearest(X, self.centers)[0]
        group = np.empty(len(X), dtype=np.int64)
        for k in np.unique(code):
            rows, own = np.flatnonzero(code == k), np.flatnonzero(self.group_class == k)
            group[rows] = own[assign_nearest(X[rows], self.centers[own])[0]]
        return group

    def membership(self, X, code=None):
        """Probability of every group under Gaussians of one variance around the centers."""
        squared = squared_distances_to(X, self.centers)
        if code is not None:
            squared[self.group_class != code[:, None]] = np.inf
        return soft_nearest(squared, self.variance)


def squared_norm(rows):
    """Squared length of every row."""
    return np.einsum("ij,ij->i", rows, rows)


def soft_nearest(squared_distance, variance):
    """Softmax of -squared_distance / (2 variance); the nearest alone where there is no variance."""
    excess = squared_distance - squared_distance.min(axis=1, keepdims=True)
    weight = np.exp(-excess / (2.0 * variance)) if variance > 0.0 else (excess <= 0.0).astype(float)
    return weight / weight.sum(axis=1, keepdims=True)


class NeighborIndex:
    """Nearest training rows, by a flat faiss index that pickles.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The training rows, stored as float32 after centering and scaling.
    """

    def __init__(self, X):
        import faiss

        self.mean = X.mean(axis=0, dtype=np.float64)
        rows = X - self.mean
        self.scale = float(np.sqrt(squared_norm(rows).mean())) or 1.0
        self.index = faiss.IndexFlatL2(X.shape[1])
        self.index.add(np.ascontiguousarray(rows / self.scale, dtype=np.float32))

    def search(self, X, n_neighbors, among=None):
        """Distances and positions of the nearest training rows, all or those at `among`."""
        import faiss

        rows = np.ascontiguousarray((X - self.mean) / self.scale, dtype=np.float32)
        params = None
        if among is not None:
            params = faiss.SearchParameters(sel=faiss.IDSelectorBatch(among))
        squared, position = self.index.search(rows, n_neighbors, params=params)
        return np.sqrt(np.maximum(squared, 0.0)) * self.scale, position

    def __getstate__(self):
        import faiss

        return self.__dict__ | {"index": faiss.serialize_index(self.index)}

    def __setstate__(self, state):
        import faiss

        self.__dict__.update(state | {"index": faiss.deserialize_index(state["index"])})
