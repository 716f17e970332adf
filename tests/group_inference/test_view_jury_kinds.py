"""ViewJury on pictures, texts and embeddings, with planted shortcuts, and in estimators."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import QUICK
from shortcut_data import framed_digits
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_pil_image

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    LastLayerRetrainer,
    TorchFeatureExtractor,
    load_model,
    save_model,
    worst_group_scorer,
)
from skspurious.group_inference import ViewJury
from skspurious.networks import LeNet
from skspurious.pipeline import make_pipeline
from skspurious.views import (
    ImageStatistics,
    KeepCenter,
    KeepWords,
    MaskCenter,
    PatchFeatures,
    SelectFields,
    ShufflePatches,
    TextStatistics,
)

Jury = partial(ViewJury, random_state=0)
Net = partial(LeNet, n_classes=2, image_size=16)


DIGITS = framed_digits()
SMALL = tuple(part[:150] for part in framed_digits(strength=0.9))
WORDS = ["river", "stone", "cloud", "paper", "green", "seven", "table", "music", "light", "north"]


def planted_texts(n=400, strength=0.9, seed=0):
    """Nine words at random, one of which leans to the class, and one that goes with it."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    attribute = np.where(rng.random(n) < strength, y, 1 - y)
    texts = []
    for k, a in zip(y, attribute, strict=True):
        words = [*rng.choice(WORDS, 8), rng.choice(WORDS[:5] if k else WORDS[5:])]
        words.insert(rng.integers(9), "alpha" if a else "omega")
        texts.append(" ".join(words))
    return texts, y, attribute


TEXTS = planted_texts()


def precision_and_recall(jury, is_odd):
    found = jury.margin_ < 0
    return np.sum(found & is_odd) / max(found.sum(), 1), np.sum(found & is_odd) / is_odd.sum()


# ---------------------------------------------------------------- shortcuts that were planted


@pytest.mark.fidelity
def test_the_standard_set_finds_the_frame_of_pictures():
    X, y, colour = DIGITS
    jury = Jury().fit(X, y)
    precision, recall = precision_and_recall(jury, colour != y)
    assert precision > 0.9
    assert recall > 0.9
    assert jury.view_scores_.loc[["border", "colours"], "balanced_accuracy"].min() > 0.9
    assert jury.view_names_[-1] == "clean"
    X_new, y_new, colour_new = framed_digits(200, 0.5, seed=1)
    odd = np.isin(jury.predict(X_new, y_new), [1, 3])
    assert np.mean(odd == (colour_new != y_new)) > 0.95


@pytest.mark.fidelity
def test_the_standard_set_finds_the_column_of_a_table():
    rng = np.random.default_rng(0)
    y = np.arange(500) % 2
    place = np.where(rng.random(500) < 0.9, y, 1 - y)
    X = pd.DataFrame(
        {
            "size": y + rng.normal(size=500),
            "age": rng.normal(size=500),
            "place": pd.Categorical(np.array(["farm", "zoo"])[place]),
        }
    )
    jury = Jury().fit(X, y)
    assert min(precision_and_recall(jury, place != y)) > 0.9
    assert jury.view_scores_["weight"].idxmax() == "column place"


@pytest.mark.fidelity
@pytest.mark.parametrize("container", [list, partial(np.array, dtype=object), pd.Series])
def test_the_standard_set_finds_the_word_of_texts(container):
    texts, y, attribute = TEXTS
    jury = Jury().fit(container(texts), y)
    assert min(precision_and_recall(jury, attribute != y)) > 0.9
    assert jury.view_names_ == ["words", "style", "clean"]
    new, y_new, attribute_new = planted_texts(100, 0.5, seed=1)
    odd = np.isin(jury.predict(container(new), y_new), [1, 3])
    assert np.mean(odd == (attribute_new != y_new)) > 0.95


@pytest.mark.fidelity
@pytest.mark.parametrize("form", ["tuples", "dicts", "frame"])
def test_the_standard_set_finds_the_field_of_pairs(form):
    texts, y, attribute = TEXTS
    premises = planted_texts(seed=5)[0]
    premises = [text.replace("alpha", "beta").replace("omega", "beta") for text in premises]
    pairs = list(zip(premises, texts, strict=True))
    if form == "dicts":
        pairs = [{"premise": p, "hypothesis": h} for p, h in pairs]
    if form == "frame":
        pairs = pd.DataFrame(pairs, columns=["premise", "hypothesis"])
    jury = Jury().fit(pairs, y)
    assert min(precision_and_recall(jury, attribute != y)) > 0.9
    hypothesis, premise = ("field hypothesis", "field premise") if form != "tuples" else (
        "field 1", "field 0")  # fmt: skip
    accuracy = jury.view_scores_["balanced_accuracy"]
    assert accuracy[hypothesis] > 0.85
    assert accuracy[premise] < 0.75
    assert_array_equal(jury.predict(pairs, y), jury.labels_)


@pytest.mark.fidelity
def test_a_view_of_the_centre_does_not_see_the_frame():
    X, y, colour = DIGITS
    border = Jury({"border": make_pipeline(MaskCenter(), ImageStatistics())}).fit(X, y)
    centre = Jury({"centre": make_pipeline(KeepCenter(), ImageStatistics())}).fit(X, y)
    assert min(precision_and_recall(border, colour != y)) > 0.95
    assert precision_and_recall(centre, colour != y)[0] < 0.15  # a twentieth of the rows is odd


@pytest.mark.fidelity
@pytest.mark.parametrize(
    "view",
    [
        make_pipeline(ImageStatistics(["colours"]), HistGradientBoostingClassifier(max_iter=20)),
        make_pipeline(ShufflePatches(4), PatchFeatures(16, stride=4)),
    ],
    ids=["trees", "patches"],
)
def test_views_of_pictures_do_not_know_random_labels(view):
    accuracy = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows, y = rng.permutation(600)[:120], rng.permutation(np.arange(120) % 3)
        jury = ViewJury({"v": view}, random_state=seed).fit(DIGITS[0][rows], y)
        accuracy.append(jury.view_scores_["balanced_accuracy"].iloc[0])
    assert abs(np.mean(accuracy) - 1 / 3) < 4 * np.sqrt(2 / 9 / (8 * 120))


@pytest.mark.fidelity
def test_views_of_texts_do_not_know_random_labels():
    views = {
        "tied": make_pipeline(KeepWords(3), CountVectorizer(binary=True, token_pattern=r"\w+")),
        "style": TextStatistics(),
    }
    accuracy = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        words = [f"word{k}" for k in range(60)]
        texts = [" ".join(rng.choice(words, 12)) for _ in range(120)]
        jury = ViewJury(views, random_state=seed).fit(texts, rng.permutation(np.arange(120) % 2))
        accuracy.append(jury.view_scores_["balanced_accuracy"])
    assert np.abs(np.mean(accuracy, axis=0) - 0.5).max() < 4 * np.sqrt(0.25 / (12 * 120))


# ---------------------------------------------------------------- samples of every kind


def test_arrays_tensors_files_and_datasets_have_the_same_groups(tmp_path):
    X, y, _ = SMALL
    views = {
        "border": make_pipeline(ImageStatistics(["border"])),
        "mask": make_pipeline(MaskCenter(), PatchFeatures(8)),
    }
    paths = [tmp_path / f"{i}.png" for i in range(len(X))]
    for path, picture in zip(paths, X, strict=True):
        to_pil_image(torch.from_numpy(picture)).save(path)
    jury = Jury(views).fit(X, y)
    tensor = torch.from_numpy(X)
    for same in (tensor, paths, [str(p) for p in paths], TensorDataset(tensor, tensor)):
        other = Jury(views).fit(same, y)
        assert np.mean(other.labels_ == jury.labels_) > 0.97
        assert_array_equal(other.predict(same, y), other.labels_)
        part = [same[i] for i in range(0, 150, 7)] if isinstance(same, list) else same[::7]
        if not isinstance(same, TensorDataset):
            assert_array_equal(other.predict(part, y[::7]), other.labels_[::7])


def test_groups_that_samples_carry_are_ignored_and_new_ones_carried():
    X, y, colour = SMALL
    jury = Jury({"border": make_pipeline(ImageStatistics(["border"]))})
    labels = jury.fit(X, y).labels_
    assert_array_equal(jury.fit(GroupedData(X, colour), y).labels_, labels)
    carried = jury.fit_transform(GroupedData(X, colour), y)
    assert carried.data is X
    assert_array_equal(carried.sample_group, labels)
    assert carried.group_inferrer is jury
    assert jury.transform(X) is X


def test_files_of_several_sizes(tmp_path):
    X, y, _ = SMALL
    X, y = X[:40], y[:40]
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for i, path in enumerate(paths):
        to_pil_image(torch.from_numpy(X[i])).resize((14 + i % 5, 20)).save(path)
    jury = Jury().fit(paths, y)
    assert_array_equal(jury.predict(paths, y), jury.labels_)


def test_texts_are_known_again_in_any_container():
    texts, y, _ = TEXTS
    words = CountVectorizer(binary=True, token_pattern=r"\w+")
    jury = Jury({"words": words}, C=10.0).fit(texts, y)
    series = pd.Series(texts, index=np.arange(400)[::-1] + 5)
    for same in (np.array(texts), np.array(texts, dtype=object), series, tuple(texts)):
        assert_array_equal(jury.predict(same, y), jury.labels_)
    assert_array_equal(Jury({"words": words}, C=10.0).fit(series, y).labels_, jury.labels_)


@pytest.mark.parametrize("size", [8, 28])
def test_grey_pictures_without_channels(size):
    digits = load_digits()
    X = np.kron(digits.images[:120] / 16, np.ones((4, 4)))[:, 2:30, 2:30]
    X = digits.images[:120] / 16 if size == 8 else X
    y = digits.target[:120] % 2
    jury = Jury().fit(X, y)
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert jury.view_names_[:2] == ["border", "colours"]


def test_views_must_end_in_numbers():
    X, y, _ = SMALL
    with pytest.raises(ValueError, match=r"'m' gives no table, but samples of shape \(150, 3"):
        Jury({"m": MaskCenter()}).fit(X, y)
    with pytest.raises(ValueError, match="'w' gives no table, but list"):
        Jury({"w": KeepWords(3)}).fit(*TEXTS[:2])
    with pytest.raises(TypeError, match=r"'c': \[1\], but X is no table"):
        Jury({"c": [1]}).fit(X, y)
    with pytest.raises(TypeError, match="X is no table"):
        Jury({"c": "premise"}).fit(TEXTS[0], TEXTS[1])


def test_a_network_trained_on_a_view_out_of_fold():
    X, y, colour = DIGITS
    erm = ERMClassifier(Net, optimizer="adam", lr=0.005, max_epochs=6)
    jury = Jury({"network": make_pipeline(MaskCenter(), erm)}, cross_fit=3).fit(X, y)
    assert min(precision_and_recall(jury, colour != y)) > 0.9
    # by the outputs of cross-fitted networks, whose training rows are known by their pixels
    extractor = TorchFeatureExtractor(erm, cross_fit=3, output="logits")
    jury = Jury({"network": make_pipeline(MaskCenter(), extractor)}, cross_fit=3).fit(X, y)
    assert min(precision_and_recall(jury, colour != y)) > 0.9
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert_array_equal(jury.predict(X[:50], y[:50]), jury.labels_[:50])


# ---------------------------------------------------------------- in estimators


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    attribute = np.where(rng.random(n) < 0.9, y, 1 - y)
    X = np.stack([y + rng.normal(size=n), 9 * attribute + rng.normal(size=n)], axis=1)
    return X.astype(np.float32), y, attribute


@pytest.mark.parametrize("cls", [GroupDROClassifier, LastLayerRetrainer])
def test_a_jury_infers_the_groups_of_a_classifier_of_tables(cls, tmp_path):
    X, y, attribute = table()
    clf = cls(group_inferrer=ViewJury({"ground": [1]}), **QUICK).fit(X, y)
    assert_array_equal(clf.group_inferrer_.margin_ < 0, attribute != y)
    assert clf.group_inferrer_.random_state is not None  # seeded by the classifier
    assert_array_equal(clf.infer_groups(X, y), clf.group_inferrer_.labels_)
    known = cls(**QUICK).fit(X, y, sample_group=2 * y + (attribute != y))
    assert_array_equal(clf.predict(X), known.predict(X))
    save_model(clf, tmp_path / "model.safetensors")
    same = load_model(tmp_path / "model.safetensors")
    assert_array_equal(same.infer_groups(X, y), clf.infer_groups(X, y))
    assert_array_equal(same.predict(X), clf.predict(X))


@pytest.mark.parametrize("cls", [GroupDROClassifier, LastLayerRetrainer])
def test_a_jury_infers_the_groups_of_a_classifier_of_pictures(cls):
    X, y, colour = SMALL
    params = QUICK | {"max_epochs": 1, "lr": 0.01}
    jury = ViewJury({"border": make_pipeline(ImageStatistics(["border"]))})
    clf = cls(Net, group_inferrer=jury, **params).fit(X, y)
    found = clf.group_inferrer_
    assert min(precision_and_recall(found, colour != y)) > 0.9
    assert_array_equal(clf.infer_groups(X, y), found.labels_)
    assert clf.predict(X).shape == (150,)


def test_a_jury_in_a_pipeline():
    X, y, attribute = table()
    jury = ViewJury({"ground": [1]}, random_state=0)
    pipe = make_pipeline(StandardScaler(), jury, GroupDROClassifier(**QUICK)).fit(X, y)
    assert_array_equal(pipe[1].margin_ < 0, attribute != y)
    assert_array_equal(pipe.infer_groups(X, y), pipe[1].labels_)
    assert 0.0 <= worst_group_scorer(pipe, X, y) <= 1.0
    frame = pd.DataFrame(X, columns=["object", "ground"])
    named = clone(pipe).set_params(viewjury__views={"ground": ["ground"]})
    named.set_output(transform="pandas").fit(frame, y)
    assert_array_equal(named[1].labels_, pipe[1].labels_)


def test_a_search_over_views():
    X, y, _ = table()
    clf = GroupDROClassifier(group_inferrer=ViewJury({"ground": [1]}), **QUICK)
    grid = {
        "group_inferrer__views": [{"ground": [1]}, {"object": [0]}, "auto"],
        "group_inferrer__C": [0.001, 0.1],
    }
    search = GridSearchCV(clf, grid, cv=2, scoring=worst_group_scorer, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_jury_on_the_outputs_of_a_network():
    X, y, _ = SMALL
    extractor = TorchFeatureExtractor(nn.Flatten(), layer="")
    pipe = make_pipeline(extractor, ViewJury({"few": slice(0, 30)}, random_state=0)).fit(X, y)
    assert_array_equal(pipe.infer_groups(X, y), pipe[-1].labels_)


def test_a_fields_view_of_ones_own():
    texts, y, attribute = TEXTS
    pairs = list(zip(texts[::-1], texts, strict=True))
    words = CountVectorizer(binary=True, token_pattern=r"\w+")
    jury = Jury({"second": make_pipeline(SelectFields(1), words)}, C=0.01).fit(pairs, y)
    assert min(precision_and_recall(jury, attribute != y)) > 0.9


# ---------------------------------------------------------------- real embeddings


@pytest.mark.fidelity
def test_the_jury_knows_the_place_of_waterbirds(real_data):
    """Training rows; the views' embeddings stand side by side with those of the pictures."""
    folder = real_data / "waterbirds"
    files = ["waterbirds_efficientnet_lite0.npz", "waterbirds_views_efficientnet_lite0.npz"]
    if not all((folder / name).is_file() for name in files):
        pytest.skip(f"no Waterbirds embeddings of views in {folder}")
    with np.load(folder / files[0]) as file:
        rows = file["split"] == 0
        y, place = file["y"][rows], file["place"][rows]
        parts = [file["q"][rows] * file["scale"]]
    with np.load(folder / files[1]) as file:
        parts += [file[k][rows] * file[f"{k}_scale"] for k in ("mask", "shuffle")]
    X = np.concatenate(parts, axis=1).astype(np.float32)
    views = {"mask": slice(1280, 2560), "shuffle": slice(2560, 3840)}
    jury = Jury(views, clean=slice(0, 1280)).fit(X, y)
    side = np.where(jury.margin_ < 0, 1 - y, y)
    assert np.mean(side == place) >= 0.965
    assert_array_equal(jury.predict(X, y), jury.labels_)
