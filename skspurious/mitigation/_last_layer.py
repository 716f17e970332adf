"""Deep feature reweighting: the head alone is fitted anew, on balanced samples."""

import warnings
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from skspurious._engine._loop import LoopResult, Objective
from skspurious._engine._modules import last_linear
from skspurious._engine._samplers import UniformSampler
from skspurious.base import BaseTorchClassifier, _groups_missing
from skspurious.functional._l1_logistic import fit_l1_logistic
from skspurious.functional._metrics import group_means
from skspurious.functional._split import balanced_subset, stratified_split
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions


@extends(BaseTorchClassifier)
class LastLayerRetrainer(BaseTorchClassifier):
    """Deep feature reweighting (DFR): retrains the last layer on balanced samples [1]_.

    A network that relies on a shortcut has usually learned the core features as well; only its
    last layer weighs them wrongly. So the backbone stays as it is, and a sparse logistic
    regression on its standardised embeddings is fitted on samples that are balanced over the
    groups, best on samples that the backbone was not trained on: the ``eval_set``.

    .. versionadded:: 0.1

    Parameters
    ----------
    retrain_on : {"auto", "eval_set", "train"}, default="auto"
        What the head is fitted on, whose groups are needed. "auto" is the ``eval_set`` if one is
        given (DFR-Val), otherwise the training samples (DFR-Tr, clearly weaker for a network
        that was trained on them).
    Cs : sequence of float, default=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
        Inverse strengths of the penalty to choose from.
    C : float, default=None
        One inverse strength; None chooses from ``Cs`` by the worst-group accuracy.
    n_tuning_splits : int, default=5
        Random halvings of the samples on which ``C`` is chosen: the head is fitted on a balanced
        part of one half and judged on the other; the mean counts, ties go to the first of
        ``Cs``. With ``retrain_on="train"`` and validation samples with groups: balanced draws
        of the training samples, judged on all validation samples.
    n_draws : int, default=20
        Balanced draws (R) of the samples, each with as many of every group as the smallest has.
        One head is fitted on each, and the heads are averaged.
    penalty : {"l1", "l2"}, default="l1"
        Penalty of the head.
    scaler_on : {"retrain", "train"}, default="retrain"
        Samples whose mean and standard deviation standardise the embeddings, everywhere the
        same: those that the head is fitted on, or the training samples.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the head's loss.
    tol : float, default=1e-3
        How far the heads may be from their optimality conditions, as a share of the penalty.
    max_iter : int, default=5000
        Iterations at most for each value of the inverse strength.
    shared parameters

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_embedding) or (n_classes, n_embedding)
        The averaged head, for embeddings as they are: the standardisation is folded in. For two
        classes the logit of the second, of which the last layer of ``module_`` has the halves.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Its intercepts.
    C_ : float
        The inverse strength of the final heads.
    tuning_ : DataFrame
        For each of ``Cs`` the worst-group accuracy (mean and standard deviation over the
        splits), the accuracy and the number of weights that are not zero; empty if ``C`` is
        given.
    n_iter_ : int
        Iterations of the final head that took the most.
    mean_, scale_ : ndarray of shape (n_embedding,)
        What the embeddings are standardised by.
    shared attributes

    See Also
    --------
    BalancedRetrainer : Retrains the whole network.
    GroupDROClassifier : Minimises the loss of the worst group.

    Notes
    -----
    Needs the groups of the samples that the head is fitted on, and of no others; a small set is
    enough.

    With ``module=None`` the samples are embeddings and nothing else is trained. Otherwise the
    shared parameters train the network first, as :class:`ERMClassifier` does, of which the
    ``eval_set`` also chooses the best epoch; the paper keeps the last one (``monitor=None``).
    ``max_epochs=0`` takes a network that is trained already, such as
    ``FrozenEstimator(fitted_classifier)``. ``max_epochs`` passes over the data and one, in
    evaluation mode, over the samples of the head. Parameters and batch statistics below the
    last layer do not change. ``history_`` is that of the network, empty where none is trained.

    The objective is that of scikit-learn, ``||W||_1 + C * sum of losses``. Differences from the
    authors' code: its liblinear penalises the intercept and fits several classes one against
    the rest, here the intercept is free and several classes are one softmax; its tuning and its
    final fit standardise by different samples, and ``C`` is chosen on one split. Samples are
    balanced over the groups inside each class, also where groups are not nested in classes; the
    halves are stratified. Class weights are not tuned.

    References
    ----------
    .. [1] P. Kirichenko, P. Izmailov, A. G. Wilson, "Last Layer Re-Training is Sufficient for
       Robustness to Spurious Correlations", ICLR 2023. arXiv:2204.02937.

    Examples
    --------
    >>> from skspurious import LastLayerRetrainer
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = LastLayerRetrainer(n_draws=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target, sample_group=train.sample_group)
    >>> clf.used_group_labels_
    {'train': True, 'validation': False}
    """

    # Kirichenko et al., ICLR 2023, as its repository has them; the last epoch is kept.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 1e-3,
            "weight_decay": 1e-3,
            "batch_size": 32,
            "max_epochs": 100,
            "monitor": None,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-3,
            "weight_decay": 1e-4,
            "batch_size": 128,
            "max_epochs": 50,
            "monitor": None,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "retrain_on": [StrOptions({"auto", "eval_set", "train"})],
        "Cs": ["array-like"],
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "n_tuning_splits": [Interval(Integral, 1, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "penalty": [StrOptions({"l1", "l2"})],
        "scaler_on": [StrOptions({"retrain", "train"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        module=None,
        *,
        retrain_on="auto",
        Cs=(1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01),
        C=None,
        n_tuning_splits=5,
        n_draws=20,
        penalty="l1",
        scaler_on="retrain",
        class_weight=None,
        tol=1e-3,
        max_iter=5000,
        **shared,
    ):
        super().__init__(module, **shared)
        self.retrain_on = retrain_on
        self.Cs = Cs
        self.C = C
        self.n_tuning_splits = n_tuning_splits
        self.n_draws = n_draws
        self.penalty = penalty
        self.scaler_on = scaler_on
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def _encode_eval_set(self, eval_set, train):
        self._fits_eval_set = self.retrain_on == "eval_set" or (
            self.retrain_on == "auto" and eval_set is not None
        )
        valid = super()._encode_eval_set(eval_set, train)
        self._check_retraining_samples(valid if self._fits_eval_set else train)
        return valid

    def _check_retraining_samples(self, samples):
        """Raise, before the network is trained, where its head could not be."""
        name = type(self).__name__
        if samples is None:
            raise ValueError("retrain_on='eval_set' needs fit(..., eval_set=(X, y, sample_group)).")
        if samples.group is None and self._fits_eval_set:
            raise ValueError(
                f"{name} fits its head on the eval_set and needs the group of each of its samples: "
                "give eval_set=(X, y, sample_group), or eval_set=(GroupedData(X, g), y), or "
                "groups of the training samples with retrain_on='train'."
            )
        if samples.group is None:
            raise ValueError(_groups_missing(name))
        missing = np.setdiff1d(np.arange(len(self.classes_)), samples.y.numpy())
        if len(missing):
            raise ValueError(
                f"the samples that the head is fitted on have none of the classes "
                f"{self.classes_[missing][:5].tolist()}. Give some of each class."
            )

    def _train(self, module, train, valid, runtime, seeds):
        result = self._train_network(module, train, valid, runtime, seeds)
        module.to(runtime.device).eval()
        if self._fits_eval_set:  # groups of the training samples had no part in it
            self.used_group_labels_["train"] = False
        retrain = valid if self._fits_eval_set else train
        head = last_linear(module)[1]
        Z = self._embed(module, retrain, runtime)
        of_scaler = Z
        if self.scaler_on == "train" and self._fits_eval_set:
            of_scaler = self._embed(module, train, runtime)
        std, mean = torch.std_mean(of_scaler, 0, correction=0)
        self.mean_ = mean.cpu().numpy()
        self.scale_ = torch.where(std > 1e-12 * (1 + mean.abs()), std, 1.0).cpu().numpy()
        scorer = None
        if not self._fits_eval_set and valid is not None and valid.group is not None:
            scorer = _HeadData(self._scale(self._embed(module, valid, runtime)), valid)
        self._fit_head(_HeadData(self._scale(Z), retrain), scorer, seeds[0])
        _set_head(head, self.coef_, self.intercept_)
        return module, result

    def _train_network(self, module, train, valid, runtime, seeds):
        """Plain training; nothing for embeddings and for a network that is trained already."""
        if self.module is None or self.max_epochs == 0:
            return LoopResult([], None, Objective())
        sampler = UniformSampler(len(train), seed=seeds[0])
        return self._run_stage(
            module, Objective(), sampler, train, valid, runtime, seed=seeds[1], stage="network"
        )

    def _embed(self, module, samples, runtime):
        """What the last layer is given, (n_samples, n_embedding), in float64."""
        Z = self._embedding(module, samples.samples, runtime)
        return (Z.cpu() if Z.device.type == "mps" else Z).double()  # MPS has no float64

    def _scale(self, Z):
        return (Z - Z.new_tensor(self.mean_)) / Z.new_tensor(self.scale_)

    def _fit_head(self, data, scorer, seed):
        """Choose C, and average the heads of balanced draws."""
        tuning_rng, draw_rng = (np.random.default_rng([seed, i]) for i in range(2))
        self.C_, self.tuning_ = self.C, pd.DataFrame()
        if self.C is None:
            self._tune(data, scorer, tuning_rng)
        sizes = np.bincount(data.cell)
        n_draws = self.n_draws if len(np.unique(sizes[sizes > 0])) > 1 else 1  # all the same
        draws = [balanced_subset(data.cell, draw_rng) for _ in range(n_draws)]
        heads = self._solve(data, draws, C=float(self.C_), start=None)
        if (heads.violation > self.tol).any():
            warnings.warn(
                f"{int((heads.violation > self.tol).sum())} of {n_draws} heads did not reach "
                f"tol={self.tol} in max_iter={self.max_iter} iterations. Raise one of them.",
                ConvergenceWarning,
                stacklevel=5,
            )
        self.n_iter_ = max(1, int(heads.n_iter.max()))
        coef = heads.coef.mean(0).cpu().numpy()
        self.coef_ = coef / self.scale_
        self.intercept_ = heads.intercept.mean(0).cpu().numpy() - self.coef_ @ self.mean_

    def _tune(self, data, scorer, rng):
        """Set C_ and tuning_ from heads along the grid, each value starting from the one below."""
        grid = np.asarray(self.Cs, dtype=np.float64)
        if grid.ndim != 1 or len(grid) == 0 or not (grid > 0).all():
            raise ValueError(f"Cs must be one or more positive numbers; got {self.Cs!r}.")
        draws, judged = [], []
        for _ in range(self.n_tuning_splits):
            fit_rows, score_rows = np.arange(len(data)), np.arange(len(data))
            if scorer is None:
                fit_rows, score_rows = stratified_split(data.cell, 0.5, rng)
                if len(score_rows) == 0:
                    raise ValueError(
                        "every group has one sample, so none is left to choose C on. Give C, or "
                        "more samples."
                    )
            draws.append(fit_rows[balanced_subset(data.cell[fit_rows], rng)])
            judged.append(score_rows)
        if scorer is not None:
            judged = [np.arange(len(scorer))] * self.n_tuning_splits
        target = data if scorer is None else scorer
        rows, heads = {}, None
        for i in np.argsort(grid, kind="stable"):
            heads = self._solve(data, draws, C=float(grid[i]), start=heads)
            hits = target.hits(heads)
            worst = [
                np.nanmin(group_means(hit[part], target.group[part], target.n_groups))
                for hit, part in zip(hits, judged, strict=True)
            ]
            rows[i] = {
                "C": grid[i],
                "worst_group_accuracy": np.mean(worst),
                "worst_group_accuracy_std": np.std(worst),
                "accuracy": np.mean([h[r].mean() for h, r in zip(hits, judged, strict=True)]),
                "n_nonzero": (heads.coef != 0).sum((1, 2)).double().mean().item(),
            }
        self.tuning_ = pd.DataFrame([rows[i] for i in range(len(grid))])
        self.C_ = float(grid[self.tuning_["worst_group_accuracy"].to_numpy().argmax()])

    def _solve(self, data, draws, *, C, start):
        """One head for each draw."""
        weight = data.Z.new_zeros(len(draws), len(data))
        for head, rows in enumerate(draws):
            of_class = compute_sample_weight(self._class_weight(), data.y[rows])
            weight[head, rows] = torch.as_tensor(of_class * data.weight[rows]).to(weight)
        return fit_l1_logistic(
            data.Z,
            torch.as_tensor(data.y, device=data.Z.device),
            C=C,
            n_classes=len(self.classes_),
            sample_weight=weight,
            penalty=self.penalty,
            start=start,
            tol=self.tol,
            max_iter=self.max_iter,
        )

    def _class_weight(self):
        """Class weights of codes instead of labels."""
        if not isinstance(self.class_weight, dict):
            return self.class_weight
        unknown = [label for label in self.class_weight if label not in self.classes_.tolist()]
        if unknown:
            raise ValueError(f"class_weight has the classes {unknown[:5]}, which are not in y.")
        return {
            code: self.class_weight.get(label, 1.0)
            for code, label in enumerate(self.classes_.tolist())
        }


class _HeadData:
    """Standardised embeddings with labels, groups, and the cells that are balanced."""

    def __init__(self, Z, samples):
        self.Z = Z
        self.y = samples.y.cpu().numpy()
        self.group, self.n_groups = samples.group.cpu().numpy(), samples.n_groups
        # Groups inside classes: no draw misses a class.
        self.cell = np.unique(self.y * self.n_groups + self.group, return_inverse=True)[1]
        self.weight = np.ones(len(self.y))
        if samples.weight is not None:
            weight = samples.weight.cpu().double().numpy()
            self.weight = weight / max(weight.mean(), 1e-12)  # their scale would act like C

    def __len__(self):
        return len(self.y)

    def hits(self, heads):
        """Which samples each head predicts right, (n_heads, n_samples)."""
        logits = torch.einsum("nd,hkd->hnk", self.Z, heads.coef) + heads.intercept[:, None]
        predicted = (logits[..., 0] > 0).long() if logits.shape[2] == 1 else logits.argmax(2)
        return predicted.cpu().numpy() == self.y


def _set_head(layer, coef, intercept):
    """Write a head into a linear layer; one logit becomes two, half of it each."""
    if len(coef) == 1:
        coef, intercept = np.stack([-coef[0], coef[0]]) / 2, np.repeat(intercept, 2) * [-0.5, 0.5]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(coef))
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_empty(len(intercept)))
        layer.bias.copy_(torch.from_numpy(intercept))
