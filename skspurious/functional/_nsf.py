"""NSF on an embedding: identify, neutralise, eliminate, update, as one pure function."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skspurious.functional._dispersion import class_means, find_dispersed
from skspurious.functional._elimination import fit_elimination, neutralise
from skspurious.functional._linear_head import LinearHead
from skspurious.functional._neutral_centers import find_rescued, neutral_centers
from skspurious.functional._neutral_head import fit_balanced_head, part_weights

# With more rows than this, steps see batches of this size.
_FULL_BATCH, _BATCH = 1_000_000, 65_536


class NeutralFit(NamedTuple):
    """What the four steps learn."""

    means: np.ndarray  # (n_classes, d)
    outlier: np.ndarray  # (n_samples,), bool
    centers: np.ndarray  # (n_classes, d): neutral centers
    scale: np.ndarray  # (d,)
    shift: np.ndarray  # (d,)
    rescued: np.ndarray  # (n_samples,), bool
    weights: np.ndarray  # (n_samples,): in the loss of the head; 0 where it is not used
    head: tuple[Tensor, Tensor]  # weights and bias of the head on mapped features
    losses: dict[str, Tensor]  # of every step of "eliminate" and "update"
    is_fallback: bool  # no sample was rescued, so the head is fitted on the easy ones alone


def fit_neutral(
    features: Tensor,
    y: Tensor,
    *,
    n_classes: int,
    sample_weight: np.ndarray | None = None,
    transform_steps: int = 300,
    head_steps: int | None = 500,
    weight_decay: float | None = None,
    lr: float = 1e-3,
    reg_weight: float = 10.0,
    class_balanced: bool = False,
    generator: torch.Generator | None = None,
    keep: Callable[[str, Callable[[], Any]], Any] = lambda _, compute: compute(),
) -> NeutralFit:
    """The four steps of NSF.

    Parameters
    ----------
    features : Tensor of shape (n_samples, d)
        The embedding.
    y : Tensor of shape (n_samples,), int64
        Class codes, each of which occurs.
    n_classes : int
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights in the means, in the loss of the map, and within each half of the head's batches.
    transform_steps : int
        Steps of the map.
    head_steps : int or None
        Steps of the head; None fits it to the minimum of its loss.
    weight_decay : float, default=None
        Of a head that is fitted to the minimum, as in ``LinearHead``.
    lr : float
        Learning rate of both.
    reg_weight : float
        Factor of the mean of the scales in the loss of the map.
    class_balanced : bool
        Whether classes have the same weight in the loss of the head.
    generator : torch.Generator, default=None
        Of the batches and of the head's first weights.
    keep : callable
        Called with "eliminate" and "update" and a function that runs these steps, whose result,
        of tensors, it returns: from an earlier run, if there was one.

    Returns
    -------
    fit : NeutralFit

    Raises
    ------
    ValueError
        If the map is NaN or infinite.
    """
    F, code = features.cpu().numpy(), y.cpu().numpy()
    batch_size = _BATCH if len(code) > _FULL_BATCH else None
    how: dict[str, Any] = {"lr": lr, "batch_size": batch_size, "generator": generator}
    weight = None if sample_weight is None else torch.from_numpy(sample_weight).to(features)
    # Identify: samples nearer to the mean of another class.
    means = class_means(F, code, sample_weight=sample_weight)
    outlier, _ = find_dispersed(F, code, means=means)
    # Neutralise: the midpoint of the outliers and the others.
    centers = neutral_centers(F, code, outlier, sample_weight=sample_weight)
    # Eliminate: a map that draws samples to the neutral centers of their classes.
    wide = torch.float32 if features.device.type == "mps" else torch.float64
    eliminate = partial(
        fit_elimination,
        features,
        y.to(features.device),
        torch.from_numpy(centers).to(features.device, wide),
        n_steps=transform_steps,
        reg_weight=reg_weight,
        sample_weight=weight,
        **how,
    )
    *mapped, eliminate_losses = keep("eliminate", eliminate)
    scale, shift = (parameter.cpu().double().numpy() for parameter in mapped)
    _check_is_finite(scale, shift, transform_steps, lr)
    # Update: a head on which rescued and easy samples weigh the same.
    rescued = find_rescued(F, code, outlier, centers, scale, shift)
    part, is_fallback = _parts(code, outlier, rescued, sample_weight)
    weights = part_weights(
        code, part, class_balanced=class_balanced or is_fallback, sample_weight=sample_weight
    )
    used = np.flatnonzero(weights > 0)
    rows = torch.from_numpy(used).to(features.device)
    maps = (torch.from_numpy(value).to(features) for value in (scale, shift))
    update = partial(
        _fit_head,
        neutralise(features[rows], *maps),
        y.to(features.device)[rows],
        part[used],
        weights[used],
        head_steps,
        weight_decay,
        n_classes=n_classes,
        start_at_zero=is_fallback,
        **how,
    )
    *head, update_losses = keep("update", update)
    losses = {"eliminate": eliminate_losses, "update": update_losses}
    learned = means, outlier, centers, scale, shift, rescued, weights, (*head,), losses
    return NeutralFit(*learned, is_fallback)


def _fit_head(
    Z: Tensor,
    y: Tensor,
    part: np.ndarray,
    weights: np.ndarray,
    n_steps: int | None,
    decay: float | None,
    **how: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and biases of the head, and its losses: by steps, or at the minimum."""
    if n_steps is not None:
        return fit_balanced_head(Z, y, part, weights, n_steps=n_steps, **how)
    exact = torch.device("cpu") if Z.device.type == "mps" else Z.device  # MPS has no float64
    share = torch.from_numpy(weights / weights.sum()).to(exact)
    head = LinearHead(Z.to(exact).double(), y.to(exact), share, how["n_classes"], decay)
    losses = head.minimise(lambda losses: (share @ losses, share))
    weight, bias = head.parameters()
    return weight.to(Z), bias.to(Z), (share @ losses).to(Z)[None]


def _check_is_finite(scale: np.ndarray, shift: np.ndarray, n_steps: int, lr: float) -> None:
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        raise ValueError(
            f"the map of NSF is NaN or infinite after {n_steps} steps at a learning rate "
            f"(nsf_lr) of {lr:g}. Lower it, or standardise the features."
        )


def _parts(
    y: np.ndarray, outlier: np.ndarray, rescued: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, bool]:
    """Part of every sample in the head's loss: 1 rescued, 0 easy, -1 neither.

    Where one of them is empty (True), the parts are those of the fallback: easy samples, and
    every sample of a class that has none.
    """
    part = np.where(rescued, 1, np.where(~outlier, 0, -1))
    counted = part if weight is None else part[weight > 0]
    if (counted == 1).any() and (counted == 0).any():
        return part, False
    is_easy = (part == 0) if weight is None else (part == 0) & (weight > 0)
    has_easy = np.bincount(y[is_easy], minlength=y.max() + 1) > 0
    return np.where(is_easy | ~has_easy[y], 0, -1), True
