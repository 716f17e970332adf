"""A temperature for logits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from skspurious.functional._calibration import fit_temperature


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_temperature_that_made_the_labels_is_found(n_classes, temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3.0, size=(20_000, n_classes))
    probability = softmax(logits, axis=1)
    label = (rng.random((20_000, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    found = fit_temperature(logits * temperature, np.minimum(label, n_classes - 1))
    assert_allclose(found, temperature, rtol=0.05)


def test_it_is_the_minimum_of_the_smoothed_loss():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    target = np.empty((40, 3))
    for i, k in enumerate(label):
        n = (label == k).sum()
        target[i] = 1 / (n + 3)
        target[i, k] = (n + 1) / (n + 3)

    def loss(t):
        return -(target * log_softmax(logits / np.exp(t[0]), axis=1)).sum()

    expected = np.exp(minimize(loss, [0.0], bounds=[(-5, 5)]).x[0])
    assert_allclose(fit_temperature(logits, label), expected, rtol=1e-3)


def test_a_few_that_are_all_right_make_nobody_sure():
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert softmax(logits / fit_temperature(logits, np.array([0, 1])), axis=1).max() < 0.7
    wrong = fit_temperature(logits[::-1], np.array([0, 1]))
    assert_allclose(softmax(logits / wrong, axis=1).max(), 0.5, atol=0.02)
