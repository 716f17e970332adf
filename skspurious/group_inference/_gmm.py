"""GEORGE's other choice: Gaussian mixtures, as many components as the macro silhouette says."""

import numpy as np
from scipy.special import softmax
from sklearn.mixture import GaussianMixture

from skspurious.group_inference._base import Method

_N_INIT = 3


def gmm_candidates(work, position, count, candidates, settings):
    """Mixtures and labels for each number of components, without too small ones."""
    rows = work.astype(np.float64)
    samples = rows if count.max() == 1 else np.repeat(rows, count, axis=0)
    for k in candidates:
        mixture = GaussianMixture(k, n_init=_N_INIT, random_state=settings.seed).fit(samples)
        model = GaussianClusters(
            np.log(np.maximum(mixture.weights_, np.finfo(float).tiny)),
            mixture.means_,
            mixture.precisions_cholesky_,
        )
        score, kept = model.log_joint(rows), np.arange(k)
        while True:
            label = score[:, kept].argmax(axis=1)
            size = np.bincount(label, weights=count, minlength=len(kept))
            if len(kept) == 1 or size.min() >= max(settings.min_cluster_size, 1):
                break
            kept = np.delete(kept, np.argmin(size))
        yield model.keep(kept), label


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

    def log_joint(self, X):
        """Log of weight times density of every component, up to a constant."""
        result = np.empty((len(X), len(self)))
        for j, (mean, precision) in enumerate(zip(self.means, self.precision)):
            z = (X - mean) @ precision
            log_det = np.log(np.diag(precision)).sum()
            result[:, j] = self.log_weight[j] + log_det - 0.5 * np.einsum("ij,ij->i", z, z)
        return result

    def assign(self, X, among):
        """Most probable of the clusters `among`, as a position in `among`."""
        return self.keep(among).log_joint(X).argmax(axis=1)

    def membership(self, X, among, variance):
        """Posterior of the clusters `among`."""
        return softmax(self.keep(among).log_joint(X), axis=1)


METHOD = Method(candidates=gmm_candidates, normalize=True, max_clusters=10, criterion="macro")
