"""GEORGE's over-clustering: clusters are split further where four criteria agree."""

import numpy as np

from skspurious.functional._silhouette import mean_silhouettes
from skspurious.functional._subclusters import select_subclusters


def overcluster(model, work, position, count, label, loss, valid, method, context):
    """Split every cluster, keep the parts that pass, and merge the others again.

    Returns the clusters, and the label of every row: one for each part that is kept, and one for
    what is left of each cluster.
    """
    n_parts = method.overclustering
    part = np.empty(len(work), dtype=np.int64)
    splits, parent = [], []
    for j in range(len(model)):
        rows = np.flatnonzero(label == j)
        line = None if position is None else position[rows]
        n_distinct = len(rows) if line is None else len(np.unique(line))
        split, inner = None, np.zeros(len(rows), dtype=np.int64)
        if n_distinct >= n_parts:
            ((split, inner),) = method.candidates(
                work[rows], line, count[rows], [n_parts], 1, context
            )
        part[rows] = len(parent) + inner
        parent += [j] * (1 if split is None else len(split))
        splits.append(split)
    parent = np.array(parent)

    size = np.bincount(part, weights=count)
    n_valid = None
    if valid is not None:
        finest = SplitClusters(model, splits, _as_tables(parent, np.arange(len(parent))))
        n_valid = np.bincount(finest.assign(valid, np.arange(len(parent))), minlength=len(parent))
    new, old = mean_silhouettes(
        work if position is None else position[:, None],
        [part, label],
        part,
        sample_count=count,
        **context.silhouette_params,
    )
    kept = select_subclusters(
        parent,
        new_silhouette=new,
        old_silhouette=old,
        loss=np.bincount(part, weights=loss * count) / size,
        size=size,
        valid_size=n_valid,
        min_size=method.overclustering_min_size,
        min_rest=method.min_group_size,
    )
    # A part that is kept is a cluster; the others of its parent are one.
    number = np.where(kept, len(model) + np.arange(len(parent)), parent)
    number = np.unique(number, return_inverse=True)[1]
    return SplitClusters(model, splits, _as_tables(parent, number)), number[part]


def _as_tables(parent, number):
    return [number[parent == j] for j in range(parent.max() + 1)]


class SplitClusters:
    """Clusters of which some are split: base cluster, part of it, then the number of the part.

    Parameters
    ----------
    base : cluster model
    splits : list of cluster model or None
        Parts of every base cluster; None where it has one.
    tables : list of ndarray
        Cluster of every part of every base cluster; several parts may be one cluster.
    """

    def __init__(self, base, splits, tables):
        self.base = base
        self.splits = splits
        self.tables = tables

    def __len__(self):
        return max(table.max() for table in self.tables) + 1

    def keep(self, clusters):
        """The clusters in the given order, which names all of them."""
        number = np.argsort(clusters)
        return SplitClusters(self.base, self.splits, [number[table] for table in self.tables])

    def assign(self, X, among):
        """Base cluster, then its part: cluster of every row, as a position in `among`."""
        bases, parts = self._open(among)
        base = np.take(bases, self.base.assign(X, bases))
        label = np.empty(len(X), dtype=np.int64)
        for j in np.unique(base):
            rows, part = base == j, parts[j]
            if self.splits[j] is not None:
                part = part[self.splits[j].assign(X[rows], part)]
            label[rows] = self.tables[j][part]
        return np.searchsorted(among, label)

    def membership(self, X, among, variance):
        """Probability of the base cluster times that of its parts."""
        bases, parts = self._open(among)
        result = np.zeros((len(X), len(among)))
        for j, probability in zip(bases, self.base.membership(X, bases, variance).T):
            inner = np.ones((len(X), 1))
            if self.splits[j] is not None:
                inner = self.splits[j].membership(X, parts[j], variance)
            for part, share in zip(parts[j], inner.T):
                result[:, np.searchsorted(among, self.tables[j][part])] += probability * share
        return result

    def _open(self, among):
        """Base clusters with a part in `among`, and these parts of every base cluster."""
        parts = [np.flatnonzero(np.isin(table, among)) for table in self.tables]
        return np.flatnonzero([len(part) > 0 for part in parts]), parts
