"""Pipeline: scikit-learn's, carrying groups and validation samples through every step."""

import inspect

import sklearn.pipeline
from sklearn import get_config
from sklearn.base import clone
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, check_memory

from skspurious.data import GroupedData, infer_groups, unpack_groups
from skspurious.data._group_columns import without_columns
from skspurious.data._grouped import (
    take_group_columns,
    take_named_groups,
    without_groups,
    wrap_like,
)
from skspurious.data._sources import is_group_inferrer, known_for
from skspurious.utils._fitting import _fit_context, restored_on_failure
from skspurious.utils._rows import check_is_rows
from skspurious.utils._sklearn_compat import _print_elapsed_time

__all__ = ["Pipeline", "make_pipeline"]


def _last_has(*names):
    """Whether the last step has one of these methods; where it is left out, X passes through."""

    def check(self):
        last = self.steps[-1][1]
        if _is_left_out(last) and "transform" in names:
            return True
        if not any(hasattr(last, name) for name in names):
            getattr(last, names[0])  # whose AttributeError names the class and the method
        return True

    return check


def _is_left_out(step):
    return step is None or step == "passthrough"


class Pipeline(sklearn.pipeline.Pipeline):
    """scikit-learn's Pipeline, in which groups and validation samples reach the last step.

    A transformer of scikit-learn makes an array of what it gets, so the groups that a
    :class:`~skspurious.GroupedData` carries would end there; and it never sees the validation
    samples, which would reach the last step as they are. Here every transformer is given the
    samples alone, what it returns carries the groups again, and ``X_val`` goes through the same
    transformers.

    .. versionadded:: 0.1

    Parameters
    ----------
    steps : list of (str, estimator)
        Names and estimators. All but the last are transformers.
    transform_input : list of str, default=None
        Names of further arguments of the last step's ``fit`` that are transformed like ``X``;
        ``X_val`` always is. Needs metadata routing, as in scikit-learn.
    memory : str or object with the joblib.Memory interface, default=None
        Where fitted transformers are cached.
    verbose : bool, default=False
        Whether to print how long each step took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels of the last step, where it has them.
    n_features_in_ : int
        Number of features of the first step, where it has it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features of the first step, where it has them.

    See Also
    --------
    make_pipeline : Names the steps by their classes.

    Notes
    -----
    ``fit`` takes groups from the first of these sources that there is: ``sample_group=``; a
    ``SpuriousGroupInferrer`` among the steps; ``X``, if it carries them. ``score`` uses the groups
    that ``X`` carries. A ``sample_attribute`` that ``X`` carries reaches an inferrer among the
    steps that takes it, and the ``group_inferrer`` of the last step.

    ``sample_group``, ``X_val``, ``y_val`` and ``sample_group_val`` are for the last step. Other
    arguments of steps are named as in scikit-learn, ``step__argument``; with metadata routing
    they are routed.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skspurious import GroupDROClassifier, GroupedData
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.pipeline import make_pipeline
    >>> train = make_spurious_classification(300, random_state=0)
    >>> model = make_pipeline(StandardScaler(), GroupDROClassifier(random_state=0))
    >>> model = model.fit(GroupedData(train.data, train.sample_group), train.target)
    >>> model[-1].groups_
    array([0, 1, 2, 3])
    """

    _carries_groups = True  # what is missing in a step was not dropped by a step before
    _group_columns = ()  # of a DataFrame X, when their names are given as the groups

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X,
        y=None,
        *,
        sample_group=None,
        X_val=None,
        y_val=None,
        sample_group_val=None,
        **params,
    ):
        """Fit the transformers one after the other, and then the last step.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
            The training samples.
        y : array-like of shape (n_samples,), default=None
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, for the last step; of a DataFrame also the name of a column, or a
            list of names, which no step sees.
        X_val : same kinds as X, default=None
            Validation samples; they are transformed as X is, and go to the last step.
        y_val : array-like of shape (n_val,), default=None
            Class labels of the validation samples.
        sample_group_val : array-like of shape (n_val,) or (n_val, n_attributes), default=None
            Groups of the validation samples.
        **params : dict
            Further arguments of the steps: ``step__argument``, or routed.

        Returns
        -------
        self : Pipeline

        Raises
        ------
        TypeError
            If the last step takes no groups or no validation samples and some are given.
        """
        X, columns, given = take_named_groups(
            X,
            sample_group=sample_group,
            X_val=X_val,
            y_val=y_val,
            sample_group_val=sample_group_val,
        )
        given = {name: value for name, value in given.items() if value is not None}
        with restored_on_failure(self):
            X, of_last = self._fit_transformers(X, y, given, params)
            last = self.steps[-1][1]
            if not _is_left_out(last):
                with _print_elapsed_time("Pipeline", self._log_message(len(self.steps) - 1)):
                    last.fit(_for_last(last, X), y, **of_last)
        self._group_columns = columns
        return self

    @available_if(_last_has("fit_transform", "transform"))
    def fit_transform(self, X, y=None, **params):
        """Fit all steps, and transform the samples.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        y : array-like of shape (n_samples,), default=None
        **params : dict
            Further arguments of the steps: ``step__argument``, or routed.

        Returns
        -------
        Z : what the last step returns; GroupedData where there are groups
        """
        with restored_on_failure(self):
            X, of_last = self._fit_transformers(X, y, {}, params)
            _, last = self.steps[-1]
            if _is_left_out(last):
                return X
            if hasattr(last, "fit_transform"):
                return _carry(X, lambda data: last.fit_transform(data, y, **of_last))
            return _carry(X, lambda data: last.fit(data, y, **of_last).transform(data))

    def _fit_transformers(self, X, y, given, params):
        """The transformed X, and the arguments of the last step, transformed where they must be."""
        self.steps = list(self.steps)
        self._validate_steps()
        last_name, last = self.steps[-1]
        _check_takes(last, given)
        arguments = self._arguments_of_steps(given, params)
        of_last = arguments.get(last_name, {})
        names = {"X_val", *(self.transform_input or ())}
        carried = {name: of_last[name] for name in names & set(of_last)}
        cache = check_memory(self.memory).cache(_fit_and_transform)
        for i, (name, step) in enumerate(self.steps[:-1]):
            if _is_left_out(step):
                continue
            step = clone(step) if self.memory is not None else step
            with _print_elapsed_time("Pipeline", self._log_message(i)):
                X, step = cache(step, X, y, arguments.get(name, {}))
            self.steps[i] = name, step
            if is_group_inferrer(
                step
            ):  # its groups are for the fit; those carried are for the score
                carried = {k: without_groups(v) for k, v in carried.items()}
            carried = {k: _carry(v, step.transform) for k, v in carried.items()}
        return X, {**of_last, **carried}

    def _arguments_of_steps(self, given, params):
        """Arguments of each step's ``fit``, by its name."""
        if not given and not params:
            return {}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **given, **params)
            names = [name for name, _ in self.steps]
            return {
                name: {**routed[name].get("fit", {}), **routed[name].get("fit_transform", {})}
                for name in names
                if name in routed
            }
        arguments = {self.steps[-1][0]: dict(given)}
        steps = dict(self.steps)
        for key, value in params.items():
            name, separator, argument = key.partition("__")
            if not separator or name not in steps:
                raise ValueError(
                    f"Pipeline.fit has no argument {key!r}. An argument of a step is passed as "
                    f"step__argument; the steps are {list(steps)}."
                )
            arguments.setdefault(name, {})[argument] = value
        return arguments

    # ----------------------------------------------------------------------------------

    def _call_last(self, method, X, *args, params):
        """Call a method of the last step on the transformed X."""
        check_is_fitted(self)
        if method == "score":
            given = params.pop("sample_group", None)
            X, group, _ = take_group_columns(X, given, fitted=self._group_columns)
            params = params if group is None else {**params, "sample_group": group}
        X = wrap_like(without_columns(unpack_groups(X)[0], self._group_columns), X)
        routed = None
        if params and get_config()["enable_metadata_routing"]:
            routed = process_routing(self, method, **params)
            params = routed[self.steps[-1][0]][method]
        for name, step in self.steps[:-1]:
            if not _is_left_out(step):
                own = {} if routed is None else routed[name]["transform"]
                X = _carry(X, lambda data, step=step, own=own: step.transform(data, **own))
        last = self.steps[-1][1]
        if _is_left_out(last):
            return X
        if method == "transform":
            return _carry(X, lambda data: last.transform(data, **params))
        return getattr(last, method)(_for_last(last, X), *args, **params)

    @available_if(_last_has("predict"))
    def predict(self, X, **params):
        """Transform the samples, and predict their classes by the last step.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        **params : dict
            Further arguments of the last step's ``predict``.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return self._call_last("predict", X, params=params)

    @available_if(_last_has("predict_proba"))
    def predict_proba(self, X, **params):
        """Transform the samples, and give class probabilities by the last step.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        **params : dict
            Further arguments of the last step's ``predict_proba``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return self._call_last("predict_proba", X, params=params)

    @available_if(_last_has("decision_function"))
    def decision_function(self, X, **params):
        """Transform the samples, and give the last step's decision function.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        **params : dict
            Further arguments of the last step's ``decision_function``.

        Returns
        -------
        decision : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        return self._call_last("decision_function", X, params=params)

    @available_if(_last_has("transform"))
    def transform(self, X, **params):
        """Transform the samples by all steps.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        **params : dict
            Arguments of the steps, routed.

        Returns
        -------
        Z : what the last step returns; GroupedData where X carries groups
        """
        return self._call_last("transform", X, params=params)

    @available_if(_last_has("score"))
    def score(self, X, y=None, sample_weight=None, **params):
        """Transform the samples, and give the last step's score.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
            Where it carries groups, a classifier of this package gives its worst-group accuracy.
        y : array-like of shape (n_samples,), default=None
        sample_weight : array-like of shape (n_samples,), default=None
        **params : dict
            Further arguments of the last step's ``score``, such as ``sample_group``.

        Returns
        -------
        score : float
        """
        if sample_weight is not None:
            params = {"sample_weight": sample_weight, **params}
        return self._call_last("score", X, y, params=dict(params))

    def infer_groups(self, X, y):
        """Groups of new rows, by the inferrer among the steps or in the last one.

        Parameters
        ----------
        X : whatever the first step takes, or GroupedData
        y : array-like of shape (n_samples,)
            Class labels: inferred groups are nested in classes.

        Returns
        -------
        sample_group : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If no step infers groups.
        """
        check_is_fitted(self)
        group = infer_groups(self, without_groups(X), y)[0]
        if group is None:
            raise ValueError(
                f"no step of {[name for name, _ in self.steps]} infers groups: use a "
                "SpuriousGroupInferrer as a step, or a classifier with group_inferrer=."
            )
        return group


def make_pipeline(*steps, memory=None, transform_input=None, verbose=False):
    """A :class:`Pipeline` of estimators, named by their classes.

    Parameters
    ----------
    *steps : estimators
        All but the last are transformers.
    memory : str or object with the joblib.Memory interface, default=None
        Where fitted transformers are cached.
    transform_input : list of str, default=None
        Names of further arguments of the last step's ``fit`` that are transformed like ``X``.
    verbose : bool, default=False
        Whether to print how long each step took.

    Returns
    -------
    pipeline : Pipeline

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skspurious import ERMClassifier
    >>> from skspurious.pipeline import make_pipeline
    >>> [name for name, _ in make_pipeline(StandardScaler(), ERMClassifier()).steps]
    ['standardscaler', 'ermclassifier']
    """
    named = sklearn.pipeline.make_pipeline(*steps).steps
    return Pipeline(named, memory=memory, transform_input=transform_input, verbose=verbose)


def _fit_and_transform(step, X, y, arguments):
    """What a step makes of samples that may carry groups, and the fitted step."""

    if hasattr(step, "infer_groups") and "sample_attribute" not in arguments:
        arguments = {**arguments, **known_for(step, X)}

    def transform(data):
        if hasattr(step, "fit_transform"):
            return step.fit_transform(data, y, **arguments)
        return step.fit(data, y, **arguments).transform(data)

    return _carry(X, transform), step


def _carry(X, transform):
    """Transform the samples alone; the groups that come out, or else those that went in, stay."""
    samples = unpack_groups(X)[0]
    check_is_rows(samples, "X")
    Z = transform(samples)
    return Z if isinstance(Z, GroupedData) else wrap_like(Z, X)


def _for_last(last, X):
    """Samples for the last step, with their groups where it can have a use for them."""
    uses_groups = "sample_group" in inspect.signature(last.fit).parameters
    holds_another = hasattr(last, "estimator") or isinstance(last, sklearn.pipeline.Pipeline)
    if uses_groups or holds_another or hasattr(last, "infer_groups"):
        return X
    return unpack_groups(X)[0]


def _check_takes(last, given):
    """Raise where the last step has no use for what is given."""
    accepted = inspect.signature(last.fit).parameters if hasattr(last, "fit") else {}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in getattr(accepted, "values", list)())
    refused = [name for name in given if name not in accepted]
    if refused and not takes_all:
        raise TypeError(
            f"{type(last).__name__}, the last step, takes no {', '.join(refused)} in fit. Leave "
            "them out, or end the Pipeline in a classifier of skspurious."
        )
