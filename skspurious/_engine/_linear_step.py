"""The step of a network that is one linear layer, with its gradient written out."""

from typing import Any

import torch
from torch import Tensor, nn

from skspurious._engine._config import LoopConfig
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._steps import TrainStep


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
    config: LoopConfig,
) -> TrainStep:
    """The step for a network: that of a linear layer where it can be taken."""
    is_linear = (
        type(network) is nn.Linear  # neither compiled, wrapped nor parametrized
        and type(objective).forward is Objective.forward
        and objective.criterion is None
        and runtime.dtype is None  # float32
        and all(p.requires_grad for p in network.parameters())
        and not (network._forward_hooks or network._forward_pre_hooks or network._backward_hooks)
    )
    kind = LinearStep if is_linear else TrainStep
    return kind(network, objective, optimizer, schedule, runtime, config)
