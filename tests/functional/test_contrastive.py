"""The contrastive loss over classes and clusters, against a loop that follows the definition."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skspurious.functional._contrastive import contrastive_losses, contrastive_pairs

fidelity = pytest.mark.fidelity

both_negatives = pytest.mark.parametrize("negatives", ["class", "cluster"])


def contrastive_loss(*args, **kwargs):
    """Mean over the anchors that have pairs."""
    losses, is_anchor = contrastive_losses(*args, **kwargs)
    assert (losses[~is_anchor] == 0).all()
    return losses.sum() / is_anchor.sum().clamp(min=1)


def _reference_loss(h, y, c, t, negatives):
    """Anchor by anchor and pair by pair, with plain exponentials."""
    z = [row / row.norm() for row in h]
    losses = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        positives = [j for j in others if y[j] == y[i] and c[j] != c[i]]
        repelled = [j for j in others if c[j] == c[i] and (negatives == "cluster" or y[j] != y[i])]
        if not positives or not repelled:
            continue
        total = sum(torch.exp(z[i] @ z[j] / t) for j in positives + repelled)
        terms = [-torch.log(torch.exp(z[i] @ z[p] / t) / total) for p in positives]
        losses.append(sum(terms) / len(positives))
    return sum(losses) / len(losses)


def _batch(n_classes, n_clusters=3, n=20, seed=0):
    rng = np.random.default_rng(seed)
    h = torch.tensor(rng.normal(size=(n, 5)), requires_grad=True)
    y = torch.from_numpy(rng.integers(n_classes, size=n))
    return h, y, torch.from_numpy(rng.integers(n_clusters, size=n))


def _corners(code):
    return torch.nn.functional.one_hot(code).double()


Y = torch.tensor([0, 0, 1, 1])
C = torch.tensor([0, 1, 0, 1])


# --------------------------------------------------------------------------------------
# By hand and by reference


def test_loss_by_hand():
    # Each anchor has one positive and one negative. Aligned with the class, they have
    # similarity 1 and 0: loss log(1 + e^(-1/t)); aligned with the cluster log(1 + e^(1/t)).
    for t in (0.1, 0.5):
        by_class = contrastive_loss(_corners(Y), Y, C, temperature=t)
        by_cluster = contrastive_loss(_corners(C), Y, C, temperature=t)
        assert_allclose(by_class, math.log1p(math.exp(-1 / t)), rtol=1e-9)
        assert_allclose(by_cluster, math.log1p(math.exp(1 / t)), rtol=1e-9)


@fidelity
@both_negatives
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_loss_and_gradient_equal_the_plain_loop(n_classes, negatives, temperature):
    h, y, c = _batch(n_classes)
    loss = contrastive_loss(h, y, c, temperature=temperature, negatives=negatives)
    expected = _reference_loss(h, y, c, temperature, negatives)
    assert_allclose(loss.detach(), expected.detach(), rtol=1e-10)
    (gradient,) = torch.autograd.grad(loss, h)
    (expected_gradient,) = torch.autograd.grad(expected, h)
    assert_allclose(gradient, expected_gradient, rtol=1e-8, atol=1e-12)
    assert gradient.abs().max() > 1e-3


@fidelity
@both_negatives
def test_pairs_follow_the_definition_and_never_hold_the_anchor(negatives):
    _, y, c = _batch(3, n=30)
    positive, negative = contrastive_pairs(y, c, negatives=negatives)
    for i in range(30):
        for j in range(30):
            assert positive[i, j] == (i != j and y[i] == y[j] and c[i] != c[j])
            other = negatives == "cluster" or y[i] != y[j]
            assert negative[i, j] == (i != j and c[i] == c[j] and other)
    assert not (positive & negative).any()


# --------------------------------------------------------------------------------------
# Laws


@fidelity
def test_features_that_follow_the_class_have_a_lower_loss_than_those_that_follow_the_cluster():
    """Swapped positives and negatives turn this around."""
    assert contrastive_loss(_corners(Y), Y, C, temperature=0.1) < 1e-3
    assert contrastive_loss(_corners(C), Y, C, temperature=0.1) > 5
    for negatives in ("class", "cluster"):
        y, c = Y.repeat(3), C.repeat(3)
        by_class = contrastive_loss(_corners(y), y, c, negatives=negatives)
        assert by_class < contrastive_loss(_corners(c), y, c, negatives=negatives)


@fidelity
def test_a_gradient_step_pulls_positives_closer_and_pushes_negatives_away():
    h, y, c = _batch(2)
    (gradient,) = torch.autograd.grad(contrastive_loss(h, y, c, temperature=0.5), h)
    positive, negative = contrastive_pairs(y, c)

    def similarity(features, pairs):
        z = torch.nn.functional.normalize(features)
        return (z @ z.T)[pairs].mean()

    after = (h - 0.5 * gradient).detach()
    assert similarity(after, positive) > similarity(h, positive)
    assert similarity(after, negative) < similarity(h, negative)


@both_negatives
def test_names_order_and_scale_change_nothing(negatives):
    h, y, c = _batch(3)
    loss = contrastive_loss(h, y, c, negatives=negatives)
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(y)))
    scale = torch.rand(len(y), 1, generator=torch.Generator().manual_seed(0)).double() * 9 + 1e-3
    for other in (
        contrastive_loss(h, y, torch.tensor([17, 3, 5])[c], negatives=negatives),
        contrastive_loss(h, 2 - y, c, negatives=negatives),
        contrastive_loss(h[order], y[order], c[order], negatives=negatives),
        contrastive_loss(h * scale, y, c, negatives=negatives),
    ):
        assert_allclose(other.detach(), loss.detach(), rtol=1e-10)


def test_a_sample_without_pairs_is_no_anchor():
    h, y, c = _batch(2)
    c[0] = 99  # alone in its cluster: no negative
    losses, is_anchor = contrastive_losses(h, y, c)
    assert not is_anchor[0]
    assert losses[0] == 0
    assert (losses[is_anchor] > 0).all()


# --------------------------------------------------------------------------------------
# Edges


@fidelity
@both_negatives
@pytest.mark.parametrize(
    ("y", "c"),
    [
        ([0, 1, 0, 1], [0, 0, 0, 0]),  # one cluster: no positives
        ([0, 0, 0, 0], [0, 1, 2, 3]),  # one class, singletons: no negatives
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0], [0]),
    ],
)
def test_without_pairs_the_loss_is_zero_and_so_is_its_gradient(y, c, negatives):
    h = torch.randn(len(y), 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = contrastive_loss(h, torch.tensor(y), torch.tensor(c), negatives=negatives)
    assert loss == 0
    loss.backward()
    assert h.grad.tolist() == torch.zeros_like(h).tolist()


@fidelity
@pytest.mark.parametrize("scale", [1e-42, 1e-36, 1e-25, 1e25, 1e37])
def test_tiny_and_huge_features_stay_finite(scale):
    h, y, c = _batch(2)
    h = (h.detach().float() * scale).requires_grad_()
    loss = contrastive_loss(h, y, c)
    loss.backward()
    assert loss.isfinite()
    assert h.grad.isfinite().all()
    if scale > 1e-30:
        assert_allclose(loss.detach(), contrastive_loss(*_batch(2)).detach(), rtol=1e-4)


def test_a_row_of_zeros_stays_finite():
    h, y, c = _batch(2)
    h = h.detach().float()
    h[3] = 0
    h.requires_grad_()
    contrastive_loss(h, y, c).backward()
    assert h.grad.isfinite().all()
    assert h.grad.abs().max() < 1e6


@fidelity
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    h, y, c = _batch(2)
    half = h.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = contrastive_loss(half, y, c)
    assert loss.dtype == torch.float32
    loss.backward()
    assert half.grad.isfinite().all()
    assert_allclose(loss.detach(), contrastive_loss(half.detach().double(), y, c), rtol=1e-4)


def test_unknown_negatives_are_an_error():
    with pytest.raises(ValueError, match="negatives must be"):
        contrastive_pairs(Y, C, negatives="all")
