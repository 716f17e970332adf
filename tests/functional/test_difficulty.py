"""Difficulty scores and the choice of what is kept, against values by hand and plain loops."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.nn import functional as F

from skspurious.functional import (
    el2n,
    forgetting_counts,
    gradient_norms,
    last_layer_gradient_norms,
    select_kept,
)
from skspurious.functional._difficulty import loss_difficulty, split_difficulty
from skspurious.functional._error_set import class_margins

ORDERS = ("hardest", "easiest", "random")


@pytest.fixture
def logits():
    return torch.from_numpy(np.random.default_rng(0).normal(scale=3, size=(50, 4)))


@pytest.fixture
def label():
    return torch.from_numpy(np.random.default_rng(1).integers(0, 4, 50))


# --------------------------------------------------------------------------------------
# Scores


@pytest.mark.fidelity
def test_el2n_is_the_norm_of_the_error(logits, label):
    p = logits.softmax(1).numpy()
    expected = [np.linalg.norm(p[i] - np.eye(4)[label[i]]) for i in range(50)]
    assert_allclose(el2n(logits, label), expected, rtol=1e-12)
    assert (el2n(logits, label) >= 0).all()
    assert (el2n(logits, label) <= math.sqrt(2)).all()


@pytest.mark.fidelity
@pytest.mark.parametrize("n_classes", [2, 5])
def test_el2n_ends_at_0_and_at_root_2(n_classes):
    right = 200.0 * F.one_hot(torch.tensor([0, 1]), n_classes)
    assert_allclose(el2n(right, torch.tensor([0, 1])), 0, atol=1e-12)
    assert_allclose(el2n(right, torch.tensor([1, 0])), math.sqrt(2), rtol=1e-6)
    assert (el2n(right, torch.tensor([1, 0])) <= math.sqrt(2)).all()


@pytest.mark.fidelity
def test_el2n_of_two_classes_is_the_probability_of_the_other_one():
    logits = torch.from_numpy(np.random.default_rng(0).normal(scale=4, size=(200, 2)))
    label = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 200))
    p = logits.softmax(1).gather(1, label[:, None])[:, 0]
    assert_allclose(el2n(logits, label), math.sqrt(2) * (1 - p), atol=1e-6)


@pytest.mark.fidelity
def test_two_classes_rank_alike_by_el2n_loss_and_margin():
    logits = torch.from_numpy(np.random.default_rng(0).normal(scale=20, size=(500, 2)))
    label = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 500))
    margin = class_margins(logits, label)
    rows = margin.abs() < 15  # beyond, the differences round to 0
    order = el2n(logits, label)[rows].argsort()
    assert torch.equal(order, loss_difficulty(logits, label)[rows].argsort())
    assert torch.equal(order, (-margin)[rows].argsort())


@pytest.mark.fidelity
def test_a_constant_added_to_the_logits_changes_no_score(logits, label):
    for score in (el2n, loss_difficulty):
        assert_allclose(score(logits + 7.5, label), score(logits, label), atol=1e-12)


def test_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 5.0, 1.0]])
    label = torch.tensor([0, 2])
    expected = [math.log(1 + math.exp(-2) + math.exp(-1)), math.log(math.exp(4) + 1 + math.exp(-1))]
    assert_allclose(loss_difficulty(logits, label), expected, rtol=1e-6)


class Net(nn.Module):
    """Two layers with batch statistics, and a layer that is not trained."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.hidden = nn.Linear(3, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.embed(x))

    def embed(self, x):
        return self.hidden(self.norm(self.frozen(x))).tanh()


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval(), torch.randn(7, 3), torch.arange(7) % 4


def _reference_gradient_norms(module, parameters, x, y):
    norms = []
    for i in range(len(x)):
        loss = F.cross_entropy(module(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, parameters)
        norms.append(math.sqrt(sum((g**2).sum().item() for g in gradients)))
    return norms


@pytest.mark.parametrize("max_gradients", [None, 60])
def test_gradient_norms_are_those_of_one_sample_at_a_time(network, max_gradients, monkeypatch):
    import skspurious.functional._difficulty as difficulty

    module, x, y = network
    if max_gradients:
        monkeypatch.setattr(difficulty, "_MAX_GRADIENTS", max_gradients)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    trained = [p for p in module.parameters() if p.requires_grad]
    expected = _reference_gradient_norms(module, trained, x, y)
    with torch.no_grad():
        assert_allclose(gradient_norms(module, x, y), expected, rtol=1e-5)
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_gradient_norms_of_dict_batches(network):
    module, x, y = network

    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, features):
            class Output:
                logits = module(features)

            return Output

    assert_allclose(
        gradient_norms(Keywords(), {"features": x}, y), gradient_norms(module, x, y), rtol=1e-6
    )


@pytest.mark.parametrize("has_bias", [True, False])
def test_last_layer_gradient_norms_need_no_backward_pass(network, has_bias):
    module, x, y = network
    parameters = [module.head.weight, module.head.bias][: 1 + has_bias]
    expected = _reference_gradient_norms(module, parameters, x, y)
    norms = last_layer_gradient_norms(module(x), y, module.embed(x), has_bias=has_bias)
    assert_allclose(norms.detach(), expected, rtol=1e-5)


def test_forgetting_counts_by_hand():
    correct = np.array(
        [
            [1, 1, 1, 1, 1],  # never forgotten
            [0, 0, 1, 1, 1],  # learned late
            [1, 0, 1, 0, 0],  # forgotten twice
            [1, 1, 1, 1, 0],  # forgotten at the end
            [0, 0, 0, 0, 0],  # never learned: more than can be forgotten
        ],
        dtype=bool,
    ).T
    assert forgetting_counts(correct).tolist() == [0, 0, 2, 1, 5]
    assert forgetting_counts(correct[:1]).tolist() == [0, 1, 0, 0, 1]


# --------------------------------------------------------------------------------------
# Selection


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    return rng.integers(0, 12, 97) / 10, rng.choice(3, 97, p=[0.6, 0.3, 0.1])  # with ties


def _reference_kept(score, stratum, n_pruned):
    keep = np.ones(len(score), dtype=bool)
    for s, n in n_pruned.items():
        rows = sorted(np.flatnonzero(stratum == s), key=lambda i: (-score[i], i))
        keep[rows[:n]] = False
    return keep


@pytest.mark.fidelity
@pytest.mark.parametrize("percent", [0, 1, 7, 10, 28, 50, 97])
@pytest.mark.parametrize("order", ORDERS)
def test_exactly_the_rounded_up_share_of_every_stratum_is_pruned(scored, percent, order):
    score, stratum = scored
    keep = select_kept(score, percent / 100, stratum=stratum, order=order)
    for s in range(3):
        n = int((stratum == s).sum())
        assert (~keep[stratum == s]).sum() == math.ceil(Fraction(percent, 100) * n)


def test_rounding_errors_prune_no_sample_more():
    assert 0.07 * 100 > 7
    assert (~select_kept(np.arange(100.0), 0.07)).sum() == 7
    assert (~select_kept(np.arange(30.0), 0.1)).sum() == 3


def test_the_hardest_are_those_of_a_plain_loop(scored):
    score, stratum = scored
    size = np.bincount(stratum)
    n_pruned = {s: math.ceil(size[s] / 5) for s in range(3)}
    expected = _reference_kept(score, stratum, n_pruned)
    assert_array_equal(select_kept(score, 0.2, stratum=stratum), expected)


@pytest.mark.fidelity
def test_what_is_pruned_is_at_least_as_hard_as_what_is_kept(scored):
    score, stratum = scored
    for order, sign in (("hardest", 1), ("easiest", -1)):
        keep = select_kept(score, 0.3, stratum=stratum, order=order)
        for s in range(3):
            here = stratum == s
            assert (sign * score[here & ~keep]).min() >= (sign * score[here & keep]).max()


@pytest.mark.fidelity
@pytest.mark.parametrize("order", ORDERS)
def test_pruned_sets_are_nested_in_the_fraction(scored, order):
    score, stratum = scored
    keeps = [select_kept(score, f, stratum=stratum, order=order) for f in (0, 0.05, 0.1, 0.4, 0.9)]
    for larger, smaller in itertools.pairwise(keeps):
        assert (larger | ~smaller).all()
        assert larger.sum() > smaller.sum()


@pytest.mark.fidelity
@pytest.mark.parametrize("equal", [False, True])
def test_the_hardest_and_the_easiest_half_have_nothing_in_common(scored, equal):
    score, stratum = scored
    score = np.zeros_like(score) if equal else score
    for fraction in (0.1, 0.3, 0.4):
        hard, easy = (
            ~select_kept(score, fraction, stratum=stratum, order=o) for o in ("hardest", "easiest")
        )
        assert not (hard & easy).any()
        assert hard.sum() == easy.sum()


@pytest.mark.fidelity
@pytest.mark.parametrize("order", ORDERS)
def test_negative_strata_are_never_pruned(scored, order):
    score, stratum = scored
    stratum = np.where(stratum == 1, -1, stratum)
    keep = select_kept(score, 0.9, stratum=stratum, order=order)
    assert keep[stratum == -1].all()
    assert not keep[stratum != -1].all()


def test_the_random_order_depends_on_the_seed_and_not_on_the_scores(scored):
    score, stratum = scored
    first, again, other = (
        select_kept(s, 0.3, stratum=stratum, order="random", random_state=seed)
        for s, seed in ((score, 0), (-score, 0), (score, 1))
    )
    assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, np.nan], 0.1), "score must be finite"),
        (([[0.1]], 0.1), "score must have 1 dimension"),
        (([0.1], 1.0), r"fraction must be in \[0, 1\)"),
        (([0.1], -0.1), r"fraction must be in \[0, 1\)"),
    ],
)
def test_select_kept_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        select_kept(*arguments)
    with pytest.raises(ValueError, match="order='first'"):
        select_kept([0.1], 0.1, order="first")
    with pytest.raises(ValueError, match="stratum has shape"):
        select_kept([0.1], 0.1, stratum=[0, 1])


# --------------------------------------------------------------------------------------
# Two clusters


def test_two_clusters_of_difficulty_are_found_whatever_their_sizes():
    rng = np.random.default_rng(0)
    is_hard = rng.random(500) < 0.03
    score = np.where(is_hard, 1.3, 0.1) + rng.normal(scale=0.04, size=500)
    split = split_difficulty(score)
    assert_array_equal(split.is_hard, is_hard)
    assert split.silhouette > 0.9


def test_a_tail_of_hard_samples_is_no_cluster():
    """The mean over samples would call it one: nearly all scores are near 0."""
    score = np.random.default_rng(0).beta(0.1, 3, 1000) * math.sqrt(2)
    assert split_difficulty(score).silhouette < 0.8


def test_equal_scores_are_one_cluster():
    split = split_difficulty(np.full(5, 0.3))
    assert not split.is_hard.any()
    assert split.silhouette == -1
