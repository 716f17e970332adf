"""The only training loop: fit_loop -> run_epoch -> TrainStep -> the method's loss.

A method supplies an ``Objective`` (per-sample losses and group ids in, scalar out) and a
sampler. Nothing here waits for the device inside an epoch: losses and predictions of an epoch
stay on the device until it ends.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from skspurious._engine._callbacks import Callback
from skspurious._engine._checkpoint import CheckpointFolder
from skspurious._engine._modules import batch_norms, forward
from skspurious._engine._optimizers import make_optimizer, make_schedule
from skspurious._engine._runtime import Runtime, to_device
from skspurious._engine._samplers import Sampler
from skspurious._engine._steps import Objective, TrainStep, make_step
from skspurious.data import DatasetSamples, TensorSamples

Transform = Callable[[Tensor], Tensor]


@dataclass
class LabelledSamples:
    """What the loop reads: samples with labels 0..K-1, groups 0..m-1 (or None) and weights."""

    samples: TensorSamples | DatasetSamples
    y: Tensor
    group: Tensor | None = None
    weight: Tensor | None = None
    n_groups: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> "LabelledSamples":
        """The rows of an index array."""
        rows = torch.as_tensor(index)
        group = None if self.group is None else self.group[rows]
        weight = None if self.weight is None else self.weight[rows]
        return LabelledSamples(self.samples.take(index), self.y[rows], group, weight, self.n_groups)


@dataclass
class LoopConfig:
    """How to train: the shared parameters of the estimators, resolved."""

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


@dataclass
class LoopResult:
    """What training leaves: the network is changed in place."""

    history: list[dict]
    best_epoch: int | None
    objective: Objective
    extra: dict = field(default_factory=dict)


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
    optimizer = make_optimizer(
        module.parameters(),
        config.optimizer,
        lr=config.lr,
        weight_decay=config.weight_decay,
        params=config.optimizer_params,
    )
    schedule = make_schedule(optimizer, config.lr_schedule, n_steps=n_steps, lr=config.lr)
    state = {
        "module": module,
        "objective": objective,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": runtime.scaler,
    }
    progress: dict[str, Any] = {"history": [], "best": None}
    folder = CheckpointFolder(config.checkpoint_dir, config.fingerprint)

    with runtime.fork_rng():
        saved = folder.load(state, runtime)
        if saved is not None:
            progress = saved
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
            started = time.perf_counter()
            row = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
            # Dropout and augmentation too are functions of the seed and the epoch.
            runtime.reseed(config.seed, epoch)
            plan = plan_epoch(sampler, epoch, module, runtime, config)
            row |= run_epoch(step, plan, train, runtime, config, epoch)
            row |= objective.log()
            runtime.share_buffers(module)
            if valid is not None:
                row |= evaluate(module, valid, runtime, config)
            objective.end_epoch(row)
            row["seconds"] = time.perf_counter() - started
            history.append(row)
            _keep_best(progress, row, module, valid, config)
            folder.save(state, progress, runtime)
            for callback in config.callbacks:
                callback.on_epoch_end(module=module, row=row)
        if any(not p.isfinite().all() for p in module.parameters()):
            raise diverged(len(history), optimizer.param_groups[0]["lr"])
        best = progress["best"]
        if best is not None:
            module.load_state_dict(best["state"])
        for callback in config.callbacks:
            callback.on_train_end(module=module, history=history)
    module.zero_grad()
    module.eval()
    return LoopResult(history, None if best is None else best["epoch"], objective)


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


def run_epoch(
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
    total = _summary(
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


def evaluate(
    module: nn.Module, valid: LabelledSamples, runtime: Runtime, config: LoopConfig
) -> dict[str, float]:
    """Loss and accuracies on validation rows, each process looking at its share."""
    (rows,), (is_real,) = _share([torch.arange(len(valid))], runtime)
    logits = predict_logits(
        module,
        valid.samples,
        runtime=runtime,
        rows=rows,
        batch_size=max(config.batch_size, 256),
        transform=config.eval_transform,
        num_workers=config.num_workers,
    )
    y = valid.y[rows.to(valid.y.device)]
    group = None if valid.group is None else valid.group[rows.to(valid.group.device)]
    loss = F.cross_entropy(logits.float(), y, reduction="none")
    hit, real = logits.argmax(1) == y, is_real.to(loss.device)
    return _summary("valid", loss, hit, group, real, valid.n_groups, runtime)


@torch.inference_mode()
def predict_logits(
    module: nn.Module,
    samples: TensorSamples | DatasetSamples,
    *,
    runtime: Runtime,
    rows: Tensor | None = None,
    batch_size: int = 256,
    transform: Transform | None = None,
    num_workers: int = 0,
    apply: Callable[[nn.Module, Any], Tensor] = forward,
) -> Tensor:
    """Output of the network in evaluation mode, on the device, row by row of ``samples``."""
    module.eval()
    rows = torch.arange(len(samples)) if rows is None else rows
    labelled = LabelledSamples(samples, torch.zeros(len(samples), dtype=torch.int64))
    outputs = []
    for batch in iterate_batches(
        labelled, rows, runtime, batch_size, transform, num_workers, is_shared=False
    ):
        with runtime.autocast():
            outputs.append(apply(module, batch["X"]))
    return torch.cat(outputs)


def iterate_batches(
    data: LabelledSamples,
    plan: Tensor,
    runtime: Runtime,
    batch_size: int,
    transform: Transform | None,
    num_workers: int = 0,
    is_shared: bool = True,
    reuse_memory: bool = False,
) -> Iterator[dict]:
    """Batches of the rows of ``plan``: dicts of X, y, group, weight and index.

    A batch is global; where processes share it (``is_shared``), each takes every n-th row. A
    process that gets a row less repeats its first with weight 0 (``is_real`` False). With
    ``reuse_memory`` the inputs of a batch are overwritten by those of the next.
    """
    parts = list(plan.split(batch_size))
    is_real: Tensor | None = None
    if is_shared and runtime.n_processes > 1:
        parts, real = _share(parts, runtime)
        plan, is_real = torch.cat(parts), torch.cat(real).to(data.y.device)
    inputs = _read(data.samples, parts, runtime.device, num_workers, reuse_memory)
    # What belongs to the samples is gathered for all batches at once; a batch has views of it.
    sizes = [part.shape[0] for part in parts]
    index = plan.to(data.y.device)
    weight = None if data.weight is None else data.weight.index_select(0, index)
    if is_real is not None:
        weight = is_real.float() if weight is None else weight * is_real
    columns = {
        "y": data.y.index_select(0, index),
        "group": None if data.group is None else data.group.index_select(0, index),
        "weight": weight,
        "index": index,
        "is_real": is_real,
    }
    views = {k: repeat(None) if v is None else v.split(sizes) for k, v in columns.items()}
    for X, *values in zip(inputs, *views.values()):
        yield {"X": prepare(X, transform), **dict(zip(views, values))}


def _share(parts: list[Tensor], runtime: Runtime) -> tuple[list[Tensor], list[Tensor]]:
    """Every n-th row of each global batch, padded to one length on all processes."""
    mine, real = [], []
    for part in parts:
        size = -(-len(part) // runtime.n_processes)
        rows = part[runtime.rank :: runtime.n_processes]
        is_real = torch.ones(size, dtype=torch.bool)
        if len(rows) < size:
            is_real[len(rows) :] = False
            rows = torch.cat([rows, part[:1]])
        mine.append(rows)
        real.append(is_real)
    return mine, real


def _read(
    samples: TensorSamples | DatasetSamples,
    parts: list[Tensor],
    device: torch.device,
    num_workers: int,
    reuse_memory: bool,
) -> Iterator[Any]:
    """Inputs of each batch, on the device."""
    if isinstance(samples, TensorSamples):
        source = samples.tensor.device
        if reuse_memory and device.type == "cpu":
            largest = max(part.shape[0] for part in parts)
            memory = torch.empty_like(samples.tensor[:largest])
            for part in parts:
                size = part.shape[0]
                out = memory if size == largest else memory[:size]
                yield torch.index_select(samples.tensor, 0, part, out=out)
            return
        for part in parts:
            X = samples.tensor.index_select(0, part.to(source, non_blocking=True))
            if device.type == "cuda" and source.type == "cpu":
                X = X.pin_memory()
            yield to_device(X, device)
        return
    loader = DataLoader(
        samples,
        batch_sampler=[part.tolist() for part in parts],
        collate_fn=samples.collate,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        # For the workers' seeds (the order is ours): as the main process was seeded.
        generator=torch.Generator().manual_seed(torch.initial_seed()),
    )
    for X in loader:
        yield to_device(X, device)


def prepare(X: Any, transform: Transform | None) -> Any:
    """The transform, then float32: uint8 images scaled to [0, 1]."""
    if transform is not None:
        X = transform(X)
    if not torch.is_tensor(X) or X.dtype == torch.float32:
        return X
    if X.dtype == torch.uint8:
        return X.float().div_(255)
    return X.float() if X.is_floating_point() else X


def place(data: LabelledSamples | None, device: torch.device) -> Any:
    """Labels, groups and weights on the device; the samples too if they fit in half its memory."""
    if data is None:
        return None
    samples = data.samples
    if isinstance(samples, TensorSamples) and device.type != "cpu":
        size = samples.tensor.element_size() * samples.tensor.nelement()
        fits = device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] // 2
        if fits:
            samples = TensorSamples(samples.tensor.to(device))
    group = None if data.group is None else data.group.to(device)
    weight = None if data.weight is None else data.weight.to(device)
    return LabelledSamples(samples, data.y.to(device), group, weight, data.n_groups)


def diverged(epoch: int, lr: float) -> ValueError:
    """The error of a loss or weight that is not finite."""
    return ValueError(
        f"Training diverged: the loss or a weight is NaN or infinite in epoch {epoch} at "
        f"lr={lr:g}. Lower lr, set max_grad_norm, or standardise the features."
    )


def _summary(
    prefix: str,
    loss: Tensor,
    hit: Tensor,
    group: Tensor | None,
    real: Tensor,
    n_groups: int,
    runtime: Runtime,
) -> dict[str, float]:
    """Mean loss and accuracy, and the accuracy of each group, over all processes."""
    wide = torch.float32 if loss.device.type == "mps" else torch.float64  # MPS has no float64
    real, loss, hit = real.to(wide), loss.to(wide), hit.to(wide)
    sums = torch.zeros(3, 1 + n_groups, dtype=wide, device=loss.device)
    values = torch.stack([real, real * loss, real * hit])
    sums[:, 0] = values.sum(1)
    if group is not None:
        sums[:, 1:].index_add_(1, group, values)
    n, total, right = runtime.all_reduce(sums).cpu().numpy()
    row = {f"{prefix}_loss": total[0] / n[0], f"{prefix}_accuracy": right[0] / n[0]}
    if group is not None:
        with np.errstate(invalid="ignore"):
            accuracy, mean_loss = right[1:] / n[1:], total[1:] / n[1:]  # nan without samples
        row[f"{prefix}_worst_group_accuracy"] = float(np.nanmin(accuracy))
        row |= {f"{prefix}_accuracy_group_{g}": a for g, a in enumerate(accuracy)}
        row |= {f"{prefix}_loss_group_{g}": loss for g, loss in enumerate(mean_loss)}
    return {k: float(v) for k, v in row.items()}


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


def _is_stopped(progress: dict, config: LoopConfig) -> bool:
    best, history = progress["best"], progress["history"]
    if config.patience is None or best is None or not history:
        return False
    return history[-1]["epoch"] - best["improved"] >= config.patience
