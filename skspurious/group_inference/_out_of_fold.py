"""Methods that split a class by linear models that have not seen the sample."""

import numpy as np
from scipy.special import expit, softmax

from skspurious.functional._rows import row_keys
from skspurious.group_inference._sides import margins_of
from skspurious.group_inference._two_sided import TwoSidedMethod
from skspurious.utils._parameters import extends


@extends(TwoSidedMethod)
class OutOfFoldMethod(TwoSidedMethod):
    """Base of the methods whose sides are signs of margins, out of fold for training rows.

    Subclasses set ``coef_`` and ``intercept_`` of a model for new rows in ``find``, and call
    ``remember`` with the margins of the training rows; a negative margin is odd.

    Parameters
    ----------
    shared parameters
    """

    def __init__(self, **shared):
        super().__init__(**shared)

    def remember(self, X, code, margin):
        """Keep the margins of the training rows by their values; which of them every row is."""
        self.dtype_ = X.dtype
        self.train_key_, first, at, count = np.unique(
            row_keys(X, code), return_index=True, return_inverse=True, return_counts=True
        )
        self.train_margin_ = margin[first]
        # Copies that were dealt out have margins that differ.
        differs = np.unique(at[margin != self.train_margin_[at]])
        self.train_margin_[differs] = (np.bincount(at, weights=margin) / count)[differs]
        return at

    def recall(self, X, k):
        """Where the rows stand among those of training, and whether they do."""
        key = row_keys(X.astype(self.dtype_, copy=False), np.full(len(X), k))
        at = np.minimum(np.searchsorted(self.train_key_, key), len(self.train_key_) - 1)
        return at, self.train_key_[at] == key

    def measure(self, logits, code):
        """Margins by the logits: here the own class against the strongest other one."""
        return margins_of(logits, code)

    def margins(self, X, k):
        """Margin of every row of a class, out of fold where it was in training."""
        margin = self.measure(self._logits(X), np.full(len(X), k))
        at, is_known = self.recall(X, k)
        return np.where(is_known, self.train_margin_[at], margin)

    def predicted_class(self, X):
        """Class of the largest logit."""
        return np.argmax(self._logits(X), axis=1)

    def is_odd(self, X, k):
        """Whether the margin is negative."""
        return self.margins(X, k) < 0.0

    def class_probability(self, X):
        """Probability of every class."""
        return softmax(self._logits(X), axis=1)

    def odd_probability(self, X, k):
        """Logistic function of the negative margin."""
        return expit(-self.margins(X, k))

    def _logits(self, X):
        return X @ self.coef_ + self.intercept_
