"""Fixtures and settings for the whole suite.

Two environment variables, of which ``make test-kernels`` makes use: SKSPURIOUS_TEST_THREADS, the
threads of torch and faiss, and SKSPURIOUS_TEST_SEED, a number other than 0 for other data of the
same laws.
"""

import functools
import os
import sys
from pathlib import Path

# One thread each: with two on a busy machine, small networks run 10 to 50 times slower.
os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SKSPURIOUS_TEST_THREADS", "1"))
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

from skspurious import datasets

N_THREADS = int(os.environ.get("SKSPURIOUS_TEST_THREADS", "1"))
torch.set_num_threads(N_THREADS)

# ---------------------------------------------------------------- other data of the same laws

TESTS = str(Path(__file__).resolve().parent)
SHIFT = 1000 * int(os.environ.get("SKSPURIOUS_TEST_SEED", "0"))


def _shifted(function):
    """The function, with SHIFT added to an integer seed where a test calls it."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        if sys._getframe(1).f_code.co_filename.startswith(TESTS):
            if function is _default_rng and args and isinstance(args[0], int):
                args = (args[0] + SHIFT, *args[1:])
            if isinstance(kwargs.get("random_state"), int):
                kwargs["random_state"] += SHIFT
        return function(*args, **kwargs)

    return call


_default_rng = np.random.default_rng
if SHIFT:  # before the tests are imported
    np.random.default_rng = _shifted(_default_rng)
    for _name in datasets.__all__:
        setattr(datasets, _name, _shifted(getattr(datasets, _name)))


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "recorded: holds for the data of one seed, not for their law; skipped under "
        "SKSPURIOUS_TEST_SEED",
    )


def pytest_collection_modifyitems(items):
    for item in items:
        if SHIFT and item.get_closest_marker("recorded"):
            item.add_marker(pytest.mark.skip(reason="holds for the data of one seed"))


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="session", autouse=True)
def _faiss_threads():
    import faiss

    faiss.omp_set_num_threads(N_THREADS)


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
