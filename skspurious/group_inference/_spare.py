"""SPARE's choice: clusters of early outputs, as many as the mean silhouette says."""

import numpy as np

from skspurious.group_inference._base import Method
from skspurious.group_inference._kmeans import kmeans_candidates

METHOD = Method(candidates=kmeans_candidates, max_clusters=5, criterion="mean", high_power=2.0)


def choose_by_mean_silhouette(scores):
    """Index of the largest mean silhouette.

    The mean hardly sees tiny clusters. Where it is estimated from a sample, values within one
    standard error of the largest count as equal, and the macro silhouette decides among them.
    """
    mean = np.array([score.mean for score in scores])
    macro = np.array([score.macro for score in scores])
    best = scores[int(np.argmax(mean))]
    return int(np.argmax(np.where(mean >= best.mean - best.mean_error - 1e-9, macro, -np.inf)))


def sampling_power(silhouette, *, threshold, high_power):
    """Power of each class: 1 where its clusters are well separated, else `high_power`.

    A minority cluster that is not well separated holds majority samples as well, so it is drawn
    more often. A class with one cluster (silhouette NaN) has power 1.
    """
    poor = np.asarray(silhouette) < threshold
    return np.where(poor, float(high_power), 1.0)
