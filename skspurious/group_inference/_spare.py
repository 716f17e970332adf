"""SPARE's choice: clusters of early outputs, as many as the mean silhouette says."""

import numpy as np

from skspurious.group_inference._kmeans import KMeansGroups
from skspurious.utils._parameters import extends


@extends(KMeansGroups)
class SpareGroups(KMeansGroups):
    """Clusters every class by k-means, with as many clusters as the mean silhouette says.

    Meant for the softmax outputs of a network early in training, which are not normalised [1]_.
    Where the mean silhouettes of several numbers of clusters are estimated from a sample and lie
    within its error, the macro silhouette (the mean over clusters) decides.

    .. versionadded:: 0.1

    Parameters
    ----------
    max_clusters : int, default=5
        Largest number of clusters that "auto" tries.
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    skspurious.mitigation.SPAREClassifier : The whole method, from early outputs to retraining.
    skspurious.mitigation.BalancedRetrainer : Retrains on these groups, with SPARE's powers.

    References
    ----------
    .. [1] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman. "Identifying Spurious Biases Early
       in Training through the Lens of Simplicity Bias." AISTATS 2024. arXiv:2305.18761.
    .. [2] L. McInnes, J. Healy, J. Melville. "UMAP: Uniform Manifold Approximation and Projection
       for Dimension Reduction." 2018. arXiv:1802.03426.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import SpareGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(SpareGroups(max_clusters=3), random_state=0)
    >>> inferrer.fit([[0.9], [0.8], [0.1], [0.85]], ["cow"] * 4).labels_
    array([0, 0, 1, 0])
    """

    normalizes = False

    def __init__(self, *, max_clusters=5, **shared):
        super().__init__(max_clusters=max_clusters, **shared)

    def choose(self, scores):
        """Index of the largest mean silhouette."""
        return choose_by_mean_silhouette(scores)

    def floor_of(self, score):
        """The mean silhouette."""
        return score.mean


def choose_by_mean_silhouette(scores):
    """Index of the largest mean silhouette.

    The mean hardly sees tiny clusters. Where it is estimated from a sample, values within one
    standard error of the largest count as equal, and the macro silhouette decides among them.
    """
    mean = np.array([score.mean for score in scores])
    macro = np.array([score.macro for score in scores])
    best = scores[int(np.argmax(mean))]
    return int(np.argmax(np.where(mean >= best.mean - best.mean_error - 1e-9, macro, -np.inf)))
