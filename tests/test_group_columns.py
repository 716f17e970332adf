"""Names of columns of a DataFrame as groups: they are no features, and predict needs none."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from registry import CLASSIFIERS, QUICK, ignored_warnings
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    SpuriousSamplePruner,
    worst_group_scorer,
)
from skspurious.datasets import make_spurious_classification
from skspurious.metrics import worst_group_accuracy
from skspurious.persistence import load_model, save_model
from skspurious.pipeline import make_pipeline

pytestmark = ignored_warnings()
BUNCH = make_spurious_classification(160, correlation_strength=0.9, random_state=0)
FEATURES = pd.DataFrame(BUNCH.data.astype(np.float32)).add_prefix("f")
TABLE = FEATURES.assign(place=np.array(["field", "sand"])[BUNCH.sample_group % 2], x=BUNCH.target)
Y = BUNCH.target


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda entry: entry.name)
def test_named_columns_are_groups_and_no_features(entry):
    frame = TABLE.drop(columns="x")
    named = entry(**QUICK).fit(frame, Y, sample_group="place")
    given = entry(**QUICK).fit(FEATURES, Y, sample_group=TABLE["place"])
    assert named.n_features_in_ == FEATURES.shape[1]
    assert list(named.feature_names_in_) == list(FEATURES)
    assert_array_equal(named.groups_, given.groups_)
    expected = given.predict_proba(FEATURES)
    for X in (FEATURES, frame, frame.iloc[:, ::1]):
        assert_array_equal(named.predict_proba(X), expected)
    right = given.score(FEATURES, Y, sample_group=TABLE["place"])
    assert named.score(frame, Y) == right
    assert named.score(frame, Y, sample_group="place") == right
    assert worst_group_scorer(named, frame, Y) == right
    assert "place" in frame


def test_several_columns_are_crossed():
    named = GroupDROClassifier(**QUICK).fit(TABLE, Y, sample_group=["x", "place"])
    assert named.groups_.tolist()[0] == (0, "field")
    assert named.n_features_in_ == FEATURES.shape[1]


def test_grouped_data_takes_names():
    X = GroupedData(TABLE, ["x", "place"])
    assert list(X.data) == list(FEATURES)
    assert X.sample_group.shape == (160, 2)
    with pytest.raises(ValueError, match="did you mean 'place'"):
        GroupedData(TABLE, "plce")


def test_validation_samples_have_the_column_too():
    kwargs = {"sample_group": "place", "X_val": TABLE.drop(columns="x"), "y_val": Y}
    named = ERMClassifier(**QUICK).fit(TABLE.drop(columns="x"), Y, **kwargs)
    given = ERMClassifier(**QUICK).fit(
        FEATURES,
        Y,
        sample_group=TABLE["place"],
        X_val=FEATURES,
        y_val=Y,
        sample_group_val=TABLE["place"],
    )
    left, right = (clf.history_.drop(columns="seconds") for clf in (named, given))
    pd.testing.assert_frame_equal(left, right)


@pytest.mark.parametrize("scaler", [(), (StandardScaler(),)], ids=["bare", "scaled"])
def test_in_searches_with_nothing_configured(scaler):
    frame = TABLE.drop(columns="x")
    clf = make_pipeline(*scaler, GroupDROClassifier(**QUICK))
    search = GridSearchCV(
        clf, {"groupdroclassifier__lr": [0.1, 0.3]}, scoring=worst_group_scorer, error_score="raise"
    )
    search.fit(frame, Y, sample_group="place")
    carried = GridSearchCV(
        clf, {"groupdroclassifier__lr": [0.1, 0.3]}, scoring=worst_group_scorer, error_score="raise"
    ).fit(GroupedData(FEATURES, TABLE["place"]), Y)
    assert_array_equal(
        search.cv_results_["mean_test_score"], carried.cv_results_["mean_test_score"]
    )
    best = search.best_estimator_
    assert_array_equal(search.predict(FEATURES), search.predict(frame))
    expected = worst_group_accuracy(Y, best.predict(FEATURES), sample_group=TABLE["place"])
    assert best.score(frame, Y) == best.score(frame, Y, sample_group="place") == expected
    scores = cross_val_score(
        clf, frame, Y, params={"sample_group": "place"}, scoring=worst_group_scorer, cv=2
    )
    assert np.isfinite(scores).all()


def test_the_pruner_takes_them_out():
    pruner = SpuriousSamplePruner(score_epochs=2, lr=0.1, random_state=0)
    X, y = pruner.fit_resample(TABLE.drop(columns="x"), Y, sample_group="place")
    assert list(X.data) == list(FEATURES)
    assert len(X) == len(y) == len(pruner.kept_indices_)


def test_saved_models_know_their_columns(tmp_path):
    clf = GroupDROClassifier(**QUICK).fit(TABLE.drop(columns="x"), Y, sample_group="place")
    save_model(clf, tmp_path / "model")
    frame = TABLE.drop(columns="x")
    assert_array_equal(load_model(tmp_path / "model").predict(frame), clf.predict(frame))


@pytest.mark.parametrize(
    ("X", "group", "message"),
    [
        (TABLE, "plce", "did you mean 'place'"),
        (FEATURES.to_numpy(), "place", "ndarray, whose columns have no names"),
        (FEATURES.to_numpy(), ["a", "b"], "sample_group has 2 rows for 160 samples"),
        (FEATURES, ["a", "b"], "sample_group has 2 rows for 160 samples"),
    ],
)
def test_names_that_are_none(X, group, message):
    with pytest.raises(ValueError, match=message):
        GroupDROClassifier(**QUICK).fit(X, Y, sample_group=group)
