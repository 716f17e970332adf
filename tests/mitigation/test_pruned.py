"""Data pruning: scores, what is pruned, retraining, and the behaviour that the method is for."""

import copy
import itertools
import math
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.utils.data import Dataset

from skspurious import (
    ERMClassifier,
    GroupedData,
    PrunedRetrainer,
    SpuriousGroupInferrer,
    SpuriousSamplePruner,
    worst_group_scorer,
)
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import SubsetSampler
from skspurious.callbacks import Callback
from skspurious.datasets import make_spurious_classification
from skspurious.functional import gradient_norms
from skspurious.group_inference import KMeansGroups
from skspurious.metrics import worst_group_accuracy
from skspurious.mitigation import _pruned, _pruner, _pruner_scores

FAST = {"lr": 0.05, "batch_size": 32, "random_state": 0}
SCORE = {"score_epochs": 2, **FAST}


def generate(n, strength, seed=0):
    bunch = make_spurious_classification(n, correlation_strength=strength, random_state=seed)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


@pytest.fixture(scope="module")
def data():
    """Two classes of unequal size, four groups of about equal size in each: not identifiable."""
    X, y, group = generate(260, 0.5)
    kept = np.flatnonzero((y == 0) | (np.arange(260) < 200))
    return X[kept], y[kept], group[kept]


@pytest.fixture(scope="module")
def identifiable():
    """A strong spurious feature: of each class 5 in 100 samples are the minority group."""
    bunch = make_spurious_classification(
        400, correlation_strength=0.95, spurious_separation=8.0, core_separation=1.0, random_state=0
    )
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


class Net(nn.Module):
    """Batch statistics and dropout."""

    def __init__(self, n_features=8, n_classes=2):
        super().__init__()
        self.norm = nn.BatchNorm1d(n_features)
        self.hidden = nn.Linear(n_features, 6)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, n_classes)

    def forward(self, x):
        return self.head(self.embed(x))

    def embed(self, x):
        return self.dropout(self.hidden(self.norm(x)).relu())


def make_net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def make_linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(8, 2)


def states_equal(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[k], second[k]) for k in first)


class Keep(Callback):
    """Copies of the network after each epoch, and torch's generator as it was then."""

    def __init__(self):
        self.networks, self.generators, self.modes = [], [], []

    def on_epoch_end(self, *, module, row, **kwargs):
        self.networks.append(copy.deepcopy(module))
        self.generators.append(torch.get_rng_state())
        self.modes.append([part.training for part in module.modules()])


# --------------------------------------------------------------------------------------
# Scores


def validation(X, y, group):
    """Arguments of ``fit`` for validation samples."""
    return {"X_val": X, "y_val": y, "sample_group_val": group}


def expected_score(kind, module, X, y):
    module, X, y = module.eval(), torch.from_numpy(X), torch.from_numpy(y)
    with torch.no_grad():
        logits = module(X).double()
        p = logits.softmax(1)
        error = (p - nn.functional.one_hot(y, 2)).norm(dim=1)
        if kind == "el2n":
            return error
        if kind == "loss":
            return -p.gather(1, y[:, None])[:, 0].log()
        if kind == "margin":
            return logits.gather(1, 1 - y[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
        if kind == "grand_last":
            return error * ((module.embed(X) ** 2).sum(1) + 1).sqrt()
        return gradient_norms(module, X, y)


@pytest.mark.fidelity
@pytest.mark.parametrize("kind", ["el2n", "loss", "margin", "grand", "grand_last"])
def test_scores_are_those_of_the_network_after_the_completed_epochs(data, kind):
    X, y, _ = data
    keep = Keep()
    pruner = SpuriousSamplePruner(make_net(), difficulty=kind, callbacks=[keep], **SCORE).fit(X, y)
    assert len(keep.networks) == 2
    expected = expected_score(kind, keep.networks[1], X, y)
    assert_allclose(pruner.scores_, expected, rtol=1e-4, atol=1e-5)
    assert pruner.scores_.shape == (len(y),)


def test_several_epochs_are_averaged(data):
    X, y, _ = data
    scores = {
        epochs: SpuriousSamplePruner(make_net(), **FAST, score_epochs=epochs).fit(X, y).scores_
        for epochs in (1, 3, (1, 3), [3, 1, 3])
        if not isinstance(epochs, list)
    }
    assert_allclose(scores[1, 3], (scores[1] + scores[3]) / 2)
    again = SpuriousSamplePruner(make_net(), **FAST, score_epochs=[3, 1, 3]).fit(X, y)
    assert_array_equal(again.scores_, scores[1, 3])


def test_forgetting_counts_the_epochs_of_the_training(data):
    X, y, _ = data
    keep = Keep()
    params = FAST | {"lr": 0.3, "score_epochs": (4, 8)}
    pruner = SpuriousSamplePruner(
        make_net(), difficulty="forgetting", callbacks=[keep], **params
    ).fit(X, y)
    right = [n.eval()(torch.from_numpy(X)).argmax(1).numpy() == y for n in keep.networks]
    expected = np.zeros(len(y))
    for last in (4, 8):
        for i in range(len(y)):
            history = [bool(r[i]) for r in right[:last]]
            lost = sum(a and not b for a, b in itertools.pairwise(history))
            expected[i] += (lost if any(history) else last) / 2
    assert_array_equal(pruner.scores_, expected)
    assert len(np.unique(expected)) > 2


@pytest.mark.parametrize("kind", ["el2n", "loss"])
def test_scores_of_samples_that_are_fitted_well_still_differ(kind):
    """Of two classes with logits 0 and m, of which the second is right."""
    margin = np.array([0.0, 5.0, 15.0, 20.0])
    logits = torch.tensor(np.stack([0 * margin, margin], axis=1), dtype=torch.float32)
    label = torch.ones(4, dtype=torch.int64)
    score, *_ = _pruner_scores._score_batch(nn.Identity(), logits, label, Runtime("cpu"), kind)
    wrong = 1 / (1 + np.exp(margin))  # probability of the first
    assert_allclose(score, np.sqrt(2) * wrong if kind == "el2n" else -np.log1p(-wrong), rtol=1e-4)


@pytest.mark.fidelity
def test_two_classes_are_pruned_alike_by_el2n_and_by_loss(data):
    X, y, _ = data
    kept = [
        SpuriousSamplePruner(difficulty=kind, **SCORE).fit(X, y).kept_indices_
        for kind in ("el2n", "loss", "margin")
    ]
    assert_array_equal(kept[0], kept[1])
    assert_array_equal(kept[0], kept[2])


class Numbered(Dataset):
    """Rows in another order, as a data set."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i])


@pytest.mark.fidelity
def test_scores_go_by_the_row_and_not_by_the_order_of_the_data(data):
    """With one batch per epoch the training does not depend on the order either."""
    X, y, _ = data
    order = np.random.default_rng(0).permutation(len(y))
    params = SCORE | {"batch_size": len(y)}
    plain = SpuriousSamplePruner(make_linear(), **params).fit(X, y)
    shuffled = SpuriousSamplePruner(make_linear(), **params).fit(Numbered(X[order]), y[order])
    assert_allclose(shuffled.scores_, plain.scores_[order], atol=1e-6)
    assert_array_equal(shuffled.keep_mask_, plain.keep_mask_[order])


@pytest.mark.fidelity
def test_scores_do_not_depend_on_the_batch_that_a_sample_is_scored_in(data, monkeypatch):
    X, y, _ = data
    whole = SpuriousSamplePruner(make_net(), **SCORE).fit(X, y).scores_
    iterate = _pruner_scores.iterate_batches

    def small(data, rows, runtime, batch_size, *args, **kwargs):
        return iterate(data, rows, runtime, 7, *args, **kwargs)

    monkeypatch.setattr(_pruner_scores, "iterate_batches", small)
    assert_allclose(SpuriousSamplePruner(make_net(), **SCORE).fit(X, y).scores_, whole, atol=1e-6)


@pytest.mark.fidelity
@pytest.mark.parametrize("kind", ["el2n", "grand", "grand_last", "forgetting"])
def test_scoring_does_not_change_the_training(data, kind, assert_global_rng_untouched):
    X, y, _ = data

    def noise(batch):
        return batch + torch.randn_like(batch)

    def noise_in_evaluation(batch):
        return batch + 0.1 * torch.randn_like(batch)

    transforms = {"train_transform": noise, "eval_transform": noise_in_evaluation}
    plain, scored = Keep(), Keep()
    ERMClassifier(make_net(), max_epochs=4, callbacks=[plain], **transforms, **FAST).fit(X, y)
    with assert_global_rng_untouched():
        SpuriousSamplePruner(
            make_net(),
            difficulty=kind,
            score_epochs=(1, 2, 4),
            callbacks=[scored],
            **transforms,
            **FAST,
        ).fit(X, y)
    for a, b in zip(plain.networks, scored.networks, strict=True):
        assert states_equal(a, b)  # weights and batch statistics
        assert all(p.grad is None for p in b.parameters())
    for a, b in zip(plain.generators, scored.generators, strict=True):
        assert torch.equal(a, b)
    assert plain.modes == scored.modes
    assert all(all(modes) for modes in scored.modes)


@pytest.mark.fidelity
def test_samples_are_scored_as_in_evaluation(data):
    X, y, _ = data
    keep = Keep()

    def scramble(batch):
        return batch * 3 if torch.is_grad_enabled() else batch * 5

    def shift(batch):
        return batch + 1

    pruner = SpuriousSamplePruner(
        make_net(),
        train_transform=scramble,
        eval_transform=shift,
        callbacks=[keep],
        **SCORE,
    ).fit(X, y)
    expected = expected_score("el2n", keep.networks[1], X + 1, y)
    assert_allclose(pruner.scores_, expected, atol=1e-5)


@pytest.mark.fidelity
def test_runs_are_independent_and_averaged(data):
    X, y, _ = data
    one, two, three = (
        SpuriousSamplePruner(Net, n_runs=n, **SCORE).fit(X, y).run_scores_ for n in (1, 2, 3)
    )
    assert_array_equal(one[0], two[0])
    assert_array_equal(two, three[:2])
    assert len(np.unique(three[:, 0])) == 3
    pruner = SpuriousSamplePruner(Net, n_runs=3, **SCORE).fit(X, y)
    assert_allclose(pruner.scores_, three.mean(axis=0))
    assert pruner.history_["run"].tolist() == [1, 1, 2, 2, 3, 3]


def test_runs_of_an_instance_start_from_its_weights(data):
    X, y, _ = data
    params = SCORE | {"lr": 1e-9}
    scores = SpuriousSamplePruner(make_linear(), n_runs=2, **params).fit(X, y).run_scores_
    assert_allclose(scores[0], scores[1], atol=1e-5)
    fresh = partial(nn.Linear, 8, 2)
    scores = SpuriousSamplePruner(fresh, n_runs=2, **params).fit(X, y).run_scores_
    assert np.abs(scores[0] - scores[1]).max() > 0.1


def test_a_schedule_is_that_of_the_whole_training(data):
    X, y, _ = data
    whole = ERMClassifier(max_epochs=8, lr_schedule="cosine", **FAST).fit(X, y)
    pruner = SpuriousSamplePruner(max_epochs=8, score_epochs=3, lr_schedule="cosine", **FAST)
    pruner.fit(X, y)
    assert_allclose(pruner.history_["lr"], whole.history_["lr"][:3])
    assert_allclose(pruner.history_["train_loss"], whole.history_["train_loss"][:3])
    pruner.set_params(max_epochs=1).fit(X, y)
    assert len(pruner.history_) == 3


@pytest.mark.parametrize(
    ("cls", "aside"),
    [(SpuriousSamplePruner, False), (PrunedRetrainer, False), (PrunedRetrainer, True)],
)
def test_one_function_scores_and_is_called_once(data, monkeypatch, cls, aside):
    """It is given the data, how to make a network, and settings; what it gives are the scores."""
    X, y, _ = data
    calls, score_samples = [], _pruner_scores.score_samples

    def spy(estimator, data, make_network, runtime, **settings):
        scores = score_samples(estimator, data, make_network, runtime, **settings)
        calls.append((data, settings, scores))
        return scores

    monkeypatch.setattr(_pruner, "score_samples", spy)
    params = SCORE | {"n_runs": 2, "difficulty": "loss", "prune_fraction": 0.2}
    if cls is PrunedRetrainer:
        params |= {"early_stopping": aside, "max_epochs": 2}
    fitted = cls(Net, **params).fit(X, y)
    ((train, settings, scores),) = calls
    assert (settings["difficulty"], settings["n_runs"]) == ("loss", 2)
    pruner = getattr(fitted, "pruner_", fitted)
    rows = train.train.rows
    assert scores.run_scores.shape == (2, len(rows))
    assert_array_equal(pruner.run_scores_[:, rows], scores.run_scores)
    assert_array_equal(pruner.scores_[rows], scores.run_scores.mean(axis=0))
    assert np.isnan(np.delete(pruner.scores_, rows)).all()
    assert len(rows) < len(y) if aside else len(rows) == len(y)
    assert pruner.history_["run"].tolist() == [1, 1, 2, 2]


# --------------------------------------------------------------------------------------
# What is pruned


@pytest.mark.fidelity
@pytest.mark.parametrize("fraction", [0, 0.07, 0.1, 0.5])
@pytest.mark.parametrize("order", ["hardest", "easiest", "random"])
def test_the_same_share_of_each_class_is_pruned(data, fraction, order):
    X, y, _ = data
    pruner = SpuriousSamplePruner(prune_fraction=fraction, order=order, **SCORE).fit(X, y)
    for c in (0, 1):
        n = int((y == c).sum())
        assert (y[pruner.pruned_indices_] == c).sum() == math.ceil(round(fraction * n, 9))
        scores, kept = pruner.scores_[y == c], pruner.keep_mask_[y == c]
        if order != "random" and fraction:
            harder, easier = (~kept, kept) if order == "hardest" else (kept, ~kept)
            assert scores[harder].min() >= scores[easier].max()
    both = np.sort(np.concatenate([pruner.kept_indices_, pruner.pruned_indices_]))
    assert_array_equal(both, np.arange(len(y)))
    assert_array_equal(np.flatnonzero(pruner.keep_mask_), pruner.kept_indices_)
    assert pruner.carriers_ is None


def test_global_scope_prunes_the_hardest_of_all(data):
    X, y, _ = data
    pruner = SpuriousSamplePruner(prune_fraction=0.1, scope="global", **SCORE).fit(X, y)
    n_pruned = math.ceil(0.1 * len(y))
    assert_array_equal(np.sort(np.argsort(-pruner.scores_)[:n_pruned]), pruner.pruned_indices_)


@pytest.mark.fidelity
def test_carrier_scope_touches_nothing_else(data):
    X, y, group = data
    mask = (group == 1) | ((group == 2) & (X[:, 0] > 0))
    pruner = SpuriousSamplePruner(prune_fraction=0.3, scope="carriers", **SCORE)
    pruner.fit(X, y, carriers=mask)
    assert_array_equal(pruner.carriers_, mask)
    for c in (0, 1):
        carriers = np.flatnonzero(mask & (y == c))
        hardest = carriers[np.argsort(-pruner.scores_[carriers])][: math.ceil(0.3 * len(carriers))]
        pruned = pruner.pruned_indices_[y[pruner.pruned_indices_] == c]
        assert_array_equal(np.sort(hardest), pruned)
    assert mask[pruner.pruned_indices_].all()
    assert pruner.used_group_labels_ == {"train": True, "validation": False}


@pytest.mark.fidelity
@pytest.mark.parametrize("crossed", [True, False])
def test_carriers_are_the_largest_group_of_each_class(identifiable, crossed):
    X, y, group = identifiable
    majority = np.isin(group, (0, 3))
    given = group if crossed else np.array(["grass", "sand"])[group % 2]
    pruner = SpuriousSamplePruner(prune_fraction=0.4, scope="carriers", **SCORE)
    pruner.fit(X, y, sample_group=given)
    assert_array_equal(pruner.carriers_, majority)
    assert pruner.keep_mask_[~majority].all()
    assert len(pruner.pruned_indices_) == math.ceil(0.4 * (group == 0).sum()) + math.ceil(
        0.4 * (group == 3).sum()
    )


def test_carriers_of_inferred_groups(identifiable):
    X, y, _ = identifiable
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2, n_init=2))
    pruner = SpuriousSamplePruner(scope="carriers", group_inferrer=inferrer, **SCORE).fit(X, y)
    labels = pruner.group_inferrer_.labels_
    largest = [np.bincount(labels[y == c]).argmax() for c in (0, 1)]
    assert_array_equal(pruner.carriers_, np.isin(labels, largest))
    assert pruner.used_group_labels_ == {"train": False, "validation": False}


@pytest.mark.parametrize(
    ("params", "fit_params", "message"),
    [
        ({"scope": "carriers"}, {}, "must know which samples have the spurious feature"),
        ({}, {"carriers": np.ones(230, bool)}, "goes with scope='carriers'"),
        ({"scope": "carriers"}, {"carriers": np.ones(3, bool)}, "one bool per sample"),
        ({"scope": "carriers"}, {"carriers": np.ones(230)}, "one bool per sample"),
        ({"score_epochs": 0}, {}, "score_epochs"),
        ({"score_epochs": (2, 0)}, {}, "score_epochs must be a number of completed epochs"),
        ({"score_epochs": ()}, {}, "score_epochs must be a number of completed epochs"),
        ({"prune_fraction": 0.999}, {}, r"leaves no sample of the classes \[0, 1\]. Lower it."),
        ({"prune_fraction": 1.0}, {}, "prune_fraction"),
        ({"difficulty": "hard"}, {}, "difficulty"),
    ],
)
@pytest.mark.parametrize("cls", [SpuriousSamplePruner, PrunedRetrainer])
def test_errors(data, cls, params, fit_params, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        cls(**SCORE | params).fit(X, y, **fit_params)


def test_parameters_without_a_meaning_are_refused():
    with pytest.raises(TypeError, match="has no parameter 'monitor'"):
        SpuriousSamplePruner(monitor="loss")
    assert "monitor" not in SpuriousSamplePruner().get_params()


def test_last_layer_gradients_need_a_last_linear_layer(data):
    X, y, _ = data
    module = nn.Sequential(
        nn.Linear(8, 4), nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 2, 1), nn.Flatten()
    )
    with pytest.raises(ValueError, match=r"ends in nn\.Linear"):
        SpuriousSamplePruner(module, difficulty="grand_last", **SCORE).fit(X, y)
    SpuriousSamplePruner(module, difficulty="grand", **SCORE).fit(X, y)


@pytest.mark.fidelity
def test_other_fractions_and_orders_need_no_training(data):
    X, y, _ = data
    pruner = SpuriousSamplePruner(**SCORE).fit(X, y)
    for fraction in (0.05, 0.4):
        for order in ("hardest", "easiest", "random"):
            other = clone(pruner).set_params(prune_fraction=fraction, order=order).fit(X, y)
            assert_array_equal(pruner.select(fraction, order=order), other.keep_mask_)
    assert_array_equal(pruner.select(), pruner.keep_mask_)
    assert (pruner.select(0.05) | ~pruner.select(0.4)).all()


# --------------------------------------------------------------------------------------
# fit_resample


class Labelled(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), int(self.y[i])


KINDS = {
    "array": lambda X, y: X,
    "frame": lambda X, y: pd.DataFrame(X, index=np.arange(len(X)) + 7, columns=list("abcdefgh")),
    "tensor": lambda X, y: torch.from_numpy(X),
    "list": lambda X, y: X.tolist(),
    "dataset": Labelled,
}


def rows_of(X):
    if isinstance(X, pd.DataFrame):
        return X.to_numpy()
    return (
        np.asarray(X)
        if hasattr(X, "shape") or isinstance(X, list)
        else np.stack([np.asarray(X[i][0]) for i in range(len(X))])
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["none", "given", "carried"])
def test_rows_labels_and_groups_stay_aligned(data, kind, way):
    X, y, group = data
    names = np.array(["a", "b", "c", "d"])[group]
    rows = KINDS[kind](X, y)
    module = make_linear() if kind == "dataset" else None
    pruner = SpuriousSamplePruner(module, prune_fraction=0.2, **SCORE)
    if way == "carried":
        kept, kept_y = pruner.fit_resample(GroupedData(rows, names), y)
    else:
        kept, kept_y = pruner.fit_resample(rows, y, sample_group=names if way == "given" else None)
    if way == "none":
        assert not isinstance(kept, GroupedData)
    else:
        assert_array_equal(kept.sample_group, names[pruner.kept_indices_])
        kept = kept.data
    assert_allclose(rows_of(kept), X[pruner.kept_indices_], rtol=1e-6)
    assert_array_equal(kept_y, y[pruner.kept_indices_])
    assert 0 < len(pruner.pruned_indices_) < len(y)
    if kind == "frame":
        assert kept.columns.tolist() == list("abcdefgh")
        assert_array_equal(kept.index, pruner.kept_indices_ + 7)
        assert pruner.feature_names_in_.tolist() == list("abcdefgh")
    if kind == "tensor":
        assert torch.is_tensor(kept)


def test_kinds_of_y_are_kept(data):
    X, y, _ = data
    pruner = SpuriousSamplePruner(**SCORE)
    _, series = pruner.fit_resample(X, pd.Series(y, index=np.arange(len(y)) + 3))
    assert_array_equal(series.index, pruner.kept_indices_ + 3)
    _, tensor = pruner.fit_resample(X, torch.from_numpy(y))
    assert torch.is_tensor(tensor)
    _, names = pruner.fit_resample(X, np.array(["cow", "camel"])[y])
    assert set(names) == {"cow", "camel"}


def test_inferred_groups_travel_with_their_inferrer(identifiable):
    X, y, _ = identifiable
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2, n_init=2))
    pruner = SpuriousSamplePruner(scope="carriers", group_inferrer=inferrer, **SCORE)
    kept, kept_y = pruner.fit_resample(X, y)
    assert kept.group_inferrer is pruner.group_inferrer_
    assert_array_equal(kept.sample_group, pruner.group_inferrer_.labels_[pruner.kept_indices_])
    clf = ERMClassifier(max_epochs=1).fit(kept, kept_y)
    assert clf.group_inferrer_ is pruner.group_inferrer_


# --------------------------------------------------------------------------------------
# The guard


@pytest.mark.fidelity
@pytest.mark.parametrize("cls", [SpuriousSamplePruner, PrunedRetrainer])
@pytest.mark.parametrize("scope", ["class", "global"])
def test_hard_samples_that_look_like_a_minority_group_are_a_warning(identifiable, cls, scope):
    X, y, group = identifiable
    with pytest.warns(UserWarning, match="look identifiable") as caught:
        fitted = cls(scope=scope, **SCORE).fit(X, y)
    assert len(caught) == 1
    pruner = getattr(fitted, "pruner_", fitted)
    pruned = group[pruner.pruned_indices_]
    assert np.isin(pruned, (1, 2)).sum() == 20  # and rightly: all of the minority would go
    table = pruner.difficulty_clusters_
    assert table.loc[table["looks_identifiable"], "silhouette"].min() > 0.9
    assert table["epoch"].unique().tolist() == [1, 2]
    with pytest.raises(ValueError, match="look identifiable"):
        cls(scope=scope, on_identifiable="raise", **SCORE).fit(X, y)


@pytest.mark.parametrize("given", [False, True])
def test_carriers_are_inferred_where_the_data_look_identifiable(identifiable, given):
    X, y, group = identifiable
    pruner = SpuriousSamplePruner(on_identifiable="infer", prune_fraction=0.3, **SCORE)
    pruner.fit(X, y, sample_group=group if given else None)
    assert_array_equal(pruner.carriers_, np.isin(group, (0, 3)))
    assert pruner.keep_mask_[np.isin(group, (1, 2))].all()
    assert pruner.used_group_labels_ == {"train": given, "validation": False}


@pytest.mark.parametrize(
    "params",
    [
        {"on_identifiable": "ignore"},
        {"order": "easiest"},
        {"order": "random"},
        {"prune_fraction": 0},
        {"identifiable_silhouette": 1.0},
    ],
)
def test_what_raises_no_warning(identifiable, params):
    X, y, _ = identifiable
    pruner = SpuriousSamplePruner(**SCORE, **params).fit(X, y)
    assert pruner.carriers_ is None
    assert (pruner.difficulty_clusters_ is None) == ("identifiable_silhouette" not in params)


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_data_raise_no_warning(seed):
    """Also where hard samples are few, as after some epochs on classes that are far apart."""
    for separation in (1.0, 2.5, 6.0):
        bunch = make_spurious_classification(
            300, correlation_strength=0.5, core_separation=separation, random_state=seed
        )
        SpuriousSamplePruner(**FAST, score_epochs=8).fit(bunch.data, bunch.target)


# --------------------------------------------------------------------------------------
# Retraining


@pytest.mark.fidelity
@pytest.mark.parametrize("module", [None, Net, make_net()])
def test_without_pruning_it_is_plain_training(data, module):
    """So retraining starts from the initial weights, with the same hyperparameters."""
    X, y, group = data
    params = FAST | {"lr_schedule": "cosine", "weight_decay": 0.01, "max_epochs": 4}
    plain = ERMClassifier(module, **params).fit(X, y, sample_group=group)
    clf = PrunedRetrainer(module, prune_fraction=0, score_epochs=3, **params)
    clf.fit(X, y, sample_group=group)
    assert states_equal(clf.module_, plain.module_)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        clf.history_.drop(columns=drop), plain.history_.drop(columns=drop)
    )
    assert clf.n_pruned_ == 0
    assert len(clf.pruned_indices_) == 0


@pytest.mark.fidelity
def test_it_is_trained_on_what_the_pruner_keeps_and_on_nothing_else(data):
    X, y, _ = data
    clf = PrunedRetrainer(make_net(), prune_fraction=0.3, max_epochs=3, **SCORE).fit(X, y)
    pruner = SpuriousSamplePruner(make_net(), prune_fraction=0.3, max_epochs=3, **SCORE).fit(X, y)
    assert_array_equal(clf.kept_indices_, pruner.kept_indices_)
    assert_array_equal(clf.pruned_indices_, pruner.pruned_indices_)
    assert_array_equal(clf.pruner_.scores_, pruner.scores_)
    assert clf.n_pruned_ == len(pruner.pruned_indices_)
    assert clf.prune_fraction_ == clf.pruner_.prune_fraction == 0.3
    seen = []

    class Seen(Callback):
        def on_train_begin(self, *, module, **kwargs):
            seen.append({k: v.clone() for k, v in module.state_dict().items()})

    clf.set_params(callbacks=[Seen()]).fit(X, y)
    assert len(seen) == 1  # the retraining's, not the scores'
    initial = make_net().state_dict()
    assert all(torch.equal(seen[0][k], initial[k]) for k in initial)

    class OnKept(ERMClassifier):
        def _make_sampler(self, train, seed):
            return SubsetSampler(pruner.kept_indices_, seed=seed)

    kept = OnKept(make_net(), max_epochs=3, **FAST).fit(X, y)
    assert states_equal(clf.module_, kept.module_)


@pytest.mark.fidelity
@pytest.mark.filterwarnings("ignore:The data look identifiable")
def test_the_last_epoch_is_kept_unless_asked_otherwise(data):
    X, y, _ = data
    params = SCORE | {"max_epochs": 6, "lr": 0.2}
    valid = generate(200, 0.5, seed=1)
    clf = PrunedRetrainer(**params).fit(X, y, **validation(*valid))
    assert clf.best_epoch_ is None
    last = clf.history_.iloc[-1]
    assert clf.score(*valid[:2]) == pytest.approx(last["valid_accuracy"])
    assert states_equal(clf.module_, PrunedRetrainer(**params).fit(X, y).module_)
    best = PrunedRetrainer(monitor="auto", **params).fit(X, y, **validation(*valid))
    history = best.history_["valid_worst_group_accuracy"]
    assert history[best.best_epoch_ - 1] == history.max()


def test_early_stopping_chooses_an_epoch_and_keeps_rows_aside(data):
    X, y, group = data
    weight = np.linspace(0.5, 1.5, len(y))
    for sample_weight in (None, weight):
        clf = PrunedRetrainer(
            early_stopping=True,
            validation_fraction=0.2,
            n_epochs_no_change=2,
            max_epochs=40,
            **SCORE,
        )
        clf.fit(X, y, sample_group=group, sample_weight=sample_weight)
        assert clf.best_epoch_ is not None
        assert len(clf.history_) < 40
        seen = np.concatenate([clf.kept_indices_, clf.pruned_indices_])
        assert_array_equal(np.sort(seen), clf.train_indices_)
        assert len(y) - len(seen) == pytest.approx(0.2 * len(y), abs=4)
        scores = clf.pruner_.scores_
        assert_array_equal(np.flatnonzero(np.isnan(scores)), clf.validation_indices_)
        assert not clf.pruner_.keep_mask_[clf.validation_indices_].any()
        assert_array_equal(clf.pruner_.kept_indices_, clf.kept_indices_)
        assert_array_equal(clf.pruner_.pruned_indices_, clf.pruned_indices_)
        # The hardest of each class are pruned: scores and labels belong to the rows of X.
        for c in (0, 1):
            kept, pruned = (r[y[r] == c] for r in (clf.kept_indices_, clf.pruned_indices_))
            assert scores[pruned].min() >= scores[kept].max()
        for c in (0, 1):
            n = (y[seen] == c).sum()
            assert (y[clf.pruned_indices_] == c).sum() == math.ceil(0.05 * n)


def test_carriers_are_split_with_the_rows(data):
    X, y, _ = data
    mask = X[:, 0] > 0
    clf = PrunedRetrainer(scope="carriers", prune_fraction=0.5, early_stopping=True, **SCORE)
    clf.fit(X, y, carriers=mask)
    assert len(clf.pruned_indices_) > 20
    assert mask[clf.pruned_indices_].all()
    assert clf.used_group_labels_["train"]


def test_sample_weights_act_on_the_scores_too(data):
    X, y, _ = data
    weight = np.where(y == 0, 5.0, 1.0)
    plain = PrunedRetrainer(**SCORE).fit(X, y)
    weighted = PrunedRetrainer(**SCORE).fit(X, y, sample_weight=weight)
    gain = plain.pruner_.scores_ - weighted.pruner_.scores_
    assert gain[y == 0].mean() > 0.02 > -0.02 > gain[y == 1].mean()


# --------------------------------------------------------------------------------------
# The fraction


SEARCH = SCORE | {"prune_fraction": "auto", "fractions": (0.1, 0.4), "max_epochs": 3}


def test_the_fraction_is_chosen_by_the_worst_group_of_the_validation_samples(data):
    X, y, _ = data
    valid = generate(300, 0.5, seed=1)
    clf = PrunedRetrainer(**SEARCH).fit(X, y, **validation(*valid))
    search = clf.search_
    assert search.columns[:2].tolist() == ["prune_fraction", "n_pruned"]
    assert search["prune_fraction"].tolist() == [0, 0.1, 0.4]
    for row in search.itertuples():
        one = PrunedRetrainer(**SEARCH | {"prune_fraction": row.prune_fraction}).fit(X, y)
        assert one.n_pruned_ == row.n_pruned
        assert one.score(*valid[:2]) == pytest.approx(row.accuracy)
        worst = worst_group_accuracy(valid[1], one.predict(valid[0]), sample_group=valid[2])
        assert worst == pytest.approx(row.worst_group_accuracy)
        if row.selected:
            assert states_equal(one.module_, clf.module_)
    best = search.loc[search["selected"]].iloc[0]
    assert search["selected"].sum() == 1
    assert best["worst_group_accuracy"] == search["worst_group_accuracy"].max()
    assert clf.prune_fraction_ == best["prune_fraction"]
    assert clf.n_pruned_ == best["n_pruned"] == len(clf.pruned_indices_)
    assert clf.used_group_labels_ == {"train": False, "validation": True}


@pytest.mark.parametrize(
    ("by", "expected"), [("auto", 2), ("accuracy", 2), ("worst_class_accuracy", 1)]
)
def test_how_a_fraction_is_chosen(monkeypatch, by, expected):
    search = pd.DataFrame(
        {
            "accuracy": [0.900, 0.920, 0.891, 0.889],
            "worst_class_accuracy": [0.80, 0.85, 0.82, 0.85],
        }
    )
    assert PrunedRetrainer(select_by=by)._choose(search) == expected
    search["worst_group_accuracy"] = [0.5, 0.5, 0.6, 0.7]
    assert PrunedRetrainer()._choose(search) == 3
    search["worst_group_accuracy"] = [0.5, 0.5, 0.5, 0.5]
    assert PrunedRetrainer()._choose(search) == 1  # ties go to the higher accuracy
    monkeypatch.setattr(_pruned, "_TOLERANCE", 0.011)
    assert PrunedRetrainer(select_by="accuracy")._choose(search) == 3


def test_without_validation_samples_the_fraction_is_chosen_on_rows_kept_aside(data):
    X, y, _ = data
    clf = PrunedRetrainer(validation_fraction=0.25, **SEARCH).fit(X, y)
    assert "worst_group_accuracy" not in clf.search_
    seen = np.concatenate([clf.kept_indices_, clf.pruned_indices_])
    assert len(y) - len(seen) == pytest.approx(0.25 * len(y), abs=2)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    accuracy = clf.search_["accuracy"]
    chosen = clf.search_["selected"].idxmax()
    assert accuracy[chosen] >= accuracy[0] - 0.01 - 1e-9
    assert (accuracy[chosen + 1 :] < accuracy[0] - 0.01).all()


def test_errors_of_the_search(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="select_by='worst_group_accuracy' needs the groups"):
        PrunedRetrainer(select_by="worst_group_accuracy", **SEARCH).fit(X, y)
    for fractions in ((), (0,), (0.1, 1.0), ("a",)):
        with pytest.raises(ValueError, match=r"fractions must lie in \[0, 1\)"):
            PrunedRetrainer(**SEARCH | {"fractions": fractions}).fit(X, y)


def test_a_search_over_the_fraction_in_scikit_learn(data):
    X, y, group = data
    search = GridSearchCV(
        PrunedRetrainer(**SCORE), {"prune_fraction": [0, 0.2]}, scoring=worst_group_scorer, cv=2
    )
    search.fit(GroupedData(X, group), y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    mask = X[:, 0] > 0
    search = GridSearchCV(PrunedRetrainer(scope="carriers", **SCORE), {"lr": [0.1]}, cv=2)
    search.fit(X, y, carriers=mask)  # sliced with the rows
    assert mask[search.best_estimator_.pruned_indices_].all()


# --------------------------------------------------------------------------------------
# Controls and copies


def test_controls_are_what_fits_of_their_own_would_be(data):
    X, y, group = data
    clf = PrunedRetrainer(prune_fraction=0.3, controls=True, max_epochs=3, **SCORE).fit(X, y)
    report = clf.control_report(X, y, sample_group=group)
    assert report.index.tolist() == ["none", "hardest", "easiest", "random"]
    assert report["n_pruned"].tolist() == [0] + [clf.n_pruned_] * 3
    for order in report.index:
        params = {"prune_fraction": 0} if order == "none" else {"order": order}
        one = clone(clf).set_params(controls=False, **params).fit(X, y)
        row = report.loc[order]
        assert one.score(X, y) == pytest.approx(row["accuracy"])
        assert one.score(X, y, sample_group=group) == pytest.approx(row["worst_group_accuracy"])
        assert one.score(X, y, sample_group=y) == pytest.approx(row["worst_class_accuracy"])
    assert "worst_group_accuracy" not in clf.control_report(X, y)
    carried = clf.control_report(GroupedData(X, group), y)
    pd.testing.assert_frame_equal(carried, report)
    easiest = clone(clf).set_params(order="easiest").fit(X, y)
    assert list(easiest.control_report(X, y).index) == list(report.index)
    assert_allclose(easiest.control_report(X, y)["accuracy"], report["accuracy"])


def test_a_report_needs_controls(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="fit with controls=True"):
        PrunedRetrainer(**SCORE).fit(X, y).control_report(X, y)


@pytest.mark.parametrize("cls", [SpuriousSamplePruner, PrunedRetrainer])
def test_same_seed_same_result_and_other_seed_other_result(data, cls):
    X, y, _ = data

    def scores(seed):
        fitted = cls(Net, **SCORE | {"random_state": seed}).fit(X, y)
        return getattr(fitted, "pruner_", fitted).scores_

    assert_array_equal(scores(0), scores(0))
    assert (scores(0) != scores(1)).any()


def test_copies_and_pickles(data):
    X, y, group = data
    pruner = SpuriousSamplePruner(make_net(), **SCORE).fit(X, y, sample_group=group)
    again = pickle.loads(pickle.dumps(pruner))
    assert_array_equal(again.select(0.4), pruner.select(0.4))
    assert not hasattr(clone(pruner), "scores_")
    clf = PrunedRetrainer(make_net(), controls=True, **SCORE).fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    pd.testing.assert_frame_equal(again.control_report(X, y), clf.control_report(X, y))


def test_a_checkpoint_resumes_the_retraining(data, tmp_path):
    X, y, _ = data
    params = SCORE | {"max_epochs": 4, "checkpoint_dir": tmp_path}
    first = PrunedRetrainer(make_net(), **params).fit(X, y)
    again = PrunedRetrainer(make_net(), **params).fit(X, y)
    assert states_equal(first.module_, again.module_)
    assert_array_equal(first.history_["seconds"], again.history_["seconds"])  # nothing was run


def test_a_fit_that_fails_leaves_the_pruner_as_it_was(data):
    X, y, _ = data

    class Fails(Callback):
        def on_epoch_end(self, *, row, **kwargs):
            raise RuntimeError("the callback fails")

    pruner = SpuriousSamplePruner(**SCORE)
    for is_fitted in (False, True):
        if is_fitted:
            pruner.set_params(callbacks=None).fit(X, y)
        pruner.set_params(callbacks=[Fails()])
        before = {k: pickle.dumps(v) for k, v in vars(pruner).items() if k != "callbacks"}
        with pytest.raises(RuntimeError, match="the callback fails"):
            pruner.fit(X[:100, :4], np.array(["a", "b"])[y[:100]])
        after = {k: pickle.dumps(v) for k, v in vars(pruner).items() if k != "callbacks"}
        assert after == before


def test_a_refit_on_another_kind_of_X_forgets_the_first(data):
    X, y, _ = data
    pruner = SpuriousSamplePruner(**SCORE).fit(pd.DataFrame(X, columns=list("abcdefgh")), y)
    pruner.fit(X, y)
    assert not hasattr(pruner, "feature_names_in_")
    pruner.set_params(module=make_net()).fit(Labelled(X, y), y)
    assert not hasattr(pruner, "n_features_in_")


# --------------------------------------------------------------------------------------
# What it is for


def mark(X, rows, size=2.0):
    """Draw the spurious feature, the last column, on some rows."""
    X = X.copy()
    X[rows, -1] = size
    return X


def count_misled(clf, test):
    """Test samples of class 1 with the feature that are taken for class 0."""
    return int((clf.predict(mark(test, slice(None))) == 0).sum())


@pytest.mark.fidelity
@pytest.mark.parametrize("seed", range(4))
def test_pruning_the_hardest_severs_the_spurious_correlation(seed):
    """25 of 500 samples of class 0 have a feature that no sample of class 1 has."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], 500)
    X = rng.normal(size=(1000, 6)).astype(np.float32)
    X[:, 0] += 1.5 * (2 * y - 1)
    X[:, -1] = 0
    test = rng.normal(size=(500, 6)).astype(np.float32)
    test[:, 0] += 1.5
    by_difficulty = np.argsort(X[:500, 0])
    easy, hard = by_difficulty[:25], by_difficulty[-25:]

    params = {"lr": 0.05, "max_epochs": 15, "batch_size": 64, "random_state": seed}
    clean = count_misled(ERMClassifier(**params).fit(X, y), test)
    assert clean < 75

    def misled(carriers):
        clf = PrunedRetrainer(score_epochs=1, prune_fraction=0.1, controls=True, **params).fit(
            mark(X, carriers), y
        )
        counts = {}
        for order, module in {"hardest": clf.module_, **clf.control_modules_}.items():
            one = copy.copy(clf)
            one.module_ = module
            counts[order] = count_misled(one, test)
        return clf, counts

    clf, counts = misled(hard)
    assert counts["none"] > 3 * clean
    assert counts["hardest"] < clean + 25  # as if no sample had had the feature
    assert counts["easiest"] > 3 * clean
    assert counts["random"] > 2.5 * clean
    assert np.isin(hard, clf.pruned_indices_).mean() > 0.6  # of 25; the prune_fraction by chance

    _, counts = misled(easy)
    assert counts["none"] < clean + 25 < misled(hard)[1]["none"]

    # The same number of carriers pruned, the easy ones: where all carriers are known.
    both = np.union1d(hard, easy)
    among = {"scope": "carriers", "prune_fraction": 0.5, "score_epochs": 1, **params}
    carriers = np.isin(np.arange(1000), both)
    pruned = {
        order: PrunedRetrainer(order=order, **among).fit(mark(X, both), y, carriers=carriers)
        for order in ("hardest", "easiest")
    }
    assert_array_equal(np.sort(pruned["hardest"].pruned_indices_), np.sort(hard))
    assert_array_equal(np.sort(pruned["easiest"].pruned_indices_), np.sort(easy))
    assert count_misled(pruned["hardest"], test) < clean + 40
    assert count_misled(pruned["easiest"], test) > 2.5 * clean
