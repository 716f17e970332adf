"""Deep feature reweighting: the head alone is fitted anew, on balanced samples."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._prediction import read_embedding
from skspurious._preparation import groups_missing
from skspurious._training import Trained, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.mitigation._last_layer_heads import HeadData, HeadSearch
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

_CHUNK = 2**16  # rows whose mean and scale are taken at a time


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
    Cs : "auto" or sequence of float, default="auto"
        Inverse strengths of the penalty to choose from. "auto" is the paper's grid for L1,
        (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01), and from 1.0 to 0.0001 in eight steps for L2; and
        100.0 and 10.0 for a linear head (``module=None``) where a balanced draw has fewer than 500
        samples, but more than there are features.
    C : float, default=None
        One inverse strength; None chooses from ``Cs`` by the worst-group accuracy.
    n_tuning_splits : int, default=5
        Random halvings of the samples on which ``C`` is chosen: the head is fitted on a balanced
        part of one half and judged on the other; the mean counts, ties go to the first of
        ``Cs``. With ``retrain_on="train"`` and validation samples with groups: balanced draws
        of the training samples, judged on all validation samples.
    balance : {"draws", "weights"}, default="draws"
        How the groups are balanced. "draws" fits one head on each of ``n_draws`` balanced
        subsets and averages the heads. "weights" fits one head on all samples, weighted so that
        every group counts as much as the smallest: what the draws minimise in the mean.
    n_draws : int, default=20
        Balanced draws (R) of the samples, each with as many of every group as the smallest has.
        Not used with weights.
    penalty : {"auto", "l1", "l2"}, default="auto"
        Penalty of the head. "auto" is "l1", as in the paper, except for ``module=None`` where the
        smallest group has fewer than 20 samples.
    penalty_center : {"zero", "head"}, default="zero"
        Weights to which the penalty pulls: zero, or the network's own last layer.
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
    penalty_ : {"l1", "l2"}
        The penalty of the heads.
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
    enough. With ``group_inferrer`` they may be inferred groups: they are balanced, the halves on
    which ``C`` is chosen are stratified by them, and the worst of them is what counts there.

    Weights and the pull to the old head are not in the paper. Averaged heads are the steadier
    ones: on embeddings of Waterbirds (training rows, judged on the validation rows) the worst
    group had 0.84 by draws with either penalty and any ``C`` from 0.01 up, by weights 0.77 with
    L1 and 0.82 with L2 at C = 0.0003, at a higher mean accuracy. Weights want a strong penalty,
    most of all on samples that the network was trained on: there their worst group fell to 0.74
    where draws had 0.82 (CIFAR-10 with planted shortcuts). The old head is worth keeping with L2
    and few samples that the network did not see (20 in the smallest group: 0.84 for 0.82; 60 and
    more: nothing). On samples that it has learned by heart their loss is nearly zero already, so
    that little is left to learn from them. L2 is the better penalty on pretrained embeddings
    where the smallest group is tiny (8 samples: 0.78 for 0.64), L1 where few features matter.

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
            "penalty": "l1",
            "max_epochs": 100,
            "monitor": None,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-3,
            "weight_decay": 1e-4,
            "batch_size": 128,
            "penalty": "l1",
            "max_epochs": 50,
            "monitor": None,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "retrain_on": [StrOptions({"auto", "validation", "train"})],
        "Cs": [StrOptions({"auto"}), "array-like"],
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "n_tuning_splits": [Interval(Integral, 1, None, closed="left")],
        "balance": [StrOptions({"draws", "weights"})],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "penalty": [StrOptions({"auto", "l1", "l2"})],
        "penalty_center": [StrOptions({"zero", "head"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    _balances_groups = True

    def __init__(
        self,
        module=None,
        *,
        retrain_on="auto",
        Cs="auto",
        C=None,
        n_tuning_splits=5,
        balance="draws",
        n_draws=20,
        penalty="auto",
        penalty_center="zero",
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
        self.balance = balance
        self.n_draws = n_draws
        self.penalty = penalty
        self.penalty_center = penalty_center
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
            scorer = HeadData(embed(data.valid), data.valid, scaler)
        center = _old_head(module, scaler) if self.penalty_center == "head" else None
        heads = HeadSearch(
            self, data.classes, HeadData(Z, retrain, scaler), scorer, runtime, center
        )
        learned = heads.fit(seeds[0])
        # The standardisation is folded into the head.
        learned["coef_"] = learned["coef_"] / scaler.scale_
        learned["intercept_"] = learned["intercept_"] - learned["coef_"] @ scaler.mean_
        set_head(last_linear(module)[1], learned["coef_"], learned["intercept_"])
        learned |= {"mean_": scaler.mean_, "scale_": scaler.scale_}
        if is_on_validation:  # groups of the training samples had no part in it
            learned["used_group_labels_"] = {**data.used_group_labels, "train": False}
        return Trained(module, history, best_epoch, learned)

    def _retrains_on_validation(self, data):
        """Whether the head is fitted on the samples of ``X_val``."""
        is_given = data.valid is not None and not data.is_split
        return self.retrain_on == "validation" or (self.retrain_on == "auto" and is_given)

    def _check_data(self, data):
        if self.penalty_center == "head" and self.module is None:
            raise ValueError(
                "penalty_center='head' pulls to the last layer of a network, and module=None has "
                "none. Give a module, such as FrozenEstimator(fitted_classifier) with "
                "max_epochs=0."
            )
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

    @property
    def _uses_criterion(self):
        return self.module is not None and self.max_epochs != 0

    def _train_network(self, module, data, runtime, seeds):
        """Plain training; nothing for embeddings and for a network that is trained already."""
        if self.module is None or self.max_epochs == 0:
            return [], None
        sampler = UniformSampler(len(data.train), seed=seeds[0])
        stage = Stage("", Objective(), sampler, seed=seeds[1])
        result = run_stage(self, module, stage, data.train, data.valid, runtime)
        return result.history, result.best_epoch


def _old_head(module, scaler):
    """The network's own last layer, as a head for standardised embeddings."""
    weight = last_linear(module)[1].weight.detach().cpu().double()
    coef = weight[1:] - weight[:1] if len(weight) == 2 else weight
    return coef * torch.as_tensor(scaler.scale_)


def set_head(layer, coef, intercept):
    """Write a head into a linear layer; one logit becomes two, half of it each."""
    if len(coef) == 1:
        coef, intercept = np.stack([-coef[0], coef[0]]) / 2, np.repeat(intercept, 2) * [-0.5, 0.5]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(coef))
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_empty(len(intercept)))
        layer.bias.copy_(torch.from_numpy(intercept))
