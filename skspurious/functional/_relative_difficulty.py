"""LfF's two formulas: a loss that follows the easy samples, and weights of the others."""

import torch
from torch import Tensor

__all__ = ["generalised_cross_entropy", "relative_difficulty"]


def generalised_cross_entropy(losses: Tensor, q: float) -> Tensor:
    r"""Generalised cross-entropy, whose gradient is that of the cross-entropy times ``p ** q``.

    .. math:: GCE = \frac{1 - p^q}{q}

    So samples that the network fits already, of a large probability p of their class, lead it, and
    those that it does not fit hardly count.

    Parameters
    ----------
    losses : tensor of shape (n_samples,)
        Cross-entropies, ``-log p``.
    q : float
        In (0, 1]. Near 0 it is the cross-entropy, at 1 the mean absolute error.

    Returns
    -------
    losses : tensor of shape (n_samples,)

    References
    ----------
    .. [1] Z. Zhang, M. R. Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural
       Networks with Noisy Labels", NeurIPS 2018. arXiv:1805.07836.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._relative_difficulty import generalised_cross_entropy
    >>> p = torch.tensor([0.25, 0.0])
    >>> generalised_cross_entropy(-p.log(), q=0.5)
    tensor([1., 2.])
    """
    return -torch.expm1(-q * losses) / q


def relative_difficulty(biased: Tensor, debiased: Tensor, y: Tensor, n_classes: int) -> Tensor:
    r"""How hard each sample is for a biased network, as a share of what it is for both.

    .. math:: W_i = \frac{b_i}{b_i + d_i}, \qquad
        b_i = \frac{B_i}{\max_{j: y_j = y_i} B_j}, \quad
        d_i = \frac{D_i}{\max_{j: y_j = y_i} D_j}

    Parameters
    ----------
    biased, debiased : tensors of shape (n_samples,)
        Losses B and D of the two networks.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    n_classes : int
        Number of classes.

    Returns
    -------
    weights : tensor of shape (n_samples,)
        In [0, 1]; 1/2 for a sample on which neither has a loss.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional._relative_difficulty import relative_difficulty
    >>> biased, debiased = torch.tensor([4.0, 1.0, 3.0]), torch.tensor([1.0, 2.0, 5.0])
    >>> relative_difficulty(biased, debiased, torch.tensor([0, 0, 1]), n_classes=2)
    tensor([0.6667, 0.2000, 0.5000])
    """
    losses = torch.stack([biased, debiased])
    largest = losses.new_zeros(2, n_classes)
    largest.scatter_reduce_(1, y.expand(2, -1), losses, "amax")
    b, d = losses / largest.clamp(min=torch.finfo(losses.dtype).tiny)[:, y]
    return torch.where(b + d > 0, b / (b + d), 0.5)
