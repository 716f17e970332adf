"""NSF: neutralise the spurious part of an embedding, and retrain the head on what is left."""

import warnings
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skspurious._engine._loop import LoopResult, Objective, evaluate, place
from skspurious._engine._modules import last_linear
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import UniformSampler, WeightedSampler
from skspurious.base import BaseTorchClassifier
from skspurious.data import as_samples, unpack_groups
from skspurious.functional._clustering import squared_distances_to
from skspurious.functional._dispersion import class_means, find_dispersed
from skspurious.functional._neutralise import (
    EPS,
    find_rescued,
    fit_balanced_head,
    fit_elimination,
    fold_neutral_map,
    neutral_centers,
    neutralise,
    part_weights,
    solve_elimination,
)
from skspurious.functional._split import stratified_split
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

# Of presets: plain training of the first stage.
_IMAGE_TRAINING = {
    "lr": 3e-3,
    "lr_schedule": "cosine",
    "weight_decay": 1e-4,
    "identify_on": "eval_set",
}
_TEXT_TRAINING = {
    "optimizer": "adamw",
    "lr": 1e-5,
    "lr_schedule": "linear",
    "weight_decay": 1e-4,
    "batch_size": 16,
    "max_epochs": 10,
    "identify_on": "eval_set",
}

# With more rows than this, steps see batches of this size, unless ``nsf_batch_size`` is given.
_FULL_BATCH, _BATCH = 1_000_000, 65_536


@extends(BaseTorchClassifier)
class NSFClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseTorchClassifier):
    """Neutralises spurious features after training, without any group label (NSF) [1]_.

    In four steps on an embedding: the samples nearer to another class mean than to that of
    their own class are found; the midpoint of these outliers and of the others is the neutral
    center of a class; a map of every feature, ``T(f) = (f + shift) * scale - shift``, draws the
    samples to it; and a linear head is trained on mapped features, with outliers that are right
    now and samples that always were weighing the same. Map and head are folded into one linear
    layer.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    identify_on : {"train", "eval_set"} or float, default="train"
        Samples that the four steps see: the training samples, those of ``eval_set``, or a part
        of the training samples, a float in (0, 1), that is kept out of the first stage,
        stratified by class. See the Notes.
    n_transform_steps : int, default=300
        Steps of the map. The optimizer moves a scale by about ``nsf_lr`` a step, so this decides
        how much is eliminated; with 0 the map is the identity.
    n_head_steps : int, default=500
        Steps of the head.
    nsf_lr : float, default=1e-3
        Learning rate of both.
    reg : float, default=10.0
        Factor of the mean of the scales in the loss of the map. It pulls at each scale with
        ``reg / n_embedding``: 10 is for the hundreds of features of a network, and with few
        features, or many steps, it drives all scales down alike; then take less.
    min_outliers : int, default=1
        Fewest outliers of a class that take part in its neutral center.
    balance : {"group", "group_class"}, default="group"
        "group", as in the paper: rescued and easy samples have the same weight in the head's
        loss, classes whatever they have. "group_class": classes too have the same weight, shared
        by the rescued and the easy samples of each; also where a class has no rescued ones.
    clamp_min : float, default=None
        Scales are kept above, such as 0; None, as in the paper, lets them become negative.
    grouping : {"binary", "confusion"}, default="binary"
        "binary", as in the paper: the outliers of a class are one group. "confusion": one for
        every class that they are taken for, and the center is the unweighted mean over the
        groups of the class. With two classes both are the same.
    solver : {"adam", "closed_form"}, default="adam"
        "closed_form" minimises squared distances instead, one regression per feature, without
        steps and regulariser: a baseline.
    fallback : {"easy", "head"}, default="easy"
        What becomes the head, with a warning, if no sample is rescued. "easy" is a head trained
        on the easy samples, classes weighing the same, from zero. "head" is that of the trained
        network, so needs a `module`; it has not seen mapped features, and is right about them only
        while the map is near the identity.
    nsf_batch_size : int, default=None
        Rows in a step of the map, and at most of each half of a batch of the head. None takes
        all up to 1,000,000 rows, and 65,536 of more.
    fine_tune_epochs : int, default=0
        If positive, backbone, map and head are trained on together after the four steps, for as
        many epochs, under the head's balanced loss and the loss of the map; then folded again.
    fine_tune_lr : float, default=None
        Learning rate of that; None is ``lr``.
    alignment : float, default=1.0
        Factor of the loss of the map in that.
    monitor : {"auto", "worst_group_accuracy", "accuracy", "loss"} or None, default="auto"
        What the best epoch of the first stage is best in, on validation samples. "auto" is None,
        which keeps the last epoch as the authors do; with ``early_stopping`` it is the
        worst-group accuracy where there are groups, otherwise the accuracy.
    shared parameters

    Attributes
    ----------
    class_means_ : ndarray of shape (n_classes, n_embedding)
        Means of the classes.
    outlier_mask_ : ndarray of shape (n_identify,), bool
        Samples, of those that the four steps saw, whose nearest class mean is another class's.
    outlier_counts_ : ndarray of shape (n_classes,), int64
        Their number in each class.
    neutral_centers_ : ndarray of shape (n_classes, n_embedding)
        Neutral center of each class.
    scale_, shift_ : ndarray of shape (n_embedding,)
        The map.
    rescued_mask_ : ndarray of shape (n_identify,), bool
        Outliers whose nearest neutral center, once mapped, is that of their class.
    easy_mask_ : ndarray of shape (n_identify,), bool
        Samples that are not outliers.
    identify_indices_ : ndarray of shape (n_identify,) or None
        Rows that the four steps saw, of those that were left for training; None for those of
        ``eval_set``.
    coef_ : ndarray of shape (n_classes, n_embedding)
        Weights of the folded layer, which acts on the embedding before the map.
    intercept_ : ndarray of shape (n_classes,)
        Bias of the folded layer.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where the input has them.
    shared attributes

    See Also
    --------
    SpuriousGroupInferrer : With ``method="dispersion"``, the first step as groups.
    BalancedRetrainer : Balances groups that are known or inferred.

    Notes
    -----
    Needs group labels neither in training nor in validation; if they are given they serve the
    history of the first stage, and its early stopping. Passes over the data: ``max_epochs`` for
    the first stage, one for the embedding, and on the embedding, which stays in memory,
    ``n_transform_steps + n_head_steps`` at most.

    With a `module`, the first stage is plain training by the shared parameters; ``max_epochs=0``
    takes the network as it is. Its last linear layer is then replaced by the folded one. With
    ``module=None`` the data are the embedding: there is no first stage, and of the shared
    parameters only ``batch_size``, ``device``, the transforms, ``random_state`` and, for
    ``fine_tune_epochs``, those of the optimizer matter.

    **Which samples to identify on.** Best are samples that the network was not trained on, with
    the same bias as the training samples: ``identify_on=0.2``. An outlier is seen only where the
    spurious feature outweighs the core feature in the class means; for two classes with core
    feature +-c, of which a share rho has the spurious feature +-s of its class, where
    ``s**2 * (2 * rho - 1) > c**2``. A split that is balanced in the attribute (rho of 1/2, as
    the validation data of Waterbirds) is therefore the worst: none of its conflicting samples
    stands out. Training samples that the network has memorised hide them too.

    The paper's step counts, 10 to 1200, differ by data set and how they were chosen is not said;
    they decide: in our comparison of methods (``docs/results``) strong elimination, 300 steps of
    0.01, makes the method on one data set, and on the other anything but a few steps harms. To
    choose them without group labels, take the worst class on samples held out for this:
    ``score(X, y, sample_group=y)``, or ``GroupedData(X, y)`` in a search.

    A ``sample_weight`` weighs the first stage, the means, the loss of the map, and the samples
    in each half of the head's batches. ``history_`` has a column ``stage``: the epochs of "erm"
    and "fine_tune", and the steps of "eliminate" and "update", with their losses.

    Differences from the authors' code: means are exact, in float64; a class without inliers has
    the mean of its outliers as its center; if no sample is rescued their head silently stays as
    it was drawn, here see `fallback`; the gradient of the map is closed.
    ``balance="group_class"``, ``grouping="confusion"``, `clamp_min`, ``solver="closed_form"``
    and `fine_tune_epochs` (the abstract may be read so; their backbone is frozen) are ours.

    References
    ----------
    .. [1] W. Li, J. Liu, S. Ren, Y. Zheng, X. Liu, Y. Li, "Let Samples Speak: Mitigating
       Spurious Correlation by Exploiting the Clusterness of Samples", CVPR 2025.
       arXiv:2512.22874.

    Examples
    --------
    >>> from skspurious import NSFClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = NSFClassifier(nsf_lr=0.01, reg=0.5, random_state=0).fit(train.data, train.target)
    >>> clf.outlier_counts_
    array([11, 12])
    >>> clf.transform(train.data).shape
    (500, 8)
    """

    # Li et al., CVPR 2025, as its code has them; the steps see the validation samples there.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            **_IMAGE_TRAINING,
            "batch_size": 32,
            "max_epochs": 100,
            "n_transform_steps": 10,
            "n_head_steps": 500,
        },
        "celeba": {
            **RESNET50,
            **_IMAGE_TRAINING,
            "batch_size": 100,
            "max_epochs": 20,
            "n_transform_steps": 350,
            "n_head_steps": 110,
        },
        "chexpert": {
            **RESNET50,
            **_IMAGE_TRAINING,
            "batch_size": 100,
            "max_epochs": 20,
            "n_transform_steps": 650,
            "n_head_steps": 10000,
        },
        "multinli": {**_TEXT_TRAINING, "n_transform_steps": 1200, "n_head_steps": 1500},
        "civilcomments": {**_TEXT_TRAINING, "n_transform_steps": 300, "n_head_steps": 100},
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "identify_on": [
            StrOptions({"train", "eval_set"}),
            Interval(Real, 0, 1, closed="neither"),
        ],
        "n_transform_steps": [Interval(Integral, 0, None, closed="left")],
        "n_head_steps": [Interval(Integral, 1, None, closed="left")],
        "nsf_lr": [Interval(Real, 0, None, closed="neither")],
        "reg": [Interval(Real, 0, None, closed="left")],
        "min_outliers": [Interval(Integral, 1, None, closed="left")],
        "balance": [StrOptions({"group", "group_class"})],
        "clamp_min": [None, Interval(Real, None, 1, closed="right")],
        "grouping": [StrOptions({"binary", "confusion"})],
        "solver": [StrOptions({"adam", "closed_form"})],
        "fallback": [StrOptions({"easy", "head"})],
        "nsf_batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "fine_tune_epochs": [Interval(Integral, 0, None, closed="left")],
        "fine_tune_lr": [None, Interval(Real, 0, None, closed="neither")],
        "alignment": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module=None,
        *,
        identify_on="train",
        n_transform_steps=300,
        n_head_steps=500,
        nsf_lr=1e-3,
        reg=10.0,
        min_outliers=1,
        balance="group",
        clamp_min=None,
        grouping="binary",
        solver="adam",
        fallback="easy",
        nsf_batch_size=None,
        fine_tune_epochs=0,
        fine_tune_lr=None,
        alignment=1.0,
        **shared,
    ):
        super().__init__(module, **shared)
        self.identify_on = identify_on
        self.n_transform_steps = n_transform_steps
        self.n_head_steps = n_head_steps
        self.nsf_lr = nsf_lr
        self.reg = reg
        self.min_outliers = min_outliers
        self.balance = balance
        self.clamp_min = clamp_min
        self.grouping = grouping
        self.solver = solver
        self.fallback = fallback
        self.nsf_batch_size = nsf_batch_size
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_lr = fine_tune_lr
        self.alignment = alignment

    def transform(self, X):
        """The neutralised embedding T(f).

        Parameters
        ----------
        X : same kinds as in ``fit``

        Returns
        -------
        mapped : ndarray of shape (n_samples, n_embedding), float32
        """
        check_is_fitted(self)
        samples = as_samples(self._check_X(unpack_groups(X)[0]), collate_fn=self.collate_fn)
        runtime = Runtime(self.device)
        module = self.module_.to(runtime.device)
        features = self._embedding(module, samples, runtime).cpu().numpy()
        return neutralise(features, self.scale_, self.shift_).astype(np.float32, copy=False)

    # ----------------------------------------------------------------------------------
    # The stages

    @property
    def _has_first_stage(self):
        return self.module is not None and self.max_epochs > 0

    def _train(self, module, train, valid, runtime, seeds):
        rng = np.random.default_rng(seeds[0])
        split_seed, draw_seed, *tune_seeds = rng.integers(2**31 - 1, size=4).tolist()
        if self.fallback == "head" and self.module is None:
            raise ValueError(
                "fallback='head' is the head of a trained network, and module=None has none. "
                "Use fallback='easy'."
            )
        train, chosen = self._choose_samples(train, valid, split_seed)
        if self.module is None:
            self.used_group_labels_ = {"train": False, "validation": False}
        history, best_epoch = [], None
        if self._has_first_stage:
            result = self._run_stage(
                module,
                Objective(),
                UniformSampler(len(train), seed=seeds[0]),
                train,
                valid,
                runtime,
                seed=seeds[1],
                stage="erm",
            )
            history = [{"stage": "erm", **row} for row in result.history]
            best_epoch = result.best_epoch

        exact = Runtime(self.device)  # whatever the precision of training
        features = self._embedding(module.to(exact.device), chosen.samples, exact)
        generator = torch.Generator().manual_seed(draw_seed)
        part, head, rows = self._neutralise(module, features, chosen, generator)
        del features
        history += rows
        if self.fine_tune_epochs:
            head, rows = self._fine_tune(module, part, head, chosen, valid, runtime, tune_seeds)
            history += rows
        module = self._put_folded(module, *head)
        if valid is not None:
            config = self._loop_config(valid, seeds[1])
            last = history.pop() if history else {"stage": "update", "epoch": 0}
            valid = place(valid, runtime.device)
            history.append(last | evaluate(module, valid, runtime, config))
        return module, LoopResult(history, best_epoch, Objective())

    def _split(self, train, seed):
        # Validation is for the epochs of the first stage.
        return super()._split(train, seed) if self._has_first_stage else (train, None)

    def _monitored(self, valid):
        if self.monitor == "auto" and not self.early_stopping:
            return None
        return super()._monitored(valid)

    def _choose_samples(self, train, valid, seed):
        """The samples of the first stage, and those that the four steps see."""
        self.identify_indices_ = None
        if self.identify_on == "eval_set":
            if valid is None:
                raise ValueError(
                    "identify_on='eval_set' needs fit(X, y, eval_set=(X_held_out, y_held_out))."
                )
            chosen = valid
        elif self.identify_on == "train":
            self.identify_indices_, chosen = np.arange(len(train)), train
        else:
            if not self._has_first_stage:
                raise ValueError(
                    f"identify_on={self.identify_on} keeps samples out of the first stage, and "
                    "there is none with module=None or max_epochs=0. Use 'train' or 'eval_set'."
                )
            generator = np.random.default_rng(seed)
            fit_rows, held_out = stratified_split(train.y.numpy(), self.identify_on, generator)
            self.identify_indices_ = held_out
            train, chosen = train.take(fit_rows), train.take(held_out)
        present = chosen.y if chosen.weight is None else chosen.y[chosen.weight > 0]
        lacking = np.setdiff1d(np.arange(len(self.classes_)), present.numpy())
        if len(lacking):
            raise ValueError(
                f"identify_on={self.identify_on!r} needs a sample of every class, of positive "
                f"sample_weight; it has none of class {self.classes_[lacking[:5]].tolist()}."
            )
        return train, chosen

    def _neutralise(self, module, features, chosen, generator):
        """The four steps: parts of the samples, head on mapped features, rows of the history."""
        F, y = features.cpu().numpy(), chosen.y.cpu().numpy()
        weight = None if chosen.weight is None else chosen.weight.cpu().numpy().astype(np.float64)
        self.class_means_ = class_means(F, y, sample_weight=weight)
        self.outlier_mask_, _ = find_dispersed(F, y, means=self.class_means_)
        self.outlier_counts_ = np.bincount(y[self.outlier_mask_], minlength=len(self.classes_))
        nearest = None
        if self.grouping == "confusion":
            nearest = squared_distances_to(F, self.class_means_).argmin(axis=1)
        self.neutral_centers_ = neutral_centers(
            F,
            y,
            self.outlier_mask_,
            nearest=nearest,
            min_outliers=self.min_outliers,
            sample_weight=weight,
        )
        batch_size = self.nsf_batch_size
        if batch_size is None and len(y) > _FULL_BATCH:
            batch_size = _BATCH
        code = chosen.y.to(features.device)
        losses = self._eliminate(features, F, code, weight, batch_size, generator)
        history = _rows_of("eliminate", losses, self.nsf_lr)

        self.easy_mask_ = ~self.outlier_mask_
        self.rescued_mask_ = find_rescued(
            F, y, self.outlier_mask_, self.neutral_centers_, self.scale_, self.shift_
        )
        part = np.where(self.rescued_mask_, 1, np.where(self.easy_mask_, 0, -1))
        balance, is_fallback = self.balance, False
        counted = part if weight is None else part[weight > 0]
        if not ((counted == 1).any() and (counted == 0).any()):
            part, balance, is_fallback = _without_rescued(y, part, weight), "group_class", True
        part = _Parts(part, part_weights(y, part, balance=balance, sample_weight=weight))
        if is_fallback and self._falls_back_on_head():
            old = last_linear(module)[1]
            bias = torch.zeros(len(self.classes_)) if old.bias is None else old.bias
            return part, (old.weight.detach().double(), bias.detach().double()), history
        used = np.flatnonzero(part.weights > 0)
        rows = torch.from_numpy(used).to(features.device)
        Z = neutralise(
            features[rows],
            torch.from_numpy(self.scale_).to(features),
            torch.from_numpy(self.shift_).to(features),
        )
        *head, losses = fit_balanced_head(
            Z,
            code[rows],
            part.code[used],
            part.weights[used],
            n_classes=len(self.classes_),
            n_steps=self.n_head_steps,
            lr=self.nsf_lr,
            batch_size=batch_size,
            start_at_zero=is_fallback,
            generator=generator,
        )
        history += _rows_of("update", losses, self.nsf_lr)
        return part, head, history

    def _eliminate(self, features, F, code, weight, batch_size, generator):
        """Learn the map; its losses."""
        centers = self.neutral_centers_
        if self.solver == "closed_form":
            self.scale_, self.shift_ = solve_elimination(
                F, code.cpu().numpy(), centers, clamp_min=self.clamp_min, sample_weight=weight
            )
            return torch.zeros(0)
        wide = torch.float32 if features.device.type == "mps" else torch.float64
        scale, shift, losses = fit_elimination(
            features,
            code,
            torch.from_numpy(centers).to(features.device, wide),
            n_steps=self.n_transform_steps,
            lr=self.nsf_lr,
            reg=self.reg,
            clamp_min=self.clamp_min,
            sample_weight=None if weight is None else torch.from_numpy(weight).to(features),
            batch_size=batch_size,
            generator=generator,
        )
        self.scale_, self.shift_ = scale.cpu().double().numpy(), shift.cpu().double().numpy()
        if not (np.isfinite(self.scale_).all() and np.isfinite(self.shift_).all()):
            raise ValueError(
                f"the map of NSF is NaN or infinite after {self.n_transform_steps} steps at "
                f"nsf_lr={self.nsf_lr:g}. Lower nsf_lr, or standardise the features."
            )
        return losses

    def _falls_back_on_head(self):
        """Whether the network's own head stands in for the new one; warns."""
        takes_head = self.fallback == "head"
        warnings.warn(
            f"no sample was rescued ({self.outlier_counts_.sum()} of {len(self.outlier_mask_)} "
            "are outliers), so the head is "
            + (
                "that of the trained network."
                if takes_head
                else "fitted on all easy samples, classes weighing the same."
            )
            + " Identify on samples that have the bias of the training samples and were not "
            "trained on, or lower reg or n_transform_steps.",
            UserWarning,
            stacklevel=6,
        )
        return takes_head

    def _fine_tune(self, module, part, head, chosen, valid, runtime, seeds):
        """Train backbone, map and head together; the head, and the rows of the history."""
        layer = _MappedLinear(self.scale_, self.shift_, *head).to(runtime.device)
        module = _replace_last_linear(module, layer)
        n_used = int((part.weights > 0).sum())
        is_own = self.identify_on == "eval_set"  # then it is what is trained on
        result = self._run_stage(
            module,
            _AlignmentLoss(self.neutral_centers_, self.reg, self.alignment),
            WeightedSampler(part.weights, n_draws=n_used, seed=seeds[0]),
            replace(chosen, weight=None),  # it is in the probabilities
            None if is_own else valid,
            runtime,
            seed=seeds[1],
            stage="fine_tune",
            max_epochs=self.fine_tune_epochs,
            lr=self.lr if self.fine_tune_lr is None else self.fine_tune_lr,
            compile=False,
            monitor=None,
            patience=None,
        )
        self.scale_ = layer.scale.detach().cpu().double().numpy()
        self.shift_ = layer.shift.detach().cpu().double().numpy()
        head = layer.linear.weight.detach(), layer.linear.bias.detach()
        return head, [{"stage": "fine_tune", **row} for row in result.history]

    def _put_folded(self, module, weight, bias):
        """The network with the folded layer as its last one."""
        weight, bias = weight.cpu().double().numpy(), bias.cpu().double().numpy()
        folded = fold_neutral_map(weight, bias, self.scale_, self.shift_)
        old = last_linear(module)[1].weight
        layer = _make_linear(*folded).to(old.device, old.dtype)
        if any(not p.isfinite().all() for p in layer.parameters()):
            raise ValueError(
                f"the head of NSF is NaN or infinite after {self.n_head_steps} steps at "
                f"nsf_lr={self.nsf_lr:g}. Lower nsf_lr, or standardise the features."
            )
        self.coef_ = layer.weight.detach().cpu().double().numpy()
        self.intercept_ = layer.bias.detach().cpu().double().numpy()
        self._n_features_out = self.coef_.shape[1]
        return _replace_last_linear(module, layer).eval()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class _Parts:
    """Part of every sample (0 easy, 1 rescued, -1 not used), and its weight in the head's loss."""

    def __init__(self, code, weights):
        self.code, self.weights = code, weights


class _MappedLinear(nn.Module):
    """The map and the head behind it, as one trainable layer."""

    def __init__(self, scale, shift, weight, bias):
        super().__init__()
        self.scale = nn.Parameter(torch.as_tensor(scale, dtype=torch.float32))
        self.shift = nn.Parameter(torch.as_tensor(shift, dtype=torch.float32))
        self.linear = _make_linear(weight, bias)

    def forward(self, features):
        return self.linear(neutralise(features, self.scale, self.shift))


class _AlignmentLoss(Objective):
    """Cross-entropy plus the loss of the map, whose centers stay where they are."""

    def __init__(self, centers, reg, strength):
        super().__init__()
        self.register_buffer("centers", torch.as_tensor(centers, dtype=torch.float32))
        self.reg, self.strength = reg, strength

    def forward(self, module, batch, runtime):
        layer = next(m for m in module.modules() if isinstance(m, _MappedLinear))
        mapped = []
        hook = layer.linear.register_forward_pre_hook(lambda _, args: mapped.append(args[0]))
        try:
            loss, losses, logits = super().forward(module, batch, runtime)
        finally:
            hook.remove()
        residual = mapped[-1].float() - self.centers[batch["y"]] + EPS
        distance = torch.linalg.vector_norm(residual, dim=1)
        penalty = self.reg * layer.scale.mean() / runtime.n_processes
        aligned = self.reduce(distance, batch, runtime) + penalty
        return loss + self.strength * aligned, losses, logits


def _without_rescued(y, part, weight):
    """Parts of the fallback: easy samples, and every sample of a class that has none."""
    is_easy = (part == 0) if weight is None else (part == 0) & (weight > 0)
    has_easy = np.bincount(y[is_easy], minlength=y.max() + 1) > 0
    return np.where(is_easy | ~has_easy[y], 0, -1)


def _rows_of(stage, losses, lr):
    """Rows of the history: the loss before every step."""
    values = losses.cpu().tolist()
    return [
        {"stage": stage, "epoch": step + 1, "lr": lr, "train_loss": loss}
        for step, loss in enumerate(values)
    ]


def _make_linear(weight, bias):
    """A linear layer of given weights, in float32; no random number is drawn."""
    weight, bias = torch.as_tensor(weight), torch.as_tensor(bias)
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def _replace_last_linear(module, layer):
    """The network with another layer in the place of its last linear one, or of its fine-tuned."""
    path = last_linear(module)[0]
    tuned = [name for name, m in module.named_modules() if isinstance(m, _MappedLinear)]
    path = tuned[0] if tuned else path
    if path == "":
        return layer
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
    return module
