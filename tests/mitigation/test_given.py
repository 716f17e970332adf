"""What a user gives in place of what a method finds: error sets, scores, powers of classes."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    JTTClassifier,
    PrunedRetrainer,
    SPAREClassifier,
    SpuriousSamplePruner,
)
from skspurious.data import as_samples
from skspurious.datasets import make_spurious_classification
from skspurious.group_inference import KMeansGroups, SpareGroups
from skspurious.mitigation._stages import read_for
from skspurious.pipeline import make_pipeline

FAST = {"max_epochs": 3, "batch_size": 32, "lr": 0.1, "random_state": 0}
SCORE = {"score_epochs": 2, "on_identifiable": "ignore", **FAST}
KINDS = {
    "array": np.asarray,
    "list": list,
    "series": pd.Series,
    "tensor": torch.as_tensor,
}


@pytest.fixture(scope="module")
def data():
    bunch = make_spurious_classification(160, correlation_strength=0.85, random_state=0)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


def _parameters(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.module_.parameters()])


def mlp(width=4):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))


# --------------------------------------------------------------------------------------
# JTT's error set


@pytest.mark.filterwarnings("ignore:the error set is")
@pytest.mark.parametrize(
    "params",
    [
        {"module": mlp, **FAST},
        {"module": mlp, "variant": "code", **FAST},
        {"module": mlp, "early_stopping": True, "validation_fraction": 0.25, **FAST},
        {"random_state": 0},
    ],
)
def test_the_error_set_that_was_found_gives_the_same_network(data, params):
    X, y, group = data
    found = JTTClassifier(**params).fit(X, y, sample_group=group)
    assert 0 < found.error_rate_ < 1
    given = JTTClassifier(**params).fit(X, y, sample_group=group, error_mask=found.error_mask_)
    assert_array_equal(_parameters(given), _parameters(found))
    assert_array_equal(given.error_mask_, found.error_mask_)
    assert (given.error_rate_, given.up_weight_) == (found.error_rate_, found.up_weight_)
    assert np.isnan(given.margin_).all()
    assert set(given.history_["stage"]) == {"retraining"}
    assert given.used_group_labels_ == found.used_group_labels_


@pytest.mark.parametrize("kind", ["array", "list", "series", "tensor"])
def test_an_error_set_of_any_kind_counts_more(data, kind):
    """With "code" every sample of it comes as often as ``up_weight`` says."""
    X, y, _ = data
    mask = np.arange(160) % 8 == 0
    rows = []
    X = np.column_stack([X, np.arange(160)]).astype(np.float32)

    def look(batch):
        rows.extend(batch[:, -1].long().tolist())
        return batch

    params = {**FAST, "max_epochs": 1, "lr": 1e-6}
    clf = JTTClassifier(variant="code", up_weight=5, train_transform=look, **params)
    clf.fit(X, y, error_mask=KINDS[kind](mask))
    assert_array_equal(np.bincount(rows), np.where(mask, 5, 1))
    assert_array_equal(clf.error_mask_, mask)


@pytest.mark.parametrize(
    "mask", [np.ones(3, bool), np.ones(160), np.arange(160), np.ones((160, 2), bool), "errors"]
)
def test_what_is_no_error_set_is_refused(data, mask):
    X, y, _ = data
    with pytest.raises(ValueError, match=r"error_mask must (be|have) one"):
        JTTClassifier(**FAST).fit(X, y, error_mask=mask)


# --------------------------------------------------------------------------------------
# Scores of difficulty


@pytest.mark.parametrize(
    "params", [{}, {"early_stopping": True, "validation_fraction": 0.25}, {"scope": "global"}]
)
def test_the_scores_that_were_found_keep_the_same_rows(data, params):
    X, y, _ = data
    found = PrunedRetrainer(prune_fraction=0.3, **params, **SCORE).fit(X, y)
    given = PrunedRetrainer(prune_fraction=0.3, **params, **SCORE)
    given.fit(X, y, scores=found.pruner_.scores_)
    assert_array_equal(given.kept_indices_, found.kept_indices_)
    assert_array_equal(given.pruner_.scores_, found.pruner_.scores_)
    assert_array_equal(_parameters(given), _parameters(found))
    assert len(given.pruner_.history_) == 0
    assert given.pruner_.difficulty_clusters_ is None


@pytest.mark.parametrize("kind", ["array", "list", "series", "tensor"])
def test_given_scores_prune_the_hardest_of_each_class(data, kind):
    X, y, _ = data
    scores = np.random.default_rng(0).permutation(160)
    pruner = SpuriousSamplePruner(prune_fraction=0.25, random_state=0)  # warns nowhere
    _, kept_y = pruner.fit_resample(X, y, scores=KINDS[kind](scores))
    for c in (0, 1):
        members = np.flatnonzero(y == c)
        n_pruned = int(np.ceil(0.25 * len(members)))
        hardest = members[np.argsort(-scores[members])][:n_pruned]
        assert_array_equal(pruner.pruned_indices_[y[pruner.pruned_indices_] == c], np.sort(hardest))
    assert_array_equal(kept_y, y[pruner.keep_mask_])
    assert_array_equal(pruner.run_scores_, scores[None])


def test_a_fraction_is_chosen_by_given_scores(data):
    X, y, _ = data
    clf = PrunedRetrainer(prune_fraction="auto", fractions=(0.1, 0.3), controls=True, **SCORE)
    clf.fit(X, y, scores=np.arange(160.0))
    assert clf.search_["n_pruned"].tolist()[0] == 0
    assert set(clf.control_modules_) == {"none", "easiest", "random"}


@pytest.mark.parametrize("cls", [SpuriousSamplePruner, PrunedRetrainer])
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(3), "scores must be one number per sample: 160 of them; got 3"),
        (np.ones(160, bool), "scores must be one number per sample: .* of type bool"),
        (np.full(160, "hard"), "scores must be one number per sample"),
        (np.ones((160, 2)), "scores must have one value per sample"),
        (np.where(np.arange(160) == 7, np.nan, 1.0), r"scores has NaN or infinity at rows \[7\]"),
        (np.where(np.arange(160) == 9, np.inf, 1.0), r"scores has NaN or infinity at rows \[9\]"),
    ],
)
def test_what_are_no_scores_is_refused(data, cls, scores, message):
    X, y, _ = data
    with pytest.raises(ValueError, match=message):
        cls(**SCORE).fit(X, y, scores=scores)


@pytest.mark.parametrize("value", ["raise", "infer"])
def test_given_scores_are_not_searched_for_groups(data, value):
    X, y, _ = data
    with pytest.raises(ValueError, match=rf"on_identifiable='{value}' looks at a training"):
        SpuriousSamplePruner(on_identifiable=value).fit(X, y, scores=np.arange(160))


# --------------------------------------------------------------------------------------
# Through scikit-learn


@pytest.mark.parametrize("is_routed", [False, True])
@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("name", ["error_mask", "scores"])
def test_masks_and_scores_are_split_with_the_folds(data, name, in_pipeline, is_routed):
    X, y, _ = data
    if name == "scores":
        model, values = PrunedRetrainer(**SCORE), np.random.default_rng(0).normal(size=160)
    else:
        model, values = JTTClassifier(up_weight=3, **FAST), np.arange(160) % 9 == 0
    outside = inside = name
    if in_pipeline:
        inside = f"{type(model).__name__.lower()}__{name}"
        outside = name if is_routed else inside
        model = make_pipeline(StandardScaler(), model)
    cv = StratifiedKFold(2)
    search = GridSearchCV(model, {}, cv=cv, error_score="raise", scoring="accuracy", refit=False)
    with sklearn.config_context(enable_metadata_routing=is_routed):
        search.fit(X, y, **{outside: values})
    for k, (train, test) in enumerate(cv.split(X, y)):
        by_hand = clone(model).fit(X[train], y[train], **{inside: values[train]})
        expected = (by_hand.predict(X[test]) == y[test]).mean()
        assert search.cv_results_[f"split{k}_test_score"][0] == pytest.approx(expected)


# --------------------------------------------------------------------------------------
# A sampling power for each class


def _power_case(names=("a", "b")):
    """Groups of 60, 25 in the first class and 10, 5 in the second."""
    group = np.repeat(np.arange(4), (60, 25, 10, 5))
    y = np.array(names)[group // 2]
    return np.zeros((100, 2)), y, group


def _share_of_groups(power, names=("a", "b"), **params):
    """Share of each group in many draws of the sampler."""
    X, y, group = _power_case(names)
    rows = []
    X[:, 0] = np.arange(100)

    def look(batch):
        rows.extend(batch[:, 0].round().long().tolist())
        return batch * 0

    clf = BalancedRetrainer(
        sampling_power=power, max_epochs=100, train_transform=look, random_state=0, **params
    )
    clf.fit(X, y, sample_group=group)
    return np.bincount(group[rows]) / len(rows)


@pytest.mark.parametrize(
    "power", [{"a": 0.0, "b": 2.0}, {"b": 2, "a": 0}, [0.0, 2.0], np.array([0.0, 2.0])]
)
def test_a_sampling_power_for_each_class_by_hand(power):
    mass = np.array([60.0, 25.0, 10.0**-1, 5.0**-1])  # n ** (1 - power)
    assert_allclose(_share_of_groups(power), mass / mass.sum(), atol=0.02)
    mass = np.array([60 / 85, 25 / 85, 1 / 3, 2 / 3]) / 2
    assert_allclose(_share_of_groups(power, class_balanced=True), mass, atol=0.02)


def test_one_power_for_all_classes_is_the_number():
    X, y, group = _power_case()
    X = X + np.random.default_rng(0).normal(size=X.shape)
    networks = [
        BalancedRetrainer(mlp_of_two, balance=balance, sampling_power=power, **FAST)
        .fit(X, y, sample_group=group)
        .module_.weight
        for balance in ("sampling", "weights")
        for power in (1.5, {"a": 1.5, "b": 1.5}, [1.5, 1.5])
    ]
    for first, *others in (networks[:3], networks[3:]):
        assert all(torch.equal(first, other) for other in others)


def mlp_of_two():
    return nn.Linear(2, 2)


def test_powers_of_the_classes_are_those_that_spare_chooses():
    """SPARE's own powers, given by hand."""
    bunch = make_spurious_classification(200, correlation_strength=0.9, random_state=0)
    params = {"group_method": SpareGroups(n_init=1), **FAST}
    auto = SPAREClassifier(mlp, high_power=3.0, silhouette_threshold=1.0, **params)
    auto.fit(bunch.data, bunch.target)
    own = SPAREClassifier(mlp, sampling_power={0: 3.0, 1: 3.0}, **params)
    own.fit(bunch.data, bunch.target)
    assert_array_equal(_parameters(own), _parameters(auto))
    other = SPAREClassifier(mlp, sampling_power={0: 3.0, 1: 0.0}, **params)
    other.fit(bunch.data, bunch.target)
    assert np.abs(_parameters(other) - _parameters(auto)).max() > 1e-4


@pytest.mark.parametrize(
    ("power", "message"),
    [
        ({"a": 1.0}, r"none for \['b'\]"),
        ({"a": 1.0, "b": 1.0, "c": 2.0}, r"\['c'\] are none"),
        ([1.0, 1.0, 1.0], r"shape \(3,\); give one number, or one for each of the 2 classes"),
        ([1.0, -1.0], "finite numbers from 0 on"),
        ({"a": np.nan, "b": 1.0}, "finite numbers from 0 on"),
        ({"a": "high", "b": 1.0}, "must hold numbers"),
        ("high", "The 'sampling_power' parameter"),
        (-1.0, "The 'sampling_power' parameter|finite numbers"),
    ],
)
def test_what_are_no_powers_is_refused(power, message):
    X, y, group = _power_case()
    with pytest.raises(ValueError, match=message):
        BalancedRetrainer(sampling_power=power, **FAST).fit(X, y, sample_group=group)
    crossed = np.arange(100) % 2
    with pytest.raises(ValueError, match="groups nested in them"):
        BalancedRetrainer(sampling_power=[1.0, 2.0]).fit(X, y, sample_group=crossed)


# --------------------------------------------------------------------------------------
# Another network in the first stage

FIRST_STAGES = {
    "jtt": partial(JTTClassifier, up_weight=2),
    "spare": partial(SPAREClassifier, group_method=SpareGroups(n_init=1)),
    "george": partial(GEORGEClassifier, group_method=KMeansGroups(n_clusters=2, n_init=1)),
}


class Noting(nn.Module):
    """Notes, under its name, the last number of the first sample of every batch."""

    seen: list = []

    def __init__(self, name, n_features=8):
        super().__init__()
        self.name, self.layer = name, nn.Linear(n_features, 2)

    def forward(self, x):
        Noting.seen.append((self.name, x[0, -1].item()))
        return self.layer(x)


def _tokens(mark, samples):
    return torch.tensor([[float(len(s)), float(s.count("o")), mark] for s in samples])


@pytest.mark.filterwarnings("ignore:the error set is")
@pytest.mark.parametrize("name", FIRST_STAGES)
@pytest.mark.parametrize("own", [None, partial(_tokens, 1.0)])
def test_a_network_of_the_first_stage_reads_texts_in_its_own_way(name, own, data):
    """Its own tokens where it has them, otherwise those of the second stage."""
    y = data[1]
    texts = [["good dog", "bad cat"][k] for k in y]
    Noting.seen = []
    first = ERMClassifier(partial(Noting, "first", 3), collate_fn=own, max_epochs=1)
    clf = FIRST_STAGES[name](
        partial(Noting, "second", 3),
        collate_fn=partial(_tokens, 2.0),
        first_stage=first,
        **FAST | {"max_epochs": 1},
    )
    clf.fit(texts, y)
    assert set(Noting.seen) == {("first", 2.0 if own is None else 1.0), ("second", 2.0)}


@pytest.mark.filterwarnings("ignore:the error set is")
@pytest.mark.parametrize("name", FIRST_STAGES)
@pytest.mark.parametrize("second", [None, partial(mlp, 6)])
def test_a_network_of_the_first_stage_is_trained_there_alone(name, second, data):
    X, y, _ = data
    Noting.seen = []
    first = ERMClassifier(partial(Noting, "first"), max_epochs=2, batch_size=20)
    clf = FIRST_STAGES[name](second, first_stage=first, **FAST).fit(X, y)
    n_batches = len(Noting.seen)
    assert n_batches >= 2 * 8  # two epochs of 160 samples
    expected = [(2, 8), (2,)] if second is None else [(6, 8), (6,), (2, 6), (2,)]
    assert [tuple(p.shape) for p in clf.module_.parameters()] == expected
    clf.predict(X)
    assert len(Noting.seen) == n_batches


def test_a_network_of_the_first_stage_has_pictures_as_its_weights_want_them(tmp_path):
    path = tmp_path / "one.png"
    Image.fromarray(np.zeros((40, 30, 3), dtype=np.uint8)).save(path)
    samples = as_samples([str(path)] * 3).take([2, 0])
    own = read_for(ERMClassifier("resnet18", weights="DEFAULT"), samples)
    assert (len(own), tuple(own[0].shape)) == (2, (3, 224, 224))
    assert own[0].dtype == torch.float32
    other = ERMClassifier("resnet18", weights="DEFAULT", eval_transform=torch.neg)
    assert tuple(read_for(other, samples)[0].shape) == (3, 40, 30)
