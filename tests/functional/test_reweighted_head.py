"""AFR's weights by hand, and a head near another one at the minimum of its loss."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from skspurious.functional._reweighted_head import afr_weights, fit_head_near


def test_afr_weights_by_hand():
    # Class 0: exp(-ln 2 * p) = 1/2, 1, for p = 1, 0, over 2 samples: 1/4, 1/2. Class 1: 1/2 over
    # 1 sample. The sum is 5/4.
    p, y = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1])
    weights = afr_weights(p, y, np.log(2), n_classes=3)
    assert_allclose(weights, [0.2, 0.4, 0.4], rtol=1e-6)


def test_afr_weights_without_gamma_balance_the_classes():
    y = torch.tensor([0, 0, 0, 1])
    weights = afr_weights(torch.rand(4), y, 0.0, n_classes=2)
    assert_allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2], rtol=1e-6)


def test_weight_two_is_two_samples():
    p, y = torch.tensor([0.9, 0.2, 0.4]), torch.tensor([0, 0, 1])
    twice = torch.tensor([0, 1, 1, 2])
    weights = afr_weights(p, y, 3.0, 2, sample_weight=torch.tensor([1.0, 2.0, 1.0]))
    copies = afr_weights(p[twice], y[twice], 3.0, 2)
    assert_allclose(weights, [copies[0], copies[1] + copies[2], copies[3]], rtol=1e-6)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(60, 4)), rng.integers(3, size=60)
    weight = rng.uniform(0, 1, size=60)
    return Z, y, weight / weight.sum()


def test_a_head_near_zero_is_that_of_scikit_learn(problem):
    Z, y, weight = problem
    arrays = [torch.from_numpy(a) for a in (Z, y, weight)]
    head = fit_head_near(*arrays, torch.zeros(3, 4).double(), penalty=0.05)
    # scikit-learn: C * sum of losses + |W|^2 / 2, so lambda = 1 / (2 C).
    expected = LogisticRegression(C=10.0, fit_intercept=False, tol=1e-8, max_iter=1000)
    expected.fit(Z, y, sample_weight=weight)
    assert_allclose(head, expected.coef_, atol=1e-4)


def test_the_gradient_at_the_head_is_zero(problem):
    """That of the loss and of the pull, written in loops."""
    Z, y, weight = problem
    start = np.random.default_rng(1).normal(size=(3, 4))
    arrays = [torch.from_numpy(a) for a in (Z, y, weight, start)]
    head = fit_head_near(*arrays, penalty=0.3).numpy()
    gradient = 0.6 * (head - start)
    for z, k, w in zip(Z, y, weight, strict=True):
        p = np.exp(head @ z) / np.exp(head @ z).sum()
        gradient += w * np.outer(p - np.eye(3)[k], z)
    assert np.abs(head - start).max() > 0.05
    assert np.abs(gradient).max() < 1e-5


def test_a_strong_pull_leaves_the_head_where_it_was(problem):
    Z, y, weight = problem
    start = torch.arange(12.0).reshape(3, 4).double()
    arrays = [torch.from_numpy(a) for a in (Z, y, weight)]
    assert_allclose(fit_head_near(*arrays, start, penalty=1e7), start, atol=1e-5)
