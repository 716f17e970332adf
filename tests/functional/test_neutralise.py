"""The formulas of NSF: centers, the map and its gradient, the head, the fold."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import planted_shortcut
from torch.nn import functional as F

from skspurious.functional import class_means, find_dispersed, fold_neutral_map, neutralise
from skspurious.functional._elimination import EPS, _gradient, _prepare, fit_elimination
from skspurious.functional._neutral_centers import find_rescued, neutral_centers
from skspurious.functional._neutral_head import fit_balanced_head, part_weights

fidelity = pytest.mark.fidelity


@pytest.fixture
def problem():
    """Five classes in six dimensions, far from the origin, with a map that is not the identity."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 5
    X = rng.normal(size=(60, 6)) + 20.0 + rng.normal(size=(5, 6))[y]
    centers = rng.normal(size=(5, 6)) + 20.0
    scale, shift = rng.uniform(0.2, 1.2, 6), rng.normal(size=6)
    return [torch.from_numpy(a) for a in (X, y, centers, scale, shift)]


def elimination_loss(X, y, centers, scale, shift, *, reg_weight=10.0, sample_weight=None):
    """The loss of the map, as autograd can follow it."""
    distance = torch.linalg.vector_norm(neutralise(X, scale, shift) - centers[y] + EPS, dim=1)
    weight = torch.ones_like(distance) if sample_weight is None else sample_weight
    return (weight * distance).sum() / weight.sum() + reg_weight * scale.mean()


def elimination_gradient(X, y, centers, scale, shift, *, reg_weight=10.0, sample_weight=None):
    """Value and gradient that the steps of fit_elimination take."""
    rows = _prepare(X, y, len(centers), sample_weight)
    return _gradient(rows, centers, scale, shift, reg_weight)


# --------------------------------------------------------------------------------------
# Neutralise


@fidelity
def test_neutral_center_is_the_unweighted_midpoint_by_hand():
    # class 0: inliers 0, 1, 2 (mean 1), outlier 9: (1 + 9) / 2; class 1 has no outlier: its mean
    X = np.array([[0.0], [1.0], [2.0], [9.0], [4.0], [6.0]])
    y, outlier = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 0, 0], dtype=bool)
    assert_array_equal(neutral_centers(X, y, outlier), [[5.0], [5.0]])


@fidelity
def test_class_means_are_the_means_of_inliers_and_outliers_by_size_and_centers_are_not():
    X, y, _ = planted_shortcut(0.8, 1.5, noise=0.4)
    outlier, means = find_dispersed(X, y)
    centers = neutral_centers(X, y, outlier)
    for k in (0, 1):
        inside, outside = X[(y == k) & ~outlier], X[(y == k) & outlier]
        assert len(outside) > 5
        n_in, n_out = len(inside), len(outside)
        assert_allclose(
            (n_in * inside.mean(0) + n_out * outside.mean(0)) / (n_in + n_out), means[k]
        )
        assert_allclose(centers[k], (inside.mean(0) + outside.mean(0)) / 2, atol=1e-12)
        assert np.abs(centers[k] - means[k]).max() > 0.1


@fidelity
def test_centers_without_outliers_are_the_class_means():
    X, y, _ = planted_shortcut(0.5, 3.0)
    outlier, means = find_dispersed(X, y)
    assert not outlier.any()
    assert_allclose(neutral_centers(X, y, outlier), means, atol=1e-12)


@fidelity
def test_duplicating_the_inliers_moves_no_center():
    X, y, _ = planted_shortcut(0.8, 2.0, noise=0.3)
    outlier, means = find_dispersed(X, y)
    twice = np.concatenate([np.arange(len(y)), np.flatnonzero(~outlier)])
    before = neutral_centers(X, y, outlier)
    assert_allclose(neutral_centers(X[twice], y[twice], outlier[twice]), before, atol=1e-12)
    assert np.abs(class_means(X[twice], y[twice]) - means).max() > 0.1


@fidelity
@pytest.mark.parametrize(("rho", "s"), [(0.7, 2.0), (0.95, 2.0), (0.9, 1.2)])
def test_centers_have_no_spurious_component_and_class_means_do(rho, s):
    X, y, conflicting = planted_shortcut(rho, s, noise=0.03)
    outlier, means = find_dispersed(X, y)
    assert outlier[conflicting].mean() > 0.98
    assert outlier[~conflicting].mean() < 0.01
    centers = neutral_centers(X, y, outlier)
    assert_allclose(centers, [[-1.0, 0.0], [1.0, 0.0]], atol=0.05)
    assert_allclose(means[:, 1], [-(2 * rho - 1) * s, (2 * rho - 1) * s], atol=0.05)


@fidelity
def test_centers_move_with_translations_rotations_and_permutations():
    X, y, _ = planted_shortcut(0.8, 2.0, n_samples=400, noise=0.3)
    X = np.concatenate([X, np.random.default_rng(0).normal(size=(400, 3))], axis=1)

    def centers_of(X, y):
        return neutral_centers(X, y, find_dispersed(X, y)[0])

    centers = centers_of(X, y)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert_allclose(centers_of(X + 7.0, y), centers + 7.0)
    assert_allclose(centers_of(X @ rotation, y), centers @ rotation, atol=1e-12)
    assert_allclose(centers_of(X, 1 - y), centers[::-1])
    assert_allclose(centers_of(X[:, [3, 1, 0, 4, 2]], y), centers[:, [3, 1, 0, 4, 2]])


def test_a_class_of_outliers_alone_and_one_of_no_weight():
    X, y = np.array([[0.0], [2.0], [9.0], [5.0], [7.0]]), np.array([0, 0, 0, 1, 1])
    outlier = np.array([False, False, True, True, True])
    assert_array_equal(neutral_centers(X, y, outlier), [[5.0], [6.0]])  # (1 + 9) / 2
    with pytest.raises(ValueError, match="no sample of positive weight in class 1"):
        neutral_centers(X, y, outlier, sample_weight=np.array([1.0, 1.0, 1.0, 0.0, 0.0]))


def test_weights_of_means_and_centers_are_repetitions():
    rng = np.random.default_rng(0)
    X, y, outlier = rng.normal(size=(40, 3)), np.arange(40) % 2, rng.random(40) < 0.3
    weight = rng.integers(0, 4, 40).astype(float)
    rows = np.repeat(np.arange(40), weight.astype(int))
    assert_allclose(class_means(X, y, sample_weight=weight), class_means(X[rows], y[rows]))
    assert_allclose(
        neutral_centers(X, y, outlier, sample_weight=weight),
        neutral_centers(X[rows], y[rows], outlier[rows]),
    )
    # an outlier of weight 0 is none
    weight[outlier & (y == 0)] = 0.0
    centers = neutral_centers(X, y, outlier, sample_weight=weight)
    assert_allclose(centers[0], np.average(X[y == 0], axis=0, weights=weight[y == 0]))
    with pytest.raises(ValueError, match="no positive weight in class 1"):
        class_means(X, y, sample_weight=np.where(y == 1, 0.0, 1.0))


# --------------------------------------------------------------------------------------
# Eliminate


@fidelity
def test_elimination_loss_by_hand():
    # T(f) = (f + 1) * [2, .5] - 1 = [3, 1] for f = [1, 3]; the center [0, 5]: residual [3, -4]
    X, y = torch.tensor([[1.0, 3.0]], dtype=torch.float64), torch.tensor([0])
    scale, shift = torch.tensor([2.0, 0.5]).double(), torch.ones(2).double()
    center = torch.tensor([[0.0, 5.0]]).double()
    assert_allclose(neutralise(X, scale, shift), [[3.0, 1.0]])
    loss = elimination_loss(X, y, center, scale, shift, reg_weight=4.0)
    assert float(loss) == pytest.approx(5.0 + 4.0 * 1.25, abs=1e-5)
    # a norm, not a square; the regulariser is the mean of the scales, not of |scale|
    negative = elimination_loss(X, y, center, -scale, shift, reg_weight=4.0)
    r = np.array([[1.0, 3.0]]) + 1
    r = r * [-2.0, -0.5] - 1 - [0.0, 5.0]
    assert float(negative) == pytest.approx(np.linalg.norm(r) - 5.0, abs=1e-5)


def _reference_gradient(X, y, centers, scale, shift, reg_weight):
    """The card's formulas, sample by sample."""
    n, d = X.shape
    on_scale, on_shift = np.full(d, reg_weight / d), np.zeros(d)
    for i in range(n):
        r = (X[i] + shift) * scale - shift - centers[y[i]] + 1e-6
        norm = np.sqrt((r**2).sum())
        for j in range(d):
            on_scale[j] += r[j] * (X[i, j] + shift[j]) / norm / n
            on_shift[j] += r[j] * (scale[j] - 1) / norm / n
    return on_scale, on_shift


@fidelity
def test_gradient_is_that_of_the_formulas_of_autograd_and_of_finite_differences(problem):
    X, y, centers, scale, shift = problem
    loss, on_scale, on_shift = elimination_gradient(X, y, centers, scale, shift, reg_weight=3.0)
    reference = _reference_gradient(*[a.numpy() for a in problem], reg_weight=3.0)
    assert_allclose(on_scale, reference[0], rtol=1e-9, atol=1e-12)
    assert_allclose(on_shift, reference[1], rtol=1e-9, atol=1e-12)
    leaves = [scale.clone().requires_grad_(), shift.clone().requires_grad_()]
    value = elimination_loss(X, y, centers, *leaves, reg_weight=3.0)
    value.backward()
    assert_allclose(loss, value.detach(), rtol=1e-12)
    assert_allclose(on_scale, leaves[0].grad, rtol=1e-9, atol=1e-12)
    assert_allclose(on_shift, leaves[1].grad, rtol=1e-9, atol=1e-12)
    step = 1e-6
    for j in range(6):
        for k, gradient in enumerate((on_scale, on_shift)):
            values = []
            for sign in (1, -1):
                moved = [scale.clone(), shift.clone()]
                moved[k][j] += sign * step
                values.append(float(elimination_loss(X, y, centers, *moved, reg_weight=3.0)))
            assert float(gradient[j]) == pytest.approx((values[0] - values[1]) / 2 / step, abs=1e-7)


def test_gradient_with_weights_is_that_of_repeated_samples(problem):
    X, y, centers, scale, shift = problem
    weight = torch.from_numpy(np.random.default_rng(1).integers(0, 4, len(y))).double()
    rows = torch.repeat_interleave(torch.arange(len(y)), weight.long())
    weighted = elimination_gradient(X, y, centers, scale, shift, sample_weight=weight)
    repeated = elimination_gradient(X[rows], y[rows], centers, scale, shift)
    for one, other in zip(weighted, repeated, strict=True):
        assert_allclose(one, other, rtol=1e-9)
    loss = elimination_loss(X, y, centers, scale, shift, sample_weight=weight)
    assert_allclose(loss, weighted[0], rtol=1e-12)


def test_gradient_in_float32_is_close_to_that_in_float64_also_far_from_the_origin(problem):
    X, y, centers, scale, shift = problem
    exact = elimination_gradient(X + 1000.0, y, centers + 1000.0, scale, shift)
    narrow = elimination_gradient((X + 1000.0).float(), y, centers + 1000.0, scale, shift)
    for one, other in zip(narrow, exact, strict=True):
        assert one.dtype == torch.float64  # the map is as exact as the centers
        assert_allclose(one, other, rtol=1e-3)


def test_gradient_is_finite_where_a_sample_lies_on_its_center():
    X, y = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]]), torch.tensor([0, 0, 1])
    centers = torch.tensor([[1.0, 2.0], [3.0, 1.0]]).double()
    one, zero = torch.ones(2).double(), torch.zeros(2).double()
    for result in elimination_gradient(X, y, centers, one, zero):
        assert result.isfinite().all()
    scale, shift, losses = fit_elimination(X, y, centers, n_steps=50)
    assert scale.isfinite().all()
    assert shift.isfinite().all()
    assert losses.isfinite().all()


@fidelity
def test_no_step_is_the_identity_exactly(problem):
    X, y, centers, _, _ = problem
    scale, shift, losses = fit_elimination(X.float(), y, centers, n_steps=0)
    assert torch.equal(scale, torch.ones(6).double())
    assert torch.equal(shift, torch.zeros(6).double())
    assert len(losses) == 0
    assert torch.equal(neutralise(X, scale, shift), X)


@fidelity
def test_the_first_step_moves_each_scale_by_lr_against_its_gradient_and_no_shift(problem):
    X, y, centers, _, _ = problem
    one, zero = torch.ones(6).double(), torch.zeros(6).double()
    gradient = elimination_gradient(X, y, centers, one, zero)[1]
    assert (gradient > 0).any()
    assert gradient.abs().min() > 0.01
    scale, shift, _ = fit_elimination(X, y, centers, n_steps=1, lr=1e-3)
    assert torch.equal(shift, zero)
    assert_allclose(scale - 1, -1e-3 * gradient.sign(), rtol=2e-6)


@fidelity
def test_scales_move_by_about_lr_a_step_and_the_loss_falls():
    X, y, _ = planted_shortcut(0.9, 2.0, noise=0.3)
    centers = torch.from_numpy(neutral_centers(X, y, find_dispersed(X, y)[0]))
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    scale, shift, losses = fit_elimination(X, y, centers, n_steps=200)
    assert losses[0] == pytest.approx(
        float(elimination_loss(X, y, centers, torch.ones(2).double(), torch.zeros(2).double()))
    )
    assert float(elimination_loss(X, y, centers, scale, shift)) < float(losses[0]) - 0.3
    assert 0.1 < float((scale - 1).abs().max()) <= 1.05 * 200 * 1e-3


@fidelity
def test_elimination_shrinks_the_spurious_feature_and_keeps_the_core():
    X, y, _ = planted_shortcut(0.95, 3.0, noise=0.3)
    centers = torch.from_numpy(neutral_centers(X, y, find_dispersed(X, y)[0]))
    args = torch.from_numpy(X), torch.from_numpy(y), centers
    # the regulariser alone would draw both scales alike; without it the core stays
    scale, _, _ = fit_elimination(*args, n_steps=1000, reg_weight=0.0)
    assert abs(float(scale[1])) < 0.15
    assert float(scale[0]) > 0.7


def test_elimination_permutes_with_the_features_and_does_not_rotate():
    X, y, _ = planted_shortcut(0.9, 2.0, noise=0.3, n_samples=300)
    X = np.concatenate([X, np.random.default_rng(0).normal(size=(300, 2))], axis=1)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    order = [2, 0, 3, 1]

    def mapped(X, y):
        centers = torch.from_numpy(neutral_centers(X, y, find_dispersed(X, y)[0]))
        args = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(y)
        scale, shift, _ = fit_elimination(*args, centers, n_steps=50)
        return scale.numpy(), neutralise(X, scale.numpy(), shift.numpy())

    scale, Z = mapped(X, y)
    assert_allclose(mapped(X[:, order], y)[0], scale[order], rtol=1e-6)
    assert_allclose(mapped(X, 1 - y)[0], scale, rtol=1e-6)
    # float64: where it did rotate, 1e-12 would be left
    assert np.abs(mapped(X @ rotation, y)[1] - Z @ rotation).max() > 1e-5
    assert np.abs(mapped(X + 5.0, y)[1] - Z - 5.0).max() > 1e-5  # the shift starts at 0


def test_scales_become_negative_under_a_strong_regulariser():
    X, y, _ = planted_shortcut(0.9, 2.0, n_samples=200)
    centers = torch.from_numpy(neutral_centers(X, y, find_dispersed(X, y)[0]))
    args = torch.from_numpy(X), torch.from_numpy(y), centers
    assert fit_elimination(*args, n_steps=80, lr=0.05, reg_weight=50.0)[0].min() < 0


def test_batches_come_close_to_the_full_batch_and_follow_the_generator():
    X, y, _ = planted_shortcut(0.9, 2.0, noise=0.3)
    centers = torch.from_numpy(neutral_centers(X, y, find_dispersed(X, y)[0]))
    args = torch.from_numpy(X), torch.from_numpy(y), centers

    def run(batch_size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return fit_elimination(*args, n_steps=200, batch_size=batch_size, generator=generator)[0]

    assert torch.equal(run(None), run(len(y)))
    assert_allclose(run(500), run(None), atol=0.02)
    assert torch.equal(run(500), run(500))
    assert not torch.equal(run(500), run(500, seed=1))


# --------------------------------------------------------------------------------------
# Update


@fidelity
@pytest.mark.parametrize("chunk_size", [1, 3, 4096])
def test_rescued_are_outliers_whose_nearest_neutral_center_is_their_own_once_mapped(chunk_size):
    X, y, _ = planted_shortcut(0.8, 1.5, noise=0.9, n_samples=300)
    outlier, _ = find_dispersed(X, y)
    centers = neutral_centers(X, y, outlier)
    scale, shift = np.array([1.0, 0.3]), np.array([0.2, -0.4])
    rescued = find_rescued(X, y, outlier, centers, scale, shift, chunk_size=chunk_size)
    for i in range(300):
        z = [(X[i, j] + shift[j]) * scale[j] - shift[j] for j in range(2)]
        distance = [np.hypot(*(z - centers[k])) for k in (0, 1)]
        assert rescued[i] == (outlier[i] and np.argmin(distance) == y[i])
    assert 0 < rescued.sum() < outlier.sum()  # the rest is dropped


@fidelity
def test_part_weights_by_hand():
    y = np.array([0, 0, 0, 1, 1, 0, 1])
    part = np.array([0, 0, 0, 0, 1, 1, -1])
    assert_allclose(part_weights(y, part), [0.25] * 4 + [0.5] * 2 + [0.0])
    # class 0: 3 easy share 1/2, 1 rescued has 1/2; class 1: 1 easy, 1 rescued
    expected = [1 / 6] * 3 + [0.5, 0.5, 0.5, 0.0]
    assert_allclose(part_weights(y, part, class_balanced=True), expected)
    # no rescued sample of class 1: its easy one carries the class
    part[4] = -1
    expected = [1 / 6] * 3 + [1.0, 0.0, 0.5, 0.0]
    assert_allclose(part_weights(y, part, class_balanced=True), expected)
    # proportions inside a part; a weight of 0 is no sample
    weight = np.array([2.0, 1.0, 0.0, 1.0, 5.0, 3.0, 1.0])
    expected = [0.5, 0.25, 0.0, 0.25, 0.0, 1.0, 0.0]
    assert_allclose(part_weights(y, part, sample_weight=weight), expected)
    assert not part_weights(y, np.full(7, -1)).any()
    # three classes share the weight 2 of two parts; the third is in both
    three = part_weights(np.array([0, 1, 2, 2, 2]), np.array([0, 1, 0, 0, 1]), class_balanced=True)
    assert_allclose(three, [2 / 3, 2 / 3, 1 / 6, 1 / 6, 1 / 3])
    three = part_weights(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 0, 1]), class_balanced=True)
    assert_allclose(three, [1 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3])


def make_head_data(n_easy, n_rescued, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = n_easy + n_rescued + 3
    Z = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (n,), generator=generator)
    part = np.repeat([0, 1, -1], [n_easy, n_rescued, 3])
    return Z, y, part


@fidelity
def test_head_sums_the_mean_losses_of_easy_and_rescued_samples():
    """Equally many of both: nothing is drawn, and a step is one of Adam on the whole."""
    Z, y, part = make_head_data(20, 20)
    weights = part_weights(y.numpy(), part)
    generator = torch.Generator().manual_seed(5)
    weight, bias, losses = fit_balanced_head(
        Z, y, part, weights, n_classes=3, n_steps=30, lr=0.01, generator=generator
    )
    generator = torch.Generator().manual_seed(5)
    A = torch.empty(3, 4, dtype=torch.float64).uniform_(-0.5, 0.5, generator=generator)
    a = torch.empty(3, dtype=torch.float64).uniform_(-0.5, 0.5, generator=generator)
    A.requires_grad_(), a.requires_grad_()
    optimizer = torch.optim.Adam([A, a], lr=0.01)
    for step in range(30):
        easy, rescued = (F.cross_entropy(Z[part == p] @ A.T + a, y[part == p]) for p in (0, 1))
        assert float(losses[step]) == pytest.approx(float((easy + rescued).detach()))
        optimizer.zero_grad()
        (easy + rescued).backward()
        optimizer.step()
    assert_allclose(weight, A.detach(), rtol=1e-9)
    assert_allclose(bias, a.detach(), rtol=1e-9)


@fidelity
@pytest.mark.parametrize(("n_easy", "n_rescued"), [(500, 10), (10, 500), (300, 1)])
def test_both_parts_contribute_equally_whatever_their_sizes(n_easy, n_rescued):
    """On average over draws, the loss at the start is the sum of the two mean losses."""
    Z, y, part = make_head_data(n_easy, n_rescued)
    losses = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        _, _, loss = fit_balanced_head(
            Z,
            y,
            part,
            part_weights(y.numpy(), part),
            n_classes=3,
            n_steps=1,
            start_at_zero=False,
            generator=generator,
        )
        generator = torch.Generator().manual_seed(seed)
        A = torch.empty(3, 4, dtype=torch.float64).uniform_(-0.5, 0.5, generator=generator)
        a = torch.empty(3, dtype=torch.float64).uniform_(-0.5, 0.5, generator=generator)
        exact = sum(F.cross_entropy(Z[part == p] @ A.T + a, y[part == p]) for p in (0, 1))
        losses.append(float(loss[0] - exact))
    error = np.std(losses) / np.sqrt(len(losses))
    assert error > 0
    assert abs(np.mean(losses)) < 4 * error


@fidelity
def test_samples_of_no_part_or_of_weight_zero_do_not_reach_the_head():
    Z, y, part = make_head_data(30, 5)
    weights = part_weights(y.numpy(), part, sample_weight=np.r_[np.ones(35), 1, 1, 1])
    expected = fit_balanced_head(Z, y, part, weights, n_classes=3, n_steps=20)
    Z[part == -1] = float("nan")
    for one, other in zip(
        fit_balanced_head(Z, y, part, weights, n_classes=3, n_steps=20), expected, strict=True
    ):
        assert torch.equal(one, other)
    Z[0] = float("nan")
    weights[0] = 0.0
    assert fit_balanced_head(Z, y, part, weights, n_classes=3, n_steps=20)[0].isfinite().all()


def test_the_draws_follow_the_weights_and_the_smaller_part_is_taken_whole():
    # Part 0 has a row of class 1 that gets 9/10 of its weight; part 1 is one row of class 0.
    Z, y = torch.ones(11, 1, dtype=torch.float64), torch.tensor([1] + [0] * 10)
    part = np.array([0] * 10 + [1])
    weights = np.r_[0.9, np.full(9, 0.1 / 9), 1.0]
    generator = torch.Generator().manual_seed(0)
    weight, bias, _ = fit_balanced_head(
        Z, y, part, weights, n_classes=2, n_steps=600, lr=0.02, generator=generator
    )
    odds = (weight[1] - weight[0] + bias[1] - bias[0]).exp()
    assert float(odds) == pytest.approx(0.9 / 1.1, rel=0.25)


def test_head_batch_size_is_a_limit_and_the_seed_decides():
    Z, y, part = make_head_data(400, 100)
    weights = part_weights(y.numpy(), part)

    def run(batch_size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        args = {"n_classes": 3, "n_steps": 150, "lr": 0.02, "generator": generator}
        return fit_balanced_head(Z, y, part, weights, batch_size=batch_size, **args)[0]

    assert torch.equal(run(None), run(100))
    assert torch.equal(run(20), run(20))
    assert not torch.equal(run(20), run(20, seed=1))
    assert_allclose(run(50), run(None), atol=0.15)


def test_head_from_zero_without_samples_and_without_steps():
    Z, y, part = make_head_data(30, 0)
    weights = part_weights(y.numpy(), part)
    args = {"n_classes": 3, "start_at_zero": True}
    one = fit_balanced_head(Z, y, part, weights, generator=torch.Generator().manual_seed(1), **args)
    two = fit_balanced_head(Z, y, part, weights, generator=torch.Generator().manual_seed(2), **args)
    assert torch.equal(one[0], two[0])  # one part, taken whole: nothing is random
    none = fit_balanced_head(Z, y, part, weights, n_steps=0, **args)
    assert not none[0].any()
    assert len(none[2]) == 0
    with pytest.raises(ValueError, match="no sample"):
        fit_balanced_head(Z, y, np.full(33, -1), weights, n_classes=3)


@fidelity
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folded_layer_is_the_head_on_mapped_features(dtype):
    generator = torch.Generator().manual_seed(0)
    X, weight, bias, scale, shift = (
        torch.randn(size, generator=generator, dtype=dtype)
        for size in ((50, 8), (3, 8), (3,), (8,), (8,))
    )
    coef, intercept = fold_neutral_map(weight, bias, scale, shift)
    expected = neutralise(X, scale, shift) @ weight.T + bias
    assert_allclose(
        X @ coef.T + intercept, expected, atol=1e-5 if dtype is torch.float32 else 1e-12
    )
