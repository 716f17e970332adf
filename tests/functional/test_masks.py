"""Masks over weights: probabilities, gradients, thresholds and the penalty."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skspurious.functional._masks import hard_mask, mask_penalty, sample_mask

fidelity = pytest.mark.fidelity


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --------------------------------------------------------------------------------------
# By hand


@fidelity
def test_hard_mask_keeps_the_boundary():
    logits = torch.tensor([[-1.0, -1e-12, 0.0], [1e-12, 2.0, -0.0]])
    assert hard_mask(logits).tolist() == [[False, False, True], [True, True, True]]


def test_min_density_keeps_the_largest_logits_and_no_more():
    logits = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]])
    assert hard_mask(logits).sum() == 0
    assert hard_mask(logits, min_density=1e-9).tolist() == [[False, False], [False, True]]
    assert hard_mask(logits, min_density=0.5).tolist() == [[True, False], [False, True]]
    assert hard_mask(logits, min_density=0.51).sum() == 3
    assert hard_mask(torch.full((100,), -1.0), min_density=0.07).sum() == 7  # ties too
    enough = hard_mask(torch.tensor([1.0, 1.0, -1.0]), min_density=0.1)
    assert enough.tolist() == [True, True, False]


def test_penalties_by_hand():
    layers = [torch.tensor([0.0, math.log(3)]), torch.tensor([[-math.log(3)]])]
    # sigmoids 0.5, 0.75 and 0.25: their mean over 3 weights, not the mean of layer means
    assert_allclose(mask_penalty(layers), 0.5, rtol=1e-6)
    assert_allclose(mask_penalty([layers[0]]), 0.625, rtol=1e-6)
    assert_allclose(mask_penalty(layers, penalty="logit_sum"), 0.0, atol=1e-6)
    assert_allclose(mask_penalty([layers[0]], penalty="logit_sum"), math.log(3), rtol=1e-6)


@pytest.mark.parametrize("penalty", ["density", "logit_sum"])
def test_penalties_push_every_logit_down(penalty):
    logits = torch.tensor([-1.0, 0.0, 3.0], requires_grad=True)
    mask_penalty([logits], penalty=penalty).backward()
    assert (logits.grad > 0).all()
    if penalty == "logit_sum":
        assert logits.grad.tolist() == [1.0, 1.0, 1.0]


# --------------------------------------------------------------------------------------
# Random masks


@fidelity
@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("logit", [0.0, 0.182426, 0.5, 0.817574, 1.0]),
        # sigma(sigma(0)) = sigma(0.5) = 0.622459; sigma(sigma(1.5)) = sigma(0.817574) = 0.693721:
        # the smallest is 0.5 and the largest sigma(1) = 0.731059
        ("double_sigmoid", [0.5, 0.545480, 0.622459, 0.693721, 0.731059]),
    ],
)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_sampled_mask_is_binary_and_keeps_with_its_probability(gate, expected, temperature):
    logits = torch.tensor([-20.0, -1.5, 0.0, 1.5, 20.0]).repeat(4000, 1)
    uniform = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
    mask = sample_mask(logits, uniform, gate=gate, temperature=temperature)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert_allclose(mask.mean(0), expected, atol=4 * 0.5 / math.sqrt(4000))


@pytest.mark.parametrize("gate", ["logit", "double_sigmoid"])
def test_the_gradient_is_that_of_the_soft_mask(gate):
    logits = torch.tensor([-1.0, 0.3, 1.5], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([0.2, 0.9, 0.6], dtype=torch.float64)
    weight = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    (weight * sample_mask(logits, u, gate=gate, temperature=0.7)).sum().backward()

    def soft(pi):
        gated = _sigmoid(pi) if gate == "double_sigmoid" else pi
        return _sigmoid((gated + np.log(u.numpy() / (1 - u.numpy()))) / 0.7)

    pi, h = logits.detach().numpy(), 1e-6
    expected = weight.numpy() * (soft(pi + h) - soft(pi - h)) / (2 * h)
    assert_allclose(logits.grad, expected, rtol=1e-6)


def test_draws_of_zero_and_one_stay_finite():
    logits = torch.zeros(2, requires_grad=True)
    mask = sample_mask(logits, torch.tensor([0.0, 1.0]))
    assert mask.tolist() == [0.0, 1.0]
    mask.sum().backward()
    assert logits.grad.isfinite().all()


# --------------------------------------------------------------------------------------
# How many steps it takes to prune


@fidelity
def test_adam_needs_150_steps_of_the_sparsity_term_to_prune_anything():
    logits = torch.nn.Parameter(torch.full((50,), 1.5))
    optimizer = torch.optim.Adam([logits], lr=1e-2)
    for step in range(1, 320):
        optimizer.zero_grad()
        (1e-8 * mask_penalty([logits], penalty="logit_sum")).backward()
        optimizer.step()
        # eps is as large as the gradient, 1e-8: half a step at a time
        if step == 149:
            assert_allclose(logits.detach(), 1.5 - 149 * 0.005, atol=1e-3)
        if step == 299:
            assert hard_mask(logits).all()
        if step == 302:
            assert not hard_mask(logits).any()
    strong = torch.nn.Parameter(torch.full((50,), 1.5))
    optimizer = torch.optim.Adam([strong], lr=1e-2)
    for step in range(1, 153):
        optimizer.zero_grad()
        (5e-6 * mask_penalty([strong], penalty="logit_sum")).backward()
        optimizer.step()
        if step == 149:
            assert hard_mask(strong).all()
    assert not hard_mask(strong).any()


def test_adam_moves_logits_under_the_density_penalty_of_a_large_network():
    """The gradient of one logit is 1e-8 of what it is for one weight: eps must be smaller."""
    moved = {}
    for eps in (1e-8, 1e-12):
        logits = torch.nn.Parameter(torch.full((10,), 1.5))
        optimizer = torch.optim.Adam([logits], lr=1e-2, eps=eps)
        for _ in range(10):
            optimizer.zero_grad()
            (1e-8 * mask_penalty([logits])).backward()
            optimizer.step()
        moved[eps] = float(1.5 - logits.detach()[0])
    assert moved[1e-12] == pytest.approx(0.1, rel=0.02)
    assert moved[1e-8] < 0.02


# --------------------------------------------------------------------------------------
# Errors


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="gate must be"):
        sample_mask(torch.zeros(1), torch.zeros(1), gate="hard")
    with pytest.raises(ValueError, match="penalty must be"):
        mask_penalty([torch.zeros(1)], penalty="l1")
