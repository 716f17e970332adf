"""What the methods share: what a method is, and groups nested in classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skspurious.functional._clustering import (
    assign_nearest,
    squared_distances_to,
    unique_rows,
)
from skspurious.functional._silhouette import score_partitions


@dataclass(frozen=True)
class Method:
    """One method: how it finds groups, and what "auto" means for it.

    Exactly one of `candidates` and `split` is given. `candidates` makes clusterings of rows,
    among which the silhouette chooses; `split` makes the groups of all classes by itself.
    """

    candidates: Callable | None = None
    split: Callable | None = None
    normalize: bool = False
    max_clusters: int = 1
    criterion: str = "macro"
    high_power: float = 1.0


class Settings(NamedTuple):
    """Resolved parameters of a method."""

    candidates: Callable | None
    choose: Callable  # picks one of several SilhouetteScore by its index
    criterion: str
    max_clusters: int
    min_cluster_size: int
    min_silhouette: float | None
    reduction: str | None
    n_components: object
    n_unreduced: int
    n_init: int
    silhouette: str
    silhouette_size: int
    overclustering_factor: int  # 0 is none
    overclustering_min_size: int
    n_folds: int
    C: float
    seed: int
    device: str
    gpu_min_elements: float


class NestedGroups:
    """Groups nested in classes: the clusters of each class, found in it alone.

    Parameters
    ----------
    models : list of cluster models
        One for each class. A model has `centers`, ``assign(X, among)``, which gives positions in
        `among`, the numbers of the clusters to choose from, and ``membership(X, among, variance)``.
    """

    def __init__(self, models):
        self.models = models
        size = [len(model.centers) for model in models]
        self.group_class = np.repeat(np.arange(len(size)), size)
        self.group_cluster = np.concatenate([np.arange(n) for n in size])
        self.variance = 0.0

    def model(self, k):
        """Clusters that the rows of class `k` are assigned to."""
        return self.models[k]

    def fit(self, X, code):
        """Drop empty groups and learn the variance; groups and distances of the rows."""
        group = self.assign(X, code)
        used = np.unique(group)
        if len(used) < len(self.group_class):
            self.group_class, self.group_cluster = self.group_class[used], self.group_cluster[used]
            group = self.assign(X, code)
        self.centers = np.stack(
            [self.model(k).centers[j] for k, j in zip(self.group_class, self.group_cluster)]
        )
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
            group[rows] = own[self.model(k).assign(X[rows], self.group_cluster[own])]
        return group

    def membership(self, X, code=None):
        """Probability of every group."""
        if code is None:
            return soft_nearest(squared_distances_to(X, self.centers), self.variance)
        result = np.zeros((len(X), len(self.group_class)))
        for k in np.unique(code):
            rows, own = np.flatnonzero(code == k), np.flatnonzero(self.group_class == k)
            result[np.ix_(rows, own)] = self.model(k).membership(
                X[rows], self.group_cluster[own], self.variance
            )
        return result


class CellGroups(NestedGroups):
    """Groups as the cells of classes and clusters that run through all classes.

    A row whose cluster has no training sample of its class belongs to the nearest cluster that
    has.

    Parameters
    ----------
    clusters : cluster model
    n_classes : int
    """

    def __init__(self, clusters, n_classes):
        super().__init__([clusters] * n_classes)
        self.clusters = clusters

    def fit(self, X, code):
        """Drop empty cells and learn the share of every class in its cluster."""
        group, distance = super().fit(X, code)
        self.used, self.cluster_id = np.unique(self.group_cluster, return_inverse=True)
        size = np.bincount(group)
        self.share = size / np.bincount(self.cluster_id, weights=size)[self.cluster_id]
        return group, distance

    def assign(self, X, code=None):
        """Group of every row, in its class, or the most probable one where `code` is None."""
        return self.membership(X).argmax(axis=1) if code is None else super().assign(X, code)

    def membership(self, X, code=None):
        """Probability of every group; without classes, of its cluster times the class's share."""
        if code is not None:
            return super().membership(X, code)
        cluster = self.clusters.membership(X, self.used, self.variance)
        return cluster[:, self.cluster_id] * self.share


class TwoSidedGroups:
    """Groups by a rule that calls some rows of a class regular and the others odd.

    Subclasses define the rule.

    Parameters
    ----------
    odd : ndarray of shape (n_samples,), bool
        The odd ones among the training rows.
    code : ndarray of shape (n_samples,)
        Their class codes.
    min_size : int
        Fewest rows of a side; a class with fewer on one of its sides stays whole.
    """

    def __init__(self, odd, code, min_size):
        self.table = np.empty((code.max() + 1, 2), dtype=np.int64)  # group of class and side
        group_class = []
        for k in range(len(self.table)):
            sizes = np.bincount(odd[code == k], minlength=2)
            n_groups = 2 if sizes.min() >= max(min_size, 1) else 1
            self.table[k] = len(group_class) + np.arange(2) * (n_groups - 1)
            group_class += [k] * n_groups
        self.group_class = np.array(group_class)

    def fit(self, X, code):
        """Learn the centers; groups and distances to the centers of the rows."""
        group = self.assign(X, code)
        self.centers = np.stack(
            [X[group == g].mean(axis=0, dtype=np.float64) for g in range(len(self.group_class))]
        )
        return group, np.sqrt(squared_norm(X - self.centers[group]))

    def silhouette(self, X, odd, code, settings):
        """Mean silhouette of the two sides of every class; NaN where it is one group."""
        result = np.full(len(self.table), np.nan)
        for k in np.flatnonzero(self.table[:, 0] != self.table[:, 1]):
            rows, first, count = unique_rows(X[code == k])
            (score,) = score_partitions(
                rows,
                [odd[code == k][first].astype(np.int64)],
                method=settings.silhouette,
                sample_count=count,
                n_per_cluster=settings.silhouette_size,
                random_state=settings.seed,
                device=settings.device,
            )
            result[k] = score.mean
        return result

    def assign(self, X, code=None):
        """Group of every row; the regular group of the predicted class where `code` is None."""
        if code is None:
            return self.table[self.predicted_class(X), 0]
        return self.table[code, self.is_odd(X, code).astype(np.int64)]

    def membership(self, X, code=None):
        """Probability of every group; without `code`, of the regular groups."""
        row = np.arange(len(X))
        result = np.zeros((len(X), len(self.group_class)))
        if code is None:
            result[:, self.table[:, 0]] = self.class_probability(X)
            return result
        odd = self.odd_probability(X, code)
        np.add.at(result, (row, self.table[code, 0]), 1.0 - odd)
        np.add.at(result, (row, self.table[code, 1]), odd)
        return result


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
        rows = self.index.reconstruct_n(0, self.index.ntotal)
        return {"mean": self.mean, "scale": self.scale, "rows": rows}

    def __setstate__(self, state):
        import faiss

        self.mean, self.scale, rows = state["mean"], state["scale"], state["rows"]
        self.index = faiss.IndexFlatL2(rows.shape[1])
        self.index.add(rows)
