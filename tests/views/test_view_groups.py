"""Groups by a view: in every estimator, end to end, and where the answer is planted."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import QUICK, TAKE_INFERRER, ignored_warnings
from shortcut_data import framed_digits
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import FunctionTransformer
from torch import nn
from torchvision.transforms.functional import to_pil_image

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
)
from skspurious.group_inference import ErrorGroups
from skspurious.metrics import make_worst_group_scorer
from skspurious.networks import LeNet
from skspurious.pipeline import make_pipeline
from skspurious.views import ImageStatistics, KeepCenter, MaskCenter, SelectFields, ShufflePatches

pytestmark = ignored_warnings()

Net = partial(LeNet, n_classes=2, image_size=16)


DIGITS = framed_digits()


def side_agreement(labels, y, colour):
    """Adjusted Rand index of side and colour: the smallest over the classes."""
    return min(adjusted_rand_score(colour[y == k], labels[y == k]) for k in (0, 1))


def by_network(view, epochs=6):
    erm = ERMClassifier(Net, optimizer="adam", lr=0.005, max_epochs=epochs, random_state=0)
    extractor = TorchFeatureExtractor(erm, cross_fit=3, output="logits", random_state=0)
    return make_pipeline(view, extractor, SpuriousGroupInferrer("error", random_state=0))


def by_statistics(view):
    return make_pipeline(view, ImageStatistics(), SpuriousGroupInferrer("error", random_state=0))


@pytest.mark.fidelity
@pytest.mark.parametrize("make", [by_statistics, by_network])
def test_sides_of_the_border_are_the_colours_and_those_of_the_centre_are_not(make):
    X, y, colour = DIGITS
    border = make(MaskCenter()).fit(X, y)
    assert side_agreement(border[-1].labels_, y, colour) > 0.95
    new, y_new, colour_new = framed_digits(200, 0.5, seed=1)
    assert side_agreement(border.infer_groups(new, y_new), y_new, colour_new) > 0.95
    centre = make(KeepCenter()).fit(X, y)
    assert side_agreement(centre[-1].labels_, y, colour) < 0.1
    assert_array_equal(border[-1].predict(border[:-1].transform(new), y=y_new),
                       border.infer_groups(new, y_new))  # fmt: skip


@pytest.mark.fidelity
@pytest.mark.parametrize("view", [MaskCenter(), ShufflePatches(4)])
def test_heads_do_not_know_random_labels(view):
    right = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(600)[:300]
        y = rng.permutation(np.arange(300) % 3)
        found = by_statistics(view).fit(DIGITS[0][rows], y)[-1]
        hit = np.array([np.mean(found.margin_[y == k] > 0) for k in range(3)])
        right.append(hit.mean())
    assert abs(np.mean(right) - 1 / 3) < 3 * np.sqrt(2 / 9 / (8 * 300))


def test_a_search_over_views_and_their_parameters_in_the_inferrer():
    X, y, _ = DIGITS
    clf = BalancedRetrainer(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)),
        group_inferrer=make_pipeline(
            MaskCenter(), ImageStatistics(["border"]), SpuriousGroupInferrer("error")
        ),
        optimizer="adam",
        lr=0.002,
        max_epochs=2,
        random_state=0,
    )
    grid = {"group_inferrer__maskcenter": [MaskCenter(), KeepCenter(), "passthrough"]}
    scorer = make_worst_group_scorer(group_inferrer="estimator")
    search = GridSearchCV(clf, grid, cv=2, scoring=scorer, error_score="raise")
    search.fit(X[:200], y[:200])
    assert len(search.cv_results_["mean_test_score"]) == 3
    deep = clf.get_params()
    assert deep["group_inferrer__maskcenter__fraction"] == 0.6


@pytest.mark.parametrize(
    "cls",
    [c for c in TAKE_INFERRER if not c.finds_groups],  # an inferrer that is given embeddings
    ids=lambda entry: entry.name,
)
def test_every_estimator_takes_groups_by_a_view_end_to_end(cls):
    X, y, _ = DIGITS
    X, y = X[:150], y[:150]
    find = by_network(MaskCenter(), epochs=1)
    clf = cls(Net, group_inferrer=find, **QUICK | {"max_epochs": 2, "lr": 0.01}).fit(X, y)
    alone = find.fit(X, y)
    if cls.uses_groups or cls.needs_groups:
        assert isinstance(clf.group_inferrer_[0], MaskCenter)
        assert len(clf.group_inferrer_[-1].labels_) == 150
        assert_array_equal(clf.group_inferrer_[-1].labels_, alone[-1].labels_)
        assert clf.infer_groups(X, y).shape == (150,)
    assert clf.predict(X).shape == (150,)


def test_files_and_pictures_have_the_same_groups(tmp_path):
    X, y, _ = DIGITS
    X, y = X[:120], y[:120]
    paths = [tmp_path / f"{i}.png" for i in range(120)]
    for path, picture in zip(paths, X, strict=True):
        to_pil_image(torch.from_numpy(picture)).save(path)
    of_files = by_network(ShufflePatches(4), epochs=2).fit(paths, y)
    of_arrays = by_network(ShufflePatches(4), epochs=2).fit(X, y)
    assert_array_equal(of_files[-1].labels_, of_arrays[-1].labels_)
    clf = BalancedRetrainer(Net, group_inferrer=by_network(MaskCenter(), epochs=1), max_epochs=1)
    assert clf.fit(paths, y).score(paths, y) >= 0.0


# --------------------------------------------------------------------------------------
# Tables and texts


def nuisance_table(n=400, seed=0):
    """Columns "core" and "place"; the place goes with the class nine times in ten."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    place = np.where(rng.random(n) < 0.9, y, 1 - y)
    core = y + rng.normal(scale=0.5, size=n)
    frame = pd.DataFrame({"core": core, "place": place + rng.normal(scale=0.05, size=n)})
    return frame, y, place


COLUMNS = {
    "ColumnTransformer": ColumnTransformer([("view", "passthrough", ["place"])]),
    "positions": ColumnTransformer([("view", "passthrough", [1])]),
    "function": FunctionTransformer(lambda X: X[["place"]]),
}


@pytest.mark.parametrize("view", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_a_table_are_a_view(view):
    X, y, place = nuisance_table()
    find = make_pipeline(view, SpuriousGroupInferrer(ErrorGroups(C=1.0), random_state=0))
    clf = BalancedRetrainer(group_inferrer=find, lr=0.1, max_epochs=5, random_state=0).fit(X, y)
    assert side_agreement(clf.group_inferrer_[-1].labels_, y, place) > 0.95
    new, y_new, place_new = nuisance_table(100, seed=1)
    assert side_agreement(clf.infer_groups(new, y_new), y_new, place_new) > 0.95


@pytest.mark.parametrize("n_levels", [2, 20])
def test_a_column_of_categories_is_a_view(n_levels):
    """With as many copies as categories have, a row is not kept from its model with all of them."""
    rng = np.random.default_rng(0)
    level = rng.integers(n_levels, size=600)
    y = np.where(rng.random(600) < 0.9, level % 2, 1 - level % 2)
    X = np.eye(n_levels)[level]
    inferrer = SpuriousGroupInferrer(ErrorGroups(C=1.0), random_state=0).fit(X, y)
    assert side_agreement(inferrer.labels_, y, level % 2) > 0.95
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    order = rng.permutation(600)
    again = SpuriousGroupInferrer(ErrorGroups(C=1.0), random_state=0).fit(X[order], y[order])
    assert_array_equal(again.labels_, inferrer.labels_[order])


def test_random_labels_of_categories_are_not_known():
    """Copies are dealt out, and nobody's own label is used: 10 to 40 rows a category."""
    right = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        level = np.repeat(np.arange(12), rng.integers(10, 40, size=12))
        y = rng.permutation(np.arange(len(level)) % 2)
        inferrer = SpuriousGroupInferrer(ErrorGroups(C=1.0), random_state=seed)
        right.append((inferrer.fit(np.eye(12)[level], y).margin_ > 0).mean())
    assert abs(np.mean(right) - 0.5) < 3 * 0.045 / np.sqrt(40)  # rows of a category go together


def test_a_field_of_texts_is_a_view():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    negated = np.where(rng.random(300) < 0.9, y, 1 - y)
    pairs = [
        (f"premise {i} {k}", f"hypothesis {['is', 'is not'][no]} {i % 7}")
        for i, (k, no) in enumerate(zip(y, negated, strict=True))
    ]
    find = make_pipeline(
        SelectFields(1),
        CountVectorizer(),
        FunctionTransformer(lambda counts: counts.toarray()),
        SpuriousGroupInferrer(ErrorGroups(C=0.1), random_state=0),
    ).fit(pairs, y)
    assert side_agreement(find[-1].labels_, y, negated) > 0.95
    assert balanced_accuracy_score(y, np.where(find[-1].margin_ > 0, y, 1 - y)) < 0.95


def test_a_view_and_the_sample_side_by_side_for_the_probe():
    X, y, colour = DIGITS
    both = FeatureUnion(
        [
            ("view", make_pipeline(MaskCenter(), ImageStatistics(["border"]))),
            ("clean", ImageStatistics(["colours"])),
        ]
    )
    n_clean = ImageStatistics(["colours"]).fit_transform(X[:1]).shape[1]
    inferrer = SpuriousGroupInferrer(ErrorGroups(probe=n_clean, C=0.1), random_state=0)
    find = make_pipeline(both, inferrer).fit(X, y)
    assert side_agreement(find[-1].labels_, y, colour) > 0.95
