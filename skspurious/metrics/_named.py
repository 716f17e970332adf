"""Metrics by name: what each needs from the estimator and from the rows of a group."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
    zero_one_loss,
)


class Metric(NamedTuple):
    """A metric and the facts that computing it group by group needs.

    ``call(y_true, y_pred, labels, **kwargs)`` computes it on the rows of one group.
    """

    name: str
    call: Callable
    response_method: str | tuple = "predict"
    greater_is_better: bool = True
    takes_classes: bool = False  # y_pred holds predicted classes
    n_classes: str = "any"  # how many classes a group must hold: "any", "two" or "all"


def get_metric(metric, greater_is_better=None, response_method=None):
    """The Metric of a name or callable; given arguments complete a callable."""
    if isinstance(metric, Metric):
        found = metric
    elif isinstance(metric, str):
        if metric not in _METRICS:
            raise ValueError(
                f"metric={metric!r} is not known. Choose one of {sorted(_METRICS)}, or pass a "
                "callable metric(y_true, y_pred)."
            )
        found = _METRICS[metric]
        if greater_is_better not in (None, found.greater_is_better):
            raise ValueError(
                f"greater_is_better={greater_is_better} contradicts metric={metric!r}; leave it "
                "out, it belongs to callables."
            )
    elif callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        greater_is_better = True if greater_is_better is None else bool(greater_is_better)
        found = Metric(name, _Plain(metric), greater_is_better=greater_is_better)
    else:
        raise TypeError(
            f"metric must be a name or a callable metric(y_true, y_pred); got {metric!r}."
        )
    return found if response_method is None else found._replace(response_method=response_method)


class _Plain:
    """``function(y_true, y_pred, **kwargs)``, with some of the keywords fixed."""

    def __init__(self, function, **fixed):
        self.function = function
        self.fixed = fixed

    def __call__(self, y_true, y_pred, labels, /, **kwargs):
        return self.function(y_true, y_pred, **{**self.fixed, **kwargs})


class _Labelled(_Plain):
    """The same with ``labels=`` all classes, also those that the group lacks."""

    def __call__(self, y_true, y_pred, labels, /, **kwargs):
        return super().__call__(y_true, y_pred, labels, **{"labels": labels, **kwargs})


class _BinaryClasses(_Plain):
    """Predicted classes against one positive class, the second unless ``pos_label`` is given."""

    def __call__(self, y_true, y_pred, labels, /, *, pos_label=None, **kwargs):
        positive = _positive(labels, pos_label, self.function)
        return super().__call__(_is(y_true, positive), _is(y_pred, positive), labels, **kwargs)


class _BinaryScores(_Plain):
    """Scores of the second class, or a column per class, against one positive class."""

    def __call__(self, y_true, y_pred, labels, /, *, pos_label=None, **kwargs):
        positive = _positive(labels, pos_label, self.function)
        if y_pred.ndim == 2:
            y_pred = y_pred[:, list(labels).index(positive)]
        elif positive != labels[1]:
            y_pred = -y_pred
        return super().__call__(_is(y_true, positive), y_pred, labels, **kwargs)


class _AucAverage(_Plain):
    """Area under the ROC curve over pairs of classes; two classes make one pair."""

    def __call__(self, y_true, y_pred, labels, /, **kwargs):
        if len(labels) == 2:
            return _BinaryScores(self.function)(y_true, y_pred, labels, **kwargs)
        kwargs = {"labels": labels, **kwargs}
        return super().__call__(y_true, y_pred, labels, **kwargs)


def _is(y, positive):
    return (y == positive).astype(np.int64)


def _positive(labels, pos_label, function):
    if len(labels) != 2:
        raise ValueError(
            f"{function.__name__} with one positive class needs two classes, and here are "
            f"{len(labels)}: {list(labels)[:10]}. Choose an average, for instance 'f1_macro' or "
            "'roc_auc_ovr', or pass labels= with both classes."
        )
    return labels[1] if pos_label is None else pos_label


def _balanced_accuracy(y_true, y_pred, **kwargs):
    """Mean recall over the classes that occur."""
    return recall_score(y_true, y_pred, labels=np.unique(y_true), average="macro", **kwargs)


def _table():
    classes = {"takes_classes": True}
    yield Metric("accuracy", _Plain(accuracy_score), **classes)
    yield Metric("balanced_accuracy", _Plain(_balanced_accuracy), **classes)
    yield Metric("zero_one_loss", _Plain(zero_one_loss), greater_is_better=False, **classes)
    yield Metric("matthews_corrcoef", _Plain(matthews_corrcoef), n_classes="two", **classes)
    for name, function in {
        "f1": f1_score,
        "precision": precision_score,
        "recall": recall_score,
    }.items():
        yield Metric(name, _BinaryClasses(function), n_classes="all", **classes)
        for average, n_classes in {"macro": "two", "weighted": "two", "micro": "any"}.items():
            call = _Plain(function, average=average)
            yield Metric(f"{name}_{average}", call, n_classes=n_classes, **classes)
    scores = {"response_method": ("decision_function", "predict_proba"), "n_classes": "all"}
    yield Metric("roc_auc", _BinaryScores(roc_auc_score), **scores)
    yield Metric("average_precision", _BinaryScores(average_precision_score), **scores)
    for how in ["ovr", "ovo"]:
        call = _AucAverage(roc_auc_score, multi_class=how)
        yield Metric(f"roc_auc_{how}", call, "predict_proba", n_classes="all")
    yield Metric("log_loss", _Labelled(log_loss), "predict_proba", greater_is_better=False)


_METRICS = {metric.name: metric for metric in _table()}
