"""AFRClassifier: a new last layer on held-out samples, the badly fitted ones above all."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import Net, small_shortcut
from sklearn.frozen import FrozenEstimator

from skspurious import AFRClassifier, ERMClassifier, worst_group_accuracy
from skspurious.datasets import make_spurious_classification

fidelity = pytest.mark.fidelity

FAST = {"max_epochs": 3, "batch_size": 32, "lr": 0.1, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    return small_shortcut()


def _trained(data, **params):
    X, y, _ = data
    return ERMClassifier(Net, module_params=params, **FAST).fit(X, y)


def _head(clf):
    return np.column_stack([p.detach().numpy() for p in clf.module_.head.parameters()])


@fidelity
@pytest.mark.parametrize("bias", [True, False])
def test_new_head_is_the_minimum_of_the_papers_loss(data, bias):
    """All rows, of a trained network: the gradient of the loss, in loops, is zero at the head."""
    X, y, _ = data
    erm = _trained(data, bias=bias)
    clf = AFRClassifier(FrozenEstimator(erm), gamma=3.0, l2_penalty=0.05, max_epochs=0)
    clf.fit(X, y)
    with torch.no_grad():
        Z = erm.module_.embed(torch.tensor(X)).double().numpy()
    Z = np.column_stack([Z, np.ones(len(Z))]) if bias else Z
    before, after = _head(erm).astype(np.float64), _head(clf).astype(np.float64)
    weight = np.exp(-3.0 * erm.predict_proba(X)[np.arange(200), y]) / np.bincount(y)[y]
    weight /= weight.sum()
    assert_allclose(clf.reweighting_, weight, rtol=1e-4)
    gradient = 2 * 0.05 * (after - before)
    for z, k, w in zip(Z, y, weight, strict=True):
        p = np.exp(after @ z) / np.exp(after @ z).sum()
        gradient += w * np.outer(p - np.eye(2)[k], z)
    assert np.abs(after - before).max() > 0.1
    assert np.abs(gradient).max() < 1e-5  # the head is written as float32


@fidelity
def test_the_network_below_the_head_is_that_of_plain_training_on_a_part(data):
    X, y, _ = data
    clf = AFRClassifier(Net, gamma=2.0, **FAST).fit(X, y)
    again = AFRClassifier(Net, gamma=9.0, **FAST).fit(X, y)
    held_out = clf.reweighting_ > 0
    assert_array_equal(np.bincount(y[held_out]), np.bincount(y) // 5)
    assert_allclose(clf.reweighting_.sum(), 1)
    X_other = X.copy()
    X_other[held_out] = 7.0  # which the network must not see in training
    moved = AFRClassifier(Net, gamma=2.0, **FAST).fit(X_other, y)
    for name, value in clf.module_.state_dict().items():
        is_head = name.startswith("head")
        assert torch.equal(value, moved.module_.state_dict()[name]) != is_head, name
        assert torch.equal(value, again.module_.state_dict()[name]) != is_head, name
    assert clf.history_["stage"].tolist() == ["erm"] * 3
    assert clf.train_indices_.tolist() == list(range(200))


@fidelity
def test_weight_two_is_two_copies(data):
    X, y, _ = data
    frozen = FrozenEstimator(_trained(data))
    make = {"gamma": 2.0, "max_epochs": 0}
    twice = np.arange(200) < 40
    weighted = AFRClassifier(frozen, **make).fit(X, y, sample_weight=1.0 + twice)
    copies = AFRClassifier(frozen, **make).fit(np.r_[X, X[twice]], np.r_[y, y[twice]])
    assert_allclose(_head(weighted), _head(copies), atol=1e-4)
    plain = AFRClassifier(frozen, **make).fit(X, y)
    assert np.abs(_head(weighted) - _head(plain)).max() > 1e-2


@fidelity
def test_names_of_the_classes_and_order_of_the_rows_change_nothing(data):
    X, y, _ = data
    frozen = FrozenEstimator(_trained(data))
    order = np.random.default_rng(0).permutation(200)
    clf = AFRClassifier(frozen, gamma=2.0, max_epochs=0).fit(X, y)
    named = AFRClassifier(frozen, gamma=2.0, max_epochs=0)
    named.fit(X[order], np.array(["bird", "fish"])[y][order])
    assert_allclose(_head(named), _head(clf), atol=1e-4)
    assert_array_equal(named.predict(X), np.array(["bird", "fish"])[clf.predict(X)])


@fidelity
def test_training_groups_are_not_looked_at(data):
    X, y, group = data
    fits = [AFRClassifier(**FAST).fit(X, y, sample_group=g) for g in (None, group, group[::-1])]
    for clf in fits[1:]:
        assert_array_equal(clf.module_.weight.detach(), fits[0].module_.weight.detach())
    assert fits[0].gamma_ == 1.0
    assert len(fits[0].tuning_) == 0


@fidelity
def test_gamma_is_that_of_the_best_worst_validation_group(data):
    X, y, group = data
    valid = {"X_val": X[:80], "y_val": y[:80], "sample_group_val": group[:80]}
    clf = AFRClassifier(gammas=[0, 3, 30], monitor=None, **FAST).fit(X, y, **valid)
    assert clf.tuning_["gamma"].tolist() == [0, 3, 30]
    for gamma, worst in zip([0, 3, 30], clf.tuning_["worst_group_accuracy"], strict=True):
        one = AFRClassifier(gamma=gamma, monitor=None, **FAST).fit(X, y, **valid)
        assert_allclose(one.score(X[:80], y[:80], sample_group=group[:80]), worst)
    assert clf.gamma_ == [0, 3, 30][clf.tuning_["worst_group_accuracy"].argmax()]


@fidelity
def test_with_gamma_by_known_groups_the_worst_group_gains():
    gains = []
    for seed in range(3):
        train, valid, test = (
            make_spurious_classification(n, correlation_strength=c, random_state=3 * seed + i)
            for i, (n, c) in enumerate([(6000, 0.95), (2000, 0.95), (4000, 0.5)])
        )
        params = FAST | {"batch_size": 128}
        given = {"X_val": valid.data, "y_val": valid.target, "sample_group_val": valid.sample_group}
        clf = AFRClassifier(gammas=[0, 4, 8], monitor=None, **params)
        clf.fit(train.data, train.target, **given)
        erm = ERMClassifier(monitor=None, **params).fit(train.data, train.target)
        worst = [
            worst_group_accuracy(test.target, c.predict(test.data), sample_group=test.sample_group)
            for c in (erm, clf)
        ]
        gains.append(worst[1] - worst[0])
    assert np.mean(gains) > 0.1


def test_errors(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"max_epochs=0 is for a network that is trained"):
        AFRClassifier(max_epochs=0).fit(X, y)
    with pytest.raises(ValueError, match=r"gammas must be one or more numbers"):
        AFRClassifier(gammas=[], **FAST).fit(X, y)
    with pytest.raises(ValueError, match=r"holdout_fraction=0\.2 of 2 samples"):
        AFRClassifier(**FAST).fit(X[:2], [0, 1])


def test_the_users_network_is_left_alone(data):
    X, y, _ = data
    erm = _trained(data)
    before = copy.deepcopy(erm.module_.state_dict())
    AFRClassifier(FrozenEstimator(erm), gamma=2.0, max_epochs=0).fit(X, y)
    for name, value in erm.module_.state_dict().items():
        assert torch.equal(value, before[name])
