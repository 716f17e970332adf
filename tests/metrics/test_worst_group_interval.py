"""worst_group_interval: the counts are those of the groups."""

import numpy as np
import pytest

from skspurious.data import OverlappingGroups
from skspurious.functional import lowest_proportion_interval
from skspurious.metrics import worst_group_accuracy, worst_group_interval

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 300)
PRED = np.where(RNG.random(300) < 0.8, Y, 1 - Y)
GROUP = RNG.choice(list("abc"), 300, p=[0.6, 0.3, 0.1])


def test_it_is_the_interval_of_the_counts():
    k = [np.sum((Y == PRED)[g == GROUP]) for g in "abc"]
    n = [np.sum(g == GROUP) for g in "abc"]
    found = worst_group_interval(Y, PRED, sample_group=GROUP)
    assert (found.low, found.high) == lowest_proportion_interval(k, n)
    assert found.observed == worst_group_accuracy(Y, PRED, sample_group=GROUP)
    assert found.low <= found.observed <= found.high
    masks = OverlappingGroups({g: g == GROUP for g in "abc"})
    assert worst_group_interval(Y, PRED, sample_group=masks).low == found.low


def test_how_often_each_group_is_the_worst():
    found = worst_group_interval(Y, PRED, sample_group=GROUP).share_worst
    assert found.sum() == pytest.approx(1.0)
    assert found.index.tolist() == ["a", "b", "c"]
    sure = worst_group_interval(
        np.zeros(200), np.repeat([0, 1], 100), sample_group=[0] * 100 + [1] * 100
    )
    assert sure.share_worst.tolist() == [0.0, 1.0]
    # Two groups that look the same are the worst in half of the draws each.
    same = worst_group_interval(
        np.zeros(40), np.tile([0, 1], 20), sample_group=np.repeat([0, 1], 20)
    )
    assert same.share_worst[0] == pytest.approx(0.5, abs=0.03)
    assert "0 is the worst" in str(same) or "1 is the worst" in str(same)


def test_an_empty_group_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        worst_group_interval(Y, PRED, sample_group=GROUP, groups=list("abcd"))
