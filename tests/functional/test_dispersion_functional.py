"""The outlier rule of NSF."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import planted_shortcut

from skspurious.functional._dispersion import class_means, find_dispersed


def _reference_dispersed(X, y):
    means = [X[y == k].mean(axis=0) for k in range(y.max() + 1)]
    nearest = [np.argmin([np.sqrt(((x - m) ** 2).sum()) for m in means]) for x in X]
    return np.array(nearest) != y


def test_class_means_by_hand_and_in_float64():
    X = np.array([[1.0, 0.0], [3.0, 0.0], [7.0, 1.0]], dtype=np.float32)
    means = class_means(X, np.array([1, 1, 0]))
    assert_array_equal(means, [[7.0, 1.0], [2.0, 0.0]])
    assert means.dtype == np.float64
    big = np.full((100_000, 1), 0.1, dtype=np.float32)
    assert class_means(big, np.zeros(100_000, dtype=int))[0, 0] == pytest.approx(
        float(np.float32(0.1)), abs=1e-12
    )


@pytest.mark.fidelity
@pytest.mark.parametrize("chunk_size", [1, 7, 10_000])
def test_dispersed_samples_are_nearer_to_another_mean_for_any_chunk_size(chunk_size):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 6)) + 50.0, rng.integers(4, size=300)
    dispersed, means = find_dispersed(X, y, chunk_size=chunk_size)
    assert_array_equal(dispersed, _reference_dispersed(X, y))
    assert_allclose(means, class_means(X, y))


@pytest.mark.fidelity
def test_a_tie_goes_to_the_lowest_class():
    X = np.array([[0.0], [2.0], [1.0], [1.0]])
    y = np.array([0, 1, 0, 1])
    dispersed, _ = find_dispersed(X, y, means=np.array([[0.0], [2.0]]))
    assert_array_equal(dispersed, [False, False, False, True])


@pytest.mark.fidelity
@pytest.mark.parametrize(("rho", "s"), [(0.7, 2.0), (0.95, 2.0), (0.9, 1.2)])
def test_conflicting_samples_are_found_where_the_theory_says_so(rho, s):
    # s^2 (2 rho - 1) > c^2: 1.6, 3.6 and 1.152 against 1; the last by 3.6 deviations of the noise
    X, y, conflicting = planted_shortcut(rho, s, noise=0.03)
    dispersed, _ = find_dispersed(X, y)
    assert dispersed[conflicting].mean() > 0.98
    assert dispersed[~conflicting].mean() < 0.01


@pytest.mark.fidelity
@pytest.mark.parametrize(("rho", "s"), [(0.5, 3.0), (0.5, 0.5), (0.8, 1.2)])
def test_nothing_is_found_where_the_theory_says_so(rho, s):
    # rho = .5 gives 0 for every s; .8 and 1.2 give .864 < 1, where noise finds a few
    X, y, _ = planted_shortcut(rho, s)
    assert find_dispersed(X, y)[0].mean() < 0.02


@pytest.mark.fidelity
def test_dispersed_samples_move_with_classes_features_translations_and_rotations():
    X, y, _ = planted_shortcut(0.8, 1.5, n_samples=400, noise=0.3)
    X = np.concatenate([X, np.random.default_rng(0).normal(size=(400, 3))], axis=1)
    dispersed, means = find_dispersed(X, y)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert_array_equal(find_dispersed(X, 1 - y)[0], dispersed)
    assert_array_equal(find_dispersed(X[:, [3, 1, 0, 4, 2]], y)[0], dispersed)
    assert_array_equal(find_dispersed(X @ rotation, y)[0], dispersed)
    moved, moved_means = find_dispersed(X + 7.0, y)
    assert_array_equal(moved, dispersed)
    assert_allclose(moved_means, means + 7.0)


def test_class_means_refuse_a_class_without_samples():
    with pytest.raises(ValueError, match="no sample of class 1"):
        class_means(np.zeros((2, 1)), np.array([0, 2]))
