"""Cluster-robust accuracy: the worst cluster tells of a hidden group where no label does."""

import numpy as np
from sklearn.utils import check_consistent_length

from skspurious.data import encode_groups, infer_groups
from skspurious.metrics._accuracy import worst_group_accuracy
from skspurious.metrics._checks import check_labels

__all__ = ["cluster_robust_accuracy"]


def cluster_robust_accuracy(y_true, y_pred, *, cluster, X=None, min_size=1):
    """Accuracy of the inferred group on which it is lowest.

    Where groups are not labelled, the accuracy on the worst cluster is closer to that on the worst
    group than the accuracy over all samples is [1]_. It can be measured for any classifier, also
    for one that was trained without groups.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    cluster : array-like of shape (n_samples,), or fitted estimator
        Cluster of each sample, such as ``inferrer.predict(Z, y=y_true)``; or an estimator that
        infers it from `X`: a ``SpuriousGroupInferrer``, a Pipeline ending in one, or a classifier
        with a ``group_inferrer_``.
    X : samples, default=None
        Samples that the estimator takes; only needed where `cluster` is one.
    min_size : int, default=1
        Clusters with fewer of these samples are left out.

    Returns
    -------
    accuracy : float

    Raises
    ------
    ValueError
        If `cluster` is an estimator that infers no groups, or `X` is missing for it, or no
        cluster has `min_size` samples.

    See Also
    --------
    worst_group_accuracy : The same with known groups.
    group_inference_report : How clusters and known groups agree.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré, "No Subclass Left Behind:
       Fine-Grained Robustness in Coarse-Grained Classification Problems", NeurIPS 2020,
       arXiv:2011.12945.

    Examples
    --------
    >>> from skspurious.metrics import cluster_robust_accuracy
    >>> cluster_robust_accuracy([0, 0, 0, 1, 1], [0, 0, 1, 1, 1], cluster=[0, 1, 1, 2, 2])
    0.5
    """
    if hasattr(cluster, "predict"):
        if X is None:
            raise ValueError(
                f"cluster is a {type(cluster).__name__}: give X=, the samples whose clusters it "
                "infers, or the clusters themselves."
            )
        found, _, _ = infer_groups(cluster, X, y_true)
        if found is None:
            raise ValueError(
                f"cluster is a {type(cluster).__name__} that infers no groups: give a fitted "
                "SpuriousGroupInferrer, a Pipeline ending in one, or the clusters themselves."
            )
        cluster = found
    y_true, y_pred = check_labels(y_true, "y_true"), check_labels(y_pred, "y_pred")
    check_consistent_length(y_true, y_pred)
    if len(y_true) == 0:
        raise ValueError("y_true has 0 samples; a group metric needs at least one.")
    code, clusters = encode_groups(cluster, n_samples=len(y_true), name="cluster")
    size = np.bincount(code, minlength=len(clusters))
    kept = (size >= min_size)[code]
    if not kept.any():
        raise ValueError(f"no cluster has min_size={min_size} samples: lower it.")
    return worst_group_accuracy(y_true[kept], y_pred[kept], sample_group=code[kept])
