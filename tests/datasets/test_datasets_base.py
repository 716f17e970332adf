"""The parts that the data sets share."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspurious import make_sample_group
from skspurious.datasets._base import (
    assign_attributes,
    draw_labels,
    flip_labels,
    make_bunch,
    make_generator,
    name_hues,
)


def _group_sizes(y, attribute, n_attributes):
    return np.array(
        [[np.sum((y == c) & (attribute == a)) for a in range(n_attributes)] for c in np.unique(y)]
    )


def _assign(y, n_attributes, strength, seed=0):
    return assign_attributes(
        y,
        n_classes=int(y.max()) + 1,
        n_attributes=n_attributes,
        correlation_strength=strength,
        rng=np.random.default_rng(seed),
    )


# By hand


def test_assign_attributes_makes_the_group_sizes_worked_out_by_hand():
    y = np.repeat([0, 1, 2], 10)
    # 7 of 10 aligned; the other 3 in turn, from the next attribute on
    expected = [[7, 2, 1], [1, 7, 2], [2, 1, 7]]
    assert_array_equal(_group_sizes(y, _assign(y, 3, 0.7), 3), expected)


def test_assign_attributes_rounds_to_the_nearest_integer():
    y = np.repeat([0, 1], [30, 31])
    # 0.95 * 30 = 28.5 and 0.95 * 31 = 29.45
    assert_array_equal(_group_sizes(y, _assign(y, 2, 0.95), 2), [[29, 1], [2, 29]])


def test_assign_attributes_gives_classes_attributes_in_turn_when_there_are_fewer():
    y = np.repeat([0, 1, 2], 4)
    assert_array_equal(_group_sizes(y, _assign(y, 2, 1.0), 2), [[4, 0], [0, 4], [4, 0]])


def test_draw_labels_makes_classes_of_equal_size():
    assert_array_equal(np.bincount(draw_labels(11, 3, np.random.default_rng(0))), [4, 4, 3])


def test_flip_labels_changes_exactly_that_many_and_only_a_copy():
    y = np.repeat([0, 1, 2], 100)
    before = y.copy()
    flipped = flip_labels(y, n_classes=3, n_flipped=60, rng=np.random.default_rng(0))
    assert np.sum(flipped != y) == 60
    assert_array_equal(y, before)
    # of 20 flips or so in each class, both other labels occur
    assert (np.bincount(3 * y + flipped, minlength=9) > 0).all()


def test_name_hues_names_hues_by_their_angle():
    assert list(name_hues(2)) == ["red", "cyan"]
    assert list(name_hues(5)) == ["red", "lime", "spring green", "azure", "violet"]
    assert len(set(name_hues(10))) == 10


def test_make_bunch_keeps_group_numbers_when_an_attribute_is_absent():
    bunch = make_bunch(
        target=np.array([0, 1, 1]),
        spurious_attribute=np.array([0, 2, 0]),
        target_names=["a", "b"],
        attribute_names=["u", "v", "w"],
        DESCR="What it is.\n",
        data=np.zeros(3),
    )
    assert_array_equal(bunch.sample_group, [0, 5, 3])
    assert bunch.DESCR.endswith("[[1 0 0]\n [1 0 1]]\n")
    assert bunch.DESCR.startswith("What it is.")


# Laws


@pytest.mark.parametrize("n_attributes", [2, 3, 5])
def test_assign_attributes_balances_groups_at_the_strength_of_chance(n_attributes):
    y = np.random.default_rng(0).integers(0, 4, size=1000)
    sizes = _group_sizes(y, _assign(y, n_attributes, 1 / n_attributes), n_attributes)
    assert (np.ptp(sizes, axis=1) <= 1).all()


def test_assign_attributes_leaves_no_minority_at_strength_one_and_no_majority_at_zero():
    y = np.random.default_rng(0).integers(0, 3, size=100)
    assert_array_equal(_assign(y, 3, 1.0), y)
    assert (_assign(y, 3, 0.0) != y).all()


def test_assign_attributes_chooses_rows_at_random():
    y = np.zeros(1000, dtype=int)
    first, second = (np.flatnonzero(_assign(y, 2, 0.9, seed=s)) for s in (0, 1))
    assert len(first) == len(second) == 100
    assert len(np.intersect1d(first, second)) < 50  # 10 expected
    assert 300 < first.mean() < 700


def test_group_numbers_are_those_of_make_sample_group():
    rng = np.random.default_rng(0)
    y, attribute = rng.integers(0, 3, 200), rng.integers(0, 4, 200)
    names = [str(i) for i in range(4)]
    bunch = make_bunch(
        target=y,
        spurious_attribute=attribute,
        target_names=names[:3],
        attribute_names=names,
        DESCR="",
    )
    assert_array_equal(bunch.sample_group, make_sample_group(y, attribute))


# Randomness


def test_make_generator_repeats_for_an_int_and_moves_on_for_a_random_state():
    assert make_generator(3).random() == make_generator(3).random()
    assert make_generator(3).random() != make_generator(4).random()
    state = np.random.RandomState(3)
    assert make_generator(state).random() == make_generator(3).random()
    assert make_generator(state).random() != make_generator(3).random()


def test_make_generator_draws_afresh_for_none_without_the_global_generator(
    assert_global_rng_untouched,
):
    with assert_global_rng_untouched():
        assert make_generator(None).random() != make_generator(None).random()
