"""Just train twice: what a first network gets wrong counts more for a second one."""

import copy
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch

from skspurious._engine._objective import Objective
from skspurious._engine._samplers import SubsetSampler, UniformSampler, WeightedSampler
from skspurious._engine._stage import Stage
from skspurious._prediction import read_outputs
from skspurious._training import Trained, check_module, loop_config, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.data._given import check_mask
from skspurious.functional._error_set import class_margins, stratified_folds
from skspurious.functional._weights import sampling_probabilities
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._stages import make_first_stage, read_for
from skspurious.utils._fitting import _fit_context
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn

# Of presets for texts: the first stage by SGD, the second by AdamW.
_TEXT_FIRST = {"optimizer": "sgd", "lr": 2e-5, "max_grad_norm": 1.0, "max_epochs": 2}
_TEXT_TRAINING = {
    "optimizer": "adamw",
    "lr": 1e-5,
    "lr_schedule": "linear",
    "max_grad_norm": 1.0,
}


@extends(BaseTorchClassifier)
class JTTClassifier(BaseTorchClassifier):
    """Just train twice: upweights the samples that a first network gets wrong [1]_.

    A network that was trained for a few epochs, with strong regularisation, errs mostly on
    samples that its shortcut does not fit. They are the error set E, and a second network, from
    the same initial weights, minimises ``sum over E of up_weight * loss + sum of the other
    losses``. No group labels are used in training.

    .. versionadded:: 0.1

    Parameters
    ----------
    init_epochs : int, default=None
        Epochs of the first stage (T), where `first_stage` is None. None is 1, or no number of them
        for a linear head that no parameter says how to step (see `optimizer`): both stages are then
        fitted to their minimum.
    first_stage : None or ERMClassifier, default=None
        How the first network is trained. None takes the parameters of the second stage, with
        `init_epochs` epochs and without augmentation and schedule. An ``ERMClassifier`` is trained
        by its own parameters; with ``module=None`` both stages start from the same weights. A
        network of its own is trained by its own ``weights``, ``collate_fn`` and transforms.
    up_weight : "auto" or float, default=None
        Weight of a sample of the error set, where the others have 1 (lambda). 1 is plain
        training. "auto" makes the error set about as heavy as the rest, the whole part of
        ``(n - |E|) / |E|``, but at least 1. None is 20; for a head of which both stages are fitted
        to their minimum it is "auto", but at most 10.
    variant : {"paper", "code"}, default="paper"
        How errors are collected and upweighted. "paper": the trained first network predicts all
        samples, in evaluation mode and without augmentation; an epoch of the second stage draws
        as many samples as there are, with replacement, in proportion to their weights. "code",
        as in the authors' code: the predictions are those that the network makes while it is
        trained for one more epoch; an epoch of the second stage has every sample once, those of
        the error set `up_weight` times, so it is longer.
    cross_fit : "auto", int or None, default="auto"
        Number of folds, stratified by class: every sample is predicted by a network that was
        trained on the other folds. With None the first network predicts the samples that it was
        trained on; where it fits them all, as a head on embeddings does, use folds. "auto" is 5
        for a head of which both stages are fitted to their minimum, and None for others.
    class_balanced_init : bool, default=False
        Whether the first stage draws all classes equally often. Errors are then not just those of
        the rare class, but on imbalanced data many of the common one, which `up_weight` makes
        count more than all else: on the Adult data the worst group fell from 0.33 to 0.05.
    shared parameters

    Attributes
    ----------
    error_mask_ : ndarray of shape (n_samples,), bool
        The error set: one entry for each row of ``X``, False for those that were kept aside for
        validation.
    error_rate_ : float
        Share of the error set in the samples that were trained on.
    margin_ : ndarray of shape (n_samples,)
        Logit of the own class minus the largest of the others, in the first stage; NaN for rows
        that were kept aside, and everywhere with an ``error_mask``.
    up_weight_ : float
        The weight that was used.
    shared attributes

    See Also
    --------
    BalancedRetrainer : Balances groups, known or inferred.
    LastLayerRetrainer : Retrains the head alone; needs groups of a few samples.

    Notes
    -----
    Needs no group labels in training, and does not look at them except to report accuracies in
    ``history_``. It needs them in validation to work well: JTT was measured to be no better than
    plain training where parameters and epoch were not chosen by the worst validation group. It
    infers no groups; without labels ``worst_group_scorer`` scores it in a search by views of the
    samples. Its error set would not do: every candidate is trained to be right on its own.
    ``init_epochs + max_epochs`` passes over the data; with ``cross_fit=k`` about
    ``(k - 1) * init_epochs + max_epochs``.

    In ``history_`` the column ``stage`` tells "identification" (with ``cross_fit`` numbered by
    fold) from "retraining", which ``best_epoch_`` counts.

    Where groups are known, ``metrics.group_inference_report(sample_group, clf.error_mask_, y)``
    tells how much of each class's minority is in the error set, and how pure it is. Label noise
    ends up in the error set too, the more the longer the first stage trains.

    Differences from the authors' code: it adds ``up_weight`` copies to each sample of E, one
    more than the formula (for this raise ``up_weight`` by 1); it collects the predictions during
    training, and repeats samples where the paper draws them (``variant="code"`` does both; a sample
    that batch normalisation leaves out of the last epoch is then predicted by the network at its
    end). With ``up_weight=1`` the result is that of :class:`ERMClassifier`, bit for bit.

    References
    ----------
    .. [1] E. Z. Liu, B. Haghgoo, A. S. Chen, A. Raghunathan, P. W. Koh, S. Sagawa, P. Liang,
       C. Finn, "Just Train Twice: Improving Group Robustness without Training Group
       Information", ICML 2021. arXiv:2107.09044.

    Examples
    --------
    >>> from skspurious import JTTClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = JTTClassifier(init_epochs=2, max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target)
    >>> bool(clf.error_mask_.mean() == clf.error_rate_ < 0.5)
    True
    """

    __metadata_request__fit = {"error_mask": True}

    # Liu et al., ICML 2021, as its repository has them; up_weight is that of the formula.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 1.0,
            "batch_size": 64,
            "max_epochs": 300,
            "init_epochs": 60,
            "up_weight": 100,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 0.1,
            "batch_size": 64,
            "max_epochs": 50,
            "init_epochs": 1,
            "up_weight": 50,
        },
        "multinli": {
            **_TEXT_TRAINING,
            "weight_decay": 0.1,
            "batch_size": 32,
            "max_epochs": 5,
            "first_stage": ERMClassifier(**_TEXT_FIRST, batch_size=32),
            "up_weight": 4,
        },
        "civilcomments": {
            **_TEXT_TRAINING,
            "weight_decay": 0.01,
            "batch_size": 16,
            "max_epochs": 3,
            "first_stage": ERMClassifier(**_TEXT_FIRST, batch_size=24),
            "up_weight": 6,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "init_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "first_stage": [ERMClassifier, None],
        "up_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "variant": [StrOptions({"paper", "code"})],
        "cross_fit": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left"), None],
        "class_balanced_init": ["boolean"],
    }

    def __init__(
        self,
        module=None,
        *,
        init_epochs=None,
        first_stage=None,
        up_weight=None,
        variant="paper",
        cross_fit="auto",
        class_balanced_init=False,
        **shared,
    ):
        super().__init__(module, **shared)
        self.init_epochs = init_epochs
        self.first_stage = first_stage
        self.up_weight = up_weight
        self.variant = variant
        self.cross_fit = cross_fit
        self.class_balanced_init = class_balanced_init

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
        error_mask=None,
    ):
        """Find the error set, and train a network that minds it.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            The training samples. Tables of numbers become float32; tensors keep their type, except
            for a linear head, which takes float32.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, any hashable values; several columns are crossed. Of a DataFrame
            X the name of a column, or a list of names.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.
        X_val : same kinds as X, default=None
            Validation samples, looked at after each epoch of the second stage.
        y_val : array-like of shape (n_val,), default=None
            Class labels of the validation samples.
        sample_group_val : array-like of shape (n_val,) or (n_val, n_attributes), default=None
            Groups of the validation samples.
        error_mask : array-like of shape (n_samples,), bool, default=None
            The error set, where it is known already: no first stage is then trained.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If lengths differ, ``error_mask`` is no mask, the network does not fit the classes, or
            training diverges.
        """
        return self._fit(
            X,
            y,
            sample_group=sample_group,
            sample_weight=sample_weight,
            X_val=X_val,
            y_val=y_val,
            sample_group_val=sample_group_val,
            of_method={"error_mask": error_mask},
        )

    def _train(self, module, data, runtime, seeds, error_mask=None):
        is_head = self._fits_heads(data.train)
        train, y = data.train, data.train.y.numpy()
        if error_mask is None:
            logits, history = self._identify(module, data, runtime, seeds[0], is_head)
            margin = class_margins(logits, train.y).numpy()
            is_wrong = logits.argmax(1).numpy() != y
        else:
            margin, history = np.full(len(y), np.nan, dtype=np.float32), []
            is_wrong = check_mask(error_mask, data.n_samples, "error_mask")[train.rows]
        error_rate = float(is_wrong.mean())
        up_weight = self._resolve_up_weight(is_wrong, is_head)
        _warn_about_errors(is_wrong, y, data.classes, up_weight)
        # The seeds are those of plain training.
        sampler = self._make_upweighting_sampler(is_wrong, up_weight, seeds[0])
        stage = Stage("retraining", Objective(), sampler, seed=seeds[1])
        result = run_stage(self, module, stage, train, data.valid, runtime)
        learned = {
            "error_mask_": data.on_rows(is_wrong, False),
            "error_rate_": error_rate,
            "margin_": data.on_rows(margin, np.nan),
            "up_weight_": up_weight,
        }
        return Trained(module, history + result.history, result.best_epoch, learned)

    def _fits_heads(self, train):
        """Whether both stages fit a linear head to its minimum."""
        is_open = self.init_epochs is None and self.first_stage is None
        return is_open and self.variant == "paper" and loop_config(self, train).is_open

    def _identify(self, module, data, runtime, seed, is_head):
        """Logits of the first stage for every training sample, and its history."""
        train, first = data.train, self._resolve_first_stage(is_head)
        n_folds = self.cross_fit
        if n_folds == "auto":
            n_folds = min(5, len(train)) if is_head else None
        is_balanced, is_online = self.class_balanced_init, self.variant == "code"
        if is_online and (n_folds is not None or is_balanced):
            raise ValueError(
                "variant='code' takes the predictions of an epoch in which every sample comes "
                "once: it goes neither with cross_fit nor with class_balanced_init=True."
            )
        n_folds = n_folds or 1
        if n_folds > len(train):
            raise ValueError(f"cross_fit={n_folds} folds of {len(train)} samples.")
        fold_seed, *stage_seeds = (
            np.random.default_rng(seed).integers(2**31 - 1, size=1 + 2 * n_folds).tolist()
        )
        if self.first_stage is not None and self.first_stage.module is not None:
            module = first._initial_module(data, seed=fold_seed)
            train = replace(train, samples=read_for(first, train.samples))
            check_module(first, module, replace(data, train=train), runtime)
        fold = stratified_folds(train.y.numpy(), n_folds, np.random.default_rng(fold_seed))
        logits = torch.zeros(len(train), len(data.classes))
        history = []
        for k in range(n_folds):
            part = train if n_folds == 1 else train.take(np.flatnonzero(fold != k))
            held_out = torch.from_numpy(np.flatnonzero(fold == k))
            network = copy.deepcopy(module)
            sampler_seed, loop_seed = stage_seeds[2 * k : 2 * k + 2]
            if is_balanced:
                sampler = WeightedSampler(sampling_probabilities(part.y.numpy()), seed=sampler_seed)
            else:
                sampler = UniformSampler(len(part), seed=sampler_seed)
            objective = _Recorder(*logits.shape) if is_online else Objective()
            name = "identification" if n_folds == 1 else f"identification_{k + 1}"
            stage = Stage(name, objective, sampler, loop_seed)
            history += run_stage(first, network, stage, part, None, runtime).history
            if is_online:
                outputs, came = objective.of_last_epoch(runtime)
                left_out = (~came).nonzero()[:, 0].cpu()
                if len(left_out):  # by batch normalisation, which needs two samples
                    outputs[left_out] = read_outputs(
                        first, network, train.samples, runtime, rows=left_out
                    ).float()
            else:
                outputs = read_outputs(first, network, train.samples, runtime, rows=held_out)
            logits[held_out] = outputs.float().cpu()
        return logits, history

    def _resolve_first_stage(self, is_head):
        """An estimator with the parameters of the first stage."""
        init_epochs = 1 if self.init_epochs is None else self.init_epochs
        first = make_first_stage(self, "auto" if is_head else init_epochs)
        first.set_params(
            checkpoint_dir=self.checkpoint_dir,
            run_name=self.run_name,
            random_state=self.random_state,
            verbose=self.verbose,
        )
        first._validate_params()
        if self.variant == "code":
            first.max_epochs += 1
        return first

    def _resolve_up_weight(self, is_wrong, is_head):
        up_weight, n_errors = self.up_weight, int(is_wrong.sum())
        as_heavy = max(1, (len(is_wrong) - n_errors) // max(n_errors, 1))
        if up_weight is None:
            up_weight = min(as_heavy, 10) if is_head else 20.0
        elif up_weight == "auto":
            up_weight = as_heavy
        if self.variant == "code" and up_weight != int(up_weight):
            raise ValueError(
                f"variant='code' repeats samples, so it needs a whole up_weight; got {up_weight}. "
                "Round it, or use variant='paper'."
            )
        return float(up_weight)

    def _make_upweighting_sampler(self, is_wrong, up_weight, seed):
        if up_weight == 1 or is_wrong.all() or not is_wrong.any():
            return UniformSampler(len(is_wrong), seed=seed)  # all weights are equal
        if self.variant == "paper":
            return WeightedSampler(np.where(is_wrong, up_weight, 1.0), seed=seed)
        times = np.where(is_wrong, int(up_weight), 1)
        return SubsetSampler(np.repeat(np.arange(len(is_wrong)), times), seed=seed)


_MINORITY = 0.2  # of a class; what is more is no small group


def _warn_about_errors(is_wrong, y, classes, up_weight):
    error_rate, n_errors = is_wrong.mean(), is_wrong.sum()
    if error_rate == 0:
        warn(
            "the error set is empty, so the second stage is plain training: the first stage "
            "fits every sample. Lower init_epochs, raise the weight_decay of first_stage, or "
            "use cross_fit=5 for out-of-fold errors."
        )
    elif error_rate > 0.5:
        warn(
            f"the error set is {error_rate:.0%} of the training samples: the first "
            "stage has hardly learned anything. Raise init_epochs or its lr."
        )
    elif up_weight * n_errors > 2 * (len(y) - n_errors):
        of_class = np.bincount(y[is_wrong], minlength=len(classes)) / np.bincount(y)
        name, largest = classes.tolist()[of_class.argmax()], of_class.max()
        if largest > _MINORITY:
            warn(
                f"the error set is {largest:.0%} of class {name!r}, more than a small group, and "
                f"with up_weight={up_weight:g} it counts more than twice as much as all other "
                "samples: the second stage may be worse than plain training. Use "
                "up_weight='auto', or a first stage that errs less."
            )


class _Recorder(Objective):
    """Plain training that remembers the logits of each sample when it last came."""

    def __init__(self, n_samples, n_classes):
        super().__init__()
        self.register_buffer("logits", torch.zeros(n_samples, n_classes))
        self.register_buffer("epoch_of", torch.zeros(n_samples, dtype=torch.int64))
        self.register_buffer("epoch", torch.ones((), dtype=torch.int64))

    def forward(self, module, batch, runtime):
        result = super().forward(module, batch, runtime)
        self.logits[batch["position"]] = result[2].detach().float()
        self.epoch_of[batch["position"]] = self.epoch
        return result

    def end_epoch(self, row):
        self.epoch += 1

    def of_last_epoch(self, runtime):
        """Logits of the last epoch, each sample's from a process that had it, and who came."""
        is_new = (self.epoch_of == self.epoch - 1)[:, None].float()
        count = runtime.all_reduce(is_new)
        return runtime.all_reduce(self.logits * is_new) / count.clamp(min=1), count[:, 0] > 0
