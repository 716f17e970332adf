"""Losses per group, and the group weights of GroupDRO.

All are segment sums: nothing loops over groups, and nothing waits for the device.
"""

import torch
from torch import Tensor


def group_sums(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Sum of ``values`` (n,) in each group, as (n_groups,)."""
    sums = torch.zeros(n_groups, dtype=values.dtype, device=values.device)
    return sums.index_add_(0, group, values)


def group_means(sums: Tensor, counts: Tensor) -> Tensor:
    """Mean loss of each group; 0 for a group without samples."""
    return torch.where(counts > 0, sums / counts.clamp(min=torch.finfo(sums.dtype).tiny), 0.0)


def adjusted_group_loss(group_loss: Tensor, group_size: Tensor, adjustment: Tensor) -> Tensor:
    """``A_g = L_g + C_g / sqrt(n_g)``; 0 for a group that never occurs in training."""
    return torch.where(group_size > 0, group_loss + adjustment / group_size.clamp(min=1).sqrt(), 0)


def update_group_weights(log_q: Tensor, adjusted_loss: Tensor, step_size: float) -> Tensor:
    """``q_g <- q_g exp(eta A_g)``, renormalised: exponentiated gradient ascent in log space.

    In log space a group that has lagged for long can come back; a float32 probability would
    have underflowed to an exact zero.
    """
    return torch.log_softmax(log_q + step_size * adjusted_loss, dim=0)


def group_weighted_loss(
    losses: Tensor, group: Tensor, weight: Tensor, q: Tensor, counts: Tensor
) -> Tensor:
    """``sum_g q_g L_g`` as a sum over samples, ``sum_i w_i q_{g_i} / n_{g_i} * l_i``."""
    return (weight * (q / counts.clamp(min=torch.finfo(counts.dtype).tiny))[group] * losses).sum()
