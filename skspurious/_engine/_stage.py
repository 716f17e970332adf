"""A stage: one run of the loop within a method."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from skspurious._engine._batches import LabelledSamples
from skspurious._engine._callbacks import Callback
from skspurious._engine._config import LoopConfig
from skspurious._engine._head import can_fit_head, fit_head
from skspurious._engine._loop import LoopResult, fit_loop
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import Sampler

# Changes of a stage that no validation samples guide: it ends, and keeps its last epoch.
TO_THE_END = {"monitor": None, "patience": None}


@dataclass(frozen=True)
class Stage:
    """What is minimised, over which samples, and how that differs from the shared parameters.

    Parameters
    ----------
    name : str
        Stands in the column ``stage`` of the history, and keeps the checkpoints of the stages
        apart. A method of one stage has "", and no such column.
    objective : Objective
        The loss.
    sampler : callable
        Rows of each epoch.
    seed : int
        Seed of dropout and augmentation.
    changes : dict, default={}
        Settings that differ from the shared parameters: "max_epochs", "lr", "weight_decay",
        "lr_schedule", "batch_size", "train_transform", "callbacks", "monitor" (a column of the
        history, or None), "patience" (epochs, or None) and so on, by the names of ``LoopConfig``.

    Examples
    --------
    >>> from skspurious.extend import Objective, Stage, UniformSampler
    >>> stage = Stage("warm-up", Objective(), UniformSampler(100, seed=0), 1, {"max_epochs": 2})
    >>> stage.changes["max_epochs"]
    2
    """

    name: str
    objective: Objective
    sampler: Sampler
    seed: int
    changes: dict[str, Any] = field(default_factory=dict)

    def callbacks_of(self, config: LoopConfig) -> Sequence[Callback]:
        """Callbacks of this stage."""
        return self.changes.get("callbacks", config.callbacks)

    def run(
        self,
        module: nn.Module,
        train: LabelledSamples,
        valid: LabelledSamples | None,
        runtime: Runtime,
        config: LoopConfig,
    ) -> LoopResult:
        """Train ``module`` in place, by ``config`` with the changes of this stage."""
        config = replace(config, seed=self.seed, **self.changes)
        if config.checkpoint_dir is not None:
            config = replace(config, checkpoint_dir=Path(config.checkpoint_dir, self.name))
        fit = fit_loop
        if can_fit_head(self.objective, self.sampler, config):
            fit = fit_head
        else:
            config = config.for_the_loop()
        result = fit(module, self.objective, self.sampler, train, valid, runtime, config)
        if not self.name:
            return result
        return replace(result, history=[{"stage": self.name, **row} for row in result.history])
