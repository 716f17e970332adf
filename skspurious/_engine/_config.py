"""How to train: the shared parameters of the estimators, resolved."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from skspurious._engine._batches import Transform
from skspurious._engine._callbacks import Callback

# What "auto" is in the loop.
IN_THE_LOOP = {"optimizer": "sgd", "lr": 0.01, "max_epochs": 10, "weight_decay": 0.0}


@dataclass(frozen=True)
class LoopConfig:
    """Settings of one run of the loop; what is "auto" is open."""

    max_epochs: Any
    batch_size: int
    lr: Any
    optimizer: Any = "sgd"
    optimizer_params: dict | None = None
    weight_decay: Any = 0.0
    lr_schedule: Any = None
    max_grad_norm: float | None = None
    gradient_accumulation: int = 1
    train_transform: Transform | None = None
    eval_transform: Transform | None = None
    monitor: str | None = None
    patience: int | None = None
    num_workers: int = 0
    compile: bool = False
    checkpoint_dir: Any = None
    fingerprint: str = ""
    callbacks: Sequence[Callback] = ()
    seed: int = 0
    is_head: bool = False  # whether the network is a linear head that the estimator made

    def __post_init__(self) -> None:
        for field in fields(self):  # torch takes no NumPy numbers, and short ones overflow
            value = getattr(self, field.name)
            if isinstance(value, np.number | np.bool_):
                object.__setattr__(self, field.name, value.item())

    @property
    def is_open(self) -> bool:
        """Whether the network is a linear head, and nothing says how it is to be stepped."""
        return (
            self.is_head
            and all(auto(getattr(self, name)) for name in ("optimizer", "lr", "max_epochs"))
            and self.optimizer_params is None
            and self.lr_schedule is None
            and self.max_grad_norm is None
            and self.patience is None
            and self.train_transform is self.eval_transform
        )

    def for_the_loop(self) -> "LoopConfig":
        """With nothing left open."""
        open_: dict[str, Any] = {k: v for k, v in IN_THE_LOOP.items() if auto(getattr(self, k))}
        return replace(self, **open_)


def auto(value: Any) -> bool:
    """Whether a parameter is left open."""
    return isinstance(value, str) and value == "auto"
