"""A linear head fitted to the end: its loss is convex, so it needs no learning rate and no epochs.

The result depends on nothing but the samples: neither on the seed nor on their order, and a weight
of 2 is the same as two copies.
"""

import copy
import time
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from skspurious._engine._batches import LabelledSamples, iterate_batches, place
from skspurious._engine._config import LoopConfig, auto
from skspurious._engine._evaluation import evaluate, summarize
from skspurious._engine._loop import LoopResult
from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import Sampler
from skspurious.functional._linear_head import MAX_ITER, LinearHead, sample_spread
from skspurious.utils._warnings import warn

_CHUNK = 4096


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
            None if auto(config.weight_decay) else config.weight_decay,
            sample_spread(share, weight, total),
            criterion=_in_float64(objective.criterion),
        )
        objective.fit_head(head, batch, share)
        for parameter, value in zip((layer.weight, layer.bias), head.parameters()):
            parameter.copy_(value)
        if not all(p.isfinite().all() for p in layer.parameters()):
            raise ValueError("the head's weights are infinite. Standardise the features.")
        row = _row(head, batch, train.n_groups, runtime)
    row |= objective.log()
    module.to(runtime.device)
    best_epoch = None
    if valid is not None:
        valid = place(valid, runtime.device)
        row |= evaluate(module, valid, objective.to(runtime.device), runtime, config)
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


def _in_float64(criterion: Any) -> Any:
    """A criterion for float64; what a module holds, such as class weights, is converted."""
    return copy.deepcopy(criterion).double() if isinstance(criterion, nn.Module) else criterion


def _row(head: LinearHead, batch: dict, n_groups: int, runtime: Runtime) -> dict[str, Any]:
    """The row of the history: how it went, losses and accuracies of all samples."""
    logits = head.logits()
    losses, hit = head.losses(logits), logits.argmax(1) == batch["y"]
    real = torch.ones_like(losses)
    return {
        "epoch": 1,
        "n_iter": head.n_iter,
        "weight_decay": head.weight_decay,
        **summarize("train", losses, hit, batch["group"], real, n_groups, runtime),
    }


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
