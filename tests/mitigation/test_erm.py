"""ERMClassifier: plain training, with groups that are only looked at."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from torch import nn

from skspurious import ERMClassifier, GroupedData


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4)).astype(np.float32)
    y = (X[:, 0] + 0.5 * rng.normal(size=90) > 0).astype(int)
    return X, y, rng.integers(0, 3, size=90)


def _parameters(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.module_.parameters()])


def test_erm_is_logistic_regression_where_it_converges(data):
    from sklearn.linear_model import LogisticRegression

    X, y, _ = data
    clf = ERMClassifier(
        lr=1.0, weight_decay=0.02, batch_size=90, max_epochs=600, random_state=0
    ).fit(X, y)
    # Two rows of opposite signs with difference d have the penalty 0.02 / 2 * |d|^2 / 2 beside
    # the mean loss; scikit-learn's is |d|^2 / (2 C n). The bias is punished too: a column of ones.
    ones = np.column_stack([X, np.ones(90)])
    expected = LogisticRegression(
        C=1 / (90 * 0.01), tol=1e-10, max_iter=1000, fit_intercept=False
    ).fit(ones, y)
    weight, bias = clf.module_.weight.detach().numpy(), clf.module_.bias.detach().numpy()
    found = np.append(weight[1] - weight[0], bias[1] - bias[0])
    # a step shrinks what is left by 0.98 at least: 600 steps, by 5e-6; float32 gradients do 1e-5
    assert_allclose(found, expected.coef_[0], atol=1e-4)


def test_groups_do_not_change_training(data):
    X, y, group = data
    shared = {"max_epochs": 3, "random_state": 0}
    without = ERMClassifier(**shared).fit(X, y)
    given = ERMClassifier(**shared).fit(X, y, sample_group=group)
    carried = ERMClassifier(**shared).fit(GroupedData(X, group), y)
    assert_array_equal(_parameters(given), _parameters(without))
    assert_array_equal(_parameters(carried), _parameters(without))
    assert without.groups_.tolist() == []
    assert given.groups_.tolist() == carried.groups_.tolist() == [0, 1, 2]


def test_groups_choose_the_best_epoch(data):
    X, y, group = data
    # Training makes it worse.
    valid = {"X_val": X[:40], "y_val": 1 - y[:40], "sample_group_val": group[:40]}
    shared = {"max_epochs": 6, "lr": 0.3, "random_state": 0}
    clf = ERMClassifier(**shared).fit(X, y, **valid)
    history = clf.history_
    best = history["valid_worst_group_accuracy"].max()
    assert history["valid_worst_group_accuracy"][clf.best_epoch_ - 1] == best
    assert history["valid_worst_group_accuracy"].iloc[-1] < best
    assert ERMClassifier(**shared).fit(X, y).best_epoch_ is None
    assert ERMClassifier(monitor=None, **shared).fit(X, y, **valid).best_epoch_ is None


def test_same_seed_same_result_and_other_seed_other_result(data, assert_global_rng_untouched):
    X, y, _ = data
    with assert_global_rng_untouched():
        first, again, other = (
            _parameters(ERMClassifier(max_epochs=2, random_state=s).fit(X, y)) for s in (0, 0, 1)
        )
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_network_of_the_user_is_not_changed(data):
    X, y, _ = data
    with torch.random.fork_rng():
        network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    clf = ERMClassifier(network, max_epochs=2, random_state=0).fit(X, y)
    assert network.training
    assert not clf.module_.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(clf.module_[0].weight, network[0].weight)


def test_a_fitted_classifier_in_a_frozen_estimator_gives_a_copy_of_its_network(data):
    X, y, _ = data
    first = ERMClassifier(max_epochs=3, random_state=0).fit(X, y)
    before = first.module_.weight.detach().clone()
    clf = ERMClassifier(FrozenEstimator(first), lr=1e-9, max_epochs=1, random_state=1).fit(X, y)
    assert_allclose(clf.module_.weight.detach(), before, atol=1e-6)
    ERMClassifier(FrozenEstimator(first), lr=1.0, max_epochs=2, random_state=1).fit(X, y)
    assert torch.equal(first.module_.weight, before)
