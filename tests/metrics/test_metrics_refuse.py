"""Metrics refuse what has no meaning, and name the argument."""

import warnings

import numpy as np
import pandas as pd
import pytest

from skspurious.data import encode_groups
from skspurious.metrics import (
    adjusted_accuracy,
    cluster_robust_accuracy,
    group_accuracy,
    group_inference_report,
    group_metric,
    group_report,
    group_sample_weight,
    worst_group_accuracy,
    worst_group_error,
    worst_group_metric,
)

Y, PRED, GROUP = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), np.array(list("aabb"))

WEIGHTED = {
    "worst_group_accuracy": lambda w: worst_group_accuracy(
        Y, PRED, sample_group=GROUP, sample_weight=w
    ),
    "worst_group_error": lambda w: worst_group_error(Y, PRED, sample_group=GROUP, sample_weight=w),
    "group_accuracy": lambda w: group_accuracy(Y, PRED, sample_group=GROUP, sample_weight=w),
    "group_metric": lambda w: group_metric(
        "log_loss", Y, PRED.astype(float), sample_group=GROUP, sample_weight=w
    ),
    "worst_group_metric": lambda w: worst_group_metric(
        "recall_micro", Y, PRED, sample_group=GROUP, sample_weight=w
    ),
}
BAD_WEIGHTS = {
    "negative": [-1, 1, 1, 1],
    "nan": [np.nan, 1, 1, 1],
    "infinite": [1, 1, np.inf, 1],
    "none": np.array([1, None, 1, 1], dtype=object),
    "text": list("abcd"),
    "short": [1, 1],
    "masked": np.ma.array([1.0, 1, 1, 1], mask=[1, 0, 0, 0]),
}
MISSING = {
    "None": np.array([0, None, 1, 1], dtype=object),
    "None among text": np.array(["a", None, "b", "b"], dtype=object),
    "NaN": np.array([0, np.nan, 1, 1]),
    "NA": pd.array([0, pd.NA, 1, 1], dtype="Int64"),
    "category": pd.Categorical(["a", None, "b", "b"]),
    "NaT": pd.to_datetime(["2020-01-01", None, "2020-01-02", "2020-01-02"]),
    "masked": np.ma.array([0, 0, 1, 1], mask=[1, 0, 0, 0]),
}
LABELLED = {
    "worst_group_accuracy": worst_group_accuracy,
    "group_accuracy": group_accuracy,
    "group_report": group_report,
    "adjusted_accuracy": lambda *args, **kwargs: adjusted_accuracy(
        *args, **kwargs, train_group=GROUP
    ),
    "group_metric": lambda *args, **kwargs: group_metric("f1_micro", *args, **kwargs),
    "cluster_robust_accuracy": lambda y, p, sample_group: cluster_robust_accuracy(
        y, p, cluster=sample_group
    ),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
@pytest.mark.parametrize("metric", WEIGHTED)
def test_weights_that_are_no_weights(metric, bad):
    with pytest.raises(ValueError, match="sample_weight"):
        WEIGHTED[metric](BAD_WEIGHTS[bad])


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("metric", LABELLED)
def test_missing_labels(metric, missing):
    with pytest.raises(ValueError, match=r"y_true has 1 (missing|masked) values"):
        LABELLED[metric](MISSING[missing], PRED, sample_group=GROUP)
    with pytest.raises(ValueError, match=r"y_pred has 1 (missing|masked) values"):
        LABELLED[metric](Y, MISSING[missing], sample_group=GROUP)
    with pytest.raises(ValueError, match=r"(sample_group|cluster) has 1 (missing|masked) values"):
        LABELLED[metric](Y, PRED, sample_group=MISSING[missing])


@pytest.mark.parametrize("missing", MISSING)
def test_missing_labels_of_functions_with_other_arguments(missing):
    for call in (
        lambda values: group_inference_report(values, GROUP, Y),
        lambda values: group_inference_report(GROUP, values, Y),
        lambda values: group_inference_report(GROUP, GROUP, values),
        lambda values: group_sample_weight(values, GROUP),
        lambda values: group_sample_weight(Y, values),
    ):
        with pytest.raises(ValueError, match=r"has 1 (missing|masked) values"):
            call(MISSING[missing])


def test_missing_probabilities():
    with pytest.raises(ValueError, match="NaN"):
        group_metric("log_loss", Y, [0.1, np.nan, 0.5, 0.5], sample_group=GROUP)


@pytest.mark.parametrize("metric", LABELLED)
def test_no_samples(metric):
    with pytest.raises(ValueError, match="0 samples"):
        LABELLED[metric]([], [], sample_group=[])


def test_no_samples_to_weight():
    with pytest.raises(ValueError, match="y has 0 samples"):
        group_sample_weight([], [])


def test_groups_that_are_named_twice():
    for call in (group_accuracy, group_report):
        with pytest.raises(ValueError, match=r"groups names some groups twice: \['a'\]"):
            call(Y, PRED, sample_group=GROUP, groups=["a", "a", "b"])


@pytest.mark.parametrize("sizes", [{"a": -1, "b": 2}, {"a": np.nan, "b": 2}, {"a": 0, "b": 0}, {}])
def test_training_sizes_that_are_no_sizes(sizes):
    for call in (adjusted_accuracy, group_report):
        with pytest.raises(ValueError, match="group_sizes must be finite"):
            call(Y, PRED, sample_group=GROUP, group_sizes=sizes)


def test_masked_arrays_without_a_masked_value_are_arrays():
    arrays = [np.ma.array(values, mask=[0, 0, 0, 0]) for values in (Y, PRED, GROUP)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert worst_group_accuracy(*arrays[:2], sample_group=arrays[2]) == 0.5


def test_any_number_of_attributes_is_crossed():
    """70 columns of three values have more combinations than 64 bits can number."""
    table = np.random.default_rng(0).integers(0, 3, (40, 70))
    code, groups = encode_groups(table)
    rows = sorted({tuple(row) for row in table.tolist()})
    assert groups.tolist() == rows
    assert [rows.index(tuple(row)) for row in table.tolist()] == code.tolist()
