"""Optimizers and learning-rate schedules by name."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)

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
        _refuse_by_name(optimizer)
        kind, defaults = optimizer, {}
    options = {"lr": lr, "weight_decay": weight_decay, **defaults, **(params or {})}
    has_decay = _takes(kind, "weight_decay")
    if not has_decay and options.pop("weight_decay"):
        raise ValueError(
            f"optimizer={_name(kind)} has no weight decay, and weight_decay={weight_decay:g}. "
            "Set weight_decay=0, or choose another optimizer."
        )
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise ValueError("module has no parameter with requires_grad=True: nothing to train.")
    if any(p.device.type not in ("cpu", "cuda") for p in trainable) or options.get("foreach"):
        options.pop("fused", None)
    return kind(trainable, **options)


_REFUSED = {
    "LBFGS": "it evaluates the loss of the same samples several times a step, and gets a batch. A "
    "linear head, module=None, with the default parameters is fitted to its minimum by L-BFGS",
    "Rprop": "it goes by the signs of the gradients of all samples, which a batch does not have",
    "SparseAdam": "it takes sparse gradients alone, and these are dense",
}


def _refuse_by_name(optimizer: Any) -> None:
    """Raise for an optimizer class that cannot work on batches."""
    kind = getattr(optimizer, "func", optimizer)
    name = _name(kind)
    why = _REFUSED.get(name) if kind is getattr(torch.optim, name, None) else None
    step = getattr(kind, "step", None)
    if why is None and step is not None:
        closure = inspect.signature(step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            why = "its step needs a closure, which is not given"
    if why is not None:
        raise ValueError(
            f"optimizer={name} cannot train by batches: {why}. Use 'sgd', 'adam', 'adamw' or "
            "another class of torch.optim, such as torch.optim.RMSprop."
        )


def _takes(kind: Any, name: str) -> bool:
    """Whether a callable has an argument of that name, as far as can be seen."""
    parameters = inspect.signature(kind).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", repr(kind))


def make_schedule(
    optimizer: Optimizer,
    schedule: str | Callable | None,
    *,
    n_steps: int,
    lr: float,
    monitor: str | None = None,
) -> LRScheduler | None:
    """A schedule over ``n_steps`` optimizer steps; a callable is given (optimizer, n_steps).

    "plateau" follows the column of the history that the best epoch is best in, ``monitor``.
    """
    if schedule is None:
        return None
    if schedule == "plateau":
        is_loss = monitor is None or monitor.endswith("loss")
        return ReduceLROnPlateau(optimizer, mode="min" if is_loss else "max")
    if getattr(schedule, "func", schedule) is ReduceLROnPlateau:  # which has no use for n_steps
        return schedule(optimizer)  # type: ignore[operator]
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=n_steps)
    if schedule == "onecycle":
        # One step more than is taken: torch computes the rate after the last step too.
        return OneCycleLR(optimizer, max_lr=lr, total_steps=n_steps + 1)
    if schedule == "linear":
        return LambdaLR(optimizer, _LinearDecay(n_steps))
    assert callable(schedule)
    return schedule(optimizer, n_steps)


def step_on_plateau(schedule: ReduceLROnPlateau, row: dict[str, Any], monitor: str | None) -> None:
    """Show a schedule of plateaus an epoch's row of the history.

    With mode "max" it looks at the monitored accuracy, with "min" at the loss; of the validation
    samples where there are any.
    """
    side = "valid" if "valid_loss" in row else "train"
    value = f"{side}_loss" if schedule.mode == "min" else f"{side}_accuracy"
    if schedule.mode == "max" and monitor is not None and not monitor.endswith("loss"):
        value = monitor
    schedule.step(row[value])


class _LinearDecay:
    """From 1 to 0 in a straight line."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps

    def __call__(self, step: int) -> float:
        return max(0.0, 1.0 - step / self.n_steps)
