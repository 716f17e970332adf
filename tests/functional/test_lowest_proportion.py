"""The interval of the lowest proportion: by hand, by laws, and by how often it holds."""

import numpy as np
import pytest
from scipy.stats import binom

from skspurious.functional import lowest_proportion_interval


@pytest.mark.parametrize(("k", "n"), [(7, 10), (95, 100), (1, 4), (300, 1000)])
def test_of_one_group_it_is_the_mid_p_interval(k, n):
    """Its ends are where half the probability of k and all beyond it are a tail."""
    low, high = lowest_proportion_interval([k], [n])
    upper_tail = binom.sf(k, n, low) + binom.pmf(k, n, low) / 2
    lower_tail = binom.cdf(k - 1, n, high) + binom.pmf(k, n, high) / 2
    assert upper_tail == pytest.approx(0.025, rel=1e-6)
    assert lower_tail == pytest.approx(0.025, rel=1e-6)


def test_right_and_wrong_everywhere():
    low, high = lowest_proportion_interval([5, 5], [5, 5])
    assert 0.2 < low < 0.6
    assert high == 1.0
    low, high = lowest_proportion_interval([0], [4])
    assert low == 0.0
    assert (1 - high) ** 4 / 2 == pytest.approx(0.025, rel=1e-6)  # mid-p of no success


def test_a_tiny_perfect_group_may_be_the_worst():
    low, high = lowest_proportion_interval([5, 1800], [5, 2000])
    assert low < 0.6
    assert high > 0.89
    assert lowest_proportion_interval([1800], [2000])[0] > 0.88


def test_one_of_many_is_low_by_chance():
    alone = lowest_proportion_interval([80], [100])
    among = lowest_proportion_interval([80] * 16, [100] * 16)
    assert among[1] > alone[1] + 0.02
    assert among[0] >= alone[0]


def test_the_order_of_groups_changes_nothing_and_more_confidence_is_wider():
    k, n = np.array([8, 70, 3]), np.array([10, 100, 4])
    found = lowest_proportion_interval(k, n)
    assert lowest_proportion_interval(k[::-1], n[::-1]) == pytest.approx(found, rel=1e-9)
    wider = lowest_proportion_interval(k, n, 0.99)
    assert wider[0] < found[0] < found[1] < wider[1]


@pytest.mark.parametrize(
    ("p", "n"),
    [
        ([0.8] * 4, [30] * 4),
        ([0.6, 0.9, 0.9, 0.95], [30, 500, 500, 200]),
        ([0.6, 0.9, 0.9, 0.95], [8] * 4),
        ([0.95], [100]),
    ],
)
def test_it_holds_the_lowest_accuracy(p, n):
    """At 95 %: of 600 draws, within three standard errors of at least 0.93."""
    rng, p, n = np.random.default_rng(0), np.array(p), np.array(n)
    drawn, count = np.unique(rng.binomial(n, p, (600, len(p))), axis=0, return_counts=True)
    ends = np.array([lowest_proportion_interval(k, n) for k in drawn])
    holds = (ends[:, 0] <= p.min()) & (p.min() <= ends[:, 1])
    assert np.average(holds, weights=count) > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 600)


@pytest.mark.parametrize(
    ("k", "n", "confidence", "message"),
    [
        ([1], [0], 0.95, "needs a trial"),
        ([2], [1], 0.95, "between 0 and n"),
        ([-1], [1], 0.95, "between 0 and n"),
        ([1], [1], 1.0, "confidence must be in"),
    ],
)
def test_what_are_no_counts(k, n, confidence, message):
    with pytest.raises(ValueError, match=message):
        lowest_proportion_interval(k, n, confidence)
