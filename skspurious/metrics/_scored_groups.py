"""Groups of the samples that are scored, found on them, where none are given."""

import hashlib

import numpy as np
from sklearn.base import clone
from sklearn.utils.multiclass import unique_labels

from skspurious.data import unpack_groups
from skspurious.data._sources import last_step
from skspurious.group_inference import ViewJury
from skspurious.group_inference._keys import sample_keys
from skspurious.group_inference._named_views import resolve_views
from skspurious.utils._random import seed_nested
from skspurious.utils._warnings import warn

_N_KEPT = 64  # sets of samples whose groups are kept

_WORST_CLASS = (
    "there are no groups to score by, and views of the {n} samples find none: {reason}. The score "
    "is that of the worst class, which says nothing of a shortcut. Give groups: "
    "model_selection.with_view_groups(X, y, ViewJury(views)) with views of your own, or "
    "GroupedData(X, sample_group) with labels."
)


class ScoredGroups:
    """Groups that an inferrer finds on the samples to score; of each set of samples once.

    A search scores all its candidates on the same folds, so that groups which are found on a fold
    are a common measure, and only the first candidate has to wait for them.

    Parameters
    ----------
    inferrer : unfitted inferrer or None
        None is that of the standard views which knows most of the class; where none knows
        anything the classes are the groups, with a warning.
    """

    def __init__(self, inferrer):
        self.inferrer = inferrer
        self._kept = {}

    def find(self, X, y):
        """Groups of samples.

        Parameters
        ----------
        X : samples of any kind, without groups
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        group : ndarray of shape (n_samples,)
        """
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
            return last_step(seed_nested(clone(self.inferrer), 0).fit(X, y)).labels_, ""
        try:
            view = fit_best_view(ViewJury(random_state=0), X, y)
        except Exception as error:  # of whatever kind: the classifier can predict these samples
            reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            return np.asarray(y), reason
        if len(view.groups_) == len(view.classes_):
            return np.asarray(y), "no view is wrong about enough of them, or all are at chance"
        return view.labels_, ""

    def __getstate__(self):
        return {"inferrer": self.inferrer, "_kept": {}}


def fit_best_view(jury, X, y):
    """The view that knows most of the class, as a jury of its own.

    Of the views of a jury together those that know less, and look at the object, blur the groups
    of the best one: for retraining they are a gain, for ranking a loss. The clean sample has no
    say, for it errs where any classifier does.

    Parameters
    ----------
    jury : unfitted ViewJury
    X : samples of any kind
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    view : fitted ViewJury
        With one view; with all of them where none is above chance.
    """
    X = unpack_groups(X)[0]
    views = resolve_views(X, jury.views, None, jury.extractor)
    jury = clone(jury).set_params(clean=None).fit(X, y)
    weight = jury.view_scores_["weight"]
    if len(views) == 1 or weight.max() == 0:
        return jury
    return clone(jury).set_params(views={weight.idxmax(): views[weight.idxmax()]}).fit(X, y)


def _key(X, y):
    """What tells sets of samples apart."""
    code = np.searchsorted(unique_labels(y), y).astype(np.int64)
    content = sample_keys(X, code).tobytes() + np.asarray(y).astype(str).tobytes()
    return hashlib.blake2b(content).digest()
