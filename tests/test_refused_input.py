"""What has no rows, and groups that cannot be meant, are refused by name with the remedy."""

import numpy as np
import pandas as pd
import pytest
import torch
from registry import QUICK, small_pictures, small_table
from torch.utils.data import DataLoader

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    SpuriousGroupInferrer,
)
from skspurious.metrics import worst_group_accuracy
from skspurious.pipeline import make_pipeline
from skspurious.utils._rows import as_column, as_labels
from skspurious.views import ShuffleWords

X, Y, GROUP = small_table()
FRAME = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (DataLoader(torch.tensor(X), batch_size=8), r"loader\.dataset"),
        ((row for row in X), r"pass list\(\.\.\.\)"),
        ({"input_ids": torch.tensor(X)}, "tokenizer as collate_fn"),
        ("a bare text", "a list with one entry for each sample"),
        (b"bytes", "a list with one entry for each sample"),
        (torch.tensor(X).to_sparse(), "to_dense"),
        (3, "one entry for each sample"),
        (None, "X is None"),
    ],
    ids=["loader", "generator", "dict", "str", "bytes", "sparse", "int", "None"],
)
def test_what_has_no_rows_is_refused_in_fit_and_in_predict(wrong, remedy):
    with pytest.raises(TypeError, match=remedy):
        ERMClassifier(**QUICK).fit(wrong, Y)
    with pytest.raises(TypeError, match=remedy):
        ERMClassifier(**QUICK).fit(X, Y).predict(wrong)
    if wrong is None:
        return  # no validation samples
    with pytest.raises(TypeError, match=remedy):
        ERMClassifier(**QUICK).fit(X, Y, X_val=wrong, y_val=Y)


def test_one_text_is_not_a_text_for_each_letter():
    with pytest.raises(TypeError, match="X is one text, 'good film'"):
        ShuffleWords().transform("good film")


@pytest.mark.parametrize("estimator", [GroupDROClassifier(), make_pipeline(GroupDROClassifier())])
def test_groups_are_called_sample_group(estimator):
    with pytest.raises(TypeError, match=r"has no argument groups\. Pass them as sample_group="):
        estimator.fit(X, Y, groups=GROUP)


def test_an_inferrer_says_that_it_takes_no_groups():
    with pytest.raises(TypeError, match="It finds groups, and takes none"):
        SpuriousGroupInferrer().fit(X, Y, groups=GROUP)


def test_an_inferrer_of_pictures_asks_for_an_extractor():
    pictures, y, _ = small_pictures()
    for samples in (pictures, torch.tensor(pictures), list(torch.tensor(pictures))):
        with pytest.raises(ValueError, match="TorchFeatureExtractor"):
            SpuriousGroupInferrer().fit(samples, y)


@pytest.mark.parametrize("method", [GroupDROClassifier, BalancedRetrainer])
def test_a_group_for_each_row_is_refused_where_groups_are_balanced(method):
    with pytest.raises(ValueError, match="one for each, as numbers of rows or measurements"):
        method(**QUICK).fit(X, Y, sample_group=np.arange(len(Y)))
    ERMClassifier(**QUICK).fit(X, Y, sample_group=np.arange(len(Y)))  # which balances nothing


def test_an_index_in_another_order_is_refused():
    group = pd.Series(GROUP, index=FRAME.index[::-1])
    weight = pd.Series(np.ones(len(Y)), index=FRAME.index[::-1])
    classifier = GroupDROClassifier(**QUICK)
    for fit in (
        lambda: classifier.fit(FRAME, Y, sample_group=group),
        lambda: classifier.fit(FRAME, Y, sample_group=GROUP, sample_weight=weight),
        lambda: classifier.fit(GroupedData(FRAME, group), Y),
        lambda: classifier.fit(
            FRAME, Y, sample_group=GROUP, X_val=FRAME, y_val=Y, sample_group_val=group
        ),
        lambda: classifier.fit(FRAME, Y, sample_group=GROUP).score(FRAME, Y, sample_group=group),
    ):
        with pytest.raises(ValueError, match=r"another order.*\.loc\[X\.index\].*to_numpy"):
            fit()


def test_an_index_of_other_labels_is_refused_unless_it_is_a_plain_one():
    named = FRAME.set_index(np.array([f"row {i}" for i in range(len(Y))]))
    plain = pd.Series(GROUP)
    assert len(GroupedData(named, plain)) == len(Y)
    assert len(GroupedData(FRAME, pd.Series(GROUP, index=named.index))) == len(Y)
    with pytest.raises(ValueError, match="labels that X's has not"):
        GroupedData(named, pd.Series(GROUP, index=np.arange(1000, 1000 + len(Y))))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([1, 0, 1], dtype=object), [1, 0, 1]),
        (pd.array([1, 0, 1], dtype="Int64"), [1, 0, 1]),
        (np.array([1, 0, 1], dtype=">i8"), [1, 0, 1]),
        (torch.tensor([1, 0, 1]), [1, 0, 1]),
        (["a", "b", "a"], ["a", "b", "a"]),
    ],
)
def test_labels_are_numbers_whatever_holds_them(labels, expected):
    found = as_labels(labels, "y")
    assert found.tolist() == expected
    assert found.dtype.isnative
    assert found.dtype != object


def test_masked_labels_and_weights_are_refused():
    y = np.ma.masked_array(Y, np.arange(len(Y)) == 5)
    with pytest.raises(ValueError, match="y has 1 masked values"):
        ERMClassifier(**QUICK).fit(X, y)
    with pytest.raises(ValueError, match="y has 1 masked values"):
        SpuriousGroupInferrer().fit(X, y)
    with pytest.raises(ValueError, match="sample_weight has 1 masked values"):
        as_column(np.ma.masked_array([1.0, 2.0], [True, False]), "sample_weight")


def test_labels_of_several_types_are_refused():
    with pytest.raises(
        TypeError, match="y_true has labels that cannot be compared: of type int, s"
    ):
        worst_group_accuracy(["a", 1], ["a", "b"], sample_group=[0, 1])


def test_columns_of_one_name_are_refused():
    twice = pd.DataFrame(X[:, :2], columns=["c", "c"])
    with pytest.raises(ValueError, match=r"names occur twice: \['c'\]"):
        ERMClassifier(**QUICK).fit(twice, Y)


def test_values_whose_squares_no_float_holds_are_refused():
    with pytest.raises(ValueError, match="Standardise the features"):
        SpuriousGroupInferrer().fit(X.astype(float) * 1e200, Y)
