"""LfF's formulas by hand."""

import pytest
import torch
from numpy.testing import assert_allclose

from skspurious.functional._relative_difficulty import (
    generalised_cross_entropy,
    relative_difficulty,
)


@pytest.mark.parametrize("q", [0.3, 0.7, 1.0])
def test_gradient_of_gce_is_that_of_the_cross_entropy_times_p_to_the_q(q):
    p = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    losses = (-p.log()).requires_grad_()
    values = generalised_cross_entropy(losses, q)
    values.sum().backward()
    assert_allclose(values.detach(), (1 - p**q) / q)
    assert_allclose(losses.grad, p**q)


def test_gce_near_zero_is_the_cross_entropy():
    losses = torch.tensor([0.1, 2.0])
    assert_allclose(generalised_cross_entropy(losses, 1e-6), losses, rtol=1e-4)


def test_relative_difficulty_by_hand():
    # Class 0: b = 1, 1/4 and d = 1/2, 1: W = 2/3 and 1/5. Class 1, alone: b = d = 1: W = 1/2.
    biased, debiased = torch.tensor([8.0, 2.0, 7.0]), torch.tensor([3.0, 6.0, 1.0])
    y = torch.tensor([0, 0, 1])
    assert_allclose(relative_difficulty(biased, debiased, y, 2), [2 / 3, 1 / 5, 1 / 2], rtol=1e-6)


def test_only_ratios_inside_a_class_matter():
    biased, debiased, y = torch.rand(6) + 0.1, torch.rand(6) + 0.1, torch.tensor([0, 1] * 3)
    scale = torch.tensor([1.0, 50.0])[y]
    expected = relative_difficulty(biased, debiased, y, 2)
    assert_allclose(relative_difficulty(scale * biased, 3 * debiased, y, 2), expected, rtol=1e-5)
    assert_allclose(relative_difficulty(biased, debiased, 1 - y, 2), expected)
    assert_allclose(relative_difficulty(debiased, biased, y, 2), 1 - expected, rtol=1e-5)


def test_without_any_loss_it_is_one_half():
    none = torch.zeros(2)
    assert relative_difficulty(none, none, torch.tensor([0, 1]), 2).tolist() == [0.5, 0.5]
