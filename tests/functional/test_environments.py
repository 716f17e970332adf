"""EIIL's penalty against autograd, and the environments with the largest one against a search."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as F

from skspurious.functional._environments import environment_penalty, scale_gradients

pytestmark = pytest.mark.fidelity


def make_logits(n_samples=10, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=2.0, size=(n_samples, n_classes)), rng.integers(
        n_classes, size=n_samples
    )


def reference_penalty(logits, y, q):
    """IRMv1's penalty of soft environments, by autograd: a tensor that has a gradient by q."""
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = F.cross_entropy(w * torch.from_numpy(logits), torch.from_numpy(y), reduction="none")
    risks = ((q * losses).mean(), ((1 - q) * losses).mean())
    return sum(torch.autograd.grad(risk, w, create_graph=True)[0] ** 2 for risk in risks)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_derivatives_and_penalty_equal_autograd(n_classes):
    logits, y = make_logits(n_classes=n_classes)
    gradient = scale_gradients(logits, y)
    for i in range(10):
        w = torch.ones((), dtype=torch.float64, requires_grad=True)
        loss = F.cross_entropy(w * torch.from_numpy(logits[i : i + 1]), torch.tensor([y[i]]))
        assert gradient[i] == pytest.approx(torch.autograd.grad(loss, w)[0].item())
    q = np.random.default_rng(1).random(10)
    expected = reference_penalty(logits, y, torch.from_numpy(q)).item()
    assert environment_penalty(gradient, q) == pytest.approx(expected)


def test_signs_are_the_best_of_all_assignments():
    logits, y = make_logits()
    gradient = scale_gradients(logits, y)
    every = [
        environment_penalty(gradient, np.array(q)) for q in itertools.product((0, 1), repeat=10)
    ]
    assert environment_penalty(gradient, gradient > 0) == pytest.approx(max(every))
    soft = np.random.default_rng(0).random((500, 10))
    assert max(environment_penalty(gradient, q) for q in soft) < max(every)


def test_the_climb_of_the_paper_ends_at_the_signs():
    logits, y = make_logits(40)
    score = torch.from_numpy(np.random.default_rng(0).normal(size=40)).requires_grad_()
    adam = torch.optim.Adam([score], lr=0.05)
    for _ in range(400):
        adam.zero_grad()
        (-reference_penalty(logits, y, score.sigmoid())).backward()
        adam.step()
    gradient = scale_gradients(logits, y)
    first = score.detach().numpy() > 0
    if (first == (gradient > 0)).mean() < 0.5:  # which environment is the first is open
        first = ~first
    assert_array_equal(first, gradient > 0)


def test_large_logits_stay_finite():
    logits = np.array([[1e4, 0.0], [1e4, 0.0]])
    assert_allclose(scale_gradients(logits, np.array([0, 1])), [0.0, 1e4])
