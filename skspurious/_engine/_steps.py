"""One training step: the method's loss of a batch, its gradient, and the optimizer's update."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skspurious._engine._modules import forward
from skspurious._engine._runtime import Runtime

if TYPE_CHECKING:
    from skspurious._engine._loop import LoopConfig


class Objective(nn.Module):
    """The loss of ERM, and the base of every other method's loss.

    A method overrides ``reduce`` (what becomes of the per-sample losses) or, if it needs more
    than the logits, ``forward``. What it remembers from step to step is a buffer, so that it is
    saved in checkpoints and lives on the right device.
    """

    def forward(self, module: nn.Module, batch: dict, runtime: Runtime) -> tuple[Tensor, ...]:
        """Scalar loss, per-sample losses (b,) and logits (b, n_classes) of one batch."""
        with runtime.autocast():
            logits = forward(module, batch["X"])
        losses = F.cross_entropy(logits.float(), batch["y"], reduction="none")
        return self.reduce(losses, batch, runtime), losses, logits

    def reduce(self, losses: Tensor, batch: dict, runtime: Runtime) -> Tensor:
        """Mean of the losses, weighted by the sample weights, over all processes."""
        weight = batch["weight"]
        if weight is None:
            return losses.mean()
        return (weight * losses).sum() / runtime.all_reduce(weight.sum()).clamp(min=1e-12)

    def log(self) -> dict[str, Any]:
        """What goes into the epoch's row of the history."""
        return {}


class TrainStep:
    """One batch: loss, gradient, and every ``gradient_accumulation`` batches a step."""

    reuses_memory = False  # the inputs of a batch live on in its graph

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler | None,
        runtime: Runtime,
        config: "LoopConfig",
    ):
        self.network, self.objective, self.runtime = network, objective, runtime
        self.optimizer, self.schedule, self.config = optimizer, schedule, config

    def __call__(self, batch: dict, *, share: float, ends_step: bool) -> tuple[Tensor, Tensor]:
        """Per-sample losses and hits of the batch, which is a share of a step's samples."""
        # Losses are normalised over all processes, and their gradients averaged: hence the factor.
        result = self.backward(batch, self.runtime.n_processes * share)
        if ends_step:
            self.update()
        return result

    def backward(self, batch: dict, factor: float) -> tuple[Tensor, Tensor]:
        """Add the gradient of ``factor`` times the loss; per-sample losses and hits."""
        loss, losses, logits = self.objective(self.network, batch, self.runtime)
        if factor != 1:
            loss = loss * factor
        scaler = self.runtime.scaler
        (scaler.scale(loss) if scaler.is_enabled() else loss).backward()
        return losses.detach(), logits.argmax(1) == batch["y"]

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
            self.optimizer.step()
        self.network.zero_grad()
        if self.schedule is not None:
            self.schedule.step()


class LinearStep(TrainStep):
    """The same for a network that is one linear layer, without autograd's graph of it.

    For logits W x + b, the gradient of sum_i c_i loss_i is sum_i c_i (p_i - onehot_i) x_i, where
    c_i is what the method makes of the losses: 1/n for their mean. Logits are kept one row a
    class, which a matrix product with few classes is several times faster at.
    """

    network: nn.Linear
    reuses_memory = True

    @torch.no_grad()
    def backward(self, batch: dict, factor: float) -> tuple[Tensor, Tensor]:
        """Add the gradient of ``factor`` times the loss; per-sample losses and hits."""
        weight, bias = self.network.weight, self.network.bias
        X, y = batch["X"], batch["y"][None]
        logits = weight @ X.T if bias is None else torch.addmm(bias[:, None], weight, X.T)
        log_p = logits.log_softmax(0)
        own = log_p.gather(0, y)
        losses, hits = own[0].neg(), own[0] == log_p.amax(0)
        share = self._share_of_losses(losses, batch) * factor
        error = log_p.exp_().scatter_add_(0, y, torch.full_like(log_p[:1], -1.0)).mul_(share)
        _add_gradient(weight, error @ X)
        if bias is not None:
            _add_gradient(bias, error.sum(1))
        return losses, hits

    def _share_of_losses(self, losses: Tensor, batch: dict) -> float | Tensor:
        """Derivative of the method's loss by the loss of each sample."""
        if type(self.objective).reduce is Objective.reduce and batch["weight"] is None:
            return 1.0 / len(losses)
        with torch.enable_grad():
            leaf = losses.clone().requires_grad_()
            loss = self.objective.reduce(leaf, batch, self.runtime)
        return torch.autograd.grad(loss, leaf)[0]


def _add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def make_step(
    network: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    runtime: Runtime,
    config: "LoopConfig",
) -> TrainStep:
    """The step for a network: that of a linear layer where it can be taken."""
    is_linear = (
        type(network) is nn.Linear  # neither compiled, wrapped nor parametrized
        and type(objective).forward is Objective.forward
        and runtime.dtype is None  # float32
        and all(p.requires_grad for p in network.parameters())
        and not (network._forward_hooks or network._forward_pre_hooks or network._backward_hooks)
    )
    kind = LinearStep if is_linear else TrainStep
    return kind(network, objective, optimizer, schedule, runtime, config)
