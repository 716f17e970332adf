"""Pure functions on arrays and tensors, for use without the estimators.

Public are the functions that a training loop or an analysis of your own can use: sums, means and
intervals over groups, the losses and weights of GroupDRO, balanced sampling and splitting, scores
of difficulty, and single formulas of the methods. Steps that only an estimator takes are private.
"""

from skspurious.functional._contrastive import contrastive_losses
from skspurious.functional._difficulty import (
    el2n,
    forgetting_counts,
    gradient_norms,
    last_layer_gradient_norms,
    select_kept,
)
from skspurious.functional._dispersion import class_means, find_dispersed
from skspurious.functional._elimination import fold_neutral_map, neutralise
from skspurious.functional._group_loss import (
    adjusted_group_loss,
    cvar_group_weights,
    group_mean_losses,
    group_sums,
    update_group_weights,
)
from skspurious.functional._l1_logistic import fit_l1_logistic
from skspurious.functional._lowest_proportion import lowest_proportion_interval
from skspurious.functional._metrics import group_counts, group_means, wilson_interval
from skspurious.functional._silhouette import score_partitions
from skspurious.functional._split import balanced_subset, stratified_split
from skspurious.functional._weights import sampling_probabilities

__all__ = [
    "adjusted_group_loss",
    "balanced_subset",
    "class_means",
    "contrastive_losses",
    "cvar_group_weights",
    "el2n",
    "find_dispersed",
    "fit_l1_logistic",
    "fold_neutral_map",
    "forgetting_counts",
    "gradient_norms",
    "group_counts",
    "group_mean_losses",
    "group_means",
    "group_sums",
    "last_layer_gradient_norms",
    "lowest_proportion_interval",
    "neutralise",
    "sampling_probabilities",
    "score_partitions",
    "select_kept",
    "stratified_split",
    "update_group_weights",
    "wilson_interval",
]
