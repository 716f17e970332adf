"""Learning from failure: a biased network is trained along, and shows what is hard for it."""

import math
from numbers import Real

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from skspurious._engine._modules import forward, last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._training import Trained, check_module, loop_config, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.functional._relative_difficulty import (
    generalised_cross_entropy,
    relative_difficulty,
)
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval
from skspurious.utils._warnings import warn

_STEPS, _BATCH_SIZE = 400, 32  # of linear heads


@extends(BaseTorchClassifier)
class LfFClassifier(BaseTorchClassifier):
    """Learning from failure (LfF): a second network learns what a biased one fails on [1]_.

    Two networks are trained at once. The biased one minimises the generalised cross-entropy
    ``(1 - p ** q) / q``, which follows the samples that it fits already and so the shortcut. The
    other one, which is kept, minimises its cross-entropy times the relative difficulty
    ``W = b / (b + d)`` of each sample, where b and d are running means of the losses of the biased
    and of the other network, each as a share of the largest in its class.

    .. versionadded:: 0.1

    Parameters
    ----------
    q : float, default=0.7
        Of the biased network's loss, in (0, 1]: the larger, the more it follows what is easy.
    ema : float, default=0.7
        Share of the old value in the running mean of each sample's loss, in [0, 1).
    shared parameters

    Attributes
    ----------
    biased_module_ : nn.Module
        The biased network, on the CPU, in evaluation mode.
    relative_difficulty_ : ndarray of shape (n_samples,)
        W of each row of ``X`` at the end of training; NaN for rows that were kept aside.
    shared attributes

    See Also
    --------
    JTTClassifier : The first network is trained before the second, and its errors count more.

    Notes
    -----
    Needs no groups. ``max_epochs`` passes over the data, twice as long as those of plain training.
    Losses and accuracies in ``history_``, and the best epoch, are those of the network that is
    kept. The two networks start from weights of different seeds; from the same ones where `module`
    is an instance or a fitted classifier. ``max_grad_norm`` limits the norm over both. A
    ``criterion`` is the loss of the network that is kept; W is made of cross-entropies.

    A shortcut that is not the easier rule is not found: the biased network must learn it first.
    Label noise is hard for the biased network too, and counts more. The samples that remain of
    large W can be told apart by the reversed shortcut, above all with two classes: trained for
    long, the network learns it, and fails on the majority. Then it is warned. Fewer epochs help,
    or validation samples with groups, which choose the epoch.

    Two linear heads (``module=None``) of which nothing says how they are to be stepped get 400
    steps or an epoch, of 32 samples, at a rate of at most 0.1 and 12.8 / n_features, with a weight
    decay of at most 0.01 and 1 / n_features.

    As in the authors' code, the losses in W are running means, divided by the largest of their
    class over all samples, which the paper leaves to its appendix. There the generalised
    cross-entropy has another factor q, which is a matter of the biased network's learning rate.

    References
    ----------
    .. [1] J. Nam, H. Cha, S. Ahn, J. Lee, J. Shin, "Learning from Failure: Training Debiased
       Classifier from Biased Classifier", NeurIPS 2020. arXiv:2007.02561.

    Examples
    --------
    >>> from skspurious import LfFClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = LfFClassifier(lr=0.1, max_epochs=5, random_state=0).fit(train.data, train.target)
    >>> is_minority = train.sample_group % 3 > 0
    >>> hard = clf.relative_difficulty_
    >>> bool(hard[is_minority].mean() > hard[~is_minority].mean())
    True
    """

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "q": [Interval(Real, 0, 1, closed="right")],
        "ema": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(self, module=None, *, q=0.7, ema=0.7, **shared):
        super().__init__(module, **shared)
        self.q = q
        self.ema = ema

    def _train(self, module, data, runtime, seeds):
        seed = int(np.random.default_rng(seeds).integers(2**31 - 1))
        biased = self._initial_module(data, seed=seed)
        check_module(self, biased, data, runtime)
        pair = _Pair(module, biased)
        objective = _LfFLoss(data.train.y, len(data.classes), self.q, self.ema)
        # The seeds are those of plain training.
        sampler = UniformSampler(len(data.train), seed=seeds[0])
        changes = {}
        if loop_config(self, data.train).is_open:
            changes = _steps_of_heads(len(data.train), module)
        stage = Stage("", objective, sampler, seed=seeds[1], changes=changes)
        result = run_stage(self, pair, stage, data.train, data.valid, runtime)
        kept = result.history[(result.best_epoch or len(result.history)) - 1]
        _warn_if_reversed(kept["train_accuracy"], objective)
        difficulty = objective.difficulty().cpu().double().numpy()
        learned = {
            "biased_module_": biased.cpu(),
            "relative_difficulty_": data.on_rows(difficulty, np.nan),
        }
        return Trained(module, result.history, result.best_epoch, learned)


def _steps_of_heads(n_samples, head):
    """How two linear heads are stepped where nothing says it: they have no minimum to go to.

    As many steps whatever the number of samples, and the more features there are the shorter ones
    and the weaker a penalty, which keeps the losses of what is easy from vanishing beside those of
    what is hard.
    """
    n_features = last_linear(head)[1].in_features
    n_batches = math.ceil(n_samples / _BATCH_SIZE)
    return {
        "lr": min(0.1, 12.8 / n_features),
        "batch_size": _BATCH_SIZE,
        "weight_decay": min(0.01, 1 / n_features),
        "max_epochs": math.ceil(_STEPS / n_batches),
    }


def _warn_if_reversed(accuracy, objective):
    """Warn where the network that is kept fails on what the biased one is right about."""
    debiased, biased = objective.running.nanmean(1).tolist()
    if accuracy < 1 / objective.n_classes and biased < debiased / 2:
        warn(
            f"the network is right on {accuracy:.0%} of the training samples, fewer than by "
            "chance: it has learned the reverse of the shortcut. Lower max_epochs or lr, or give "
            "X_val, y_val and sample_group_val, which choose the epoch."
        )


class _Pair(nn.Module):
    """Two networks in one; in training it gives the logits of both, (b, 2, n_classes).

    In evaluation it is the network that is kept.
    """

    def __init__(self, debiased, biased):
        super().__init__()
        self.debiased, self.biased = debiased, biased

    def forward(self, *args, **named):
        inputs = named or args[0]
        logits = forward(self.debiased, inputs)
        if not self.training:
            return logits
        return torch.stack([logits, forward(self.biased, inputs)], dim=1)


class _LfFLoss(Objective):
    """Mean of ``W * CE`` of the network that is kept, and of ``GCE`` of the biased one."""

    def __init__(self, y, n_classes, q, ema):
        super().__init__()
        self.register_buffer("y", y.clone())
        # Running means of the losses, of the kept and of the biased network; NaN is never seen.
        self.register_buffer("running", torch.full((2, len(y)), torch.nan))
        self.n_classes, self.q, self.ema = n_classes, q, ema

    def forward(self, module, batch, runtime):
        with runtime.autocast():
            logits = forward(module, batch["X"])
        logits, y = logits.float(), batch["y"]
        debiased, biased = (F.cross_entropy(part, y, reduction="none") for part in logits.unbind(1))
        with torch.no_grad():
            self._follow(torch.stack([debiased, biased]), batch, runtime)
            weight = self.difficulty()[batch["position"]]
            share = self.coefficients(debiased, batch, runtime)  # of a mean
        losses = debiased if self.criterion is None else self.sample_losses(logits[:, 0], y)
        total = (share * weight * losses).sum()
        total = total + (share * generalised_cross_entropy(biased, self.q)).sum()
        return total, losses, logits[:, 0]

    def _follow(self, losses, batch, runtime):
        """Move the running means of a batch's samples, in all processes alike."""
        at = batch["position"]
        old = self.running[:, at]
        new = torch.where(old.isnan(), losses, self.ema * old + (1 - self.ema) * losses)
        is_real = torch.ones_like(losses[0]) if batch["is_real"] is None else batch["is_real"]
        # A sample that fills up a batch is another process's, and moves nothing.
        moved = torch.zeros(3, self.running.shape[1], device=losses.device)
        moved[:, at] = torch.cat([new, torch.ones_like(new[:1])]) * is_real
        *sums, count = runtime.all_reduce(moved)
        mean = torch.stack(sums) / count
        self.running.copy_(torch.where(count > 0, mean, self.running))

    def difficulty(self):
        """W of all training samples; 1/2 for those that were never seen."""
        debiased, biased = self.running.nan_to_num(0.0)
        return relative_difficulty(biased, debiased, self.y, self.n_classes)
