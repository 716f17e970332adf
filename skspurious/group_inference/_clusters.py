"""The clustering of one class: a space, candidates in it, and the choice of one of them."""

from typing import NamedTuple

import numpy as np

from skspurious.functional._clustering import assign_nearest, squared_distances_to
from skspurious.functional._rows import column_means, distinct_rows, find_line, squared_norm
from skspurious.group_inference._base import soft_nearest
from skspurious.group_inference._overclustering import overcluster
from skspurious.group_inference._spaces import LinearSpace, make_space


class ClassClusters(NamedTuple):
    """Clusters of one class, the largest first."""

    model: object
    silhouette: float
    search: list  # one tuple a candidate: n_clusters, silhouette, macro_silhouette, selected


def cluster_class(X, order, n_clusters, method, context, X_val):
    """Cluster the rows at `order`, those of one class; `X_val` are its validation rows.

    Everything is computed on the distinct rows in an order of their own, so the order of the
    input has no influence, and the seed is the same for every class, so neither have the names
    of the classes.
    """
    index, count = distinct_rows(X, order)
    rows = X[index]
    del index
    rows += 0.0  # not -0.0
    if len(rows) == 1:
        return ClassClusters(CentroidClusters(rows.astype(np.float64)), np.nan, [])
    mean = column_means(rows, count)
    one_cluster = ClassClusters(CentroidClusters(mean[None]), np.nan, [])
    space, rows, work, position = _enter_space(rows, count, method, context)
    n_distinct = len(work) if position is None else len(np.unique(position))
    if n_clusters == "auto":
        numbers = range(2, min(method.max_clusters, n_distinct, len(order) - 1) + 1)
    else:
        numbers = [n_clusters] if 1 < n_clusters <= n_distinct else []
    if len(numbers) == 0:
        return one_cluster

    found = method.candidates(work, position, count, numbers, method.min_group_size, context)
    found = [
        (model, label.astype(np.min_scalar_type(len(model))))  # small, for many are kept
        for model, label in found
        if len(model) > 1
    ]
    if not found:
        return one_cluster
    scores = context.score_partitions(
        work if position is None else position[:, None], [label for _, label in found], count
    )
    best = method.choose(scores)
    floor = method.min_silhouette if n_clusters == "auto" else None
    if floor is not None and method.floor_of(scores[best]) < floor:
        best = None
    search = [
        (len(model), score.mean, score.macro, i == best)
        for i, ((model, _), score) in enumerate(zip(found, scores))
    ]
    if best is None:
        return one_cluster._replace(search=search)
    model, label = found[best]
    if method.overclustering is not None:
        row_id = np.repeat(np.arange(len(count)), count)
        loss = np.bincount(row_id, weights=context.losses[order]) / count
        valid = None if X_val is None else space.transform(X_val)
        model, label = overcluster(
            model, work, position, count, label, loss, valid, method, context
        )
    largest_first = _order_by_size(label, count)
    model, label = model.keep(largest_first), np.argsort(largest_first)[label]
    model = _in_input_space(model, space, rows, work, count, label)
    return ClassClusters(model, scores[best].mean, search)


def _enter_space(rows, count, method, context):
    """Space, rows, rows in the space, and their position on a line.

    The rows themselves are given up where nobody needs them any more: there may be many.
    """
    space, work = make_space(rows, count, method, context)
    if not space.is_identity:
        return space, rows, work, find_line(work)
    position = find_line(rows)
    if method.has_centers and method.overclustering is None:
        return space, None, space.transform(rows, out=rows), position
    return space, rows, space.transform(rows), position


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

    def __len__(self):
        return len(self.centers)

    def assign(self, X, among):
        """Cluster of every mapped row, as a position in `among`."""
        return self.clusters.assign(self.space.transform(X), among)

    def membership(self, X, among, variance):
        """Probability of the clusters `among` of every mapped row."""
        return self.clusters.membership(self.space.transform(X), among, self.variance)
