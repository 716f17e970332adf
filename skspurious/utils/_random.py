"""Random states that leave the global generator alone."""

from typing import Any

import numpy as np
from sklearn.utils import check_random_state


def check_private_random_state(random_state: Any) -> np.random.RandomState:
    """scikit-learn's ``check_random_state``, but None is a fresh generator, not the global one."""
    if random_state is None:
        return np.random.RandomState()
    return check_random_state(random_state)


def draw_seed(random_state: Any) -> int:
    """An integer seed."""
    return int(check_private_random_state(random_state).randint(2**31 - 1))
