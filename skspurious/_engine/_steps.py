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

    A method overrides ``coefficients`` (how much each sample's loss counts) or, if it needs more
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
        """Sum of the losses of a batch, each times its coefficient."""
        with torch.no_grad():
            coefficients = self.coefficients(losses, batch, runtime)
        return (coefficients * losses).sum()

    def coefficients(self, losses: Tensor | None, batch: dict, runtime: Runtime) -> Tensor | float:
        """What each loss counts: in a mean, weighted by the sample weights, over all processes.

        Only where this is not overridden, ``losses`` may be None: they play no part in it.
        """
        weight = batch["weight"]
        if weight is None:
            return 1.0 / batch["y"].shape[0]
        return weight / runtime.all_reduce(weight.sum()).clamp(min=1e-12)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """See the epoch's row of the history, with the losses of validation samples."""

    def log(self) -> dict[str, Any]:
        """What goes into the epoch's row of the history."""
        return {}


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
        config: "LoopConfig",
    ):
        self.network, self.objective, self.runtime = network, objective, runtime
        self.optimizer, self.schedule, self.config = optimizer, schedule, config
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

    def move(self) -> None:
        """Change the parameters by their gradients."""
        self.optimizer.step()

    def clear(self) -> None:
        """Forget the gradients."""
        self.network.zero_grad()


class LinearStep(TrainStep):
    """The same for a network that is one linear layer, without autograd's graph of it.

    For logits W x + b, the gradient of sum_i c_i loss_i is sum_i c_i (p_i - onehot_i) x_i, where
    c_i is what the method makes of the losses: 1/n for their mean. Logits are kept one row a
    class, which a matrix product with few classes is several times faster at. SGD is written out
    as well, with gradients added to the momentum at once: of the step of a small layer, torch's
    optimizer would take a third.
    """

    network: nn.Linear
    builds_graph = False
    n_kept = 64  # batches whose outputs are kept before they are looked at

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.parameters = list(self.network.parameters())
        self.ones = self.parameters[0].new_ones(self.config.batch_size)
        self.minus_one = -self.ones[None]
        self.outputs: list[tuple[Tensor, Tensor]] = []
        self.is_plain_sgd = (
            self.schedule is None
            and self.config.max_grad_norm is None
            and _is_plain_sgd(self.optimizer)
        )
        if self.is_plain_sgd:  # sums: where gradients are added
            self.sums = [_velocity(self.optimizer, p) for p in self.parameters]
        else:
            self.sums = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
            for p, total in zip(self.parameters, self.sums):
                p.grad = total
        self.needs_losses = type(self.objective).coefficients is not Objective.coefficients
        self.kept = 0.0  # of the sums, when a gradient is added
        self.clear()

    def record(self) -> tuple[Tensor, Tensor]:
        """Losses and hits of all samples since the last call, each as the network saw it."""
        self._note()
        return super().record()

    def backward(self, batch: dict, factor: float) -> None:
        """Add the gradient of ``factor`` times the loss, and keep what losses and hits are."""
        weight, *bias = self.parameters
        X, y = batch["X"], batch["y"][None]
        logits = weight.mm(X.t())
        if bias:
            logits.add_(bias[0].unsqueeze(1))
        self.outputs.append((logits, y))
        if len(self.outputs) == self.n_kept:
            self._note()
        error = logits.softmax(0).scatter_add_(0, y, self.minus_one)
        losses = None
        if self.needs_losses:
            losses = logits.log_softmax(0).gather(0, y)[0].neg_()
        coefficients = self.objective.coefficients(losses, batch, self.runtime)
        if torch.is_tensor(coefficients):
            error.mul_(coefficients)
        else:
            factor *= coefficients
        self.sums[0].addmm_(error, X, beta=self.kept, alpha=factor)
        if bias:
            n = y.shape[1]
            ones = self.ones if n == self.ones.shape[0] else self.ones[:n]
            self.sums[1].addmv_(error, ones, beta=self.kept, alpha=factor)
        self.kept = 1.0

    def _note(self) -> None:
        """Losses and hits of the batches whose outputs are kept: of many at once, for speed."""
        if not self.outputs:
            return
        logits, y = [torch.cat(parts, 1) for parts in zip(*self.outputs)]
        self.outputs.clear()
        log_p = logits.log_softmax(0)
        own = log_p.gather(0, y)[0]
        self.losses.append(own.neg())
        self.hits.append(own == log_p.amax(0))

    def move(self) -> None:
        """Change the parameters by their gradients."""
        if not self.is_plain_sgd:
            self.optimizer.step()
            return
        options = self.optimizer.param_groups[0]
        lr, decay = options["lr"], options["weight_decay"]
        for p, velocity in zip(self.parameters, self.sums):
            if decay:
                velocity.add_(p, alpha=decay)
            p.add_(velocity, alpha=-lr)

    def clear(self) -> None:
        """Start the next gradient: of the sums, only the momentum stays."""
        self.kept = self.optimizer.param_groups[0]["momentum"] if self.is_plain_sgd else 0.0


def _is_plain_sgd(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is SGD, with or without momentum and weight decay, and nothing else."""
    others = ("dampening", "nesterov", "maximize")
    return type(optimizer) is torch.optim.SGD and not any(
        group[option] for group in optimizer.param_groups for option in others
    )


def _velocity(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor:
    """Where SGD keeps the momentum of a parameter, so that checkpoints have it."""
    state = optimizer.state[parameter]
    if state.get("momentum_buffer") is None:
        state["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return state["momentum_buffer"]


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
