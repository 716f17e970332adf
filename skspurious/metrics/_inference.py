"""How well inferred groups match the true ones."""

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import column_or_1d

from skspurious.data import encode_groups
from skspurious.utils._rows import as_labels

__all__ = ["group_inference_report"]


def group_inference_report(sample_group_true, sample_group_inferred, y):
    r"""Compare inferred groups with true ones, class by class.

    Cluster numbers mean nothing by themselves, so nothing here assumes that an inferred id
    equals a true one. Purity is the share of samples whose true group is the most frequent one
    of their cluster. The minority of a class is its smallest true group; it is matched with the
    cluster whose F1 score against it is highest (of equal ones, the one with higher precision).

    Parameters
    ----------
    sample_group_true : array-like of shape (n_samples,) or (n_samples, n_attributes)
        True groups, or the spurious attribute: any hashable values.
    sample_group_inferred : array-like of shape (n_samples,) or (n_samples, n_columns)
        Inferred groups, for instance ``inferrer.labels_``.
    y : array-like of shape (n_samples,)
        Class labels. Groups are compared within each class.

    Returns
    -------
    report : DataFrame of shape (n_classes, 11)
        Indexed by class: ``n``, ``n_groups`` and ``n_clusters`` (how many occur), ``ari`` (adjusted
        Rand index [1]_), ``purity``, ``minority_group``, ``minority_n``, ``matched_cluster``,
        ``precision``, ``recall`` and ``f1`` of that cluster against the minority. The last six
        are missing for a class with one true group. ``report.attrs`` holds ``ari`` and ``purity``
        over all samples, groups and clusters both crossed with the class.

    Notes
    -----
    Purity grows with the number of clusters, up to 1 for one cluster per sample; the adjusted
    Rand index and the minority's F1 do not. The index over all samples also counts the
    agreement on the classes, which are given, so it is higher than the indices within the classes.

    References
    ----------
    .. [1] L. Hubert and P. Arabie, "Comparing partitions", Journal of Classification 2, 1985.

    Examples
    --------
    >>> from skspurious.metrics import group_inference_report
    >>> true, inferred = ["field"] * 6 + ["lake"] * 2, [1] * 5 + [0] * 3
    >>> report = group_inference_report(true, inferred, y=[0] * 8)
    >>> report[["minority_group", "matched_cluster", "precision", "recall"]]
      minority_group  matched_cluster  precision  recall
    0           lake                0   0.666667     1.0
    """
    label, classes = encode_groups(column_or_1d(as_labels(y, "y")), name="y")
    true, true_values = encode_groups(
        sample_group_true, n_samples=len(label), name="sample_group_true"
    )
    inferred, inferred_values = encode_groups(
        sample_group_inferred, n_samples=len(label), name="sample_group_inferred"
    )
    true_values, inferred_values = true_values.tolist(), inferred_values.tolist()
    rows, n_pure = [], 0
    for c in range(len(classes)):
        inside = label == c
        row, n_pure_here = _compare(true[inside], inferred[inside], true_values, inferred_values)
        n_pure += n_pure_here
        rows.append(row)
    report = pd.DataFrame(rows, index=classes.tolist(), columns=_COLUMNS)
    pairs = label * len(true_values) + true, label * len(inferred_values) + inferred
    report.attrs = {
        "ari": float(adjusted_rand_score(*pairs)),
        "purity": float(n_pure / len(label)),
    }
    return report


_COLUMNS = [
    "n",
    "n_groups",
    "n_clusters",
    "ari",
    "purity",
    "minority_group",
    "minority_n",
    "matched_cluster",
    "precision",
    "recall",
    "f1",
]


def _compare(true, inferred, true_values, inferred_values):
    """Row of the report for one class, and its samples of the most frequent groups."""
    table = contingency_matrix(true, inferred, sparse=True).tocsr()  # of what occurs, in order
    groups, clusters = np.unique(true), np.unique(inferred)
    sizes, cluster_sizes = np.bincount(true)[groups], np.bincount(inferred)[clusters]
    n_pure = table.max(axis=0).sum()
    row = {
        "n": len(true),
        "n_groups": len(groups),
        "n_clusters": len(clusters),
        "ari": float(adjusted_rand_score(true, inferred)),
        "purity": float(n_pure / len(true)),
    }
    if len(groups) > 1:
        minority = int(np.argmin(sizes))
        hits = table[[minority]].toarray().ravel()
        f1 = 2 * hits / (sizes[minority] + cluster_sizes)
        precision = hits / cluster_sizes
        best = int(np.lexsort((precision, f1))[-1])
        row |= {
            "minority_group": true_values[groups[minority]],
            "minority_n": int(sizes[minority]),
            "matched_cluster": inferred_values[clusters[best]],
            "precision": float(precision[best]),
            "recall": float(hits[best] / sizes[minority]),
            "f1": float(f1[best]),
        }
    return row, n_pure
