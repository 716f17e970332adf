"""Optimizers and learning-rate schedules by name."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from skspurious import ERMClassifier
from skspurious._engine._optimizers import make_optimizer, make_schedule

N_STEPS = 20


def _parameters():
    return list(nn.Linear(3, 2).parameters())


def _rates(schedule, lr=0.1, n_steps=N_STEPS):
    """Learning rate at every step, and the one after the last."""
    optimizer = torch.optim.SGD(_parameters(), lr=lr)
    schedule = make_schedule(optimizer, schedule, n_steps=n_steps, lr=lr)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(n_steps):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


@pytest.mark.parametrize(
    ("name", "kind", "momentum"),
    [
        ("sgd", torch.optim.SGD, 0.9),
        ("adam", torch.optim.Adam, None),
        ("adamw", torch.optim.AdamW, None),
    ],
)
def test_make_optimizer_by_name(name, kind, momentum):
    optimizer = make_optimizer(_parameters(), name, lr=0.2, weight_decay=0.3)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.2, 0.3)
    assert group.get("momentum") == momentum


def test_make_optimizer_params_win():
    params = {"momentum": 0.5, "nesterov": True}
    group = make_optimizer(
        _parameters(), "sgd", lr=0.2, weight_decay=0.0, params=params
    ).param_groups
    assert group[0]["momentum"] == 0.5
    assert group[0]["nesterov"]
    foreach = make_optimizer(
        _parameters(), "adam", lr=0.1, weight_decay=0.0, params={"foreach": True}
    )
    assert foreach.param_groups[0]["foreach"]


def test_make_optimizer_by_class_has_the_defaults_of_the_class():
    optimizer = make_optimizer(_parameters(), torch.optim.SGD, lr=0.2, weight_decay=0.0)
    assert optimizer.param_groups[0]["momentum"] == 0


def test_make_optimizer_leaves_frozen_parameters_out():
    parameters = _parameters()
    parameters[0].requires_grad_(False)
    optimizer = make_optimizer(parameters, "sgd", lr=0.2, weight_decay=0.0)
    assert [p.shape for p in optimizer.param_groups[0]["params"]] == [(2,)]
    parameters[1].requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        make_optimizer(parameters, "sgd", lr=0.2, weight_decay=0.0)


def test_cosine_schedule_is_half_a_cosine():
    steps = np.arange(N_STEPS + 1)
    assert_allclose(_rates("cosine"), 0.05 * (1 + np.cos(np.pi * steps / N_STEPS)), atol=1e-12)


def test_linear_schedule_reaches_zero_after_the_last_step():
    assert_allclose(_rates("linear"), 0.1 * (1 - np.arange(N_STEPS + 1) / N_STEPS), atol=1e-12)


def test_onecycle_schedule_peaks_at_lr():
    rates = _rates("onecycle", n_steps=19)
    assert_allclose(rates.max(), 0.1)
    assert_allclose(rates[0], 0.1 / 25)
    assert rates.argmax() == 5  # 0.3 * 20 - 1
    assert_allclose(rates[-1], 0.1 / 25 / 1e4)


def test_schedule_callable_gets_optimizer_and_steps():
    seen = []

    def halve(optimizer, n_steps):
        seen.append((type(optimizer), n_steps))
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    assert_allclose(_rates(halve, n_steps=3), [0.1, 0.05, 0.025, 0.0125])
    assert seen == [(torch.optim.SGD, 3)]


def test_classifier_steps_the_schedule_once_an_optimizer_step():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 3)), np.arange(50) % 2
    # 5 batches of 10 an epoch; 2 batches a step: 3 steps an epoch, 12 in all.
    shared = {"max_epochs": 4, "batch_size": 10, "gradient_accumulation": 2, "lr": 0.1}
    clf = ERMClassifier(lr_schedule="cosine", random_state=0, **shared).fit(X, y)
    by_hand = [0.05 * (1 + math.cos(math.pi * 3 * epoch / 12)) for epoch in range(4)]
    assert_allclose(clf.history_["lr"], by_hand)
    for schedule in ("linear", "onecycle"):
        clf = ERMClassifier(lr_schedule=schedule, random_state=0, **shared).fit(X, y)
        assert_allclose(clf.history_["lr"], _rates(schedule, n_steps=12)[[0, 3, 6, 9]])
    clf = ERMClassifier(random_state=0, **shared).fit(X, y)
    assert_allclose(clf.history_["lr"], 0.1)
