"""Scorers for searches and cross-validation: the worst group, wherever its groups come from."""

import copy
import inspect

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import check_is_fitted

from skspurious.data import infer_groups, resolve_groups, unpack_groups
from skspurious.data._grouped import take_group_columns, without_groups
from skspurious.data._sources import last_step
from skspurious.metrics._checks import check_empty
from skspurious.metrics._group_metric import worst_group_metric
from skspurious.metrics._named import get_metric
from skspurious.metrics._scored_groups import ScoredGroups

__all__ = ["make_worst_group_scorer", "worst_group_scorer"]

_NO_GROUPS = (
    "{scorer} has no groups: the estimator infers none. Give them in one of these ways: (1) fit "
    "the search on ViewJury(clean=None).fit_transform(X, y), or with labels on "
    "GroupedData(X, sample_group), which carry them into every fold; (2) use an estimator that "
    "infers them, for instance GroupDROClassifier(group_inferrer=SpuriousGroupInferrer()), or a "
    "Pipeline with a SpuriousGroupInferrer; (3) make_worst_group_scorer(group_inferrer=None), "
    "which finds them by views. Searches and cross_validate turn this error into NaN: pass "
    "error_score='raise' to see it there."
)


class _WorstGroupScorer:
    """Scorer of the worst group, called as ``scorer(estimator, X, y, sample_group=None)``.

    See :func:`make_worst_group_scorer`.
    """

    def __init__(
        self,
        metric="accuracy",
        *,
        group_inferrer=None,
        mean_over_classes="auto",
        greater_is_better=None,
        response_method=None,
        groups=None,
        empty="raise",
        **metric_params,
    ):
        self.metric = metric
        self.group_inferrer = group_inferrer
        self.mean_over_classes = mean_over_classes
        self.greater_is_better = greater_is_better
        self.response_method = response_method
        self.groups = groups
        self.empty = empty
        self.metric_params = metric_params
        self._request = {"sample_group": True}
        is_given = group_inferrer is not None and not _is_own(group_inferrer)
        is_found = is_given and _is_unfitted(group_inferrer)
        self._fitted = group_inferrer if is_given and not is_found else None
        self._scored = ScoredGroups(group_inferrer if is_found else None)
        check_empty(empty)
        if mean_over_classes not in (True, False, "auto"):
            raise ValueError(
                f"mean_over_classes must be True, False or 'auto'; got {mean_over_classes!r}."
            )
        self._get_metric()

    def __call__(self, estimator, X, y, sample_group=None, sample_weight=None):
        """Value of the metric on the worst group; losses are negated, so greater is better.

        Parameters
        ----------
        estimator : object
            A fitted classifier, Pipeline or search.
        X : any kind of samples
            Rows to predict; a GroupedData carries their groups.
        y : array-like of shape (n_samples,)
            True classes.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Groups of the rows.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples within their groups.

        Returns
        -------
        score : float
        """
        metric = self._get_metric()
        labels = getattr(estimator, "classes_", None)
        X, sample_group, _ = take_group_columns(X, sample_group, fitted=_columns_of(estimator))
        found = resolve_groups(X, y, sample_group=sample_group, group_inferrer=self._fitted)
        X, group = without_groups(X), found.sample_group
        if sample_group is None and self._scored.inferrer is not None:
            group = self._scored.find(X, y)
        if group is None and _is_own(self.group_inferrer):
            group, estimator, X = infer_groups(estimator, X, y)
            if group is None:
                raise ValueError(_NO_GROUPS.format(scorer=self))
        is_by_class = self.mean_over_classes is True
        if group is None:
            _check_no_labels_lost(estimator)
            group = self._scored.find(X, y)
            # Where the classes are the groups, the worst class counts.
            is_split = len(np.unique(group)) > len(np.unique(y))
            is_by_class |= self.mean_over_classes == "auto" and self.groups is None and is_split
        X = unpack_groups(X)[0]  # predict never needs what is known
        given = (y, _respond(estimator, X, metric.response_method), group, sample_weight)
        value = np.mean(
            [
                self._worst(metric, *part, labels)
                for part in (_by_class(*given) if is_by_class else [given])
            ]
        )
        return float(value if metric.greater_is_better else -value)

    def _worst(self, metric, y, response, group, weight, labels):
        return worst_group_metric(
            metric,
            y,
            response,
            sample_group=group,
            sample_weight=weight,
            groups=self.groups,
            empty=self.empty,
            labels=labels,
            **self.metric_params,
        )

    def get_metadata_routing(self):
        """What scikit-learn's metadata routing should hand over: ``sample_group``.

        Returns
        -------
        request : MetadataRequest
        """
        request = MetadataRequest(owner=repr(self))
        for param, alias in self._request.items():
            request.score.add_request(param=param, alias=alias)
        return request

    def set_score_request(self, **kwargs):
        """A scorer that requests other metadata.

        Unlike the method of scikit-learn's scorers this returns a changed copy, because
        ``worst_group_scorer`` is one object that everybody shares.

        Parameters
        ----------
        **kwargs : dict
            ``sample_group`` and ``sample_weight``: True, False, None, or the name under which
            the metadata is passed.

        Returns
        -------
        scorer : object
        """
        unknown = set(kwargs) - {"sample_group", "sample_weight"}
        if unknown:
            raise TypeError(f"{self} takes sample_group and sample_weight, not {sorted(unknown)}.")
        scorer = copy.copy(self)
        scorer._request = {**self._request, **kwargs}
        return scorer

    def _accept_sample_weight(self):
        # Asked by scikit-learn's searches when routing is off.
        return True

    def _get_metric(self):
        return get_metric(self.metric, self.greater_is_better, self.response_method)

    def __repr__(self):
        given = "".join(
            f", {name}={getattr(self, name)!r}"
            for name, default in _DEFAULTS.items()
            if getattr(self, name) is not default
        )
        given += "".join(f", {name}={value!r}" for name, value in self.metric_params.items())
        metric = self.metric if isinstance(self.metric, str) else self._get_metric().name
        return f"make_worst_group_scorer({metric!r}{given})"


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(_WorstGroupScorer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def make_worst_group_scorer(
    metric="accuracy",
    *,
    group_inferrer=None,
    mean_over_classes="auto",
    greater_is_better=None,
    response_method=None,
    groups=None,
    empty="raise",
    **metric_params,
):
    """Make a scorer of the worst group, for ``scoring=`` in searches and cross-validation.

    The scorer takes the groups of the samples that it scores from the first source that applies:

    1. ``sample_group``, given in a direct call or by metadata routing (the scorer requests it, so
       ``search.fit(X, y, sample_group=...)`` is enough where routing is on), or the columns of a
       DataFrame ``X`` whose names ``fit`` was given;
    2. ``group_inferrer``, if given here;
    3. ``X``, if it is a :class:`~skspurious.GroupedData`;
    4. a jury of views of these samples, see below.

    A ``sample_attribute`` that ``X`` carries is used by source 2 alone; source 4 warns.
    Sources 2 to 4 work with metadata routing off, which is scikit-learn's default.

    Parameters
    ----------
    metric : str or callable, default="accuracy"
        A name, or a callable ``metric(y_true, y_pred)``; see
        :func:`~skspurious.metrics.worst_group_metric`. The name of a loss may have scikit-learn's
        prefix: ``"neg_log_loss"``.
    group_inferrer : inferrer, "estimator" or None, default=None
        A fitted inferrer, or a Pipeline that ends in one, says the groups of the samples. An
        unfitted one is cloned and fitted on them, for all candidates of a search once.
        "estimator" asks the inferrer that is fitted with the classifier, its own or that of a
        Pipeline, where ``X`` carries no groups; every candidate looks good by the groups that it
        was itself trained to balance. None is source 4.
    mean_over_classes : bool or "auto", default="auto"
        Whether the score is the mean over the classes of the metric on the worst group of each,
        which is less noisy than the worst of all where groups are found, and tiny in a fold. "auto"
        is True for source 4 alone, without `groups`.
    greater_is_better : bool, default=None
        For a callable: False if it is a loss. Losses are negated, so a greater score is better.
    response_method : str or tuple of str, default=None
        The method whose output the metric takes, or several of which the first that exists is
        called. None means what a named metric needs, and ``"predict"`` for a callable.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect in every fold. By default those that occur in it.
    empty : {"raise", "nan"}, default="raise"
        What to do with an expected group that has no samples in a fold, or on which the metric is
        not defined: raise a ValueError, or make the score NaN.
    **metric_params : dict
        Further keywords of the metric.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, *, sample_group=None, sample_weight=None)``. It pickles.

    Raises
    ------
    ValueError
        When called: if the classifier was fitted with group labels and the scorer was given none,
        or, with ``group_inferrer="estimator"``, if it infers none. scikit-learn turns errors of a
        scorer into NaN scores unless ``error_score="raise"``.

    See Also
    --------
    worst_group_scorer : The one for accuracy, ready made.

    Notes
    -----
    **Without group labels.** Best of all, a jury of views sees all samples once, before the
    search, and what it found is carried into folds that are stratified by it::

        X = ViewJury(clean=None, random_state=0).fit_transform(X, y)
        cv = EveryGroupKFold(4, shuffle=True, random_state=0)
        scorer = make_worst_group_scorer(mean_over_classes=True)
        search = GridSearchCV(clf, grid, scoring=scorer, cv=cv).fit(X, y)

    Its sides are out of fold: the models of the views have not seen the sample, and without the
    clean sample no model's errors are in them. Where ``X`` carries nothing, the scorer fits such
    a jury on the samples that it is asked to score, once for each fold, which is less sure: a fold
    has few samples. The score is then the mean over the classes of the worst group of each, for
    the worst of several tiny groups is worst by chance. Over nine data sets with a shortcut the
    groups of views ranked candidates nearly as known groups do; accuracy, the worst class and the
    groups of the candidates themselves misled on most. On a shortcut that no view sees all of them
    mislead (docs/results/label_free_selection.md has the figures). Where views find nothing, the
    score is that of the worst class and a UserWarning says so.
    :func:`~skspurious.model_selection.selection_trust` says how far a search is to be trusted.

    With routing off, ``GridSearchCV(...).fit(X, y, sample_group=g)`` gives the groups to ``fit``
    and not to the scorer; carry them in ``GroupedData(X, g)``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from skspurious import GroupedData
    >>> from skspurious.metrics import make_worst_group_scorer
    >>> y, background = np.repeat([0, 1], 20), np.tile(["field", "field", "field", "lake"], 10)
    >>> X = np.where(background == "field", y, 1 - y).reshape(-1, 1)
    >>> scorer = make_worst_group_scorer("balanced_accuracy")
    >>> cross_val_score(LogisticRegression(), GroupedData(X, background), y, scoring=scorer, cv=2)
    array([0., 0.])
    """
    if isinstance(metric, str):
        metric = metric.removeprefix("neg_")
    return _WorstGroupScorer(
        metric,
        group_inferrer=group_inferrer,
        mean_over_classes=mean_over_classes,
        greater_is_better=greater_is_better,
        response_method=response_method,
        groups=groups,
        empty=empty,
        **metric_params,
    )


#: Scorer of the worst-group accuracy: ``GridSearchCV(..., scoring=worst_group_scorer)``.
worst_group_scorer = make_worst_group_scorer()


def _by_class(y, *values):
    """For each class its labels, and the rows of the values."""
    y = np.asarray(y)
    for label in np.unique(y):
        yield tuple(None if v is None else np.asarray(v)[y == label] for v in (y, *values))


def _check_no_labels_lost(estimator):
    """Raise where the classifier was fitted with group labels and the scorer has none."""
    last = last_step(getattr(estimator, "best_estimator_", estimator))
    if getattr(last, "used_group_labels_", {}).get("train"):
        raise ValueError(
            f"{type(last).__name__} was fitted with group labels and the scorer was given none. "
            "Carry them in GroupedData(X, sample_group), which reaches both; or "
            "sklearn.set_config(enable_metadata_routing=True): search.fit(X, y, sample_group=...) "
            "without routing gives them to fit and not to the scorer. Searches turn this error "
            "into NaN: pass error_score='raise' to see it there."
        )


def _columns_of(estimator):
    """The columns of X whose names ``fit`` was given as groups."""
    fitted = getattr(estimator, "best_estimator_", estimator)
    return getattr(fitted, "_group_columns", None) or getattr(
        last_step(fitted), "_group_columns", ()
    )


def _is_own(group_inferrer):
    """Whether the estimator's own inferrer is asked."""
    return isinstance(group_inferrer, str) and group_inferrer == "estimator"


def _is_unfitted(inferrer):
    """Whether this is an inferrer that is still to be fitted."""
    try:
        check_is_fitted(inferrer)
    except NotFittedError:
        return hasattr(last_step(inferrer), "infer_groups")
    return False


def _respond(estimator, X, response_method):
    """Output of the first response method that the estimator has."""
    names = (response_method,) if isinstance(response_method, str) else tuple(response_method)
    for name in names:
        method = getattr(estimator, name, None)
        if method is not None:
            return np.asarray(method(X))
    raise AttributeError(
        f"{type(estimator).__name__} has none of {list(names)}, which the metric needs; choose "
        "another metric or pass response_method=."
    )
