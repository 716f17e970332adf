"""Random states that leave the global generator alone."""

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state


def check_private_random_state(random_state: Any) -> np.random.RandomState:
    """scikit-learn's ``check_random_state``, but None is a fresh generator, not the global one."""
    if random_state is None:
        return np.random.RandomState()
    return check_random_state(random_state)


def draw_seed(random_state: Any) -> int:
    """An integer seed."""
    return int(check_private_random_state(random_state).randint(2**31 - 1))


def seed_nested(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """Give every ``random_state=None`` inside a cloned estimator a seed of its own."""
    params = estimator.get_params(deep=True)
    names = sorted(
        k for k in params if k.rpartition("__")[2] == "random_state" and params[k] is None
    )
    seeds = np.random.default_rng(seed).integers(2**31 - 1, size=len(names))
    return estimator.set_params(**{k: int(s) for k, s in zip(names, seeds)}) if names else estimator


# torch has one generator for the whole process: threads take turns with it.
generator_lock = threading.RLock()


@contextlib.contextmanager
def seeded_draws(*seed: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch seeded for a block, then as they were.

    For code of the user's, such as a dataset with random crops: it draws from them.
    """
    with restored_generators():
        seed_generators(*np.random.SeedSequence(seed).generate_state(3).tolist())
        yield


def seed_generators(python: int, array: int, tensor: int) -> None:
    """Seed the global generators; within ``restored_generators`` alone."""
    random.seed(python)
    np.random.seed(array)  # noqa: NPY002
    torch.random.default_generator.manual_seed(tensor)


@contextlib.contextmanager
def restored_generators() -> Iterator[None]:
    """The global generators of Python, NumPy and torch as they were, after a block."""
    with generator_lock:
        before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.random.set_rng_state(before[2])
