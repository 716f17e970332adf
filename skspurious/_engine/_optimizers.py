"""Optimizers and learning-rate schedules by name."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    optimizer: str | type[Optimizer],
    *,
    lr: float,
    weight_decay: float,
    params: dict | None = None,
) -> Optimizer:
    """An optimizer by name or class; "sgd" has momentum 0.9 unless ``params`` says otherwise."""
    if isinstance(optimizer, str):
        kind, defaults = OPTIMIZERS[optimizer]
        # One kernel for all parameters: small networks spend most of a step launching kernels.
        defaults = {"fused": True, **defaults}
    else:
        kind, defaults = optimizer, {}
    options = {"lr": lr, "weight_decay": weight_decay, **defaults, **(params or {})}
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise ValueError("module has no parameter with requires_grad=True: nothing to train.")
    if any(p.device.type not in ("cpu", "cuda") for p in trainable) or options.get("foreach"):
        options.pop("fused", None)
    return kind(trainable, **options)


def make_schedule(
    optimizer: Optimizer, schedule: str | Callable | None, *, n_steps: int, lr: float
) -> LRScheduler | None:
    """A schedule over ``n_steps`` optimizer steps; a callable is given (optimizer, n_steps)."""
    if schedule is None:
        return None
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=n_steps)
    if schedule == "onecycle":
        # One step more than is taken: torch computes the rate after the last step too.
        return OneCycleLR(optimizer, max_lr=lr, total_steps=n_steps + 1)
    if schedule == "linear":
        return LambdaLR(optimizer, _LinearDecay(n_steps))
    assert callable(schedule)
    return schedule(optimizer, n_steps)


class _LinearDecay:
    """From 1 to 0 in a straight line."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps

    def __call__(self, step: int) -> float:
        return max(0.0, 1.0 - step / self.n_steps)
