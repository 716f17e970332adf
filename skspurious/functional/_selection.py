"""SELF's selection: the samples that two networks disagree about most, the same of each class."""

import numpy as np
from torch import Tensor

__all__ = ["disagreement", "select_per_class"]


def disagreement(logits: Tensor, other: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the probabilities of one network from those of another.

    Parameters
    ----------
    logits, other : tensors of shape (n_samples, n_classes)
        Logits of both.

    Returns
    -------
    divergence : tensor of shape (n_samples,)
        ``sum_k p_k log(p_k / q_k)``, with q of ``other``.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._selection import disagreement
    >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    >>> disagreement(p.log(), q.log())  # log(2) / 2 + log(2 / 3) / 2
    tensor([0.1438])
    """
    log_p, log_q = logits.log_softmax(1), other.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def select_per_class(scores: np.ndarray, y: np.ndarray, n_selected: int) -> np.ndarray:
    """Rows of the largest scores, equally many of each class.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        The larger, the sooner a row is selected; of equal ones the first.
    y : ndarray of shape (n_samples,), int
        Classes; those that do not occur take no place.
    n_selected : int
        Rows in all. Each class has its share, rounded up, or all its rows.

    Returns
    -------
    rows : ndarray of int
        Sorted.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.functional._selection import select_per_class
    >>> select_per_class(np.array([0.1, 0.9, 0.5, 0.2, 0.0]), np.array([0, 0, 0, 1, 1]), 2)
    array([1, 3])
    """
    classes = np.unique(y)
    each = -(-int(n_selected) // len(classes))
    best_first = np.argsort(-scores, kind="stable")
    rows = [best_first[y[best_first] == k][:each] for k in classes]
    return np.sort(np.concatenate(rows))
