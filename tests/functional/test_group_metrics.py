import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspurious.functional._metrics import (
    adjusted_mean,
    group_counts,
    group_means,
    wilson_interval,
)


def test_group_counts_keeps_the_place_of_an_absent_group():
    assert_array_equal(group_counts([0, 2, 2], 4), [1, 0, 2, 0])


def test_group_counts_sums_weights():
    assert_allclose(group_counts([0, 2, 2], 3, sample_weight=[0.5, 1, 2]), [0.5, 0, 3])


def test_group_means_by_hand():
    # Group 0: (1 + 0) / 2; group 1 is absent; group 2: 1.
    assert_array_equal(group_means([True, True, False], [0, 2, 0], 3), [0.5, np.nan, 1.0])


def _reference_group_means(values, group, n_groups, weight):
    means = []
    for g in range(n_groups):
        total, weights = 0.0, 0.0
        for v, h, w in zip(values, group, weight, strict=True):
            if h == g:
                total, weights = total + w * v, weights + w
        means.append(total / weights if weights else np.nan)
    return means


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool])
def test_group_means_equals_a_plain_loop(dtype):
    rng = np.random.default_rng(0)
    group, weight = rng.integers(0, 6, 200), rng.random(200)
    group[group == 3] = 0
    values = rng.integers(0, 2, 200).astype(dtype)
    expected = _reference_group_means(values, group, 6, weight)
    assert_allclose(group_means(values, group, 6, sample_weight=weight), expected)


def test_group_means_weight_two_equals_two_copies():
    values, group = np.array([1.0, 0.0, 0.5]), np.array([0, 0, 1])
    twice = group_means(np.append(values, 1.0), np.append(group, 0), 2)
    assert_allclose(group_means(values, group, 2, sample_weight=[2, 1, 1]), twice)


def test_group_means_of_a_group_of_weight_zero_is_nan():
    assert_array_equal(group_means([1, 1], [0, 1], 2, sample_weight=[1, 0]), [1, np.nan])


@pytest.mark.parametrize("group", [[0, 2], [-1, 0]])
def test_group_counts_refuses_an_index_out_of_range(group):
    with pytest.raises(ValueError, match=r"must (lie in 0 to 1|be at least 0)"):
        group_counts(group, 2)


def test_group_counts_refuses_values_that_are_not_indices():
    with pytest.raises(TypeError, match="group must hold integers"):
        group_counts([0.5, 1.0], 2)


def test_adjusted_mean_by_hand():
    # (3498 * 1 + 184 * 0.8 + 56 * 0.6 + 1057 * 0.9) / 4795
    expected = (3498 + 147.2 + 33.6 + 951.3) / 4795
    assert adjusted_mean([1, 0.8, 0.6, 0.9], [3498, 184, 56, 1057]) == pytest.approx(expected)


def test_adjusted_mean_does_not_depend_on_the_scale_of_the_weights():
    assert adjusted_mean([1, 0.5], [3, 1]) == adjusted_mean([1, 0.5], [0.75, 0.25])


def test_adjusted_mean_of_an_unknown_group_is_nan_only_if_it_has_weight():
    assert np.isnan(adjusted_mean([1, np.nan], [1, 1]))
    assert adjusted_mean([1, np.nan], [1, 0]) == 1


@pytest.mark.parametrize("weight", [[-1, 2], [0, 0], [np.nan, 1]])
def test_adjusted_mean_refuses_weights_that_are_none(weight):
    with pytest.raises(ValueError, match="group_weight must be finite"):
        adjusted_mean([1, 1], weight)


def test_wilson_interval_against_published_and_hand_numbers():
    # 15/148 and 81/263: Newcombe, Statistics in Medicine 17, 1998, score method.
    # n of n by hand: [n / (n + z^2), 1] = [5 / (5 + 3.8415), 1], and 0 of n mirrors it.
    low, high = wilson_interval([5, 0, 15, 81], [5, 5, 148, 263])
    assert_allclose(low, [0.5655, 0.0, 0.0624, 0.2553], atol=5e-5)
    assert_allclose(high, [1.0, 0.4345, 0.1605, 0.3662], atol=5e-5)


def test_wilson_interval_solves_its_equation():
    # The ends are the p0 for which |p - p0| = z sqrt(p0 (1 - p0) / n).
    p, n, z = 0.3, 40, 1.6448536269514722
    for end in wilson_interval(12, 40, confidence=0.9):
        assert abs(p - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n))


def test_wilson_interval_is_symmetric_and_ends_exactly_at_zero_and_one():
    low, high = wilson_interval([0, 7, 3], [7, 7, 7])
    assert low[0] == 0
    assert high[1] == 1
    mirrored_low, mirrored_high = wilson_interval([7, 0, 4], [7, 7, 7])
    assert_allclose(low, 1 - mirrored_high, atol=1e-12)
    assert_allclose(high, 1 - mirrored_low, atol=1e-12)


def test_wilson_interval_of_no_trials_is_nan():
    assert_array_equal(wilson_interval([0], [0]), [[np.nan], [np.nan]])


def test_wilson_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    low, high = wilson_interval(rng.binomial(30, 0.9, 20000), 30)
    assert 0.93 < np.mean((low <= 0.9) & (high >= 0.9)) < 0.98


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_wilson_interval_refuses_a_confidence_out_of_range(confidence):
    with pytest.raises(ValueError, match="confidence must be in"):
        wilson_interval(1, 2, confidence)


def test_wilson_interval_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson_interval(3, 2)
