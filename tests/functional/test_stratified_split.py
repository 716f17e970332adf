import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspurious.functional._split import stratified_split

WATERBIRDS = np.repeat([0, 1, 2, 3], [3498, 184, 56, 1057])


def _split(strata, fraction, seed=0):
    return stratified_split(strata, fraction, np.random.default_rng(seed))


def test_stratified_split_by_hand():
    # 0.2 of 90, 8, 2 is 18, 1.6, 0.4: rounded 18, 1, 0; the last is raised to 1; total 20.
    strata = np.repeat([5, 7, 9], [90, 8, 2])
    _, valid = _split(strata, 0.2)
    assert_array_equal(np.unique(strata[valid], return_counts=True), [[5, 7, 9], [18, 1, 1]])


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_stratified_split_keeps_every_stratum_on_both_sides(fraction):
    strata = np.append(WATERBIRDS, [10, 10])  # one of two samples
    train, valid = _split(strata, fraction)
    assert_array_equal(np.unique(strata[train]), [0, 1, 2, 3, 10])
    assert_array_equal(np.unique(strata[valid]), [0, 1, 2, 3, 10])


def test_stratified_split_holds_the_fraction():
    _, valid = _split(WATERBIRDS, 0.1)
    assert len(valid) == round(0.1 * 4795)
    assert_array_equal(np.bincount(WATERBIRDS[valid]), [350, 18, 6, 106])


def test_stratified_split_makes_up_for_rounding_by_largest_remainders():
    # 0.25 of 6, 6, 6, 5 is 1.5, 1.5, 1.5, 1.25: 4 rounded down, 6 wanted, two of the first.
    strata = np.repeat([0, 1, 2, 3], [6, 6, 6, 5])
    _, valid = _split(strata, 0.25)
    assert_array_equal(np.bincount(strata[valid]), [2, 2, 1, 1])


def test_stratified_split_is_a_partition():
    train, valid = _split(WATERBIRDS, 0.3)
    assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(4795))
    assert_array_equal(train, np.sort(train))
    assert train.dtype == valid.dtype == np.int64


def test_stratified_split_leaves_a_single_sample_in_training():
    train, valid = _split(np.array([0, 0, 0, 0, 1]), 0.5)
    assert 4 in train
    assert len(valid) == 2


@pytest.mark.parametrize("strata", [np.arange(5), np.zeros(1, int)])
def test_stratified_split_of_singletons_has_no_validation_part(strata):
    train, valid = _split(strata, 0.5)
    assert_array_equal(train, np.arange(len(strata)))
    assert valid.shape == (0,)


def test_stratified_split_renamed_strata_change_nothing():
    strata = np.random.default_rng(0).integers(0, 4, 100)
    renamed = np.array([10, 20, 40, 70])[strata]
    assert_array_equal(_split(strata, 0.2)[1], _split(renamed, 0.2)[1])


def test_stratified_split_takes_each_sample_equally_often():
    strata = np.repeat([0, 1], [8, 4])
    taken = np.zeros(12)
    for seed in range(2000):
        taken[_split(strata, 0.5, seed)[1]] += 1
    assert abs(taken / 2000 - 0.5).max() < 0.05


def test_stratified_split_same_seed_equal_two_seeds_differ(assert_global_rng_untouched):
    with assert_global_rng_untouched():
        first, again, other = (_split(WATERBIRDS, 0.1, seed)[1] for seed in (0, 0, 1))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_stratified_split_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        _split(WATERBIRDS, fraction)


def test_stratified_split_refuses_two_columns():
    with pytest.raises(ValueError, match="must have shape"):
        _split(np.zeros((4, 2)), 0.5)
