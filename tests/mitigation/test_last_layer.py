"""LastLayerRetrainer: heads on balanced held-out samples."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupedData,
    LastLayerRetrainer,
    SpuriousGroupInferrer,
    worst_group_scorer,
)
from skspurious.data import make_sample_group
from skspurious.datasets import make_spurious_classification
from skspurious.functional import fit_l1_logistic
from skspurious.mitigation import _last_layer_heads
from skspurious.pipeline import make_pipeline as make_grouped_pipeline

fidelity = pytest.mark.fidelity

FAST = {"n_draws": 5, "n_tuning_splits": 2, "random_state": 0}
SIZES = [60, 12, 8, 40]


@pytest.fixture(scope="module")
def data():
    """Two classes with a large and a small group each; features on different scales."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), SIZES))
    y, attribute = group // 2, group % 2
    X = rng.normal(size=(120, 6))
    X[:, 0] += 1.5 * y
    X[:, 1] += 3.0 * attribute
    X = X * [1, 10, 0.1, 1, 5, 1] + [0, 3, 0, -7, 0, 1]
    for array in (X, y, group):
        array.flags.writeable = False
    return X, y, group


class Net(nn.Module):
    """Batch normalisation, dropout, and a head of any number of classes."""

    def __init__(self, n_classes=2, bias=True):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.hidden = nn.Linear(6, 5)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, n_classes, bias=bias)

    def embed(self, x):
        return self.dropout(self.hidden(self.norm(x)).relu())

    def forward(self, x):
        return self.head(self.embed(x))


class _Solver:
    """The solver, which remembers what it was asked and what it gave."""

    def __init__(self):
        self.calls = []

    def __call__(self, Z, y, **settings):
        heads = fit_l1_logistic(Z, y, **settings)
        self.calls.append({"Z": Z, "y": y, "heads": heads, **settings})
        return heads


@pytest.fixture
def solver(monkeypatch):
    solver = _Solver()
    monkeypatch.setattr(_last_layer_heads, "fit_l1_logistic", solver)
    return solver


def _validation(X, y, group):
    """Arguments of ``fit`` for validation samples."""
    return {"X_val": X, "y_val": y, "sample_group_val": group}


def make_net(**params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(**params)


# --------------------------------------------------------------------------------------
# The backbone


def _backbone(module):
    return {k: v for k, v in module.state_dict().items() if not k.startswith("head")}


def _assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@fidelity
@pytest.mark.parametrize("held_out", [False, True])
def test_backbone_and_batch_statistics_are_unchanged_bit_for_bit(data, held_out):
    X, y, group = data
    net = make_net()
    net.norm.running_mean += 1.0
    before = copy.deepcopy(net.state_dict())
    clf = LastLayerRetrainer(net, max_epochs=0, C=0.5, **FAST)
    clf.fit(X, y, sample_group=group, **_validation(X, y, group) if held_out else {})
    _assert_same(_backbone(clf.module_), _backbone(net))
    assert not torch.equal(clf.module_.head.weight, before["head.weight"])
    _assert_same(net.state_dict(), before)  # the user's network, head and all
    assert len(clf.history_) == 0
    assert clf.best_epoch_ is None


@fidelity
def test_first_stage_is_plain_training(data):
    X, y, group = data
    shared = {"max_epochs": 3, "lr": 0.1, "batch_size": 32, "random_state": 0}
    valid = _validation(X[:40], y[:40], group[:40])
    clf = LastLayerRetrainer(Net, C=0.5, **shared).fit(X, y, **valid)
    erm = ERMClassifier(Net, **shared).fit(X, y, **valid)
    _assert_same(_backbone(clf.module_), _backbone(erm.module_))
    assert clf.best_epoch_ == erm.best_epoch_
    assert clf.history_["train_loss"].tolist() == erm.history_["train_loss"].tolist()
    assert clf.history_.columns.tolist() == erm.history_.columns.tolist()
    assert not torch.equal(clf.module_.head.weight, erm.module_.head.weight)
    frozen = LastLayerRetrainer(FrozenEstimator(erm), C=0.5, **shared | {"max_epochs": 0})
    frozen.fit(X, y, **valid)
    _assert_same(_backbone(frozen.module_), _backbone(erm.module_))
    assert_allclose(frozen.coef_, clf.coef_)


@fidelity
def test_embeddings_are_those_of_evaluation_mode(data, solver):
    X, y, group = data
    net = make_net()
    LastLayerRetrainer(net, max_epochs=0, C=0.5, **FAST).fit(X, y, sample_group=group)
    net.eval()
    with torch.no_grad():
        Z = net.embed(torch.tensor(X, dtype=torch.float32)).double()
    std, mean = torch.std_mean(Z, 0, correction=0)
    assert_allclose(solver.calls[0]["Z"], (Z - mean) / torch.where(std > 0, std, 1.0), atol=1e-5)


# --------------------------------------------------------------------------------------
# The head


@fidelity
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_folded_head_on_raw_features_is_the_averaged_head_on_standardised_ones(
    data, solver, n_classes, penalty
):
    X, _, group = data
    y = np.arange(120) % n_classes
    clf = LastLayerRetrainer(C=0.5, penalty=penalty, **FAST)
    clf.fit(X, y, sample_group=make_sample_group(y, group % 2))
    (call,) = solver.calls
    assert len(call["heads"].coef) == 5
    W, b = call["heads"].coef.mean(0).numpy(), call["heads"].intercept.mean(0).numpy()
    X = X.astype(np.float32)
    assert_allclose(call["Z"], (X - X.mean(0)) / X.std(0), rtol=1e-4, atol=1e-5)
    expected = call["Z"].numpy() @ W.T + b
    assert_allclose(X @ clf.coef_.T + clf.intercept_, expected, atol=1e-5)
    assert_allclose(clf.decision_function(X), expected.squeeze(), atol=1e-5)
    assert clf.C_ == 0.5
    assert len(clf.tuning_) == 0


@fidelity
def test_head_of_two_classes_is_two_opposite_rows(data):
    X, y, group = data
    clf = LastLayerRetrainer(C=0.5, **FAST).fit(X, y, sample_group=group)
    weight, bias = clf.module_.weight.detach(), clf.module_.bias.detach()
    assert clf.coef_.shape == (1, 6)
    assert torch.equal(weight[0], -weight[1])
    assert_allclose(weight[1], clf.coef_[0] / 2, rtol=1e-6)
    assert_allclose(bias, clf.intercept_[0] / 2 * np.array([-1, 1]), rtol=1e-6)
    assert_allclose(clf.predict_proba(X)[:, 1], 1 / (1 + np.exp(-clf.decision_function(X))))


def test_a_last_layer_without_a_bias_gets_one(data):
    X, y, group = data
    clf = LastLayerRetrainer(make_net(bias=False), max_epochs=0, C=0.5, **FAST)
    clf.fit(X, y, sample_group=group)
    assert_allclose(clf.module_.head.bias.detach(), clf.intercept_[0] * np.array([-0.5, 0.5]))


@fidelity
def test_each_draw_has_as_many_of_each_group_as_the_smallest(data, solver):
    X, y, group = data
    LastLayerRetrainer(C=0.5, **FAST).fit(X, y, sample_group=group)
    weight = solver.calls[0]["sample_weight"].numpy()
    assert weight.shape == (5, 120)
    assert set(np.unique(weight)) == {0.0, 1.0}  # without replacement
    for draw in weight:
        assert_array_equal(np.bincount(group[draw > 0]), [8, 8, 8, 8])
    assert len(np.unique(weight, axis=0)) == 5
    assert (weight[:, group == 2] == 1).all()  # the smallest is always there
    assert weight.any(0)[group == 0].sum() > 20  # others take turns


@fidelity
def test_identical_draws_are_a_single_fit(data):
    X, y, group = data
    even = np.concatenate([np.flatnonzero(group == g)[:8] for g in range(4)])
    many, one = (
        LastLayerRetrainer(C=0.5, n_draws=n, random_state=0).fit(
            X[even], y[even], sample_group=group[even]
        )
        for n in (7, 1)
    )
    assert_array_equal(many.coef_, one.coef_)


@fidelity
def test_head_satisfies_the_l1_conditions_and_weak_C_gives_zero_weights(data, solver):
    X, y, group = data
    clf = LastLayerRetrainer(penalty="l1", C=0.3, tol=1e-6, **FAST).fit(X, y, sample_group=group)
    (call,) = solver.calls
    assert call["penalty"] == "l1"
    assert (call["heads"].violation <= 1e-6).all()
    clf = LastLayerRetrainer(penalty="l1", C=1e-4, **FAST).fit(X, y, sample_group=group)
    assert (clf.coef_ == 0).all()
    assert len(np.unique(clf.predict(X))) == 1


@fidelity
def test_affine_rescaling_of_the_features_changes_nothing(data):
    X, y, group = data
    clf = LastLayerRetrainer(tol=1e-6, **FAST).fit(X, y, sample_group=group)
    moved = X * [-3, 0.01, 7, 1, 100, 2] + [5, 0, -1, 20, 3, 0]
    again = LastLayerRetrainer(tol=1e-6, **FAST).fit(moved, y, sample_group=group)
    assert again.C_ == clf.C_
    assert_allclose(again.decision_function(moved), clf.decision_function(X), atol=1e-3)


def test_a_constant_feature_gets_no_weight(data):
    X, y, group = data
    X = np.column_stack([X, np.full(120, 3.0)])
    clf = LastLayerRetrainer(C=0.5, **FAST).fit(X, y, sample_group=group)
    assert clf.coef_[0, -1] == 0
    assert clf.scale_[-1] == 1


def test_class_weights_multiply_the_loss(data, solver):
    X, y, group = data
    names = np.array(["land", "water"])[y]
    settings = {"C": 0.5, **FAST}
    clf = LastLayerRetrainer(class_weight={"water": 5.0}, **settings)
    clf.fit(X, names, sample_group=group)
    weight = solver.calls[0]["sample_weight"].numpy()
    assert set(np.unique(weight[:, y == 1])) == {0.0, 5.0}
    assert set(np.unique(weight[:, y == 0])) == {0.0, 1.0}
    plain = LastLayerRetrainer(**settings).fit(X, names, sample_group=group)
    assert (clf.predict(X) == "water").sum() > (plain.predict(X) == "water").sum()
    with pytest.raises(ValueError, match=r"class_weight has the classes \['sea'\]"):
        LastLayerRetrainer(class_weight={"sea": 2.0}, **settings).fit(X, names, sample_group=group)


def test_groups_that_cross_classes_are_balanced_inside_them(data, solver):
    X, y, group = data
    LastLayerRetrainer(C=0.5, **FAST).fit(X, y, sample_group=group % 2)
    draw = solver.calls[0]["sample_weight"][0].numpy() > 0
    assert_array_equal(np.bincount(group[draw]), [8, 8, 8, 8])


@fidelity
def test_empty_groups_are_left_out(data):
    X, y, group = data
    valid = _validation(X, y, np.where(group == 2, 9, group))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf = LastLayerRetrainer(**FAST).fit(X, y, sample_group=group, **valid)
    assert clf.groups_.tolist() == [0, 1, 2, 3, 9]  # 2 is empty in X_val
    assert np.isfinite(clf.coef_).all()
    assert clf.tuning_["worst_group_accuracy"].max() > 0  # an empty group is not 0


# --------------------------------------------------------------------------------------
# Weights, the old head, and how the heads are computed


@fidelity
def test_weights_give_every_group_the_mass_of_the_smallest(data, solver):
    X, y, group = data
    clf = LastLayerRetrainer(C=0.5, balance="weights", **FAST).fit(X, y, sample_group=group)
    (call,) = solver.calls
    assert call["sample_weight"].shape == (1, 120)  # one head, on all samples
    assert_allclose(call["sample_weight"][0], (8 / np.array(SIZES))[group])
    assert_allclose(call["heads"].coef[0].numpy() / clf.scale_, clf.coef_)


@fidelity
def test_weights_are_the_share_of_all_balanced_draws(data):
    """Two groups of one and two: the draws have the second's samples in turn."""
    X, y, group = data
    rows = np.concatenate([np.flatnonzero(group == 0)[:2], np.flatnonzero(group == 3)[:1]])
    clf = LastLayerRetrainer(C=5.0, tol=1e-8, balance="weights", penalty="l2", random_state=0)
    clf.fit(X[rows], y[rows], sample_group=group[rows])
    w, b, scale, mean = clf.coef_[0] * clf.scale_, clf.intercept_[0], clf.scale_, clf.mean_
    Z = (X[rows].astype(np.float32) - mean) / scale
    logit = Z @ w + b + clf.coef_[0] @ mean
    slopes = 5.0 * (1 / (1 + np.exp(-logit)) - y[rows])[:, None] * Z
    of_draws = np.mean([slopes[[0, 2]].sum(0), slopes[[1, 2]].sum(0)], axis=0)
    assert_allclose(of_draws, -w, atol=1e-5)  # the optimum of the mean of both objectives


@fidelity
@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_weights_of_even_groups_are_the_draw_of_all(data, penalty):
    X, y, group = data
    even = np.concatenate([np.flatnonzero(group == g)[:8] for g in range(4)])
    draws, weights = (
        LastLayerRetrainer(C=0.5, balance=balance, penalty=penalty, random_state=0)
        .fit(X[even], y[even], sample_group=group[even])
        .coef_
        for balance in ("draws", "weights")
    )
    assert_array_equal(draws, weights)


def test_weights_choose_C_too(data, solver):
    X, y, group = data
    clf = LastLayerRetrainer(Cs=[0.1, 1.0], balance="weights", **FAST)
    clf.fit(X, y, sample_group=group)
    weight = solver.calls[0]["sample_weight"].numpy()
    half = np.array(SIZES) // 2
    for of_half in weight:
        assert_array_equal(np.bincount(group[of_half > 0]), half)
        assert_allclose(np.bincount(group, of_half), [4, 4, 4, 4])
    assert clf.C_ in (0.1, 1.0)


@fidelity
@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_strong_penalty_around_the_old_head_keeps_it(data, n_classes, penalty):
    X, _, group = data
    y = np.arange(120) % n_classes
    net = make_net(n_classes=n_classes)
    clf = LastLayerRetrainer(
        net, max_epochs=0, C=1e-6, penalty=penalty, penalty_center="head", **FAST
    ).fit(X, y, sample_group=make_sample_group(y, group % 2))
    old, new = net.head.weight.detach(), clf.module_.head.weight.detach()
    differences = [w - w.mean(0) for w in (old, new)]  # what is common to all rows says nothing
    assert_allclose(*differences, atol=1e-4)
    freed = clf.set_params(C=1.0).fit(X, y, sample_group=make_sample_group(y, group % 2))
    new = freed.module_.head.weight.detach()
    assert (new - new.mean(0) - differences[0]).abs().max() > 0.1


def test_embeddings_have_no_old_head(data):
    X, y, group = data
    with pytest.raises(ValueError, match="penalty_center='head' pulls to the last layer"):
        LastLayerRetrainer(penalty_center="head").fit(X, y, sample_group=group)
    erm = ERMClassifier(max_epochs=2, random_state=0).fit(X, y)
    clf = LastLayerRetrainer(
        FrozenEstimator(erm), max_epochs=0, C=1e-6, penalty="l2", penalty_center="head", **FAST
    ).fit(X, y, sample_group=group)
    weight = erm.module_.weight.detach()
    assert_allclose(clf.coef_[0], weight[1] - weight[0], atol=1e-4)


@fidelity
@pytest.mark.parametrize("most", [0.0, 1.0])  # the first alone and then the others, or each alone
@pytest.mark.parametrize("settings", [{}, {"balance": "weights"}, {"penalty": "l2"}])
def test_heads_one_by_one_are_those_of_one_batch(data, monkeypatch, settings, most):
    X, y, group = data
    params = {"tol": 1e-8, **FAST, **settings}
    together = LastLayerRetrainer(**params).fit(X, y, sample_group=group)
    monkeypatch.setattr(_last_layer_heads, "_FEW_NUMBERS", {"cpu": 0, "cuda": 0})
    monkeypatch.setattr(_last_layer_heads, "_MOST", most)
    alone = LastLayerRetrainer(**params).fit(X, y, sample_group=group)
    assert alone.C_ == together.C_
    assert_allclose(alone.coef_, together.coef_, atol=1e-5)
    assert_allclose(alone.tuning_["worst_group_accuracy"], together.tuning_["worst_group_accuracy"])


def test_the_grid_follows_the_penalty(data):
    X, y, group = data
    l1, l2 = (
        LastLayerRetrainer(penalty=penalty, **FAST).fit(X, y, sample_group=group).tuning_["C"]
        for penalty in ("l1", "l2")
    )
    # The paper's, and weaker penalties since there are few features.
    assert l1.tolist() == [100.0, 10.0, 1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01]
    assert (l2.iloc[0], l2.iloc[2], l2.iloc[-1]) == (100.0, 1.0, 0.0001)


@pytest.mark.parametrize(("n_smallest", "penalty"), [(19, "l2"), (20, "l1")])
def test_few_samples_in_the_smallest_group_get_l2(n_smallest, penalty):
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [60, 60, n_smallest])
    y = (group > 0).astype(int)
    X = rng.normal(size=(len(y), 3)) + y[:, None]
    clf = LastLayerRetrainer(random_state=0, n_draws=2, n_tuning_splits=1)
    clf.fit(X, y, sample_group=group)
    assert clf.penalty_ == penalty
    # Three features, and more balanced samples: weaker penalties are tried as well.
    assert clf.tuning_["C"].max() == 100.0


# --------------------------------------------------------------------------------------
# What the head is fitted on


@fidelity
def test_only_held_out_samples_have_an_influence(data):
    X, y, group = data
    held_out = (X[:60], y[:60], group[:60])
    clf = LastLayerRetrainer(**FAST).fit(X[60:], y[60:], **_validation(*held_out))
    other = LastLayerRetrainer(**FAST).fit(X[60:][::-1], 1 - y[60:], **_validation(*held_out))
    assert_array_equal(other.coef_, clf.coef_)
    both = LastLayerRetrainer(**FAST)
    both.fit(X[60:], y[60:], sample_group=group[60:], **_validation(*held_out))
    assert_array_equal(both.coef_, clf.coef_)
    alone = LastLayerRetrainer(**FAST).fit(*held_out[:2], sample_group=held_out[2])
    assert_allclose(alone.coef_, clf.coef_)
    assert clf.used_group_labels_ == {"train": False, "validation": True}
    assert alone.used_group_labels_ == {"train": True, "validation": False}


@fidelity
@pytest.mark.parametrize(
    ("retrain_on", "rows"), [("train", slice(60, None)), ("validation", slice(60))]
)
def test_features_are_standardised_by_the_samples_that_the_head_is_fitted_on(
    data, retrain_on, rows
):
    X, y, group = data
    held_out = (X[:60], y[:60], group[:60])
    X = X.astype(np.float32)
    clf = LastLayerRetrainer(C=0.5, retrain_on=retrain_on, **FAST)
    clf.fit(X[60:], y[60:], sample_group=group[60:], **_validation(*held_out))
    assert_allclose(clf.mean_, X[rows].mean(0), rtol=1e-5, atol=1e-6)
    assert_allclose(clf.scale_, X[rows].std(0), rtol=1e-5)


@fidelity
def test_training_samples_if_asked_for(data):
    X, y, group = data
    held_out = (X[:60], y[:60], group[:60])
    clf = LastLayerRetrainer(retrain_on="train", C=0.5, **FAST)
    clf.fit(X[60:], y[60:], sample_group=group[60:], **_validation(*held_out))
    alone = LastLayerRetrainer(C=0.5, **FAST).fit(X[60:], y[60:], sample_group=group[60:])
    assert_array_equal(clf.coef_, alone.coef_)
    assert clf.used_group_labels_ == {"train": True, "validation": True}


@fidelity
def test_group_labels_that_were_used(data):
    X, y, group = data

    def used(*, X=X, **fit):
        clf = LastLayerRetrainer(C=0.5, **FAST).fit(X, y, **fit)
        return tuple(clf.used_group_labels_.values())

    assert used(sample_group=group) == (True, False)
    assert used(X=GroupedData(X, group)) == (True, False)
    assert used(X_val=X, y_val=y, sample_group_val=group) == (False, True)
    assert used(X_val=GroupedData(X, group), y_val=y) == (False, True)
    assert used(sample_group=group, X_val=X, y_val=y, sample_group_val=group) == (False, True)


def test_missing_groups_and_classes_are_errors_before_training(data):
    X, y, group = data

    class Untouched(nn.Module):
        def __init__(self):
            raise AssertionError("the network was built")

    with pytest.raises(ValueError, match="needs the group of every training sample"):
        LastLayerRetrainer(Untouched).fit(X, y)
    with pytest.raises(ValueError, match=r"needs the group of each of its samples.*sample_group"):
        LastLayerRetrainer(Untouched).fit(X, y, sample_group=group, X_val=X, y_val=y)
    with pytest.raises(ValueError, match=r"retrain_on='validation' needs fit\(..., X_val="):
        LastLayerRetrainer(Untouched, retrain_on="validation").fit(X, y, sample_group=group)
    clf = LastLayerRetrainer(Untouched, retrain_on="validation", early_stopping=True)
    with pytest.raises(ValueError, match="retrain_on='validation' needs fit"):  # not its own part
        clf.fit(X, y, sample_group=group)
    one = y == 0
    with pytest.raises(ValueError, match=r"none of the classes \[1\]"):
        LastLayerRetrainer(Untouched).fit(
            X, y, X_val=X[one], y_val=y[one], sample_group_val=group[one]
        )


class _Backwards(nn.Module):
    """Registers its last layer first."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 2)
        self.first = nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.first(x))


def test_a_last_layer_that_is_none_is_an_error(data):
    X, y, group = data
    with pytest.raises(ValueError, match="has 5 outputs for 2 classes"):
        LastLayerRetrainer(_Backwards, max_epochs=0).fit(X, y, sample_group=group)


# --------------------------------------------------------------------------------------
# Choice of C


@fidelity
def test_C_is_chosen_on_the_other_half_of_the_samples(data, solver):
    X, y, group = data
    Cs = [1.0, 0.1, 0.02]
    clf = LastLayerRetrainer(Cs=Cs, **FAST | {"n_tuning_splits": 3}).fit(X, y, sample_group=group)
    tuning, final = solver.calls[:-1], solver.calls[-1]
    assert [call["C"] for call in tuning] == [0.02, 0.1, 1.0]  # each starts from the one below
    assert tuning[1]["start"] is tuning[0]["heads"]
    weight = tuning[0]["sample_weight"].numpy()
    assert len(weight) == 3
    for draw in weight:  # halves of 8 are 4
        assert_array_equal(np.bincount(group[draw > 0]), [4, 4, 4, 4])
    assert clf.tuning_["C"].tolist() == Cs
    best = clf.tuning_["worst_group_accuracy"].to_numpy()
    assert clf.C_ == Cs[best.argmax()] == final["C"]
    assert (weight > 0).sum() < (final["sample_weight"] > 0).sum()


@fidelity
def test_heads_of_the_grid_are_judged_by_the_worst_group_and_not_by_the_worst_class():
    """On validation samples; of groups that are equal, a draw is all of them."""
    train = make_spurious_classification(160, correlation_strength=0.5, random_state=3)
    valid = make_spurious_classification(300, correlation_strength=0.9, random_state=53)
    group = train.sample_group
    even = np.concatenate([np.flatnonzero(group == g)[:12] for g in range(4)])
    fit = {"X": train.data[even], "y": train.target[even], "sample_group": group[even]}
    fit |= _validation(valid.data, valid.target, valid.sample_group)
    Cs, params = [3.0, 0.3, 0.1], {"retrain_on": "train", "random_state": 0}
    tuning = LastLayerRetrainer(Cs=Cs, n_tuning_splits=1, **params).fit(**fit).tuning_
    assert (tuning["n_nonzero"] > 0).all()
    for C, found in zip(Cs, tuning["worst_group_accuracy"]):
        hit = LastLayerRetrainer(C=C, **params).fit(**fit).predict(valid.data) == valid.target
        of_groups = [hit[valid.sample_group == g].mean() for g in range(4)]
        of_classes = [hit[valid.target == k].mean() for k in (0, 1)]
        assert found == pytest.approx(min(of_groups))
        assert min(of_groups) < min(of_classes)


@fidelity
def test_C_is_that_of_the_best_worst_group(data, monkeypatch):
    X, y, group = data
    table = pd.DataFrame({"C": [1.0, 0.5, 0.2], "worst_group_accuracy": [0.3, 0.6, 0.5]})
    table["accuracy"] = [0.9, 0.7, 0.8]
    monkeypatch.setattr(_last_layer_heads.HeadSearch, "_tune", lambda self, rng: table)
    clf = LastLayerRetrainer(Cs=table["C"], **FAST).fit(X, y, sample_group=group)
    assert clf.C_ == 0.5


@fidelity
def test_C_is_judged_on_rows_that_the_head_was_not_fitted_on(data):
    """Labels that mean nothing are learned by heart, and not predicted for other rows."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 200)), np.repeat([0, 1], 40)
    clf = LastLayerRetrainer(Cs=[10.0], **FAST).fit(X, y, sample_group=y)
    assert clf.score(X, y) == 1.0
    assert clf.tuning_["accuracy"][0] < 0.7


@fidelity
def test_ties_go_to_the_first_of_the_grid(data):
    X, y, group = data
    for Cs in ([2.0, 1.999, 2.001], [1.999, 2.001, 2.0]):
        clf = LastLayerRetrainer(Cs=Cs, **FAST).fit(X, y, sample_group=group)
        assert clf.tuning_["worst_group_accuracy"].nunique() == 1
        assert Cs.index(clf.C_) == 0


@fidelity
def test_tuning_of_a_head_on_training_samples_is_judged_on_the_validation_samples(data):
    X, y, group = data
    held_out = (X[:60], y[:60], group[:60])
    clf = LastLayerRetrainer(retrain_on="train", Cs=[0.2], n_tuning_splits=1, random_state=0)
    clf.fit(X[60:], y[60:], sample_group=group[60:], **_validation(*held_out))
    worst = clf.tuning_["worst_group_accuracy"][0]
    # With one draw for tuning and one at the end, of groups that are equal, they are the same.
    even = np.concatenate([60 + np.flatnonzero(group[60:] == g)[:3] for g in range(4)])
    clf.fit(X[even], y[even], sample_group=group[even], **_validation(*held_out))
    worst = clf.tuning_["worst_group_accuracy"][0]
    assert worst == clf.score(*held_out[:2], sample_group=held_out[2])


@pytest.fixture(scope="module")
def inferrer():
    return SpuriousGroupInferrer(method="error", random_state=0, device="cpu")


@pytest.fixture(scope="module")
def shortcut():
    """Training samples and held-out samples, with their labels."""
    parts = [
        make_spurious_classification(400, correlation_strength=0.9, random_state=s) for s in (0, 1)
    ]
    return [(part.data.astype(np.float32), part.target) for part in parts]


@fidelity
def test_halves_are_stratified_by_inferred_groups_and_judged_by_them(shortcut, inferrer, solver):
    X, y = shortcut[0]
    clf = LastLayerRetrainer(group_inferrer=inferrer, Cs=[0.3], **FAST).fit(X, y)
    group = clf.group_inferrer_.labels_
    sizes = np.bincount(group)
    for weight in solver.calls[0]["sample_weight"].numpy():
        in_draw = np.bincount(group[weight > 0])
        assert len(set(in_draw)) == 1
        assert abs(in_draw[0] - sizes.min() / 2) <= 1
    same = LastLayerRetrainer(Cs=[0.3], **FAST).fit(X, y, sample_group=group)
    assert_array_equal(clf.coef_, same.coef_)
    assert clf.tuning_.equals(same.tuning_)
    assert clf.used_group_labels_ == {"train": False, "validation": False}


@fidelity
@pytest.mark.parametrize("network", [False, True])
def test_inferred_groups_of_held_out_samples_choose_C(shortcut, inferrer, network):
    (X, y), (X_val, y_val) = shortcut
    module = nn.Sequential(nn.Linear(X.shape[1], 4), nn.ReLU(), nn.Linear(4, 2))
    shared = {"module": module, "max_epochs": 2, "retrain_on": "train", **FAST} if network else FAST
    clf = LastLayerRetrainer(
        **{"retrain_on": "train", "group_inferrer": inferrer, "Cs": [0.3, 0.1], **shared}
    ).fit(X, y, X_val=X_val, y_val=y_val)
    known = clf.group_inferrer_
    given = {"sample_group_val": known.predict(X_val, y_val), "X_val": X_val, "y_val": y_val}
    same = LastLayerRetrainer(**{"retrain_on": "train", "Cs": [0.3, 0.1], **shared})
    same.fit(X, y, sample_group=known.labels_, **given)
    assert clf.tuning_.equals(same.tuning_)
    assert_array_equal(clf.coef_, same.coef_)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    assert same.used_group_labels_ == {"train": True, "validation": True}


def test_inferred_groups_inside_a_search_and_a_pipeline(shortcut, inferrer):
    (X, y), _ = shortcut
    clf = LastLayerRetrainer(group_inferrer=inferrer, C=0.3, **FAST)
    grid = {"penalty": ["l1", "l2"], "balance": ["draws", "weights"]}
    search = GridSearchCV(clf, grid, cv=2, scoring=worst_group_scorer, error_score="raise")
    search.fit(X, y)
    assert search.best_params_.keys() == grid.keys()
    for make in (make_pipeline, make_grouped_pipeline):
        pipeline = make(StandardScaler(), clf).fit(X, y)
        alone = clone(clf).fit(StandardScaler().fit_transform(X), y)
        assert_allclose(pipeline[-1].coef_, alone.coef_)


def test_tuning_needs_a_sample_to_judge_on(data):
    X, y, group = data
    rows = [np.flatnonzero(group == g)[0] for g in range(4)]
    with pytest.raises(ValueError, match="every group has one sample"):
        LastLayerRetrainer().fit(X[rows], y[rows], sample_group=group[rows])
    LastLayerRetrainer(C=1.0).fit(X[rows], y[rows], sample_group=group[rows])


@pytest.mark.parametrize("Cs", [[], [0.0, 1.0], [[1.0]], [-1.0]])
def test_a_grid_that_is_none_is_an_error(data, Cs):
    X, y, group = data
    with pytest.raises(ValueError, match="Cs must be one or more positive numbers"):
        LastLayerRetrainer(Cs=Cs, **FAST).fit(X, y, sample_group=group)


def test_iterations_that_run_out_are_a_warning(data):
    X, y, group = data
    with pytest.warns(ConvergenceWarning, match=r"5 of 5 heads did not reach tol=1e-09"):
        LastLayerRetrainer(C=1.0, tol=1e-9, max_iter=2, **FAST).fit(X, y, sample_group=group)


# --------------------------------------------------------------------------------------
# Effect


def _reliance(coef, bunch):
    """Weight of the spurious features against that of the core features, both standardised."""
    w = coef[-1] * bunch.data.std(0)
    return np.linalg.norm(w[bunch.spurious_features]) / np.linalg.norm(w[bunch.core_features])


@fidelity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_worst_group_is_far_above_that_of_erm_and_the_shortcut_weighs_less(seed):
    train, valid = (
        make_spurious_classification(1500, correlation_strength=0.95, random_state=s)
        for s in (seed, 50 + seed)
    )
    test = make_spurious_classification(2000, correlation_strength=0.5, random_state=100 + seed)

    def worst(clf):
        return clf.score(test.data, test.target, sample_group=test.sample_group)

    erm = ERMClassifier(max_epochs=15, lr=0.05, random_state=seed).fit(train.data, train.target)
    held_out = LastLayerRetrainer(random_state=seed).fit(
        train.data,
        train.target,
        X_val=valid.data,
        y_val=valid.target,
        sample_group_val=valid.sample_group,
    )
    on_train = LastLayerRetrainer(random_state=seed).fit(
        train.data, train.target, sample_group=train.sample_group
    )
    ratio = _reliance(erm.module_.weight.detach().numpy(), train)
    for clf in (held_out, on_train):
        # the core features allow 0.89; ERM has 0.46 to 0.6, on about 500 rows a group
        assert worst(clf) > worst(erm) + 0.2
        assert worst(clf) > 0.8
        assert _reliance(clf.coef_, train) < 0.3 * ratio


def test_without_a_shortcut_little_is_lost():
    train, test = (
        make_spurious_classification(1500, correlation_strength=0.5, random_state=s) for s in (0, 1)
    )
    erm = ERMClassifier(max_epochs=15, lr=0.05, random_state=0).fit(train.data, train.target)
    clf = LastLayerRetrainer(random_state=0).fit(
        train.data, train.target, sample_group=train.sample_group
    )
    assert clf.score(test.data, test.target) > erm.score(test.data, test.target) - 0.03


@fidelity
def test_several_classes_end_to_end():
    train, valid, test = (
        make_spurious_classification(
            900, n_classes=3, correlation_strength=c, core_separation=4.0, random_state=s
        )
        for s, c in enumerate([0.98, 0.9, 1 / 3])
    )
    n_features = train.data.shape[1]
    shared = {"max_epochs": 6, "lr": 0.05, "random_state": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(n_features, 16), nn.ReLU(), nn.Linear(16, 3))
    valid = _validation(valid.data, valid.target, valid.sample_group)
    erm = ERMClassifier(net, **shared).fit(train.data, train.target)
    clf = LastLayerRetrainer(net, **shared).fit(train.data, train.target, **valid)
    worst = [c.score(test.data, test.target, sample_group=test.sample_group) for c in (erm, clf)]
    assert worst[1] > worst[0] + 0.1
    assert clf.coef_.shape == (3, 16)
    assert clf.decision_function(test.data).shape == (900, 3)


def test_seeds_draw_other_subsets(data):
    X, y, group = data
    first, again, other = (
        LastLayerRetrainer(C=0.5, n_draws=2, random_state=s).fit(X, y, sample_group=group).coef_
        for s in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert not np.allclose(first, other)
