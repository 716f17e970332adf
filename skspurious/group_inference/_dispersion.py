"""NSF's first step: every class is split by whether a sample lies nearest to its class mean."""

import numpy as np

from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._dispersion import find_dispersed
from skspurious.group_inference._base import Method, TwoSidedGroups, soft_nearest, squared_norm


def split_by_dispersion(X, code, settings):
    """Groups of every class, near before far, and the silhouette of each class's split."""
    far, means = find_dispersed(X, code)
    groups = DispersionGroups(X, far, code, means, settings.min_cluster_size)
    return groups, groups.silhouette(X, far, code, settings), []


class DispersionGroups(TwoSidedGroups):
    """Groups by the nearest class mean: a row is odd (far) where it is that of another class.

    Probabilities are those under Gaussians of one variance around the class means: in class y,
    near and far compete by the distances to the mean of y and to the nearest other mean.
    """

    def __init__(self, X, far, code, means, min_size):
        super().__init__(far, code, min_size)
        self.means = means
        self.variance = float(squared_norm(X - means[code]).mean() / X.shape[1])

    def predicted_class(self, X):
        """Class of the nearest mean."""
        return np.argmin(squared_distances_to(X, self.means), axis=1)

    def is_odd(self, X, code):
        """Whether the nearest mean is that of another class."""
        return self.predicted_class(X) != code

    def class_probability(self, X):
        """Probability of every class."""
        return soft_nearest(squared_distances_to(X, self.means), self.variance)

    def odd_probability(self, X, code):
        """Probability of the nearest other mean against that of the class."""
        squared, row = squared_distances_to(X, self.means), np.arange(len(X))
        own = squared[row, code]
        squared[row, code] = np.inf
        return soft_nearest(np.stack([own, squared.min(axis=1)], axis=1), self.variance)[:, 1]


METHOD = Method(split=split_by_dispersion)
