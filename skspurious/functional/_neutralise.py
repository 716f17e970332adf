"""NSF: centers without a spurious part, a map of each feature towards them, a balanced head."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._dispersion import class_means

__all__ = [
    "elimination_gradient",
    "elimination_loss",
    "find_rescued",
    "fit_balanced_head",
    "fit_elimination",
    "fold_neutral_map",
    "neutral_centers",
    "neutralise",
    "part_weights",
    "solve_elimination",
]

EPS = 1e-6  # added to every residual, so that a norm of zero has a gradient

Array = TypeVar("Array", np.ndarray, Tensor)


# ------------------------------------------------------------------------- neutralise


def neutral_centers(
    X: np.ndarray,
    y: np.ndarray,
    outlier: np.ndarray,
    *,
    nearest: np.ndarray | None = None,
    min_outliers: int = 1,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Center of every class in which its inliers and its outliers count the same.

    The unweighted midpoint of the two means, whatever the two sizes: what the outliers have
    instead of the inliers' spurious feature cancels.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample, codes 0..n_classes-1, each of which occurs.
    outlier : ndarray of shape (n_samples,), bool
        The dispersed samples, of :func:`find_dispersed`.
    nearest : ndarray of shape (n_samples,), default=None
        Class whose mean is nearest to each sample. Given, the outliers of a class are one group
        for every class that they are taken for, and the center is the mean over all groups of
        the class; None makes them one group. With two classes both are the same.
    min_outliers : int, default=1
        Fewest outliers that make a group.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weight of every sample in the mean of its group; those of weight 0 do not count.

    Returns
    -------
    centers : ndarray of shape (n_classes, n_features), float64

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [11.0], [10.0]])
    >>> neutral_centers(X, np.array([0, 0, 0, 1]), np.array([False, False, True, False]))
    array([[ 6.],
           [10.]])
    """
    n_classes = int(y.max()) + 1
    cell = outlier.astype(np.int64)  # 0: inliers; 1, 2, ...: the groups of outliers
    if nearest is not None:
        cell *= 1 + nearest
    key = y * (n_classes + 1) + cell
    counted = slice(None) if sample_weight is None else sample_weight > 0
    keys, group = np.unique(key[counted], return_inverse=True)
    weight = None if sample_weight is None else sample_weight[counted]
    means = class_means(X[counted], group, sample_weight=weight)
    owner, kind = np.divmod(keys, n_classes + 1)
    is_used = (kind == 0) | (np.bincount(group) >= min_outliers)
    n_groups = np.bincount(owner[is_used], minlength=n_classes)
    centers = np.zeros((n_classes, X.shape[1]))
    np.add.at(centers, owner[is_used], means[is_used])
    centers /= np.maximum(n_groups, 1)[:, None]
    if (n_groups == 0).any():  # all of a class are outliers, and too few
        whole = class_means(X, y, sample_weight=sample_weight)
        centers[n_groups == 0] = whole[n_groups == 0]
    return centers


# ------------------------------------------------------------------------- eliminate


def neutralise(X: Array, scale: Array, shift: Array) -> Array:
    """Map every feature by itself, ``T(f) = (f + shift) * scale - shift``.

    Feature j is drawn towards the anchor ``-shift[j]``: a scale of 1 leaves it, 0 deletes it.

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
    return (X + shift) * scale - shift


def elimination_loss(
    X: Tensor,
    y: Tensor,
    centers: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    reg: float = 10.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Mean distance of the mapped samples to the centers of their classes, plus a regulariser.

    The distance is Euclidean, not squared, of the residual plus 1e-6. The regulariser is ``reg``
    times the mean of the scales, not of their absolute values.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        The embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    centers : Tensor of shape (n_classes, n_features)
        The neutral centers.
    scale, shift : Tensor of shape (n_features,)
        The map.
    reg : float, default=10.0
        Factor of the regulariser.
    sample_weight : Tensor of shape (n_samples,), default=None
        Weight of every sample in the mean.

    Returns
    -------
    loss : Tensor, a scalar

    Examples
    --------
    >>> X, y = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([0, 0])
    >>> loss = elimination_loss(X, y, torch.zeros(1, 2), torch.ones(2), torch.zeros(2))
    >>> round(float(loss), 3)  # (5 + 0) / 2 + 10
    12.5
    """
    distance = torch.linalg.vector_norm(neutralise(X, scale, shift) - centers[y] + EPS, dim=1)
    if sample_weight is None:
        mean = distance.mean()
    else:
        mean = (sample_weight * distance).sum() / sample_weight.sum()
    return mean + reg * scale.mean()


def elimination_gradient(
    X: Tensor,
    y: Tensor,
    centers: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    reg: float = 10.0,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Value and closed gradient of :func:`elimination_loss`.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        The embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    centers : Tensor of shape (n_classes, n_features)
        The neutral centers.
    scale, shift : Tensor of shape (n_features,)
        The map.
    reg : float, default=10.0
        Factor of the regulariser.
    sample_weight : Tensor of shape (n_samples,), default=None
        Weight of every sample in the mean.

    Returns
    -------
    loss : Tensor, a scalar
    scale_gradient, shift_gradient : Tensor of shape (n_features,)

    Notes
    -----
    With r the residuals, n their norms and N samples, the gradients are
    ``mean_i r_ij (x_ij + shift_j) / n_i + reg / d`` and ``mean_i r_ij (scale_j - 1) / n_i``.
    Both are made of a few matrix products of the rows, centered by class, and of their squares,
    so that no residual is ever stored.

    Examples
    --------
    >>> X, y = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    >>> scale, shift = torch.ones(2), torch.zeros(2)
    >>> elimination_gradient(X, y, torch.zeros(1, 2), scale, shift, reg=0.0)[1]
    tensor([1.8000, 3.2000])
    """
    return _gradient(_prepare(X, y, len(centers), sample_weight), centers, scale, shift, reg)


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
    rows: _Rows, centers: Tensor, scale: Tensor, shift: Tensor, reg: float
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
    loss = (rows.weight * norm).sum().to(wide) + reg * scale.mean()
    return loss, scale_gradient + reg / len(scale), (scale - 1.0) * residual.sum(0)


@torch.no_grad()
def fit_elimination(
    X: Tensor,
    y: Tensor,
    centers: Tensor,
    *,
    n_steps: int = 300,
    lr: float = 1e-3,
    reg: float = 10.0,
    clamp_min: float | None = None,
    sample_weight: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Map that draws the samples to the centers of their classes, by steps of Adam.

    It starts at the identity, and Adam moves a parameter by about ``lr`` a step: the number of
    steps decides how far a scale can come from 1.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_features)
        The embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    centers : Tensor of shape (n_classes, n_features)
        The neutral centers; their type, float64 or float32, is that of the map.
    n_steps : int, default=300
        Steps; 0 leaves the identity.
    lr : float, default=1e-3
        Learning rate.
    reg : float, default=10.0
        Factor of the mean of the scales in the loss.
    clamp_min : float, default=None
        Scales are kept above; None lets them become negative.
    sample_weight : Tensor of shape (n_samples,), default=None
        Weight of every sample in the loss.
    batch_size : int, default=None
        Rows of a step; None takes all in every step.
    generator : torch.Generator, default=None
        Shuffles the rows of batches; on the CPU. None is one with the seed 0.

    Returns
    -------
    scale, shift : Tensor of shape (n_features,)
    losses : Tensor of shape (n_steps,)
        Loss before every step.

    Examples
    --------
    >>> X, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 0])
    >>> scale, shift, losses = fit_elimination(X, y, torch.zeros(1, 1), n_steps=10)
    >>> scale.numpy().round(3), bool(losses[-1] < losses[0])
    (array([0.99], dtype=float32), True)
    """
    scale = torch.ones(X.shape[1], dtype=centers.dtype, device=X.device)
    shift = torch.zeros_like(scale)
    optimizer = torch.optim.Adam([scale, shift], lr=lr, fused=_can_fuse(X))
    losses = torch.zeros(n_steps, dtype=scale.dtype, device=X.device)
    is_full = batch_size is None or batch_size >= len(X)
    rows = _prepare(X, y, len(centers), sample_weight) if is_full else None
    batches = _endless_batches(len(X), batch_size or len(X), _own_generator(generator))
    for step in range(n_steps):
        part = rows
        if part is None:
            index = next(batches).to(X.device)
            weight = None if sample_weight is None else sample_weight[index]
            part = _prepare(X[index], y[index], len(centers), weight)
        losses[step], scale.grad, shift.grad = _gradient(part, centers, scale, shift, reg)
        optimizer.step()
        if clamp_min is not None:
            scale.clamp_(min=clamp_min)
    return scale, shift, losses


def solve_elimination(
    X: np.ndarray,
    y: np.ndarray,
    centers: np.ndarray,
    *,
    clamp_min: float | None = None,
    sample_weight: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Map that minimises the squared distances to the centers: one regression per feature.

    The scale is ``Cov(x_j, center_j of the class) / Var(x_j)``. There is no regulariser. A
    feature that does not vary is left as it is.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The embedding.
    y : ndarray of shape (n_samples,)
        Class of every sample, codes 0..n_classes-1, each of which occurs.
    centers : ndarray of shape (n_classes, n_features)
        The neutral centers.
    clamp_min : float, default=None
        Scales below are raised to it.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weight of every sample.

    Returns
    -------
    scale, shift : ndarray of shape (n_features,), float64

    Examples
    --------
    >>> X, y = np.array([[-1.0], [1.0], [1.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> solve_elimination(X, y, np.array([[0.0], [2.0]]))
    (array([0.5]), array([-1.]))
    """
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    share = np.bincount(y, weights=weight) / weight.sum()
    means = class_means(X, y, sample_weight=sample_weight)
    mean, target = share @ means, share @ centers
    covariance = share @ ((means - mean) * (centers - target))
    variance = share @ np.square(means - mean)
    for start in range(0, len(X), 4096):
        part = slice(start, start + 4096)
        variance += (weight[part] / weight.sum()) @ np.square(X[part] - means[y[part]])
    rounding = len(y) * np.square(np.finfo(np.float64).eps * np.abs(means).max(axis=0))
    varies = variance > rounding
    scale = np.ones(X.shape[1])
    np.divide(covariance, variance, out=scale, where=varies)
    scale = scale if clamp_min is None else np.maximum(scale, clamp_min)
    shift = np.zeros_like(scale)
    # What is added is target - scale * mean, and that is shift * (scale - 1).
    moves = varies & (np.abs(scale - 1.0) > 1e-9)
    np.divide(target - scale * mean, scale - 1.0, out=shift, where=moves)
    return scale, shift


# ------------------------------------------------------------------------- update


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


def part_weights(
    y: np.ndarray,
    part: np.ndarray,
    *,
    balance: str = "group",
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weights under which the parts, or the classes and in them the parts, are equally heavy.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class of every sample.
    part : ndarray of shape (n_samples,), int
        Part of every sample, such as 0 for easy and 1 for rescued ones; negative: not used.
    balance : {"group", "group_class"}, default="group"
        "group": every part has the same total weight. "group_class": every class has the same
        total weight, shared equally by the parts that it occurs in.
    sample_weight : ndarray of shape (n_samples,), default=None
        Proportions inside a part, or inside a class of a part.

    Returns
    -------
    weights : ndarray of shape (n_samples,), float64
        Their sum is the number of parts that occur.

    Examples
    --------
    >>> part_weights(np.array([0, 1, 1, 1]), np.array([0, 0, 1, -1]))
    array([0.5, 0.5, 1. , 0. ])
    >>> part_weights(np.array([0, 1, 1, 1]), np.array([0, 0, 1, -1]), balance="group_class")
    array([1. , 0.5, 0.5, 0. ])
    """
    weight = np.ones(len(y)) if sample_weight is None else np.array(sample_weight, dtype=float)
    weight[part < 0] = 0.0
    used = np.flatnonzero(weight > 0)
    result = np.zeros(len(y))
    if len(used) == 0:
        return result
    n_parts = len(np.unique(part[used]))
    cell = part[used] if balance == "group" else part[used] * (int(y.max()) + 1) + y[used]
    _, first, cell = np.unique(cell, return_index=True, return_inverse=True)
    mass = np.ones(len(first))
    if balance == "group_class":
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
    """Linear head on pairs of equally large batches of the parts, by steps of AdamW.

    A batch of a part has as many samples as the smallest part: all of that one, and of a larger
    part as many, drawn with replacement.

    Parameters
    ----------
    Z : Tensor of shape (n_samples, n_features)
        The mapped embedding.
    y : Tensor of shape (n_samples,), int64
        Class of every sample.
    part : ndarray of shape (n_samples,), int
        Part of every sample; negative: not used.
    weights : ndarray of shape (n_samples,)
        Weight of every sample in the loss, of :func:`part_weights`; 0: not used.
    n_classes : int
        Outputs of the head.
    n_steps : int, default=500
        Steps.
    lr : float, default=1e-3
        Learning rate; there is no weight decay.
    batch_size : int, default=None
        Most samples in the batch of a part; None sets no limit.
    start_at_zero : bool, default=False
        Start at zero instead of random weights in +-1/sqrt(n_features).
    generator : torch.Generator, default=None
        Makes the first weights and the batches; on the CPU. None is one with the seed 0.

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
    generator = _own_generator(generator)
    parts = [_Part(Z, y, rows, weights[rows], size, generator) for rows in used]
    bound = 0.0 if start_at_zero else 1.0 / np.sqrt(Z.shape[1])
    weight = torch.empty(n_classes, Z.shape[1], dtype=Z.dtype)
    weight = weight.uniform_(-bound, bound, generator=generator).to(Z.device).requires_grad_()
    bias = torch.empty(n_classes, dtype=Z.dtype)
    bias = bias.uniform_(-bound, bound, generator=generator).to(Z.device).requires_grad_()
    optimizer = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=0.0, fused=_can_fuse(Z))
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
    return weight * scale, bias + weight @ ((scale - 1.0) * shift)


def _own_generator(generator: torch.Generator | None) -> torch.Generator:
    return torch.Generator().manual_seed(0) if generator is None else generator


def _can_fuse(X: Tensor) -> bool:
    """Whether the optimizer has one kernel for a whole step there."""
    return X.device.type in ("cpu", "cuda")


def _endless_batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of one random order of the rows after another."""
    while True:
        yield from torch.randperm(n, generator=generator).split(batch_size)
