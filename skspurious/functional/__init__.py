"""Pure functions on arrays and tensors: clusterings, silhouettes, weights, losses, splits."""

from skspurious.functional._balanced_rows import (
    balanced_rows,
    cluster_class_counts,
    mixed_cells,
)
from skspurious.functional._clustering import (
    assign_nearest,
    find_line,
    kmeans_1d,
    kmeans_centers,
    merge_small_clusters,
    row_ids,
    seed_centers,
    select_subclusters,
    squared_distances_to,
    unique_rows,
)
from skspurious.functional._contrastive import (
    contrastive_loss,
    contrastive_losses,
    contrastive_pairs,
)
from skspurious.functional._cross_fit import cross_fitted_logits, fit_balanced_logistic
from skspurious.functional._difficulty import (
    DifficultySplit,
    el2n,
    forgetting_counts,
    gradient_norms,
    last_layer_gradient_norms,
    loss_difficulty,
    margin_difficulty,
    select_kept,
    split_difficulty,
)
from skspurious.functional._dispersion import class_means, find_dispersed
from skspurious.functional._error_set import class_margins, stratified_folds
from skspurious.functional._group_loss import (
    adjusted_group_loss,
    group_coefficients,
    group_mean_losses,
    group_sums,
    update_group_weights,
)
from skspurious.functional._l1_logistic import (
    LogisticHeads,
    fit_l1_logistic,
    logistic_optimality,
)
from skspurious.functional._masks import (
    hard_mask,
    keep_probability,
    mask_penalty,
    sample_mask,
)
from skspurious.functional._metrics import (
    adjusted_mean,
    group_counts,
    group_means,
    wilson_interval,
)
from skspurious.functional._neutralise import (
    elimination_gradient,
    elimination_loss,
    find_rescued,
    fit_balanced_head,
    fit_elimination,
    fold_neutral_map,
    neutral_centers,
    neutralise,
    part_weights,
    solve_elimination,
)
from skspurious.functional._silhouette import (
    SilhouetteScore,
    mean_silhouettes,
    score_partitions,
    silhouette_samples,
    silhouette_samples_1d,
    stratified_silhouette,
)
from skspurious.functional._split import balanced_subset, stratified_split
from skspurious.functional._weights import sampling_probabilities

__all__ = [
    "DifficultySplit",
    "LogisticHeads",
    "SilhouetteScore",
    "adjusted_group_loss",
    "adjusted_mean",
    "assign_nearest",
    "balanced_rows",
    "balanced_subset",
    "class_margins",
    "class_means",
    "cluster_class_counts",
    "contrastive_loss",
    "contrastive_losses",
    "contrastive_pairs",
    "cross_fitted_logits",
    "el2n",
    "elimination_gradient",
    "elimination_loss",
    "find_dispersed",
    "find_line",
    "find_rescued",
    "fit_balanced_head",
    "fit_balanced_logistic",
    "fit_elimination",
    "fit_l1_logistic",
    "fold_neutral_map",
    "forgetting_counts",
    "gradient_norms",
    "group_coefficients",
    "group_counts",
    "group_mean_losses",
    "group_means",
    "group_sums",
    "hard_mask",
    "keep_probability",
    "kmeans_1d",
    "kmeans_centers",
    "last_layer_gradient_norms",
    "logistic_optimality",
    "loss_difficulty",
    "margin_difficulty",
    "mask_penalty",
    "mean_silhouettes",
    "merge_small_clusters",
    "mixed_cells",
    "neutral_centers",
    "neutralise",
    "part_weights",
    "row_ids",
    "sample_mask",
    "sampling_probabilities",
    "score_partitions",
    "seed_centers",
    "select_kept",
    "select_subclusters",
    "silhouette_samples",
    "silhouette_samples_1d",
    "solve_elimination",
    "split_difficulty",
    "squared_distances_to",
    "stratified_folds",
    "stratified_silhouette",
    "stratified_split",
    "unique_rows",
    "update_group_weights",
    "wilson_interval",
]
