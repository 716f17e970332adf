"""Files that are replaced as a whole."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

SUFFIX = ".part"  # of a file that is being written


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` at the end, and only then.

    It lies beside it, and is on the disk before it is moved: whoever is killed, or has no room
    left, leaves the older file whole.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def replace_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file as a whole."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def sweep(path: str | os.PathLike) -> None:
    """Remove what killed writes of ``path`` have left."""
    path = Path(path)
    for left in path.parent.glob(f"{path.name}.*{SUFFIX}"):
        with contextlib.suppress(OSError):  # of a process that is writing, on Windows
            left.unlink()


def allocate(path: str | os.PathLike, n_bytes: int) -> None:
    """Take room on the disk for a file that will be mapped into memory.

    Without it a disk that fills up would kill the process when it writes to the map.

    Raises
    ------
    OSError
        If there is no room; the file is removed.
    """
    try:
        with open(path, "r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
                return
            file.seek(0, os.SEEK_END)
            for start in range(file.tell(), n_bytes, 2**20):
                file.write(bytes(min(2**20, n_bytes - start)))
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def _mode(path: Path) -> Any:
    """Permissions of the older file, or those of a new one; ``mkstemp`` gives the user's alone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
