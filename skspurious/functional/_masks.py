"""Binary masks over weights: random with a gradient, fixed, and the penalty on their density."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["hard_mask", "mask_penalty", "sample_mask"]

_SMALLEST_DRAW = 1e-6  # uniform draws are kept away from 0 and 1 by this much


def sample_mask(
    logits: Tensor, uniform: Tensor, *, gate: str = "logit", temperature: float = 1.0
) -> Tensor:
    r"""A random binary mask that passes its gradient straight through to the logits.

    With logistic noise :math:`g = \log u - \log(1 - u)` [1]_, the soft mask is
    :math:`s = \sigma((\ell + g) / \tau)`, where :math:`\ell` is the gated logit. The mask is
    :math:`1[s > 1/2]`, and its gradient is that of s. So a weight is kept with probability
    :math:`\sigma(\ell)`, whatever the temperature.

    Parameters
    ----------
    logits : float tensor
        One logit for each weight.
    uniform : tensor of the same shape
        Uniform draws from [0, 1).
    gate : {"logit", "double_sigmoid"}, default="logit"
        What the noise is added to: the logit :math:`\pi`, or its sigmoid. With the sigmoid the
        probability of being kept never leaves (0.5, 0.731).
    temperature : float, default=1.0
        :math:`\tau`; a smaller one makes the gradient of undecided weights larger.

    Returns
    -------
    mask : tensor of the same shape
        Exactly 0 or 1.

    Raises
    ------
    ValueError
        If ``gate`` is unknown.

    References
    ----------
    .. [1] R. Csordás, S. van Steenkiste, J. Schmidhuber, "Are Neural Nets Modular? Inspecting
       Functional Modularity Through Differentiable Weight Masks", ICLR 2021. arXiv:2010.02066.

    Examples
    --------
    >>> import torch
    >>> logits = torch.tensor([1.5, 1.5, -1.5], requires_grad=True)
    >>> mask = sample_mask(logits, torch.tensor([0.5, 0.1, 0.5]))
    >>> mask.tolist()
    [1.0, 0.0, 0.0]
    >>> mask.sum().backward()
    >>> logits.grad
    tensor([0.1491, 0.2219, 0.1491])
    """
    u = uniform.clamp(_SMALLEST_DRAW, 1.0 - _SMALLEST_DRAW)
    noise = torch.log(u) - torch.log1p(-u)
    soft = torch.sigmoid((_gated(logits, gate) + noise) / temperature)
    # The bracket is exactly 0, so that the mask is exactly 0 or 1.
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def hard_mask(logits: Tensor, *, min_density: float = 0.0) -> Tensor:
    """The mask without noise: a weight is kept where its logit is not negative.

    Parameters
    ----------
    logits : float tensor
        One logit for each weight of a layer.
    min_density : float, default=0.0
        Share of the weights, rounded up, that is kept at least: those of the largest logits.

    Returns
    -------
    mask : bool tensor of the same shape

    Examples
    --------
    >>> import torch
    >>> hard_mask(torch.tensor([-0.1, 0.0, 0.1]))
    tensor([False,  True,  True])
    >>> hard_mask(torch.tensor([-0.1, -0.2, -0.3, -0.4]), min_density=0.3)
    tensor([ True,  True, False, False])
    """
    logits = logits.detach()
    mask = logits >= 0
    n_least = math.ceil(min_density * logits.numel() * (1 - 1e-12))  # 0.07 * 100 is 7
    if n_least > 0:
        largest = logits.reshape(-1).topk(n_least).indices
        mask = mask.reshape(-1).index_fill(0, largest, True).reshape(logits.shape)
    return mask


def mask_penalty(logits: Sequence[Tensor], *, penalty: str = "density") -> Tensor:
    r"""Penalty on masks: the smaller, the fewer weights they keep.

    Parameters
    ----------
    logits : sequence of tensors
        The logits of every layer.
    penalty : {"density", "logit_sum"}, default="density"
        "density" is the mean of :math:`\sigma(\pi)` over all weights, so that its strength
        does not depend on their number; "logit_sum" the sum of the logits, which has no lower
        bound.

    Returns
    -------
    penalty : tensor, a scalar

    Raises
    ------
    ValueError
        If ``penalty`` is unknown.

    Examples
    --------
    >>> import torch
    >>> layers = [torch.zeros(3), torch.tensor([2.0])]
    >>> mask_penalty(layers), mask_penalty(layers, penalty="logit_sum")
    (tensor(0.5952), tensor(2.))
    """
    if penalty == "logit_sum":
        return torch.stack([layer.sum() for layer in logits]).sum()
    if penalty != "density":
        raise ValueError(f"penalty must be 'density' or 'logit_sum'; got {penalty!r}.")
    kept = torch.stack([torch.sigmoid(layer).sum() for layer in logits]).sum()
    return kept / sum(layer.numel() for layer in logits)


def _gated(logits: Tensor, gate: str) -> Tensor:
    if gate == "logit":
        return logits
    if gate == "double_sigmoid":
        return torch.sigmoid(logits)
    raise ValueError(f"gate must be 'logit' or 'double_sigmoid'; got {gate!r}.")
