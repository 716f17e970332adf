"""Groups that overlap: each is evaluated on its own samples, and nothing balances them."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import cross_val_score

from skspurious import BalancedRetrainer, GroupDROClassifier
from skspurious.data import GroupedData, OverlappingGroups, encode_groups
from skspurious.inspection import GroupAccuracyDisplay
from skspurious.metrics import (
    adjusted_accuracy,
    group_accuracy,
    group_metric,
    group_report,
    group_sample_weight,
    worst_group_accuracy,
    worst_group_error,
    worst_group_metric,
    worst_group_scorer,
)
from skspurious.model_selection import EveryGroupKFold

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 60)
PRED = np.where(RNG.random(60) < 0.7, Y, 1 - Y)
TABLE = pd.DataFrame(RNG.random((60, 3)) < [0.5, 0.3, 0.2], columns=["female", "muslim", "other"])
MASKS = {name: TABLE[name].to_numpy() for name in TABLE}
GROUPS = OverlappingGroups(TABLE)


@pytest.mark.parametrize(
    "masks",
    [
        TABLE,
        TABLE.astype(int),
        TABLE.astype(float),
        TABLE.astype("boolean"),
        MASKS,
        {name: mask.tolist() for name, mask in MASKS.items()},
        {name: TABLE[name] for name in TABLE},
    ],
    ids=["table", "int", "float", "nullable", "dict", "lists", "series"],
)
def test_masks_in_any_form_are_the_same_groups(masks):
    groups = OverlappingGroups(masks)
    assert groups.groups == ["female", "muslim", "other"]
    assert_array_equal(groups.masks, TABLE.to_numpy())
    assert groups.masks.dtype == bool
    assert len(groups) == 60


def test_groups_of_an_array_are_numbers_or_named():
    assert OverlappingGroups(TABLE.to_numpy()).groups == [0, 1, 2]
    assert OverlappingGroups(TABLE.to_numpy(), list("xyz")).groups == ["x", "y", "z"]


def test_metrics_are_those_of_each_group_alone():
    expected = [accuracy_score(Y[mask], PRED[mask]) for mask in MASKS.values()]
    for groups in (GROUPS, MASKS):
        accuracy = group_accuracy(Y, PRED, sample_group=groups)
        assert accuracy.index.tolist() == list(MASKS)
        assert_allclose(accuracy, expected)
        assert worst_group_accuracy(Y, PRED, sample_group=groups) == pytest.approx(min(expected))
        assert worst_group_error(Y, PRED, sample_group=groups) == pytest.approx(1 - min(expected))
        f1 = [f1_score(Y[mask], PRED[mask], average="macro") for mask in MASKS.values()]
        assert_allclose(group_metric("f1_macro", Y, PRED, sample_group=groups), f1)
        worst = worst_group_metric("f1_macro", Y, PRED, sample_group=groups)
        assert worst == pytest.approx(min(f1))


def test_weights_are_those_of_the_samples():
    weight = RNG.random(60)
    found = group_accuracy(Y, PRED, sample_group=GROUPS, sample_weight=weight)
    for group, mask in MASKS.items():
        right = accuracy_score(Y[mask], PRED[mask], sample_weight=weight[mask])
        assert found[group] == pytest.approx(right)
    by_metric = group_metric("recall_micro", Y, PRED, sample_group=GROUPS, sample_weight=weight)
    assert_allclose(by_metric, found)  # micro recall is the accuracy


def test_report_counts_each_sample_once_in_the_average():
    report = group_report(Y, PRED, sample_group=GROUPS)
    assert report["n"].tolist() == TABLE.sum().tolist()
    assert report.average_accuracy == pytest.approx(accuracy_score(Y, PRED))
    assert_allclose(report["gap"], report["accuracy"] - accuracy_score(Y, PRED))
    again = pickle.loads(pickle.dumps(report))
    assert again.average_accuracy == report.average_accuracy
    assert str(again) == str(report)
    assert "worst group" in GroupAccuracyDisplay(report).plot().ax_.get_title()


def test_groups_that_do_not_overlap_are_as_a_column():
    column = RNG.choice(list("abc"), 60)
    masks = {value: column == value for value in "abc"}
    report = group_report(Y, PRED, sample_group=column)
    pd.testing.assert_frame_equal(
        pd.DataFrame(group_report(Y, PRED, sample_group=masks)), pd.DataFrame(report)
    )


def test_crossed_with_the_class_by_hand():
    """The 16 groups of CivilComments are eight identities with two labels."""
    groups = OverlappingGroups({"f": [1, 1, 0, 0], "m": [0, 1, 1, 0]}).cross([0, 1, 1, 1])
    assert groups.groups == [("f", 0), ("f", 1), ("m", 1)]
    assert groups.masks.T.tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, True, True, False],
    ]
    report = group_report([0, 1, 1, 1], [0, 0, 1, 1], sample_group=groups)
    assert report["accuracy"].tolist() == [1.0, 0.0, 0.5]


def test_an_expected_group_without_samples():
    groups = OverlappingGroups({"a": [1, 0], "b": [0, 0]})
    with pytest.raises(ValueError, match=r"no samples.*\['b'\]"):
        group_report([0, 1], [0, 1], sample_group=groups)
    assert np.isnan(group_accuracy([0, 1], [0, 1], sample_group=groups, empty="nan")["b"])
    order = group_accuracy(
        [0, 1], [0, 1], sample_group={"a": [1, 0]}, groups=["z", "a"], empty="nan"
    )
    assert order.index.tolist() == ["z", "a"]
    assert order["a"] == 1.0


def test_scorer_takes_them_from_grouped_data_in_every_fold():
    X = RNG.normal(size=(60, 3)) + Y[:, None]
    carried = GroupedData(X, GROUPS)
    clf = LogisticRegression().fit(X, Y)
    expected = worst_group_accuracy(Y, clf.predict(X), sample_group=MASKS)
    assert worst_group_scorer(clf, carried, Y) == pytest.approx(expected)
    scores = cross_val_score(
        LogisticRegression(), carried, Y, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    assert scores.shape == (2,)
    assert "3 groups" in repr(carried)


def test_what_needs_one_group_for_each_sample_says_so():
    X = RNG.normal(size=(60, 3))
    calls = [
        lambda groups: encode_groups(groups),
        lambda groups: group_sample_weight(Y, groups),
        lambda groups: GroupDROClassifier().fit(X, Y, sample_group=groups),
        lambda groups: BalancedRetrainer().fit(X, Y, sample_group=groups),
        lambda groups: next(EveryGroupKFold(2).split(X, Y, groups)),
    ]
    for call in calls:
        for groups in (GROUPS, MASKS):
            with pytest.raises(ValueError, match="every sample needs one group"):
                call(groups)
    with pytest.raises(ValueError, match="every sample needs one group"):
        GroupDROClassifier().fit(GroupedData(X, GROUPS), Y)


def test_no_adjusted_mean_over_groups_that_overlap():
    with pytest.raises(ValueError, match="overlaps"):
        adjusted_accuracy(Y, PRED, sample_group=GROUPS, group_sizes={"female": 1})
    with pytest.raises(ValueError, match="overlaps"):
        group_report(Y, PRED, sample_group=MASKS, group_sizes={"female": 1})
    with pytest.raises(ValueError, match="overlaps"):
        group_report(Y, PRED, sample_group=np.zeros(60), train_group=GROUPS)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"a": [0.2, 1.0]}, "'a' has 0.2 at row 0; give True and False"),
        ({"a": [1, None]}, "'a' has None at row 1"),
        ({"a": [1, np.nan]}, "'a' has nan at row 1"),
        ({"a": np.ma.array([1, 0], mask=[1, 0])}, "masked"),
        ({"a": [1, 0], "b": [1]}, "different lengths"),
        ({"a": [[1, 0]]}, "shape"),
        ({}, "no groups"),
        (np.zeros(3), "must be a dict"),
        (pd.DataFrame([[1, 0]], columns=["a", "a"]), "twice"),
    ],
)
def test_what_are_no_masks(masks, message):
    with pytest.raises(ValueError, match=message):
        OverlappingGroups(masks)


def test_masks_of_another_length():
    with pytest.raises(ValueError, match="59 rows for 60"):
        group_accuracy(Y, PRED, sample_group=GROUPS[:59])
