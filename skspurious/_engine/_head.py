"""A linear head fitted to the end: its loss is convex, so it needs no learning rate and no epochs.

The result depends on nothing but the samples: neither on the seed nor on their order, and a weight
of 2 is the same as two copies.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional as F

from skspurious._engine._batches import LabelledSamples, iterate_batches, place
from skspurious._engine._config import LoopConfig, auto
from skspurious._engine._evaluation import evaluate, summarize
from skspurious._engine._loop import LoopResult
from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import Sampler
from skspurious.utils._warnings import warn

MAX_ITER, TOLERANCE = 1000, 1e-7
STRENGTH = 5e-5  # of weight_decay="auto"
_CHUNK = 4096


class LinearHead:
    """Softmax regression on all samples at once, by L-BFGS in float64.

    Minimised is ``value(losses) + weight_decay / 2 * ||W||²``, where ``value`` is convex and grows
    with every loss, such as their mean; the biases are free. Two classes have one logit z, of
    which the outputs are halves, -z/2 and z/2.

    Parameters
    ----------
    X : tensor of shape (n_samples, n_features), float64
        Overwritten by the features that it is solved in.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    share : tensor of shape (n_samples,), float64
        How much each loss counts; of a value that is no sum, how much it does when all are equal.
    n_classes : int
    weight_decay : "auto" or float
        "auto" is ``STRENGTH * n_features * spread``, for features as if they were standardised.
    spread : float
        Number of samples over the effective number: large where a few samples count as much as
        all others together.
    """

    def __init__(
        self,
        X: Tensor,
        y: Tensor,
        share: Tensor,
        n_classes: int,
        weight_decay: Any = "auto",
        spread: float = 1.0,
    ):
        share = share / share.sum()
        self.mean = share @ X
        X = X.sub_(self.mean)
        variance = share @ X.square()
        if auto(weight_decay):
            self.weight_decay = STRENGTH * spread * int((variance > 0).sum())
            penalty = self.weight_decay * variance
        else:
            self.weight_decay = weight_decay
            penalty = torch.full_like(variance, weight_decay)
        # In the features as they are scaled, the loss is about as curved along each of them.
        curvature = variance / 4 + penalty
        self.scale = torch.where(curvature > 0, curvature, 1.0).rsqrt()
        self.X, self.y = X.mul_(self.scale), y
        halves = torch.tensor([[-0.5, 0.5]])
        self.outputs = (halves if n_classes == 2 else torch.eye(n_classes)).to(X)
        self.penalty = penalty * self.outputs[0].square().sum() * self.scale.square()
        self.head = X.new_zeros(len(self.outputs), 1 + X.shape[1])  # bias, then weights
        self.n_iter, self.has_converged = 0, True

    def minimise(
        self, reduce: Callable[[Tensor], tuple[Tensor, Tensor]], tolerance: float = TOLERANCE
    ) -> Tensor:
        """Go on to the minimum; returns the losses there.

        ``reduce`` makes of the losses their value, and its derivative by each of them.
        """
        target = F.one_hot(self.y, self.outputs.shape[1])

        def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            head = torch.from_numpy(flat).to(self.X).view_as(self.head)
            log_p = self.log_p(head)
            value, coefficients = reduce(self.losses(log_p))
            error = log_p.exp_().sub_(target).mul_(coefficients[:, None]).mm(self.outputs.T)
            decay = self.penalty * head[:, 1:]
            gradient = torch.cat([error.sum(0)[:, None], error.T.mm(self.X) + decay], 1)
            value = value + (decay * head[:, 1:]).sum() / 2
            return value.item(), gradient.cpu().numpy().ravel()

        found = minimize(
            value_and_gradient,
            self.head.cpu().numpy().ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": MAX_ITER,
                "maxfun": 2 * MAX_ITER,
                "maxcor": 20,
                "gtol": tolerance,
                "ftol": 1e-6 * tolerance,
            },
        )
        self.n_iter += found.nit
        self.has_converged = found.status != 1  # 1: it ran out of iterations
        self.head = torch.from_numpy(found.x).to(self.X).view_as(self.head)
        return self.losses(self.log_p())

    def log_p(self, head: Tensor | None = None) -> Tensor:
        """Logarithms of the class probabilities, (n_samples, n_classes)."""
        head = self.head if head is None else head
        return torch.addmm(head[:, 0], self.X, head[:, 1:].T).mm(self.outputs).log_softmax(1)

    def losses(self, log_p: Tensor) -> Tensor:
        """Cross-entropy of each sample."""
        return log_p.gather(1, self.y[:, None])[:, 0].neg()

    def copy_to(self, layer: nn.Linear) -> None:
        """Write weights and biases, those for samples as they came, into a layer."""
        coef = self.head[:, 1:] * self.scale
        bias = self.head[:, 0] - coef @ self.mean
        with torch.no_grad():
            layer.weight.copy_(self.outputs.T @ coef)
            layer.bias.copy_(self.outputs.T @ bias)


def can_fit_head(objective: Objective, sampler: Sampler, config: LoopConfig) -> bool:
    """Whether a stage is one that :func:`fit_head` can fit, and nothing says how to step."""
    return config.is_open and objective.is_convex and hasattr(sampler, "frequency")


def fit_head(
    module: nn.Module,
    objective: Objective,
    sampler: Any,
    train: LabelledSamples,
    valid: LabelledSamples | None,
    runtime: Runtime,
    config: LoopConfig,
) -> LoopResult:
    """Fit ``module``, a linear head, in place; the history has one row."""
    started = time.perf_counter()
    for callback in config.callbacks:
        callback.on_train_begin(module=module, max_epochs=1, epoch=0, is_main=runtime.is_main)
    # MPS has no float64.
    device = torch.device("cpu") if runtime.device.type == "mps" else runtime.device
    objective.to(device)
    layer = last_linear(module)[1]
    train = place(train, device)
    batch, weight, total = _read(sampler, train, runtime, config, device)
    with torch.no_grad():
        share = objective.equal_coefficients(batch, runtime)
        head = LinearHead(
            batch.pop("X"),
            batch["y"],
            share,
            layer.out_features,
            config.weight_decay,
            _spread(share, weight, total),
        )
        objective.fit_head(head, batch, share)
        head.copy_to(layer)
        if not all(p.isfinite().all() for p in layer.parameters()):
            raise ValueError("the head's weights are infinite. Standardise the features.")
        log_p = head.log_p()
        row: dict[str, Any] = {"epoch": 1, "n_iter": head.n_iter, "weight_decay": head.weight_decay}
        row |= summarize(
            "train",
            head.losses(log_p),
            log_p.argmax(1) == batch["y"],
            batch["group"],
            torch.ones_like(log_p[:, 0]),
            train.n_groups,
            runtime,
        )
    row |= objective.log()
    module.to(runtime.device)
    best_epoch = None
    if valid is not None:
        row |= evaluate(module, place(valid, runtime.device), runtime, config)
        best_epoch = None if config.monitor is None else 1
    row["seconds"] = time.perf_counter() - started
    if not head.has_converged:
        warn(
            f"the linear head has not converged in {MAX_ITER} iterations. Standardise the "
            "features, or raise weight_decay.",
            ConvergenceWarning,
        )
    for callback in config.callbacks:
        callback.on_epoch_end(module=module, row=row)
        callback.on_train_end(module=module, history=[row])
    module.eval()
    return LoopResult([row], best_epoch, objective)


def _read(
    sampler: Any,
    train: LabelledSamples,
    runtime: Runtime,
    config: LoopConfig,
    device: torch.device,
) -> tuple[dict, Tensor, Tensor]:
    """All samples as one batch, a weight being the sample's own times its frequency.

    Also the sample weights alone, and their sum over all samples, those too that never come.
    """
    frequency = torch.as_tensor(sampler.frequency(len(train)), dtype=torch.float64)
    rows = frequency.nonzero()[:, 0]
    at = rows.to(device)
    given = torch.ones(len(train), dtype=torch.float64, device=device)
    if train.weight is not None:
        given = train.weight.double()
    X, start = torch.empty(0), 0
    for part in iterate_batches(
        train, rows, runtime, _CHUNK, config.train_transform, is_shared=False
    ):
        Z = part["X"].flatten(1)
        if start == 0:
            X = torch.empty(len(rows), Z.shape[1], dtype=torch.float64, device=device)
        X[start : start + len(Z)] = Z
        start += len(Z)
    batch = {
        "X": X,
        "y": train.y[at],
        "group": None if train.group is None else train.group[at],
        "weight": frequency[rows].to(device) * given[at],
        "position": at,
    }
    return batch, given[at], given.sum()


def _spread(share: Tensor, weight: Tensor, total: Tensor) -> float:
    """Number of samples over the effective number, (sum of shares)² / sum of squared shares.

    A sample of weight 2 is two samples, each with half of its share.
    """
    squares = (share.square() / weight.clamp(min=1e-300)).sum()
    return (total * squares / share.sum().square()).item()
