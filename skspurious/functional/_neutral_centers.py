"""NSF: centers of the classes without a spurious part, and the outliers that come to lie at them.

The formulas of NSF are in three files: the centers here, the map towards them in
``_elimination.py``, the head on mapped features in ``_neutral_head.py``.
"""

import numpy as np

from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._dispersion import class_means
from skspurious.functional._elimination import neutralise

__all__ = ["find_rescued", "neutral_centers"]


def neutral_centers(
    X: np.ndarray, y: np.ndarray, outlier: np.ndarray, *, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Center of every class in which its inliers and its outliers count the same.

    The midpoint of the mean of the inliers and the mean of the outliers, whatever their numbers:
    if outliers lack the spurious feature of the inliers, or have its opposite, the midpoint has
    little of it. A class of inliers alone, or of outliers alone, has its mean as its center.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample, codes 0..n_classes-1, each of which occurs.
    outlier : ndarray of shape (n_samples,), bool
        The dispersed samples, as :func:`find_dispersed` finds them.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weight of every sample in the mean of the inliers or of the outliers of its class.
        Samples of weight 0 do not count.

    Returns
    -------
    centers : ndarray of shape (n_classes, n_features), float64

    Raises
    ------
    ValueError
        If a class has no sample of positive weight.

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [11.0], [10.0]])
    >>> neutral_centers(X, np.array([0, 0, 0, 1]), np.array([False, False, True, False]))
    array([[ 6.],
           [10.]])
    """
    n_classes = int(y.max()) + 1
    counted = slice(None) if sample_weight is None else sample_weight > 0
    cells, cell = np.unique(2 * y[counted] + outlier[counted], return_inverse=True)
    owner = cells // 2
    n_cells = np.bincount(owner, minlength=n_classes)
    if not n_cells.all():
        raise ValueError(
            f"there is no sample of positive weight in class {np.flatnonzero(n_cells == 0)[0]}: "
            "every class needs one for its center."
        )
    weight = None if sample_weight is None else sample_weight[counted]
    centers = np.zeros((n_classes, X.shape[1]))
    np.add.at(centers, owner, class_means(X[counted], cell, sample_weight=weight))
    return centers / n_cells[:, None]


def find_rescued(
    X: np.ndarray,
    y: np.ndarray,
    outlier: np.ndarray,
    centers: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    *,
    chunk_size: int = 4096,
) -> np.ndarray:
    """Outliers that the map brings nearest to the neutral center of their own class.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample.
    outlier : ndarray of shape (n_samples,), bool
        The dispersed samples.
    centers : ndarray of shape (n_classes, n_features)
        The neutral centers.
    scale, shift : ndarray of shape (n_features,)
        The map.
    chunk_size : int, default=4096
        Rows processed at a time.

    Returns
    -------
    rescued : ndarray of shape (n_samples,), bool

    Examples
    --------
    >>> X, y = np.array([[0.0, 9.0], [9.0, 0.0]]), np.array([0, 0])
    >>> centers = np.array([[0.0, 5.0], [9.0, 5.0]])
    >>> find_rescued(X, y, np.array([True, True]), centers, np.ones(2), np.zeros(2))
    array([ True, False])
    """
    rescued = np.zeros(len(y), dtype=bool)
    rows = np.flatnonzero(outlier)
    for start in range(0, len(rows), chunk_size):
        part = rows[start : start + chunk_size]
        mapped = neutralise(X[part].astype(np.float64), scale, shift)
        rescued[part] = squared_distances_to(mapped, centers).argmin(axis=1) == y[part]
    return rescued
