"""Fixtures and settings for the whole suite."""

import os
import sys
from pathlib import Path

# One thread each: with two on a busy machine, small networks run 10 to 50 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_faiss_thread():
    import faiss

    faiss.omp_set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_figure_is_left_for_the_next_test():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def assert_global_rng_untouched():
    """Context manager: NumPy's and torch's global generators are as they were."""
    from contextlib import contextmanager

    @contextmanager
    def check():
        numpy_state, torch_state = np.random.get_state(legacy=False), torch.get_rng_state()
        yield
        after = np.random.get_state(legacy=False)
        np.testing.assert_array_equal(numpy_state["state"]["key"], after["state"]["key"])
        assert numpy_state["state"]["pos"] == after["state"]["pos"]
        assert torch.equal(torch_state, torch.get_rng_state())

    return check


@pytest.fixture
def interrupt_after():
    """Makes a callback that stops a run after an epoch, as Ctrl-C would."""
    from skspurious._engine._callbacks import Callback

    class InterruptAfter(Callback):
        def __init__(self, epoch):
            self.epoch = epoch

        def on_epoch_end(self, *, row, **kwargs):
            if row["epoch"] == self.epoch:
                raise KeyboardInterrupt

    return InterruptAfter


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real data sets; tests that use it skip where it is missing."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKSPURIOUS_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set SKSPURIOUS_DATA to their folder")
    return folder
