"""Devices, precision and processes of one fit, on Hugging Face Accelerate.

``accelerate.PartialState`` knows how the script was launched. ``accelerate.Accelerator`` is not
used: its precision and device are one per process, so that a second estimator with another
``precision`` would raise; here each fit has its own.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, get_int_from_env, reduce
from joblib.parallel import get_active_backend
from torch import Tensor, nn

from skspurious.utils._random import generator_lock

_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of ``device="auto"``: CUDA, then MPS, then the CPU."""
    if str(device) != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def is_launched_distributed() -> bool:
    """Whether this process is one of several, started by torchrun, accelerate or MPI.

    A single process leaves Accelerate's state alone: it belongs to the whole process, and a
    user's own ``Accelerator`` would inherit our device. Inside a parallel loop of joblib, such as
    a search with ``n_jobs=2``, a fit is alone too: other loops go on in an order of their own, and
    whoever waited for them would wait for ever.
    """
    if get_active_backend()[0].nesting_level > 0:
        return False
    sizes = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
    return get_int_from_env(sizes, 1) > 1


def to_device(inputs: Any, device: torch.device) -> Any:
    """Move a tensor, or every tensor of a mapping, without waiting for the copy."""
    if isinstance(inputs, Mapping):
        return {k: to_device(v, device) for k, v in inputs.items()}
    return inputs.to(device, non_blocking=True) if torch.is_tensor(inputs) else inputs


class Runtime:
    """Where and how one fit computes.

    Parameters
    ----------
    device : str or torch.device
        "auto" or any torch device. Under a multi-process launch each process has its own GPU.
    precision : {"float32", "bf16", "fp16"}
        Mixed precision of the forward pass; losses and group sums stay in float32.
    """

    def __init__(self, device: str | torch.device = "auto", precision: str = "float32"):
        self.device = resolve_device(device)
        self.rank, self.n_processes = 0, 1
        if is_launched_distributed():
            state = PartialState(cpu=self.device.type == "cpu")
            self.rank, self.n_processes = state.process_index, state.num_processes
            if self.device.type == state.device.type:
                self.device = state.device
        self.is_main = self.rank == 0
        self.dtype = _AUTOCAST[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context of a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over the processes; no gradient."""
        if self.n_processes == 1:
            return tensor
        return reduce(tensor.detach().clone(), "sum")

    def agree(self, values: np.ndarray) -> np.ndarray:
        """The first process's values, in all processes: seeds drawn from a global generator."""
        if self.n_processes == 1:
            return values
        return broadcast_object_list([values])[0]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose gradients are averaged over the processes."""
        if self.n_processes == 1:
            return module
        device_ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=device_ids)

    def share_buffers(self, module: nn.Module) -> None:
        """The first process's batch statistics in all processes, as before each training batch."""
        if self.n_processes > 1:
            for buffer in module.buffers():
                buffer.copy_(broadcast(buffer))

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.n_processes > 1:
            PartialState().wait_for_everyone()

    def fork_rng(self) -> contextlib.AbstractContextManager:
        """torch's generators as they are now after the block, whatever happens inside."""
        return seeded(0, self.device)

    def reseed(self, seed: int, epoch: int) -> None:
        """Seed torch's generators for an epoch, each process its own; inside ``fork_rng``."""
        state = np.random.SeedSequence([seed, epoch, self.rank]).generate_state(1, np.uint64)[0]
        torch.random.default_generator.manual_seed(int(state >> np.uint64(1)))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(int(state >> np.uint64(1)))


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Any:
    """torch's global generators seeded for a block, and afterwards as they were.

    One thread at a time: a fit in another thread has the same bits as alone.
    """
    on_gpu = device is not None and device.type == "cuda"
    devices = [device.index or 0] if on_gpu and device is not None else []
    with generator_lock, torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed(seed)
        yield
