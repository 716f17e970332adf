"""Data pruning: drop the samples that are hardest to learn, and train anew on the rest."""

import copy
import functools
import inspect
import warnings
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skspurious._engine._callbacks import Callback
from skspurious._engine._loop import Objective, iterate_batches, place
from skspurious._engine._modules import forward, last_linear
from skspurious._engine._optimizers import make_schedule
from skspurious._engine._samplers import SubsetSampler, UniformSampler
from skspurious.base import BaseTorchClassifier, last_step
from skspurious.data import GroupedData, encode_groups, unpack_groups
from skspurious.functional._difficulty import (
    el2n,
    forgetting_counts,
    gradient_norms,
    last_layer_gradient_norms,
    loss_difficulty,
    margin_difficulty,
    select_kept,
    split_difficulty,
)
from skspurious.functional._metrics import group_means
from skspurious.utils._parameters import RESNET50, ModuleParametersMixin, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions, _fit_context

# Shared parameters without a meaning where nothing is validated and no run is resumed.
_NOT_IN_SCORING = (
    "checkpoint_dir",
    "early_stopping",
    "monitor",
    "n_epochs_no_change",
    "validation_fraction",
)
_SHARED = inspect.signature(BaseTorchClassifier.__init__).parameters
_TRAINING = {
    name: p.default
    for name, p in _SHARED.items()
    if name not in ("self", "module", *_NOT_IN_SCORING)
}
_PRUNING_CONSTRAINTS = {
    "difficulty": [StrOptions({"el2n", "loss", "margin", "grand", "grand_last", "forgetting"})],
    "score_epochs": [Interval(Integral, 1, None, closed="left"), tuple, list],
    "n_runs": [Interval(Integral, 1, None, closed="left")],
    "prune_fraction": [Interval(Real, 0, 1, closed="left")],
    "scope": [StrOptions({"class", "carriers", "global"})],
    "order": [StrOptions({"hardest", "easiest", "random"})],
    "on_identifiable": [StrOptions({"warn", "raise", "infer", "ignore"})],
    "identifiable_silhouette": [Interval(Real, -1, 1, closed="both")],
    "score_with_train_transform": ["boolean"],
}
_LOGIT_SCORES = {"el2n": el2n, "loss": loss_difficulty, "margin": margin_difficulty}
_MIN_HARD = 5  # fewer hard samples of a class are outliers, not a group


@extends(BaseTorchClassifier, without=_NOT_IN_SCORING)
class SpuriousSamplePruner(ModuleParametersMixin, BaseEstimator):
    """Scores how hard each training sample is to learn, and drops the hardest [1]_.

    A network learns a spurious feature that few samples of a class have only where their core
    features are hard to learn. Without those samples it has no reason to. Which samples have the
    feature need not be known: the hardest of the class have the hardest of them among them.

    .. versionadded:: 0.1

    Parameters
    ----------
    difficulty : {"el2n", "loss", "margin", "grand", "grand_last", "forgetting"}, default="el2n"
        Score of a sample. "el2n" is the norm of the error of the class probabilities [2]_,
        "loss" the cross-entropy, "margin" the best other logit minus that of the label, "grand"
        the norm of the sample's gradient, "grand_last" that in the last linear layer,
        "forgetting" how often the sample was right after one epoch and wrong after the next [3]_.
    score_epochs : int or tuple of int, default=10
        Number of completed epochs after which samples are scored; the mean of several.
    n_runs : int, default=1
        Networks whose scores are averaged. An instance as ``module`` gives all of them the same
        initial weights; a class, a name or None gives each its own.
    prune_fraction : float, default=0.1
        Share that is pruned, rounded up, of each class (of all samples, of the carriers of each
        class: see ``scope``).
    scope : {"class", "carriers", "global"}, default="class"
        What is pruned: of each class the same share; of the carriers of the spurious feature
        alone, class by class; or of all samples together. Carriers are given to ``fit`` as a
        mask, or are the largest group of each class: the majority attribute.
    order : {"hardest", "easiest", "random"}, default="hardest"
        What is pruned first; the others are controls.
    on_identifiable : {"warn", "raise", "infer", "ignore"}, default="warn"
        What to do where the hardest samples of a class look like its minority group, which
        ``scope="class"`` and "global" would prune: see Notes. "infer" prunes carriers: the
        largest group of each class where groups are given or inferred, otherwise the larger
        cluster of difficulty.
    identifiable_silhouette : float, default=0.9
        Silhouette above which two clusters of difficulty count as groups.
    score_with_train_transform : bool, default=False
        Score on augmented samples, as the authors' CIFAR-10 code does; scores are then noisy.
    shared parameters

    Attributes
    ----------
    scores_ : ndarray of shape (n_samples,)
        Difficulty of every sample, in the order of ``X``: the mean over runs.
    run_scores_ : ndarray of shape (n_runs, n_samples)
        Difficulty in every run, the mean over the epochs.
    keep_mask_ : ndarray of shape (n_samples,), bool
        Which samples are kept.
    kept_indices_ : ndarray of int
        Their row numbers, sorted.
    pruned_indices_ : ndarray of int
        Row numbers of the others, sorted.
    carriers_ : ndarray of shape (n_samples,), bool, or None
        The samples among which were pruned; None where all were.
    difficulty_clusters_ : DataFrame or None
        How well easy and hard samples of each class separate early in training: class, epoch,
        silhouette, n_hard, looks_identifiable. None where it was not looked at.
    history_ : DataFrame
        One row per run and epoch of the training that scores.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    groups_ : ndarray of shape (n_groups,)
        Values of the groups; empty where there are none.
    group_inferrer_ : estimator or None
        The fitted ``group_inferrer``, or the one that inferred the groups carried by ``X``.
    used_group_labels_ : dict
        Whether group labels were used: of "train" samples, of "validation" samples.
    n_features_in_ : int
        Number of features, or of channels.

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
            for name, constraint in BaseTorchClassifier._parameter_constraints.items()
            if name not in _NOT_IN_SCORING
        },
        **_PRUNING_CONSTRAINTS,
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
        score_with_train_transform=False,
        **shared,
    ):
        unknown = set(shared) - set(_TRAINING)
        if unknown:
            raise TypeError(f"SpuriousSamplePruner has no parameters {sorted(unknown)}.")
        self.module = module
        self.difficulty = difficulty
        self.score_epochs = score_epochs
        self.n_runs = n_runs
        self.prune_fraction = prune_fraction
        self.scope = scope
        self.order = order
        self.on_identifiable = on_identifiable
        self.identifiable_silhouette = identifiable_silhouette
        self.score_with_train_transform = score_with_train_transform
        for name, default in _TRAINING.items():
            setattr(self, name, shared.get(name, default))

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
            Group of each sample; with ``scope="carriers"`` the largest of each class is pruned.
        carriers : array-like of shape (n_samples,), bool, default=None
            Which samples have the spurious feature, for ``scope="carriers"``.

        Returns
        -------
        self : SpuriousSamplePruner
        """
        network = ScoringNetwork(
            self.module, pruner=self, carriers=carriers, **{k: getattr(self, k) for k in _TRAINING}
        )
        network.fit(X, y, sample_group=sample_group)
        for name in ("n_features_in_", "feature_names_in_"):
            vars(self).pop(name, None)
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))
        self._keep(self.prune_fraction)
        return self

    def fit_resample(self, X, y, *, sample_group=None, carriers=None):
        """Score the samples, and return those to keep.

        Parameters
        ----------
        X : same kinds as in ``fit``
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
        X, group, inferrer = unpack_groups(X, sample_group)
        if group is None and self.group_inferrer_ is not None:
            inferrer = self.group_inferrer_
            group = last_step(inferrer).labels_
        kept = GroupedData(X, group, group_inferrer=inferrer)[self.kept_indices_]
        return kept.data if group is None else kept, GroupedData(y, None)[self.kept_indices_].data

    def select(self, prune_fraction=None, *, order=None):
        """Which samples are kept at another fraction or in another order, by the same scores.

        Parameters
        ----------
        prune_fraction : float, default=None
            None is that of the constructor.
        order : {"hardest", "easiest", "random"}, default=None
            None is that of the constructor.

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
        keep = select_kept(
            self.scores_,
            fraction,
            stratum=self._stratum,
            order=self.order if order is None else order,
            random_state=self._order_seed,
        )
        left = np.bincount(self._label[keep], minlength=len(self.classes_))
        if (left == 0).any():
            gone = self.classes_[np.flatnonzero(left == 0)[:5]].tolist()
            raise ValueError(
                f"prune_fraction={fraction} leaves no sample of the classes {gone}. Lower it"
                + (", or use scope='class'." if self.scope == "global" else ".")
            )
        return keep

    def _keep(self, fraction):
        self.keep_mask_ = self.select(fraction)
        self.kept_indices_ = np.flatnonzero(self.keep_mask_)
        self.pruned_indices_ = np.flatnonzero(~self.keep_mask_)

    # ----------------------------------------------------------------------------------

    def _score(self, host, module, train, runtime, seeds, carriers, callbacks=()):
        """Scores and strata, by the engine of ``host``; trains ``module`` in place."""
        self._label = train.y.numpy().copy()
        self.classes_, self.groups_ = host.classes_, host.groups_
        self.group_inferrer_ = host.group_inferrer_
        self.carriers_ = self._given_carriers(carriers, train)
        self.used_group_labels_ = host.used_group_labels_
        if carriers is not None:
            self.used_group_labels_["train"] = True
        epochs = _check_epochs(self.score_epochs)
        checks = self._checked_epochs(max(epochs))
        placed = place(train, runtime.device)
        runs, frames = [], []
        for run in range(self.n_runs):
            if run:
                seeds, module = _another_start(host, train, runtime, seeds[0], run)
            early = () if run else checks
            recorder = _Recorder(self, host, placed, runtime, seeds[1], epochs, early)
            result = host._run_stage(
                module,
                Objective(),
                UniformSampler(len(train), seed=seeds[0]),
                placed,
                None,
                runtime,
                seed=seeds[1],
                **_beginning(host, max(epochs)),
                callbacks=[recorder, *callbacks],
            )
            runs.append(np.mean(recorder.scores, axis=0))
            frames.append(host._history_frame(result.history).assign(run=run + 1))
            if not run:
                first, self._order_seed = recorder, seeds[0]
        self.run_scores_ = np.stack(runs)
        self.scores_ = self.run_scores_.mean(axis=0)
        self.history_ = pd.concat(frames, ignore_index=True)
        self.difficulty_clusters_ = None
        if checks:
            self._look_for_groups(first.early, train)
        self._stratum = np.zeros_like(self._label) if self.scope == "global" else self._label
        if self.carriers_ is not None:
            self._stratum = np.where(self.carriers_, self._label, -1)
        return result

    def _given_carriers(self, carriers, train):
        """Mask of the samples that may be pruned, or None for all."""
        n = len(train)
        if carriers is not None:
            carriers = column_or_1d(
                carriers.cpu().numpy() if torch.is_tensor(carriers) else carriers
            )
            if self.scope != "carriers":
                raise ValueError(f"carriers= goes with scope='carriers'; scope={self.scope!r}.")
            if carriers.dtype != bool or len(carriers) != n:
                raise ValueError(
                    f"carriers must be one bool per sample: {n} of them; got {len(carriers)} of "
                    f"type {carriers.dtype}."
                )
            return carriers
        if self.scope != "carriers":
            return None
        if train.group is None:
            raise ValueError(
                "scope='carriers' must know which samples have the spurious feature. Give "
                "fit(..., carriers=mask), or groups, of which the largest of each class is taken: "
                "fit(..., sample_group=g), X as GroupedData(X, g), or group_inferrer=."
            )
        return _majority(train)

    def _checked_epochs(self, last):
        """Epochs after which the classes are searched for groups: 1, 2, 4, 8, ..."""
        is_needed = (
            self.order == "hardest"
            and self.scope != "carriers"
            and self.on_identifiable != "ignore"
            and self.prune_fraction != 0
        )
        return [2**i for i in range(last.bit_length())] if is_needed else []

    def _look_for_groups(self, early, train):
        """Warn, raise or restrict the pruning where hard samples look like minority groups."""
        rows, larger = [], np.ones(len(train), dtype=bool)
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
            return
        if self.on_identifiable == "infer":
            self.carriers_ = larger if train.group is None else _majority(train)
            return
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
        warnings.warn(message, UserWarning, stacklevel=2)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags


class ScoringNetwork(BaseTorchClassifier):
    """What a pruner that stands alone trains: it checks the data, and has the engine."""

    def __init__(self, module=None, *, pruner=None, carriers=None, **shared):
        super().__init__(module, **shared)
        self.pruner = pruner
        self.carriers = carriers

    def _train(self, module, train, valid, runtime, seeds):
        callbacks = self._loop_config(None, 0).callbacks
        result = self.pruner._score(self, module, train, runtime, seeds, self.carriers, callbacks)
        return module, result


class _Recorder(Callback):
    """Scores all samples after some epochs; the training does not notice."""

    def __init__(self, pruner, host, train, runtime, seed, epochs, checks):
        self.pruner, self.host, self.train, self.runtime = pruner, host, train, runtime
        self.seed, self.epochs, self.checks = seed, epochs, checks
        self.scores, self.early, self.correct = [], {}, []

    def on_epoch_end(self, *, module, row, **kwargs):
        epoch, kind = row["epoch"], self.pruner.difficulty
        if kind != "forgetting" and epoch not in (*self.epochs, *self.checks):
            return
        score, error, correct = self._look(module, epoch)
        self.correct.append(correct)
        if epoch in self.checks:
            self.early[epoch] = error
        if epoch in self.epochs:
            self.scores.append(
                forgetting_counts(np.stack(self.correct)) if kind == "forgetting" else score
            )

    def _look(self, module, epoch):
        """Score, EL2N and whether it is right, of every sample by its row."""
        train_transform, eval_transform = self.host._transforms()
        augmented = self.pruner.score_with_train_transform
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        with self.runtime.fork_rng(), torch.no_grad():
            self.runtime.reseed(self.seed, epoch)
            batches = iterate_batches(
                self.train,
                torch.arange(len(self.train)),
                self.runtime,
                max(self.host.batch_size, 256),
                train_transform if augmented else eval_transform,
                self.host.num_workers,
                is_shared=False,
            )
            parts = [self._score_batch(module, batch["X"], batch["y"], epoch) for batch in batches]
        for part, was_training in modes:
            part.training = was_training
        return [torch.cat(part).cpu().numpy() for part in zip(*parts)]

    def _score_batch(self, module, inputs, label, epoch):
        kind = self.pruner.difficulty
        seen = []
        if kind == "grand_last":
            last = last_linear(module)[1]
            hook = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        with self.runtime.autocast():
            logits = forward(module, inputs)
        # Far below 1e-7 scores still differ, in float64.
        logits = logits.float() if logits.device.type == "mps" else logits.double()
        error = el2n(logits, label)
        if kind == "grand_last":
            hook.remove()
            if last.out_features != logits.shape[1]:
                raise ValueError("difficulty='grand_last' needs a network that ends in nn.Linear.")
            has_bias = last.bias is not None
            score = last_layer_gradient_norms(logits, label, seen[-1], has_bias=has_bias)
        elif kind == "grand" and epoch in self.epochs:
            with self.runtime.autocast():
                score = gradient_norms(module, inputs, label)
        else:
            score = _LOGIT_SCORES.get(kind, el2n)(logits, label)
        return score, error, logits.argmax(1) == label


def _tenth_at_half_and_three_quarters(optimizer, n_steps):
    """Learning rate times 0.1 after half and after three quarters of the steps."""
    milestones = [n_steps // 2, 3 * n_steps // 4]
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)


@extends(SpuriousSamplePruner)  # documents the pruning parameters
@extends(BaseTorchClassifier)
class PrunedRetrainer(BaseTorchClassifier):
    """Drops the training samples that are hardest to learn, and trains anew on the rest [1]_.

    One network is trained for its scores (see :class:`SpuriousSamplePruner`); a second one starts
    from the same weights and is trained in the same way on the samples that are kept.

    .. versionadded:: 0.1

    Parameters
    ----------
    prune_fraction : "auto" or float, default=0.1
        Share that is pruned, rounded up, of what ``scope`` names. "auto" tries ``fractions`` on
        validation samples, one retraining each: see ``select_by``.
    fractions : tuple of float, default=(0.05, 0.1, 0.2, 0.3, 0.5)
        What "auto" tries; and 0, no pruning.
    select_by : {"auto", "worst_group_accuracy", "accuracy", "worst_class_accuracy"}, default="auto"
        How "auto" chooses, on the ``eval_set`` or else on ``validation_fraction`` of the training
        samples, which are then not trained on. "worst_group_accuracy" and "worst_class_accuracy"
        take the best, "accuracy" the largest fraction that loses no more than ``tolerance``
        against no pruning. "auto" is the worst group where the validation samples have groups.
    tolerance : float, default=0.01
        See ``select_by``.
    controls : bool, default=False
        Also train on all samples, and with as many of the easiest and of random samples pruned,
        for :meth:`control_report`: three more trainings.
    monitor : {"auto", "worst_group_accuracy", "accuracy", "loss"} or None, default=None
        What the best epoch is best in, on validation samples; its network is the fitted one. None
        keeps the last epoch, as the paper does; with ``early_stopping`` it is "auto".
    shared parameters

    Attributes
    ----------
    pruner_ : SpuriousSamplePruner
        Scores and more; its row numbers are those of the samples that are not kept aside for
        validation.
    prune_fraction_ : float
        Share that was pruned.
    n_pruned_ : int
        Number of samples that were.
    kept_indices_ : ndarray of int
        Rows of ``X`` that the network was retrained on, sorted.
    pruned_indices_ : ndarray of int
        Rows of ``X`` that were pruned, sorted.
    search_ : DataFrame or None
        With ``prune_fraction="auto"``, a row per fraction: validation accuracies, which was chosen.
    control_modules_ : dict of nn.Module, or None
        With ``controls``, the networks of no pruning and of the other orders.
    shared attributes

    See Also
    --------
    SpuriousSamplePruner : The pruning alone; any estimator can be trained on what it keeps.
    ERMClassifier : Trains on all samples.

    Notes
    -----
    Needs group labels neither in training nor in validation, ``scope="carriers"`` excepted (or a
    mask of the carriers, which counts as group labels); validation groups choose the fraction if
    they are there. Passes over the data: those of :class:`SpuriousSamplePruner`, then
    ``max_epochs`` for each retraining. ``history_`` is that of the retraining, the scores' is
    ``pruner_.history_``. A refit scores anew; a checkpoint holds retrainings alone.

    The paper sweeps the fraction and gives no rule for it; "auto" is ours, as is keeping the
    share of each class by its own size (the authors' code: the CelebA counts).

    Pruning hard samples also drops mislabelled ones. Compare with the controls before crediting
    a gain to the spurious feature.

    References
    ----------
    .. [1] V. Mulchandani, J.-E. Kim, "Severing Spurious Correlations with Data Pruning",
       ICLR 2025. arXiv:2503.18258. Code: JEKimLab/ICLR2025_SpuriousDataPruning at 2ca9cb5.

    Examples
    --------
    >>> from skspurious import PrunedRetrainer
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(400, correlation_strength=0.5, random_state=0)
    >>> clf = PrunedRetrainer(score_epochs=3, max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target)
    >>> clf.n_pruned_, clf.predict(train.data[:2]).shape
    (40, (2,))
    """

    __metadata_request__fit = {"sample_group": True, "carriers": True}

    # Mulchandani & Kim, ICLR 2025, as its code has them; the fraction is swept there. CIFAR-10S is
    # for a ResNet-20, which torchvision does not have.
    _presets: dict = {
        "celeba": {
            **RESNET50,
            "lr": 1e-3,
            "weight_decay": 1e-4,
            "batch_size": 64,
            "max_epochs": 25,
            "score_epochs": 10,
        },
        "cifar10s": {
            "lr": 0.1,
            "lr_schedule": _tenth_at_half_and_three_quarters,
            "weight_decay": 1e-4,
            "batch_size": 64,
            "max_epochs": 160,
            "score_epochs": 9,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        **_PRUNING_CONSTRAINTS,
        "prune_fraction": [StrOptions({"auto"}), *_PRUNING_CONSTRAINTS["prune_fraction"]],
        "fractions": [tuple, list],
        "select_by": [
            StrOptions({"auto", "worst_group_accuracy", "accuracy", "worst_class_accuracy"})
        ],
        "tolerance": [Interval(Real, 0, 1, closed="both")],
        "controls": ["boolean"],
    }

    def __init__(
        self,
        module=None,
        *,
        difficulty="el2n",
        score_epochs=10,
        n_runs=1,
        prune_fraction=0.1,
        fractions=(0.05, 0.1, 0.2, 0.3, 0.5),
        select_by="auto",
        tolerance=0.01,
        scope="class",
        order="hardest",
        controls=False,
        on_identifiable="warn",
        identifiable_silhouette=0.9,
        score_with_train_transform=False,
        monitor=None,
        **shared,
    ):
        super().__init__(module, monitor=monitor, **shared)
        self.difficulty = difficulty
        self.score_epochs = score_epochs
        self.n_runs = n_runs
        self.prune_fraction = prune_fraction
        self.fractions = fractions
        self.select_by = select_by
        self.tolerance = tolerance
        self.scope = scope
        self.order = order
        self.controls = controls
        self.on_identifiable = on_identifiable
        self.identifiable_silhouette = identifiable_silhouette
        self.score_with_train_transform = score_with_train_transform

    def fit(self, X, y, *, sample_group=None, sample_weight=None, eval_set=None, carriers=None):
        """Score the samples, prune, and train the network anew.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            The training samples. 2-D arrays of numbers become float32; tensors keep their type.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, any hashable values; several columns are crossed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss, also of the training that scores.
        eval_set : tuple (X, y) or (X, y, sample_group), default=None
            Validation samples, looked at after each epoch of the retraining.
        carriers : array-like of shape (n_samples,), bool, default=None
            Which samples have the spurious feature, for ``scope="carriers"``.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If lengths differ, carriers are needed and missing, a class would lose all samples,
            the network does not fit the classes, or training diverges.
        """
        self._carriers, self._rows = carriers, None
        try:
            return super().fit(
                X, y, sample_group=sample_group, sample_weight=sample_weight, eval_set=eval_set
            )
        finally:
            self._carriers = None

    def _monitored(self, valid):
        if self.monitor is None and self.early_stopping and valid is not None:
            return f"valid_{'accuracy' if valid.group is None else 'worst_group_accuracy'}"
        return super()._monitored(valid)

    def _split(self, train, seed):
        """The split of the base; it remembers the rows of ``X`` that are trained on."""
        numbered = replace(train, weight=torch.arange(len(train)))
        parts = super()._split(numbered, seed)
        self._rows = parts[0].weight.numpy()
        for part in parts:
            part.weight = None if train.weight is None else train.weight[part.weight]
        return parts

    def _train(self, module, train, valid, runtime, seeds):
        if self.prune_fraction == "auto" and valid is None:
            train, valid = self._split(train, int(np.random.default_rng(seeds[0]).integers(2**31)))
            self.used_group_labels_["validation"] = self.used_group_labels_["train"]
        rows = np.arange(len(train)) if self._rows is None else self._rows
        fractions = _check_fractions(self.fractions, self.prune_fraction)
        carriers = self._carriers
        if carriers is not None and self._rows is not None:
            carriers = np.asarray(carriers)[rows]

        parameters = inspect.signature(SpuriousSamplePruner.__init__).parameters
        params = {k: getattr(self, k) for k in parameters if k != "self"}
        pruner = SpuriousSamplePruner(**params | {"prune_fraction": max(fractions)})
        pruner._score(self, copy.deepcopy(module), train, runtime, seeds, carriers)

        def retrain(fraction, order):
            network = copy.deepcopy(module)
            kept = np.flatnonzero(pruner.select(fraction, order=order))
            result = self._run_stage(
                network,
                Objective(),
                SubsetSampler(kept, seed=seeds[0]),
                train,
                valid,
                runtime,
                seed=seeds[1],
                stage=f"{order}_{fraction:g}",
            )
            return network, result

        tried = {fraction: retrain(fraction, self.order) for fraction in fractions}
        chosen, self.search_ = fractions[0], None
        if self.prune_fraction == "auto":
            found = [self._validate(tried[f][0], valid, runtime) for f in fractions]
            self.search_ = pd.DataFrame(found)
            self.search_.insert(0, "prune_fraction", fractions)
            n_pruned = [int((~pruner.select(f)).sum()) for f in fractions]
            self.search_.insert(1, "n_pruned", n_pruned)
            row = self._choose(self.search_)
            self.search_["selected"] = np.arange(len(fractions)) == row
            chosen = fractions[row]
        pruner.set_params(prune_fraction=chosen)._keep(chosen)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self, name):
                setattr(pruner, name, getattr(self, name))
        self.pruner_, self.prune_fraction_ = pruner, chosen
        self.n_pruned_ = len(pruner.pruned_indices_)
        self.kept_indices_ = rows[pruner.kept_indices_]
        self.pruned_indices_ = rows[pruner.pruned_indices_]
        self.control_modules_ = None
        if self.controls:
            others = [o for o in ("hardest", "easiest", "random") if o != self.order]
            runs = {"none": retrain(0, self.order), **{o: retrain(chosen, o) for o in others}}
            self.control_modules_ = {name: network.cpu() for name, (network, _) in runs.items()}
        return tried[chosen]

    def _validate(self, module, valid, runtime):
        """Accuracies of a network on the validation samples."""
        logits = self._outputs(module, valid.samples, runtime)
        hit = logits.argmax(1).cpu().numpy() == valid.y.cpu().numpy()
        group = None if valid.group is None else valid.group.cpu().numpy()
        return _accuracies(hit, valid.y.cpu().numpy(), group)

    def _choose(self, search):
        """Row of the search that is chosen; the first is no pruning."""
        by = self.select_by
        if by == "auto":
            by = "worst_group_accuracy" if "worst_group_accuracy" in search else "accuracy"
        if by not in search:
            raise ValueError(
                f"select_by={by!r} needs the groups of the validation samples: give "
                "eval_set=(X, y, sample_group), or groups or a group_inferrer in fit."
            )
        if by == "accuracy":  # the largest fraction
            close = search["accuracy"] >= search["accuracy"].iloc[0] - self.tolerance - 1e-12
            return int(np.flatnonzero(close)[-1])
        # The best; ties to the higher accuracy, then to the smaller fraction.
        return int(np.lexsort((-search["accuracy"], -search[by]))[0])

    def control_report(self, X, y, *, sample_group=None):
        """Compare the pruning with no pruning and with pruning as many other samples.

        Parameters
        ----------
        X : same kinds as in ``fit``
            Test samples.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample.

        Returns
        -------
        report : DataFrame
            A row for no pruning ("none") and for each order: n_pruned, accuracy,
            worst_class_accuracy, and worst_group_accuracy where there are groups.

        Raises
        ------
        ValueError
            If the classifier was fitted without ``controls=True``.
        """
        check_is_fitted(self)
        if self.control_modules_ is None:
            raise ValueError("control_report needs the control networks: fit with controls=True.")
        X, sample_group, _ = unpack_groups(X, sample_group)
        y = column_or_1d(y.cpu().numpy() if torch.is_tensor(y) else y)
        group = None if sample_group is None else encode_groups(sample_group, n_samples=len(y))[0]
        _, label = np.unique(y, return_inverse=True)
        networks = {self.order: self.module_, **self.control_modules_}
        rows = {}
        for name in ("none", "hardest", "easiest", "random"):
            one = copy.copy(self)
            one.module_ = networks[name]
            rows[name] = {
                "n_pruned": 0 if name == "none" else self.n_pruned_,
                **_accuracies(one.predict(X) == y, label, group),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("order")


# --------------------------------------------------------------------------------------


def _accuracies(hit, label, group):
    """Accuracy, and the least over classes and groups that occur."""
    found = {
        "accuracy": float(hit.mean()),
        "worst_class_accuracy": float(np.nanmin(group_means(hit, label, label.max() + 1))),
    }
    if group is not None:
        found["worst_group_accuracy"] = float(np.nanmin(group_means(hit, group, group.max() + 1)))
    return found


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


def _check_fractions(fractions, prune_fraction):
    """Fractions to try, increasing, the first of them none; or the one that is given."""
    if prune_fraction != "auto":
        return [prune_fraction]
    if not all(isinstance(f, Real) and 0 <= f < 1 for f in fractions) or not any(fractions):
        raise ValueError(f"fractions must lie in [0, 1), not all 0; got {fractions!r}.")
    return sorted({0.0, *(float(f) for f in fractions)})


def _another_start(host, train, runtime, seed, run):
    """Seeds and network of a further run: a function of the first run's seed and its number."""
    *seeds, module_seed = np.random.default_rng([seed, run]).integers(2**31 - 1, size=3).tolist()
    module = host._initial_module(train, seed=module_seed)
    host._check_module(module, train, runtime)
    return seeds, module


def _beginning(host, n_epochs):
    """Config of the first epochs of the host's training, under the schedule of the whole."""
    schedule = host.lr_schedule
    if schedule is not None:
        schedule = functools.partial(
            _whole_schedule,
            schedule=schedule,
            n_epochs=n_epochs,
            n_total=max(n_epochs, host.max_epochs),
            lr=host.lr,
        )
    return {
        "max_epochs": n_epochs,
        "lr_schedule": schedule,
        "patience": None,
        "checkpoint_dir": None,
    }


def _whole_schedule(optimizer, n_steps, *, schedule, n_epochs, n_total, lr):
    return make_schedule(optimizer, schedule, n_steps=n_steps // n_epochs * n_total, lr=lr)
