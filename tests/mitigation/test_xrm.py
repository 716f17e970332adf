"""XRMClassifier: twins that learn each other's mistakes, and GroupDRO on the groups."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn import functional as F

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    XRMClassifier,
    worst_group_accuracy,
)
from skspurious._engine._runtime import Runtime
from skspurious.callbacks import Callback
from skspurious.metrics import make_worst_group_scorer
from skspurious.mitigation import _xrm_twins
from skspurious.mitigation._xrm_twins import CrossMistakes, TwinNetworks, Twins

FAST = {"lr": 0.05, "batch_size": 32, "random_state": 0, "device": "cpu"}


class Mlp(nn.Module):
    def __init__(self, n_features=12, n_classes=2, width=16):
        super().__init__()
        self.hidden = nn.Linear(n_features, width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.dropout(self.hidden(x).relu()))


def make_shortcut(n_samples=600, seed=0, core=1.0):
    """The place is plain and goes with the class in 9 of 10; the object is spread out and weak."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    is_minority = np.arange(n_samples) // 2 % 10 == 0
    sign = 2 * y - 1
    X = rng.normal(size=(n_samples, 12))
    X[:, 0] = 3 * np.where(is_minority, -sign, sign) + 0.5 * X[:, 0]
    X[:, 1] += core * sign
    return X.astype(np.float32), y, is_minority


def states(clf):
    """All weights that a fit learned: of the network and of both twins."""
    twins = clf.group_inferrer_.twins_
    return [m.state_dict() for m in (clf.module_, twins.module_, twins.other_module_)]


def assert_equal_states(one, two):
    for a, b in zip(states(one), states(two), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


# --------------------------------------------------------------------------------------
# What it is made of


def twins_of(clf):
    return clf._make_group_inferrer().twins


def test_xrm_is_group_dro_on_groups_of_twins():
    clf = XRMClassifier(Mlp, adjustment=2.0, max_epochs=7, n_runs=3, lr_schedule="cosine")
    assert isinstance(clf, GroupDROClassifier)
    assert "group_inferrer" not in clf.get_params()
    twins = twins_of(clf)
    assert isinstance(twins, TwinNetworks)
    assert (twins.module, twins.max_epochs, twins.n_runs) == (Mlp, 7, 3)
    assert twins.lr_schedule is None  # of the second stage alone
    assert twins_of(clf.set_params(init_epochs=2)).max_epochs == 2
    first = ERMClassifier(lr=0.5, max_epochs=4)
    twins = twins_of(clf.set_params(first_stage=first))
    assert (twins.module, twins.lr, twins.max_epochs) == (Mlp, 0.5, 4)
    assert first.module is None


def test_stages_are_those_that_can_be_run_by_hand():
    X, y, _ = make_shortcut(200)
    clf = XRMClassifier(Mlp, max_epochs=3, **FAST).fit(X, y)
    groups = clf.group_inferrer_.labels_
    assert_array_equal(clf.sample_group_, groups)
    assert_array_equal(clf.group_inferrer_.twins_.predict(X).shape, y.shape)
    assert_array_equal(groups, 2 * y + clf.error_mask_)
    dro = GroupDROClassifier(Mlp, max_epochs=3, **FAST).fit(X, y, sample_group=groups)
    for name, value in dro.module_.state_dict().items():
        assert torch.equal(clf.module_.state_dict()[name], value)
    history = clf.group_inferrer_.twins_.history_
    assert history["stage"].tolist() == ["twins_1"] * 3
    assert history["flip_rate"].iloc[-1] == pytest.approx(clf.flip_counts_[0] / 200)


# --------------------------------------------------------------------------------------
# The twins


def make_objective(X, y, seed=3):
    half = torch.arange(len(y)) // 2 % 2
    return CrossMistakes(torch.from_numpy(y), half, 2, Runtime("cpu"), seed), half


def make_batch(X, rows):
    return {
        "X": torch.from_numpy(X[rows]),
        "y": None,
        "position": torch.as_tensor(rows),
        "weight": torch.ones(len(rows)),
        "is_real": None,
    }


def make_twins():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Twins(Mlp(), Mlp()).eval()


@pytest.mark.fidelity
def test_one_step_by_a_plain_loop():
    X, y, _ = make_shortcut(40)
    y[:10] = 0  # classes of unequal size
    twins, (objective, half) = make_twins(), make_objective(X, y)
    for parameter in twins.parameters():
        parameter.data *= 3.0  # so that some are sure
    rows, draws = np.arange(5, 35), objective.draws.clone()
    loss, losses, logits = objective(twins, make_batch(X, rows), Runtime("cpu"))
    expected, n_flipped = 0.0, 0
    for at, i in enumerate(rows):
        of = twins.twins[half[i]](torch.from_numpy(X[i]))
        held_out = twins.twins[1 - half[i]](torch.from_numpy(X[i])).softmax(0)
        own = (half == half[i]).numpy()
        weight = own.sum() / 2 / (own & (y == y[i])).sum()
        one = F.cross_entropy(of, torch.tensor(y[i]))
        expected += 2 * weight * one / len(rows)
        assert_allclose(losses[at].item(), one.item(), rtol=1e-4)
        assert_allclose(logits[at].detach(), of.detach(), atol=1e-5)
        label = int(held_out.argmax()) if draws[i] < 2 * held_out.max() - 1 else y[i]
        assert objective.label[i] == label
        n_flipped += label != y[i]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < n_flipped < 30
    assert_array_equal(objective.label[:5], y[:5])  # not in the batch
    row = {"epoch": 1}
    objective.end_epoch(row)
    assert row["flip_rate"] == pytest.approx(n_flipped / 40)
    assert not torch.equal(objective.draws, draws)
    label = objective.label.clone()
    objective.draws.fill_(1.0)  # nothing flips, nothing flips back
    objective(twins, make_batch(X, rows), Runtime("cpu"))
    assert torch.equal(objective.label, label)


@pytest.mark.fidelity
def test_a_row_has_no_influence_on_the_twin_that_judges_it():
    X, y, _ = make_shortcut(40)
    twins, gradients = make_twins(), []
    other = y.copy()
    other[7] = 1 - y[7]
    for labels in (y, other):
        objective, half = make_objective(X, labels)
        twins.zero_grad()
        objective(twins, make_batch(X, np.arange(20)), Runtime("cpu"))[0].backward()
        gradients.append([[p.grad.clone() for p in twin.parameters()] for twin in twins.twins])
    own, judge = int(half[7]), 1 - int(half[7])
    first, second = gradients
    assert all(torch.equal(a, b) for a, b in zip(first[judge], second[judge], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[own], second[own], strict=True))


@pytest.mark.fidelity
def test_mistakes_are_those_of_the_twin_that_has_not_seen_the_row(monkeypatch):
    """Labels of noise, without flips: every twin memorises its own half alone."""
    monkeypatch.setattr(_xrm_twins, "flip_labels", lambda label, *_: label)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 60)).astype(np.float32), np.arange(200) % 2
    twins = TwinNetworks(Mlp, module_params={"n_features": 60, "width": 64}, max_epochs=60, **FAST)
    twins.set_params(lr=0.1).fit(X, y)
    assert 0.35 < twins.error_mask_.mean() < 0.65
    for module in (twins.module_, twins.other_module_):
        wrong = module(torch.from_numpy(X)).argmax(1).numpy() != y
        assert 0.1 < wrong.mean() < 0.4  # about a quarter: half of the half that it has not seen
        assert (wrong & ~twins.error_mask_).sum() <= 5
    assert_array_equal(twins.flip_counts_, [0])


@pytest.mark.fidelity
@pytest.mark.parametrize("module", [None, Mlp])
def test_the_minority_of_an_easy_shortcut_is_found_and_holds(module):
    X, y, is_minority = make_shortcut(1000, core=0.7)
    X_new, y_new, minority_new = make_shortcut(1000, core=0.7, seed=1)
    clf = XRMClassifier(module, max_epochs=10, **FAST | {"lr": 0.02}).fit(X, y)
    found = clf.error_mask_
    assert is_minority[found].mean() > 0.9
    assert found[is_minority].mean() > 0.9
    assert_array_equal(clf.groups_, np.arange(4))
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    group = 2 * y_new + minority_new
    erm = ERMClassifier(module, max_epochs=10, **FAST | {"lr": 0.02}).fit(X, y)
    worst, plain = (
        worst_group_accuracy(y_new, c.predict(X_new), sample_group=group) for c in (clf, erm)
    )
    assert worst > plain + 0.1
    assert (clf.infer_groups(X_new, y_new) == group).mean() > 0.95


def test_new_rows_are_judged_by_the_mean_of_both_twins():
    X, y, _ = make_shortcut(300, core=0.5)
    X_val, y_val, _ = make_shortcut(100, seed=1)
    clf = XRMClassifier(Mlp, max_epochs=3, **FAST).fit(X, y, X_val=X_val, y_val=y_val)
    twins = clf.group_inferrer_.twins_
    rows = torch.from_numpy(X_val)
    proba = [
        softmax(m(rows).detach().numpy(), axis=1) for m in (twins.module_, twins.other_module_)
    ]
    assert_allclose(twins.predict_proba(X_val), np.mean(proba, axis=0), atol=1e-5)
    predicted = np.mean(proba, axis=0).argmax(axis=1)
    assert_array_equal(clf.infer_groups(X_val, y_val), 2 * y_val + (predicted != y_val))
    assert any(name.startswith("valid_accuracy[") for name in clf.history_)
    assert clf.best_epoch_ in (1, 2, 3)
    copied = pickle.loads(pickle.dumps(clf))
    assert_array_equal(copied.infer_groups(X_val, y_val), clf.infer_groups(X_val, y_val))


@pytest.mark.fidelity
def test_of_several_runs_the_one_with_the_most_flips_is_kept():
    X, y, _ = make_shortcut(200, core=0.5)
    clf = XRMClassifier(Mlp, max_epochs=2, n_runs=3, **FAST).fit(X, y)
    assert clf.flip_counts_.shape == (3,)
    twins = clf.group_inferrer_.twins_
    assert twins.flipped_mask_.sum() == clf.flip_counts_.max()
    assert twins.history_["stage"].unique().tolist() == ["twins_1", "twins_2", "twins_3"]
    one = XRMClassifier(Mlp, max_epochs=2, **FAST).fit(X, y)
    assert one.flip_counts_[0] == clf.flip_counts_[0]
    best = set()
    for seed in range(4):
        twins = TwinNetworks(Mlp, max_epochs=2, n_runs=3, **FAST | {"random_state": seed})
        twins.fit(X, y)
        assert twins.flipped_mask_.sum() == twins.flip_counts_.max()
        best.add(int(twins.flip_counts_.argmax()))
    assert len(best) > 1  # it is not always the first or the last


def test_a_class_of_few_mistakes_stays_whole():
    X, y, _ = make_shortcut(300)
    keep = (y == 0) | (np.arange(300) // 2 % 10 != 0) | (np.arange(300) < 40)
    X, y = X[keep], y[keep]
    clf = XRMClassifier(max_epochs=10, min_group_size=8, **FAST).fit(X, y)
    n_wrong = np.bincount(y[clf.error_mask_])
    assert n_wrong[1] < 8 <= n_wrong[0]
    assert_array_equal(clf.groups_, [0, 1, 2])
    assert_array_equal(clf.sample_group_, np.where(y == 1, 2, clf.error_mask_))
    assert set(clf.infer_groups(X, y)[y == 1]) == {2}


def test_given_groups_take_the_place_of_inferred_ones():
    X, y, is_minority = make_shortcut(200)
    names = np.where(is_minority, "few", "many")
    clf = XRMClassifier(max_epochs=2, **FAST).fit(X, y, sample_group=names)
    assert clf.groups_.tolist() == ["few", "many"]
    for name in ("group_inferrer_", "sample_group_", "error_mask_", "flip_counts_"):
        assert getattr(clf, name) is None
    carried = XRMClassifier(max_epochs=2, **FAST).fit(GroupedData(X, names), y)
    bare = XRMClassifier(max_epochs=2, **FAST).fit(X, y)
    assert_equal_states(carried, bare)


def test_rows_kept_aside_have_groups_that_no_twin_has_fitted():
    X, y, _ = make_shortcut(200, core=0.5)
    clf = XRMClassifier(max_epochs=3, early_stopping=True, **FAST).fit(X, y)
    assert len(clf.validation_indices_) > 0
    assert clf.sample_group_.shape == clf.error_mask_.shape == (200,)
    assert_array_equal(clf.sample_group_, clf.group_inferrer_.labels_)


# --------------------------------------------------------------------------------------
# Seeds, checkpoints, networks


class Count(Callback):
    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):  # by clone
        return self

    def on_epoch_end(self, *, row, **kwargs):
        self.seen.append(row["epoch"])


@pytest.mark.fidelity
@pytest.mark.parametrize("stage", ["twins", "dro"])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(stage, tmp_path, interrupt_after):
    X, y, _ = make_shortcut(200, core=0.5)
    first = ERMClassifier(max_epochs=4, lr=0.05, batch_size=32, device="cpu")
    clf = XRMClassifier(Mlp, first_stage=first, max_epochs=4, **FAST)
    whole = clone(clf).fit(X, y)
    assert whole.group_inferrer_.twins_.history_["flip_rate"].iloc[1] > 0  # there is much to save
    broken = clone(clf).set_params(checkpoint_dir=tmp_path)
    which = "first_stage__callbacks" if stage == "twins" else "callbacks"
    with pytest.raises(KeyboardInterrupt):
        broken.set_params(**{which: [interrupt_after(2)]}).fit(X, y)
    epochs = Count()
    resumed = clone(clf).set_params(checkpoint_dir=tmp_path, **{which: [epochs]}).fit(X, y)
    assert epochs.seen == [3, 4]
    assert_equal_states(resumed, whole)
    assert_array_equal(resumed.error_mask_, whole.error_mask_)
    assert_array_equal(resumed.flip_counts_, whole.flip_counts_)
    kept = ["epoch", "flip_rate", "train_loss"]
    histories = [
        c.group_inferrer_.twins_.history_[kept].to_numpy().tolist() for c in (resumed, whole)
    ]
    assert histories[0] == histories[1]


def test_xrm_seeds_decide_everything(assert_global_rng_untouched):
    X, y, _ = make_shortcut(200, core=0.5)
    with assert_global_rng_untouched():
        first, again = (XRMClassifier(Mlp, max_epochs=2, **FAST).fit(X, y) for _ in range(2))
    assert_equal_states(first, again)
    other = XRMClassifier(Mlp, max_epochs=2, **FAST | {"random_state": 1}).fit(X, y)
    assert not torch.equal(other.module_.head.weight, first.module_.head.weight)
    twins = first.group_inferrer_.twins_
    assert not torch.equal(twins.module_.head.weight, twins.other_module_.head.weight)


def test_a_search_reaches_the_twins_and_scores_by_their_groups():
    X, y, _ = make_shortcut(200, core=0.7)
    first = ERMClassifier(max_epochs=2, lr=0.05, batch_size=32, device="cpu")
    clf = XRMClassifier(Mlp, first_stage=first, max_epochs=2, **FAST)
    grid = {"first_stage__lr": [1e-4, 0.05]}
    scorer = make_worst_group_scorer(group_inferrer="estimator")
    search = GridSearchCV(clf, grid, scoring=scorer, cv=2, error_score="raise")
    search.fit(X, y)
    twins = search.best_estimator_.group_inferrer_.twins_
    assert twins.lr == search.best_params_["first_stage__lr"]
    best = search.best_estimator_
    group = best.infer_groups(X, y)
    worst = worst_group_accuracy(y, best.predict(X), sample_group=group)
    assert scorer(best, X, y) == pytest.approx(worst)


def test_batch_norm_keywords_and_instances():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(12), nn.Linear(12, 2)

        def forward(self, features):
            return self.head(self.norm(features))

    X, y, _ = make_shortcut(100)
    with torch.random.fork_rng():
        module = Keyword()
    before = copy.deepcopy(module.state_dict())

    def collate(samples):
        return {"features": torch.stack([torch.as_tensor(s) for s in samples])}

    samples = [torch.from_numpy(x) for x in X]
    clf = XRMClassifier(module, collate_fn=collate, max_epochs=2, **FAST).fit(samples, y)
    assert clf.predict(samples).shape == (100,)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert clf.infer_groups(samples, y).shape == (100,)
    with pytest.raises(ValueError, match="classes that fit did not see"):
        clf.infer_groups(samples, y + 5)
