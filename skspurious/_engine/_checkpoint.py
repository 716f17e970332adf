"""Checkpoints: a run killed at any moment and started again ends as if it had never stopped.

Samplers and random generators are functions of the seed and the epoch, so what must be saved is
the network, the objective (the group weights of GroupDRO), optimizer, schedule, loss scale and
history. The file is written beside its place and then moved there, so it is always whole.

A file has two lines and what ``torch.save`` writes: the hash of all that follows, and a JSON
object with the version of the format and the fingerprint of the run.
"""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import torch

from skspurious._engine._runtime import Runtime
from skspurious.exceptions import UnreadableFileError
from skspurious.utils._files import replacing, sweep

FORMAT = 2


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
        self.fingerprint = fingerprint

    def load(self, state: dict[str, Any], runtime: Runtime) -> dict | None:
        """Put the saved run into ``state``; returns its progress, or None where none is saved."""
        runtime.wait()
        if self.path is None:
            return None
        if runtime.is_main:
            sweep(self.path)
        if not self.path.is_file():
            return None
        content = self._verified(self.path.read_bytes())
        try:
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            for name, part in state.items():
                if part is not None:
                    part.load_state_dict(saved["state"][name])
            return saved["progress"]
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise self._unreadable(f"its content does not fit ({type(error).__name__})") from error

    def save(self, state: dict[str, Any], progress: dict, runtime: Runtime) -> None:
        """Write the run after an epoch, all or nothing; only the first process writes."""
        if self.path is None or not runtime.is_main:
            return
        parts = {name: part.state_dict() for name, part in state.items() if part is not None}
        buffer = io.BytesIO()
        header = json.dumps({"format": FORMAT, "fingerprint": self.fingerprint})
        buffer.write(f"{header}\n".encode())
        torch.save({"state": parts, "progress": progress}, buffer)
        content = buffer.getbuffer()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as file:
            file.write(f"{_hash(content)}\n".encode())
            file.write(content)

    def _verified(self, content: bytes) -> bytes:
        """What follows the header, where all is as it was written, and by this run."""
        digest, _, rest = content.partition(b"\n")
        if digest != _hash(rest).encode():
            raise self._unreadable("it is damaged, or was not written by this version")
        text, _, saved = rest.partition(b"\n")
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise self._unreadable(f"it has format {header['format']}; this version has {FORMAT}")
        if header["fingerprint"] != self.fingerprint:
            raise self._unreadable("it is of another run")
        return saved

    def _unreadable(self, reason: str) -> UnreadableFileError:
        return UnreadableFileError(
            f"the checkpoint {self.path} cannot be used: {reason}. Delete it to start this fit "
            "from the beginning, or choose another checkpoint_dir."
        )


def _hash(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()
