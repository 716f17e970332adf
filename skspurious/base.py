"""BaseTorchClassifier: the skeleton of fit and predict."""

import copy
from abc import ABCMeta

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._prediction import read_logits
from skspurious._preparation import read_input, warn_about_dropped_groups
from skspurious._shared import TrainingParameters
from skspurious._training import Trained, begin_fit, history_frame, run_stage
from skspurious.data import resolve_groups, unpack_groups
from skspurious.data._group_columns import without_columns
from skspurious.data._grouped import take_group_columns, take_named_groups
from skspurious.data._sources import steps_of
from skspurious.utils._fitting import _fit_context
from skspurious.utils._parameters import extends
from skspurious.utils._rows import as_labels


@extends(TrainingParameters)
class BaseTorchClassifier(ClassifierMixin, TrainingParameters, metaclass=ABCMeta):
    """Base of the classifiers that train a torch network.

    ``fit`` checks and encodes (``_preparation.py``), builds the network, trains it by the
    method's ``_train`` (``_training.py``), and then sets what was learned. A method of one stage
    supplies a loss, a sampler, or both: ``_make_objective`` and ``_make_sampler``.

    Parameters
    ----------
    shared parameters

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    module_ : nn.Module
        The fitted network, in evaluation mode.
    groups_ : ndarray of shape (n_groups,)
        Values of the groups; empty where there are none.
    group_inferrer_ : estimator or None
        The fitted ``group_inferrer``, or the one that inferred the groups carried by ``X``.
    history_ : DataFrame
        One row per epoch: losses and accuracies (also of each group), learning rate, seconds.
    used_group_labels_ : dict
        Whether known groups of the "train" samples and of the "validation" samples were used.
        A function that chose the inferrer's epoch counts as the latter: it may look at groups.
    best_epoch_ : int or None
        Epoch, from 1, whose network was kept; None without validation.
    train_indices_ : ndarray of int
        Rows of ``X`` that were trained on, sorted.
    validation_indices_ : ndarray of int
        Rows of ``X`` that were kept aside for validation, sorted; empty where none were.
    n_features_in_ : int
        Number of features of a table, or of channels of images.

    Examples
    --------
    >>> from skspurious.extend import BaseTorchClassifier, WeightedLoss
    >>> class SecondClassFirst(BaseTorchClassifier):
    ...     "Plain training in which samples of the second class count three times as much."
    ...     def _make_objective(self, data):
    ...         return WeightedLoss([0.5, 1.5], by="class")
    >>> SecondClassFirst(max_epochs=2).fit([[0.0], [1.0]], ["a", "b"]).classes_
    array(['a', 'b'], dtype='<U1')
    """

    # Routing works without set_fit_request; never needed by predict.
    __metadata_request__fit = {
        "sample_group": True,
        "X_val": True,
        "y_val": True,
        "sample_group_val": True,
    }
    __metadata_request__score = {"sample_group": True}

    _group_columns = ()  # of a DataFrame X, when their names are given as the groups

    def __init__(self, module=None, **shared):
        super().__init__(module, **shared)

    # ----------------------------------------------------------------------------------
    # What a method supplies

    def _make_objective(self, data):
        """The loss of the method; ``data`` is a FitData."""
        return Objective()

    def _make_sampler(self, data, seed):
        """The sampler of the method."""
        return UniformSampler(len(data.train), seed=seed)

    def _learned(self, data, objective, sampler):
        """Learned attributes of a method of one stage, by name."""
        return {}

    def _train(self, module, data, runtime, seeds):
        """What the method makes of the initial network, its own to change: a Trained."""
        objective, sampler = self._make_objective(data), self._make_sampler(data, seeds[0])
        stage = Stage("", objective, sampler, seed=seeds[1])
        result = run_stage(self, module, stage, data.train, data.valid, runtime)
        learned = self._learned(data, result.objective, sampler)
        return Trained(module, result.history, result.best_epoch, learned)

    def _make_group_inferrer(self):
        """The inferrer to fit on X, or None."""
        return self.group_inferrer

    # ----------------------------------------------------------------------------------
    # Fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X,
        y,
        *,
        sample_group=None,
        sample_weight=None,
        X_val=None,
        y_val=None,
        sample_group_val=None,
    ):
        """Train the network.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            The training samples. Tables of numbers become float32; tensors keep their type, except
            for a linear head, which takes float32.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, any hashable values; several columns are crossed. Of a DataFrame
            X the name of a column, or a list of names: it is then no feature, and predicting
            needs no such column.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.
        X_val : same kinds as X, default=None
            Validation samples, looked at after each epoch.
        y_val : array-like of shape (n_val,), default=None
            Class labels of the validation samples.
        sample_group_val : array-like of shape (n_val,) or (n_val, n_attributes), default=None
            Groups of the validation samples. None takes those that ``group_inferrer`` infers, if
            it was fitted, and otherwise those that ``X_val`` carries.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If lengths differ, groups are needed and missing, the network does not fit the
            classes, or training diverges.
        """
        return self._fit(
            X,
            y,
            sample_group=sample_group,
            sample_weight=sample_weight,
            X_val=X_val,
            y_val=y_val,
            sample_group_val=sample_group_val,
        )

    def _fit(self, X, y, *, of_method=None, **given):
        """Prepare, train, and only then learn; ``of_method`` is for the method's ``_train``."""
        X, columns, given = take_named_groups(X, **given)
        inferrer = self._make_group_inferrer()
        runtime, data, module, seeds = begin_fit(self, X, y, group_inferrer=inferrer, **given)
        trained = self._train(module, data, runtime, seeds, **(of_method or {}))
        self._learn(data, trained)
        self._group_columns = columns
        return self

    def _learn(self, data, trained):
        """Set all learned attributes, those of an earlier fit replaced."""
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
        learned = {
            "classes_": data.classes,
            "groups_": data.groups,
            "group_inferrer_": data.group_inferrer,
            "used_group_labels_": data.used_group_labels,
            "train_indices_": data.train.rows,
            "validation_indices_": data.valid.rows if data.is_split else np.arange(0),
            "module_": trained.module,
            "best_epoch_": trained.best_epoch,
            "_description": data.description,
            "_valid_groups": data.valid_groups,
            **data.input_attributes,
            **trained.learned,
        }
        used = dict(learned["used_group_labels_"])
        used["validation"] |= _epoch_chosen_by_function(learned["group_inferrer_"])
        learned["used_group_labels_"] = used
        learned["history_"] = history_frame(
            trained.history, learned["groups_"], learned.pop("_valid_groups")
        )
        vars(self).update(learned)

    # ----------------------------------------------------------------------------------
    # Predict

    def _samples(self, X):
        """Samples of any X, without the groups that it carries."""
        samples = without_columns(unpack_groups(X)[0], self._group_columns)
        return read_input(self, samples, self._description)

    def decision_function(self, X):
        """Logits, or for two classes the logit of the second minus that of the first.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to predict.

        Returns
        -------
        decision : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        check_is_fitted(self)
        logits = read_logits(self, self._samples(X), Runtime(self.device, self.precision))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """Class probabilities.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to predict.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        decision = self.decision_function(X)
        if decision.ndim == 1:
            return np.column_stack([expit(-decision), expit(decision)])
        return softmax(decision, axis=1)

    def predict(self, X):
        """Class labels; needs no groups.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to predict.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        logits = read_logits(self, self._samples(X), Runtime(self.device, self.precision))
        return self.classes_[logits.argmax(axis=1)]

    def score(self, X, y, *, sample_group=None, sample_weight=None):
        """Worst-group accuracy where groups are given or carried by X, otherwise accuracy.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to predict; a GroupedData carries their groups.
        y : array-like of shape (n_samples,)
            True class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, or names of columns of a DataFrame. None takes those that ``X``
            carries, or the columns that ``fit`` was given.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample within its group.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        X, sample_group, _ = take_group_columns(X, sample_group, fitted=self._group_columns)
        from skspurious.metrics import worst_group_accuracy
        from skspurious.metrics._checks import check_weight

        group = resolve_groups(X, y, sample_group=sample_group).sample_group
        if group is None:
            warn_about_dropped_groups(self, "this score is plain accuracy")
            y = as_labels(y, "y")
            weight = None if sample_weight is None else check_weight(sample_weight, len(y))
            return super().score(unpack_groups(X)[0], y, sample_weight=weight)

        return worst_group_accuracy(
            y, self.predict(X), sample_group=group, sample_weight=sample_weight
        )

    def infer_groups(self, X, y):
        """Groups of new rows, by the inferrer that was fitted.

        Parameters
        ----------
        X : same kinds as in ``fit``
            The new rows.
        y : array-like of shape (n_samples,)
            Class labels: inferred groups are nested in classes.

        Returns
        -------
        sample_group : ndarray of shape (n_samples,)

        Raises
        ------
        ValueError
            If the classifier was fitted without an inferrer.
        """
        check_is_fitted(self)
        if self.group_inferrer_ is None:
            raise ValueError(
                f"this {type(self).__name__} was fitted without a group_inferrer, so it cannot "
                "infer the groups of new rows. Pass group_inferrer= to its constructor."
            )
        return resolve_groups(X, y, group_inferrer=self.group_inferrer_).sample_group

    # ----------------------------------------------------------------------------------

    def __getstate__(self):
        state = super().__getstate__()
        if "module_" in state:  # a file written on a GPU opens on a machine without one
            state = {**state, "module_": copy.deepcopy(state["module_"]).cpu()}
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags


def _epoch_chosen_by_function(group_inferrer):
    """Whether a user's function chose an epoch for the inferrer: it may look at group labels."""
    return any(callable(getattr(step, "epoch_selector", None)) for step in steps_of(group_inferrer))
