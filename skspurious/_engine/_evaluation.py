"""Evaluation: what a network makes of samples, and losses and accuracies of an epoch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skspurious._engine._batches import LabelledSamples, Transform, iterate_batches, share
from skspurious._engine._config import LoopConfig
from skspurious._engine._modules import forward
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious.data import DatasetSamples, TensorSamples


def evaluate(
    module: nn.Module,
    valid: LabelledSamples,
    objective: Objective,
    runtime: Runtime,
    config: LoopConfig,
) -> dict[str, float]:
    """Loss and accuracies on validation rows, each process looking at its share."""
    (rows,), (is_real,) = share([torch.arange(len(valid))], runtime)
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
    loss = objective.sample_losses(logits.float(), y)
    hit, real = logits.argmax(1) == y, is_real.to(loss.device)
    return summarize("valid", loss, hit, group, real, valid.n_groups, runtime)


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
    result, start = None, 0
    for batch in iterate_batches(
        labelled, rows, runtime, batch_size, transform, num_workers, is_shared=False
    ):
        with runtime.autocast():
            output = apply(module, batch["X"])
        if result is None:  # filled in place: a list of batches would need the memory twice
            result = output.new_empty((len(rows), *output.shape[1:]))
        result[start : start + len(output)] = output
        start += len(output)
    assert result is not None, "no rows"
    return result


def summarize(
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
