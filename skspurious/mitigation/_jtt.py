"""Just train twice: what a first network gets wrong counts more for a second one."""

import copy
import warnings
from numbers import Integral, Real

import numpy as np
import torch

from skspurious._engine._loop import Objective
from skspurious._engine._samplers import SubsetSampler, UniformSampler, WeightedSampler
from skspurious.base import BaseTorchClassifier
from skspurious.functional._error_set import class_margins, stratified_folds
from skspurious.functional._weights import sampling_probabilities
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

# What the first stage may do differently: how it trains, not what it is.
_INIT_PARAMS = (
    "batch_size",
    "gradient_accumulation",
    "lr",
    "lr_schedule",
    "max_grad_norm",
    "optimizer",
    "optimizer_params",
    "train_transform",
    "weight_decay",
)


# Of presets: stage 1 by SGD, stage 2 by AdamW.
_TEXT_INIT = {"optimizer": "sgd", "lr": 2e-5, "weight_decay": 0.0}
_TEXT_TRAINING = {
    "optimizer": "adamw",
    "lr": 1e-5,
    "lr_schedule": "linear",
    "max_grad_norm": 1.0,
    "init_params": _TEXT_INIT,
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
    init_epochs : int, default=1
        Epochs of the first stage (T).
    init_params : dict, default=None
        Parameters of the first stage that differ from those of the second: ``lr``,
        ``weight_decay``, ``optimizer``, ``optimizer_params``, ``lr_schedule``, ``batch_size``,
        ``gradient_accumulation``, ``max_grad_norm`` and ``train_transform``. By default it has
        neither augmentation nor a schedule.
    up_weight : "auto" or float, default=20.0
        Weight of a sample of the error set, where the others have 1 (lambda). 1 is plain
        training. "auto" makes the error set about as heavy as the rest, the whole part of
        ``(n - |E|) / |E|``, but at least 1.
    upsample : {"sampling", "duplicate"}, default="sampling"
        "sampling" draws as many samples an epoch as there are, with replacement, in proportion
        to the weights. "duplicate" takes every sample once and those of the error set
        ``up_weight`` times, as the authors do: epochs get longer.
    online : bool, default=False
        Take the predictions from one more epoch of the first stage, each batch as the network in
        training mode saw it, as the authors do. By default the network predicts all samples,
        without augmentation and in evaluation mode, after ``init_epochs`` epochs.
    cross_fit : int, default=None
        Number of folds, stratified by class: every sample is predicted by a network that was
        trained on the other folds. None predicts the samples that were trained on; where the
        first stage fits them all, as a head on embeddings does, only out-of-fold errors tell
        anything.
    class_balanced_init : "auto" or bool, default="auto"
        Whether the first stage draws all classes equally often, so that errors are not just
        those of the rare class. "auto" is True with ``cross_fit``.
    threshold : float, default=None
        A sample is in the error set where the probability of its class is below this. None
        takes the samples whose predicted class is wrong.
    shared parameters

    Attributes
    ----------
    error_mask_ : ndarray of shape (n_samples,), bool
        The error set, among the samples that were trained on.
    error_rate_ : float
        Its share of them.
    margin_ : ndarray of shape (n_samples,)
        Logit of the own class minus the largest of the others, in the first stage.
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
    ``history_``. It does need them in validation to work well: with parameters and epoch not
    chosen by the worst validation group, JTT was measured to be no better than plain training.
    ``init_epochs + max_epochs`` passes over the data; with ``cross_fit=k`` about
    ``(k - 1) * init_epochs + max_epochs``.

    In ``history_`` the column ``stage`` tells "identification" (with ``cross_fit`` numbered by
    fold) from "retraining", which ``best_epoch_`` counts.

    Where groups are known, ``metrics.group_inference_report(sample_group, clf.error_mask_, y)``
    tells how much of each class's minority is in the error set, and how pure it is. Label noise
    ends up in the error set too, the more the longer the first stage trains.

    Differences from the authors' code: it adds ``up_weight`` copies to each sample of E, one
    more than the formula (an ``up_weight`` that is greater by 1 gives that), keeps the training
    epoch whose predictions it collects (``online=True``), and duplicates. With
    ``up_weight=1`` the result is that of :class:`ERMClassifier`, bit for bit.

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
            "init_epochs": 2,
            "up_weight": 4,
        },
        "civilcomments": {
            **_TEXT_TRAINING,
            "weight_decay": 0.01,
            "batch_size": 16,
            "max_epochs": 3,
            "init_epochs": 2,
            "init_params": {**_TEXT_INIT, "batch_size": 24},
            "up_weight": 6,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "init_epochs": [Interval(Integral, 1, None, closed="left")],
        "init_params": [dict, None],
        "up_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "upsample": [StrOptions({"sampling", "duplicate"})],
        "online": ["boolean"],
        "cross_fit": [Interval(Integral, 2, None, closed="left"), None],
        "class_balanced_init": [StrOptions({"auto"}), "boolean"],
        "threshold": [Interval(Real, 0, 1, closed="right"), None],
    }

    def __init__(
        self,
        module=None,
        *,
        init_epochs=1,
        init_params=None,
        up_weight=20.0,
        upsample="sampling",
        online=False,
        cross_fit=None,
        class_balanced_init="auto",
        threshold=None,
        **shared,
    ):
        super().__init__(module, **shared)
        self.init_epochs = init_epochs
        self.init_params = init_params
        self.up_weight = up_weight
        self.upsample = upsample
        self.online = online
        self.cross_fit = cross_fit
        self.class_balanced_init = class_balanced_init
        self.threshold = threshold

    def _train(self, module, train, valid, runtime, seeds):
        logits, first = self._identify(module, train, runtime, seeds[0])
        y = train.y.numpy()
        self.margin_ = class_margins(logits, train.y).numpy()
        if self.threshold is None:
            self.error_mask_ = logits.argmax(1).numpy() != y
        else:
            p = logits.double().softmax(1).numpy()
            self.error_mask_ = p[np.arange(len(y)), y] < self.threshold
        self.error_rate_ = float(self.error_mask_.mean())
        self._warn_about_errors()
        # The seeds are those of plain training.
        sampler = self._make_sampler(train, seeds[0])
        result = self._run_stage(
            module, Objective(), sampler, train, valid, runtime, seed=seeds[1], stage="retraining"
        )
        result.history = first + [{"stage": "retraining", **row} for row in result.history]
        return module, result

    def _identify(self, module, train, runtime, seed):
        """Logits of the first stage for every training sample, and its history."""
        first = self._first_stage()
        is_balanced = self.class_balanced_init
        if is_balanced == "auto":
            is_balanced = self.cross_fit is not None
        if self.online and (self.cross_fit is not None or is_balanced):
            raise ValueError(
                "online=True takes the predictions of an epoch in which every sample comes once: "
                "it goes neither with cross_fit nor with class_balanced_init=True."
            )
        n_folds = self.cross_fit or 1
        if n_folds > len(train):
            raise ValueError(f"cross_fit={n_folds} folds of {len(train)} samples.")
        fold_seed, *stage_seeds = (
            np.random.default_rng(seed).integers(2**31 - 1, size=1 + 2 * n_folds).tolist()
        )
        fold = stratified_folds(train.y.numpy(), n_folds, np.random.default_rng(fold_seed))
        logits = torch.zeros(len(train), len(self.classes_))
        history = []
        for k in range(n_folds):
            rows = np.arange(len(train)) if n_folds == 1 else np.flatnonzero(fold != k)
            held_out = torch.from_numpy(np.flatnonzero(fold == k))
            part = train.take(rows) if n_folds > 1 else train
            network = copy.deepcopy(module)
            objective = _Recorder(len(train), len(self.classes_)) if self.online else Objective()
            sampler_seed, loop_seed = stage_seeds[2 * k : 2 * k + 2]
            if is_balanced:
                sampler = WeightedSampler(sampling_probabilities(part.y.numpy()), seed=sampler_seed)
            else:
                sampler = UniformSampler(len(part), seed=sampler_seed)
            stage = "identification" if n_folds == 1 else f"identification_{k + 1}"
            result = first._run_stage(
                network, objective, sampler, part, None, runtime, seed=loop_seed, stage=stage
            )
            history += [{"stage": stage, **row} for row in result.history]
            if self.online:
                n_batches = -(-len(part) // first.batch_size)
                logits[held_out] = objective.of_last_epoch(n_batches, runtime).cpu()
                continue
            outputs = self._outputs(network, train.samples, runtime, rows=held_out)
            logits[held_out] = outputs.float().cpu()
        return logits, history

    def _first_stage(self):
        """This estimator with the parameters of the first stage."""
        changes = dict(self.init_params or {})
        unknown = sorted(set(changes) - set(_INIT_PARAMS))
        if unknown:
            raise ValueError(
                f"init_params has {unknown}; the first stage may differ in {list(_INIT_PARAMS)}."
            )
        if "optimizer" in changes:
            changes = {"optimizer_params": None, **changes}
        first = copy.copy(self).set_params(
            **{"lr_schedule": None, "train_transform": None, **changes},
            max_epochs=self.init_epochs + self.online,
            early_stopping=False,
            callbacks=None,
        )
        first._validate_params()
        return first

    def _warn_about_errors(self):
        if not self.error_mask_.any():
            warnings.warn(
                "the error set is empty, so the second stage is plain training: the first stage "
                "fits every sample. Lower init_epochs, raise weight_decay in init_params, or "
                "use cross_fit=5 for out-of-fold errors.",
                UserWarning,
                stacklevel=5,
            )
        elif self.error_rate_ > 0.5:
            warnings.warn(
                f"the error set is {self.error_rate_:.0%} of the training samples: the first "
                "stage has hardly learned anything. Raise init_epochs or its lr.",
                UserWarning,
                stacklevel=5,
            )

    def _make_sampler(self, train, seed):
        n_errors = int(self.error_mask_.sum())
        up_weight = self.up_weight
        if up_weight == "auto":
            up_weight = max(1, (len(train) - n_errors) // max(n_errors, 1))
        self.up_weight_ = float(up_weight)
        if self.upsample == "duplicate" and self.up_weight_ != int(self.up_weight_):
            raise ValueError(
                f"upsample='duplicate' needs a whole up_weight; got {up_weight}. Round it, or "
                "use upsample='sampling'."
            )
        if up_weight == 1 or n_errors in (0, len(train)):
            return UniformSampler(len(train), seed=seed)  # all weights are equal
        if self.upsample == "sampling":
            return WeightedSampler(np.where(self.error_mask_, up_weight, 1.0), seed=seed)
        times = np.where(self.error_mask_, int(up_weight), 1)
        return SubsetSampler(np.repeat(np.arange(len(train)), times), seed=seed)


class _Recorder(Objective):
    """Plain training that remembers the logits of each sample when it last came."""

    def __init__(self, n_samples, n_classes):
        super().__init__()
        self.register_buffer("logits", torch.zeros(n_samples, n_classes))
        self.register_buffer("batch_of", torch.zeros(n_samples, dtype=torch.int64))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, module, batch, runtime):
        result = super().forward(module, batch, runtime)
        self.n_batches += 1
        self.logits[batch["index"]] = result[2].detach().float()
        self.batch_of[batch["index"]] = self.n_batches
        return result

    def of_last_epoch(self, n_batches, runtime):
        """Logits of the last epoch, each sample's from a process that had it."""
        is_new = (self.batch_of > self.n_batches - n_batches)[:, None].float()
        count = runtime.all_reduce(is_new)
        return runtime.all_reduce(self.logits * is_new) / count
