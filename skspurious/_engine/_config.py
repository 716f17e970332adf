"""How to train: the shared parameters of the estimators, resolved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skspurious._engine._batches import Transform
from skspurious._engine._callbacks import Callback


@dataclass(frozen=True)
class LoopConfig:
    """Settings of one run of the loop."""

    max_epochs: int
    batch_size: int
    lr: float
    optimizer: Any = "sgd"
    optimizer_params: dict | None = None
    weight_decay: float = 0.0
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
