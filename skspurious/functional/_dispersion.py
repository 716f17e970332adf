"""Samples that lie nearer to the mean of another class than to their own."""

import numpy as np

from skspurious.functional._arguments import array, codes, takes
from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._rows import row_chunks

__all__ = ["class_means", "find_dispersed"]

_CHUNK = 4096  # rows converted to float64 at a time


@takes(X=array(2), y=codes(), sample_weight=array(1, lowest=0), rows=("X", "y", "sample_weight"))
def class_means(
    X: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Mean of every class, summed in float64.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample, codes 0..n_classes-1, each of which occurs.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weight of every sample, not negative; None weighs them equally.

    Returns
    -------
    means : ndarray of shape (n_classes, n_features), float64

    Raises
    ------
    ValueError
        If a class has no sample, or none of positive weight.

    Examples
    --------
    >>> class_means(np.array([[0.0], [2.0], [5.0]]), np.array([0, 0, 1]))
    array([[1.],
           [5.]])
    """
    size = np.bincount(y)
    if (size == 0).any():
        raise ValueError(
            f"y has no sample of class {np.argmin(size)}: number the classes that occur 0, 1, ..."
        )
    if sample_weight is None:
        return np.stack([_mean_of(X, np.flatnonzero(y == k)) for k in range(len(size))])
    weight = np.asarray(sample_weight, dtype=np.float64)
    total = np.bincount(y, weights=weight)
    if (total <= 0).any():
        raise ValueError(f"sample_weight has no positive weight in class {np.argmin(total)}.")
    means = np.zeros((len(size), X.shape[1]))
    for k in range(len(size)):
        rows = np.flatnonzero(y == k)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            means[k] += weight[part] @ X[part].astype(np.float64)
    return means / total[:, None]


def _mean_of(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean of some of the rows, in float64."""
    total = np.zeros(X.shape[1])
    for part in row_chunks(len(rows), X.shape[1]):
        total = total + X[rows[part]].sum(axis=0, dtype=np.float64)
    return total / len(rows)


@takes(X=array(2), y=codes(), means=array(2), rows=("X", "y"))
def find_dispersed(
    X: np.ndarray,
    y: np.ndarray,
    *,
    means: np.ndarray | None = None,
    chunk_size: int = 4096,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples whose nearest class mean is not that of their own class.

    A sample whose spurious attribute disagrees with its class is drawn towards the class that
    the attribute goes with; it is called dispersed, or an outlier of its class [1]_.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample, codes 0..n_classes-1.
    means : ndarray of shape (n_classes, n_features), default=None
        Class means; None computes them from `X` and `y`, each sample included.
    chunk_size : int, default=4096
        Rows processed at a time.

    Returns
    -------
    dispersed : ndarray of shape (n_samples,), bool
        Whether the nearest class mean, in Euclidean distance, is that of another class; of equally
        near ones the lowest class counts.
    means : ndarray of shape (n_classes, n_features), float64
        The class means used.

    References
    ----------
    .. [1] W. Li et al. "Let Samples Speak: Mitigating Spurious Correlation by Exploiting the
       Clusterness of Samples." CVPR 2025. arXiv:2512.22874.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [8.0], [9.0], [10.0]])
    >>> find_dispersed(X, np.array([0, 0, 0, 1, 1]))[0]
    array([False, False,  True, False, False])
    """
    means = class_means(X, y) if means is None else means
    nearest = np.argmin(squared_distances_to(X, means, chunk_size=chunk_size), axis=1)
    return nearest != y, means
