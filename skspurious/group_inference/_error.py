"""JTT's idea: every class is split by what a first model says of a sample it has not seen."""

from numbers import Integral, Real

import numpy as np

from skspurious.functional._cross_fit import (
    cross_fit_folds,
    cross_fitted_logits,
    fit_balanced_logistic,
)
from skspurious.functional._rows import row_chunks
from skspurious.group_inference._out_of_fold import OutOfFoldMethod
from skspurious.group_inference._sides import margins_of, parts_of_predictions, taken_for
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval, StrOptions


@extends(OutOfFoldMethod)
class ErrorGroups(OutOfFoldMethod):
    """Splits every class by whether a linear model that has not seen a sample is right about it.

    JTT's error set [1]_, out of fold. Meant for embeddings of samples on which the network itself
    makes no errors any more. The linear model is a logistic regression on standardised features,
    in which every class counts the same.

    .. versionadded:: 0.1

    Parameters
    ----------
    cross_fit : int, default=5
        Number of folds, stratified by class: every sample is judged by a model that was fitted
        on the other folds. Copies of a row are in one fold, for they may be one sample; of a row
        with ``2 * cross_fit`` copies or more, as categories have them, they are dealt out.
    by : {"error", "predicted_class"}, default="error"
        "error" makes two groups of a class, right and wrong. "predicted_class" divides the wrong
        samples by what they are taken for, which for two classes is the same; those of classes
        with fewer than `min_group_size` are put together, or with the largest of the others.
    probe : int, default=None
        How many of the last columns represent the sample itself, and the others a view of it
        without the object. What the view takes a sample for is then predicted from these columns,
        out of fold, every class and side counting the same, and the prediction takes its place:
        for a view that still holds some of the object. It takes about `cross_fit` times as long.
    C : float, default=1e-3
        Inverse strength of the model's L2 regularisation, as in scikit-learn.
    cut : float, default=0.0
        How sure the model must be of another class: a sample is wrong where its margin is below
        minus `cut` times the mean absolute margin. Fewer samples are wrong, and of these more for
        the reason that most errors have; 0.1 to 0.2 helps where there are enough of them, and harms
        where errors are few or noise.
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    skspurious.mitigation.JTTClassifier : Trains a network on the error set of a first one.

    Notes
    -----
    Groups are numbered right before wrong, and those by predicted class what was put together
    first, then in the order of the classes. A training row that ``predict`` meets again keeps
    the group that it got out of fold (one with many copies, that were dealt out, the side of
    their mean margin, while ``margin_`` is each one's own); all other rows are judged by a model
    of all training rows. The folds depend on the values of all rows, and not on their order: with
    a row more or less, samples fall into other folds. Unlike JTT's, errors are out of fold and
    those of a linear model.

    Out of fold is this model alone. A network that was trained on the same rows in a step before
    has to be cross-fitted too, by ``TorchFeatureExtractor(cross_fit=5)``; since that does not give
    a training row the same output a second time, the row is then judged as a new one, by a
    network that has fitted it, and is nearly always right: ``labels_`` has the groups of training.

    References
    ----------
    .. [1] E. Z. Liu et al. "Just Train Twice: Improving Group Robustness without Training Group
       Information." ICML 2021. arXiv:2107.09044.

    Examples
    --------
    >>> from skspurious.group_inference import ErrorGroups, SpuriousGroupInferrer
    >>> inferrer = SpuriousGroupInferrer(ErrorGroups(cross_fit=3, C=1.0), random_state=0)
    >>> X = [[0.0], [1.0], [2.0], [6.5], [5.0], [6.0], [7.0]]  # the fourth is among the others
    >>> inferrer.fit(X, [0, 0, 0, 0, 1, 1, 1]).labels_
    array([0, 0, 0, 1, 2, 2, 2])
    """

    _parameter_constraints: dict = {
        **OutOfFoldMethod._parameter_constraints,
        "cross_fit": [Interval(Integral, 2, None, closed="left")],
        "by": [StrOptions({"error", "predicted_class"})],
        "probe": [Interval(Integral, 1, None, closed="left"), None],
        "C": [Interval(Real, 0, None, closed="neither")],
        "cut": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, cross_fit=5, by="error", probe=None, C=1e-3, cut=0.0, **shared):
        super().__init__(**shared)
        self.cross_fit = cross_fit
        self.by = by
        self.probe = probe
        self.C = C
        self.cut = cut

    def find(self, X, code, context):
        """Learn the margins out of fold, and a model of all rows for new ones."""
        n_classes = len(context.classes)
        logits, self.coef_, self.intercept_ = self._judge(X, code, n_classes, context.seed)
        margin = margins_of(logits, code)
        self.cut_ = self.cut * np.abs(margin).mean()
        self.margin_ = margin + self.cut_
        predicted = taken_for(logits, code)
        predicted = np.where((predicted != code) & (self.margin_ < 0), predicted, code)
        params = {"by": self.by, "min_group_size": self.min_group_size}
        self.part_ = parts_of_predictions(predicted, code, n_classes, **params)
        self.learn_sides(X, self.part_[code, predicted], code, context)
        at = self.remember(X, code, self.margin_)
        self.train_class_ = _most_frequent(at, predicted)

    def _judge(self, X, code, n_classes, seed):
        """Out-of-fold logits, and coefficients and intercept of a model of all rows."""
        if self.probe is None:
            params = {"C": self.C, "n_folds": self.cross_fit, "random_state": seed}
            logits = cross_fitted_logits(X, code, n_classes, **params)
            return logits, *fit_balanced_logistic(X, code, n_classes, C=self.C)
        if self.probe >= X.shape[1]:
            raise ValueError(
                f"probe={self.probe}, but X has {X.shape[1]} columns: the view needs some of them."
            )
        order, fold = cross_fit_folds(X, code, self.cross_fit, seed)
        logits = np.empty((len(X), n_classes))
        for k in np.unique(fold):
            rows, held_out = order[fold != k], order[fold == k]
            coef, intercept = self._fit_probe(X[rows], code[rows], n_classes, seed)
            for part in row_chunks(len(held_out), X.shape[1]):
                logits[held_out[part]] = X[held_out[part]] @ coef + intercept
        return logits, *self._fit_probe(X, code, n_classes, seed)

    def _fit_probe(self, X, code, n_classes, seed):
        """A model of the last columns that predicts what the other ones take the rows for."""
        view, clean = X[:, : -self.probe], X[:, -self.probe :]
        params = {"C": self.C, "n_folds": self.cross_fit, "random_state": seed}
        seen = taken_for(cross_fitted_logits(view, code, n_classes, **params), code)
        side = code * n_classes + seen
        coef, intercept = fit_balanced_logistic(clean, seen, n_classes, C=self.C, strata=side)
        return np.concatenate([np.zeros((view.shape[1], n_classes)), coef]), intercept

    def measure(self, logits, code):
        """Margins by the logits, to which the cut is added: those of wrong rows are negative."""
        return super().measure(logits, code) + self.cut_

    def assign(self, X, k):
        """0 for rows that are taken for what they are; for others what their class makes it."""
        if self.by == "error" or not self.is_split_[k]:
            return super().assign(X, k)
        predicted = np.where(self.is_odd(X, k), self.predicted_class(X), k)
        at, is_known = self.recall(X, k)
        return self.part_[k, np.where(is_known, self.train_class_[at], predicted)]

    def membership_among(self, X, k, parts):
        """Probability of the parts of a class; by predicted class that of the model of all rows."""
        if self.by == "error":
            return super().membership_among(X, k, parts)
        of_class = self.part_[k] if self.is_split_[k] else np.zeros_like(self.part_[k])
        return self.class_probability(X) @ (of_class[:, None] == parts).astype(np.float64)


def _most_frequent(index, value):
    """The most frequent value of each index; of equally frequent ones the largest."""
    n_values = value.max() + 1
    pairs, count = np.unique(index * n_values + value, return_counts=True)
    pairs = pairs[np.lexsort((pairs, count))]
    result = np.empty(index.max() + 1, dtype=np.int64)
    result[pairs // n_values] = pairs % n_values  # the last one stays
    return result
