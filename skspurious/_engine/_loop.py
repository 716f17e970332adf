"""The only training loop: fit_loop -> run_epoch -> train_epoch -> TrainStep -> the method's loss.

A method supplies an ``Objective`` (per-sample losses and group ids in, scalar out) and a
sampler. Nothing here waits for the device inside an epoch: losses and predictions of an epoch
stay on the device until it ends.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from skspurious._engine._batches import LabelledSamples, iterate_batches, place
from skspurious._engine._callbacks import Callback, Recorder
from skspurious._engine._checkpoint import CheckpointFolder
from skspurious._engine._config import LoopConfig
from skspurious._engine._evaluation import evaluate, summarize
from skspurious._engine._linear_step import make_step
from skspurious._engine._modules import batch_norms
from skspurious._engine._objective import Objective
from skspurious._engine._optimizers import make_optimizer, make_schedule
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import Sampler
from skspurious._engine._steps import TrainStep


@dataclass(frozen=True)
class LoopResult:
    """What training leaves: the network is changed in place."""

    history: list[dict]
    best_epoch: int | None
    objective: Objective


def fit_loop(
    module: nn.Module,
    objective: Objective,
    sampler: Sampler,
    train: LabelledSamples,
    valid: LabelledSamples | None,
    runtime: Runtime,
    config: LoopConfig,
) -> LoopResult:
    """Train ``module`` in place."""
    module.to(runtime.device)
    objective.to(runtime.device)
    train, valid = place(train, runtime.device), place(valid, runtime.device)
    n_batches = -(-len(plan_epoch(sampler, 0, module, runtime, config)) // config.batch_size)
    n_steps = -(-n_batches // config.gradient_accumulation) * config.max_epochs
    optimizer, schedule = make_updates(module, n_steps, config)
    state = {
        "module": module,
        "objective": objective,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": runtime.scaler,
    }
    recorders = [c for c in config.callbacks if isinstance(c, Recorder)]
    others = [c for c in config.callbacks if not isinstance(c, Recorder)]
    state |= {f"recorder {i}": recorder for i, recorder in enumerate(recorders)}
    folder = CheckpointFolder(config.checkpoint_dir, config.fingerprint)

    progress = folder.load(state, runtime) or {"history": [], "best": None}
    network: Any = torch.compile(module) if config.compile else module
    step = make_step(runtime.wrap(network), objective, optimizer, schedule, runtime, config)
    history: list[dict] = progress["history"]
    for callback in config.callbacks:
        callback.on_train_begin(
            module=module,
            max_epochs=config.max_epochs,
            epoch=len(history),
            is_main=runtime.is_main,
        )
    for epoch in range(len(history), config.max_epochs):
        if _is_stopped(progress, config):
            break
        with runtime.fork_rng():  # not around the callbacks, which may wait for other threads
            row = run_epoch(step, module, sampler, train, valid, runtime, config, epoch)
        history.append(row)
        _keep_best(progress, row, module, valid, config)
        _tell(recorders, module, row)
        folder.save(state, progress, runtime)
        _tell(others, module, row)
    best_epoch = _take_best(module, progress, optimizer)
    for callback in config.callbacks:
        callback.on_train_end(module=module, history=history)
    module.zero_grad()
    module.eval()
    return LoopResult(history, best_epoch, objective)


def make_updates(
    module: nn.Module, n_steps: int, config: LoopConfig
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimizer, and the schedule of its learning rate."""
    optimizer = make_optimizer(
        module.parameters(),
        config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        params=config.optimizer_params,
    )
    schedule = make_schedule(
        optimizer, config.lr_schedule, n_steps=n_steps, lr=config.lr, monitor=config.monitor
    )
    return optimizer, schedule


def run_epoch(
    step: TrainStep,
    module: nn.Module,
    sampler: Sampler,
    train: LabelledSamples,
    valid: LabelledSamples | None,
    runtime: Runtime,
    config: LoopConfig,
    epoch: int,
) -> dict[str, Any]:
    """One epoch of training and a look at the validation samples; its row of the history."""
    started = time.perf_counter()
    row = {"epoch": epoch + 1, "lr": step.optimizer.param_groups[0]["lr"]}
    # Dropout and augmentation too are functions of the seed and the epoch.
    runtime.reseed(config.seed, epoch)
    plan = plan_epoch(sampler, epoch, module, runtime, config)
    row |= train_epoch(step, plan, train, runtime, config, epoch)
    row |= step.objective.log()
    runtime.share_buffers(module)
    if valid is not None:
        row |= evaluate(module, valid, step.objective, runtime, config)
    step.objective.end_epoch(row)
    step.end_epoch(row)
    row["seconds"] = time.perf_counter() - started
    return row


def plan_epoch(
    sampler: Sampler, epoch: int, module: nn.Module, runtime: Runtime, config: LoopConfig
) -> Tensor:
    """Rows of an epoch in their order.

    Batch normalisation needs two samples a process: a last batch that has fewer is left out, so
    that a fold of a search cannot fail by its size. Other rows are last in other epochs.
    """
    plan = sampler(epoch)
    n_last = len(plan) % config.batch_size
    is_short = 0 < n_last < 2 * runtime.n_processes and n_last < len(plan)
    return plan[:-n_last] if is_short and batch_norms(module) else plan


def train_epoch(
    step: TrainStep,
    plan: Tensor,
    train: LabelledSamples,
    runtime: Runtime,
    config: LoopConfig,
    epoch: int,
) -> dict[str, float]:
    """Train on the rows of ``plan``; mean loss and accuracies as the network saw them."""
    step.network.train()
    n_rows, n_step = len(plan), config.batch_size * config.gradient_accumulation
    groups, real = [], []
    batches = iterate_batches(
        train,
        plan,
        runtime,
        config.batch_size,
        config.train_transform,
        config.num_workers,
        reuse_memory=not step.builds_graph,
    )
    with torch.set_grad_enabled(step.builds_graph):
        for batch, start in zip(batches, range(0, n_rows, config.batch_size)):
            end = min(start + config.batch_size, n_rows)
            step_start = start - start % n_step  # the first row of this optimizer step
            step_end = min(step_start + n_step, n_rows)
            share = (end - start) / (step_end - step_start)
            step(batch, share=share, ends_step=end == step_end)
            groups.append(batch["group"])
            real.append(batch["is_real"])
    # The first look at the values of this epoch: here, and not before, the device is waited for.
    loss, hit = step.record()
    total = summarize(
        "train",
        loss,
        hit,
        torch.cat(groups) if train.n_groups else None,
        torch.cat(real) if runtime.n_processes > 1 else torch.ones_like(loss),
        train.n_groups,
        runtime,
    )
    if not np.isfinite(total["train_loss"]):
        raise diverged(epoch + 1, step.optimizer.param_groups[0]["lr"])
    return total


def diverged(epoch: int, lr: float) -> ValueError:
    """The error of a loss or weight that is not finite."""
    return ValueError(
        f"Training diverged: the loss or a weight is NaN or infinite in epoch {epoch} at "
        f"lr={lr:g}. Lower lr, set max_grad_norm, or standardise the features."
    )


_LOWER_IS_BETTER = ("valid_loss",)


def _keep_best(
    progress: dict, row: dict, module: nn.Module, valid: Any, config: LoopConfig
) -> None:
    """Remember the network of the best epoch; ties go to the accuracy, then to the later epoch."""
    if valid is None or config.monitor is None:
        return
    value = row[config.monitor]
    value = -value if config.monitor in _LOWER_IS_BETTER else value
    score = [value, row["valid_accuracy"]]
    best = progress["best"]
    if best is None or score >= best["score"]:
        is_better = best is None or score > best["score"]
        progress["best"] = {
            "epoch": row["epoch"],
            "improved": row["epoch"] if is_better else best["improved"],
            "score": score,
            "state": {k: v.detach().cpu().clone() for k, v in module.state_dict().items()},
        }


def _tell(callbacks: Sequence[Callback], module: nn.Module, row: dict) -> None:
    for callback in callbacks:
        callback.on_epoch_end(module=module, row=row)


def _take_best(module: nn.Module, progress: dict, optimizer: torch.optim.Optimizer) -> int | None:
    """Put the network of the best epoch in place, where there is one; returns the epoch."""
    if any(not p.isfinite().all() for p in module.parameters()):
        raise diverged(len(progress["history"]), optimizer.param_groups[0]["lr"])
    best = progress["best"]
    if best is None:
        return None
    module.load_state_dict(best["state"])
    return best["epoch"]


def _is_stopped(progress: dict, config: LoopConfig) -> bool:
    best, history = progress["best"], progress["history"]
    if config.patience is None or best is None or not history:
        return False
    return history[-1]["epoch"] - best["improved"] >= config.patience
