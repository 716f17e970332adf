"""Losses per group, and the group weights of GroupDRO."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from skspurious.functional._group_loss import (
    adjusted_group_loss,
    cvar_group_weights,
    group_coefficients,
    group_mean_losses,
    group_sums,
    update_group_weights,
)

pytestmark = pytest.mark.fidelity

UNIFORM = torch.full((3,), -math.log(3.0))


def _batch(seed=0, n=40, n_groups=5, absent=3):
    """Losses, groups (one of them absent), sample weights and group weights."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, n_groups - 1, size=n)
    group[group == absent] = n_groups - 1
    q = rng.dirichlet(np.ones(n_groups))
    values = rng.exponential(size=n), group, rng.uniform(0.1, 2, size=n), q
    return [torch.from_numpy(v) for v in values]


# --------------------------------------------------------------------------------------
# Sums and means


def test_group_sums_and_means_by_hand():
    values, group = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2])
    sums = group_sums(values, group, 4)
    counts = group_sums(torch.ones(3), group, 4)
    assert sums.tolist() == [2.0, 0.0, 5.0, 0.0]
    assert counts.tolist() == [1.0, 0.0, 2.0, 0.0]
    assert group_mean_losses(sums, counts).tolist() == [2.0, 0.0, 2.5, 0.0]


def test_group_means_of_weights_below_one_are_not_shrunk():
    # Weights 0.25 and 0.25 of losses 1 and 3: the mean is 2, not (0.25 + 0.75) / 1.
    assert group_mean_losses(torch.tensor([1.0]), torch.tensor([0.5])).item() == 2.0


def test_group_sums_equal_one_hot_and_loop():
    losses, group, _, _ = _batch()
    one_hot = torch.nn.functional.one_hot(group, 5).double().T @ losses
    loop = [sum(x for x, g in zip(losses.tolist(), group.tolist()) if g == k) for k in range(5)]
    assert_allclose(group_sums(losses, group, 5), one_hot, rtol=1e-12)
    assert_allclose(group_sums(losses, group, 5), loop, rtol=1e-12)


# --------------------------------------------------------------------------------------
# Adjustment


def test_adjustment_by_hand_on_waterbirds():
    # C = 2 and the training sizes of Waterbirds: 2 / sqrt(n).
    size = torch.tensor([3498.0, 184.0, 56.0, 1057.0])
    adjusted = adjusted_group_loss(torch.zeros(4), size, torch.full((4,), 2.0))
    assert_allclose(adjusted, [0.034, 0.147, 0.267, 0.062], atol=5e-4)


def test_adjustment_of_one_group_does_not_depend_on_the_sign_of_another():
    size = torch.tensor([4.0, 16.0, 25.0])
    loss = torch.tensor([1.0, 1.0, 1.0])
    adjusted = adjusted_group_loss(loss, size, torch.tensor([2.0, 0.0, -5.0]))
    assert_allclose(adjusted, [2.0, 1.0, 0.0])
    assert loss.tolist() == [1.0, 1.0, 1.0]  # not changed in place


def test_a_group_of_one_sample_has_the_whole_adjustment():
    adjusted = adjusted_group_loss(torch.zeros(2), torch.tensor([1.0, 4.0]), torch.full((2,), 3.0))
    assert_allclose(adjusted, [3.0, 1.5])


def test_adjustment_of_a_group_that_never_occurs_is_zero():
    adjusted = adjusted_group_loss(torch.zeros(2), torch.tensor([4.0, 0.0]), torch.ones(2))
    assert adjusted.tolist() == [0.5, 0.0]


# --------------------------------------------------------------------------------------
# Group weights


def _reference_update(q, adjusted, step_size):
    """In probability space, group by group."""
    new = [math.exp(step_size * a) * p for p, a in zip(q, adjusted)]
    return [p / sum(new) for p in new]


def test_update_by_hand():
    # exp(0.5 * 2 ln 2) = 2: weights 1 : 2 : 1.
    new = update_group_weights(UNIFORM, torch.tensor([0.0, 2 * math.log(2), 0.0]), 0.5).exp()
    assert_allclose(new, [0.25, 0.5, 0.25], rtol=1e-6)


def test_log_space_equals_probability_space_on_short_runs():
    rng = np.random.default_rng(0)
    log_q, q = UNIFORM.double(), [1 / 3] * 3
    for _ in range(200):
        loss = rng.exponential(size=3)
        log_q = update_group_weights(log_q, torch.from_numpy(loss), 0.05)
        q = _reference_update(q, loss, 0.05)
    assert_allclose(log_q.exp(), q, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, -1e4])
def test_weights_stay_a_distribution_whatever_the_losses(scale):
    rng = np.random.default_rng(0)
    log_q = UNIFORM
    for _ in range(50):
        loss = torch.from_numpy(scale * rng.exponential(size=3)).float()
        log_q = update_group_weights(log_q, loss, 0.7)
        q = log_q.exp()
        assert not log_q.isnan().any()
        assert (q >= 0).all()
        assert_allclose(q.sum(), 1.0, rtol=1e-5)


def test_weights_under_constant_losses_have_the_closed_form():
    loss, step_size, n_steps = torch.tensor([0.3, 1.1, 0.7]).double(), 0.02, 150
    log_q = UNIFORM.double()
    for _ in range(n_steps):
        log_q = update_group_weights(log_q, loss, step_size)
    expected = torch.exp(step_size * n_steps * loss)
    assert_allclose(log_q.exp(), expected / expected.sum(), rtol=1e-9)


def test_weights_ignore_a_constant_added_to_all_losses():
    loss = torch.tensor([0.3, 1.1, 0.7])
    log_q = update_group_weights(UNIFORM, loss, 0.5)
    assert_allclose(update_group_weights(UNIFORM, loss + 9, 0.5), log_q, rtol=1e-5)


def test_weights_follow_a_renaming_of_the_groups():
    order = torch.tensor([2, 0, 1])
    log_q, loss = torch.tensor([0.2, 0.5, 0.3]).log(), torch.tensor([0.3, 1.1, 0.7])
    renamed = update_group_weights(log_q[order], loss[order], 0.5)
    assert_allclose(renamed, update_group_weights(log_q, loss, 0.5)[order], rtol=1e-6)


def test_larger_loss_gets_the_larger_weight():
    q = update_group_weights(UNIFORM, torch.tensor([0.1, 0.3, 0.2]), 0.01).exp()
    assert q[1] > q[2] > q[0]


def test_step_size_zero_keeps_the_weights():
    log_q = torch.tensor([0.2, 0.5, 0.3]).log()
    assert_allclose(update_group_weights(log_q, torch.tensor([9.0, 0.0, 1.0]), 0.0), log_q)


def test_weight_zero_stays_zero():
    log_q = torch.tensor([math.log(0.5), -math.inf, math.log(0.5)])
    q = update_group_weights(log_q, torch.tensor([1.0, 0.0, 1.0]), 0.5).exp()
    assert_allclose(q, [0.5, 0.0, 0.5])


def test_lagging_group_comes_back_where_a_probability_would_have_underflowed():
    # A loss gap of 1 for 1e5 steps of 0.01, then the reversed gap for as long. Constant losses
    # only add up (the closed form above), so 100 steps of 10 have the same exponents.
    gap, step_size, n_steps = torch.tensor([1.0, 0.0]), 10.0, 100
    log_q, q = torch.full((2,), -math.log(2)), torch.full((2,), 0.5)
    for loss in [gap] * n_steps + [gap.flip(0)] * n_steps:
        log_q = update_group_weights(log_q, loss, step_size)
        # Probability space, without overflow: the largest exponent is 0.
        q = q * torch.exp(step_size * (loss - loss.max()))
        q = q / q.sum()
    assert_allclose(log_q.exp(), [0.5, 0.5], atol=1e-3)
    assert q.tolist() == [1.0, 0.0]


# --------------------------------------------------------------------------------------
# Conditional value at risk


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_cvar_weights_are_the_worst_that_their_bounds_allow(alpha, seed):
    """The maximum of sum_g q_g A_g over distributions with q_g <= share_g / alpha."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 100, size=7).astype(float)
    size[3] = 0.0  # never occurs
    loss = rng.normal(size=7)
    q = cvar_group_weights(torch.from_numpy(loss), torch.from_numpy(size), alpha).numpy()
    bounds = [(0, share / alpha) for share in size / size.sum()]
    best = linprog(-loss, A_eq=np.ones((1, 7)), b_eq=[1.0], bounds=bounds)
    assert_allclose(q @ loss, -best.fun, rtol=1e-9)
    assert_allclose(q, best.x, atol=1e-9)
    assert q[3] == 0


def test_cvar_of_everything_is_the_share_of_each_group():
    loss, size = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 6.0, 3.0])
    assert_allclose(cvar_group_weights(loss, size, alpha=1.0), [0.1, 0.6, 0.3], rtol=1e-6)
    q = cvar_group_weights(loss, size, alpha=0.1)
    assert_allclose(q, [1, 0, 0], atol=1e-7)


# --------------------------------------------------------------------------------------
# The loss that the network descends


def test_weighted_loss_equals_sum_of_weighted_group_losses():
    losses, group, weight, q = _batch()
    counts = group_sums(weight, group, 5)
    loss = (group_coefficients(group, weight, q, counts) * losses).sum()
    group_loss = group_mean_losses(group_sums(weight * losses, group, 5), counts)
    assert_allclose(loss, (q * group_loss).sum(), rtol=1e-12)
    by_loop = 0.0
    for g in group.unique():
        own = group == g
        by_loop += q[g] * (weight[own] * losses[own]).sum() / weight[own].sum()
    assert_allclose(loss, by_loop, rtol=1e-12)


def test_coefficients_of_a_group_sum_to_its_weight():
    _, group, weight, q = _batch()
    counts = group_sums(weight, group, 5)
    total = group_sums(group_coefficients(group, weight, q, counts), group, 5)
    assert_allclose(total[counts > 0], q[counts > 0], rtol=1e-12)
    equal = group_coefficients(group, torch.ones_like(weight), q, group_sums(weight**0, group, 5))
    for g in group.unique():
        assert_allclose(equal[group == g], q[g] / (group == g).sum(), rtol=1e-12)


def test_a_group_whose_weights_are_zero_counts_nothing():
    group, weight = torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.0, 0.0])
    counts = group_sums(weight, group, 2)
    coefficients = group_coefficients(group, weight, torch.tensor([0.5, 0.5]), counts)
    assert coefficients.tolist() == [0.5, 0.0, 0.0]
