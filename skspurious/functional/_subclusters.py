"""GEORGE's over-clustering: which parts of clusters become clusters themselves."""

import numpy as np

__all__ = ["select_subclusters"]


def select_subclusters(
    parent: np.ndarray,
    *,
    new_silhouette: np.ndarray,
    old_silhouette: np.ndarray,
    loss: np.ndarray,
    size: np.ndarray,
    valid_size: np.ndarray | None = None,
    min_silhouette: float = 0.0,
    min_share: float = 0.005,
    min_size: int = 25,
    min_rest: int = 1,
) -> np.ndarray:
    """Which parts of clusters become clusters themselves, by GEORGE's four criteria [1]_.

    A part is kept where (i) its samples have a larger mean silhouette after all clusters are
    split than before, and one above `min_silhouette`; (ii) its mean loss is at least that of its
    cluster; (iii) it has at least `min_size` samples and at least `min_share` of all; and (iv) at
    least `min_size` validation samples fall into it.

    Parameters
    ----------
    parent : ndarray of shape (n_parts,), int64
        The cluster of every part.
    new_silhouette, old_silhouette : ndarray of shape (n_parts,)
        Mean silhouette of the part's samples among the parts, and among the clusters.
    loss : ndarray of shape (n_parts,)
        Mean loss of the part's samples.
    size : ndarray of shape (n_parts,)
        Samples of every part.
    valid_size : ndarray of shape (n_parts,), default=None
        Validation samples of every part; None leaves out criterion (iv).
    min_silhouette : float, default=0.0
        Floor of criterion (i).
    min_share : float, default=0.005
        Smallest share of the samples of all parts.
    min_size : int, default=25
        Fewest samples, also in validation.
    min_rest : int, default=1
        Fewest samples that may be left in a cluster, unless none are: where there are fewer, the
        smallest of its kept parts is given back.

    Returns
    -------
    kept : ndarray of shape (n_parts,), bool

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré. "No Subclass Left Behind: Fine-Grained
       Robustness in Coarse-Grained Classification Problems." NeurIPS 2020. arXiv:2011.12945.

    Examples
    --------
    >>> select_subclusters(
    ...     np.array([0, 0]),
    ...     new_silhouette=np.array([0.8, 0.9]),
    ...     old_silhouette=np.array([0.5, 0.4]),
    ...     loss=np.array([0.1, 2.0]),  # 0.385 in the cluster
    ...     size=np.array([170, 30]),
    ... )
    array([False,  True])
    """
    total = np.bincount(parent, weights=size)
    cluster_loss = np.bincount(parent, weights=loss * size) / total
    kept = new_silhouette > np.maximum(old_silhouette, min_silhouette)
    kept &= loss >= cluster_loss[parent] - 1e-9 * np.abs(cluster_loss[parent])
    kept &= size >= max(min_share * size.sum(), min_size)
    if valid_size is not None:
        kept &= valid_size >= min_size
    for cluster in range(len(total)):
        own = np.flatnonzero(parent == cluster)
        while kept[own].any() and 0 < size[own][~kept[own]].sum() < min_rest:
            left = own[kept[own]]
            kept[left[np.argmin(size[left])]] = False
    return kept
