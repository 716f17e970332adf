"""SELF's selection by hand."""

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import entropy

from skspurious.functional._selection import disagreement, select_per_class


def test_disagreement_is_the_divergence_of_the_probabilities():
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(3), size=5) for _ in range(2))
    found = disagreement(torch.from_numpy(np.log(p) + 2), torch.from_numpy(np.log(q) - 1))
    assert_allclose(found, entropy(p, q, axis=1))
    assert_allclose(disagreement(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(p))), 0)


def test_the_same_number_of_each_class_and_all_where_it_has_fewer():
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    y = np.array([0, 0, 0, 0, 2, 2])
    assert_array_equal(select_per_class(scores, y, 2), [0, 4])
    assert_array_equal(select_per_class(scores, y, 3), [0, 1, 4, 5])  # the share is rounded up
    assert_array_equal(select_per_class(scores, y, 100), np.arange(6))


def test_selection_follows_the_rows():
    rng = np.random.default_rng(0)
    scores, y, order = rng.random(40), rng.integers(3, size=40), rng.permutation(40)
    chosen = select_per_class(scores, y, 9)
    permuted = select_per_class(scores[order], y[order], 9)
    assert_array_equal(np.sort(order[permuted]), chosen)
