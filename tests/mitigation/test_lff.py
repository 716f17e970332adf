"""LfFClassifier: two networks in one loop, the second of which learns what the first fails on."""

import copy
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import Net, small_shortcut
from torch import nn
from torch.nn import functional as F

from skspurious import ERMClassifier, LfFClassifier, worst_group_accuracy
from skspurious.datasets import make_spurious_classification
from skspurious.mitigation import _lff

fidelity = pytest.mark.fidelity

FAST = {"max_epochs": 3, "batch_size": 32, "lr": 0.05, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return small_shortcut()


def _parameters(module):
    return torch.cat([p.detach().ravel() for p in module.parameters()])


def _network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))


def _reference_lff(start, X, y, *, q, ema, lr, n_steps):
    """The paper's algorithm on whole batches, by plain gradient descent and loops over samples."""
    biased, debiased = copy.deepcopy(start), copy.deepcopy(start)
    running_b, running_d = [None] * len(y), [None] * len(y)
    X, y = torch.tensor(X), torch.tensor(y)
    for _ in range(n_steps):
        ce_b, ce_d = (F.cross_entropy(net(X), y, reduction="none") for net in (biased, debiased))
        for running, ce in ((running_b, ce_b), (running_d, ce_d)):
            for i, new in enumerate(ce.tolist()):
                running[i] = new if running[i] is None else ema * running[i] + (1 - ema) * new
        W = []
        for i in range(len(y)):
            same = [j for j in range(len(y)) if y[j] == y[i]]
            b = running_b[i] / max(running_b[j] for j in same)
            d = running_d[i] / max(running_d[j] for j in same)
            W.append(b / (b + d))
        gce = (1 - biased(X).softmax(1)[range(len(y)), y] ** q) / q
        ((torch.tensor(W) * ce_d).mean() + gce.mean()).backward()
        with torch.no_grad():
            for p in [*biased.parameters(), *debiased.parameters()]:
                p -= lr * p.grad
                p.grad = None
    return debiased, biased, W


@pytest.mark.parametrize(("n_copies", "n_epochs"), [(1, 400), (4, 100)])
def test_heads_have_as_many_steps_whatever_the_number_of_samples(n_copies, n_epochs):
    X = np.random.default_rng(0).normal(size=(32 * n_copies, 2))
    clf = LfFClassifier(random_state=0).fit(X, (X[:, 0] > 0).astype(int))
    assert len(clf.history_) == n_epochs
    assert len(LfFClassifier(lr=0.01, random_state=0).fit(X, X[:, 0] > 0).history_) == 10


@fidelity
def test_both_networks_are_those_of_the_papers_algorithm(data):
    X, y, _ = data
    X, y = X[:40], y[:40]
    start = _network(0)
    clf = LfFClassifier(
        start,
        q=0.6,
        ema=0.8,
        lr=0.5,
        optimizer_params={"momentum": 0.0},
        max_epochs=10,
        batch_size=40,
        random_state=0,
    ).fit(X, y)
    debiased, biased, W = _reference_lff(start, X, y, q=0.6, ema=0.8, lr=0.5, n_steps=10)
    # float32 sums in another order
    assert_allclose(_parameters(clf.module_), _parameters(debiased), atol=1e-5)
    assert_allclose(_parameters(clf.biased_module_), _parameters(biased), atol=1e-5)
    assert_allclose(clf.relative_difficulty_, W, atol=1e-4)
    assert np.std(W) > 0.01
    assert (_parameters(clf.module_) - _parameters(biased)).abs().max() > 0.01


@fidelity
def test_weight_two_is_two_copies_in_one_batch(data):
    X, y, _ = data
    twice = np.arange(200) < 50
    params = FAST | {"batch_size": 400, "max_epochs": 10}
    weighted = LfFClassifier(**params).fit(X, y, sample_weight=1.0 + twice)
    copies = LfFClassifier(**params).fit(np.r_[X, X[twice]], np.r_[y, y[twice]])
    assert_allclose(_parameters(weighted.module_), _parameters(copies.module_), atol=1e-4)
    assert_allclose(
        _parameters(weighted.biased_module_), _parameters(copies.biased_module_), atol=1e-4
    )
    plain = LfFClassifier(**params).fit(X, y)
    assert (_parameters(weighted.module_) - _parameters(plain.module_)).abs().max() > 1e-3


@fidelity
def test_interrupted_run_resumes_with_the_same_bits(data, tmp_path, interrupt_after):
    """Both networks and the running means of all samples are in the checkpoint."""
    X, y, group = data
    valid = {"X_val": X[:60], "y_val": y[:60], "sample_group_val": group[:60]}
    whole = LfFClassifier(Net, **FAST).fit(X, y, **valid)
    saved = LfFClassifier(Net, checkpoint_dir=tmp_path, **FAST)
    with pytest.raises(KeyboardInterrupt):
        saved.set_params(callbacks=[interrupt_after(2)]).fit(X, y, **valid)
    resumed = saved.set_params(callbacks=None).fit(X, y, **valid)
    for name in ("module_", "biased_module_"):
        expected = getattr(whole, name).state_dict()
        for key, value in getattr(resumed, name).state_dict().items():
            assert torch.equal(value, expected[key]), key
    assert_array_equal(resumed.relative_difficulty_, whole.relative_difficulty_)
    assert resumed.best_epoch_ == whole.best_epoch_


@fidelity
def test_names_of_the_classes_and_training_groups_change_nothing(data):
    X, y, group = data
    clf = LfFClassifier(Net, **FAST).fit(X, y)
    named = LfFClassifier(Net, **FAST).fit(X, np.array(["bird", "fish"])[y], sample_group=group)
    assert torch.equal(_parameters(named.module_), _parameters(clf.module_))
    assert_array_equal(named.predict(X), np.array(["bird", "fish"])[clf.predict(X)])


@fidelity
def test_the_minority_is_hard_and_the_worst_group_gains():
    gains = []
    for seed in range(3):
        train, test = (
            make_spurious_classification(2000, correlation_strength=c, random_state=2 * seed + i)
            for i, c in enumerate([0.98, 0.5])
        )
        params = {"lr": 0.1, "max_epochs": 10, "batch_size": 64, "random_state": 0}
        clf = LfFClassifier(**params).fit(train.data, train.target)
        erm = ERMClassifier(**params).fit(train.data, train.target)
        is_minority = train.sample_group % 3 > 0
        hard = clf.relative_difficulty_
        assert hard[is_minority].mean() > hard[~is_minority].mean() + 0.2
        worst = [
            worst_group_accuracy(test.target, c.predict(test.data), sample_group=test.sample_group)
            for c in (erm, clf)
        ]
        gains.append(worst[1] - worst[0])
    assert np.mean(gains) > 0.1


def test_networks_of_a_class_start_from_different_weights(data):
    X, y, _ = data
    slow = FAST | {"lr": 1e-9}
    clf = LfFClassifier(Net, **slow).fit(X, y)
    assert not torch.allclose(_parameters(clf.module_), _parameters(clf.biased_module_), atol=0.01)
    start = _network(0)
    clf = LfFClassifier(start, **slow).fit(X, y)
    for module in (clf.module_, clf.biased_module_):
        assert_allclose(_parameters(module), _parameters(start), atol=1e-5)
        assert not module.training


def test_rows_that_were_kept_aside_have_no_difficulty(data):
    X, y, _ = data
    clf = LfFClassifier(early_stopping=True, **FAST).fit(X, y)
    assert_array_equal(np.flatnonzero(np.isnan(clf.relative_difficulty_)), clf.validation_indices_)


@pytest.mark.parametrize(
    ("accuracy", "biased", "is_told"),
    [(0.4, 0.4, True), (0.4, 0.6, False), (0.6, 0.4, False)],
)
def test_reversed_is_worse_than_chance_and_twice_as_hard_as_for_the_biased_network(
    accuracy, biased, is_told
):
    objective = _lff._LfFLoss(torch.tensor([0, 1]), 2, 0.7, 0.7)
    objective.running.copy_(torch.tensor([[1.0, 1.0], [biased, biased]]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _lff._warn_if_reversed(accuracy, objective)
    assert len(told) == is_told


def test_a_reversed_shortcut_is_told():
    """Two classes, and steps enough that the minority alone is learned."""
    train = make_spurious_classification(1000, correlation_strength=0.95, random_state=0)
    clf = LfFClassifier(lr=0.2, max_epochs=60, batch_size=64, random_state=0)
    with pytest.warns(UserWarning, match="it has learned the reverse of the shortcut"):
        clf.fit(train.data, train.target)
    assert np.mean(clf.predict(train.data) == train.target) < 0.5
