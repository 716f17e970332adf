"""ViewJury on tables: groups by hand, laws, and what it does with odd data."""

import pickle
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, TargetEncoder
from sklearn.svm import LinearSVC

from skspurious import GroupedData, load_model, save_model
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.functional._jury import view_weights
from skspurious.group_inference import ErrorGroups, SpuriousGroupInferrer, ViewJury

VIEWS = {"ground": [0], "sky": [1], "rest": slice(3, 6)}
Jury = partial(ViewJury, random_state=0)


def shortcut_table(n=400, n_classes=2, strength=0.9, seed=0):
    """Two columns that a shortcut makes, strong and weaker; one of the object; three of noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    other = (y + rng.integers(1, max(n_classes, 2), n)) % n_classes
    attribute = np.where(rng.random(n) < strength, y, other)
    X = rng.normal(size=(n, 6))
    X[:, 0] = 8 * attribute + 0.5 * rng.normal(size=n)
    X[:, 1] = attribute + 0.5 * rng.normal(size=n)
    X[:, 2] = y + rng.normal(size=n)
    return X, y, attribute


TABLE = shortcut_table()


def partition(labels):
    """A partition of the rows, whatever the groups are called."""
    return {frozenset(np.flatnonzero(labels == g)) for g in np.unique(labels)}


# ---------------------------------------------------------------- what the groups are


@pytest.mark.fidelity
def test_sides_are_those_of_the_planted_shortcut():
    X, y, attribute = TABLE
    jury = Jury(VIEWS).fit(X, y)
    assert_array_equal(jury.labels_, 2 * y + (attribute != y))
    assert_array_equal(jury.group_classes_, [0, 0, 1, 1])
    assert_array_equal(jury.cluster_sizes_, np.bincount(jury.labels_))
    assert_array_equal(jury.groups_, np.arange(4))
    assert_array_equal(jury.margin_ < 0, attribute != y)
    X_new, y_new, attribute_new = shortcut_table(strength=0.5, seed=1)
    assert_array_equal(jury.predict(X_new, y_new), 2 * y_new + (attribute_new != y_new))
    assert_array_equal(jury.infer_groups(X_new, y_new), jury.predict(X_new, y_new))
    # without labels: what the jury takes it for
    assert_array_equal(jury.predict(X_new), 2 * attribute_new)


def test_votes_weights_and_scores_by_hand():
    X, y, _ = TABLE
    jury = Jury(VIEWS, C=0.01).fit(X, y)
    seed = jury.judges_[0].seed
    for vote, columns in zip(jury.votes_, VIEWS.values(), strict=True):
        logits = cross_fitted_logits(X[:, columns], y, 2, C=0.01, random_state=seed)
        assert_allclose(vote[:, 1], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), atol=1e-6)
    hits = [[(np.sum(v[y == k].argmax(1) == k) + 0.5) / 201 for k in (0, 1)] for v in jury.votes_]
    accuracy = np.mean(hits, axis=1)
    table = jury.view_scores_
    assert_allclose(table["balanced_accuracy"], accuracy)
    assert_allclose(table["weight"], view_weights(accuracy, 2, n_samples=200))
    assert_allclose(jury.score_, np.einsum("v,vnk->nk", table["weight"], jury.votes_), atol=1e-6)
    own = jury.score_[np.arange(400), y]
    assert_allclose(jury.margin_, own - jury.score_[np.arange(400), 1 - y])
    assert table.loc["ground", "agreement"] == pytest.approx(1.0, abs=0.02)
    assert list(table.index) == jury.view_names_ == ["ground", "sky", "rest"]
    assert (table["seconds"] > 0).all()


def test_copies_of_a_sample_have_one_vote():
    """Forty copies are in all folds: each gets the mean of what the folds' models say."""
    X = np.repeat(np.float32([[0.0], [1.0], [2.0]]), 40, axis=0)
    y = np.tile([0] * 7 + [1] * 3, 12) ^ (X[:, 0] == 2)
    jury = Jury({"v": [0]}).fit(X, y)
    logits = cross_fitted_logits(X, y, 2, random_state=jury.judges_[0].seed)
    for value in (0.0, 1.0, 2.0):
        for k in (0, 1):
            rows = (X[:, 0] == value) & (y == k)
            each = softmax(logits[rows], axis=1)
            assert len(np.unique(each[:, 0])) > 1
            assert_allclose(jury.votes_[0][rows], np.tile(each.mean(axis=0), (len(each), 1)), 1e-6)
    assert_array_equal(jury.predict(X, y), jury.labels_)


def test_what_the_views_say_is_without_the_clean_sample():
    X, y, _ = TABLE
    jury = ViewJury({"ground": [0]}, clean=[2], random_state=0).fit(X, y)
    assert jury.view_scores_["weight"].min() > 0
    assert_allclose(jury.view_score_, jury.votes_[0], rtol=1e-6)
    assert not np.allclose(jury.view_score_, jury.score_)


def test_one_view_is_error_groups_of_its_columns():
    X, y, _ = shortcut_table(strength=0.8)
    seed = Jury({"a": [1]}).fit(X, y).judges_[0].seed
    logits = cross_fitted_logits(X[:, [1]], y, 2, random_state=seed)
    wrong = logits.argmax(axis=1) != y
    assert_array_equal(Jury({"a": [1]}).fit(X, y).labels_, 2 * y + wrong)
    errors = SpuriousGroupInferrer(ErrorGroups(), random_state=0).fit(X[:, [1]], y).labels_
    assert np.mean(errors == 2 * y + wrong) > 0.97  # the folds are drawn from another seed


@pytest.mark.parametrize("by", ["error", "predicted_class"])
def test_several_classes(by):
    X, y, attribute = shortcut_table(900, n_classes=3, strength=0.8)
    X[:, 0] = np.where(attribute == 1, 8.0, 0.0)
    X[:, 1] = np.where(attribute == 2, 8.0, 0.0)
    jury = Jury({"both": [0, 1]}, by=by).fit(X, y)
    pairs = y * 3 + (attribute if by == "predicted_class" else attribute == y)
    assert partition(jury.labels_) == partition(pairs)
    assert_array_equal(jury.predict(X, y), jury.labels_)
    first = [np.flatnonzero(jury.group_classes_ == k)[0] for k in range(3)]
    assert_array_equal(np.isin(jury.labels_, first), attribute == y)


def test_a_class_with_too_few_on_a_side_stays_whole():
    X, y, attribute = TABLE
    n_odd = np.bincount(y[attribute != y])
    small = n_odd.argmin()
    assert n_odd[0] != n_odd[1]
    jury = Jury(VIEWS, min_group_size=int(n_odd.max())).fit(X, y)
    assert jury.cluster_sizes_.tolist() == np.bincount(jury.labels_).tolist()
    assert len(jury.groups_) == 3
    assert len(set(jury.labels_[y == small])) == 1
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert len(Jury(VIEWS, min_group_size=201).fit(X, y).groups_) == 2


# ---------------------------------------------------------------- laws


def test_the_order_of_the_views_changes_nothing():
    X, y, _ = TABLE
    jury = Jury(VIEWS, clean=[2]).fit(X, y)
    names = list(VIEWS)[::-1]
    other = Jury([(name, VIEWS[name]) for name in names], clean=[2]).fit(X, y)
    assert_array_equal(other.score_, jury.score_)
    assert_array_equal(other.labels_, jury.labels_)
    columns = ["balanced_accuracy", "weight", "agreement"]
    pd.testing.assert_frame_equal(
        other.view_scores_.loc[jury.view_names_, columns], jury.view_scores_[columns]
    )


@pytest.mark.parametrize("views", [VIEWS, {"trees": HistGradientBoostingClassifier(max_iter=10)}])
def test_the_order_of_the_rows_changes_nothing(views):
    X, y, _ = shortcut_table(strength=0.8)
    order = np.random.default_rng(0).permutation(400)
    jury, other = Jury(views).fit(X, y), Jury(views).fit(X[order], y[order])
    assert_allclose(other.score_, jury.score_[order], atol=1e-6)
    X_new = shortcut_table(seed=1)[0]
    assert_allclose(other.decision_scores(X_new), jury.decision_scores(X_new), atol=1e-6)


@pytest.mark.parametrize("names", [["b", "a"], [7, -1], [True, False]])
def test_names_of_the_classes_change_nothing_but_names(names):
    X, y, _ = TABLE
    jury, other = Jury(VIEWS).fit(X, y), Jury(VIEWS).fit(X, np.array(names)[y])
    assert partition(other.labels_) == partition(jury.labels_)
    assert_array_equal(other.classes_, np.unique(names))
    own = other.group_classes_[other.labels_]
    assert_array_equal(own, np.array(names)[y])
    columns = ["balanced_accuracy", "weight"]
    assert_allclose(other.view_scores_[columns], jury.view_scores_[columns], atol=1e-6)


def test_a_constant_view_has_no_say():
    X, y, _ = TABLE
    X = np.column_stack([X, np.ones(400)])
    without, with_it = Jury(VIEWS).fit(X, y), Jury({**VIEWS, "constant": [6]}).fit(X, y)
    assert with_it.view_scores_.loc["constant", "weight"] == 0.0
    assert with_it.view_scores_.loc["constant", "balanced_accuracy"] == pytest.approx(0.5)
    assert_array_equal(with_it.score_, without.score_)


@pytest.mark.fidelity
def test_views_of_noise_change_few_groups():
    changed, weight = [], []
    for seed in range(10):
        X, y, _ = shortcut_table(strength=0.8, seed=seed)
        noise = np.random.default_rng(100 + seed).normal(size=(400, 5))
        X = np.column_stack([X, noise])
        without = Jury({"sky": [1]}).fit(X, y)
        with_it = Jury({"sky": [1], **{f"noise {k}": [6 + k] for k in range(5)}}).fit(X, y)
        changed.append(np.mean(without.labels_ != with_it.labels_))
        weight.append(with_it.view_scores_["weight"].drop("sky").sum())
    assert np.mean(changed) < 0.002
    assert np.max(weight) < 0.1
    assert np.mean(np.array(weight) > 0) <= 0.3  # 50 views, three standard errors


def test_a_view_that_is_given_twice_counts_twice():
    X, y, _ = TABLE
    one = Jury({"sky": [1], "rest": [3], "object": [2]}).fit(X, y).view_scores_["weight"]
    views = {"sky": [1], "again": [1], "rest": [3], "object": [2]}
    two = Jury(views).fit(X, y).view_scores_["weight"]
    assert two["sky"] == two["again"]
    assert two["sky"] / two["object"] == pytest.approx(one["sky"] / one["object"])
    alone = Jury({"sky": [1]}).fit(X, y)
    assert_allclose(Jury({"sky": [1], "again": [1]}).fit(X, y).score_, alone.score_)


def test_the_clean_sample_counts_at_most_as_much_as_the_best_view():
    X, y, _ = TABLE
    weight = Jury({"sky": [1], "rest": [3]}, clean=[0]).fit(X, y).view_scores_["weight"]
    assert weight.index.tolist() == ["sky", "rest", "clean"]
    assert weight["clean"] == pytest.approx(weight["sky"])


def test_training_rows_keep_their_groups_in_any_company():
    X, y, _ = shortcut_table(strength=0.8)
    X = np.column_stack([X, np.random.default_rng(0).normal(size=(400, 300))])
    jury = Jury({"all": slice(1, None)}, C=10.0).fit(X, y)  # which separates the training rows
    assert len(np.unique(jury.labels_)) == 4
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert_array_equal(jury.predict(X[::3], y[::3]), jury.labels_[::3])
    assert_allclose(jury.decision_scores(X[5:9], y[5:9]), jury.score_[5:9])
    in_sample = jury.decision_scores(X)  # of the model of all rows
    assert_array_equal(in_sample.argmax(axis=1), y)
    assert_array_equal(jury.predict(GroupedData(X, y), y), jury.labels_)


def test_copies_are_judged_together():
    X, y, _ = shortcut_table(60, strength=0.7)
    X, y = np.tile(X, (3, 1)), np.tile(y, 3)
    jury = Jury(VIEWS).fit(X, y)
    assert_array_equal(jury.labels_[:60], jury.labels_[60:120])
    assert_array_equal(jury.predict(X, y), jury.labels_)


RANDOM = {
    "linear": slice(0, 6),
    "components": make_pipeline(StandardScaler(), PCA(2)),
    "trees": HistGradientBoostingClassifier(max_iter=20),
    "best columns": SelectKBest(k=2),
    "best columns and trees": make_pipeline(SelectKBest(k=2), GaussianNB()),
    "discriminants": LinearDiscriminantAnalysis(n_components=1),
    "nested": make_pipeline(StandardScaler(), make_pipeline(SelectKBest(k=2), "passthrough")),
}


@pytest.mark.fidelity
@pytest.mark.parametrize("name", RANDOM)
def test_views_do_not_know_random_labels(name):
    """A leak shows as more: of 40 columns the best two go with the labels they were chosen by."""
    accuracy = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(150, 40)), rng.permutation(np.arange(150) % 2)
        jury = ViewJury({"v": RANDOM[name]}, random_state=seed).fit(X, y)
        accuracy.append(jury.view_scores_.loc["v", "balanced_accuracy"])
    assert abs(np.mean(accuracy) - 0.5) < 4 * np.sqrt(0.25 / (12 * 150))


def test_a_transformer_that_is_cross_fitted_itself_is_fitted_once():
    """Of 40 categories at random, the mean label of each: whoever sees his own knows much."""
    category = np.random.default_rng(0).integers(0, 40, (200, 1)).astype(float)
    y = np.arange(200) % 2
    jury = Jury({"v": TargetEncoder(cv=KFold(5))}).fit(category, y)
    assert jury.view_scores_.loc["v", "balanced_accuracy"] < 0.5 + 4 * np.sqrt(0.25 / 200)


def test_every_class_counts_the_same():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [360, 40])
    X = (y + 0.7 * rng.normal(size=400))[:, None]
    views = {
        "linear": [0],
        "bayes": GaussianNB(),
        "balanced": LogisticRegression(class_weight="balanced"),
    }
    jury = Jury(views).fit(X, y)
    for vote in jury.votes_:
        recall = [np.mean(vote[y == k].argmax(1) == k) for k in (0, 1)]
        assert abs(recall[0] - recall[1]) < 0.15  # without it the rare class has 0.3


# ---------------------------------------------------------------- data as users have them


@pytest.mark.parametrize(
    "columns",
    ["b", ["b"], 1, [1], slice(1, 2), slice("b", "b"), np.array([False, True, False]), [-2]],
    ids=repr,
)
def test_columns_by_any_name(columns):
    y = np.arange(40) % 2
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"])
    X["b"] += 9 * y
    table = X.to_numpy() if not isinstance(columns, str | list | slice) else X
    assert Jury({"v": columns}).fit(table, y).margin_.min() > 0
    assert Jury({"v": columns}).fit(X, y).margin_.min() > 0


def test_columns_that_have_whole_numbers_as_names():
    y = np.arange(40) % 2
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=[2, 0, 1])
    X[2] += 9 * y
    assert Jury({"v": [2]}).fit(X, y).margin_.min() > 0  # the first one
    scores = Jury().fit(X, y).view_scores_["balanced_accuracy"]
    assert scores.idxmax() == "column 2" or scores["column 2"] > 0.95


def mixed_table(n=300, seed=0):
    """A column of every kind, each of which knows the attribute."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    a = np.where(rng.random(n) < 0.9, y, 1 - y)
    X = pd.DataFrame(
        {
            "number": 6 * a + rng.normal(size=n),
            "missing": np.where(rng.random(n) < 0.02, np.nan, 6 * a + rng.normal(size=n)),
            "category": pd.Categorical(np.where(a, "x", "z")),
            "object": np.where(a, "aa", "bb").astype(object),
            "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(900 * a, unit="D"),
            "bool": a.astype(bool),
            "integer": pd.array(a, dtype="Int64"),
            "string": pd.array(np.where(a, "p", "q"), dtype="string"),
            "mixed": [("s" if k else 3) for k in a],
            "noise": rng.choice(["u", "v", "w"], n),
        }
    )
    return X, y, a


@pytest.mark.fidelity
def test_a_table_of_all_kinds_of_columns():
    X, y, attribute = mixed_table()
    jury = Jury().fit(X, y)
    assert_array_equal(jury.margin_ < 0, attribute != y)
    accuracy = jury.view_scores_["balanced_accuracy"].drop("clean")
    assert accuracy.drop("column noise").min() > 0.84
    assert accuracy["column noise"] < 0.6
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert_array_equal(jury.predict(X[::-1], y[::-1]), jury.labels_[::-1])
    X_new, y_new, attribute_new = mixed_table(60, seed=1)
    X_new["category"] = X_new["category"].cat.add_categories("new")
    X_new.loc[3, "category"] = "new"
    X_new.loc[4, ["number", "missing", "object"]] = [0.0, np.nan, None]
    odd = np.isin(jury.predict(X_new, y_new), [1, 3])
    assert np.mean(odd == (attribute_new != y_new)) > 0.95


def test_rows_with_missing_values_and_their_copies_are_in_one_fold():
    """Noise, in copies with a missing value: whoever sees the copy knows the label."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = pd.DataFrame(rng.normal(size=(60, 3))).assign(gap=np.nan)
    X, y = pd.concat([X] * 3, ignore_index=True), np.tile(y, 3)
    X.columns = list("abcd")
    accuracy = Jury({"all": list("abcd")}).fit(X, y).view_scores_["balanced_accuracy"].iloc[0]
    assert accuracy < 0.5 + 4 * np.sqrt(0.25 / 60)


def test_new_rows_may_lack_what_no_training_row_lacks():
    X = pd.DataFrame({"a": np.arange(40.0) % 7, "b": np.arange(40) % 2 * 3.0})
    y = np.arange(40) % 2
    jury = Jury({"a": ["a"], "b": ["b"]}).fit(X, y)
    X.loc[:1, :] = np.nan
    assert jury.predict(X, y).shape == (40,)
    score = jury.decision_scores(X[:2])
    assert_allclose(score, 0.5, atol=0.01)  # of the mean row


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool"])
def test_tables_of_any_type(dtype):
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    X = (rng.random((100, 3)) > 0.5).astype(dtype)
    X[:, 0] = np.where(np.arange(100) % 20 < 2, 1 - y, y)
    jury = Jury().fit(X, y)
    assert_array_equal(jury.margin_ < 0, X[:, 0] != y)
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert_array_equal(jury.predict(torch.from_numpy(X), y), jury.labels_)
    assert_array_equal(jury.predict(X.tolist(), y), jury.labels_)


def test_a_table_of_another_precision_is_known_again():
    X, y, _ = shortcut_table(strength=0.8)
    jury = Jury(VIEWS, C=10.0).fit(X.astype(np.float32), y)
    assert_array_equal(jury.predict(X, y), jury.labels_)


@pytest.mark.parametrize(
    ("X", "y", "sizes"),
    [
        (np.ones((40, 2)), np.arange(40) % 2, [20, 20]),  # identical rows
        (np.arange(40.0)[:, None], np.zeros(40), [40]),  # one class
        (np.arange(20.0)[:, None] % 3, np.repeat([0, 1], 10), [10, 10]),  # few rows
        (np.arange(40.0)[:, None] % 7, np.r_[np.zeros(38), 1, 1], [38, 2]),  # fewer than folds
        (np.arange(40.0)[:, None] % 7, np.r_[np.zeros(39), 1], [39, 1]),
        (np.arange(2.0)[:, None], [0, 1], [1, 1]),
        (np.arange(200.0)[:, None] % 7, np.arange(200) % 50, [4] * 50),
    ],
)
@pytest.mark.parametrize(
    "view", [[0], LogisticRegression(), HistGradientBoostingClassifier(max_iter=2)]
)
def test_nothing_to_know(X, y, sizes, view):
    jury = Jury({"v": view}).fit(X, y)
    assert jury.cluster_sizes_.tolist() == sizes
    assert_array_equal(jury.predict(X, y), jury.labels_)
    assert jury.view_scores_["weight"].isin([0.0, 1.0]).all()


def test_a_rare_class_does_not_silence_the_jury():
    X, y, attribute = shortcut_table(401)
    is_rare = np.arange(401) == 7
    X = np.column_stack([X, 5.0 * is_rare])
    y = np.where(is_rare, 2, y)
    jury = Jury({"ground": [0, 6]}).fit(X, y)
    assert jury.view_scores_["balanced_accuracy"].iloc[0] > 0.85  # of the other two
    assert_array_equal((jury.margin_ < 0)[~is_rare], (attribute != y)[~is_rare])


def test_embeddings_by_principal_components():
    X, y, attribute = TABLE
    rng = np.random.default_rng(0)
    Z = np.column_stack([3 * np.tile(X[:, [0]], 40), rng.normal(size=(400, 60))])
    Z = Z.astype(np.float32)
    jury = Jury().fit(Z, y)
    assert jury.view_names_ == ["2 components", "8 components", "32 components", "clean"]
    assert np.mean((jury.margin_ < 0) == (attribute != y)) > 0.97


# ---------------------------------------------------------------- as an estimator


def test_n_jobs_and_seeds():
    X, y, _ = shortcut_table(strength=0.8)
    one, two = Jury(VIEWS).fit(X, y), Jury(VIEWS, n_jobs=2).fit(X, y)
    assert_array_equal(one.score_, two.score_)
    assert not np.array_equal(ViewJury(VIEWS, random_state=1).fit(X, y).score_, one.score_)


def test_global_generators_are_untouched(assert_global_rng_untouched):
    X, y, _ = mixed_table(60)
    with assert_global_rng_untouched():
        ViewJury().fit(X, y).predict(X, y)


def test_the_views_of_the_caller_stay_unfitted():
    X, y, _ = TABLE
    scaler = StandardScaler()
    views = {"scaled": make_pipeline(scaler, "passthrough"), "columns": [0]}
    jury = Jury(views).fit(X, y)
    assert not hasattr(scaler, "mean_")
    assert jury.get_params(deep=False)["views"] is views
    again = clone(jury).fit(X, y)
    assert_array_equal(again.score_, jury.score_)


@pytest.mark.parametrize("copy", [lambda j: pickle.loads(pickle.dumps(j)), "joblib"])
def test_copies_of_a_fitted_jury(copy, tmp_path):
    X, y, _ = mixed_table(100)
    jury = Jury().fit(X, y)
    if copy == "joblib":
        joblib.dump(jury, tmp_path / "jury")
        same = joblib.load(tmp_path / "jury")
    else:
        same = copy(jury)
    X_new, y_new, _ = mixed_table(30, seed=1)
    assert_array_equal(same.predict(X_new, y_new), jury.predict(X_new, y_new))
    assert_array_equal(same.predict(X, y), jury.labels_)


def test_a_jury_of_linear_models_is_saved_and_loaded(tmp_path):
    X, y, _ = shortcut_table(strength=0.8)
    jury = Jury({**VIEWS, "scaled": make_pipeline(StandardScaler(), PCA(2))}).fit(X, y)
    save_model(jury, tmp_path / "jury.safetensors")
    same = load_model(tmp_path / "jury.safetensors")
    X_new, y_new, _ = shortcut_table(seed=1)
    assert_array_equal(same.predict(X_new, y_new), jury.predict(X_new, y_new))
    assert_array_equal(same.predict(X, y), jury.labels_)
    pd.testing.assert_frame_equal(same.view_scores_, jury.view_scores_)


def test_trees_are_not_saved_and_the_error_says_so(tmp_path):
    X, y, _ = mixed_table(60)
    jury = Jury({"c": ["category"]}).fit(X, y)
    with pytest.raises(TypeError, match="Use joblib or pickle"):
        save_model(jury, tmp_path / "jury.safetensors")


def _fail(X):
    raise RuntimeError("no such view")


def test_a_fit_that_fails_leaves_nothing_half_new():
    X, y, _ = TABLE
    jury = Jury(VIEWS).fit(X, y)
    before = dict(vars(jury))
    jury.views = {**VIEWS, "bad": FunctionTransformer(_fail)}
    with pytest.raises(RuntimeError, match="no such view"):
        jury.fit(X[:100, :5], np.array(["a", "b"])[y[:100]])
    assert {k: v for k, v in vars(jury).items() if k != "views"} == {
        k: v for k, v in before.items() if k != "views"
    }
    assert_array_equal(jury.predict(X, y), jury.labels_)
    new = Jury({"bad": FunctionTransformer(_fail)})
    with pytest.raises(RuntimeError):
        new.fit(X, y)
    assert not any(name.endswith("_") for name in vars(new))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"views": {"a": Ridge()}}, TypeError, "'a': Ridge.*no transform and is no classifier"),
        ({"views": {"a": LinearSVC()}}, TypeError, "LinearSVC.*no predict_proba"),
        ({"views": {"a": StandardScaler}}, TypeError, "give an instance, StandardScaler()"),
        ({"views": {"a": 3.5}}, TypeError, "'a': 3.5: give a transformer"),
        ({"views": {"a": None}}, TypeError, "'a': None: give a transformer"),
        ({"views": {"a": "border"}}, ValueError, "'border', but X has 6 columns"),
        ({"views": {"a": [7]}}, ValueError, r"\[7\], but X has 6 columns"),
        ({"views": {"a": []}}, ValueError, "no columns: name some"),
        ({"views": {"a": [True, False]}}, ValueError, "mask of 2 columns for 'a', but X has 6"),
        ({"views": ["border"]}, ValueError, "list of pairs"),
        ({"views": [("a", [0]), ("a", [1])]}, ValueError, r"\['a', 'a'\]"),
        ({"views": {"clean": [0]}}, ValueError, "'clean' is that of the samples"),
        ({"views": {0: [0]}}, ValueError, r"names \[0\]: give each view a str"),
        ({"views": {}}, ValueError, "views is empty"),
        ({"views": "border"}, ValueError, "The 'views' parameter"),
        ({"clean": 3.5}, TypeError, "'clean': 3.5"),
        ({"extractor": "resnet"}, TypeError, "extractor='resnet' has no transform"),
        ({"cross_fit": 1}, ValueError, "The 'cross_fit' parameter"),
    ],
)
def test_parameters_that_are_wrong(params, error, message):
    X, y, _ = TABLE
    with pytest.raises(error, match=message):
        Jury(**params).fit(X, y)


@pytest.mark.parametrize("columns", [["a", "z"], slice("a", "z")])
def test_columns_that_a_data_frame_does_not_have(columns):
    X = pd.DataFrame(np.zeros((10, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=r"but X has the columns \['a', 'b'\]"):
        Jury({"v": columns}).fit(X, np.arange(10) % 2)


def test_labels_that_are_wrong():
    X, y, _ = TABLE
    with pytest.raises(ValueError, match="y has 5 labels for 400 samples"):
        Jury(VIEWS).fit(X, y[:5])
    with pytest.raises(ValueError, match="y has 1 missing values"):
        Jury(VIEWS).fit(X, np.where(np.arange(400) == 3, np.nan, y))
    jury = Jury(VIEWS).fit(X, y)
    with pytest.raises(ValueError, match="y has 5 labels for 400 samples"):
        jury.predict(X, y[:5])
    with pytest.raises(ValueError, match=r"classes that fit did not see: \[9\]"):
        jury.predict(X[:1], [9])
    with pytest.raises(ValueError, match="6 features"):
        jury.predict(X[:, :3], y)
