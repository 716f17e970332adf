"""NSF: a linear head on mapped features that easy and rescued samples count in the same."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skspurious.functional._elimination import can_fuse, own_generator

__all__ = ["fit_balanced_head", "part_weights"]


def part_weights(
    y: np.ndarray,
    part: np.ndarray,
    *,
    class_balanced: bool = False,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weights under which all parts, or all classes and in them all parts, weigh the same.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class of every sample.
    part : ndarray of shape (n_samples,), int
        Part of every sample, such as 0 for easy and 1 for rescued ones. Samples of a negative
        part are not used.
    class_balanced : bool, default=False
        Whether every class has the same total weight, shared equally by the parts that it
        occurs in. Otherwise every part has, whatever its classes.
    sample_weight : ndarray of shape (n_samples,), default=None
        How the samples of a part, or of a class in a part, share its weight. None is equally.

    Returns
    -------
    weights : ndarray of shape (n_samples,), float64
        Their sum is the number of parts that occur.

    Examples
    --------
    >>> part_weights(np.array([0, 1, 1, 1]), np.array([0, 0, 1, -1]))
    array([0.5, 0.5, 1. , 0. ])
    >>> part_weights(np.array([0, 1, 1, 1]), np.array([0, 0, 1, -1]), class_balanced=True)
    array([1. , 0.5, 0.5, 0. ])
    """
    weight = np.ones(len(y)) if sample_weight is None else np.array(sample_weight, dtype=float)
    weight[part < 0] = 0.0
    used = np.flatnonzero(weight > 0)
    result = np.zeros(len(y))
    if len(used) == 0:
        return result
    n_parts = len(np.unique(part[used]))
    cell = part[used] * (int(y.max()) + 1) + y[used] if class_balanced else part[used]
    _, first, cell = np.unique(cell, return_index=True, return_inverse=True)
    mass = np.ones(len(first))
    if class_balanced:
        owner = y[used[first]]
        n_cells = np.bincount(owner)
        mass = n_parts / (np.count_nonzero(n_cells) * n_cells[owner])
    result[used] = (mass / np.bincount(cell, weights=weight[used]))[cell] * weight[used]
    return result


def fit_balanced_head(
    Z: Tensor,
    y: Tensor,
    part: np.ndarray,
    weights: np.ndarray,
    *,
    n_classes: int,
    n_steps: int = 500,
    lr: float = 1e-3,
    batch_size: int | None = None,
    start_at_zero: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a linear head, by steps of AdamW, on batches in which all parts have the same size.

    In a step each part gives a batch, whose weighted losses are summed. It has as many samples
    as the smallest part: this one gives all that it has, and a larger one as many, drawn with
    replacement in proportion to their weights.

    Parameters
    ----------
    Z : Tensor of shape (n_samples, n_features)
        The mapped embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    part : ndarray of shape (n_samples,), int
        Part of every sample. Samples of a negative part are not used.
    weights : ndarray of shape (n_samples,)
        Weight of every sample in the loss, as :func:`part_weights` gives it. Samples of weight 0
        are not used.
    n_classes : int
        Outputs of the head.
    n_steps : int, default=500
        Number of steps.
    lr : float, default=1e-3
        Learning rate; there is no weight decay.
    batch_size : int, default=None
        Most samples in the batch of a part; None sets no limit.
    start_at_zero : bool, default=False
        Whether to start at zero instead of at random weights in +-1/sqrt(n_features).
    generator : torch.Generator, default=None
        Makes the first weights and the batches; on the CPU. None makes one with the seed 0.

    Returns
    -------
    weight : Tensor of shape (n_classes, n_features)
    bias : Tensor of shape (n_classes,)
    losses : Tensor of shape (n_steps,)
        Loss before every step.

    Raises
    ------
    ValueError
        If no sample is used.

    Examples
    --------
    >>> Z, y = torch.tensor([[-1.0], [1.0], [-2.0]]), torch.tensor([0, 1, 0])
    >>> part = np.array([0, 0, 1])
    >>> weight, bias, _ = fit_balanced_head(Z, y, part, part_weights(y.numpy(), part), n_classes=2)
    >>> bool(weight[1] > weight[0])
    True
    """
    used = [np.flatnonzero((part == p) & (weights > 0)) for p in np.unique(part[part >= 0])]
    used = [rows for rows in used if len(rows)]
    if not used:
        raise ValueError("part and weights leave no sample to fit the head on.")
    size = min(len(rows) for rows in used)
    size = size if batch_size is None else min(size, batch_size)
    generator = own_generator(generator)
    parts = [_Part(Z, y, rows, weights[rows], size, generator) for rows in used]
    bound = 0.0 if start_at_zero else 1.0 / np.sqrt(Z.shape[1])
    weight = torch.empty(n_classes, Z.shape[1], dtype=Z.dtype)
    weight = weight.uniform_(-bound, bound, generator=generator).to(Z.device).requires_grad_()
    bias = torch.empty(n_classes, dtype=Z.dtype)
    bias = bias.uniform_(-bound, bound, generator=generator).to(Z.device).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=0.0, fused=can_fuse(Z))
    losses = []
    for _ in range(n_steps):
        loss = torch.zeros((), dtype=Z.dtype, device=Z.device)
        for some in parts:
            batch, label, share = some.draw()
            each = F.cross_entropy(F.linear(batch, weight, bias), label, reduction="none")
            loss = loss + (share * each).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return weight.detach(), bias.detach(), torch.stack(losses) if losses else Z.new_zeros(0)


class _Part:
    """The samples of a part, and the batches drawn of them."""

    def __init__(
        self,
        Z: Tensor,
        y: Tensor,
        rows: np.ndarray,
        weights: np.ndarray,
        size: int,
        generator: torch.Generator,
    ):
        self.Z, self.y, self.size, self.generator = Z, y, size, generator
        self.rows = torch.from_numpy(rows)
        self.cumulative = torch.from_numpy(np.cumsum(weights))
        share = weights if len(rows) == size else np.full(size, weights.sum() / size)
        self.share = torch.from_numpy(share).to(Z)
        self.whole = self._take(self.rows) if len(rows) == size else None

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels and weights of a batch: of the whole part where it is small enough."""
        if self.whole is not None:
            return *self.whole, self.share
        uniform = torch.rand(self.size, dtype=torch.float64, generator=self.generator)
        position = torch.searchsorted(self.cumulative, uniform * self.cumulative[-1], right=True)
        return *self._take(self.rows[position.clamp(max=len(self.rows) - 1)]), self.share

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.to(self.Z.device)
        return self.Z[rows], self.y[rows]
