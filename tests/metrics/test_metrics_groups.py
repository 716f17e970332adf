import inspect

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as skm

from skspurious import metrics
from skspurious.metrics import (
    adjusted_accuracy,
    group_accuracy,
    group_metric,
    worst_group_accuracy,
    worst_group_error,
    worst_group_metric,
)

Y_TRUE = np.array([0, 0, 0, 1, 1, 1, 1])
Y_PRED = np.array([0, 0, 1, 1, 1, 1, 0])
GROUP = np.array([0, 0, 0, 3, 3, 3, 3])  # accuracies 2/3 and 3/4, ids with a gap


def _random(n=300, n_classes=2, seed=0):
    """Labels, predictions, probabilities, an attribute and weights."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, n_classes, n)
    proba = rng.dirichlet(np.ones(n_classes), n)
    proba[np.arange(n), y_true] += 0.3
    proba /= proba.sum(axis=1, keepdims=True)
    attribute = np.array(["field", "lake", "sea"])[rng.integers(0, 3, n)]
    return y_true, proba.argmax(axis=1), proba, attribute, rng.random(n) + 0.1


# By hand


def test_worst_group_accuracy_by_hand():
    assert worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP) == pytest.approx(2 / 3)


def test_worst_group_error_by_hand():
    assert worst_group_error(Y_TRUE, Y_PRED, sample_group=GROUP) == pytest.approx(1 / 3)


def test_group_accuracy_by_hand():
    accuracy = group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP)
    assert_allclose(accuracy, [2 / 3, 3 / 4])
    assert accuracy.index.tolist() == [0, 3]
    assert accuracy.name == "accuracy"


@pytest.mark.fidelity
def test_adjusted_accuracy_by_hand():
    # 0.9 * 2/3 + 0.1 * 3/4
    train_group = np.repeat([0, 3], [90, 10])
    for mix in ({"train_group": train_group}, {"group_sizes": {0: 90, 3: 10}}):
        adjusted = adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, **mix)
        assert adjusted == pytest.approx(0.675)


@pytest.mark.fidelity
def test_adjusted_accuracy_is_none_of_the_other_averages():
    sizes = pd.Series(np.repeat([0, 3], [90, 10])).value_counts()
    adjusted = adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, group_sizes=sizes)
    over_samples = skm.accuracy_score(Y_TRUE, Y_PRED)
    over_groups = group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP).mean()
    assert len({round(value, 6) for value in (adjusted, over_samples, over_groups)}) == 3


def test_adjusted_accuracy_of_the_evaluated_mix_is_the_accuracy():
    y_true, y_pred, _, attribute, _ = _random()
    adjusted = adjusted_accuracy(y_true, y_pred, sample_group=attribute, train_group=attribute)
    assert adjusted == pytest.approx(skm.accuracy_score(y_true, y_pred))


def test_adjusted_accuracy_gives_no_weight_to_a_group_that_training_lacks():
    adjusted = adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, group_sizes={3: 8})
    assert adjusted == pytest.approx(3 / 4)


# Recomputed with a mask and scikit-learn

_NAMED = {
    "accuracy": skm.accuracy_score,
    "balanced_accuracy": skm.balanced_accuracy_score,
    "zero_one_loss": skm.zero_one_loss,
    "matthews_corrcoef": skm.matthews_corrcoef,
    "f1": skm.f1_score,
    "precision": skm.precision_score,
    "recall": skm.recall_score,
    "f1_macro": lambda *a, **k: skm.f1_score(*a, average="macro", **k),
    "f1_micro": lambda *a, **k: skm.f1_score(*a, average="micro", **k),
    "recall_weighted": lambda *a, **k: skm.recall_score(*a, average="weighted", **k),
    "roc_auc": skm.roc_auc_score,
    "average_precision": skm.average_precision_score,
    "log_loss": skm.log_loss,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", _NAMED)
def test_worst_group_of_a_named_metric_equals_scikit_learn_on_masks(name, weighted):
    y_true, y_pred, proba, attribute, weight = _random()
    y_pred = proba[:, 1] if name in ("roc_auc", "average_precision", "log_loss") else y_pred
    values = []
    for a in np.unique(attribute):
        mask = attribute == a
        w = {"sample_weight": weight[mask]} if weighted else {}
        values.append(_NAMED[name](y_true[mask], y_pred[mask], **w))
    expected = max(values) if "loss" in name else min(values)
    w = {"sample_weight": weight} if weighted else {}
    assert worst_group_metric(name, y_true, y_pred, sample_group=attribute, **w) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("name", ["roc_auc_ovr", "roc_auc_ovo", "log_loss", "f1_macro"])
def test_worst_group_of_several_classes_equals_scikit_learn_on_masks(name):
    y_true, y_pred, proba, attribute, _ = _random(n_classes=4)
    reference = {
        "roc_auc_ovr": lambda t, p: skm.roc_auc_score(t, p, multi_class="ovr"),
        "roc_auc_ovo": lambda t, p: skm.roc_auc_score(t, p, multi_class="ovo"),
        "log_loss": skm.log_loss,
        "f1_macro": lambda t, p: skm.f1_score(t, p, average="macro"),
    }[name]
    y_pred = y_pred if name == "f1_macro" else proba
    masks = [attribute == a for a in np.unique(attribute)]
    values = [reference(y_true[mask], y_pred[mask]) for mask in masks]
    expected = max(values) if name == "log_loss" else min(values)
    assert worst_group_metric(name, y_true, y_pred, sample_group=attribute) == pytest.approx(
        expected
    )


def test_worst_group_of_a_callable_with_parameters():
    y_true, y_pred, _, attribute, _ = _random()
    value = worst_group_metric(skm.fbeta_score, y_true, y_pred, sample_group=attribute, beta=2)
    masks = [attribute == a for a in np.unique(attribute)]
    assert value == min(skm.fbeta_score(y_true[m], y_pred[m], beta=2) for m in masks)


def test_worst_group_of_a_callable_loss_is_the_largest():
    loss = worst_group_metric(
        skm.zero_one_loss, Y_TRUE, Y_PRED, sample_group=GROUP, greater_is_better=False
    )
    assert loss == pytest.approx(1 / 3)


def test_worst_group_of_accuracy_equals_worst_group_accuracy():
    y_true, y_pred, _, attribute, weight = _random(n_classes=3)
    keywords = {"sample_group": attribute, "sample_weight": weight}
    value = worst_group_accuracy(y_true, y_pred, **keywords)
    assert worst_group_metric("accuracy", y_true, y_pred, **keywords) == pytest.approx(value)


def test_worst_group_takes_the_last_of_two_columns_as_the_positive_class():
    y_true, _, proba, attribute, _ = _random()
    text = np.array(["cat", "dog"])[y_true]
    expected = worst_group_metric("roc_auc", y_true, proba[:, 1], sample_group=attribute)
    for name in ("roc_auc", "roc_auc_ovr"):
        assert worst_group_metric(name, text, proba, sample_group=attribute) == pytest.approx(
            expected
        )


def test_worst_group_with_another_positive_class():
    y_true, y_pred, proba, attribute, _ = _random()
    text = np.array(["cat", "dog"])
    masks = [attribute == a for a in np.unique(attribute)]
    recall = worst_group_metric(
        "recall", text[y_true], text[y_pred], sample_group=attribute, pos_label="cat"
    )
    assert recall == min(skm.recall_score(y_true[m], y_pred[m], pos_label=0) for m in masks)
    auc = worst_group_metric(
        "roc_auc", text[y_true], proba[:, 1], sample_group=attribute, pos_label="cat"
    )
    assert auc == pytest.approx(
        worst_group_metric("roc_auc", y_true, proba, sample_group=attribute)
    )


def test_worst_group_log_loss_of_single_class_groups_knows_all_classes():
    y_true, proba = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    # -(log 0.9 + log 0.6) / 2 = 0.308 and -log 0.7 = 0.357
    loss = worst_group_metric("log_loss", y_true, proba, sample_group=["a", "a", "b"])
    assert loss == pytest.approx(-np.log(0.7))


def test_worst_group_balanced_accuracy_of_single_class_groups_is_their_accuracy():
    value = worst_group_metric("balanced_accuracy", Y_TRUE, Y_PRED, sample_group=GROUP)
    assert value == pytest.approx(2 / 3)


# Laws


def test_worst_group_accuracy_is_unchanged_by_renaming_groups_and_permuting_rows():
    y_true, y_pred, _, attribute, weight = _random()
    keywords = {"sample_group": attribute, "sample_weight": weight}
    value = worst_group_accuracy(y_true, y_pred, **keywords)
    renamed = pd.Series(attribute).map({"field": 7, "lake": -2, "sea": 100})
    order = np.random.default_rng(1).permutation(len(y_true))
    again = worst_group_accuracy(
        y_true[order],
        y_pred[order],
        sample_group=renamed.to_numpy()[order],
        sample_weight=weight[order],
    )
    assert again == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc"])
def test_worst_group_weight_two_equals_two_copies(name):
    y_true, y_pred, proba, attribute, _ = _random()
    y_pred = proba[:, 1] if name == "roc_auc" else y_pred
    weight = np.random.default_rng(2).integers(1, 3, len(y_true))
    copies = np.repeat(np.arange(len(y_true)), weight)
    weighted = group_metric(name, y_true, y_pred, sample_group=attribute, sample_weight=weight)
    repeated = group_metric(name, y_true[copies], y_pred[copies], sample_group=attribute[copies])
    assert_allclose(weighted, repeated)
    weighted = worst_group_accuracy(y_true, y_true, sample_group=attribute, sample_weight=weight)
    assert weighted == 1


def test_worst_group_accuracy_weight_two_equals_two_copies():
    value = worst_group_accuracy(
        Y_TRUE, Y_PRED, sample_group=GROUP, sample_weight=[1, 1, 2, 1, 1, 1, 1]
    )
    copied = worst_group_accuracy(
        np.append(Y_TRUE, 0), np.append(Y_PRED, 1), sample_group=np.append(GROUP, 0)
    )
    assert value == copied == 0.5


# Edges


@pytest.mark.parametrize(
    "kind",
    [
        lambda g: g.tolist(),
        lambda g: np.array(["a", "b", "c", "z"])[g],
        lambda g: pd.Series(g, index=np.arange(len(g))[::-1]),
        lambda g: pd.Categorical(np.array(["a", "b", "c", "z"])[g]),
        lambda g: torch.as_tensor(g),
        lambda g: [("x", int(i)) for i in g],
        lambda g: np.stack([g, g % 2], axis=1),
        lambda g: pd.DataFrame({"label": g, "background": np.where(g > 0, "sea", "land")}),
        lambda g: [frozenset([int(i)]) for i in g],
    ],
    ids=["list", "str", "series", "categorical", "tensor", "tuples", "2d", "frame", "frozenset"],
)
def test_worst_group_accuracy_takes_any_kind_of_groups(kind):
    value = worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=kind(GROUP))
    assert value == pytest.approx(2 / 3)


def test_group_accuracy_of_two_attributes_has_an_index_of_two_levels():
    group = pd.DataFrame({"label": Y_TRUE, "background": ["a", "b", "b", "a", "a", "b", "b"]})
    accuracy = group_accuracy(Y_TRUE, Y_PRED, sample_group=group)
    assert accuracy.index.names == ["label", "background"]
    assert_allclose(accuracy.loc[[(0, "a"), (0, "b"), (1, "a"), (1, "b")]], [1, 0.5, 1, 0.5])


@pytest.mark.parametrize(
    "y",
    [
        lambda y: np.array(["cat", "dog"])[y],
        lambda y: pd.Series(np.array(["cat", "dog"])[y], dtype="category"),
        lambda y: np.array(["cat", "dog"], dtype=object)[y],
        lambda y: torch.as_tensor(y),
        lambda y: y.astype(bool),
    ],
)
def test_worst_group_accuracy_takes_any_kind_of_labels(y):
    value = worst_group_accuracy(y(Y_TRUE), y(Y_PRED), sample_group=GROUP)
    assert value == pytest.approx(2 / 3)


def test_worst_group_accuracy_of_one_group_is_the_accuracy():
    value = worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=np.zeros(7))
    assert value == pytest.approx(5 / 7)


def test_worst_group_accuracy_of_one_sample():
    assert worst_group_accuracy([1], [1], sample_group=["a"]) == 1
    assert worst_group_accuracy([1], [0], sample_group=["a"]) == 0


def test_group_accuracy_credits_no_group_with_the_hits_of_another_when_one_is_absent():
    accuracy = group_accuracy(
        [0, 1, 1], [0, 1, 0], sample_group=[0, 2, 2], groups=[0, 1, 2], empty="nan"
    )
    assert_array_equal(accuracy, [1, np.nan, 0.5])


_EMPTY = {
    "worst_group_accuracy": worst_group_accuracy,
    "worst_group_error": worst_group_error,
    "worst_group_metric": lambda *a, **k: worst_group_metric("f1_micro", *a, **k),
    "worst_group_metric loss": lambda *a, **k: worst_group_metric("zero_one_loss", *a, **k),
}


@pytest.mark.fidelity
@pytest.mark.parametrize("metric", _EMPTY.values(), ids=_EMPTY)
def test_an_empty_group_raises_or_is_nan_by_argument(metric):
    keywords = {"sample_group": GROUP, "groups": [0, 1, 3]}
    with pytest.raises(ValueError, match=r"1 expected group\(s\) have no samples.*\[1\]"):
        metric(Y_TRUE, Y_PRED, **keywords)
    assert np.isnan(metric(Y_TRUE, Y_PRED, **keywords, empty="nan"))
    assert not np.isnan(metric(Y_TRUE, Y_PRED, sample_group=GROUP, groups=[3, 0]))


@pytest.mark.parametrize("metric", _EMPTY.values(), ids=_EMPTY)
def test_a_group_of_weight_zero_is_empty(metric):
    keywords = {"sample_group": GROUP, "sample_weight": [0, 0, 0, 1, 1, 1, 1]}
    with pytest.raises(ValueError, match="only weight 0"):
        metric(Y_TRUE, Y_PRED, **keywords)
    assert np.isnan(metric(Y_TRUE, Y_PRED, **keywords, empty="nan"))


def test_adjusted_accuracy_of_a_training_group_without_samples_raises_or_is_nan():
    keywords = {"sample_group": GROUP, "train_group": [0, 1, 3]}
    with pytest.raises(ValueError, match=r"have no samples.*\[1\]"):
        adjusted_accuracy(Y_TRUE, Y_PRED, **keywords)
    assert np.isnan(adjusted_accuracy(Y_TRUE, Y_PRED, **keywords, empty="nan"))


# Metrics that are not defined on a group

CROSSED = np.array(["0a", "0a", "0b", "1a", "1a", "1b", "1b"])


@pytest.mark.parametrize(
    "name", ["roc_auc", "roc_auc_ovr", "average_precision", "f1", "f1_macro", "matthews_corrcoef"]
)
def test_worst_group_of_a_metric_that_compares_classes_explains_single_class_groups(name):
    keywords = {"sample_group": CROSSED, "empty": "raise"}
    with pytest.raises(ValueError, match="pass the spurious attribute alone as sample_group"):
        worst_group_metric(name, Y_TRUE, Y_PRED, **keywords)
    assert np.isnan(worst_group_metric(name, Y_TRUE, Y_PRED, sample_group=CROSSED, empty="nan"))


def test_worst_group_names_the_group_on_which_a_metric_is_not_defined():
    group = ["a", "a", "b", "a", "a", "a", "a"]
    with pytest.raises(
        ValueError, match=r"roc_auc is not defined on group 'b' \(1 samples, classes \[0\]\)"
    ):
        worst_group_metric("roc_auc", Y_TRUE, Y_PRED, sample_group=group)


def test_worst_group_of_a_callable_that_is_not_defined_explains_itself():
    with pytest.raises(ValueError, match="roc_auc_score"):
        worst_group_metric(skm.roc_auc_score, Y_TRUE, Y_PRED, sample_group=CROSSED)


def test_worst_group_of_a_callable_that_returns_nan_raises_or_is_nan():
    def metric(y_true, y_pred):
        return np.nan

    with pytest.raises(ValueError, match=r"metric is not defined on group 0.*returned NaN"):
        worst_group_metric(metric, Y_TRUE, Y_PRED, sample_group=GROUP)
    assert np.isnan(worst_group_metric(metric, Y_TRUE, Y_PRED, sample_group=GROUP, empty="nan"))


def test_worst_group_never_counts_an_undefined_precision_as_zero():
    y_pred = np.array([0, 1, 0, 0, 1, 1, 1])
    group = np.array(["a", "b", "a", "a", "b", "b", "b"])  # nothing predicted positive in a
    with pytest.raises(ValueError, match="precision is not defined on group 'a'"):
        worst_group_metric("precision", Y_TRUE, y_pred, sample_group=group)
    value = worst_group_metric("precision", Y_TRUE, y_pred, sample_group=group, zero_division=0)
    assert value == 0


def test_group_metric_gives_nan_where_a_metric_is_not_defined():
    group = np.array(["a", "a", "b", "a", "a", "a", "a"])
    values = group_metric("roc_auc", Y_TRUE, Y_PRED, sample_group=group, empty="nan")
    mask = group == "a"
    assert_allclose(values, [skm.roc_auc_score(Y_TRUE[mask], Y_PRED[mask]), np.nan])


def test_worst_group_adds_the_group_to_an_error_of_the_metric():
    def metric(y_true, y_pred):
        raise ValueError("no luck")

    with pytest.raises(ValueError, match=r"metric failed on group 0 \(3 samples\): no luck"):
        worst_group_metric(metric, Y_TRUE, Y_PRED, sample_group=GROUP)


# Errors


def test_worst_group_accuracy_compares_lengths():
    with pytest.raises(ValueError, match="sample_group has 6 rows for 7 samples"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP[:6])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        worst_group_accuracy(Y_TRUE, Y_PRED[:6], sample_group=GROUP)
    with pytest.raises(ValueError, match="sample_weight has 2 rows for 7 samples"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, sample_weight=[1, 2])


def test_worst_group_accuracy_refuses_groups_that_are_not_expected():
    with pytest.raises(ValueError, match="not among the known groups"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, groups=[0, 1])


def test_worst_group_accuracy_refuses_missing_groups():
    with pytest.raises(ValueError, match="missing"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=["a", None, "a", "b", "b", "b", "b"])
    with pytest.raises(ValueError, match="sample_group is None"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=None)


def test_worst_group_accuracy_refuses_an_unknown_empty():
    with pytest.raises(ValueError, match="empty must be 'raise' or 'nan'; got 0"):
        worst_group_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, empty=0)


def test_worst_group_accuracy_refuses_no_samples():
    with pytest.raises(ValueError, match="0 samples"):
        worst_group_accuracy([], [], sample_group=[])


def test_worst_group_accuracy_refuses_scores_in_place_of_classes():
    with pytest.raises(ValueError, match="scores or probabilities"):
        worst_group_accuracy(Y_TRUE, Y_PRED * 0.7, sample_group=GROUP)
    with pytest.raises(ValueError, match="not predict_proba"):
        worst_group_accuracy(Y_TRUE, np.eye(2)[Y_PRED], sample_group=GROUP)


def test_worst_group_accuracy_refuses_a_mix_of_strings_and_numbers():
    with pytest.raises(ValueError, match="Mix of label input types"):
        worst_group_accuracy(Y_TRUE.astype(str), Y_PRED, sample_group=GROUP)


def test_adjusted_accuracy_needs_one_training_mix():
    with pytest.raises(ValueError, match="needs the training mix"):
        adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP)
    with pytest.raises(ValueError, match="not both"):
        adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, train_group=[0], group_sizes={0: 1})
    with pytest.raises(TypeError, match="group_sizes must map"):
        adjusted_accuracy(Y_TRUE, Y_PRED, sample_group=GROUP, group_sizes=[1, 2])


def test_worst_group_refuses_an_unknown_metric():
    with pytest.raises(ValueError, match=r"metric='acc' is not known. Choose one of \['accuracy'"):
        worst_group_metric("acc", Y_TRUE, Y_PRED, sample_group=GROUP)
    with pytest.raises(TypeError, match="must be a name or a callable"):
        worst_group_metric(3, Y_TRUE, Y_PRED, sample_group=GROUP)


def test_worst_group_refuses_a_contradicting_direction():
    with pytest.raises(ValueError, match="greater_is_better=True contradicts metric='log_loss'"):
        worst_group_metric("log_loss", Y_TRUE, Y_PRED, sample_group=GROUP, greater_is_better=True)


def test_worst_group_of_one_positive_class_among_three_says_what_to_choose():
    with pytest.raises(ValueError, match="'f1_macro' or 'roc_auc_ovr'"):
        worst_group_metric("f1", [0, 1, 2], [0, 1, 2], sample_group=[0, 0, 0])


def test_an_empty_group_is_an_error_by_default_in_every_function():
    functions = [getattr(metrics, name) for name in metrics.__all__]
    functions = [value for value in functions if inspect.isfunction(value)]
    parameters = [inspect.signature(function).parameters for function in functions]
    defaults = [p["empty"].default for p in parameters if "empty" in p]
    assert defaults == ["raise"] * 8
