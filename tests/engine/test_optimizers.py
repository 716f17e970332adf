"""Optimizers and learning-rate schedules by name."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skspurious import ERMClassifier, SpuriousSamplePruner
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


# --------------------------------------------------------------------------------------
# What follows the epochs


def _rates_on_plateaus(values, **params):
    """Learning rate of every epoch, by torch's own schedule alone."""
    optimizer = torch.optim.SGD(_parameters(), lr=0.1)
    schedule = ReduceLROnPlateau(optimizer, **params)
    rates = []
    for value in values:
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(value)
    return rates


def _quick(optimizer, n_steps):
    return ReduceLROnPlateau(optimizer, patience=0)


def _two_layers():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("module", [None, _two_layers])
@pytest.mark.parametrize(
    ("schedule", "monitor", "column", "params"),
    [
        ("plateau", "accuracy", "valid_accuracy", {"mode": "max"}),
        ("plateau", "auto", "valid_worst_group_accuracy", {"mode": "max"}),
        ("plateau", "loss", "valid_loss", {"mode": "min"}),
        ("plateau", None, "valid_loss", {"mode": "min"}),
        (_quick, "auto", "valid_loss", {"patience": 0}),
        (partial(ReduceLROnPlateau, patience=1, factor=0.5), "auto", "valid_loss", None),
        (partial(ReduceLROnPlateau, patience=1, mode="max"), "loss", "valid_accuracy", None),
        (
            partial(ReduceLROnPlateau, patience=1, mode="max"),
            "worst_group_accuracy",
            "valid_worst_group_accuracy",
            None,
        ),
        (ReduceLROnPlateau, "auto", "valid_loss", {}),
    ],
)
def test_plateaus_are_those_of_the_validation_samples(module, schedule, monitor, column, params):
    rng = np.random.default_rng(0)
    X, y, group = rng.normal(size=(60, 3)), np.arange(60) % 2, np.arange(60) % 3
    X[:, 0] += y
    valid = {"X_val": X, "y_val": 1 - y, "sample_group_val": group}  # the worse, the longer
    shared = {"lr": 0.1, "max_epochs": 30, "batch_size": 8, "random_state": 0}
    clf = ERMClassifier(module, lr_schedule=schedule, monitor=monitor, **shared)
    history = clf.fit(X, y, **valid).history_
    params = schedule.keywords if params is None else params
    expected = _rates_on_plateaus(history[column], **params)
    assert_allclose(history["lr"], expected, rtol=1e-12)
    assert len(set(expected)) > 1
    if monitor is not None:
        clf.set_params(early_stopping=True, n_epochs_no_change=3)
        history = clf.fit(X, y, **valid).history_
        assert_allclose(history["lr"], expected[: len(history)], rtol=1e-12)


def test_without_validation_samples_plateaus_are_those_of_training():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    for mode, column in (("min", "train_loss"), ("max", "train_accuracy")):
        schedule = partial(ReduceLROnPlateau, mode=mode, patience=0)
        clf = ERMClassifier(lr=0.1, lr_schedule=schedule, batch_size=8, random_state=0).fit(X, y)
        expected = _rates_on_plateaus(clf.history_[column], mode=mode, patience=0)
        assert_allclose(clf.history_["lr"], expected, rtol=1e-12)
        assert len(set(expected)) > 1


def test_scores_of_pruning_are_taken_under_a_schedule_of_plateaus():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 2
    shared = {"lr": 0.1, "batch_size": 8, "random_state": 0, "on_identifiable": "ignore"}
    schedule = partial(ReduceLROnPlateau, patience=0)
    history = SpuriousSamplePruner(lr_schedule=schedule, **shared).fit(X, y).history_
    assert_allclose(history["lr"], _rates_on_plateaus(history["train_loss"], patience=0))
    assert history["lr"].nunique() > 1


# --------------------------------------------------------------------------------------
# Optimizers that cannot work


class Asking(torch.optim.SGD):
    """Wants the loss evaluated in its step."""

    def step(self, closure):
        return closure()


@pytest.mark.parametrize("module", [None, _two_layers])
@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.LBFGS, r"optimizer=LBFGS .*module=None.*'adamw'"),
        (partial(torch.optim.LBFGS, max_iter=5), r"optimizer=LBFGS .*module=None"),
        (torch.optim.Rprop, r"optimizer=Rprop .*signs of the gradients of all samples.*RMSprop"),
        (torch.optim.SparseAdam, r"optimizer=SparseAdam .*sparse gradients"),
        (Asking, r"optimizer=Asking .*needs a closure"),
    ],
)
def test_optimizers_that_cannot_learn_from_batches_are_refused_by_name(module, optimizer, message):
    X, y = np.eye(3).repeat(4, axis=0), np.arange(12) % 2
    with pytest.raises(ValueError, match=message):
        ERMClassifier(module, optimizer=optimizer).fit(X, y)


def test_an_optimizer_without_weight_decay():
    class Plain(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= group["lr"] * p.grad

    X, y = np.eye(3).repeat(4, axis=0), np.arange(12) % 2
    params = {"lr": 0.1, "max_epochs": 2, "batch_size": 5, "random_state": 0}
    ours = ERMClassifier(optimizer=Plain, **params).fit(X, y)
    sgd = ERMClassifier(optimizer=torch.optim.SGD, **params).fit(X, y)
    assert_allclose(ours.predict_proba(X), sgd.predict_proba(X), rtol=1e-5)
    with pytest.raises(ValueError, match=r"Plain has no weight decay, and weight_decay=0\.1"):
        ERMClassifier(optimizer=Plain, weight_decay=0.1, **params).fit(X, y)


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
