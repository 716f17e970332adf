"""SELFClassifier: the last layer is trained on for the samples that networks disagree about."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import Net, small_shortcut
from sklearn.frozen import FrozenEstimator

from skspurious import ERMClassifier, SELFClassifier, worst_group_accuracy
from skspurious.datasets import make_spurious_classification

fidelity = pytest.mark.fidelity

FAST = {"max_epochs": 3, "batch_size": 32, "lr": 0.05, "random_state": 0}
SELECTIONS = [
    "early_stop_disagreement",
    "dropout_disagreement",
    "misclassification",
    "early_stop_misclassification",
]


@pytest.fixture(scope="module")
def data():
    return small_shortcut(300)


def _fit_on_the_same_part(clf, X, y, n_epochs):
    """Plain training on the part of X that a fit did not select from."""
    was_trained_on = np.isnan(clf.selection_scores_)
    erm = ERMClassifier(clf.module, **FAST | {"max_epochs": n_epochs, "monitor": None})
    return erm.fit(X[was_trained_on], y[was_trained_on])


@fidelity
@pytest.mark.parametrize("selection", SELECTIONS)
def test_scores_are_what_the_networks_make_of_held_out_rows(data, selection):
    X, y, _ = data
    clf = SELFClassifier(Net, selection=selection, n_selected=10, **FAST).fit(X, y)
    scores = clf.selection_scores_
    held_out = ~np.isnan(scores)
    assert_array_equal(np.bincount(y[held_out]), np.bincount(y) // 5)
    late, early = (_fit_on_the_same_part(clf, X, y, n) for n in (3, 1))
    p, q = (np.log(c.predict_proba(X[held_out])) for c in (late, early))
    own = np.arange(held_out.sum()), y[held_out]
    if selection == "early_stop_disagreement":
        assert_allclose(scores[held_out], (np.exp(p) * (p - q)).sum(1), atol=1e-5)
    elif selection == "misclassification":
        assert_allclose(scores[held_out], -p[own], rtol=1e-4, atol=1e-6)
    elif selection == "early_stop_misclassification":
        assert_allclose(scores[held_out], -q[own], rtol=1e-4, atol=1e-6)
    else:
        assert (scores[held_out] >= 0).all()
        assert (scores[held_out] > 0).mean() > 0.9
    for k in (0, 1):
        inside, others = clf.selected_mask_ & (y == k), held_out & ~clf.selected_mask_ & (y == k)
        assert inside.sum() == 5
        assert scores[inside].min() >= scores[others].max()


@fidelity
def test_only_the_head_moves_and_only_the_selected_rows_move_it(data):
    X, y, _ = data
    clf = SELFClassifier(Net, n_selected=10, head_lr=0.05, **FAST).fit(X, y)
    erm = _fit_on_the_same_part(clf, X, y, 3)
    for name, value in erm.module_.state_dict().items():
        assert torch.equal(value, clf.module_.state_dict()[name]) != name.startswith("head"), name
    assert clf.history_["stage"].tolist() == ["erm"] * 3 + ["early"] + ["last_layer"]
    slow = SELFClassifier(Net, n_selected=10, head_lr=1e-12, **FAST).fit(X, y)
    assert_allclose(slow.module_.head.weight.detach(), erm.module_.head.weight.detach(), atol=1e-6)
    # Weights of rows that are held out and not selected have no part in anything.
    weight = np.ones(300)
    even = SELFClassifier(Net, n_selected=10, head_lr=0.05, **FAST).fit(X, y, sample_weight=weight)
    weight[~np.isnan(clf.selection_scores_) & ~clf.selected_mask_] = 5.0
    weighted = SELFClassifier(Net, n_selected=10, head_lr=0.05, **FAST)
    weighted.fit(X, y, sample_weight=weight)
    assert torch.equal(weighted.module_.head.weight, even.module_.head.weight)
    weight[clf.selected_mask_] = np.linspace(0.1, 3, 10)
    weighted.fit(X, y, sample_weight=weight)
    change = weighted.module_.head.weight - even.module_.head.weight
    assert change.abs().max() > 1e-3


@fidelity
def test_steps_draw_the_classes_equally_where_one_has_few_samples():
    """Without features a head says how often the classes are drawn."""
    X, y = np.zeros((300, 2)), np.repeat([0, 1], [270, 30])
    params = {"selection": "misclassification", "n_selected": 60, "head_lr": 0.02}
    clf = SELFClassifier(head_steps=400, **params, **FAST).fit(X, y)
    assert_array_equal(np.bincount(y[clf.selected_mask_]), [30, 6])
    assert clf.predict_proba(X[:1])[0, 1] == pytest.approx(0.5, abs=0.1)  # 1/6 as they are


@fidelity
def test_training_groups_are_not_looked_at(data):
    X, y, group = data
    fits = [SELFClassifier(**FAST).fit(X, y, sample_group=g) for g in (None, group, group[::-1])]
    for clf in fits[1:]:
        assert torch.equal(clf.module_.weight, fits[0].module_.weight)


@fidelity
@pytest.mark.parametrize("selection", SELECTIONS)
def test_names_of_the_classes_change_nothing(data, selection):
    X, y, _ = data
    clf = SELFClassifier(selection=selection, **FAST).fit(X, y)
    named = SELFClassifier(selection=selection, **FAST).fit(X, np.array(["bird", "fish"])[y])
    assert torch.equal(named.module_.weight, clf.module_.weight)
    assert_array_equal(named.predict(X), np.array(["bird", "fish"])[clf.predict(X)])


@fidelity
@pytest.mark.parametrize("selection", ["early_stop_disagreement", "misclassification"])
def test_the_minority_is_selected_and_the_worst_group_gains(selection):
    """In the mean of four draws: a few dozen samples move the head by chance as well."""
    gains, shares = [], []
    for seed in range(4):
        train, test = (
            make_spurious_classification(
                4000,
                correlation_strength=c,
                core_separation=4,
                spurious_separation=8,
                random_state=2 * seed + i,
            )
            for i, c in enumerate([0.98, 0.5])
        )
        params = {"lr": 0.01, "max_epochs": 5, "batch_size": 128, "random_state": 0}
        erm = ERMClassifier(**params)
        clf = SELFClassifier(selection=selection, n_selected=50, head_lr=0.01, **params)
        worst = [
            worst_group_accuracy(
                test.target,
                c.fit(train.data, train.target).predict(test.data),
                sample_group=test.sample_group,
            )
            for c in (erm, clf)
        ]
        gains.append(worst[1] - worst[0])
        shares.append((train.sample_group % 3 > 0)[clf.selected_mask_].mean())
    assert np.mean(shares) > 0.1  # of 0.02
    assert np.mean(gains) > 0.05


@fidelity
def test_more_dropout_is_more_disagreement(data):
    X, y, _ = data
    means = []
    for dropout in (1e-6, 0.2, 0.8):
        clf = SELFClassifier(selection="dropout_disagreement", dropout=dropout, **FAST).fit(X, y)
        means.append(np.nanmean(clf.selection_scores_))
    assert means[0] < 1e-6
    assert means[0] < means[1] < means[2]


def test_a_trained_network_needs_no_first_stage(data):
    X, y, _ = data
    erm = ERMClassifier(Net, **FAST).fit(X, y)
    clf = SELFClassifier(
        FrozenEstimator(erm), selection="misclassification", n_selected=20, max_epochs=0
    ).fit(X, y)
    own = erm.predict_proba(X)[np.arange(300), y]
    assert_allclose(clf.selection_scores_, -np.log(own), rtol=1e-4, atol=1e-6)
    assert clf.history_["stage"].tolist() == ["last_layer"]
    assert clf.best_epoch_ is None


def test_errors(data):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"early_epochs=1 epochs, but max_epochs=1"):
        SELFClassifier(**FAST | {"max_epochs": 1}).fit(X, y)
    with pytest.raises(ValueError, match=r"max_epochs=0 is for a network that is trained"):
        SELFClassifier(selection="misclassification", max_epochs=0).fit(X, y)
