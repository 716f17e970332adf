"""SemiSupervisedGroupInferrer: groups from an attribute that is known of a few samples."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from skspurious import GroupedData, load_model, make_sample_group, save_model
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.group_inference import (
    SemiSupervisedGroupInferrer,
)

pytestmark = pytest.mark.filterwarnings("ignore:too few labels:UserWarning")


def make_places(n_samples=400, n_values=2, n_noise=3, seed=0, gap=4.0):
    """Two classes; the place agrees with the class in 7 of 8, and has columns of its own."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    shift = np.where(np.arange(n_samples) // 2 % 8 == 0, rng.integers(1, n_values, n_samples), 0)
    place = (y + shift) % n_values
    X = rng.normal(size=(n_samples, n_values + 1 + n_noise))
    X[np.arange(n_samples), place] += gap
    X[:, n_values] += 2 * y
    return X, y, place


def partly(place, n_known, seed=0, unknown=None):
    """The place of a few samples, and None of the others."""
    known = np.full(len(place), unknown, dtype=object)
    rows = np.random.default_rng(seed).choice(len(place), n_known, replace=False)
    known[rows] = place[rows]
    return known


# ------------------------------------------------------------------------------ what fit learns


@pytest.mark.fidelity
@pytest.mark.parametrize("n_values", [2, 3])
def test_a_few_labels_find_the_groups_of_all(n_values):
    X, y, place = make_places(600, n_values, gap=6.0)
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=partly(place, 120))
    truth = make_sample_group(y, place)
    assert (inferrer.labels_ == truth).mean() > 0.99
    assert_array_equal(inferrer.groups_, np.arange(2 * n_values))
    assert_array_equal(inferrer.group_classes_, np.repeat([0, 1], n_values))
    assert_array_equal(inferrer.group_attributes_, np.tile(np.arange(n_values), 2))
    assert_array_equal(inferrer.group_sizes_, np.bincount(inferrer.labels_))
    new, y_new, place_new = make_places(200, n_values, seed=1, gap=6.0)
    predicted = inferrer.infer_groups(new, y_new)
    assert (predicted == make_sample_group(y_new, place_new)).mean() > 0.97
    assert_array_equal(predicted, inferrer.predict(new, y_new))


@pytest.mark.fidelity
def test_with_all_labels_the_groups_are_the_given_ones():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)
    place = rng.choice(["sea", "land", "air"], 90)  # of which X says nothing
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=place)
    assert_array_equal(inferrer.labels_, make_sample_group(y, place))
    assert_array_equal(inferrer.predict(X, y), inferrer.labels_)
    assert_array_equal(inferrer.predict_proba(X, y).max(axis=1), 1.0)
    assert_array_equal(inferrer.expected_accuracy_, 1.0)
    assert inferrer.label_report_["accuracy"].max() < 0.7  # what it can tell of other rows


def test_given_labels_are_kept_where_the_model_says_otherwise():
    X, y, place = make_places(gap=6.0)
    known = partly(place, 100)
    rows = np.flatnonzero(known != None)[:4]  # noqa: E711
    known[rows] = 1 - place[rows]
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    assert_array_equal(inferrer.labels_[rows], 2 * y[rows] + 1 - place[rows])
    assert_array_equal(inferrer.predict(X, y), inferrer.labels_)
    nearly = inferrer.predict(X[rows] + 1e-3, y[rows])  # other rows, to be judged by the model
    assert_array_equal(nearly, 2 * y[rows] + place[rows])


def _reference_logits(X, y, place, known, C):
    """scikit-learn's logistic regression on the labelled rows, cells balanced."""
    rows = np.array([value is not None for value in known])
    scaler = StandardScaler().fit(X[rows])
    weight = compute_sample_weight("balanced", [f"{a} {b}" for a, b in zip(y[rows], place[rows])])
    model = LogisticRegression(C=C, tol=1e-8, max_iter=1000)
    model.fit(scaler.transform(X[rows]), place[rows], sample_weight=weight)
    return model.decision_function(scaler.transform(X))


@pytest.mark.fidelity
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_model_is_a_balanced_logistic_regression_of_the_labelled_rows(n_classes):
    X, y, place = make_places(gap=1.0)
    y += (np.arange(400) % 5 == 0) * (n_classes - 2)
    known = partly(place, 80)
    expected = _reference_logits(X, y, place, known, C=0.1)
    inferrer = SemiSupervisedGroupInferrer(C=0.1, n_components=None)
    inferrer.fit(X, y, sample_attribute=known)
    logits = X @ inferrer.coef_ + inferrer.intercept_
    assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=0.01)


def test_a_value_that_is_not_known_in_a_class_is_known_from_the_others():
    X, y, place = make_places(gap=6.0)
    known = partly(place, 200)
    known[(y == 1) & (place == 0)] = None
    with pytest.warns(UserWarning, match=r"too few labels .* of \(class, value\) \(1, 0\): 0\."):
        inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    assert (inferrer.labels_ == 2 * y + place).mean() > 0.99
    assert_array_equal(np.isnan(inferrer.expected_accuracy_), [False, True])


def test_a_class_without_labels_gets_its_groups_from_the_others():
    X, y, place = make_places(gap=6.0)
    known = partly(place, 200)
    known[y == 1] = None
    with pytest.warns(UserWarning, match=r"\(1, 0\): 0, \(1, 1\): 0\. expected_accuracy_ is NaN"):
        inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    assert (inferrer.labels_ == 2 * y + place).mean() > 0.97
    report = inferrer.label_report_
    assert report["is_enough"].tolist() == [True, False]
    assert report["n_labelled"].tolist() == [(known[y == 0] != None).sum(), 0]  # noqa: E711
    assert report[["accuracy", "low", "high"]].isna().all(axis=1).tolist() == [False, True]


# ----------------------------------------------------------------------------- how sure it is


@pytest.mark.fidelity
@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_expected_accuracy_is_the_accuracy(gap):
    """On average over draws of the labels: half of the others get too much, half too little."""
    X, y, place = make_places(4000, gap=gap)
    expected, truth = [], []
    for seed in range(8):
        inferrer = SemiSupervisedGroupInferrer(C=0.1)
        inferrer.fit(X, y, sample_attribute=partly(place, 400, seed))
        expected.append(inferrer.expected_accuracy_)
        truth.append([(inferrer.labels_ == 2 * y + place)[y == k].mean() for k in (0, 1)])
    assert 0.7 < np.mean(truth) < 0.97
    assert_allclose(np.mean(expected, axis=0), np.mean(truth, axis=0), atol=0.03)


def test_report_by_hand():
    """Labels at random, of which the rows say nothing: out of fold about half are right."""
    rng = np.random.default_rng(0)
    X, y, place = rng.normal(size=(400, 30)), np.arange(400) % 2, rng.integers(0, 2, 400)
    known = partly(place, 200)
    is_known = known != None  # noqa: E711
    inferrer = SemiSupervisedGroupInferrer(C=10.0).fit(X, y, sample_attribute=known)
    report = inferrer.label_report_.set_index("class")
    assert report["n_samples"].tolist() == [200, 200]
    assert report["n_labelled"].tolist() == [is_known[y == k].sum() for k in (0, 1)]
    assert_allclose(report["accuracy"], report["n_correct"] / report["n_labelled"])
    assert report["accuracy"].between(0.3, 0.7).all()  # of models that saw them it is above 0.7
    assert (report["low"] < report["accuracy"]).all()
    assert_array_equal(report["expected_accuracy"], inferrer.expected_accuracy_)
    share = is_known.mean()
    assert_allclose(inferrer.expected_accuracy_, share + 0.5 * (1 - share), atol=0.1)


def test_probabilities_are_the_tempered_softmax_and_add_up():
    X, y, place = make_places(gap=1.0)
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=partly(place, 80))
    new, y_new, _ = make_places(50, seed=1, gap=1.0)
    proba = inferrer.predict_proba(new, y_new)
    of_value = softmax((new @ inferrer.coef_ + inferrer.intercept_) / inferrer.temperature_, axis=1)
    assert_allclose(proba[y_new == 1, 2:], of_value[y_new == 1])
    assert_array_equal(proba[y_new == 1, :2], 0.0)
    assert_array_equal(proba.argmax(axis=1), inferrer.predict(new, y_new))
    without = inferrer.predict_proba(new)
    assert_allclose(without.sum(axis=1), 1.0)
    assert_array_equal(without.argmax(axis=1), inferrer.predict(new))
    in_class = without.reshape(50, 2, 2)
    assert_allclose(in_class.sum(axis=1), of_value)


# ------------------------------------------------------------------------- what it does not need


def test_neither_order_nor_names_nor_seed_matter():
    X, y, place = make_places(gap=2.0)
    known = partly(place, 60)
    labels = SemiSupervisedGroupInferrer(random_state=0).fit(X, y, sample_attribute=known).labels_
    other = SemiSupervisedGroupInferrer(random_state=1).fit(X, y, sample_attribute=known).labels_
    assert_array_equal(other, labels)
    order = np.random.default_rng(0).permutation(len(y))
    again = SemiSupervisedGroupInferrer(random_state=0)
    again.fit(X[order], y[order], sample_attribute=known[order])
    assert_array_equal(again.labels_, labels[order])
    names = np.array([None if a is None else ["water", "land"][a] for a in known], dtype=object)
    birds = np.array(["sparrow", "duck"])[y]  # both in the other order
    named = SemiSupervisedGroupInferrer(random_state=0).fit(X, birds, sample_attribute=names)
    assert_array_equal(named.labels_, 3 - labels)


def test_two_seeds_are_two_foldings():
    X, y, place = make_places(gap=1.0)
    fits = [
        SemiSupervisedGroupInferrer(random_state=s).fit(X, y, sample_attribute=partly(place, 80))
        for s in (0, 0, 1)
    ]
    assert fits[0].temperature_ == fits[1].temperature_ != fits[2].temperature_


@pytest.mark.parametrize(
    "make",
    [
        list,
        pd.Series,
        lambda a: pd.Series(a).astype("Int64"),
        lambda a: np.where(a == None, np.nan, a).astype(float),  # noqa: E711
        lambda a: pd.DataFrame({"place": a}),
        lambda a: pd.Categorical(a),
        lambda a: torch.tensor(np.where(a == None, np.nan, a).astype(float)),  # noqa: E711
    ],
)
def test_kinds_of_partly_known_attributes(make):
    X, y, place = make_places(100, gap=6.0)
    known = partly(place, 30)
    expected = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    found = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=make(known))
    assert_array_equal(found.labels_, expected.labels_)
    assert found.is_labelled_.sum() == 30
    carried = SemiSupervisedGroupInferrer().fit(GroupedData(X, sample_attribute=make(known)), y)
    assert_array_equal(carried.labels_, expected.labels_)


def test_minus_one_is_asked_about():
    X, y, place = make_places(100, gap=6.0)
    known = partly(place, 30, unknown=-1).astype(int)
    inferrer = SemiSupervisedGroupInferrer()
    with pytest.raises(ValueError, match=r"has 70 entries -1.*missing_values=-1; where it is a"):
        inferrer.fit(X, y, sample_attribute=known)
    inferrer.set_params(missing_values=-1).fit(X, y, sample_attribute=known)
    assert inferrer.attribute_values_.tolist() == [0, 1]
    assert inferrer.is_labelled_.sum() == 30
    inferrer.set_params(missing_values=None).fit(X, y, sample_attribute=2 * place - 1)
    assert inferrer.attribute_values_.tolist() == [-1, 1]
    words = np.where(known == -1, "unknown", np.array(["land", "sea"])[place])
    inferrer.set_params(missing_values="unknown").fit(X, y, sample_attribute=words)
    assert inferrer.attribute_values_.tolist() == ["land", "sea"]


# ----------------------------------------------------------------------------- edges and errors


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (None, "has no sample_attribute"),
        ([None] * 40, "no value is known"),
        (["sea", *[None] * 39], "one known value, 'sea'"),
    ],
)
def test_nothing_to_learn_from_is_an_error_or_classes(known, problem):
    X, y, _ = make_places(40)
    with pytest.raises(ValueError, match=rf"{problem}.*if_unknown='class'"):
        SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    inferrer = SemiSupervisedGroupInferrer(if_unknown="class")
    with pytest.warns(UserWarning, match=rf"{problem}: every class is one group"):
        inferrer.fit(X, y, sample_attribute=known)
    assert_array_equal(inferrer.labels_, y)
    assert_array_equal(inferrer.predict(X, y), y)
    assert_array_equal(inferrer.predict_proba(X, y), np.eye(2)[y])
    assert inferrer.group_attributes_.tolist() == [known[0] if known else None] * 2
    assert np.isnan(inferrer.expected_accuracy_).all()


def test_errors_name_what_is_wrong():
    X, y, place = make_places(40)
    with pytest.raises(ValueError, match=r"sample_attribute has 39 rows for 40 samples"):
        SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=place[:-1])
    with pytest.raises(ValueError, match=r"sample_attribute has 2 columns"):
        SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=np.stack([place, y], axis=1))
    with pytest.raises(ValueError, match=r"n_view_columns=6, but X has 6 columns"):
        SemiSupervisedGroupInferrer(n_view_columns=6).fit(X, y, sample_attribute=place)
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=place)
    with pytest.raises(ValueError, match=r"y has classes that fit did not see: \[2\]"):
        inferrer.predict(X[:1], [2])
    with pytest.raises(ValueError, match=r"values that are not among the known groups: \['sea'\]"):
        inferrer.predict(GroupedData(X[:1], sample_attribute=["sea"]), [1])


def test_a_single_label_of_each_value_is_enough_to_run():
    X, y, place = make_places(40, gap=6.0)
    known = np.full(40, None)
    known[[np.argmax(place == 0), np.argmax(place == 1)]] = [0, 1]
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    assert inferrer.labels_.shape == (40,)
    assert np.isfinite(inferrer.temperature_)
    assert np.isnan(inferrer.expected_accuracy_).all()


def test_equal_rows_with_different_labels_keep_theirs():
    X = np.array([[0.0], [0.0], [0.0], [9.0], [9.0], [9.0]])
    known = [0, 1, None, 1, 1, None]
    inferrer = SemiSupervisedGroupInferrer(C=1.0).fit(X, [0] * 6, sample_attribute=known)
    assert_array_equal(inferrer.labels_[[0, 1]], [0, 1])
    assert_array_equal(inferrer.predict([[0.0], [9.0]], [0, 0]), [inferrer.labels_[2], 1])


def test_as_many_components_as_labels():
    X, y, place = make_places(n_noise=30)
    known = partly(place, 12)
    auto, same, more = (
        SemiSupervisedGroupInferrer(n_components=n).fit(X, y, sample_attribute=known).coef_
        for n in ("auto", 12, 13)
    )
    assert_array_equal(auto, same)
    assert not np.allclose(auto, more)


def test_what_equal_rows_do_not_agree_on_is_left_to_the_model():
    X = np.repeat([0.0, 0.1, 9.0, 9.1], [2, 4, 2, 4])[:, None]
    known = [0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    inferrer = SemiSupervisedGroupInferrer(C=1.0).fit(X, [0] * 12, sample_attribute=known)
    assert_array_equal(inferrer.labels_, known)
    assert_array_equal(inferrer.predict([[0.0], [9.0]], [0, 0]), [0, 1])


def test_new_rows_keep_what_they_carry():
    X, y, place = make_places(gap=6.0)
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=partly(place, 80))
    new, y_new, place_new = make_places(20, seed=1, gap=6.0)
    known = partly(1 - place_new, 10)  # wrong ones, so that one sees them
    is_known = known != None  # noqa: E711
    carried = GroupedData(new, sample_attribute=known)
    found = inferrer.predict(carried, y_new)
    assert_array_equal(found[is_known], (2 * y_new + 1 - place_new)[is_known])
    assert_array_equal(found[~is_known], inferrer.predict(new, y_new)[~is_known])
    assert_array_equal(inferrer.predict_proba(carried, y_new)[is_known].max(axis=1), 1.0)
    assert_array_equal(inferrer.predict(carried) % 2, found % 2)


def test_transform_carries_the_groups():
    X, y, place = make_places()
    known = partly(place, 80)
    inferrer = SemiSupervisedGroupInferrer(random_state=0)
    Z = inferrer.fit_transform(X, y, sample_attribute=known)
    assert Z.data is X
    assert Z.group_inferrer is inferrer
    assert_array_equal(Z.sample_group, inferrer.labels_)
    assert_array_equal(Z.sample_attribute, known)
    assert inferrer.transform(X) is X
    assert_array_equal(inferrer.transform(Z).sample_group, inferrer.labels_)
    again = clone(inferrer).fit_transform(GroupedData(X, sample_attribute=known), y)
    assert_array_equal(again.sample_group, inferrer.labels_)
    frame = inferrer.set_output(transform="pandas").transform(pd.DataFrame(X))
    assert isinstance(frame, pd.DataFrame)


def test_it_is_saved_and_pickled(tmp_path):
    X, y, place = make_places()
    names = np.array(["land", "sea"])[place]
    inferrer = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=partly(names, 80))
    save_model(inferrer, tmp_path / "inferrer.safetensors")
    for copy in (
        load_model(tmp_path / "inferrer.safetensors"),
        pickle.loads(pickle.dumps(inferrer)),
    ):
        assert_array_equal(copy.predict(X, y), inferrer.labels_)
        assert_allclose(copy.predict_proba(X, y), inferrer.predict_proba(X, y))
        pd.testing.assert_frame_equal(copy.label_report_, inferrer.label_report_)


# ------------------------------------------------------------------------------ with a view


def balanced_accuracy(value, y, place):
    return np.mean(
        [(value == place)[(y == k) & (place == q)].mean() for k in (0, 1) for q in (0, 1)]
    )


def test_columns_of_a_view_are_not_lost_among_many():
    """A strong view and a weak embedding of 200 columns: what both say is no worse than either."""
    found = []
    for seed in range(3):
        X, y, place = make_places(2000, n_noise=200, gap=1.5, seed=seed)
        rng = np.random.default_rng(seed)
        view = (place + rng.normal(scale=0.5, size=2000))[:, None]
        logits = cross_fitted_logits(view, y, 2)
        known, both = partly(place, 200, seed), np.hstack([X, logits])
        plain = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
        mixed = SemiSupervisedGroupInferrer().fit(both, y, sample_attribute=known)
        with_view = SemiSupervisedGroupInferrer(n_view_columns=2)
        with_view.fit(both, y, sample_attribute=known)
        values = [fit.labels_ % 2 for fit in (plain, mixed, with_view)]
        values += [(logits[:, 1] > logits[:, 0]).astype(int)]
        found.append([balanced_accuracy(value, y, place) for value in values])
    plain, mixed, with_view, view = np.mean(found, axis=0)
    assert with_view > plain + 0.1
    assert with_view > mixed + 0.03  # the view as one column among others
    assert with_view > view - 0.01  # measured: 0.866 and 0.849
