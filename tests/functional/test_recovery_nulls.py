"""The draws that what balancing recovers is compared with, each by what it is."""

import numpy as np
import pytest
from scipy.stats import norm

from skspurious.functional import _recovery
from skspurious.functional._recovery import _Heads, _p_values, _permuted, _redealt, recovery_tests


def make_samples(n=200, strength=0.8, seed=0):
    """Samples by fold, for each the class, a core feature, and a nuisance that is a feature too.

    Within the classes the core feature is uncorrelated with the nuisance, to the last digit.
    """
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    nuisance = np.where(rng.random(n) < strength, y, 1 - y) + 0.1 * rng.normal(size=n)
    core = rng.normal(size=n)
    for k in (0, 1):
        rows = y == k
        slope, mean = np.polyfit(nuisance[rows], core[rows], 1)
        core[rows] -= slope * nuisance[rows] + mean
    core += y - 0.5
    ones = np.ones(n)
    return np.stack([core, nuisance, ones], axis=1), np.stack([nuisance, ones], axis=1), y


def make_heads(y):
    return _Heads(y, np.full(5, len(y) // 5), 5)


def test_redealt_nuisances_take_their_part_of_the_samples_with_them():
    """Here it is a column: then a draw is what comes of the data with this column permuted."""
    Z, N, y = make_samples()
    heads = make_heads(y)
    base = heads.margins(Z, heads.class_weight)
    gains = _redealt(heads, Z, [N], base, 10, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for (gain,) in gains:
        other = rng.permutation(len(y))
        dealt = np.stack([Z[:, 0], Z[other, 1], Z[:, 2]], axis=1)
        wrong = heads.sides(N[other])
        before = heads.margins(dealt, heads.class_weight)
        assert gain == pytest.approx(heads.gain(before, heads.balanced(dealt, wrong), wrong))


def test_a_nuisance_that_is_not_in_the_representation_has_no_part_of_it():
    Z, _, y = make_samples()
    coin = np.random.default_rng(1).normal(size=(len(y), 1))
    for N, n_parts in ((coin, 0), (Z[:, [1]], 1)):
        N = np.column_stack([N, np.ones(len(y))])
        variate, loading = _recovery._nuisance_part(Z, N, y)
        assert variate.shape == (len(y), n_parts)
        assert loading.shape == (n_parts, 3)


def test_permuted_sides_stay_among_equally_hard_samples():
    """Some twenty neighbours by margin, of one class and all of them hits or none of them."""
    rng = np.random.default_rng(0)
    cells = [(0, 1, 70), (0, -1, 30), (1, 1, 80), (1, -1, 20)]  # class, sign of the margin, samples
    y = np.concatenate([np.full(n, k) for k, _, n in cells])
    base = np.concatenate([sign * rng.random(n) for _, sign, n in cells])
    order = rng.permutation(len(y))
    y, base, wrong = y[order], base[order], rng.integers(2, size=len(y))
    heads, seen = make_heads(y), []
    heads.balanced = lambda Z, sides: seen.append(sides) or base
    heads.gain = lambda before, after, sides: float(len(seen))
    gains = _permuted(heads, None, [wrong], base, 5, np.random.default_rng(0))
    assert gains.tolist() == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    strata = []
    for k, sign, n in cells:
        rows = np.flatnonzero((y == k) & (np.sign(base) == sign))
        strata += np.array_split(rows[np.argsort(base[rows])], n // 20)
    for sides in seen:
        assert [sides[rows].sum() for rows in strata] == [wrong[rows].sum() for rows in strata]
        assert not np.array_equal(sides, wrong)
    assert len({tuple(sides) for sides in seen}) == 5


def test_p_values_by_hand():
    """Of four draws, by how far the largest nuisance of each is above its mean, in deviations."""
    draws = np.array([[0.0, 10.0], [2.0, 20.0], [4.0, 0.0], [6.0, 30.0]])
    # Standardised with the gain itself: a spread of 10 counts as much as one of 2.
    assert _p_values(np.array([8.0, 40.0]), draws).tolist() == [1 / 5, 1 / 5]
    assert _p_values(np.array([5.0]), draws[:, :1]).tolist() == [2 / 5]
    assert _p_values(np.array([3.0]), draws[:, :1]).tolist() == [3 / 5]
    # In each draw the second, beside which -40 is far away, is above its mean.
    assert _p_values(np.array([3.0, -40.0]), draws).tolist() == [5 / 5, 5 / 5]
    assert _p_values(np.array([0.0]), np.zeros((3, 1))).tolist() == [1.0]


def make_data(strength, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=300)
    nuisance = np.where(rng.random(300) < strength, y, 1 - y)
    X = rng.normal(size=(300, 4)) + 2.0 * np.eye(4)[y] + 4.0 * np.eye(4)[2 + nuisance]
    return X, y, np.eye(2)[nuisance]


@pytest.fixture
def nulls(monkeypatch):
    """Sets the gains of all draws of both kinds."""

    def set_gains(redealt, permuted):
        for name, gain in (("_redealt", redealt), ("_permuted", permuted)):
            draws = np.full((19, 1), gain)
            monkeypatch.setattr(_recovery, name, lambda *args, draws=draws: draws)

    return set_gains


LOW, HIGH = -10.0, 10.0
SEED_OF_A_GAIN = 0


@pytest.mark.parametrize(
    ("redealt", "permuted", "of_one_that_says", "of_one_that_does_not"),
    [(LOW, LOW, 0.05, 0.05), (LOW, HIGH, 1.0, 0.05), (HIGH, LOW, 1.0, 1.0)],
)
def test_what_says_the_class_must_beat_both(
    nulls, redealt, permuted, of_one_that_says, of_one_that_does_not
):
    nulls(redealt, permuted)
    (says,) = recovery_tests(*make_data(0.9, 0)[:2], [make_data(0.9, 0)[2]])
    assert says.recovered > says.lost
    assert says.p_value == of_one_that_says
    X, y, n = make_data(0.5, SEED_OF_A_GAIN)
    (does_not,) = recovery_tests(X, y, [n])
    assert does_not.recovered > does_not.lost
    assert does_not.p_value == of_one_that_does_not


@pytest.mark.parametrize(
    ("seed", "loses_gradually", "loses_in_hits"),
    [(13, True, True), (29, True, False), (10, False, True)],
)
def test_what_loses_more_than_it_recovers_is_no_evidence_whatever_the_draws(
    nulls, monkeypatch, seed, loses_gradually, loses_in_hits
):
    gains = []
    real = _Heads.gain
    monkeypatch.setattr(_Heads, "gain", lambda *args: gains.append(real(*args)) or gains[-1])
    nulls(LOW, LOW)
    X, y, n = make_data(0.5, seed)
    (test,) = recovery_tests(X, y, [n])
    assert (gains[0] < 0) == loses_gradually
    assert (test.recovered < test.lost - test.standard_error) == loses_in_hits
    assert test.p_value == 1.0


@pytest.mark.parametrize(("n_wrong", "says"), [(86, False), (72, True)])
def test_beyond_doubt_are_three_standard_errors(n_wrong, says):
    """Of 100 samples of each class by chance 50 are right, plus or minus 3.5 in the mean."""
    y = np.repeat([0, 1], 100)
    wrong = np.zeros(200, dtype=np.int64)
    wrong[: n_wrong // 2] = wrong[100 : 100 + n_wrong // 2] = 1
    assert make_heads(y).says_class(wrong) == says


def test_hits_that_count_gradually_by_hand():
    """Margins of 1 and -1 have the deviation 1, of which 0.3 are the width of a hit."""
    y, wrong = np.repeat([0, 1], 20), np.tile(np.repeat([0, 1], 10), 2)
    before, after = np.where(wrong, -1.0, 1.0), np.where(wrong, 0.3, 0.6)
    recovered = norm.cdf(1) - norm.cdf(-1 / 0.3)
    lost = norm.cdf(1 / 0.3) - norm.cdf(2)
    assert make_heads(y).gain(before, after, wrong) == pytest.approx(recovered - lost)
