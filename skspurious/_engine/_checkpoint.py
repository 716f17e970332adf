"""Checkpoints: a run killed at any moment and started again ends as if it had never stopped.

Samplers and random generators are functions of the seed and the epoch, so what must be saved is
the network, the objective (the group weights of GroupDRO), optimizer, schedule, loss scale and
history. The file is written beside its place and then moved there, so it is always whole.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skspurious._engine._runtime import Runtime


class CheckpointFolder:
    """Where the runs of one ``checkpoint_dir`` are kept, each under its own fingerprint.

    Parameters
    ----------
    folder : str, Path or None
        None keeps nothing.
    fingerprint : str
        Tells runs apart: candidates and folds of a search never meet in one file.
    """

    def __init__(self, folder: str | os.PathLike | None, fingerprint: str):
        self.path = None if folder is None else Path(folder) / f"{fingerprint}.pt"

    def load(self, state: dict[str, Any], runtime: Runtime) -> dict | None:
        """Put the saved run into ``state``; returns its progress, or None where none is saved."""
        runtime.wait()
        if self.path is None or not self.path.is_file():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in state.items():
                if part is not None:
                    part.load_state_dict(saved["state"][name])
            return saved["progress"]
        except Exception as error:
            raise ValueError(
                f"the checkpoint {self.path} cannot be read ({type(error).__name__}). Delete it "
                "to start this fit from the beginning, or choose another checkpoint_dir."
            ) from error

    def save(self, state: dict[str, Any], progress: dict, runtime: Runtime) -> None:
        """Write the run after an epoch, all or nothing; only the first process writes."""
        if self.path is None or not runtime.is_main:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        parts = {name: part.state_dict() for name, part in state.items() if part is not None}
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({"state": parts, "progress": progress}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def fingerprint(*parts: Any) -> str:
    """Hash of parameters, arrays and networks: equal for two runs only if they are the same run.

    Equal in every process: what has no value of its own (functions, transforms) counts by its
    ``repr`` without the address.
    """
    digest = hashlib.blake2b(digest_size=12)
    _add(digest, parts)
    return digest.hexdigest()


def _add(digest: Any, part: Any) -> None:
    """Add one part, and all that is in it, to a hash."""
    if isinstance(part, np.generic):
        part = part.item()
    digest.update(f"{type(part).__qualname__}:".encode())
    if isinstance(part, Tensor):
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        part = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if isinstance(part, np.ndarray) and part.dtype != object:
        digest.update(f"{part.dtype} {part.shape}".encode())
        digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    elif isinstance(part, list | tuple | np.ndarray):
        digest.update(f"{len(part)}".encode())
        for item in part:
            _add(digest, item)
    elif isinstance(part, Mapping):
        _add(digest, sorted(part.items(), key=lambda item: repr(item[0])))
    elif isinstance(part, BaseEstimator):
        _add(digest, part.get_params(deep=False))
    else:
        digest.update(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part)).encode())
        if isinstance(part, nn.Module):
            _add(digest, part.state_dict())
    digest.update(b"|")
