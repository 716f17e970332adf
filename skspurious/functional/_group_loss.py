"""Losses per group, and the group weights of GroupDRO.

All are segment sums: nothing loops over groups, and nothing waits for the device.
"""

import torch
from torch import Tensor

from skspurious.functional._arguments import code_tensor, count, number, takes, tensor

__all__ = [
    "adjusted_group_loss",
    "cvar_group_weights",
    "group_coefficients",
    "group_mean_losses",
    "group_sums",
    "update_group_weights",
]


@takes(values=tensor(), group=code_tensor, n_groups=count)
def group_sums(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Add up the values of each group.

    Parameters
    ----------
    values : tensor of shape (..., n_samples)
        What to add, such as losses. Leading axes are kept.
    group : int64 tensor of shape (n_samples,)
        Group of every sample, ids from 0 to n_groups-1.
    n_groups : int
        Number of groups.

    Returns
    -------
    sums : tensor of shape (..., n_groups)
        0 for a group without samples.

    Raises
    ------
    ValueError
        If lengths differ.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import group_sums
    >>> group_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 3)
    tensor([1., 0., 6.])
    """
    if values.shape[-1:] != group.shape:
        raise ValueError(f"values has shape {tuple(values.shape)} for {len(group)} group numbers.")
    return values.new_zeros(*values.shape[:-1], n_groups).index_add_(-1, group, values)


@takes(sums=tensor(1), counts=tensor(1), rows=("sums", "counts"))
def group_mean_losses(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean loss of each group.

    Parameters
    ----------
    sums : tensor of shape (n_groups,)
        Sum of the losses of each group.
    counts : tensor of shape (n_groups,)
        Samples of each group, or the sum of their weights.

    Returns
    -------
    group_loss : tensor of shape (n_groups,)
        0 for a group without samples.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import group_mean_losses
    >>> group_mean_losses(torch.tensor([3.0, 0.0]), torch.tensor([2.0, 0.0]))
    tensor([1.5000, 0.0000])
    """
    return torch.where(counts > 0, sums / counts.clamp(min=torch.finfo(sums.dtype).tiny), 0.0)


@takes(
    group_loss=tensor(1),
    group_size=tensor(1),
    adjustment=tensor(),
    rows=("group_loss", "group_size", "adjustment"),
)
def adjusted_group_loss(group_loss: Tensor, group_size: Tensor, adjustment: Tensor) -> Tensor:
    """Add the group adjustment to the losses of the groups, ``A_g = L_g + C_g / sqrt(n_g)``.

    Parameters
    ----------
    group_loss : tensor of shape (n_groups,)
        Mean loss of each group.
    group_size : tensor of shape (n_groups,)
        Training samples of each group.
    adjustment : tensor of shape (n_groups,)
        ``C_g``: how much more a small group's loss counts.

    Returns
    -------
    adjusted_loss : tensor of shape (n_groups,)
        0 for a group that never occurs in training.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import adjusted_group_loss
    >>> loss, size = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([100.0, 4.0, 0.0])
    >>> adjusted_group_loss(loss, size, torch.full((3,), 2.0))
    tensor([1.2000, 2.0000, 0.0000])
    """
    return torch.where(group_size > 0, group_loss + adjustment / group_size.clamp(min=1).sqrt(), 0)


@takes(log_q=tensor(1), adjusted_loss=tensor(1), step_size=number, rows=("log_q", "adjusted_loss"))
def update_group_weights(log_q: Tensor, adjusted_loss: Tensor, step_size: float) -> Tensor:
    """Make the weights of groups with a high loss larger: ``q_g <- q_g exp(eta A_g)``, normalised.

    This is exponentiated gradient ascent. The weights are kept as logarithms, so that a group
    whose weight has become tiny can come back; as a float32 number it would be exactly zero.

    Parameters
    ----------
    log_q : tensor of shape (n_groups,)
        Logarithm of the group weights.
    adjusted_loss : tensor of shape (n_groups,)
        ``A_g``, as :func:`adjusted_group_loss` gives it.
    step_size : float
        ``eta``.

    Returns
    -------
    log_q : tensor of shape (n_groups,)
        Logarithm of the new group weights, which sum to 1.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import update_group_weights
    >>> q = torch.tensor([0.5, 0.5])
    >>> update_group_weights(q.log(), torch.tensor([0.0, 1.0]), step_size=torch.log(
    ...     torch.tensor(3.0)).item()).exp()
    tensor([0.2500, 0.7500])
    """
    return torch.log_softmax(log_q + step_size * adjusted_loss, dim=0)


@takes(
    adjusted_loss=tensor(1),
    group_size=tensor(1),
    alpha=number,
    rows=("adjusted_loss", "group_size"),
)
def cvar_group_weights(adjusted_loss: Tensor, group_size: Tensor, alpha: float) -> Tensor:
    """Put all weight on the groups of highest loss that make up a share ``alpha`` of the samples.

    The weights maximise ``sum_g q_g A_g`` over distributions with ``q_g <= (n_g / n) / alpha``: in
    the order of their losses, groups get the most that they may, until all weight is given. The
    maximum is the conditional value at risk (CVaR) of the group losses.

    Parameters
    ----------
    adjusted_loss : tensor of shape (n_groups,)
        ``A_g``, as :func:`adjusted_group_loss` gives it.
    group_size : tensor of shape (n_groups,)
        Training samples of each group, ``n_g``.
    alpha : float
        Share of the samples, in (0, 1]; with 1 the weights are the shares of the groups.

    Returns
    -------
    q : tensor of shape (n_groups,)
        Group weights, which sum to 1.

    Examples
    --------
    >>> import torch
    >>> from skspurious.functional import cvar_group_weights
    >>> cvar_group_weights(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([5.0, 1.0, 4.0]), alpha=0.2)
    tensor([0.0000, 0.5000, 0.5000])
    """
    share = group_size / group_size.sum()
    order = adjusted_loss.argsort(descending=True, stable=True)
    most = share[order] / alpha
    taken = most.cumsum(0) - most  # by the groups before
    return torch.zeros_like(most).scatter_(0, order, torch.minimum(most, (1 - taken).clamp(min=0)))


def group_coefficients(group: Tensor, weight: Tensor, q: Tensor, counts: Tensor) -> Tensor:
    """Coefficient of each sample's loss in ``sum_g q_g L_g``: ``w_i q_{g_i} / n_{g_i}``.

    Parameters
    ----------
    group : int64 tensor of shape (n_samples,)
        Ids of the groups of the samples of a batch.
    weight : tensor of shape (n_samples,)
        Sample weights.
    q : tensor of shape (n_groups,)
        Group weights.
    counts : tensor of shape (n_groups,)
        Sum of the sample weights of each group in the batch.

    Returns
    -------
    coefficients : tensor of shape (n_samples,)
        For each group with samples in the batch, they sum to its q.

    Examples
    --------
    >>> import torch
    >>> losses, group = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1])
    >>> q, counts = torch.tensor([0.25, 0.75]), torch.tensor([2.0, 1.0])
    >>> coefficients = group_coefficients(group, torch.ones(3), q, counts)
    >>> coefficients
    tensor([0.1250, 0.1250, 0.7500])
    >>> (coefficients * losses).sum()  # 0.25 * 2 + 0.75 * 5
    tensor(4.2500)
    """
    return weight * (q / counts.clamp(min=torch.finfo(counts.dtype).tiny))[group]
