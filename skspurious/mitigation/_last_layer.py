"""Deep feature reweighting: the head alone is fitted anew, on balanced samples."""

from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._prediction import read_embedding
from skspurious._preparation import groups_missing
from skspurious._training import Trained, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.functional._l1_logistic import LogisticHeads, fit_l1_logistic
from skspurious.functional._metrics import group_means
from skspurious.functional._split import balanced_subset, stratified_split
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn

_CHUNK = 2**16  # rows that are standardised at a time
_FEW_NUMBERS = 2**24  # of an embedding on which the heads of all draws are fitted together


@extends(BaseTorchClassifier)
class LastLayerRetrainer(BaseTorchClassifier):
    """Deep feature reweighting (DFR): retrains the last layer on balanced samples [1]_.

    A network that relies on a shortcut has usually learned the core features as well; only its
    last layer weighs them wrongly. So the backbone stays as it is, and a sparse logistic
    regression on its standardised embeddings is fitted on samples that are balanced over the
    groups, best on samples that the backbone was not trained on: ``X_val``.

    .. versionadded:: 0.1

    Parameters
    ----------
    retrain_on : {"auto", "validation", "train"}, default="auto"
        Samples that the head is fitted on; their groups are needed. "auto" is ``X_val`` if it is
        given (DFR-Val), otherwise the training samples (DFR-Tr, clearly weaker for a network that
        was trained on them).
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
        classes one row, for the logit of the second; the two outputs of ``module_`` are minus and
        plus half of this logit.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Intercepts of the averaged head.
    C_ : float
        The inverse strength of the final heads.
    tuning_ : DataFrame
        For each of ``Cs`` the worst-group accuracy (mean and standard deviation over the
        splits), the accuracy and the number of weights that are not zero; empty if ``C`` is
        given.
    n_iter_ : int
        Iterations of the final head that took the most.
    mean_, scale_ : ndarray of shape (n_embedding,)
        Mean and scale by which the embeddings are standardised.
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
    shared parameters train the network first, as :class:`ERMClassifier` does, and ``X_val`` also
    chooses its best epoch; the paper keeps the last one (``monitor=None``).
    ``max_epochs=0`` takes a network that is trained already, such as
    ``FrozenEstimator(fitted_classifier)``. ``max_epochs`` passes over the data and one, in
    evaluation mode, over the samples of the head. Parameters and batch statistics below the
    last layer do not change. ``history_`` is that of the network, empty where none is trained.

    The objective is that of scikit-learn, ``||W||_1 + C * sum of losses``. Differences from the
    authors' code: its liblinear penalises the intercept and fits several classes one against
    the rest, here the intercept is free and several classes are one softmax; it standardises by
    different samples in tuning and in the final fit, and chooses ``C`` on one split. Samples are
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
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "retrain_on": [StrOptions({"auto", "validation", "train"})],
        "Cs": ["array-like"],
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "n_tuning_splits": [Interval(Integral, 1, None, closed="left")],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "penalty": [StrOptions({"l1", "l2"})],
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
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def _train(self, module, data, runtime, seeds):
        is_on_validation = self._retrains_on_validation(data)
        retrain = data.valid if is_on_validation else data.train
        history, best_epoch = self._train_network(module, data, runtime, seeds)
        module.to(runtime.device).eval()

        def embed(samples):
            return read_embedding(self, module, samples.samples, runtime, len(data.classes))

        Z = embed(retrain)
        scaler = StandardScaler()
        for part in Z.split(_CHUNK):
            scaler.partial_fit(part.cpu().numpy())
        scorer = None
        if not is_on_validation and data.valid is not None and data.valid.group is not None:
            scorer = _HeadData(embed(data.valid), data.valid, scaler)
        heads = _HeadSearch(self, data.classes, _HeadData(Z, retrain, scaler), scorer)
        learned = heads.fit(seeds[0])
        # The standardisation is folded into the head.
        learned["coef_"] = learned["coef_"] / scaler.scale_
        learned["intercept_"] = learned["intercept_"] - learned["coef_"] @ scaler.mean_
        _set_head(last_linear(module)[1], learned["coef_"], learned["intercept_"])
        learned |= {"mean_": scaler.mean_, "scale_": scaler.scale_}
        if is_on_validation:  # groups of the training samples had no part in it
            learned["used_group_labels_"] = {**data.used_group_labels, "train": False}
        return Trained(module, history, best_epoch, learned)

    def _retrains_on_validation(self, data):
        """Whether the head is fitted on the samples of ``X_val``."""
        is_given = data.valid is not None and not data.is_split
        return self.retrain_on == "validation" or (self.retrain_on == "auto" and is_given)

    def _check_data(self, data):
        name, classes = type(self).__name__, data.classes
        is_on_validation = self._retrains_on_validation(data)
        samples = data.valid if is_on_validation else data.train
        if samples is None or (is_on_validation and data.is_split):
            raise ValueError(
                "retrain_on='validation' needs fit(..., X_val=, y_val=, sample_group_val=)."
            )
        if samples.group is None and is_on_validation:
            raise ValueError(
                f"{name} fits its head on X_val and needs the group of each of its samples: give "
                "sample_group_val, or X_val as GroupedData(X, g), or groups of the training "
                "samples with retrain_on='train'."
            )
        if samples.group is None:
            raise ValueError(groups_missing(name))
        missing = np.setdiff1d(np.arange(len(classes)), samples.y.numpy())
        if len(missing):
            raise ValueError(
                f"the samples that the head is fitted on have none of the classes "
                f"{classes[missing][:5].tolist()}. Give some of each class."
            )

    def _train_network(self, module, data, runtime, seeds):
        """Plain training; nothing for embeddings and for a network that is trained already."""
        if self.module is None or self.max_epochs == 0:
            return [], None
        sampler = UniformSampler(len(data.train), seed=seeds[0])
        stage = Stage("", Objective(), sampler, seed=seeds[1])
        result = run_stage(self, module, stage, data.train, data.valid, runtime)
        return result.history, result.best_epoch


class _HeadSearch:
    """Choose C on random halvings, and average the heads of balanced draws.

    Parameters
    ----------
    estimator : LastLayerRetrainer
        Gives the parameters.
    classes : ndarray
        Class labels.
    data : _HeadData
        What the heads are fitted on.
    scorer : _HeadData or None
        What they are judged on; None judges on the other half of ``data``.
    """

    def __init__(self, estimator, classes, data, scorer):
        self.estimator, self.data, self.scorer = estimator, data, scorer
        self.n_classes = len(classes)
        self.class_weight = _weight_of_codes(estimator.class_weight, classes)

    def fit(self, seed):
        """Learned attributes, the head for standardised embeddings."""
        estimator, data = self.estimator, self.data
        tuning_rng, draw_rng = (np.random.default_rng([seed, i]) for i in range(2))
        C, tuning = estimator.C, pd.DataFrame()
        if C is None:
            tuning = self._tune(tuning_rng)
            C = float(tuning["C"][tuning["worst_group_accuracy"].to_numpy().argmax()])
        sizes = np.bincount(data.cell)
        n_draws = estimator.n_draws if len(np.unique(sizes[sizes > 0])) > 1 else 1  # all the same
        draws = [balanced_subset(data.cell, draw_rng) for _ in range(n_draws)]
        heads = self._solve(draws, C=float(C), start=None)
        n_bad = int((heads.violation > estimator.tol).sum())
        if n_bad:
            warn(
                f"{n_bad} of {n_draws} heads did not reach tol={estimator.tol} in "
                f"max_iter={estimator.max_iter} iterations. Raise one of them.",
                ConvergenceWarning,
            )
        return {
            "C_": C,
            "tuning_": tuning,
            "n_iter_": max(1, int(heads.n_iter.max())),
            "coef_": heads.coef.mean(0).cpu().numpy(),
            "intercept_": heads.intercept.mean(0).cpu().numpy(),
        }

    def _tune(self, rng):
        """A table of heads along the grid, each value starting from the one below."""
        grid = np.asarray(self.estimator.Cs, dtype=np.float64)
        if grid.ndim != 1 or len(grid) == 0 or not (grid > 0).all():
            raise ValueError(f"Cs must be one or more positive numbers; got {self.estimator.Cs!r}.")
        draws, judged = self._split(rng)
        target = self.data if self.scorer is None else self.scorer
        rows, heads = {}, None
        for i in np.argsort(grid, kind="stable"):
            heads = self._solve(draws, C=float(grid[i]), start=heads)
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
        return pd.DataFrame([rows[i] for i in range(len(grid))])

    def _split(self, rng):
        """For each halving the rows that a head is fitted on, and those that it is judged on."""
        cell, draws, judged = self.data.cell, [], []
        for _ in range(self.estimator.n_tuning_splits):
            fit_rows = score_rows = np.arange(len(self.data))
            if self.scorer is not None:
                score_rows = np.arange(len(self.scorer))
            else:
                fit_rows, score_rows = stratified_split(cell, 0.5, rng)
                if len(score_rows) == 0:
                    raise ValueError(
                        "every group has one sample, so none is left to choose C on. Give C, or "
                        "more samples."
                    )
            draws.append(fit_rows[balanced_subset(cell[fit_rows], rng)])
            judged.append(score_rows)
        return draws, judged

    def _solve(self, draws, *, C, start):
        """One head for each draw; of many rows one after the other, each on the rows it has."""
        data = self.data
        if data.Z.numel() <= _FEW_NUMBERS:
            return self._solve_on(np.arange(len(data)), draws, C=C, start=start)
        found = []
        for head, rows in enumerate(draws):
            own = None if start is None else LogisticHeads(*(v[head : head + 1] for v in start))
            found.append(self._solve_on(rows, [np.arange(len(rows))], C=C, start=own))
        return LogisticHeads(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _solve_on(self, rows, draws, *, C, start):
        """Heads of draws among some rows."""
        Z, y = self.data.standardise(rows), self.data.y[rows]
        weight = Z.new_zeros(len(draws), len(rows))
        for head, drawn in enumerate(draws):
            of_class = compute_sample_weight(self.class_weight, y[drawn])
            weight[head, drawn] = torch.as_tensor(of_class * self.data.weight[rows][drawn]).to(
                weight
            )
        return fit_l1_logistic(
            Z,
            torch.as_tensor(y, device=Z.device),
            C=C,
            n_classes=self.n_classes,
            sample_weight=weight,
            penalty=self.estimator.penalty,
            start=start,
            tol=self.estimator.tol,
            max_iter=self.estimator.max_iter,
        )


def _weight_of_codes(class_weight, classes):
    """Class weights of codes instead of labels."""
    if not isinstance(class_weight, dict):
        return class_weight
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(f"class_weight has the classes {unknown[:5]}, which are not in y.")
    return {code: class_weight.get(label, 1.0) for code, label in enumerate(labels)}


class _HeadData:
    """Embeddings with labels, groups, and the cells that are balanced."""

    def __init__(self, Z, samples, scaler):
        self.Z = Z.cpu() if Z.device.type == "mps" else Z  # MPS has no float64
        self.mean, self.scale = (
            self.Z.new_tensor(v, dtype=torch.float64) for v in (scaler.mean_, scaler.scale_)
        )
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

    def standardise(self, rows):
        """Standardised embeddings of some rows, in float64."""
        Z = self.Z if len(rows) == len(self) else self.Z[torch.as_tensor(rows)]
        return Z.double().sub_(self.mean).div_(self.scale)

    def hits(self, heads):
        """Which samples each head predicts right, (n_heads, n_samples)."""
        return np.concatenate(
            [
                self._hits(heads, rows)
                for rows in np.split(np.arange(len(self)), np.arange(_CHUNK, len(self), _CHUNK))
            ],
            axis=1,
        )

    def _hits(self, heads, rows):
        Z = self.standardise(rows)
        logits = torch.einsum("nd,hkd->hnk", Z, heads.coef) + heads.intercept[:, None]
        predicted = (logits[..., 0] > 0).long() if logits.shape[2] == 1 else logits.argmax(2)
        return predicted.cpu().numpy() == self.y[rows]


def _set_head(layer, coef, intercept):
    """Write a head into a linear layer; one logit becomes two, half of it each."""
    if len(coef) == 1:
        coef, intercept = np.stack([-coef[0], coef[0]]) / 2, np.repeat(intercept, 2) * [-0.5, 0.5]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(coef))
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_empty(len(intercept)))
        layer.bias.copy_(torch.from_numpy(intercept))
