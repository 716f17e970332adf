"""Groups of the samples that are scored, found on them, where none are given."""

import hashlib

import numpy as np
from sklearn.utils.multiclass import unique_labels

from skspurious.data import resolve_groups, unpack_groups
from skspurious.data._grouped import carried_attribute
from skspurious.group_inference import ViewJury
from skspurious.group_inference._keys import sample_keys
from skspurious.utils._warnings import warn

_N_KEPT = 64  # sets of samples whose groups are kept

_WORST_CLASS = (
    "there are no groups to score by, and views of the {n} samples find none: {reason}. The score "
    "is that of the worst class, which says nothing of a shortcut. Give groups: "
    "ViewJury(views).fit_transform(X, y) with views of your own, or "
    "GroupedData(X, sample_group) with labels."
)

_NOT_USED = (
    "X carries a sample_attribute, and worst_group_scorer makes no use of it: it scores by views. "
    "make_worst_group_scorer(group_inferrer='estimator') scores by the inferrer that the candidate "
    "was fitted with, a SemiSupervisedGroupInferrer for instance, which keeps the known values; a "
    "fitted one, as group_inferrer=, is the same measure for all candidates."
)


class ScoredGroups:
    """Groups that an inferrer finds on the samples to score; of each set of samples once.

    A search scores all its candidates on the same folds, so that groups which are found on a fold
    are a common measure, and only the first candidate has to wait for them.

    Parameters
    ----------
    inferrer : unfitted inferrer or None
        None is a jury of the standard views without the clean sample, which was not told the
        errors of any model; where it finds nothing the classes are the groups, with a warning.
    """

    def __init__(self, inferrer):
        self.inferrer = inferrer
        self._kept = {}

    def find(self, X, y):
        """Groups of samples.

        Parameters
        ----------
        X : samples of any kind, without groups
            A ``sample_attribute`` that they carry is for an inferrer that takes one.
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        group : ndarray of shape (n_samples,)
        """
        if self.inferrer is None and carried_attribute(X) is not None:
            warn(_NOT_USED)
        key = _key(X, y)
        if key not in self._kept:
            while len(self._kept) >= _N_KEPT:
                self._kept.pop(next(iter(self._kept)), None)
            self._kept[key] = self._find(X, y)
        group, reason = self._kept[key]
        if reason:
            warn(_WORST_CLASS.format(n=len(group), reason=reason))
        return group

    def _find(self, X, y):
        """Groups, and why they are the classes alone."""
        if self.inferrer is not None:
            return resolve_groups(X, y, group_inferrer=self.inferrer, seed=0).sample_group, ""
        try:
            jury = ViewJury(clean=None, min_group_size=2, random_state=0)
            jury.fit(unpack_groups(X)[0], y)
        except Exception as error:  # of whatever kind: the classifier can predict these samples
            reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            return np.asarray(y), reason
        if len(jury.groups_) == len(jury.classes_):
            return np.asarray(y), "no view is wrong about enough of them, or all are at chance"
        return jury.labels_, ""

    def __getstate__(self):
        return {"inferrer": self.inferrer, "_kept": {}}


def _key(X, y):
    """What tells sets of samples apart."""
    code = np.searchsorted(unique_labels(y), y).astype(np.int64)
    content = sample_keys(unpack_groups(X)[0], code).tobytes()
    for values in (y, carried_attribute(X)):
        content += np.asarray(values).astype(str).tobytes()
    return hashlib.blake2b(content).digest()
