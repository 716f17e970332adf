"""JTT's idea: every class is split by whether a first model is right about a sample."""

from numbers import Integral, Real

import numpy as np
import torch
from scipy.special import expit, softmax

from skspurious.functional._cross_fit import cross_fitted_logits, fit_balanced_logistic
from skspurious.functional._error_set import class_margins
from skspurious.functional._rows import row_chunks
from skspurious.group_inference._two_sided import TwoSidedMethod
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval


@extends(TwoSidedMethod)
class ErrorGroups(TwoSidedMethod):
    """Splits every class by whether a linear model that has not seen a sample is right about it.

    JTT's error set [1]_, out of fold. Meant for embeddings of samples on which the network itself
    makes no errors any more. The linear model is a logistic regression on standardised features,
    in which every class counts the same.

    .. versionadded:: 0.1

    Parameters
    ----------
    cross_fit : int, default=5
        Number of folds, stratified by class: every sample is judged by a model that was fitted
        on the other folds. Copies of a row are in one fold.
    C : float, default=1e-3
        Inverse strength of the model's L2 regularisation, as in scikit-learn.
    shared parameters

    See Also
    --------
    SpuriousGroupInferrer : Finds the groups by this or another method.
    skspurious.mitigation.JTTClassifier : Trains a network on the error set of a first one.

    Notes
    -----
    Groups are numbered right before wrong. A training row that ``predict`` meets again keeps
    the group that it got out of fold; all other rows are judged by a model of all training
    rows. The folds depend on the values of all rows, and not on their order: with a row more or
    less, samples fall into other folds. Unlike JTT's, errors are out of fold and those of a linear
    model.

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
        **TwoSidedMethod._parameter_constraints,
        "cross_fit": [Interval(Integral, 2, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, *, cross_fit=5, C=1e-3, **shared):
        super().__init__(**shared)
        self.cross_fit = cross_fit
        self.C = C

    def find(self, X, code, context):
        """Learn the margins out of fold, and a model of all rows for new ones."""
        n_classes = len(context.classes)
        logits = cross_fitted_logits(
            X, code, n_classes, n_folds=self.cross_fit, C=self.C, random_state=context.seed
        )
        self.margin_ = margins_of(logits, code)
        self.learn_sides(X, self.margin_ < 0.0, code, context)
        self.dtype_ = X.dtype
        self.coef_, self.intercept_ = fit_balanced_logistic(X, code, n_classes, C=self.C)
        self.train_key_, first = np.unique(_row_keys(X, code), return_index=True)
        self.train_margin_ = self.margin_[first]

    def margins(self, X, k):
        """Margin of every row of a class, out of fold where it was in training."""
        code = np.full(len(X), k)
        margin = margins_of(self._logits(X), code)
        key = _row_keys(X.astype(self.dtype_, copy=False), code)
        at = np.minimum(np.searchsorted(self.train_key_, key), len(self.train_key_) - 1)
        return np.where(self.train_key_[at] == key, self.train_margin_[at], margin)

    def predicted_class(self, X):
        """Class of the largest logit."""
        return np.argmax(self._logits(X), axis=1)

    def is_odd(self, X, k):
        """Whether another class has a larger logit."""
        return self.margins(X, k) < 0.0

    def class_probability(self, X):
        """Probability of every class."""
        return softmax(self._logits(X), axis=1)

    def odd_probability(self, X, k):
        """Probability of the strongest other class against the own one."""
        return expit(-self.margins(X, k))

    def _logits(self, X):
        return X @ self.coef_ + self.intercept_


def margins_of(logits, code):
    """Logit of the own class minus the largest of the others; 0 where there is one class."""
    if logits.shape[1] == 1:
        return np.zeros(len(logits))
    logits = torch.from_numpy(np.ascontiguousarray(logits))
    return class_margins(logits, torch.from_numpy(code.astype(np.int64))).numpy()


def _row_keys(X, code):
    """64-bit keys that are equal for equal rows of a class, and else as good as never."""
    n_words = X.shape[1] * X.dtype.itemsize // 4
    rng = np.random.default_rng(0)
    factor = rng.integers(2**64, size=n_words + 1, dtype=np.uint64, endpoint=False) | 1
    key = code.astype(np.uint64) * factor[-1]
    for part in row_chunks(len(X), n_words):
        words = (np.ascontiguousarray(X[part]) + 0.0).view(np.uint32)
        key[part] += words.astype(np.uint64) @ factor[:-1]
    return key
