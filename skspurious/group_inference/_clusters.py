"""The clustering of one class: a space, candidates in it, and the choice of one of them."""

from typing import NamedTuple

import numpy as np

from skspurious.functional._clustering import (
    assign_nearest,
    find_line,
    row_ids,
    squared_distances_to,
    unique_rows,
)
from skspurious.functional._silhouette import score_partitions
from skspurious.group_inference._base import soft_nearest, squared_norm
from skspurious.group_inference._overclustering import overcluster
from skspurious.group_inference._spaces import LinearSpace, make_space


class ClassClusters(NamedTuple):
    """Clusters of one class, the largest first."""

    model: object
    silhouette: float
    search: list  # one tuple a candidate: n_clusters, silhouette, macro_silhouette, selected


class SplitData(NamedTuple):
    """What over-clustering looks at besides the rows."""

    loss: np.ndarray
    X_valid: np.ndarray | None


def cluster_class(X, n_clusters, settings, split_data=None):
    """Cluster the rows of one class.

    Everything is computed on the distinct rows in an order of their own, so the order of the
    input has no influence, and the seed is the same for every class, so neither have the names
    of the classes.
    """
    rows, _, count = unique_rows(X)
    if len(rows) == 1:
        return ClassClusters(CentroidClusters(rows.astype(np.float64)), np.nan, [])
    space, work = make_space(rows, count, settings)
    position = find_line(rows if space.is_identity else work)
    n_distinct = len(rows) if position is None else len(np.unique(position))
    mean = np.average(rows, axis=0, weights=count)
    one_cluster = ClassClusters(CentroidClusters(mean[None].astype(np.float64)), np.nan, [])
    if n_clusters == "auto":
        candidates = range(2, min(settings.max_clusters, n_distinct, len(X) - 1) + 1)
    else:
        candidates = [n_clusters] if 1 < n_clusters <= n_distinct else []
    if len(candidates) == 0:
        return one_cluster

    found = settings.candidates(work, position, count, candidates, settings)
    found = [(model, label) for model, label in found if len(model) > 1]
    if not found:
        return one_cluster
    scores = score_partitions(
        work if position is None else position[:, None],
        [label for _, label in found],
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
        (len(model), score.mean, score.macro, i == best)
        for i, ((model, _), score) in enumerate(zip(found, scores))
    ]
    if best is None:
        return one_cluster._replace(search=search)
    model, label = found[best]
    if settings.overclustering_factor:
        loss = np.bincount(row_ids(X), weights=split_data.loss) / count
        X_valid = split_data.X_valid
        valid = None if X_valid is None else space.transform(X_valid)
        model, label = overcluster(model, work, position, count, label, loss, valid, settings)
    order = _order_by_size(label, count)
    model, label = model.keep(order), np.argsort(order)[label]
    model = _in_input_space(model, space, rows, work, count, label)
    return ClassClusters(model, scores[best].mean, search)


def _in_input_space(model, space, rows, work, count, label):
    """The clusters for rows as they came in, with centers among these."""
    if isinstance(model, CentroidClusters) and isinstance(space, LinearSpace):
        return CentroidClusters(space.restore(model.centers))
    centers = cluster_means(rows, label, count)
    squared = squared_norm(work - cluster_means(work, label, count)[label])
    return MappedClusters(
        space, model, centers, variance=float(np.average(squared, weights=count) / work.shape[1])
    )


def cluster_means(rows, label, count):
    """Mean of every cluster, in float64."""
    member = np.zeros((label.max() + 1, len(rows)))
    member[label, np.arange(len(rows))] = count
    return (member @ rows) / member.sum(axis=1, keepdims=True)


def _order_by_size(label, count):
    """Clusters by decreasing size; of equal ones the one with the first row first."""
    size = np.bincount(label, weights=count)
    _, first = np.unique(label, return_index=True)
    return np.lexsort((first, -size))


class CentroidClusters:
    """Clusters as centers: a row belongs to the nearest one.

    Parameters
    ----------
    centers : ndarray of shape (n_clusters, n_features)
    """

    def __init__(self, centers):
        self.centers = centers

    def __len__(self):
        return len(self.centers)

    def keep(self, clusters):
        """Some of the clusters, in the given order."""
        return CentroidClusters(self.centers[clusters])

    def assign(self, X, among):
        """Nearest of the centers `among`, as a position in `among`."""
        return assign_nearest(X, self.centers[among])[0]

    def membership(self, X, among, variance):
        """Probability of the clusters `among` under Gaussians of one variance."""
        return soft_nearest(squared_distances_to(X, self.centers[among]), variance)


class MappedClusters:
    """Clusters of rows that are first mapped to another space, with a variance of its own."""

    def __init__(self, space, clusters, centers, variance):
        self.space = space
        self.clusters = clusters
        self.centers = centers
        self.variance = variance

    def assign(self, X, among):
        """Cluster of every mapped row, as a position in `among`."""
        return self.clusters.assign(self.space.transform(X), among)

    def membership(self, X, among, variance):
        """Probability of the clusters `among` of every mapped row."""
        return self.clusters.membership(self.space.transform(X), among, self.variance)
