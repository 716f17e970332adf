"""Automatic feature reweighting: a new last layer on samples that the network fits badly."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch

from skspurious._engine._modules import last_linear
from skspurious._prediction import read_embedding
from skspurious._training import Trained
from skspurious.base import BaseTorchClassifier
from skspurious.functional._metrics import group_means
from skspurious.functional._reweighted_head import afr_weights, fit_head_near
from skspurious.mitigation._stages import train_on_part
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval

_GAMMA = 1.0  # where no groups choose it: the least that the paper tries, on CelebA


@extends(BaseTorchClassifier)
class AFRClassifier(BaseTorchClassifier):
    """Automatic feature reweighting (AFR): a new last layer for what a network fits badly [1]_.

    A network is trained plainly on most of the samples. On the others, which it has not seen, its
    last layer is fitted anew, and stays near the old one: with p_i the probability that the first
    network gives to the class of sample i, and n the sizes of the classes,
    ``weight_i = exp(-gamma * p_i) / n[y_i]``, normalised to the sum 1, and the new head W minimises
    ``sum weight_i * loss_i(W) + l2_penalty * ||W - W_first||^2``.

    .. versionadded:: 0.1

    Parameters
    ----------
    gamma : float, default=None
        How much more badly fitted samples count; 0 balances the classes, no more. None chooses
        from `gammas` by the worst-group accuracy of the validation samples, where they have
        groups, and is 1 elsewhere.
    gammas : sequence of float, default=(0, 1, 2, 4, 8, 16)
        Values to choose from. Of equal ones the first is taken.
    l2_penalty : float, default=0.1
        Strength of the pull to the first head (lambda).
    holdout_fraction : float, default=0.2
        Share of the training samples, stratified by class, that the network is not trained on and
        the new head is fitted on.
    shared parameters

    Attributes
    ----------
    gamma_ : float
        The value that was used.
    tuning_ : DataFrame
        For each of `gammas` the worst-group accuracy and the accuracy on the validation samples;
        empty where none was chosen.
    reweighting_ : ndarray of shape (n_samples,)
        Weight of each row of ``X`` in the loss of the new head; 0 for rows that it was not fitted
        on.
    shared attributes

    See Also
    --------
    SELFClassifier : Fits the last layer on a few samples that networks disagree about.
    LastLayerRetrainer : Fits the last layer on samples that are balanced over groups.

    Notes
    -----
    Needs no groups in training. It needs them in validation: without groups to choose gamma by,
    it was measured to be no better than class balancing on frozen embeddings.

    ``max_epochs`` passes over the training part and one over the rest. ``max_epochs=0`` takes a
    network that is trained already, such as ``FrozenEstimator(fitted_classifier)``; give it
    samples that it was not trained on, for all are reweighted then. With ``module=None`` both
    heads are linear. ``history_`` is that of the first stage. A sample of weight w counts as w
    samples in both stages.

    The new head is at the minimum, intercepts included in the penalty. The paper takes full-batch
    gradient steps from the first head and stops early by the worst validation group, which is a
    penalty of its own, so that its lambda may be 0; here it is positive.

    References
    ----------
    .. [1] S. Qiu, A. Potapczynski, P. Izmailov, A. G. Wilson, "Simple and Fast Group Robustness
       by Automatic Feature Reweighting", ICML 2023. arXiv:2306.11074.

    Examples
    --------
    >>> from skspurious import AFRClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = AFRClassifier(gamma=2.0, random_state=0).fit(train.data, train.target)
    >>> int((clf.reweighting_ > 0).sum())
    100
    """

    # Qiu et al., ICML 2023, as the README of their repository has them. CelebA's lambda is 0, with
    # 100 steps: it is left at the default here.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 3e-3,
            "weight_decay": 1e-4,
            "batch_size": 32,
            "max_epochs": 40,
            "monitor": None,
            "gamma": 14.0,
            "l2_penalty": 0.2,
        },
        "celeba": {
            **RESNET50,
            "lr": 3e-3,
            "weight_decay": 1e-4,
            "lr_schedule": "cosine",
            "batch_size": 100,
            "max_epochs": 20,
            "monitor": None,
            "gamma": 1.8,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [
            *BaseTorchClassifier._parameter_constraints["max_epochs"],
            Interval(Integral, 0, None, closed="left"),
        ],
        "gamma": [Interval(Real, 0, None, closed="left"), None],
        "gammas": ["array-like"],
        "l2_penalty": [Interval(Real, 0, None, closed="neither")],
        "holdout_fraction": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        module=None,
        *,
        gamma=None,
        gammas=(0, 1, 2, 4, 8, 16),
        l2_penalty=0.1,
        holdout_fraction=0.2,
        **shared,
    ):
        super().__init__(module, **shared)
        self.gamma = gamma
        self.gammas = gammas
        self.l2_penalty = l2_penalty
        self.holdout_fraction = holdout_fraction

    def _train(self, module, data, runtime, seeds):
        held_out, _, first = train_on_part(self, module, data, runtime, seeds)
        module.to(runtime.device).eval()
        layer = last_linear(module)[1]

        def embed(samples):
            Z = read_embedding(self, module, samples.samples, runtime, len(data.classes))
            Z = Z.cpu() if Z.device.type == "mps" else Z  # MPS has no float64
            Z = Z.double()
            return Z if layer.bias is None else torch.cat([Z, Z.new_ones(len(Z), 1)], 1)

        part = data.train.take(held_out)
        Z, y = embed(part), part.y
        y = y.to(Z.device)
        start = torch.cat(
            [p.detach().reshape(len(data.classes), -1) for p in layer.parameters()], 1
        )
        start = start.to(Z)
        p = (Z @ start.T).softmax(1).gather(1, y[:, None])[:, 0]

        def refit(gamma):
            weight = afr_weights(p, y, gamma, len(data.classes), part.weight)
            return fit_head_near(Z, y, weight, start, self.l2_penalty), weight

        gamma, tuning = self.gamma, pd.DataFrame()
        if gamma is None:
            gamma, tuning = self._choose_gamma(refit, data.valid, embed)
        head, weight = refit(gamma)
        with torch.no_grad():
            for parameter, new in zip(layer.parameters(), head.split(layer.in_features, 1)):
                parameter.copy_(new.reshape(parameter.shape))
        reweighting = np.zeros(len(data.train))
        reweighting[held_out] = weight.cpu().numpy()
        learned = {
            "gamma_": float(gamma),
            "tuning_": tuning,
            "reweighting_": data.on_rows(reweighting, 0.0),
        }
        history, best_epoch = ([], None) if first is None else (first.history, first.best_epoch)
        return Trained(module, history, best_epoch, learned)

    def _choose_gamma(self, refit, valid, embed):
        """The value of the best worst group, and a table of all."""
        grid = np.asarray(self.gammas, dtype=np.float64)
        if grid.ndim != 1 or len(grid) == 0 or not (grid >= 0).all():
            raise ValueError(
                f"gammas must be one or more numbers that are not negative; got {self.gammas!r}."
            )
        if valid is None or valid.group is None:
            return _GAMMA, pd.DataFrame()
        Z, y, group = embed(valid), valid.y.cpu().numpy(), valid.group.cpu().numpy()
        rows = []
        for gamma in grid:
            hit = (Z @ refit(gamma)[0].T).argmax(1).cpu().numpy() == y
            worst = np.nanmin(group_means(hit, group, valid.n_groups))
            rows.append({"gamma": gamma, "worst_group_accuracy": worst, "accuracy": hit.mean()})
        table = pd.DataFrame(rows)
        return grid[table["worst_group_accuracy"].to_numpy().argmax()], table
