"""NSF: the map of each feature towards the neutral centers, and how it is learned."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from skspurious.functional._arguments import check_map

__all__ = ["fit_elimination", "fold_neutral_map", "neutralise"]

EPS = 1e-6  # added to every residual, so that a norm of zero has a gradient

Array = TypeVar("Array", np.ndarray, Tensor)


def neutralise(X: Array, scale: Array, shift: Array) -> Array:
    """Scale every feature about a point of its own, ``T(f) = (f + shift) * scale - shift``.

    Feature j is drawn towards ``-shift[j]``. A scale of 1 leaves it as it is; with a scale of 0
    it has this value for every sample, and so says nothing any more.

    Parameters
    ----------
    X : ndarray or Tensor of shape (n_samples, n_features)
        The embedding.
    scale, shift : ndarray or Tensor of shape (n_features,)
        The map; a scale of 1 with a shift of 0 is the identity, exactly.

    Returns
    -------
    mapped : ndarray or Tensor of shape (n_samples, n_features)

    Examples
    --------
    >>> neutralise(np.array([[1.0, 5.0]]), np.array([1.0, 0.5]), np.array([0.0, -3.0]))
    array([[1., 4.]])
    """
    check_map(X=X, scale=scale, shift=shift)
    return (X + shift) * scale - shift


def fold_neutral_map(weight: Array, bias: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """The head on mapped features as one linear layer on the features themselves.

    Parameters
    ----------
    weight : ndarray or Tensor of shape (n_classes, n_features)
        Weights of the head.
    bias : ndarray or Tensor of shape (n_classes,)
        Bias of the head.
    scale, shift : ndarray or Tensor of shape (n_features,)
        The map.

    Returns
    -------
    weight : ndarray or Tensor of shape (n_classes, n_features)
    bias : ndarray or Tensor of shape (n_classes,)

    Examples
    --------
    >>> scale, shift = np.array([0.5]), np.array([4.0])
    >>> fold_neutral_map(np.array([[2.0]]), np.array([1.0]), scale, shift)
    (array([[1.]]), array([-3.]))
    >>> 2.0 * neutralise(6.0, 0.5, 4.0) + 1.0 == 1.0 * 6.0 - 3.0
    True
    """
    check_map(weight=weight, scale=scale, shift=shift)
    check_map(bias=bias, weight=weight[:, 0])
    if torch.is_tensor(weight):
        bias, scale, shift = (part.to(weight.dtype) for part in (bias, scale, shift))
    return weight * scale, bias + weight @ ((scale - 1.0) * shift)


@torch.no_grad()
def fit_elimination(
    X: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    n_steps: int = 300,
    lr: float = 1e-3,
    reg_weight: float = 10.0,
    sample_weight: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Learn the map that draws the samples to the centers of their classes, by steps of Adam.

    The loss is the weighted mean of the distances of the mapped samples to the centers of their
    classes, plus a regulariser that draws all scales down:

    .. math:: \frac{\sum_i w_i \lVert T(x_i) - c_{y_i} + 10^{-6} \rVert_2}{\sum_i w_i}
              + \frac{\mathrm{reg\_weight}}{d} \sum_j \mathrm{scale}_j.

    The distance is not squared, and the scales, which may become negative, are summed without
    taking their absolute values. The map starts at the identity, and Adam moves a parameter by
    about ``lr`` a step: the number of steps decides how far a scale can come from 1.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        The embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    centers : Tensor of shape (n_classes, n_features)
        The neutral centers. The map has their dtype, float64 or float32.
    n_steps : int, default=300
        Steps; 0 leaves the identity.
    lr : float, default=1e-3
        Learning rate.
    reg_weight : float, default=10.0
        Factor of the mean of the scales in the loss.
    sample_weight : Tensor of shape (n_samples,), default=None
        Weight of every sample in the loss.
    batch_size : int, default=None
        Rows of a step; None takes all in every step.
    generator : torch.Generator, default=None
        Shuffles the rows of batches; on the CPU. None makes one with the seed 0.

    Returns
    -------
    scale : Tensor of shape (n_features,)
    shift : Tensor of shape (n_features,)
        The map, see :func:`neutralise`.
    losses : Tensor of shape (n_steps,)
        Loss before every step.

    Notes
    -----
    With :math:`r_i` the residual of sample i, :math:`n_i` its norm and equal weights, the
    gradient of a scale is the mean of :math:`r_{ij} (x_{ij} + \mathrm{shift}_j) / n_i`, plus
    :math:`\mathrm{reg\_weight} / d`, and that of a shift the mean of
    :math:`r_{ij} (\mathrm{scale}_j - 1) / n_i`.
    Both are made of a few matrix products of the rows, centered by class, and of their squares,
    so that no residual is ever stored.

    Examples
    --------
    >>> X, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 0])
    >>> scale, shift, losses = fit_elimination(X, y, torch.zeros(1, 1), n_steps=10)
    >>> scale.numpy().round(3), bool(losses[-1] < losses[0])
    (array([0.99], dtype=float32), True)
    """
    scale = torch.ones(X.shape[1], dtype=centers.dtype, device=X.device)
    shift = torch.zeros_like(scale)
    optimizer = torch.optim.Adam([scale, shift], lr=lr, fused=can_fuse(X))
    losses = torch.zeros(n_steps, dtype=scale.dtype, device=X.device)
    is_full = batch_size is None or batch_size >= len(X)
    rows = _prepare(X, y, len(centers), sample_weight) if is_full else None
    batches = _endless_batches(len(X), batch_size or len(X), own_generator(generator))
    for step in range(n_steps):
        part = rows
        if part is None:
            index = next(batches).to(X.device)
            weight = None if sample_weight is None else sample_weight[index]
            part = _prepare(X[index], y[index], len(centers), weight)
        losses[step], scale.grad, shift.grad = _gradient(part, centers, scale, shift, reg_weight)
        optimizer.step()
    return scale, shift, losses


class _Rows(NamedTuple):
    """What the gradient reads of the samples."""

    centered: Tensor  # (n, d): each row less the mean of its class
    squared: Tensor  # (n, d)
    y: Tensor  # (n,)
    weight: Tensor  # (n,), of sum 1
    means: Tensor  # (n_classes, d)


def _prepare(X: Tensor, y: Tensor, n_classes: int, sample_weight: Tensor | None) -> _Rows:
    tiny = torch.finfo(X.dtype).tiny
    weight = X.new_ones(len(y)) if sample_weight is None else sample_weight.to(X.dtype)
    total = X.new_zeros(n_classes).index_add_(0, y, weight).clamp_(min=tiny)
    # Any origin near the rows does; it must be the one that is subtracted, in its precision.
    means = X.new_zeros(n_classes, X.shape[1])
    means.index_add_(0, y, X * (weight / total[y])[:, None])
    centered = X - means[y]
    weight = weight / weight.sum().clamp(min=tiny)
    return _Rows(centered, centered.square(), y, weight, means)


def _gradient(
    rows: _Rows, centers: Tensor, scale: Tensor, shift: Tensor, reg_weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients; parameters may be wider than the rows.

    With D the centered rows and m the means, a residual is ``scale D + offset`` of its class.
    """
    narrow, wide = rows.centered.dtype, scale.dtype
    means = rows.means.to(wide)
    offset = scale * (means + shift) - shift - centers + EPS  # (n_classes, d)
    cross = rows.centered @ (scale * offset).T.to(narrow)  # (n, n_classes)
    cross = cross.gather(1, rows.y[:, None]).squeeze(1)
    own, constant = rows.squared @ scale.square().to(narrow), offset.square().sum(1).to(narrow)
    size = own + constant[rows.y]
    # Where nearly all cancels, rounding decides, and the norm must not come out too small.
    floor = size * (8.0 * torch.finfo(narrow).eps)
    norm = (size + 2.0 * cross).maximum(floor).sqrt()
    share = rows.weight / norm
    member = torch.zeros(len(share), len(centers), dtype=narrow, device=share.device)
    member.scatter_(1, rows.y[:, None], share[:, None])
    first = (member.T @ rows.centered).to(wide)  # (n_classes, d): sums of share D
    second = (share @ rows.squared).to(wide)  # (d,): sum of share D^2
    residual = scale * first + offset * member.sum(0).to(wide)[:, None]  # sums of share r
    scale_gradient = scale * second + (offset * first + (means + shift) * residual).sum(0)
    loss = (rows.weight * norm).sum().to(wide) + reg_weight * scale.mean()
    return loss, scale_gradient + reg_weight / len(scale), (scale - 1.0) * residual.sum(0)


def own_generator(generator: torch.Generator | None) -> torch.Generator:
    """The given generator, or one with the seed 0."""
    return torch.Generator().manual_seed(0) if generator is None else generator


def can_fuse(X: Tensor) -> bool:
    """Whether the optimizer has one kernel for a whole step there."""
    return X.device.type in ("cpu", "cuda")


def _endless_batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of one random order of the rows after another."""
    while True:
        yield from torch.randperm(n, generator=generator).split(batch_size)
