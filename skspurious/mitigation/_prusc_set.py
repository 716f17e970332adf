"""Steps 2 and 3 of PruSC: clusters of an embedding, and a set in which they tell no class."""

import numpy as np
import pandas as pd

from skspurious.data import encode_groups
from skspurious.data._sources import last_step
from skspurious.functional._balanced_rows import balanced_rows, cluster_class_counts, mixed_cells
from skspurious.group_inference import KMeansGroups, SpuriousGroupInferrer
from skspurious.utils._warnings import warn


def cluster_embedding(Z, y, classes, *, n_clusters, device, seed):
    """Spherical k-means of all classes together, as a fitted SpuriousGroupInferrer.

    With "auto", 2, 4 and 8 clusters for each class are tried, and of those that leave two clusters
    with several classes the number with the best silhouette is taken.
    """
    n_classes = len(classes)
    is_open = n_clusters == "auto"
    candidates = [2 * n_classes, 4 * n_classes, 8 * n_classes] if is_open else [int(n_clusters)]
    best, best_score = None, None
    for n in candidates:
        inferrer = SpuriousGroupInferrer(
            KMeansGroups(n_clusters=min(n, _n_distinct(Z, 2 * n))),
            scope="global",
            normalize=True,
            device=device,
            random_state=seed,
        ).fit(Z, y)
        counts = cluster_class_counts(inferrer.clusters_, np.searchsorted(classes, y))
        silhouette = inferrer.silhouette_[np.isfinite(inferrer.silhouette_)]
        score = _n_mixed(counts) >= 2, max(silhouette, default=-1.0)
        if best is None or score > best_score:
            best, best_score = inferrer, score
    return best


def clusters_of(inferrer):
    """The step of an inferrer that found the groups, and the cluster of every training sample.

    Clusters are of all classes together: of an attribute that is partly known, its values.
    """
    found = last_step(inferrer)
    if hasattr(found, "group_attributes_"):
        cluster = encode_groups(found.group_attributes_)[0][found.labels_]
    else:
        cluster = getattr(found, "clusters_", found.labels_)
    return found, np.unique(cluster, return_inverse=True)[1]


def draw_balanced_set(cluster, y, classes, *, balanced_set, on_pure_clusters, batch_size, seed):
    """Positions of the balanced set, and the table of clusters and classes.

    Where there is no such set, a random one that is balanced by class; where it has less than a
    batch, the same number of every class in every cluster. Both with a warning.
    """
    counts = cluster_class_counts(cluster, y, n_classes=len(classes))
    table = pd.DataFrame(counts, columns=classes, index=pd.RangeIndex(len(counts), name="cluster"))
    rng = np.random.default_rng(seed)
    if balanced_set == "within_cluster" and _n_mixed(counts) < 2:
        message = (
            f"{_n_mixed(counts)} of {len(counts)} clusters have samples of two classes; at "
            f"least two such clusters are needed. Samples of each class:\n{table}\n"
            "Use another number of clusters, train the first stage less, or balanced_set='cell'."
        )
        if on_pure_clusters == "raise":
            raise ValueError(message)
        warn(f"{message} Now a random set that is balanced by class is used.")
        return balanced_rows(np.zeros_like(y), y, rng), table
    rows = balanced_rows(cluster, y, rng, balance=balanced_set)
    if balanced_set == "within_cluster" and len(rows) < batch_size:
        warn(
            f"the balanced set has {len(rows)} samples, fewer than a batch of {batch_size}; now "
            "the same number of every class is taken in every cluster (balanced_set='cell'). "
            f"Lower batch_size to keep the smaller set. Samples of each class:\n{table}"
        )
        rows = balanced_rows(cluster, y, rng, balance="cell")
    return rows, table


def _n_mixed(counts):
    """Number of clusters that have samples of several classes."""
    return int(mixed_cells(counts).any(1).sum())


def _n_distinct(embedding, enough):
    """Number of distinct rows, where there may be too few to cluster."""
    for n in (enough, 100 * enough):
        found = len(np.unique(embedding[:n], axis=0))
        if found >= enough // 2 or n >= len(embedding):
            return max(found, 1)
    return len(np.unique(embedding, axis=0))
