"""One training step: the method's loss of a batch, its gradient, and the optimizer's update."""

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skspurious._engine._config import LoopConfig
from skspurious._engine._objective import Objective
from skspurious._engine._optimizers import step_on_plateau
from skspurious._engine._runtime import Runtime


class TrainStep:
    """One batch: loss, gradient, and every ``gradient_accumulation`` batches a step."""

    builds_graph = True  # of autograd, in which the inputs of a batch live on

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        runtime: Runtime,
        config: LoopConfig,
    ):
        self.network, self.objective, self.runtime = network, objective, runtime
        self.optimizer, self.config = optimizer, config
        self.plateau = schedule if isinstance(schedule, ReduceLROnPlateau) else None
        self.schedule = None if self.plateau else schedule  # of every step
        self.losses: list[Tensor] = []
        self.hits: list[Tensor] = []

    def __call__(self, batch: dict, *, share: float, ends_step: bool) -> None:
        """Learn from a batch, which is a share of a step's samples."""
        # Losses are normalised over all processes, and their gradients averaged: hence the factor.
        self.backward(batch, self.runtime.n_processes * share)
        if ends_step:
            self.update()

    def record(self) -> tuple[Tensor, Tensor]:
        """Losses and hits of all samples since the last call, each as the network saw it."""
        losses, hits = torch.cat(self.losses), torch.cat(self.hits)
        self.losses, self.hits = [], []
        return losses, hits

    def backward(self, batch: dict, factor: float) -> None:
        """Add the gradient of ``factor`` times the loss, and note losses and hits."""
        loss, losses, logits = self.objective(self.network, batch, self.runtime)
        if factor != 1:
            loss = loss * factor
        scaler = self.runtime.scaler
        (scaler.scale(loss) if scaler.is_enabled() else loss).backward()
        self.losses.append(losses.detach())
        self.hits.append(logits.argmax(1) == batch["y"])

    def update(self) -> None:
        """Clip, step the optimizer and the schedule, and start the next gradient."""
        scaler = self.runtime.scaler
        if self.config.max_grad_norm is not None:
            if scaler.is_enabled():
                scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        if scaler.is_enabled():
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.move()
        self.clear()
        if self.schedule is not None:
            self.schedule.step()

    def end_epoch(self, row: dict) -> None:
        """Step a schedule that goes by the epochs' rows of the history."""
        if self.plateau is not None:
            step_on_plateau(self.plateau, row, self.config.monitor)

    def move(self) -> None:
        """Change the parameters by their gradients."""
        self.optimizer.step()

    def clear(self) -> None:
        """Forget the gradients."""
        self.network.zero_grad()
