"""GroupDRO: minimise the loss of the worst group."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch

from skspurious._engine._objective import Objective
from skspurious._engine._samplers import BalancedBatchSampler, UniformSampler, WeightedSampler
from skspurious.base import BaseTorchClassifier
from skspurious.functional._group_loss import (
    adjusted_group_loss,
    cvar_group_weights,
    group_coefficients,
    group_mean_losses,
    group_sums,
    update_group_weights,
)
from skspurious.functional._weights import sampling_probabilities
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

# Of a head that is fitted to its minimum: the first eta, most steps, how exactly each is solved,
# and how near the last is to the saddle point.
_HEAD_STEP, _HEAD_STEPS, _HEAD_TOLERANCE, _HEAD_GAP = 100.0, 30, 1e-5, 1e-5


@extends(BaseTorchClassifier)
class GroupDROClassifier(BaseTorchClassifier):
    """Minimises the loss of the worst group by group distributionally robust optimisation [1]_.

    At every step each group's weight ``q_g`` grows with its loss,
    ``q_g <- q_g exp(step_size * (L_g + C_g / sqrt(n_g)))``, and the network descends
    ``sum_g q_g L_g``.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    step_size : float, default=0.01
        Step size of the group weights (eta). 0 keeps them uniform.
    adjustment : float, array-like of shape (n_groups,), dict or "auto", default=0.0
        Group adjustment C: ``C_g / sqrt(n_g)`` is added to a group's loss in the update of its
        weight, so that small groups, which overfit, count for more. An array is in the order
        of ``groups_``; a dict maps groups to values. Negative and zero values are allowed.
        "auto" starts at 0 and sets ``C_g / sqrt(n_g)`` after each epoch to the group's loss on
        validation samples minus the running mean of its loss in training; it needs validation
        samples of the same groups.
    update : {"exponentiated", "cvar"}, default="exponentiated"
        How the group weights follow the losses. "exponentiated" is the paper's. "cvar", an
        alternative in the authors' code: running mean losses (rate 0.1), with the adjustment,
        are sorted, and the groups with the highest losses get all the weight, each at most its
        share of the samples divided by ``cvar_alpha``; ``step_size`` and ``absent_group`` have no
        effect.
    cvar_alpha : float, default=0.2
        Share of the samples whose mean loss "cvar" minimises, those of the groups with the highest
        losses first; 1 is the mean of all.
    absent_group : {"zero", "skip", "ema"}, default="zero"
        Loss that a group without samples in a batch has in the update. "zero": 0, plus the
        adjustment, as in the authors' code. "ema": the running mean of its losses (rate 0.1),
        plus the adjustment. "skip": the group is left out of the update, so its weight only
        changes when the weights are normalised to sum to 1.
    balance : {"sampling", "batches", None}, default="sampling"
        "sampling" draws with replacement so that all groups are equally likely in each place
        of a batch, as in the paper; "batches" fills every batch with equally many samples of
        each group; None takes every sample once an epoch.
    shared parameters

    Attributes
    ----------
    group_weights_ : ndarray of shape (n_groups,)
        Group weights q after the last step.
    adjustment_ : ndarray of shape (n_groups,)
        Group adjustment C in the order of ``groups_``; with "auto", after the last epoch.
    history_ : DataFrame
        One row per epoch: losses and accuracies (also of each group), group weights, learning
        rate, seconds.
    shared attributes

    See Also
    --------
    BalancedRetrainer : Often as good, and simpler.
    ERMClassifier : Plain training.

    Notes
    -----
    Needs the groups of the training samples, given, inferred or carried; for choosing the epoch
    also those of validation samples. One pass over the data per epoch.

    A network that can fit every sample brings each group's loss to 0, and then GroupDRO is ERM:
    use a strong ``weight_decay`` (with a small ``lr``) or few epochs.

    A linear head that is fitted to the minimum (see `optimizer`) is at the saddle point of the
    objective: ``sum_g q_g A_g`` equals the largest ``A_g = L_g + C_g / sqrt(n_g)``. There
    `step_size` (but 0), `absent_group` and `balance` have no effect on it; ``adjustment="auto"``,
    which follows the epochs, is trained by steps. On a wide embedding, with a group of few samples,
    such a head may want a ``weight_decay`` of about ten times the "auto" that ``history_`` shows.

    Differences from the authors' code: the weights are kept in log space, so that a group that
    lagged for long can return; the adjustment of a group applies whatever the signs of the other
    adjustments, and never enters the logged losses; a group without training samples has weight 0.
    In that code "cvar" is called "btl" and fails where every group has its full share, and the
    automatic adjustment calls a method that is not there; neither is in the paper's tables. With
    ``gradient_accumulation`` the weights are updated at every batch.

    References
    ----------
    .. [1] S. Sagawa, P. W. Koh, T. B. Hashimoto, P. Liang, "Distributionally Robust Neural
       Networks for Group Shifts: On the Importance of Regularization for Worst-Case
       Generalization", ICLR 2020. arXiv:1911.08731.

    Examples
    --------
    >>> from skspurious import GroupDROClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = GroupDROClassifier(max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target, sample_group=train.sample_group)
    >>> clf.group_weights_.shape
    (4,)
    """

    _needs_groups = True

    # Sagawa et al., ICLR 2020, appendix C.2: strong L2 regularisation and its best adjustment.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 1.0,
            "max_epochs": 300,
            "adjustment": 2.0,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 0.1,
            "max_epochs": 50,
            "adjustment": 3.0,
        },
        "multinli": {
            "optimizer": "adamw",
            "lr": 2e-5,
            "lr_schedule": "linear",
            "max_grad_norm": 1.0,
            "batch_size": 32,
            "max_epochs": 3,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "step_size": [Interval(Real, 0, None, closed="left")],
        "adjustment": [Real, "array-like", dict, StrOptions({"auto"})],
        "update": [StrOptions({"exponentiated", "cvar"})],
        "cvar_alpha": [Interval(Real, 0, 1, closed="right")],
        "absent_group": [StrOptions({"zero", "skip", "ema"})],
        "balance": [StrOptions({"sampling", "batches"}), None],
    }

    def __init__(
        self,
        module=None,
        *,
        step_size=0.01,
        adjustment=0.0,
        update="exponentiated",
        cvar_alpha=0.2,
        absent_group="zero",
        balance="sampling",
        **shared,
    ):
        super().__init__(module, **shared)
        self.step_size = step_size
        self.adjustment = adjustment
        self.update = update
        self.cvar_alpha = cvar_alpha
        self.absent_group = absent_group
        self.balance = balance

    def _check_data(self, data):
        if isinstance(self.adjustment, str):
            _check_has_validation_groups(data)

    def _make_objective(self, data):
        return _GroupDROLoss(
            np.bincount(data.train.group.numpy(), minlength=data.train.n_groups),
            self._adjustment_of_groups(data.groups),
            step_size=self.step_size,
            absent_group=self.absent_group,
            cvar_alpha=self.cvar_alpha if self.update == "cvar" else None,
            adjusts_itself=isinstance(self.adjustment, str),
        )

    def _make_sampler(self, data, seed):
        group = data.train.group.numpy()
        if self.balance == "sampling":
            p = sampling_probabilities(group, n_groups=data.train.n_groups)
            return WeightedSampler(p, seed=seed)
        if self.balance == "batches":
            return BalancedBatchSampler(group, batch_size=self.batch_size, seed=seed)
        return UniformSampler(len(group), seed=seed)

    def _learned(self, data, objective, sampler):
        return {
            "group_weights_": objective.log_q.exp().cpu().numpy().astype(np.float64),
            "adjustment_": objective.adjustment.cpu().numpy().astype(np.float64),
        }

    def _adjustment_of_groups(self, groups):
        """C_g in the order of the groups."""
        n_groups = len(groups)
        if isinstance(self.adjustment, str):
            return np.zeros(n_groups)
        if isinstance(self.adjustment, Mapping):
            missing = [g for g in groups.tolist() if g not in self.adjustment]
            if missing:
                raise ValueError(
                    f"adjustment has no value for the groups {missing[:5]}. Give one for each "
                    f"of {groups.tolist()[:20]}."
                )
            return np.array([self.adjustment[g] for g in groups.tolist()], dtype=float)
        adjustment = np.asarray(self.adjustment, dtype=float)
        if adjustment.ndim and adjustment.shape != (n_groups,):
            raise ValueError(
                f"adjustment has shape {adjustment.shape}; give one number, or one for each of "
                f"the {n_groups} groups, in the order of groups_."
            )
        return np.broadcast_to(adjustment, n_groups).copy()


def _check_has_validation_groups(data):
    used = data.used_group_labels
    if data.valid is None or data.valid.group is None:
        raise ValueError(
            "adjustment='auto' needs the losses of validation groups. Give X_val, y_val and "
            "sample_group_val, or set early_stopping=True to keep samples aside."
        )
    if used["train"] != used["validation"]:
        raise ValueError(
            "adjustment='auto' compares a group's losses in training and validation, but one "
            "side has given groups and the other inferred ones. Give both or neither."
        )


class _GroupDROLoss(Objective):
    """``sum_g q_g L_g``, with q updated first and its new value weighting the gradient."""

    def __init__(
        self,
        group_size,
        adjustment,
        *,
        step_size,
        absent_group,
        cvar_alpha=None,
        adjusts_itself=False,
    ):
        super().__init__()
        size = torch.as_tensor(np.asarray(group_size), dtype=torch.float32)
        self.register_buffer("group_size", size)
        self.register_buffer("adjustment", torch.as_tensor(adjustment, dtype=torch.float32))
        # q starts uniform over the groups that occur; log 0 for those that never do.
        self.register_buffer("log_q", torch.log_softmax(torch.where(size > 0, 0.0, -torch.inf), 0))
        self.register_buffer("running_loss", torch.full_like(size, torch.nan))
        self.step_size = step_size
        self.absent_group = absent_group
        self.cvar_alpha = cvar_alpha  # None is the exponentiated update
        self.adjusts_itself = adjusts_itself  # after each epoch, by the validation groups' losses

    def coefficients(self, losses, batch, runtime):
        group = batch["group"]
        weight = torch.ones_like(losses) if batch["weight"] is None else batch["weight"]
        sums = group_sums(torch.stack([weight * losses, weight]), group, len(self.group_size))
        loss_sum, counts = runtime.all_reduce(sums)
        self._update(group_mean_losses(loss_sum, counts), counts)
        return group_coefficients(group, weight, self.log_q.exp(), counts)

    @property
    def is_convex(self):
        return not self.adjusts_itself

    def equal_coefficients(self, batch, runtime):
        group, weight = batch["group"], batch["weight"]
        counts = group_sums(weight, group, len(self.group_size))
        return group_coefficients(group, weight, self.log_q.double().exp(), counts)

    def fit_head(self, head, batch, share):
        """The minimum of ``max over q of sum_g q_g A_g``, by the update of q between whole fits.

        With the head refitted at every step, ``min over w of max over q of sum_g q_g A_g -
        KL(q, last q) / eta``, the exponentiated update is the proximal method of Rockafellar, which
        ends at the saddle point. There ``sum_g q_g A_g`` is as large as the worst ``A_g``.
        """
        group, weight, n_groups = batch["group"], batch["weight"], len(self.group_size)
        if self.step_size == 0 and self.cvar_alpha is None:
            super().fit_head(head, batch, share)
            return
        size, adjustment, log_q = (
            value.double() for value in (self.group_size, self.adjustment, self.log_q)
        )
        counts = group_sums(weight, group, n_groups)
        most = size / size.sum() / (self.cvar_alpha or 1e-9)  # that a group may weigh

        def adjusted(losses):
            mean = group_mean_losses(group_sums(weight * losses, group, n_groups), counts)
            return adjusted_group_loss(mean, size, adjustment)

        def reduce(losses):
            loss = adjusted(losses)
            new = _normalised(log_q + eta * loss, most)
            q = new.exp()
            value = q @ (loss - torch.where(q > 0, new - log_q, 0.0) / eta)
            return value, group_coefficients(group, weight, q, counts)

        eta = _HEAD_STEP
        for _ in range(_HEAD_STEPS):
            loss = adjusted(head.minimise(reduce, _HEAD_TOLERANCE))
            log_q = _normalised(log_q + eta * loss, most)
            eta *= 2
            worst = cvar_group_weights(loss, size, self.cvar_alpha or 1e-9) @ loss
            if worst - log_q.exp() @ loss < _HEAD_GAP:
                break
        self.log_q.copy_(log_q)

    def _update(self, group_loss, counts):
        """One step of the group weights from the group losses of a batch."""
        running = self.running_loss
        if self.absent_group == "ema" or self.cvar_alpha is not None or self.adjusts_itself:
            mixed = torch.where(running.isnan(), group_loss, 0.9 * running + 0.1 * group_loss)
            running.copy_(torch.where(counts > 0, mixed, running))
        size, adjustment = self.group_size, self.adjustment
        if self.cvar_alpha is not None:
            adjusted = adjusted_group_loss(running.nan_to_num(0.0), size, adjustment)
            self.log_q.copy_(cvar_group_weights(adjusted, size, self.cvar_alpha).log())
            return
        if self.absent_group == "ema":
            group_loss = torch.where(counts > 0, group_loss, running.nan_to_num(0.0))
        adjusted = adjusted_group_loss(group_loss, size, adjustment)
        if self.absent_group == "skip":
            adjusted = torch.where(counts > 0, adjusted, 0.0)
        self.log_q.copy_(update_group_weights(self.log_q, adjusted, self.step_size))

    def end_epoch(self, row):
        if not self.adjusts_itself:
            return
        valid = [row[f"valid_loss_group_{g}"] for g in range(len(self.group_size))]
        gap = torch.tensor(valid).to(self.running_loss) - self.running_loss
        new = gap * self.group_size.sqrt()
        self.adjustment.copy_(torch.where(new.isfinite(), new, self.adjustment))

    def log(self):
        return {f"group_weight_group_{g}": q for g, q in enumerate(self.log_q.exp().tolist())}


def _normalised(log_q, most):
    """Weights that sum to 1, in log space, none of them above the most that it may be."""
    is_full = torch.zeros_like(most, dtype=torch.bool)
    new = log_q.log_softmax(0)
    while (is_above := new.exp() > most * (1 + 1e-12)).any():
        is_full |= is_above
        left = 1 - most[is_full].sum()
        rest = torch.where(is_full, -torch.inf, log_q).log_softmax(0) + left.log()
        new = torch.where(is_full, most.log(), rest)
    return new
