"""Batches: what the loop reads, where it lies, and how it is handed out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skspurious._engine._runtime import Runtime, to_device
from skspurious.data import DatasetSamples, TensorSamples
from skspurious.utils._random import restored_generators, seed_generators, seeded_draws

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LabelledSamples:
    """Samples with labels 0..K-1, groups 0..m-1 (or None), weights, and their rows in X.

    ``index`` has the row of every sample in the X that the user passed, whatever was selected
    since. By default the samples are the rows of X in their order.
    """

    samples: TensorSamples | DatasetSamples
    y: Tensor
    group: Tensor | None = None
    weight: Tensor | None = None
    n_groups: int = 0
    index: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def rows(self) -> np.ndarray:
        """Row of every sample in X."""
        return np.arange(len(self)) if self.index is None else self.index.cpu().numpy()

    def take(self, positions: np.ndarray) -> "LabelledSamples":
        """The samples at an array of positions."""
        at = torch.as_tensor(positions)

        def part(column: Tensor | None) -> Tensor | None:
            return None if column is None else column[at.to(column.device)]

        return LabelledSamples(
            self.samples.take(positions),
            self.y[at.to(self.y.device)],
            part(self.group),
            part(self.weight),
            self.n_groups,
            torch.from_numpy(self.rows)[at],
        )


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
    """Batches of the samples at the positions of ``plan``: dicts of X, y, group, weight, position.

    A batch is global; where processes share it (``is_shared``), each takes every n-th row. A
    process that gets a row less repeats its first with weight 0 (``is_real`` False). With
    ``reuse_memory`` the inputs of a batch are overwritten by those of the next.
    """
    parts = list(plan.split(int(batch_size)))
    is_real: Tensor | None = None
    if is_shared and runtime.n_processes > 1:
        parts, real = share(parts, runtime)
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
        "position": index,
        "is_real": is_real,
    }
    views = {k: repeat(None) if v is None else v.split(sizes) for k, v in columns.items()}
    for X, *values in zip(inputs, *views.values()):
        yield {"X": prepare(X, transform), **dict(zip(views, values))}


def share(parts: list[Tensor], runtime: Runtime) -> tuple[list[Tensor], list[Tensor]]:
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
    seed = torch.initial_seed()  # as the main process was seeded
    seeded: Any = _SeededSamples(samples, seed)
    ordered = list(enumerate(torch.cat(parts).tolist()))
    ends = np.cumsum([0, *(len(part) for part in parts)])
    loader = DataLoader(
        seeded,
        batch_sampler=[ordered[start:end] for start, end in pairwise(ends)],
        collate_fn=seeded.collate,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),  # else it would take the global one
    )
    for X in loader:
        yield to_device(X, device)


class _SeededSamples(Dataset):
    """Samples whose random changes depend on their place in the epoch, and not on the process.

    ``num_workers`` then changes nothing. A list has no code that could draw.
    """

    def __init__(self, samples: DatasetSamples, seed: int):
        self.samples, self.seed = samples, seed
        self.is_list = isinstance(samples.dataset, list | tuple)

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[tuple[int, Any]]:
        """The samples of a batch of places and rows, which torch asks for at once."""
        if self.is_list:
            return [(place, self.samples[row]) for place, row in batch]
        rng, found = np.random.default_rng([self.seed, batch[0][0]]), []
        with restored_generators():
            for (place, row), seeds in zip(batch, rng.integers(2**32, size=(len(batch), 3))):
                seed_generators(*seeds.tolist())
                found.append((place, self.samples[row]))
        return found

    def collate(self, parts: list[tuple[int, Any]]) -> Any:
        """One batch, seeded as its first sample."""
        samples = [sample for _, sample in parts]
        if self.samples.collate_fn is None:
            return self.samples.collate(samples)
        with seeded_draws(self.seed, parts[0][0], 1):
            return self.samples.collate(samples)


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
            samples = TensorSamples(samples.tensor.to(device), is_raw=samples.is_raw)
    group = None if data.group is None else data.group.to(device)
    weight = None if data.weight is None else data.weight.to(device)
    return replace(data, samples=samples, y=data.y.to(device), group=group, weight=weight)
