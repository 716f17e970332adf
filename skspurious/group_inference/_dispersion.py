"""NSF's first step: every class is split by whether a sample lies nearest to its class mean."""

import numpy as np

from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._dispersion import find_dispersed
from skspurious.functional._rows import squared_to_own_center
from skspurious.group_inference._base import soft_nearest
from skspurious.group_inference._two_sided import TwoSidedMethod
from skspurious.utils._parameters import extends


@extends(TwoSidedMethod)
class DispersionGroups(TwoSidedMethod):
    """Splits every class by the nearest class mean: its own (near), or another one (far).

    A sample whose spurious attribute disagrees with its class is drawn towards the class that
    the attribute goes with [1]_. Meant for embeddings of samples that the network has not
    memorised.

    .. versionadded:: 0.1

    Parameters
    ----------
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.

    Notes
    -----
    Groups are numbered near before far. Probabilities are those under Gaussians of one variance
    around the class means: in a class, near and far compete by the distances to its mean and to
    the nearest other one.

    References
    ----------
    .. [1] W. Li et al. "Let Samples Speak: Mitigating Spurious Correlation by Exploiting the
       Clusterness of Samples." CVPR 2025. arXiv:2512.22874.

    Examples
    --------
    >>> from skspurious.group_inference import DispersionGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(DispersionGroups(min_group_size=1))
    >>> inferrer.fit([[0.0], [1.0], [8.0], [9.0], [10.0]], [0, 0, 0, 1, 1]).labels_
    array([0, 0, 1, 2, 2])
    """

    def __init__(self, **shared):
        super().__init__(**shared)

    def find(self, X, code, context):
        """Learn the class means, and which classes are split."""
        far, self.means_ = find_dispersed(X, code)
        self.mean_variance_ = float(squared_to_own_center(X, self.means_, code).mean() / X.shape[1])
        self.learn_sides(X, far, code, context)

    def predicted_class(self, X):
        """Class of the nearest mean."""
        return np.argmin(squared_distances_to(X, self.means_), axis=1)

    def is_odd(self, X, k):
        """Whether the nearest mean is that of another class."""
        return self.predicted_class(X) != k

    def class_probability(self, X):
        """Probability of every class."""
        return soft_nearest(squared_distances_to(X, self.means_), self.mean_variance_)

    def odd_probability(self, X, k):
        """Probability of the nearest other mean against that of the class."""
        squared = squared_distances_to(X, self.means_)
        own, others = squared[:, k], np.delete(squared, k, axis=1).min(axis=1)
        return soft_nearest(np.stack([own, others], axis=1), self.mean_variance_)[:, 1]
