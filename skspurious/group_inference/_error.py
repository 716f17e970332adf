"""JTT's idea: every class is split by whether a first model is right about a sample."""

import numpy as np
import torch
from scipy.special import expit, softmax

from skspurious.functional._cross_fit import cross_fitted_logits, fit_balanced_logistic
from skspurious.functional._error_set import class_margins
from skspurious.group_inference._base import Method, TwoSidedGroups


def split_by_error(X, code, settings):
    """Groups of every class, right before wrong, and the silhouette of each class's split."""
    n_classes = code.max() + 1
    logits = cross_fitted_logits(
        X, code, n_classes, n_folds=settings.n_folds, C=settings.C, random_state=settings.seed
    )
    margin = margins_of(logits, code)
    groups = ErrorGroups(X, margin, code, settings)
    return groups, groups.silhouette(X, margin < 0.0, code, settings), []


def margins_of(logits, code):
    """Logit of the own class minus the largest of the others; 0 where there is one class."""
    if logits.shape[1] == 1:
        return np.zeros(len(logits))
    logits = torch.from_numpy(np.ascontiguousarray(logits))
    return class_margins(logits, torch.from_numpy(code.astype(np.int64))).numpy()


class ErrorGroups(TwoSidedGroups):
    """Groups by a linear model: a row is odd (wrong) where another class has a larger logit.

    The model is fitted on all training rows, so it cannot judge these: a row that was in training
    keeps its out-of-fold margin.
    """

    def __init__(self, X, margin, code, settings):
        super().__init__(margin < 0.0, code, settings.min_cluster_size)
        self.dtype = X.dtype
        self.coef, self.intercept = fit_balanced_logistic(X, code, len(self.table), C=settings.C)
        self.train_key, first = np.unique(_row_keys(X, code), return_index=True)
        self.train_margin = margin[first]
        self.margin = margin

    def margins(self, X, code):
        """Margin of every row, out of fold where it was in training."""
        margin = margins_of(X @ self.coef + self.intercept, code)
        key = _row_keys(X.astype(self.dtype, copy=False), code)
        at = np.minimum(np.searchsorted(self.train_key, key), len(self.train_key) - 1)
        return np.where(self.train_key[at] == key, self.train_margin[at], margin)

    def predicted_class(self, X):
        """Class of the largest logit."""
        return np.argmax(X @ self.coef + self.intercept, axis=1)

    def is_odd(self, X, code):
        """Whether another class has a larger logit."""
        return self.margins(X, code) < 0.0

    def class_probability(self, X):
        """Probability of every class."""
        return softmax(X @ self.coef + self.intercept, axis=1)

    def odd_probability(self, X, code):
        """Probability of the strongest other class against the own one."""
        return expit(-self.margins(X, code))


def _row_keys(X, code, chunk_size=4096):
    """64-bit keys that are equal for equal rows of a class, and else as good as never."""
    words = (np.ascontiguousarray(X) + 0.0).view(np.uint32)
    rng = np.random.default_rng(0)
    factor = rng.integers(2**64, size=words.shape[1] + 1, dtype=np.uint64, endpoint=False) | 1
    key = code.astype(np.uint64) * factor[-1]
    for start in range(0, len(words), chunk_size):
        part = slice(start, start + chunk_size)
        key[part] += words[part].astype(np.uint64) @ factor[:-1]
    return key


METHOD = Method(split=split_by_error)
