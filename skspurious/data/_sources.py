"""Where groups come from: given, inferred or carried, through Pipelines and searches too."""

import inspect
import sys
from typing import Any, NamedTuple

from sklearn import get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skspurious.data._grouped import (
    GroupedData,
    carried_attribute,
    unpack_groups,
    without_groups,
    wrap_like,
)
from skspurious.utils._random import seed_nested
from skspurious.utils._warnings import warn


class ResolvedGroups(NamedTuple):
    """Groups of samples, and the fitted inferrer that they come from.

    Both are None where there are no groups; labels have no inferrer.
    """

    sample_group: Any
    group_inferrer: Any

    @property
    def are_labels(self):
        """Whether these are known groups, not inferred ones."""
        return self.sample_group is not None and self.group_inferrer is None


def resolve_groups(X, y, *, sample_group=None, group_inferrer=None, seed=None, fallback=None):
    """Groups of samples from the first source that there is: given, inferred, carried.

    Parameters
    ----------
    X : any kind of samples, or GroupedData
        The samples.
    y : array-like of shape (n_samples,)
        Class labels, which an inferrer needs.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
        Groups that are given.
    group_inferrer : estimator, default=None
        A fitted inferrer, or an estimator or Pipeline that holds one. Its groups come before
        those that ``X`` carries.
    seed : int, default=None
        If given, ``group_inferrer`` is unfitted: it is cloned, seeded, and fitted on the samples,
        and on the ``sample_attribute`` that they carry if it takes one.
    fallback : fitted estimator, default=None
        What infers the groups where none are given, inferred or carried.

    Returns
    -------
    resolved : ResolvedGroups
        ``sample_group``, ``group_inferrer`` (fitted; None for known groups) and ``are_labels``.

    Raises
    ------
    TypeError
        If ``group_inferrer`` or ``fallback`` infers no groups of new rows.

    Examples
    --------
    >>> from skspurious.data import GroupedData, resolve_groups
    >>> X = GroupedData([[0.0], [1.0]], ["field", "lake"])
    >>> resolve_groups(X, [0, 1]).sample_group.tolist()
    ['field', 'lake']
    >>> resolve_groups(X, [0, 1], sample_group=[0, 0]).sample_group
    [0, 0]
    """
    _, carried, carried_inferrer = unpack_groups(X)
    if sample_group is not None:
        return ResolvedGroups(sample_group, None)
    if group_inferrer is not None and seed is not None:
        fitted = _fit_inferrer(seed_nested(clone(group_inferrer), seed), X, y)
        return ResolvedGroups(last_step(fitted).labels_, fitted)
    if group_inferrer is None and carried is not None:
        return ResolvedGroups(carried, carried_inferrer)
    inferrer = fallback if group_inferrer is None else group_inferrer
    if inferrer is None:
        return ResolvedGroups(None, None)
    inferred = infer_groups(inferrer, without_groups(X), y)[0]
    if inferred is None:
        raise TypeError(
            "group_inferrer must be a fitted inferrer with infer_groups(X, y), or a Pipeline, "
            f"search or classifier that holds one; got {inferrer!r}."
        )
    return ResolvedGroups(inferred, inferrer)


def infer_groups(estimator, X, y):
    """Groups of new rows from the inferrer in a fitted estimator, and what then predicts.

    Parameters
    ----------
    estimator : fitted estimator
        An inferrer or a classifier with ``infer_groups(X, y)``, a Pipeline with one of them among
        its steps, or a search over these.
    X : any kind of samples, or GroupedData
        The samples, as the estimator takes them. An inferrer that takes ``sample_attribute`` keeps
        the values that they carry.
    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    sample_group : ndarray of shape (n_samples,), or None where there is no inferrer
    predictor : estimator
        The estimator that predicts from the returned ``X``: the steps that are left after those
        that were run to infer the groups.
    X : samples
        The samples as ``predictor`` takes them.

    Notes
    -----
    A Pipeline is run step by step, for two reasons: its transformers then run once, and
    ``Pipeline.predict(X, y=y)`` fails where metadata routing is on.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skspurious import SpuriousGroupInferrer
    >>> from skspurious.data import infer_groups
    >>> Z, y = np.array([[0.0], [0.1], [5.0], [9.0]]), [0, 0, 0, 0]
    >>> steps = make_pipeline(StandardScaler(), SpuriousGroupInferrer("spare")).fit(Z, y)
    >>> infer_groups(steps, Z, y)[0].shape
    (4,)
    """
    if isinstance(estimator, Pipeline):
        return _walk_pipeline(estimator, X, y)
    if hasattr(estimator, "best_estimator_"):
        return infer_groups(estimator.best_estimator_, X, y)
    samples = unpack_groups(X)[0]
    if not is_group_inferrer(estimator):
        return None, estimator, samples
    keeps_known = takes_attribute(estimator) or hasattr(estimator, "group_inferrer_")
    given = without_groups(X) if keeps_known else samples
    return estimator.infer_groups(given, y), estimator, samples


def _walk_pipeline(pipeline, X, y):
    group = None
    *before, last = [step for _, step in pipeline.steps if step not in (None, "passthrough")]
    for step in before:
        if group is None:
            group = infer_groups(step, X, y)[0]
        if hasattr(step, "transform"):  # samplers act in fit only
            Z = step.transform(unpack_groups(X)[0])
            X = Z if isinstance(Z, GroupedData) else wrap_like(Z, X)
    return infer_groups(last, X, y) if group is None else (group, last, unpack_groups(X)[0])


def _fit_inferrer(inferrer, X, y):
    """Fit an inferrer, or a Pipeline that ends in one, on samples and what is known of them."""
    samples, last = unpack_groups(X)[0], last_step(inferrer)
    known = known_for(last, X)
    if not known or last is inferrer:
        return inferrer.fit(samples, y, **known)
    if hasattr(inferrer, "_carries_groups"):
        return inferrer.fit(without_groups(X), y)
    if not get_config()["enable_metadata_routing"]:
        known = {f"{inferrer.steps[-1][0]}__{name}": value for name, value in known.items()}
    return inferrer.fit(samples, y, **known)


def known_for(inferrer, X):
    """Arguments of an inferrer's ``fit``: the ``sample_attribute`` that X carries, if it takes one.

    Warns where it takes none.
    """
    attribute = carried_attribute(X)
    if attribute is None:
        return {}
    if takes_attribute(inferrer):
        return {"sample_attribute": attribute}
    warn(
        f"{type(inferrer).__name__} finds groups without the sample_attribute that X carries, and "
        "ignores it. SemiSupervisedGroupInferrer makes use of it."
    )
    return {}


def takes_attribute(estimator):
    """Whether ``fit`` takes ``sample_attribute``: what is known of some samples."""
    fit = getattr(estimator, "fit", None)
    return fit is not None and "sample_attribute" in inspect.signature(fit).parameters


def is_group_inferrer(estimator):
    """Whether a fitted estimator gives groups of new rows: by ``infer_groups(X, y)``.

    A classifier has that method too, and gives none where it was fitted without an inferrer.
    """
    has_method = hasattr(estimator, "infer_groups")
    return has_method and getattr(estimator, "group_inferrer_", estimator) is not None


def steps_of(estimator):
    """Steps of a Pipeline, or the estimator alone."""
    return list(estimator) if isinstance(estimator, Pipeline) else [estimator]


def last_step(estimator):
    """Last step of a Pipeline, or the estimator itself."""
    return steps_of(estimator)[-1]


def pipeline_drops_groups(what="sample_group"):
    """Whether a caller is a Pipeline of scikit-learn whose X carries groups, or an attribute.

    What reaches its last step without has then lost them in a step before. The Pipeline of this
    package loses none.
    """
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        pipeline = names.get("self")
        if isinstance(pipeline, Pipeline) and not hasattr(pipeline, "_carries_groups"):
            X = names.get("X")
            if isinstance(X, GroupedData) and getattr(X, what) is not None:
                return True
        frame = frame.f_back
    return False
