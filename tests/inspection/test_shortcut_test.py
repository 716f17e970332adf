"""shortcut_test: its figures by hand, what it looks for, what it cannot test, what it says."""

import json

import numpy as np
import pytest
from scipy.stats import fisher_exact
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skspurious import GroupedData
from skspurious.group_inference import SpuriousGroupInferrer, ViewJury
from skspurious.inspection import ShortcutTest, shortcut_test

VIEWS = {"ground": [1]}
GROUND = ColumnTransformer([("ground", "passthrough", [1])])
QUICK = {"n_permutations": 39, "random_state": 0}


def make_data(strength, seed=0, n=600):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    sand = np.where(rng.random(n) < strength, y, 1 - y)
    X = np.stack([y + 0.4 * rng.normal(size=n), sand + 0.2 * rng.normal(size=n)], axis=1)
    return X, y, sand


@pytest.fixture(scope="module")
def planted():
    """A classifier that follows a shortcut, and samples that it has not seen."""
    X, y, sand = make_data(0.9)
    clf = LogisticRegression().fit(X[::2], y[::2])
    return clf, X[1::2], y[1::2], sand[1::2]


@pytest.fixture(scope="module")
def found(planted):
    clf, X, y, sand = planted
    return shortcut_test(clf, X, y, views=VIEWS, sample_group=sand, **QUICK)


def test_a_shortcut_is_found(found):
    assert found.evidence == "strong"
    assert found.p_value == 0.025
    frame = found.to_frame()
    assert frame.index.tolist() == [
        (name, label) for name in ("ground", "sample_group") for label in ("all", 0, 1)
    ]
    assert frame.loc[("ground", "all"), "recovered"] > 0.1


def test_without_a_shortcut_there_is_no_evidence():
    X, y, _ = make_data(0.5)
    test = shortcut_test(None, X, y, views=VIEWS, **QUICK)
    assert test.evidence == "none"
    assert test.sentence == "No evidence of a shortcut among what was looked for: 'ground'."


def test_figures_of_known_groups_are_what_one_counts(planted, found):
    clf, X, y, sand = planted
    frame = found.to_frame().loc["sample_group"]
    error = clf.predict(X) != y
    for k in (0, 1):
        misled, right = (y == k) & (sand != y), (y == k) & (sand == y)
        row = frame.loc[k]
        assert row["n"] == (y == k).sum()
        assert row["n_misled"] == misled.sum()
        assert row["accuracy"] == pytest.approx(right.sum() / (y == k).sum())
        assert row["error_misled"] == pytest.approx(error[misled].mean())
        assert row["error_right"] == pytest.approx(error[right].mean())
        table = [[error[s].sum(), (~error[s]).sum()] for s in (misled, right)]
        p = fisher_exact(table, alternative="greater").pvalue
        assert row["difference_p_value"] == pytest.approx(p)
    everything = frame.loc["all"]
    mean = frame.loc[[0, 1]].mean(numeric_only=True)
    for name in ("accuracy", "error_right", "error_misled", "recovered", "lost"):
        assert everything[name] == pytest.approx(mean[name])
    assert everything["difference_low"] < everything["difference"] < everything["difference_high"]
    excess = frame.loc[[0, 1], "n_misled"] @ frame.loc[[0, 1], "difference"]
    assert everything["error_explained"] == pytest.approx(excess / error.sum())


def test_permuted_errors_differ_by_chance():
    """The p-value of the difference over both classes, against the exact one of a single class."""
    X, y, sand = make_data(0.9)

    class Guess:
        def predict(self, X):
            return np.random.default_rng(1).permutation(y)

    frame = shortcut_test(Guess(), X, y, sample_group=sand, **QUICK).to_frame().loc["sample_group"]
    assert (frame["difference_p_value"] > 0.01).all()


def test_views_groups_and_inferrers_are_tested_together(planted):
    clf, X, y, sand = planted
    test = shortcut_test(
        clf,
        GroupedData(X, sand),
        y,
        views=ViewJury(VIEWS),
        group_inferrer=make_pipeline(GROUND, SpuriousGroupInferrer("error", random_state=0)),
        **QUICK,
    )
    names = test.to_frame().index.get_level_values(0).unique().tolist()
    assert names == ["ground", "error", "sample_group"]


def test_a_fitted_jury_and_a_fitted_inferrer_are_asked_about_new_samples(planted):
    clf, X, y, _ = planted
    X_train, y_train, _ = make_data(0.9, seed=1)
    jury = ViewJury(VIEWS, random_state=0).fit(X_train, y_train)
    errors = make_pipeline(GROUND, SpuriousGroupInferrer("error", random_state=0))
    errors.fit(X_train, y_train)
    test = shortcut_test(clf, X, y, views=jury, group_inferrer=errors, **QUICK)
    assert test.strongest in ("ground", "error")
    assert test.evidence == "strong"


def test_groups_made_of_errors_are_not_tested(planted):
    clf, X, y, _ = planted
    test = shortcut_test(clf, X, y, group_inferrer=SpuriousGroupInferrer("error"))
    assert test.evidence == "none"
    assert test.p_value == 1.0
    assert test.sentence.startswith("No evidence possible: 'error' is made of errors")
    assert list(test.not_tested) == ["error"]
    assert len(test.to_frame()) == 0
    assert "'error' is made of errors" in repr(test)
    assert "nothing" in test._repr_html_()


def test_a_classifier_without_errors_is_said_to_have_none(planted):
    _, X, y, sand = planted

    class Memory:
        def predict(self, X):
            return y

    test = shortcut_test(Memory(), X, y, sample_group=sand, **QUICK)
    assert test.evidence == "strong", "the verdict is that of heads, not of the classifier"
    assert "errs on 0 of 300 samples" in test.notes[0]
    assert test.to_frame().loc[("sample_group", "all"), "error_explained"] == 0


def test_classes_may_have_names(planted, found):
    _, X, y, sand = planted
    name = np.where(y, "cow", "camel")
    test = shortcut_test(None, X, name, views=VIEWS, sample_group=sand, **QUICK)
    frame = test.to_frame()
    assert frame.index.get_level_values(1)[:3].tolist() == ["all", "camel", "cow"]
    columns = ["recovered", "lost", "p_value"]
    expected = found.to_frame().loc[("ground", "all"), columns]
    assert frame.loc[("ground", "all"), columns].tolist() == pytest.approx(expected.tolist())


def test_it_is_for_humans_and_for_machines(found):
    first, *_ = repr(found).splitlines()
    assert first == found.sentence
    assert first.startswith("Strong evidence of a shortcut: '")
    assert "Where it misleads, the model errs on" in first
    assert "Looked for, on 300 samples: 'ground', 'sample_group'." in repr(found)
    assert found._repr_html_().startswith(f"<p><b>{first}".replace("'", "&#x27;"))
    keys = [
        "evidence",
        "sentence",
        "p_value",
        "level",
        "strongest",
        "n_samples",
        "n_permutations",
        "classes",
        "nuisances",
        "not_tested",
        "notes",
    ]
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(plain) == keys
    assert set(plain["nuisances"][0]["overall"]) == set(found.to_frame().columns)


def test_columns_of_a_table_are_views_that_may_be_the_object():
    X, y, _ = make_data(0.9, n=200)
    test = shortcut_test(None, X, y, **QUICK)
    names = set(test.to_frame().index.get_level_values(0))
    assert {"column 0", "column 1"} <= names
    assert "may be the object" in test.notes[0]


def test_pictures_need_no_embedding():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 60)
    X = 0.1 * rng.random((120, 3, 12, 12)).astype(np.float32)
    X[:, 0, 4:8, 4:8] += y[:, None, None] * 0.2
    X[:, 2] += 0.5 * np.where(rng.random(120) < 0.9, y, 1 - y)[:, None, None]
    from skspurious.views import ImageStatistics

    test = shortcut_test(None, X, y, views={"border": ImageStatistics(["border"])}, **QUICK)
    assert test.strongest == "border"
    assert test.to_frame().loc[("border", "all"), "accuracy"] > 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(50, dtype=int)}, "y has one class"),
        ({"y": np.arange(49) % 2}, "y has 49 rows for 50 samples"),
        ({"embedding": np.zeros((49, 2))}, "embedding has 49 rows for 50 samples"),
        ({"sample_group": [0] * 49}, "sample_group has 49 rows for 50 samples"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    X, y, _ = make_data(0.9, n=50)
    arguments = {"y": y, "views": VIEWS, **change}
    with pytest.raises(ValueError, match=message):
        shortcut_test(None, X, arguments.pop("y"), **arguments, **QUICK)


def test_a_result_is_public():
    assert isinstance(
        shortcut_test(None, *make_data(0.9, n=60)[:2], views=VIEWS, **QUICK), ShortcutTest
    )


@pytest.mark.parametrize(("strength", "expected"), [(0.5, ["none"]), (0.9, ["strong"])])
def test_real_pictures_of_birds(real_data, strength, expected):
    """Places that agree with the bird in half, and in nine tenths, of 1,000 pictures."""
    folder = real_data / "waterbirds"
    with np.load(folder / "waterbirds_efficientnet_lite0.npz") as file:
        Z = file["q"].astype(np.float32) * file["scale"]
        y, place, split = file["y"], file["place"], file["split"]
    with np.load(folder / "waterbirds_views_efficientnet_lite0.npz") as file:
        seen = file["mask"].astype(np.float32) * file["mask_scale"]
    rng = np.random.default_rng(0)
    rows = []
    for label, n in ((0, 750), (1, 250)):
        for at, m in ((label, round(strength * n)), (1 - label, n - round(strength * n))):
            cell = np.flatnonzero((split != 1) & (y == label) & (place == at))
            rows.append(rng.choice(cell, m, replace=False))
    rows = np.concatenate(rows)
    X = np.concatenate([Z[rows], seen[rows]], axis=1)
    views = {"mask": slice(Z.shape[1], None)}
    test = shortcut_test(None, X, y[rows], views=views, embedding=Z[rows], **QUICK)
    assert test.evidence in expected
