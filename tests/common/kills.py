"""Fits that are killed at random moments, and started again: ``make test-kills ARGS=100``.

Each is a process of its own, which is ended by SIGKILL. Started again, the fit must end with the
bits of one that was never stopped, and run as many epochs as no checkpoint has.
"""

import contextlib
import functools
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from registry import CLASSIFIERS, SMALL, by_name
from torch import nn

from skspurious._engine import _loop
from skspurious.mitigation import AutoRetrainer

METHODS = [e for e in by_name(CLASSIFIERS).values() if e.cls is not AutoRetrainer]
FAST = {"max_epochs": 4, "batch_size": 32, "lr": 0.05, "random_state": 0}


class Network(nn.Module):
    """With all that a checkpoint must hold: dropout, batch statistics, weights."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.layers(x))


def fit(entry, folder=None):
    """The fit of a method, the same in every process, and the epochs that it took."""
    X, y, group = SMALL["table"]()
    given = {"sample_group": group} if entry.needs_groups else {}
    n_epochs, run_epoch = [], _loop.run_epoch

    @functools.wraps(run_epoch)
    def counted(*args, **kwargs):
        row = run_epoch(*args, **kwargs)
        n_epochs.append(row)
        return row

    _loop.run_epoch = counted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clf = entry(Network, checkpoint_dir=folder, **FAST).fit(X, y, **given)
    finally:
        _loop.run_epoch = run_epoch
    return clf, len(n_epochs)


def kill_a_fit(entry, folder, seconds):
    """Start a fit in another process, and kill it after some seconds; None lets it end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside idle threads
        process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            fit(entry, folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def saved_epochs(folder):
    """Epochs in all checkpoints of a folder."""
    n = 0
    for path in Path(folder).rglob("*.pt"):
        content = path.read_bytes().split(b"\n", 2)[2]
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            n += len(torch.load(file, weights_only=True)["progress"].get("history", []))
    return n


def assert_same_bits(one, other):
    """The same network, and the same arrays."""
    expected = other.module_.state_dict()
    for name, value in one.module_.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name, value in vars(other).items():
        if isinstance(value, np.ndarray) and name.endswith("_"):
            np.testing.assert_array_equal(vars(one)[name], value, err_msg=name)


def kill_and_resume(entry, rng):
    """Kill a fit of one method up to twice, resume it, and compare; the epochs that were saved."""
    unbroken, n_epochs = fit(entry)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        kill_a_fit(entry, Path(folder, "timed"), None)
        seconds = time.perf_counter() - started
        runs = Path(folder, "runs")
        for _ in range(rng.randint(1, 2)):
            kill_a_fit(entry, runs, rng.uniform(0, seconds))
        n_saved = saved_epochs(runs)
        resumed, n_left = fit(entry, runs)
        assert n_left == n_epochs - n_saved, f"{n_left} of {n_epochs} epochs, {n_saved} were saved"
        assert not list(runs.rglob("*.part")), list(runs.rglob("*"))
    assert_same_bits(resumed, unbroken)
    return n_saved


def main(n_kills):
    torch.set_num_threads(1)
    n_resumed = 0
    for i in range(n_kills):
        entry = METHODS[i % len(METHODS)]
        n_saved = kill_and_resume(entry, random.Random(i))
        n_resumed += n_saved > 0
        print(f"{i + 1:4d} {entry.name}: {n_saved} epochs had been saved", flush=True)
    print(f"{n_kills} fits were killed; {n_resumed} of them went on from a checkpoint.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
