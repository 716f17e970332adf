"""AutoRetrainer: what it does where there is a shortcut and where there is none, and why."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skspurious import AutoRetrainer, ERMClassifier, LastLayerRetrainer, group_report
from skspurious.group_inference._effect import BalancingEffect, effect_of
from skspurious.mitigation._auto_choice import (
    best_candidate,
    groups_of_views,
    loses_a_class,
    sure_samples,
)
from skspurious.mitigation._auto_ways import Ways

pytestmark = pytest.mark.fidelity

VIEWS = {"views": {"place": [2, 3]}, "clean": [0, 1, 2, 3]}


def table(n=600, agreement=0.95, seed=0):
    """Two columns of the object, and two of a place that agrees with the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    place = np.where(rng.random(n) < agreement, y, 1 - y)
    core = y[:, None] + 0.45 * rng.normal(size=(n, 2))
    spurious = place[:, None] + 0.15 * rng.normal(size=(n, 2))
    return np.hstack([core, spurious]).astype(np.float32), y, 2 * y + place


def worst(clf, data):
    X, y, group = data
    return group_report(y, clf.predict(X), sample_group=group).accuracy.min()


def test_a_shortcut_is_found_and_the_head_balanced():
    X, y, _ = table()
    test = table(2000, 0.5, seed=1)
    plain = ERMClassifier(random_state=0).fit(X, y)
    clf = AutoRetrainer(**VIEWS, random_state=0).fit(X, y)
    assert clf.effect_.level == "large"
    assert (clf.chosen_, clf.way_) == ("jury", "head")
    assert worst(clf, test) > worst(plain, test) + 0.1
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    assert set(clf.candidates_.index) == {"plain", "classes", "jury", "errors", "clusters"}
    # The groups of the jury are those of the place.
    _, _, group = table()
    assert np.mean((clf.group_inferrer_.margin_ < 0) == (group % 3 > 0)) > 0.98


def test_without_a_shortcut_it_is_plain_training_to_the_bit():
    X, y, _ = table(agreement=0.5)
    plain = ERMClassifier(random_state=0).fit(X, y)
    clf = AutoRetrainer(**VIEWS, random_state=0).fit(X, y)
    assert clf.effect_.level == "none"
    assert (clf.chosen_, clf.way_) == ("plain", "plain")
    for a, b in zip(clf.module_.parameters(), plain.module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_tables_own_columns_are_no_reason_to_balance():
    X, y, _ = table()
    clf = AutoRetrainer(random_state=0).fit(X, y)
    plain = ERMClassifier(random_state=0).fit(X, y)
    assert (clf.chosen_, clf.way_) == ("plain", "plain")
    assert np.array_equal(clf.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("agreement", [0.5, 0.95])
@pytest.mark.parametrize("kind", ["array", "frame", "slice"])
def test_columns_of_views_alone_are_no_features(agreement, kind):
    X, y, _ = table(agreement=agreement)
    params = {"views": {"place": [2, 3]}, "clean": [0, 1]}
    if kind == "frame":
        X = pd.DataFrame(X, columns=["a", "b", "c", "d"])
        params = {"views": {"place": ["c", "d"]}, "clean": ["a", "b"]}
    if kind == "slice":
        params = {"views": {"place": slice(2, 4)}, "clean": slice(0, 2)}
    clf = AutoRetrainer(**params, random_state=0).fit(X, y)
    weight = next(clf.module_.parameters()).detach()
    assert (weight[:, 2:] == 0).all()
    assert (weight[:, :2] != 0).any()


def test_groups_that_are_given_are_used():
    X, y, group = table()
    clf = AutoRetrainer(random_state=0).fit(X, y, sample_group=group)
    dfr = LastLayerRetrainer(retrain_on="train", random_state=0).fit(X, y, sample_group=group)
    assert (clf.chosen_, clf.effect_, clf.group_inferrer_) == ("given", None, None)
    assert clf.used_group_labels_ == {"train": True, "validation": False}
    assert np.array_equal(clf.predict_proba(X), dfr.predict_proba(X))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 8), nn.ReLU())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))


def framed(n=240, agreement=0.9, seed=0):
    """Two squares in the middle, on one diagonal or the other, and a frame that goes with them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    colour = np.where(rng.random(n) < agreement, y, 1 - y)
    X = rng.integers(0, 120, size=(n, 3, 12, 12), dtype=np.uint8)
    for i in range(n):
        left, right = (slice(3, 6), slice(6, 9)) if y[i] else (slice(6, 9), slice(3, 6))
        X[i, :, left, 3:6] += 30
        X[i, :, right, 6:9] += 30
    border = np.ones((12, 12), dtype=bool)
    border[1:-1, 1:-1] = False
    X[:, 0, border] = (230 * colour[:, None]).astype(np.uint8)
    return X, y, 2 * y + colour


def test_a_network_from_scratch_is_trained_and_the_ways_are_compared():
    X, y, _ = framed()
    clf = AutoRetrainer(Net, lr=0.05, max_epochs=4, batch_size=32, random_state=0).fit(X, y)
    assert clf.effect_.level in {"small", "large"}
    assert clf.way_ in {"last layer", "network"}
    assert list(clf.candidates_.index) == ["plain", "jury"]
    if clf.effect_.level == "large":
        assert list(clf.ways_.index) == ["last layer", "network", "plain"]
        assert clf.way_ == Ways.best(None, clf.ways_)


def test_a_frozen_backbone_is_not_changed():
    X, y, _ = framed()
    module = Net()
    before = module.body[1].weight.clone()
    clf = AutoRetrainer(module, finetune=False, random_state=0).fit(X, y)
    assert torch.equal(clf.module_.body[1].weight, before)
    assert clf.way_ in {"frozen", "plain"}
    assert not torch.equal(clf.module_.head.weight, module.head.weight)
    assert clf.history_.empty
    # No groups to find: a plain head on the frozen embedding.
    X, y, _ = framed(agreement=0.5)
    y = np.random.default_rng(0).integers(2, size=len(y))
    clf = AutoRetrainer(module, finetune=False, random_state=0).fit(X, y)
    assert (clf.chosen_, clf.way_) == ("plain", "plain")
    assert torch.equal(clf.module_.body[1].weight, before)


def test_the_jury_is_left_only_for_what_is_clearly_better():
    judge = np.repeat([0, 1], [900, 100])
    table = pd.DataFrame({"worst_group": [0.5, 0.60, 0.64]}, index=["plain", "jury", "errors"])
    # The standard error of 0.6 of 100 samples is 0.049.
    assert best_candidate(table, judge) == "jury"
    table.loc["errors", "worst_group"] = 0.66
    assert best_candidate(table, judge) == "errors"


def test_groups_of_views_by_hand():
    y = np.array([0, 0, 0, 1, 1, 1])
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7], [0.6, 0.4], [0.7, 0.3]])
    # A tie is no error.
    assert groups_of_views(said, y, min_group_size=1).tolist() == [0, 1, 0, 2, 3, 3]
    # A class with too few on a side is whole: two of class 0 and one of class 1.
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    said = np.eye(2)[[0, 0, 1, 1, 1, 1, 1, 0]]
    assert groups_of_views(said, y, min_group_size=2).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


def test_a_class_is_lost_where_balancing_keeps_much_of_it():
    y = np.repeat([0, 1], [900, 100])
    plain, balanced = np.ones(1000), np.ones(1000)
    plain[900:960] = 0  # 40 of 100
    balanced[:45], balanced[900:940] = 0, 0  # 60 of 100, and 5 % of the others lost
    assert loses_a_class(plain, balanced, y)
    assert not loses_a_class(balanced, plain, y)
    assert not loses_a_class(plain, plain, y)
    balanced[:162] = 0  # as much is lost as is gained
    assert not loses_a_class(plain, balanced, y)


def test_a_rare_class_that_plain_training_misses_is_balanced():
    rng = np.random.default_rng(0)

    def draw(n):
        y = (rng.random(n) < 0.08).astype(int)
        return (1.2 * y[:, None] + rng.normal(size=(n, 3))).astype(np.float32), y

    X, y = draw(2000)
    X_test, y_test = draw(4000)
    plain = ERMClassifier(random_state=0).fit(X, y)
    clf = AutoRetrainer(random_state=0).fit(X, y)
    assert (clf.chosen_, clf.way_) == ("classes", "head")
    found = [np.mean(c.predict(X_test)[y_test == 1]) for c in (plain, clf)]
    assert found[1] > found[0] + 0.2


def test_the_first_way_is_left_only_for_what_is_clearly_better():
    table = pd.DataFrame(
        {"mean": [0.80, 0.82], "standard_error": [0.03, 0.03]}, index=["last layer", "network"]
    )
    assert Ways.best(None, table) == "last layer"
    table.loc["network", "mean"] = 0.84
    assert Ways.best(None, table) == "network"


def test_levels_of_an_effect():
    X, y, group = table(agreement=0.95)
    says = np.eye(2)[group % 2]
    effect = effect_of(X, y, says)
    assert effect.level == "large"
    assert effect.wrong_share == pytest.approx(np.mean(group % 2 != y))
    assert "large effect of a shortcut" in str(effect)
    coin = np.eye(2)[np.random.default_rng(0).integers(2, size=len(y))]
    nothing = effect_of(X, y, coin)
    assert nothing.level == "none"
    assert str(nothing).startswith("Nothing of a shortcut")
    assert isinstance(nothing, BalancingEffect)
    assert effect_of(X, y, np.full((len(y), 2), 0.5)).level == "none"  # no view has a say


def test_unsure_samples_are_left_out_but_for_the_ten_surest_of_a_group():
    sure, unsure = np.linspace(0.5, 0.9, 30), np.linspace(-0.1, -0.02, 16)
    margin, group = np.r_[sure, unsure, 0.1, -0.9], np.r_[np.zeros(30), np.ones(16), 0, 2]
    # The median is above 0.5. Of the second group none is sure: the ten surest are kept. So is the
    # only one of the third.
    expected = [True] * 30 + [True] * 10 + [False] * 6 + [False, True]
    assert sure_samples(margin, group).tolist() == expected
    # Neither the scale of the margins nor the order of the samples has an influence.
    order = np.random.default_rng(0).permutation(len(margin))
    assert sure_samples(0.01 * margin[order], group[order]).tolist() == list(
        np.array(expected)[order]
    )


def test_the_head_is_that_of_the_sure_samples():
    X, y, _ = table(agreement=0.9)
    clf = AutoRetrainer(**VIEWS, random_state=0).fit(X, y)
    assert (clf.chosen_, clf.way_) == ("jury", "head")
    jury = clf.group_inferrer_
    is_sure = sure_samples(jury.margin_, jury.labels_)
    assert 0 < np.count_nonzero(~is_sure) < len(y) / 4
    groups = jury.labels_[is_sure]
    head = LastLayerRetrainer(retrain_on="train", random_state=0)
    head.fit(X[is_sure], y[is_sure], sample_group=groups)
    assert np.mean(head.predict(X) == clf.predict(X)) > 0.99
