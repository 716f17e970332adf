"""GEORGE's choice: clusters of the normalised embedding, as many as the macro silhouette says."""

import numpy as np

from skspurious.functional._clustering import (
    kmeans_centers,
    merge_small_clusters,
    seed_centers,
)
from skspurious.functional._kmeans_1d import kmeans_1d
from skspurious.group_inference._cluster_method import ClusterMethod
from skspurious.group_inference._clusters import CentroidClusters, cluster_means
from skspurious.utils._parameters import extends


@extends(ClusterMethod)
class KMeansGroups(ClusterMethod):
    """Clusters every class by k-means, with as many clusters as the macro silhouette says.

    For embeddings of a trained network, whose rows are normalised unless the inferrer is told
    otherwise [1]_. The macro silhouette is the mean over the clusters of the cluster's mean
    silhouette, so small clusters count as much as large ones; between equal values the larger
    number of clusters is taken.

    .. versionadded:: 0.1

    Parameters
    ----------
    n_init : int, default=10
        Restarts of k-means.
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    GaussianMixtureGroups : GEORGE's other choice.

    Notes
    -----
    k-means runs on all rows by faiss; where the rows of a class lie on a line it is solved
    exactly.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré. "No Subclass Left Behind: Fine-Grained
       Robustness in Coarse-Grained Classification Problems." NeurIPS 2020. arXiv:2011.12945.
    .. [2] L. McInnes, J. Healy, J. Melville. "UMAP: Uniform Manifold Approximation and Projection
       for Dimension Reduction." 2018. arXiv:1802.03426.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import KMeansGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=0)
    >>> inferrer.fit([[0.0], [0.2], [5.0], [0.1]], ["cow"] * 4).labels_
    array([0, 0, 1, 0])
    """

    normalizes = True

    def __init__(self, *, n_init=10, **shared):
        super().__init__(**shared)
        self.n_init = n_init

    def candidates(self, work, position, count, numbers, min_size, context):
        """Centers and labels for each number of clusters, without too small ones."""
        for centers in self._candidate_centers(work, position, count, numbers, context):
            kept, label = merge_small_clusters(
                work, centers, min_cluster_size=min_size, sample_count=count
            )
            yield CentroidClusters(centers[kept]), label

    def choose(self, scores):
        """Index of the largest macro silhouette; of equal ones the last, with most clusters."""
        return choose_by_macro_silhouette(scores)

    def _candidate_centers(self, work, position, count, numbers, context):
        """Centers for each number of clusters, in float64."""
        if position is not None:
            for values in kmeans_1d(position, max(numbers), sample_count=count)[numbers[0] - 1 :]:
                label = np.searchsorted((values[1:] + values[:-1]) / 2.0, position)
                yield cluster_means(work, label, count)
            return
        rng = np.random.default_rng(context.seed)
        rows = np.ascontiguousarray(work, dtype=np.float32)
        weight = None if count.max() == 1 else count
        seeds = [
            seed_centers(rows, max(numbers), rng=rng, sample_count=weight)
            for _ in range(self.n_init)
        ]
        use_gpu = rows.size >= context.gpu_min_elements
        for k in numbers:
            centers = kmeans_centers(rows, k, seeds=seeds, sample_count=weight, use_gpu=use_gpu)
            yield centers.astype(np.float64)


def choose_by_macro_silhouette(scores):
    """Index of the largest macro silhouette; of equal ones the last, with the most clusters."""
    macro = np.array([score.macro for score in scores])
    return int(np.flatnonzero(macro >= macro.max() - 1e-9)[-1])
