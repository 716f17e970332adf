"""Pure functions on arrays and tensors: clusterings, silhouettes, weights, losses, splits."""

from skspurious.functional._clustering import (
    assign_nearest,
    find_line,
    kmeans_1d,
    kmeans_centers,
    merge_small_clusters,
    seed_centers,
    squared_distances_to,
    unique_rows,
)
from skspurious.functional._dispersion import class_means, find_dispersed
from skspurious.functional._group_loss import (
    adjusted_group_loss,
    group_mean_losses,
    group_sums,
    group_weighted_loss,
    update_group_weights,
)
from skspurious.functional._metrics import (
    adjusted_mean,
    group_counts,
    group_means,
    wilson_interval,
)
from skspurious.functional._silhouette import (
    SilhouetteScore,
    score_partitions,
    silhouette_samples,
    silhouette_samples_1d,
    stratified_silhouette,
)
from skspurious.functional._split import stratified_split
from skspurious.functional._weights import sampling_probabilities

__all__ = [
    "SilhouetteScore",
    "adjusted_group_loss",
    "adjusted_mean",
    "assign_nearest",
    "class_means",
    "find_dispersed",
    "find_line",
    "group_counts",
    "group_mean_losses",
    "group_means",
    "group_sums",
    "group_weighted_loss",
    "kmeans_1d",
    "kmeans_centers",
    "merge_small_clusters",
    "sampling_probabilities",
    "score_partitions",
    "seed_centers",
    "silhouette_samples",
    "silhouette_samples_1d",
    "squared_distances_to",
    "stratified_silhouette",
    "stratified_split",
    "unique_rows",
    "update_group_weights",
    "wilson_interval",
]
