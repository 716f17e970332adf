"""GEORGE's other choice: Gaussian mixtures, as many components as the macro silhouette says."""

import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.mixture import GaussianMixture

from skspurious.functional._clustering import assign_nearest, kmeans_centers
from skspurious.functional._rows import row_chunks, squared_norm
from skspurious.group_inference._cluster_method import ClusterMethod
from skspurious.group_inference._kmeans import choose_by_macro_silhouette
from skspurious.utils._parameters import extends

_MAX_COST = 4e7  # rows times squared features, up to which mixtures are fitted to all rows
_MIN_SAMPLE = 5000  # rows of the sample that they are fitted to else, at least
_MIN_OF_STRATUM = 200  # rows of it from every cluster of a k-means partition, if there are as many


@extends(ClusterMethod)
class GaussianMixtureGroups(ClusterMethod):
    """Clusters every class by Gaussian mixtures of full covariance [1]_.

    Mixtures want few dimensions: hardness, a margin, or a `reduction`. The number of components
    is the one with the largest macro silhouette, as in :class:`KMeansGroups`; a row belongs to
    its most probable component.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_init : int, default=3
        Restarts of the expectation maximisation.
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    KMeansGroups : The same with k-means.

    Notes
    -----
    A step of the expectation maximisation costs n k d² for n rows of d features. So a class of
    more than 40 million / max(d², 400) distinct rows (and more than 5,000) is represented by a
    sample of that many: rows of every cluster of a k-means partition in proportion to its size,
    but at least 200, so that tiny clusters stay. Means and covariances come from the
    sample, the weights from all rows, and all rows are assigned.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré. "No Subclass Left Behind: Fine-Grained
       Robustness in Coarse-Grained Classification Problems." NeurIPS 2020. arXiv:2011.12945.
    .. [2] L. McInnes, J. Healy, J. Melville. "UMAP: Uniform Manifold Approximation and Projection
       for Dimension Reduction." 2018. arXiv:1802.03426.

    Examples
    --------
    >>> from skspurious.group_inference import GaussianMixtureGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(GaussianMixtureGroups(n_clusters=2), random_state=0)
    >>> inferrer.fit([[0.0], [0.2], [5.0], [0.1], [5.2]], ["cow"] * 5).labels_
    array([0, 0, 1, 0, 1])
    """

    normalizes = True
    has_centers = False

    def __init__(self, *, n_init=3, **shared):
        super().__init__(**shared)
        self.n_init = n_init

    def candidates(self, work, position, count, numbers, min_size, context):
        """Mixtures and labels for each number of components, without too small ones."""
        chosen = _draw_sample(work, max(numbers), context)
        rows = (work if chosen is None else work[chosen]).astype(np.float64)
        repeats = count if chosen is None else count[chosen]
        samples = rows if repeats.max() == 1 else np.repeat(rows, repeats, axis=0)
        for k in numbers:
            mixture = GaussianMixture(k, n_init=self.n_init, random_state=context.seed)
            mixture.fit(samples)
            model = GaussianClusters(
                np.log(np.maximum(mixture.weights_, np.finfo(float).tiny)),
                mixture.means_,
                mixture.precisions_cholesky_,
            )
            score = model.log_joint(work)
            if chosen is not None:
                score += model.adjust_weights(score, count)
            yield model.without_small(score, count, min_size)

    def choose(self, scores):
        """Index of the largest macro silhouette; of equal ones the last, with most components."""
        return choose_by_macro_silhouette(scores)


def _draw_sample(work, n_clusters, context):
    """Rows that stand for all, with those of tiny clusters; None where all can be taken."""
    n_rows, n_features = work.shape
    size = max(_MIN_SAMPLE, int(_MAX_COST / max(n_features**2, 400)))
    if n_rows <= size:
        return None
    centers = kmeans_centers(work, n_clusters, n_init=3, random_state=context.seed)
    stratum = assign_nearest(work, centers)[0]
    n_drawn = np.bincount(stratum, minlength=n_clusters) * (size / n_rows)
    n_drawn = np.maximum(np.round(n_drawn), _MIN_OF_STRATUM)
    order = np.lexsort((np.random.default_rng(context.seed).random(n_rows), stratum))
    first = np.searchsorted(stratum[order], np.arange(n_clusters))
    rank = np.arange(n_rows) - first[stratum[order]]
    return np.sort(order[rank < n_drawn[stratum[order]]])


class GaussianClusters:
    """Clusters as components of a mixture: a row belongs to the most probable one.

    Parameters
    ----------
    log_weight : ndarray of shape (n_clusters,)
    means : ndarray of shape (n_clusters, n_features)
    precision : ndarray of shape (n_clusters, n_features, n_features)
        Cholesky factors P of the precision matrices P P'.
    """

    def __init__(self, log_weight, means, precision):
        self.log_weight = log_weight
        self.means = means
        self.precision = precision

    def __len__(self):
        return len(self.means)

    def keep(self, clusters):
        """Some of the clusters, in the given order."""
        return GaussianClusters(
            self.log_weight[clusters], self.means[clusters], self.precision[clusters]
        )

    def without_small(self, score, count, min_size):
        """The clusters without those that are too small, the smallest first, and the labels."""
        kept = np.arange(len(self))
        while True:
            label = score[:, kept].argmax(axis=1)
            size = np.bincount(label, weights=count, minlength=len(kept))
            if len(kept) == 1 or size.min() >= max(min_size, 1):
                return self.keep(kept), label
            kept = np.delete(kept, np.argmin(size))

    def adjust_weights(self, score, count):
        """Make the weights those of all rows, given their log joints; what is added to these."""
        posterior = np.exp(score - logsumexp(score, axis=1, keepdims=True))
        weight = np.maximum(np.average(posterior, axis=0, weights=count), np.finfo(float).tiny)
        change = np.log(weight) - self.log_weight
        self.log_weight = self.log_weight + change
        return change

    def log_joint(self, X):
        """Log of weight times density of every component, up to a constant."""
        result = np.empty((len(X), len(self)))
        for part in row_chunks(*X.shape):
            rows = X[part].astype(np.float64, copy=False)
            for j, (mean, precision) in enumerate(zip(self.means, self.precision)):
                log_det = np.log(np.diag(precision)).sum()
                squared = squared_norm((rows - mean) @ precision)
                result[part, j] = self.log_weight[j] + log_det - 0.5 * squared
        return result

    def assign(self, X, among):
        """Most probable of the clusters `among`, as a position in `among`."""
        return self.keep(among).log_joint(X).argmax(axis=1)

    def membership(self, X, among, variance):
        """Posterior of the clusters `among`."""
        return softmax(self.keep(among).log_joint(X), axis=1)
