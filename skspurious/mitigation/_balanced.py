"""Balanced retraining: every group equally often, by sampling, batches, subsets or weights."""

import copy
from numbers import Integral, Real

import numpy as np
import torch

from skspurious._engine._config import auto
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import (
    BalancedBatchSampler,
    BalancedSubsetSampler,
    SubsetSampler,
    UniformSampler,
    WeightedSampler,
)
from skspurious.base import BaseTorchClassifier
from skspurious.data._sources import last_step, steps_of
from skspurious.functional._split import balanced_subset
from skspurious.functional._weights import sampling_probabilities
from skspurious.group_inference import SpareGroups
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn


@extends(BaseTorchClassifier)
class BalancedRetrainer(BaseTorchClassifier):
    """Trains on equally frequent groups or classes [1]_, or with SPARE's sampling [2]_.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    balance : {"sampling", "batches", "subsampling", "weights"}, default="sampling"
        "sampling" (RWG, RWY) draws as many samples as there are, with replacement, each with a
        probability in proportion to the inverse of its group's size. "batches" fills every batch
        with equally many samples of each group, none of them twice before all of the group have
        come. "subsampling" (SUBG, SUBY) keeps a random subset with as many samples of each group as
        the smallest has, and throws the others away. "weights" weighs the loss.
    by : {"group", "class"}, default="group"
        What is made equally frequent. Classes need no groups.
    sampling_power : "auto", float, dict or array-like of shape (n_classes,), default="auto"
        Power of the inverse group size, for "sampling" and "weights": 0 is no balancing, 1
        makes groups equally frequent, more favours small groups. One for each class is a dict by
        class label, or an array in the order of ``classes_``. "auto" is 1, except where
        :class:`~skspurious.group_inference.SpareGroups` found the groups: there a class whose
        clusters are not well separated has `high_power`.
    silhouette_threshold : float, default=0.9
        With ``sampling_power="auto"``, the clusters of a class count as well separated from this
        mean silhouette on. Below it the minority's cluster is taken to hold majority samples, too.
    high_power : float, default=None
        With ``sampling_power="auto"``, the power of a class whose clusters are not well separated.
        None is 2, as in SPARE's paper, and 1 for ``module=None``: a head gives the few samples of
        a small cluster all the weight that they get.
    class_balanced : "auto" or bool, default="auto"
        Whether each class has the same total probability, its groups sharing it. "auto" is
        True for inferred groups, which are nested in classes, and otherwise False.
    subset_seed : int, default=None
        Seed of the subset of "subsampling"; None takes it from ``random_state``.
    resample_each_epoch : bool, default=False
        Whether "subsampling" draws a new subset for every epoch, so that every sample has its
        turn; the paper's subset is drawn once.
    start_from : {"module", "group_inferrer"}, default="module"
        Weights that training starts from: those of `module`, or those of the network that
        `group_inferrer` has trained. The latter needs a pipeline that begins with a
        ``TorchFeatureExtractor`` of a classifier.
    shared parameters

    Attributes
    ----------
    subset_ : ndarray of shape (n_kept,) or None
        Rows of ``X`` that "subsampling" kept; None with another `balance`, or where every epoch
        had a new subset.
    shared attributes

    See Also
    --------
    GroupDROClassifier : Weighs groups by their losses.
    SPAREClassifier : Balances groups that are inferred early in training.

    Notes
    -----
    Needs the groups of the training samples, given, inferred or carried; with ``by="class"`` no
    groups. One pass over the data per epoch; a small group's samples come many times in it,
    so the network can memorise them: use augmentation, ``weight_decay`` or few epochs.

    The size of a group is its number of samples; a ``sample_weight`` acts on the loss alone.

    A head on a wide embedding, with a group of few samples, may want a ``weight_decay`` of about
    ten times the "auto" that ``history_`` shows: choose it in a search, or on validation samples.

    References
    ----------
    .. [1] B. Y. Idrissi, M. Arjovsky, M. Pezeshki, D. Lopez-Paz, "Simple data balancing
       achieves competitive worst-group-accuracy", CLeaR 2022. arXiv:2110.14503.
    .. [2] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman, "Identifying Spurious Biases
       Early in Training through the Lens of Simplicity Bias", AISTATS 2024. arXiv:2305.18761.

    Examples
    --------
    >>> from skspurious import BalancedRetrainer
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = BalancedRetrainer(max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target, sample_group=train.sample_group)
    >>> clf.predict(train.data[:2]).shape
    (2,)
    """

    # Idrissi et al., CLeaR 2022: balanced by sampling; the epoch is chosen on validation samples.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 1.0,
            "batch_size": 2,
            "max_epochs": 360,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 0.1,
            "batch_size": 2,
            "max_epochs": 60,
        },
        "multinli": {
            "lr": 1e-5,
            "weight_decay": 1e-2,
            "lr_schedule": "linear",
            "batch_size": 2,
            "max_epochs": 7,
        },
        "civilcomments": {
            "lr": 1e-5,
            "weight_decay": 1e-3,
            "lr_schedule": "linear",
            "batch_size": 4,
            "max_epochs": 7,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "balance": [StrOptions({"sampling", "batches", "subsampling", "weights"})],
        "by": [StrOptions({"group", "class"})],
        "sampling_power": [
            StrOptions({"auto"}),
            Interval(Real, 0, None, closed="left"),
            dict,
            "array-like",
        ],
        "silhouette_threshold": [Interval(Real, -1, 1, closed="both")],
        "high_power": [Interval(Real, 0, None, closed="left"), None],
        "class_balanced": [StrOptions({"auto"}), "boolean"],
        "subset_seed": [None, Interval(Integral, 0, None, closed="left")],
        "resample_each_epoch": ["boolean"],
        "start_from": [StrOptions({"module", "group_inferrer"})],
    }

    def __init__(
        self,
        module=None,
        *,
        balance="sampling",
        by="group",
        sampling_power="auto",
        silhouette_threshold=0.9,
        high_power=None,
        class_balanced="auto",
        subset_seed=None,
        resample_each_epoch=False,
        start_from="module",
        **shared,
    ):
        super().__init__(module, **shared)
        self.balance = balance
        self.by = by
        self.sampling_power = sampling_power
        self.silhouette_threshold = silhouette_threshold
        self.high_power = high_power
        self.class_balanced = class_balanced
        self.subset_seed = subset_seed
        self.resample_each_epoch = resample_each_epoch
        self.start_from = start_from

    @property
    def _needs_groups(self):
        return self.by == "group"

    def _starts_from_inferrer(self, data):
        return self.start_from == "group_inferrer"

    def _initial_module(self, data, seed):
        if not self._starts_from_inferrer(data):
            return super()._initial_module(data, seed)
        networks = [s.module_ for s in steps_of(data.group_inferrer) if hasattr(s, "module_")]
        if not networks:
            raise ValueError(
                "start_from='group_inferrer' needs a group inferrer with a network. Pass "
                "group_inferrer=make_pipeline(TorchFeatureExtractor(ERMClassifier(...)), "
                "SpuriousGroupInferrer()) and no sample_group, or set start_from='module'."
            )
        return copy.deepcopy(networks[0])

    def _make_sampler(self, data, seed):
        part, n_parts = self._parts(data)
        sizes = np.bincount(part, minlength=n_parts)
        if (sizes == 0).any():
            empty = [data.groups[g] for g in np.flatnonzero(sizes == 0)[:5]]
            warn(
                f"{(sizes == 0).sum()} groups have no training sample, among them {empty}; "
                "the others are balanced."
            )
        if self.balance == "sampling":
            return WeightedSampler(self._probabilities(data), seed=seed)
        if self.balance == "batches":
            return BalancedBatchSampler(part, batch_size=self.batch_size, seed=seed)
        if self.balance == "subsampling":
            subset_seed = seed if self.subset_seed is None else self.subset_seed
            if self.resample_each_epoch:
                return BalancedSubsetSampler(part, seed=subset_seed)
            subset = balanced_subset(part, np.random.default_rng(subset_seed))
            return SubsetSampler(subset, seed=seed)
        return UniformSampler(len(part), seed=seed)

    def _learned(self, data, objective, sampler):
        is_kept = isinstance(sampler, SubsetSampler)
        return {"subset_": data.train.rows[sampler.rows] if is_kept else None}

    def _make_objective(self, data):
        if self.balance != "weights":
            return Objective()
        part, n_parts = self._parts(data)
        weight = np.zeros(n_parts)
        weight[part] = self._probabilities(data) * len(part)  # mean 1 over the samples
        return _BalancedLoss(weight, by=self.by)

    def _parts(self, data):
        """Codes of what is balanced, and their number."""
        if self.by == "class":
            return data.train.y.numpy(), len(data.classes)
        return data.train.group.numpy(), data.train.n_groups

    def _power_of_class(self, classes, inferrer):
        """Sampling power of every class; None where all have the same."""
        if not auto(self.sampling_power):
            if isinstance(self.sampling_power, Real):
                return None
            return _check_powers(self.sampling_power, classes)
        if not isinstance(getattr(inferrer, "method_", None), SpareGroups):
            return None
        high = self.high_power
        if high is None:
            high = 1.0 if self.module is None else 2.0
        power = _sampling_power(
            inferrer.silhouette_, threshold=self.silhouette_threshold, high_power=high
        )
        # The inferrer may have seen more classes.
        return power[np.searchsorted(inferrer.classes_, classes)]

    def _probabilities(self, data):
        """Probability of every training sample."""
        part, n_parts = self._parts(data)
        inferrer = None if self.by == "class" else data.group_inferrer
        class_balanced = self.class_balanced
        if class_balanced == "auto":
            class_balanced = inferrer is not None
        power_of_class = self._power_of_class(data.classes, last_step(inferrer))
        group_class = _class_of_groups(part, data.train.y.numpy(), n_parts)
        if group_class is None and (class_balanced or power_of_class is not None):
            raise ValueError(
                "balancing inside classes needs groups nested in them, but a group has samples "
                "of several classes. Cross it with the label, make_sample_group(y, attribute), "
                "or set class_balanced=False and a sampling_power."
            )
        if power_of_class is not None:
            power = power_of_class[group_class]
        else:
            power = 1.0 if auto(self.sampling_power) else self.sampling_power
        return sampling_probabilities(
            part,
            power=power,
            group_class=group_class if class_balanced else None,
            n_groups=n_parts,
        )


class _BalancedLoss(Objective):
    """Mean of the losses, each times the weight of its group; the weights have mean 1."""

    is_convex = True

    def __init__(self, weight, by):
        super().__init__()
        self.register_buffer("group_weight", torch.as_tensor(weight, dtype=torch.float32))
        self.key = "y" if by == "class" else "group"

    def coefficients(self, losses, batch, runtime):
        return self.group_weight[batch[self.key]] * super().coefficients(losses, batch, runtime)


def _sampling_power(silhouette, *, threshold, high_power):
    """Power of each class: 1 where it is one group (NaN) or its clusters are well separated."""
    return np.where(np.asarray(silhouette) < threshold, float(high_power), 1.0)


def _check_powers(power, classes):
    """The powers of all classes, of a dict by label or an array in the order of the classes."""
    names = classes.tolist()
    if isinstance(power, dict):
        missing = [name for name in names if name not in power]
        unknown = [name for name in power if name not in names]
        if missing or unknown:
            raise ValueError(
                f"sampling_power must have a power for each of the classes {names[:20]}; "
                + (f"it has none for {missing[:5]}." if missing else f"{unknown[:5]} are none.")
            )
        power = [power[name] for name in names]
    try:
        power = np.asarray(power, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"sampling_power must hold numbers; got {power!r}.") from None
    if power.shape != (len(names),):
        raise ValueError(
            f"sampling_power has shape {power.shape}; give one number, or one for each of the "
            f"{len(names)} classes, in the order of classes_."
        )
    if not (np.isfinite(power) & (power >= 0)).all():
        raise ValueError(f"sampling_power must hold finite numbers from 0 on; got {power}.")
    return power


def _class_of_groups(group, y, n_groups):
    """Class of each group, or None where a group has samples of several."""
    group_class = np.zeros(n_groups, dtype=np.int64)
    group_class[group] = y
    return group_class if (group_class[group] == y).all() else None
