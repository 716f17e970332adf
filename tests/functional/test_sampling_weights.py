"""Sampling probabilities by group size."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspurious.functional._weights import sampling_probabilities


def _reference_probabilities(group, power, group_class):
    """p_i proportional to n_g^-power, inside each class if there are classes."""
    weight = np.array([float(np.sum(group == g)) ** -power[g] for g in group])
    if group_class is None:
        return weight / weight.sum()
    label = group_class[group]
    total = np.array([weight[label == c].sum() for c in label])
    return weight / total / len(set(label))


def _mass(probability, group):
    return np.bincount(group, weights=probability)


@pytest.mark.fidelity
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((3498, 184), (0.0500, 0.9500)),
        ((10082, 15, 15, 14, 7), (0.00029, 0.19173, 0.19173, 0.20542, 0.41084)),
    ],
)
def test_power_two_turns_sizes_upside_down(sizes, expected):
    # n^(1 - 2) / sum: (1/3498, 1/184) is .04998 to .95002, and so on.
    group = np.repeat(np.arange(len(sizes)), sizes)
    assert_allclose(_mass(sampling_probabilities(group, power=2.0), group), expected, atol=5e-5)


@pytest.mark.fidelity
@pytest.mark.parametrize("group_class", [None, np.array([0, 0, 1, 1, 1, 2])])
def test_probabilities_equal_the_formula(group_class):
    rng = np.random.default_rng(0)
    group = rng.integers(6, size=400)
    power = rng.uniform(0, 3, size=6)
    ours = sampling_probabilities(group, power=power, group_class=group_class)
    assert_allclose(ours, _reference_probabilities(group, power, group_class), rtol=1e-12)
    assert ours.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.fidelity
def test_classes_have_equal_mass_and_power_one_balances_inside():
    group = np.repeat(np.arange(5), [500, 20, 7, 90, 3])
    group_class = np.array([0, 0, 1, 1, 1])
    mass = _mass(sampling_probabilities(group, group_class=group_class), group)
    assert_allclose(mass, [1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6], atol=1e-12)


@pytest.mark.fidelity
def test_power_zero_is_class_balanced_erm():
    group = np.repeat(np.arange(4), [500, 20, 7, 90])
    p = sampling_probabilities(group, power=0.0, group_class=np.array([0, 0, 1, 1]))
    assert_allclose(p, np.where(group < 2, 0.5 / 520, 0.5 / 97), rtol=1e-12)
    assert_allclose(sampling_probabilities(group, power=0.0), 1 / 617, rtol=1e-12)


@pytest.mark.fidelity
def test_one_group_a_class_is_class_balanced_sampling():
    group = np.repeat(np.arange(3), [30, 60, 10])
    p = sampling_probabilities(group, group_class=np.arange(3))
    assert_allclose(_mass(p, group), 1 / 3)
    equal = np.repeat(np.arange(3), 20)
    assert_allclose(sampling_probabilities(equal, group_class=np.arange(3)), 1 / 60)


@pytest.mark.fidelity
def test_renaming_groups_and_classes_and_permuting_samples_only_permutes():
    rng = np.random.default_rng(0)
    group, power = rng.integers(4, size=200), np.array([1.0, 1.0, 2.0, 2.0])
    group_class = np.array([0, 0, 1, 1])
    p = sampling_probabilities(group, power=power, group_class=group_class)
    order, rename = rng.permutation(200), np.array([3, 1, 0, 2])
    renamed_power, renamed_class = np.empty(4), np.empty(4, dtype=int)
    renamed_power[rename], renamed_class[rename] = power, 1 - group_class
    q = sampling_probabilities(rename[group[order]], power=renamed_power, group_class=renamed_class)
    assert_allclose(q, p[order], rtol=1e-12)


def test_power_twenty_stays_finite():
    group = np.repeat(np.arange(5), [10082, 15, 15, 14, 7])
    p = sampling_probabilities(group, power=20.0, group_class=np.zeros(5, dtype=int))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1.0)
    assert _mass(p, group)[4] > 0.999


def test_empty_groups_and_classes_are_left_out():
    group = np.array([0, 0, 0, 2, 4])
    group_class = np.array([0, 0, 1, 2, 0, 2])
    p = sampling_probabilities(group, group_class=group_class, n_groups=6)
    # Class 0 has groups 0 (3 samples) and 4 (1); class 1 group 2; class 2 has no sample.
    assert_allclose(p, [1 / 12, 1 / 12, 1 / 12, 1 / 2, 1 / 4])
    assert_array_equal(sampling_probabilities(np.array([1]), power=3.0), [1.0])


def test_sampling_probabilities_check_their_arguments():
    group = np.array([0, 1, 1])
    with pytest.raises(ValueError, match="power has shape"):
        sampling_probabilities(group, power=np.ones(3))
    with pytest.raises(ValueError, match="group_class has shape"):
        sampling_probabilities(group, group_class=np.zeros(1, dtype=int))
    with pytest.raises(ValueError, match="ids are 0"):
        sampling_probabilities(group, n_groups=1)
    with pytest.raises(ValueError, match="one group id for each sample"):
        sampling_probabilities(np.array([], dtype=int))
