"""NSF's first step: every class is split by whether a sample lies nearest to its class mean."""

import numpy as np

from skspurious.functional._clustering import squared_distances_to, unique_rows
from skspurious.functional._dispersion import find_dispersed
from skspurious.functional._silhouette import score_partitions
from skspurious.group_inference._base import MethodDefaults, soft_nearest, squared_norm

DEFAULTS = MethodDefaults(normalize=False)


def split_by_dispersion(X, code, settings):
    """Groups of every class, near before far, and the silhouette of each class's split."""
    far, means = find_dispersed(X, code)
    table = np.full((len(means), 2), -1)
    group_class, silhouette = [], []
    for k in range(len(means)):
        rows, first, count = unique_rows(X[code == k])
        label = far[code == k].astype(np.int64)
        sizes = np.bincount(label, minlength=2)
        sides = np.flatnonzero(sizes >= settings.min_cluster_size)
        if len(sides) == 0:
            sides = np.array([np.argmax(sizes)])
        table[k] = len(group_class) + (np.arange(2) if len(sides) == 2 else np.zeros(2))
        group_class += [k] * len(sides)
        if len(sides) == 1:
            silhouette.append(np.nan)
            continue
        (score,) = score_partitions(
            rows,
            [label[first]],
            method=settings.silhouette,
            sample_count=count,
            n_per_cluster=settings.silhouette_size,
            random_state=settings.seed,
            device=settings.device,
        )
        silhouette.append(score.mean)
    groups = DispersionGroups(means, table, np.array(group_class))
    return groups, np.array(silhouette), [[]] * len(means)


class DispersionGroups:
    """Groups by the nearest class mean: a row is near where that is its own class, else far.

    Parameters
    ----------
    means : ndarray of shape (n_classes, n_features)
    table : ndarray of shape (n_classes, 2)
        Group of the near and of the far rows of every class; the same where it has one group.
    group_class : ndarray of shape (n_groups,)
        Class code of every group.
    """

    def __init__(self, means, table, group_class):
        self.means = means
        self.table = table
        self.group_class = group_class
        self.centers = np.full((len(group_class), means.shape[1]), np.nan)
        self.variance = 0.0

    def fit(self, X, code):
        """Learn the centers and the variance; groups and distances to the centers of the rows."""
        group = self.assign(X, code)
        self.centers = np.stack(
            [X[group == g].mean(axis=0, dtype=np.float64) for g in range(len(self.group_class))]
        )
        self.variance = float(squared_norm(X - self.means[code]).mean() / X.shape[1])
        return group, np.sqrt(squared_norm(X - self.centers[group]))

    def assign(self, X, code=None):
        """Group of every row; the near group of the nearest class where `code` is None."""
        nearest = np.argmin(squared_distances_to(X, self.means), axis=1)
        code = nearest if code is None else code
        return self.table[code, (nearest != code).astype(np.int64)]

    def membership(self, X, code=None):
        """Probability of every group under Gaussians of one variance around the class means.

        In class y, near and far compete by the distances to the mean of y and to the nearest
        other mean.
        """
        squared = squared_distances_to(X, self.means)
        row = np.arange(len(X))
        result = np.zeros((len(X), len(self.group_class)))
        if code is None:
            probability = soft_nearest(squared, self.variance)
            for k, near in enumerate(self.table[:, 0]):
                result[:, near] = probability[:, k]
            return result
        own = squared[row, code]
        squared[row, code] = np.inf
        near = soft_nearest(np.stack([own, squared.min(axis=1)], axis=1), self.variance)
        np.add.at(result, (row, self.table[code, 0]), near[:, 0])
        np.add.at(result, (row, self.table[code, 1]), near[:, 1])
        return result
