"""Seeds drawn from any random state, with the global generator left alone."""

import numpy as np
import pytest

from skspurious.utils._random import check_private_random_state, draw_seed


def test_draw_seed_of_an_integer_is_always_the_same():
    assert draw_seed(0) == draw_seed(0)
    assert draw_seed(0) != draw_seed(1)
    assert isinstance(draw_seed(0), int)


def test_draw_seed_advances_a_random_state():
    random_state = np.random.RandomState(0)
    first, second = draw_seed(random_state), draw_seed(random_state)
    assert first != second
    assert first == draw_seed(np.random.RandomState(0))


def test_draw_seed_of_none_is_fresh_and_touches_no_global_generator(assert_global_rng_untouched):
    with assert_global_rng_untouched():
        seeds = {draw_seed(None) for _ in range(5)}
    assert len(seeds) == 5


def test_check_private_random_state_returns_the_given_one():
    random_state = np.random.RandomState(0)
    assert check_private_random_state(random_state) is random_state


def test_check_private_random_state_refuses_anything_else():
    with pytest.raises(ValueError, match="'seed' cannot be used to seed"):
        check_private_random_state("seed")
