"""GEORGE's choice: clusters of the normalised embedding, as many as the macro silhouette says."""

import numpy as np

from skspurious.functional._clustering import (
    kmeans_1d,
    kmeans_centers,
    merge_small_clusters,
    seed_centers,
)
from skspurious.group_inference._base import Method
from skspurious.group_inference._clusters import CentroidClusters, cluster_means


def kmeans_candidates(work, position, count, candidates, settings):
    """Centers and labels for each number of clusters, without too small ones."""
    for centers in _candidate_centers(work, position, count, candidates, settings):
        kept, label = merge_small_clusters(
            work, centers, min_cluster_size=settings.min_cluster_size, sample_count=count
        )
        yield CentroidClusters(centers[kept]), label


def _candidate_centers(work, position, count, candidates, settings):
    """Centers for each number of clusters, in float64."""
    if position is not None:
        for values in kmeans_1d(position, max(candidates), sample_count=count)[candidates[0] - 1 :]:
            label = np.searchsorted((values[1:] + values[:-1]) / 2.0, position)
            yield cluster_means(work, label, count)
        return
    rng = np.random.default_rng(settings.seed)
    rows = np.ascontiguousarray(work, dtype=np.float32)
    weight = None if count.max() == 1 else count
    seeds = [
        seed_centers(rows, max(candidates), rng=rng, sample_count=weight)
        for _ in range(settings.n_init)
    ]
    use_gpu = rows.size >= settings.gpu_min_elements
    for k in candidates:
        centers = kmeans_centers(rows, k, seeds=seeds, sample_count=weight, use_gpu=use_gpu)
        yield centers.astype(np.float64)


def choose_by_macro_silhouette(scores):
    """Index of the largest macro silhouette; of equal ones the last, with the most clusters."""
    macro = np.array([score.macro for score in scores])
    return int(np.flatnonzero(macro >= macro.max() - 1e-9)[-1])


METHOD = Method(candidates=kmeans_candidates, normalize=True, max_clusters=10, criterion="macro")
