"""SpuriousSamplePruner: drop the samples that are hardest to learn."""

import functools
from numbers import Integral, Real

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skspurious._shared import TrainingParameters
from skspurious._training import begin_fit, check_module, loop_config
from skspurious.data import GroupedData, unpack_groups
from skspurious.data._grouped import carried_attribute, take_group_columns
from skspurious.data._sources import last_step
from skspurious.functional._difficulty import select_kept, split_difficulty
from skspurious.mitigation._pruner_scores import score_samples
from skspurious.utils._fitting import _fit_context
from skspurious.utils._parameters import extends
from skspurious.utils._rows import as_column
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn

# Shared parameters without a meaning where nothing is validated.
_NOT_IN_SCORING = (
    "early_stopping",
    "monitor",
    "n_epochs_no_change",
    "validation_fraction",
)
PRUNING_CONSTRAINTS = {
    "difficulty": [StrOptions({"el2n", "loss", "margin", "grand", "grand_last", "forgetting"})],
    "score_epochs": [Interval(Integral, 1, None, closed="left"), tuple, list],
    "n_runs": [Interval(Integral, 1, None, closed="left")],
    "prune_fraction": [Interval(Real, 0, 1, closed="left")],
    "scope": [StrOptions({"class", "carriers", "global"})],
    "order": [StrOptions({"hardest", "easiest", "random"})],
    "on_identifiable": [StrOptions({"warn", "raise", "infer", "ignore"})],
    "identifiable_silhouette": [Interval(Real, -1, 1, closed="both")],
}
_MIN_HARD = 5  # fewer hard samples of a class are outliers, not a group


@extends(TrainingParameters, without=_NOT_IN_SCORING)
class SpuriousSamplePruner(TrainingParameters):
    """Scores how hard each training sample is to learn, and drops the hardest [1]_.

    A network learns a spurious feature that few samples of a class have only where their core
    features are hard to learn. Without those samples it has no reason to. Which samples have the
    feature need not be known: those whose core features are hard to learn are among the hardest.

    .. versionadded:: 0.1

    Parameters
    ----------
    difficulty : {"el2n", "loss", "margin", "grand", "grand_last", "forgetting"}, default="el2n"
        How samples are scored. "el2n" is the norm of the error of the class probabilities [2]_,
        "loss" the cross-entropy, "margin" the largest other logit minus the label's, "grand"
        the norm of the sample's gradient, "grand_last" that in the last linear layer,
        "forgetting" how often the sample was right after one epoch and wrong after the next [3]_.
    score_epochs : int or tuple of int, default=10
        Number of completed epochs after which samples are scored; the mean of several.
    n_runs : int, default=1
        Networks whose scores are averaged. An instance as ``module`` gives all of them the same
        initial weights; a class, a name or None gives each its own.
    prune_fraction : float, default=0.1
        Share of the samples that is pruned, rounded up: of each class, of the carriers of each
        class, or of all samples, as ``scope`` says.
    scope : {"class", "carriers", "global"}, default="class"
        What the share is taken of: every class; the carriers of the spurious feature in every
        class; or all samples together. Carriers are given to ``fit`` as a mask, or are the largest
        group of each class: the majority attribute.
    order : {"hardest", "easiest", "random"}, default="hardest"
        What is pruned first; the others are controls.
    on_identifiable : {"warn", "raise", "infer", "ignore"}, default="warn"
        What to do where the hardest samples of a class look like its minority group, which
        ``scope="class"`` and "global" would prune: see Notes. "infer" prunes carriers: the
        largest group of each class where groups are given or inferred, otherwise the larger
        cluster of difficulty.
    identifiable_silhouette : float, default=0.9
        Silhouette above which two clusters of difficulty count as groups.
    shared parameters

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Difficulty of every sample, in the order of ``X``: the mean over runs.
    run_scores_ : ndarray of shape (n_runs, n_samples)
        Difficulty in every run, the mean over the epochs.
    keep_mask_ : ndarray of shape (n_samples,), bool
        Which rows of ``X`` are kept.
    kept_indices_ : ndarray of int
        Rows of ``X`` that are kept, sorted.
    pruned_indices_ : ndarray of int
        Rows of ``X`` that are pruned, sorted.
    carriers_ : ndarray of shape (n_samples,), bool, or None
        The samples that the share was taken of; None where it was all of them.
    difficulty_clusters_ : DataFrame or None
        How well easy and hard samples of each class separate early in training: class, epoch,
        silhouette, n_hard, looks_identifiable. None where this was not checked.
    history_ : DataFrame
        One row per run and epoch of the training that scores.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    groups_ : ndarray of shape (n_groups,)
        Values of the groups; empty where there are none.
    group_inferrer_ : estimator or None
        The fitted ``group_inferrer``, or the one that inferred the groups carried by ``X``.
    used_group_labels_ : dict
        Whether known groups of the "train" samples and of the "validation" samples were used.
    n_features_in_ : int
        Number of features of a table, or of channels of images.

    See Also
    --------
    PrunedRetrainer : Prunes and retrains in one ``fit``.
    BalancedRetrainer : Keeps a subset with equally many samples of each group.

    Notes
    -----
    Needs group labels neither in training nor in validation, ``scope="carriers"`` excepted. Costs
    ``n_runs`` trainings up to the last of ``score_epochs``, and one more pass for each epoch at
    which samples are looked at. ``max_epochs`` is the length of the whole training, of which this
    is the beginning: it matters to an ``lr_schedule`` alone.

    Samples are scored in evaluation mode with ``eval_transform``; the training does not notice.

    Hard samples are not always the right ones. Where a spurious feature is strong, it decides
    what is hard: the samples without it, the minority group, which must be kept. So with
    ``order="hardest"`` the EL2N of each class is split by 2-means after epochs 1, 2, 4, 8, ...;
    two tight clusters (mean silhouette of the clusters above ``identifiable_silhouette``), the
    harder one the smaller, look like groups. Mislabelled samples look the same, and so do the
    errors of a network that is certain of everything. The check, the mean over runs and the choice
    of carriers from groups are ours.

    References
    ----------
    .. [1] V. Mulchandani, J.-E. Kim, "Severing Spurious Correlations with Data Pruning",
       ICLR 2025. arXiv:2503.18258. Code: JEKimLab/ICLR2025_SpuriousDataPruning at 2ca9cb5.
    .. [2] M. Paul, S. Ganguli, G. K. Dziugaite, "Deep Learning on a Data Diet: Finding Important
       Examples Early in Training", NeurIPS 2021. arXiv:2107.07075.
    .. [3] M. Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network
       Learning", ICLR 2019. arXiv:1812.05159.

    Examples
    --------
    >>> from skspurious import SpuriousSamplePruner
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(400, correlation_strength=0.5, random_state=0)
    >>> pruner = SpuriousSamplePruner(score_epochs=3, prune_fraction=0.2, random_state=0)
    >>> X, y = pruner.fit_resample(train.data, train.target)
    >>> X.shape, len(pruner.pruned_indices_)
    ((320, 8), 80)
    """

    __metadata_request__fit = {"sample_group": True, "carriers": True}

    _parameter_constraints: dict = {
        **{
            name: constraint
            for name, constraint in TrainingParameters._parameter_constraints.items()
            if name not in _NOT_IN_SCORING
        },
        **PRUNING_CONSTRAINTS,
    }

    def __init__(
        self,
        module=None,
        *,
        difficulty="el2n",
        score_epochs=10,
        n_runs=1,
        prune_fraction=0.1,
        scope="class",
        order="hardest",
        on_identifiable="warn",
        identifiable_silhouette=0.9,
        **shared,
    ):
        super().__init__(module, **shared)
        self.difficulty = difficulty
        self.score_epochs = score_epochs
        self.n_runs = n_runs
        self.prune_fraction = prune_fraction
        self.scope = scope
        self.order = order
        self.on_identifiable = on_identifiable
        self.identifiable_silhouette = identifiable_silhouette

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, sample_group=None, carriers=None):
        """Score the samples, and choose those to keep.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            The training samples.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample; ``scope="carriers"`` prunes the largest group of each class.
        carriers : array-like of shape (n_samples,), bool, default=None
            Which samples have the spurious feature, for ``scope="carriers"``.

        Returns
        -------
        self : SpuriousSamplePruner
        """
        X, sample_group, _ = take_group_columns(X, sample_group)
        runtime, data, module, seeds = begin_fit(
            self, X, y, group_inferrer=self.group_inferrer, sample_group=sample_group
        )
        callbacks = loop_config(self, data.train).callbacks
        self._learn(self, data, module, runtime, seeds, carriers, callbacks)
        return self

    def fit_resample(self, X, y, *, sample_group=None, carriers=None):
        """Score the samples, and return those to keep.

        Parameters
        ----------
        X : same kinds as in ``fit``
            The training samples.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample.
        carriers : array-like of shape (n_samples,), bool, default=None
            Which samples have the spurious feature, for ``scope="carriers"``.

        Returns
        -------
        X : the kept rows, of the same kind; GroupedData where groups are given or inferred
        y : their labels
        """
        self.fit(X, y, sample_group=sample_group, carriers=carriers)
        attribute = carried_attribute(X)
        X, group, inferrer = unpack_groups(X, sample_group)
        if sample_group is None and self.group_inferrer is not None:
            inferrer = self.group_inferrer_
            group = last_step(inferrer).labels_
        all_rows = GroupedData(X, group, sample_attribute=attribute, group_inferrer=inferrer)
        kept = all_rows[self.kept_indices_]
        is_bare = group is None and attribute is None
        return kept.data if is_bare else kept, GroupedData(y)[self.kept_indices_].data

    def select(self, prune_fraction=None, *, order=None):
        """Which samples are kept at another fraction or in another order, by the same scores.

        Parameters
        ----------
        prune_fraction : float, default=None
            None takes the constructor's.
        order : {"hardest", "easiest", "random"}, default=None
            None takes the constructor's.

        Returns
        -------
        keep : ndarray of shape (n_samples,), bool

        Raises
        ------
        ValueError
            If a class would lose all of its samples.
        """
        check_is_fitted(self)
        fraction = self.prune_fraction if prune_fraction is None else prune_fraction
        rows = self._rows
        kept = select_kept(
            self.scores_[rows],
            fraction,
            stratum=self._stratum,
            order=self.order if order is None else order,
            random_state=self._order_seed,
        )
        left = np.bincount(self._label[kept], minlength=len(self.classes_))
        if (left == 0).any():
            gone = self.classes_[np.flatnonzero(left == 0)[:5]].tolist()
            raise ValueError(
                f"prune_fraction={fraction} leaves no sample of the classes {gone}. Lower it"
                + (", or use scope='class'." if self.scope == "global" else ".")
            )
        keep = np.zeros(len(self.scores_), dtype=bool)
        keep[rows] = kept
        return keep

    def _keep(self, fraction):
        """Set what is kept at a fraction."""
        self.keep_mask_ = self.select(fraction)
        self.kept_indices_ = np.flatnonzero(self.keep_mask_)
        self.pruned_indices_ = self._rows[~self.keep_mask_[self._rows]]

    # ----------------------------------------------------------------------------------

    def _learn(self, trainer, data, module, runtime, seeds, carriers, callbacks=()):
        """Score by networks that are trained as ``trainer`` says, and keep some samples."""
        self._label, self._rows = data.train.y.numpy().copy(), data.train.rows
        self._order_seed = seeds[0]
        self.classes_, self.groups_ = data.classes, data.groups
        self.group_inferrer_ = data.group_inferrer
        self.used_group_labels_ = dict(data.used_group_labels)
        if carriers is not None:
            self.used_group_labels_["train"] = True
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
        vars(self).update(data.input_attributes)
        carriers = self._carriers(carriers, data)
        epochs = _check_epochs(self.score_epochs)
        checks = self._checked_epochs(max(epochs))
        scores = score_samples(
            trainer,
            data,
            functools.partial(_another_start, trainer, data, module, runtime, seeds),
            runtime,
            difficulty=self.difficulty,
            epochs=epochs,
            n_runs=self.n_runs,
            checks=checks,
            callbacks=callbacks,
        )
        self.run_scores_ = np.stack([data.on_rows(run, np.nan) for run in scores.run_scores])
        self.scores_ = self.run_scores_.mean(axis=0)
        self.history_ = scores.history
        self.difficulty_clusters_ = None
        if checks:
            carriers = self._look_for_groups(scores.early, data, carriers)
        self.carriers_ = None if carriers is None else data.on_rows(carriers, False)
        self._stratum = np.zeros_like(self._label) if self.scope == "global" else self._label
        if carriers is not None:
            self._stratum = np.where(carriers, self._label, -1)
        self._keep(self.prune_fraction)

    def _carriers(self, carriers, data):
        """Which of the training samples may be pruned, or None for all."""
        n = data.n_samples
        if carriers is not None:
            carriers = column_or_1d(as_column(carriers, "carriers"))
            if self.scope != "carriers":
                raise ValueError(f"carriers= goes with scope='carriers'; scope={self.scope!r}.")
            if carriers.dtype != bool or len(carriers) != n:
                raise ValueError(
                    f"carriers must be one bool per sample: {n} of them; got {len(carriers)} of "
                    f"type {carriers.dtype}."
                )
            return carriers[data.train.rows]
        if self.scope != "carriers":
            return None
        if data.train.group is None:
            raise ValueError(
                "scope='carriers' must know which samples have the spurious feature. Give "
                "fit(..., carriers=mask), or groups, of which the largest of each class is taken: "
                "fit(..., sample_group=g), X as GroupedData(X, g), or group_inferrer=."
            )
        return _majority(data.train)

    def _checked_epochs(self, last):
        """Epochs after which the classes are searched for groups: 1, 2, 4, 8, ..."""
        is_needed = (
            self.order == "hardest"
            and self.scope != "carriers"
            and self.on_identifiable != "ignore"
            and self.prune_fraction != 0
        )
        return [2**i for i in range(last.bit_length())] if is_needed else []

    def _look_for_groups(self, early, data, carriers):
        """Warn, raise or restrict the pruning where hard samples look like minority groups."""
        rows, larger = [], np.ones(len(data.train), dtype=bool)
        for c, name in enumerate(self.classes_.tolist()):
            members = np.flatnonzero(self._label == c)
            best = None
            for epoch, score in early.items():
                split = split_difficulty(score[members])
                n_hard = int(split.is_hard.sum())
                is_found = (
                    split.silhouette > self.identifiable_silhouette
                    and _MIN_HARD <= n_hard < len(members) - n_hard
                )
                rows.append((name, epoch, split.silhouette, n_hard, is_found))
                if is_found and (best is None or split.silhouette > best.silhouette):
                    best = split
            if best is not None:
                larger[members] = ~best.is_hard
        columns = ["class", "epoch", "silhouette", "n_hard", "looks_identifiable"]
        self.difficulty_clusters_ = pd.DataFrame(rows, columns=columns)
        found = self.difficulty_clusters_[self.difficulty_clusters_["looks_identifiable"]]
        if len(found) == 0:
            return carriers
        if self.on_identifiable == "infer":
            return larger if data.train.group is None else _majority(data.train)
        worst = found.loc[found["silhouette"].idxmax()]
        message = (
            f"The data look identifiable: after {worst['epoch']} epochs the samples of class "
            f"{worst['class']} are either easy or hard ({worst['n_hard']} of them; silhouette "
            f"{worst['silhouette']:.2f}), as where the hard ones are a minority group. Pruning "
            "the hardest would remove it. Prune among the carriers of the spurious feature: "
            "scope='carriers' with carriers=, groups or a group_inferrer; or set "
            "on_identifiable='infer'. If the hard samples are no group, for instance mislabelled, "
            "set on_identifiable='ignore'."
        )
        if self.on_identifiable == "raise":
            raise ValueError(message)
        warn(message)
        return carriers

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags


def _another_start(trainer, data, module, runtime, seeds, run):
    """Network and seeds of a run; those of a further one follow from the run before."""
    if run == 0:
        return module, seeds
    for number in range(1, run + 1):
        rng = np.random.default_rng([seeds[0], number])
        *seeds, module_seed = rng.integers(2**31 - 1, size=3).tolist()
    module = trainer._initial_module(data, seed=module_seed)
    check_module(trainer, module, data, runtime)
    return module, seeds


def _majority(train):
    """Mask of the samples in the largest group of their class; the first of equally large ones."""
    y, group = train.y.numpy(), train.group.numpy()
    count = np.zeros((y.max() + 1, train.n_groups), dtype=np.int64)
    np.add.at(count, (y, group), 1)
    return group == count.argmax(axis=1)[y]


def _check_epochs(score_epochs):
    """Epochs as a sorted tuple."""
    epochs = sorted({score_epochs} if isinstance(score_epochs, Integral) else set(score_epochs))
    if not epochs or not all(isinstance(e, Integral) and e > 0 for e in epochs):
        raise ValueError(
            "score_epochs must be a number of completed epochs, 1 or more, or a tuple of them; "
            f"got {score_epochs!r}."
        )
    return tuple(int(e) for e in epochs)
