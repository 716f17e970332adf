"""Frames and columns of polars and Arrow are taken wherever those of pandas are."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from registry import QUICK
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from skspurious import GroupDROClassifier, GroupedData, SpuriousGroupInferrer, worst_group_scorer
from skspurious.data import OverlappingGroups
from skspurious.group_inference import ViewJury
from skspurious.metrics import group_report, worst_group_accuracy
from skspurious.pipeline import make_pipeline
from skspurious.utils._frames import as_pandas
from skspurious.views import TextStatistics

RNG = np.random.default_rng(0)
X = pd.DataFrame(RNG.normal(size=(60, 3)).astype(np.float32), columns=list("abc"))
Y = np.arange(60) % 2
GROUP = pd.Series(RNG.choice(["u", "v"], 60), name="place")
PAIR = pd.DataFrame({"place": GROUP, "other": GROUP[::-1].to_numpy()})


def _polars():
    pl = pytest.importorskip("polars")

    def frame(table):
        return pl.DataFrame({name: table[name].to_list() for name in table}).cast(
            {name: pl.Float32 for name in table if table[name].dtype == np.float32}
        )

    return frame, lambda values: pl.Series("place", list(values))


def _arrow():
    pa = pytest.importorskip("pyarrow")
    return (
        lambda table: pa.table({name: table[name].to_numpy() for name in table}),
        lambda values: pa.array(list(values)),
    )


def _chunked():
    pa = pytest.importorskip("pyarrow")
    frame, _ = _arrow()
    return frame, lambda values: pa.chunked_array([list(values)[:20], list(values)[20:]])


@pytest.fixture(params=[_polars, _arrow, _chunked], ids=["polars", "arrow", "chunked"])
def library(request):
    return request.param()


def _fit(X, **given):
    return GroupDROClassifier(**QUICK).fit(X, Y, **given)


def test_a_frame_is_the_frame_of_pandas(library):
    frame, _ = library
    clf, expected = _fit(frame(X), sample_group=GROUP), _fit(X, sample_group=GROUP)
    assert_array_equal(clf.feature_names_in_, list("abc"))
    for rows in (X, frame(X)):
        assert_array_equal(clf.predict_proba(rows), expected.predict_proba(X))
    labels = SpuriousGroupInferrer(random_state=0).fit(frame(X), Y).labels_
    assert_array_equal(labels, SpuriousGroupInferrer(random_state=0).fit(X, Y).labels_)
    jury = {"views": {"a": ["a"], "b": ["b"]}, "clean": ["c"], "random_state": 0}
    assert_array_equal(
        ViewJury(**jury).fit(frame(X), Y).labels_, ViewJury(**jury).fit(X, Y).labels_
    )


def test_columns_are_groups_classes_and_weights(library):
    frame, column = library
    expected = _fit(X, sample_group=GROUP)
    weight = column(np.ones(60))
    clf = GroupDROClassifier(**QUICK).fit(
        X, column(Y.tolist()), sample_group=column(GROUP), sample_weight=weight
    )
    assert clf.groups_.tolist() == ["u", "v"]
    assert_array_equal(clf.predict(X), expected.predict(X))
    assert_array_equal(
        _fit(X, sample_group=frame(PAIR)).groups_, _fit(X, sample_group=PAIR).groups_
    )
    with pytest.raises(ValueError, match="1 missing values, the first at row 0"):
        _fit(X, sample_group=column([None, *GROUP[1:]]))


def test_grouped_data_and_names_of_columns(library):
    frame, column = library
    carried = GroupedData(frame(X), column(GROUP))
    assert isinstance(carried[[3, 1]].data, pd.DataFrame)
    assert carried[[3, 1]].sample_group.tolist() == GROUP[[3, 1]].tolist()
    clf = make_pipeline(StandardScaler(), GroupDROClassifier(**QUICK))
    found = cross_val_score(clf, carried, Y, scoring=worst_group_scorer, error_score="raise")
    right = cross_val_score(clf, GroupedData(X, GROUP), Y, scoring=worst_group_scorer)
    assert_array_equal(found, right)
    named = frame(X.assign(place=GROUP))
    score = clf.fit(named, Y, sample_group="place").score(named, Y)
    assert score == clf.fit(X, Y, sample_group=GROUP).score(X, Y, sample_group=GROUP)


def test_metrics(library):
    frame, column = library
    predicted = column(RNG.permutation(Y).tolist())
    accuracy = worst_group_accuracy(column(Y.tolist()), predicted, sample_group=column(GROUP))
    assert accuracy == worst_group_accuracy(Y, as_pandas(predicted), sample_group=GROUP)
    report = group_report(Y, Y, sample_group=frame(PAIR))
    assert report.index.names == ["place", "other"]
    masks = pd.DataFrame({"u": GROUP == "u", "v": GROUP == "v"})
    assert OverlappingGroups(frame(masks)).groups == ["u", "v"]


def test_texts(library):
    _, column = library
    texts = ["Two words", "one"]
    expected = TextStatistics().fit_transform(texts)
    assert_array_equal(TextStatistics().fit_transform(column(texts)), expected)


def test_everything_else_is_left():
    for values in (X, [1], None, "a", np.zeros(2)):
        assert as_pandas(values) is values


def test_a_lazy_frame_is_collected():
    pl = pytest.importorskip("polars")
    pd.testing.assert_frame_equal(
        as_pandas(pl.DataFrame({"a": [1, None], "b": ["x", "y"]}).lazy()),
        pd.DataFrame({"a": [1, None], "b": ["x", "y"]}),
    )
