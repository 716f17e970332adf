"""XRM's flips and twin heads, against values by hand and a loop that autograd goes through."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn import functional as F

from skspurious.functional._cross_mistakes import (
    fit_linear_twins,
    flip_labels,
    flip_probability,
    twin_weights,
)

pytestmark = pytest.mark.fidelity


def make_rows(n_samples=60, n_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n_samples, 4, generator=generator, dtype=torch.float64)
    y = (X[:, 0] + 0.8 * torch.randn(n_samples, generator=generator) > 0).long()
    y[: n_samples // 4] = n_classes - 1
    return X, y, torch.randperm(n_samples, generator=generator) % 2


@pytest.mark.parametrize(
    ("n_classes", "confidence", "probability"),
    [
        (2, [0.5, 0.6, 0.75, 1.0], [0.0, 0.2, 0.5, 1.0]),
        (3, [1 / 3, 0.5, 2 / 3, 1.0], [0.0, 0.25, 0.5, 1.0]),
    ],
)
def test_flip_probability_by_hand(n_classes, confidence, probability):
    found = flip_probability(torch.tensor(confidence, dtype=torch.float64), n_classes)
    assert_allclose(found, probability, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3, 4, 7])
def test_at_chance_nothing_flips_and_where_certain_everything(n_classes):
    label = torch.arange(100) % n_classes
    chance = torch.zeros(100, n_classes)
    draws = torch.linspace(1e-6, 1.0 - 1e-6, 100)
    assert torch.equal(flip_labels(label, chance, draws), label)
    certain = chance.clone()
    certain[:, 1] = 200.0
    assert torch.equal(flip_labels(label, certain, draws), torch.ones_like(label))


def test_a_label_flips_as_often_as_the_formula_says():
    logits = torch.log(torch.tensor([[0.2, 0.7, 0.1]])).expand(20_000, 3)
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    flipped = flip_labels(torch.zeros(20_000, dtype=torch.int64), logits, draws)
    assert set(flipped.tolist()) == {0, 1}  # to the class of the largest probability alone
    rate = (0.7 - 1 / 3) * 3 / 2
    assert abs((flipped == 1).float().mean() - rate) < 4 * (rate * (1 - rate) / 20_000) ** 0.5


def test_weights_by_hand():
    y = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0])
    half = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert_allclose(twin_weights(y, half, 2), [2 / 3] * 3 + [2.0] + [1.0] * 4, rtol=1e-6)
    only_one = twin_weights(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 3)
    assert_allclose(only_one, [1.0, 1.0, 1.0])  # a class that a half lacks asks for nothing


@pytest.mark.parametrize("flips", [True, False])
def test_twins_equal_a_plain_loop(flips):
    X, y, half = make_rows()
    params = {"lr": 0.5, "momentum": 0.8, "n_steps": 40, "batch_size": 20}
    coef, intercept, label = fit_linear_twins(X, y, half, 3, flips=flips, random_state=5, **params)

    twins = [nn.Linear(4, 3).double() for _ in range(2)]
    for twin in twins:
        nn.init.zeros_(twin.weight)
        nn.init.zeros_(twin.bias)
    sgd = torch.optim.SGD([p for t in twins for p in t.parameters()], lr=0.5, momentum=0.8)
    generator = torch.Generator().manual_seed(5)
    count = [[int(((half == h) & (y == c)).sum()) for c in range(3)] for h in (0, 1)]
    target = y.clone()
    for _ in range(40):
        rows = torch.randperm(60, generator=generator)[:20].tolist()
        draws = torch.rand(20, generator=generator).tolist()
        loss, seen = 0.0, []
        for i, draw in zip(rows, draws, strict=True):
            h = int(half[i])
            weight = sum(count[h]) / 3 / count[h][int(y[i])]
            loss = loss + weight * F.cross_entropy(twins[h](X[i]), target[i]) / 10
            seen.append((i, draw, twins[1 - h](X[i]).softmax(0).detach()))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        for i, draw, p in seen:
            if flips and draw < (float(p.max()) - 1 / 3) * 3 / 2:
                target[i] = int(p.argmax())
    for k, twin in enumerate(twins):
        assert_allclose(coef[k].T, twin.weight.detach(), atol=1e-6)
        assert_allclose(intercept[k], twin.bias.detach(), atol=1e-6)
    assert torch.equal(label, target)
    assert (label != y).any() == flips


def test_a_row_has_no_influence_on_the_twin_that_judges_it():
    X, y, half = make_rows()
    params = {"lr": 0.5, "n_steps": 30, "flips": False}
    coef, intercept, _ = fit_linear_twins(X, y, half, 3, **params)
    for row in (0, 20, 40):
        other = y.clone()
        other[row] = (y[row] + 1) % 3
        again, again_intercept, _ = fit_linear_twins(X, other, half, 3, **params)
        own, judge = int(half[row]), 1 - int(half[row])
        assert torch.equal(again[judge], coef[judge])
        assert torch.equal(again_intercept[judge], intercept[judge])
        assert not torch.allclose(again[own], coef[own])


def test_names_of_classes_change_the_columns_alone():
    X, y, half = make_rows()
    order = torch.tensor([2, 0, 1])
    coef, _, label = fit_linear_twins(X, y, half, 3, lr=0.5)
    renamed, _, new_label = fit_linear_twins(X, order[y], half, 3, lr=0.5)
    assert_allclose(renamed[:, :, order], coef, atol=1e-9)
    assert torch.equal(new_label, order[label])
    assert (label != y).any()
