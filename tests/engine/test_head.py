"""Linear heads that are fitted to the minimum of their loss."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import BalancedRetrainer, ERMClassifier, GroupDROClassifier, TorchFeatureExtractor
from skspurious._engine import _samplers as samplers
from skspurious._engine._objective import Objective, WeightedLoss
from skspurious.base import BaseTorchClassifier
from skspurious.callbacks import Callback
from skspurious.datasets import make_spurious_classification
from skspurious.functional import _linear_head


@pytest.fixture(scope="module")
def data():
    """Two classes that overlap, four groups, features of unequal scale."""
    bunch = make_spurious_classification(300, correlation_strength=0.8, random_state=0)
    X = bunch.data + np.random.default_rng(0).normal(size=bunch.data.shape)
    return (
        (X * np.linspace(0.5, 2, X.shape[1])).astype(np.float32),
        bunch.target,
        bunch.sample_group,
    )


@pytest.fixture(scope="module")
def three_classes():
    rng = np.random.default_rng(1)
    y = rng.integers(3, size=200)
    return (rng.normal(size=(200, 4)) + 0.7 * np.eye(3, 4)[y]).astype(np.float32), y


def head_of(clf):
    """Weights and biases of the outputs, their mean over the classes taken off."""
    weight, bias = (p.detach().double().numpy() for p in clf.module_.parameters())
    return weight - weight.mean(0), bias - bias.mean()


def assert_same_head(one, other, atol=2e-4):
    for ours, theirs in zip(head_of(one), head_of(other), strict=True):
        assert_allclose(ours, theirs, atol=atol)


# --------------------------------------------------------------------------------------
# The minimum


@pytest.mark.parametrize("weight_decay", [0.01, 0.3])
def test_two_classes_are_logistic_regression(data, weight_decay):
    X, y, _ = data
    clf = ERMClassifier(weight_decay=weight_decay).fit(X, y)
    # Each output has half of the logit: the penalty of both is a quarter of its square.
    sk = LogisticRegression(C=2 / (weight_decay * len(y)), tol=1e-8, max_iter=5000).fit(X, y)
    weight, bias = head_of(clf)
    assert_allclose(weight[1] - weight[0], sk.coef_[0], atol=1e-3)
    assert_allclose(bias[1] - bias[0], sk.intercept_[0], atol=1e-3)
    assert_allclose(clf.predict_proba(X), sk.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_three_classes_are_softmax_regression(three_classes, class_weight):
    X, y = three_classes
    y = np.where(y == 2, np.arange(len(y)) % 3, y)  # unequal classes
    clf = BalancedRetrainer if class_weight else ERMClassifier
    clf = clf(weight_decay=0.02, **({"by": "class"} if class_weight else {})).fit(X, y)
    C = 1 / (0.02 * len(y))
    sk = LogisticRegression(C=C, class_weight=class_weight, tol=1e-8, max_iter=5000).fit(X, y)
    weight, bias = head_of(clf)
    assert_allclose(weight, sk.coef_, atol=1e-3)
    assert_allclose(bias, sk.intercept_ - sk.intercept_.mean(), atol=1e-3)


def test_weight_decay_is_chosen_as_if_the_features_were_standardised(data):
    X, y, group = data
    clf = ERMClassifier().fit(X, y)
    decay = 5e-5 * X.shape[1]
    assert clf.history_["weight_decay"].item() == pytest.approx(decay)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    by_hand = ERMClassifier(weight_decay=decay).fit(Z, y)
    assert_allclose(clf.predict_proba(X), by_hand.predict_proba(Z), atol=1e-4)
    moved = X * 2.0 ** np.arange(-3, X.shape[1] - 3) + 5.0
    again = ERMClassifier().fit(moved, y)
    assert_allclose(again.predict_proba(moved), clf.predict_proba(X), atol=1e-4)
    # By groups the effective number of samples is less: (sum of weights)² / sum of squares.
    weight = 1 / np.bincount(group)[group]
    times = len(y) * (weight**2).sum() / weight.sum() ** 2
    balanced = BalancedRetrainer().fit(X, y, sample_group=group)
    assert balanced.history_["weight_decay"].item() == pytest.approx(decay * times)


def test_columns_that_are_constant_have_no_weight(data):
    X, y, _ = data
    clf = ERMClassifier().fit(np.column_stack([X, np.full(len(X), 0.1)]), y)
    assert_array_equal(clf.module_.weight[:, -1].detach(), 0)
    # As one feature less, but for the bias.
    other = ERMClassifier().fit(X, y)
    assert_allclose(head_of(clf)[0][:, :-1], head_of(other)[0], atol=1e-4)


@pytest.mark.parametrize(
    "clf",
    [
        ERMClassifier(),
        BalancedRetrainer(by="class"),
        BalancedRetrainer(balance="weights"),
        GroupDROClassifier(),
        GroupDROClassifier(update="cvar", balance=None),
    ],
    ids=lambda clf: str(clf)[:40],
)
def test_order_scale_of_weights_seed_and_initial_weights_change_nothing(data, clf):
    X, y, group = data
    first = copy.deepcopy(clf).set_params(random_state=0).fit(X, y, sample_group=group)
    order = np.random.default_rng(0).permutation(len(y))
    weight = np.full(len(y), 0.125)
    given = {"sample_group": group[order], "sample_weight": weight}
    other = copy.deepcopy(clf).set_params(random_state=7).fit(X[order], y[order], **given)
    assert_same_head(first, other)


@pytest.mark.parametrize(
    "clf", [ERMClassifier(), GroupDROClassifier()], ids=["plain", "worst group"]
)
def test_a_weight_of_two_is_two_copies_and_of_zero_none(data, clf):
    X, y, group = data
    weight = np.random.default_rng(0).integers(0, 4, size=len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    weighted = copy.deepcopy(clf).fit(X, y, sample_group=group, sample_weight=weight)
    copies = copy.deepcopy(clf).fit(X[rows], y[rows], sample_group=group[rows])
    assert_same_head(weighted, copies)
    assert_allclose(weighted.history_["weight_decay"], copies.history_["weight_decay"])


def test_all_ways_to_balance_have_one_minimum(data):
    X, y, group = data
    fits = [
        BalancedRetrainer(balance=balance, weight_decay=0.1).fit(X, y, sample_group=group)
        for balance in ("sampling", "batches", "weights")
    ]
    uniform = GroupDROClassifier(step_size=0, weight_decay=0.1).fit(X, y, sample_group=group)
    for other in (*fits[1:], uniform):
        assert_same_head(fits[0], other)
    subset = BalancedRetrainer(balance="subsampling", weight_decay=0.1, random_state=0)
    subset.fit(X, y, sample_group=group)
    alone = ERMClassifier(weight_decay=0.1).fit(X[subset.subset_], y[subset.subset_])
    assert_same_head(subset, alone)


# --------------------------------------------------------------------------------------
# The worst group


def losses_of(theta, X, y):
    """Losses of two classes with one logit."""
    return np.logaddexp(0, (1 - 2 * y) * (X @ theta[1:] + theta[0]))


def group_values(theta, X, y, group, adjustment=0.0):
    size = np.bincount(group)
    return np.bincount(group, losses_of(theta, X, y)) / size + adjustment / np.sqrt(size)


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_group_dro_is_the_minimum_of_the_worst_group(data, adjustment):
    X, y, group = data
    X = X[:, :3].astype(np.float64)
    decay = 0.05
    clf = GroupDROClassifier(weight_decay=decay, adjustment=adjustment)
    clf.fit(X, y, sample_group=group)
    # min t + penalty, where t is at least the value of every group; both outputs have half a logit.
    found = minimize(
        lambda v: v[0] + decay / 4 * (v[2:] ** 2).sum(),
        np.r_[1.0, np.zeros(4)],
        method="SLSQP",
        constraints={
            "type": "ineq",
            "fun": lambda v: v[0] - group_values(v[1:], X, y, group, adjustment),
        },
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    weight, bias = head_of(clf)
    ours = np.r_[bias[1] - bias[0], weight[1] - weight[0]]
    assert_allclose(ours, found.x[1:], atol=5e-3)
    value = group_values(ours, X, y, group, adjustment)
    assert value.max() + decay / 4 * (ours[1:] ** 2).sum() < found.fun + 1e-4
    # Weight is on the groups that are worst, and on no other.
    assert clf.group_weights_.sum() == pytest.approx(1)
    assert clf.group_weights_ @ value == pytest.approx(value.max(), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.3, 0.6])
def test_cvar_is_no_lower_anywhere_near(data, alpha):
    X, y, group = data
    X = X[:, :3].astype(np.float64)
    clf = GroupDROClassifier(update="cvar", cvar_alpha=alpha, weight_decay=0.05)
    clf.fit(X, y, sample_group=group)
    share = np.bincount(group) / len(y)

    def value(theta):
        loss = group_values(theta, X, y, group)
        left, total = 1.0, 0.0
        for g in np.argsort(-loss):  # the worst first, each at most share / alpha
            taken = min(left, share[g] / alpha)
            left, total = left - taken, total + taken * loss[g]
        return total + 0.05 / 4 * (theta[1:] ** 2).sum()

    weight, bias = head_of(clf)
    ours = np.r_[bias[1] - bias[0], weight[1] - weight[0]]
    rng = np.random.default_rng(0)
    near = [value(ours + step) for step in rng.normal(size=(300, 4)) * 0.05]
    assert min(near) > value(ours) - 1e-5
    assert (clf.group_weights_ <= share / alpha + 1e-6).all()


def test_cvar_of_all_samples_is_plain_training(data):
    X, y, group = data
    cvar = GroupDROClassifier(update="cvar", cvar_alpha=1, balance=None, weight_decay=0.1)
    cvar.fit(X, y, sample_group=group)
    assert_same_head(cvar, ERMClassifier(weight_decay=0.1).fit(X, y), atol=1e-3)


# --------------------------------------------------------------------------------------
# When


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "sgd"},
        {"lr": 0.01},
        {"max_epochs": 10},
        {"optimizer_params": {"momentum": 0.9}},
        {"lr_schedule": "cosine"},
        {"max_grad_norm": 5.0},
        {"early_stopping": True, "n_epochs_no_change": 10},
        {"train_transform": torch.clone},
        {"module": nn.Linear(8, 2)},
    ],
    ids=lambda params: next(iter(params)),
)
def test_a_parameter_of_the_steps_takes_the_steps(data, params):
    X, y, _ = data
    clf = ERMClassifier(random_state=0, **params).fit(X[:, :8], y)
    assert len(clf.history_) == 10
    assert "lr" in clf.history_
    assert "n_iter" not in clf.history_


def test_auto_is_the_sgd_that_it_says(data):
    X, y, _ = data
    module = nn.Linear(X.shape[1], 2)
    named = {"optimizer": "sgd", "lr": 0.01, "max_epochs": 10, "weight_decay": 0.0}
    one, other = (
        ERMClassifier(module, random_state=0, **params).fit(X, y) for params in ({}, named)
    )
    assert torch.equal(one.module_.weight, other.module_.weight)


def test_adjustment_that_follows_the_epochs_takes_the_steps(data):
    X, y, group = data
    clf = GroupDROClassifier(adjustment="auto", random_state=0)
    clf.fit(X, y, sample_group=group, X_val=X, y_val=y, sample_group_val=group)
    assert len(clf.history_) == 10


class Squared(Objective):
    def coefficients(self, losses, batch, runtime):
        return losses * super().coefficients(losses, batch, runtime)


class Harder(WeightedLoss):
    def coefficients(self, losses, batch, runtime):
        return losses * super().coefficients(losses, batch, runtime)


@pytest.mark.parametrize("objective", [Squared(), Harder([1.0, 2.0], by="class")])
def test_a_loss_that_is_no_mean_takes_the_steps(data, objective):
    class Method(BaseTorchClassifier):
        def _make_objective(self, data):
            return objective

    X, y, _ = data
    assert len(Method(random_state=0).fit(X, y).history_) == 10


def test_a_loss_of_weights_is_fitted_to_the_minimum(data):
    class Method(BaseTorchClassifier):
        def _make_objective(self, data):
            return WeightedLoss([1.0, 2.0], by="class")

    X, y, _ = data
    clf = Method(weight_decay=0.1).fit(X, y)
    assert len(clf.history_) == 1


# --------------------------------------------------------------------------------------
# What is left


class Record(Callback):
    def __init__(self):
        self.seen = []

    def on_train_begin(self, *, max_epochs, **kwargs):
        self.seen.append(max_epochs)

    def on_epoch_end(self, *, row, **kwargs):
        self.seen.append(row["epoch"])

    def on_train_end(self, *, history, **kwargs):
        self.seen.append(len(history))


def test_history_validation_and_callbacks(data, tmp_path):
    X, y, group = data
    record = Record()
    clf = ERMClassifier(callbacks=[record], checkpoint_dir=tmp_path, random_state=0)
    val = {"X_val": X[:90], "y_val": y[:90], "sample_group_val": group[:90]}
    clf.fit(X, y, sample_group=group, **val)
    assert record.seen == [1, 1, 1]
    row = clf.history_.iloc[0]
    assert clf.best_epoch_ == 1
    assert len(clf.history_) == 1
    assert row["n_iter"] >= 1
    assert row["train_accuracy"] == pytest.approx((clf.predict(X) == y).mean())
    score = clf.score(X[:90], y[:90], sample_group=group[:90])
    assert row["valid_worst_group_accuracy"] == pytest.approx(score)
    assert row["train_accuracy[0]"] == pytest.approx((clf.predict(X) == y)[group == 0].mean())
    without = ERMClassifier().fit(X, y)
    assert without.best_epoch_ is None
    assert_array_equal(without.predict_proba(X), clf.predict_proba(X))


def test_pictures_are_flattened_and_scaled():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = (rng.integers(0, 200, (40, 1, 5, 6)) + 20 * y[:, None, None, None]).astype(np.uint8)
    clf = ERMClassifier().fit(X, y)
    flat = ERMClassifier().fit(X.reshape(40, -1) / 255, y)
    assert_allclose(clf.predict_proba(X), flat.predict_proba(X.reshape(40, -1) / 255), atol=1e-4)


def test_a_head_that_is_not_at_its_minimum_says_so(data, monkeypatch):
    X, y, _ = data
    monkeypatch.setattr(_linear_head, "MAX_ITER", 3)
    with pytest.warns(ConvergenceWarning, match="has not converged"):
        ERMClassifier().fit(X, y)


def test_an_epoch_can_be_chosen_of_a_head_by_default(data):
    X, y, _ = data
    scores = iter(range(100))
    extractor = TorchFeatureExtractor(
        ERMClassifier(random_state=0), output="logits", epoch_selector=lambda *_: next(scores)
    )
    assert len(extractor.fit(X, y).epoch_scores_) == 10
    assert extractor.estimator_.max_epochs == "auto"


GROUP = np.array([0, 0, 0, 0, 0, 2, 2, 3])


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.UniformSampler(8, seed=0),
        samplers.WeightedSampler([0, 1, 2, 0, 1, 1, 5, 1], seed=0),
        samplers.SubsetSampler([1, 1, 6], seed=0),
        samplers.BalancedSubsetSampler(GROUP, seed=0),
        samplers.BalancedBatchSampler(GROUP, batch_size=4, seed=0),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_frequencies_are_those_of_many_epochs(sampler):
    rows = np.concatenate([sampler(epoch).numpy() for epoch in range(4000)])
    seen = np.bincount(rows, minlength=8) / len(rows)
    frequency = sampler.frequency(8)
    assert_allclose(frequency / frequency.sum(), seen, atol=0.01)
