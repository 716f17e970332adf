"""Methods that split every class in two by a rule."""

from numbers import Integral

import numpy as np

from skspurious.functional._rows import distinct_rows, row_order
from skspurious.group_inference._base import GroupMethod
from skspurious.utils._sklearn_compat import Interval


class TwoSidedMethod(GroupMethod):
    """Base of the methods that call some rows of a class regular and the others odd.

    Subclasses define ``is_odd``, ``odd_probability``, ``predicted_class`` and
    ``class_probability``, and call ``learn_sides`` in ``find``.

    Parameters
    ----------
    min_group_size : int, default=1
        Fewest training samples of a group; a class with fewer on one of its sides stays whole.
    """

    made_of_errors = True

    _parameter_constraints: dict = {
        "min_group_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, *, min_group_size=1):
        self.min_group_size = min_group_size

    def learn_sides(self, X, side, code, context):
        """Which classes are split, and the mean silhouette of their sides; side 0 is regular."""
        odd = side > 0
        sizes = np.stack(
            [np.bincount(code[odd == is_odd], minlength=code.max() + 1) for is_odd in (0, 1)]
        )
        self.is_split_ = sizes.min(axis=0) >= self.min_group_size
        self.silhouette_ = np.full(len(self.is_split_), np.nan)
        if not self.is_split_.any():
            return
        order = row_order(X)
        for k in np.flatnonzero(self.is_split_):
            index, count = distinct_rows(X, order[code[order] == k])
            part = np.unique(side[index], return_inverse=True)[1]
            (score,) = context.score_partitions(X[index], [part], count)
            self.silhouette_[k] = score.mean

    def assign(self, X, k):
        """0 for regular rows, 1 for odd ones."""
        if not self.is_split_[k]:
            return np.zeros(len(X), dtype=np.int64)
        return self.is_odd(X, k).astype(np.int64)

    def membership_among(self, X, k, parts):
        """Probability of the sides of a class."""
        if len(parts) == 1:
            return np.ones((len(X), 1))
        odd = self.odd_probability(X, k)
        return np.stack([1.0 - odd, odd], axis=1)

    def assign_any(self, X):
        """The regular group of the predicted class."""
        return self._regular_groups()[self.predicted_class(X)]

    def membership_any(self, X):
        """Probability of the regular groups."""
        result = np.zeros((len(X), len(self.group_class_)))
        result[:, self._regular_groups()] = self.class_probability(X)
        return result

    def _regular_groups(self):
        return np.searchsorted(self.group_class_, np.arange(len(self.is_split_)))
