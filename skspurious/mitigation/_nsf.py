"""NSF: neutralise the spurious part of an embedding, and retrain the head on what is left."""

from dataclasses import replace
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skspurious._engine._batches import place
from skspurious._engine._evaluation import evaluate
from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import UniformSampler, WeightedSampler
from skspurious._engine._stage import TO_THE_END, Stage
from skspurious._prediction import read_embedding
from skspurious._training import Trained, loop_config, remembered, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.functional._elimination import neutralise
from skspurious.functional._nsf import fit_neutral
from skspurious.functional._split import stratified_split
from skspurious.mitigation._nsf_network import (
    AlignmentLoss,
    MappedLinear,
    put_folded,
    replace_last_linear,
    rows_of,
)
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions
from skspurious.utils._warnings import warn

# Of presets: plain training of the first stage.
_IMAGE_TRAINING = {
    "lr": 3e-3,
    "lr_schedule": "cosine",
    "weight_decay": 1e-4,
    "identify_on": "validation",
}
_TEXT_TRAINING = {
    "optimizer": "adamw",
    "lr": 1e-5,
    "lr_schedule": "linear",
    "weight_decay": 1e-4,
    "batch_size": 16,
    "max_epochs": 10,
    "identify_on": "validation",
}


@extends(BaseTorchClassifier)
class NSFClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseTorchClassifier):
    """Neutralises spurious features after training, without any group label (NSF) [1]_.

    In four steps on an embedding: (1) find the outliers, samples nearer to the mean of another
    class than to that of their own; (2) take the midpoint between the mean of the outliers and
    the mean of the other, easy samples of a class as its neutral center; (3) learn a map of
    every feature, ``T(f) = (f + shift) * scale - shift``, that draws samples to the center of
    their class; (4) train a linear head on mapped features, in which easy and rescued samples
    weigh the same: outliers that the map brings nearest to the center of their own class are
    rescued. Map and head are folded into one linear layer.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    identify_on : {"train", "validation"} or float, default="train"
        Samples that the four steps see: the training samples, or those of ``X_val``; a float in
        (0, 1) is the share of the training samples, stratified by class, that the four steps see
        and the first stage does not. See the Notes.
    transform_steps : int, default=300
        Steps of the map. The optimizer moves a scale by about ``nsf_lr`` a step, so this decides
        how much is eliminated; with 0 the map is the identity.
    head_steps : int, default=None
        Steps of the head. None is 500, and with ``module=None`` as many as the minimum takes.
    nsf_lr : float, default=1e-3
        Learning rate of the map and of the head.
    reg_weight : float, default=10.0
        Factor of the mean of the scales in the loss of the map. It pulls at each scale with
        ``reg_weight / n_embedding``: 10 is meant for the hundreds of features of a network. With
        few features, or many steps, it drives all scales down alike: take less.
    class_balanced : bool, default=None
        Whether the classes, too, have the same weight in the head's loss, shared equally by the
        rescued and the easy samples of a class. The paper balances rescued and easy samples alone.
        None is True for a head that is fitted to the minimum, and False for steps.
    fine_tune_epochs : int, default=0
        Epochs for which backbone, map and head are trained together after the four steps, by the
        head's balanced loss plus the loss of the map; then map and head are folded again.
    fine_tune_lr : float, default=None
        Learning rate of the fine-tuning; None is ``lr``.
    alignment_weight : float, default=1.0
        Weight of the loss of the map in the fine-tuning.
    monitor : {"auto", "worst_group_accuracy", "accuracy", "loss"} or None, default="auto"
        Value on the validation samples by which the best epoch of the first stage is chosen.
        "auto" is None, which keeps the last epoch as the authors do; with ``early_stopping`` it is
        the worst-group accuracy, or the accuracy where there are no groups.
    shared parameters

    Attributes
    ----------
    class_means_ : ndarray of shape (n_classes, n_embedding)
        Means of the classes.
    outlier_mask_ : ndarray of shape (n_samples,) or (n_val,), bool
        Samples whose nearest class mean is another class's: one entry for each row of ``X``, or
        of ``X_val`` with ``identify_on="validation"``. As in all masks here, rows that the four
        steps did not see are False.
    outlier_counts_ : ndarray of shape (n_classes,), int64
        Number of outliers in each class.
    neutral_centers_ : ndarray of shape (n_classes, n_embedding)
        Neutral center of each class.
    scale_, shift_ : ndarray of shape (n_embedding,)
        Scale and shift of the map, feature by feature.
    rescued_mask_ : ndarray of shape (n_samples,) or (n_val,), bool
        Outliers whose nearest neutral center, once mapped, is that of their class.
    easy_mask_ : ndarray of shape (n_samples,) or (n_val,), bool
        Samples that are not outliers.
    identify_indices_ : ndarray of int
        Rows that the four steps saw, of ``X`` or of ``X_val``, sorted.
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
    Needs group labels neither in training nor in validation. Labels that are given are used for
    the history of the first stage and for its early stopping alone. Passes over the data:
    ``max_epochs`` for the first stage, one for the embedding, and on the embedding, which stays in
    memory, ``transform_steps + head_steps`` at most.

    With a `module`, the first stage is plain training by the shared parameters; ``max_epochs=0``
    takes the network as it is. Its last linear layer is then replaced by the folded one. With
    ``module=None`` the data are the embedding: there is no first stage, and of the shared
    parameters only ``batch_size``, ``device``, the transforms, ``random_state`` and, for
    ``fine_tune_epochs``, those of the optimizer matter.

    **Which samples to identify on.** Best are samples that the network was not trained on, with
    the same bias as the training samples: ``identify_on=0.2``. An outlier is seen only where the
    spurious feature outweighs the core feature in the class means. For two classes with core
    feature +-c and spurious feature +-s, where a share rho of a class has the s of its class,
    this means ``s**2 * (2 * rho - 1) > c**2``. A split that is balanced in the attribute (rho of
    1/2, as the validation data of Waterbirds) is therefore the worst: none of its conflicting
    samples stands out. Training samples that the network has memorised hide them too.

    **How many steps.** The result depends on it. The paper has 10 to 1200, by data set, and does
    not say how it chose them; in our comparison (``docs/results``) 300 steps at 0.01 make the
    method work on one data set, and all but a few steps harm on the other. To choose without
    group labels, take the accuracy of the worst class on samples held out for this:
    ``score(X, y, sample_group=y)``, or ``GroupedData(X, y)`` in a search.

    A ``sample_weight`` weighs the first stage, the means, the loss of the map, and the samples
    in each half of the head's batches. ``history_`` has a column ``stage``: the epochs of "erm"
    and "fine_tune", and the steps of "eliminate" and "update", with their losses.

    Differences from the authors' code: means are exact, in float64; a class without easy samples
    has the mean of its outliers as its center; if no sample is rescued, their head silently keeps
    its random weights, whereas here a warning says so and a head is trained, from zero, on the
    easy samples, every class with the same weight; the gradient of the map is written out. With
    more than 1,000,000 rows a step sees 65,536 of them. `class_balanced` and `fine_tune_epochs`
    (the abstract may be read so; their backbone is frozen) are ours.

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
    >>> clf = NSFClassifier(nsf_lr=0.01, reg_weight=0.5, random_state=0)
    >>> clf = clf.fit(train.data, train.target)
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
            "transform_steps": 10,
            "head_steps": 500,
        },
        "celeba": {
            **RESNET50,
            **_IMAGE_TRAINING,
            "batch_size": 100,
            "max_epochs": 20,
            "transform_steps": 350,
            "head_steps": 110,
        },
        "chexpert": {
            **RESNET50,
            **_IMAGE_TRAINING,
            "batch_size": 100,
            "max_epochs": 20,
            "transform_steps": 650,
            "head_steps": 10000,
        },
        "multinli": {**_TEXT_TRAINING, "transform_steps": 1200, "head_steps": 1500},
        "civilcomments": {**_TEXT_TRAINING, "transform_steps": 300, "head_steps": 100},
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "identify_on": [
            StrOptions({"train", "validation"}),
            Interval(Real, 0, 1, closed="neither"),
        ],
        "transform_steps": [Interval(Integral, 0, None, closed="left")],
        "head_steps": [Interval(Integral, 1, None, closed="left"), None],
        "nsf_lr": [Interval(Real, 0, None, closed="neither")],
        "reg_weight": [Interval(Real, 0, None, closed="left")],
        "class_balanced": ["boolean", None],
        "fine_tune_epochs": [Interval(Integral, 0, None, closed="left")],
        "fine_tune_lr": [None, Interval(Real, 0, None, closed="neither")],
        "alignment_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module=None,
        *,
        identify_on="train",
        transform_steps=300,
        head_steps=None,
        nsf_lr=1e-3,
        reg_weight=10.0,
        class_balanced=None,
        fine_tune_epochs=0,
        fine_tune_lr=None,
        alignment_weight=1.0,
        **shared,
    ):
        super().__init__(module, **shared)
        self.identify_on = identify_on
        self.transform_steps = transform_steps
        self.head_steps = head_steps
        self.nsf_lr = nsf_lr
        self.reg_weight = reg_weight
        self.class_balanced = class_balanced
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_lr = fine_tune_lr
        self.alignment_weight = alignment_weight

    def transform(self, X):
        """The neutralised embedding T(f).

        Parameters
        ----------
        X : same kinds as in ``fit``
            Samples to embed.

        Returns
        -------
        mapped : ndarray of shape (n_samples, n_embedding), float32
        """
        check_is_fitted(self)
        runtime = Runtime(self.device)
        module, samples = self.module_.to(runtime.device), self._samples(X)
        features = read_embedding(self, module, samples, runtime, len(self.classes_))
        features = neutralise(features.cpu().numpy(), self.scale_, self.shift_)
        return features.astype(np.float32, copy=False)

    # ----------------------------------------------------------------------------------
    # The stages

    @property
    def _has_first_stage(self):
        return self.module is not None and self.max_epochs != 0

    @property
    def _uses_criterion(self):
        return self._has_first_stage or self.fine_tune_epochs > 0

    @property
    def _n_head_steps(self):
        return 500 if self.head_steps is None and self.module is not None else self.head_steps

    @property
    def _balances_classes(self):
        return self._n_head_steps is None if self.class_balanced is None else self.class_balanced

    @property
    def _keeps_part_aside(self):
        # Validation is for the epochs of the first stage.
        return self.early_stopping and self._has_first_stage

    def _monitored(self, valid):
        if self.monitor == "auto" and not self.early_stopping:
            return None
        return super()._monitored(valid)

    def _train(self, module, data, runtime, seeds):
        rng = np.random.default_rng(seeds[0])
        split_seed, draw_seed, *tune_seeds = rng.integers(2**31 - 1, size=4).tolist()
        train, chosen = self._choose_samples(data, split_seed)
        history, best_epoch = [], None
        if self._has_first_stage:
            sampler = UniformSampler(len(train), seed=seeds[0])
            stage = Stage("erm", Objective(), sampler, seed=seeds[1])
            result = run_stage(self, module, stage, train, data.valid, runtime)
            history, best_epoch = result.history, result.best_epoch

        exact = Runtime(self.device)  # whatever the precision of training
        module.to(exact.device)
        weight = None if chosen.weight is None else chosen.weight.cpu().numpy().astype(np.float64)
        Z = read_embedding(self, module, chosen.samples, exact, len(data.classes))
        generator = torch.Generator().manual_seed(draw_seed)
        parts = [Z, chosen.y, weight]
        fit = fit_neutral(
            Z,
            chosen.y,
            n_classes=len(data.classes),
            sample_weight=weight,
            transform_steps=self.transform_steps,
            head_steps=self._n_head_steps,
            weight_decay=None if self.weight_decay == "auto" else self.weight_decay,
            lr=self.nsf_lr,
            reg_weight=self.reg_weight,
            class_balanced=self._balances_classes,
            generator=generator,
            keep=partial(remembered, self, parts=parts, runtime=exact, generator=generator),
        )
        if fit.is_fallback:
            warn(
                f"no sample was rescued ({fit.outlier.sum()} of {len(fit.outlier)} are outliers), "
                "so the head is fitted on all easy samples, every class with the same weight. "
                "Identify on samples that have the bias of the training samples and were not "
                "trained on, or lower reg_weight or transform_steps."
            )
        for name, losses in fit.losses.items():
            history += rows_of(name, losses, self.nsf_lr)
        scale, shift, head = fit.scale, fit.shift, fit.head
        if self.fine_tune_epochs:
            module, layer, rows = self._fine_tune(
                module, fit, chosen, data.valid, runtime, tune_seeds
            )
            history += rows
            scale, shift = (p.detach().cpu().double().numpy() for p in (layer.scale, layer.shift))
            head = layer.linear.weight.detach(), layer.linear.bias.detach()
        module = put_folded(module, head, scale, shift)
        if data.valid is not None:
            last = history.pop() if history else {"stage": "update", "epoch": 0}
            config, valid = loop_config(self, train, data.valid), place(data.valid, runtime.device)
            history.append(last | evaluate(module, valid, Objective(), runtime, config))
        return Trained(
            module, history, best_epoch, self._learned_of(fit, module, scale, shift, data, chosen)
        )

    def _learned_of(self, fit, module, scale, shift, data, chosen):
        """Learned attributes; masks are of the rows of X, or of X_val."""
        layer, outlier_y = last_linear(module)[1], chosen.y.numpy()[fit.outlier]
        n_rows = len(chosen) if self.identify_on == "validation" else data.n_samples

        def on_rows(mask):
            result = np.zeros(n_rows, dtype=bool)
            result[chosen.rows] = mask
            return result

        learned = {
            "class_means_": fit.means,
            "outlier_mask_": on_rows(fit.outlier),
            "outlier_counts_": np.bincount(outlier_y, minlength=len(data.classes)),
            "neutral_centers_": fit.centers,
            "scale_": scale,
            "shift_": shift,
            "rescued_mask_": on_rows(fit.rescued),
            "easy_mask_": on_rows(~fit.outlier),
            "identify_indices_": chosen.rows,
            "coef_": layer.weight.detach().cpu().double().numpy(),
            "intercept_": layer.bias.detach().cpu().double().numpy(),
            "_n_features_out": layer.in_features,
        }
        if self.module is None:
            learned["used_group_labels_"] = {"train": False, "validation": False}
        return learned

    def _choose_samples(self, data, seed):
        """The samples of the first stage, and those that the four steps see."""
        train = chosen = data.train
        if self.identify_on == "validation":
            if data.valid is None or data.is_split:
                raise ValueError("identify_on='validation' needs fit(X, y, X_val=, y_val=).")
            chosen = data.valid
        elif self.identify_on != "train":
            if not self._has_first_stage:
                raise ValueError(
                    f"identify_on={self.identify_on} keeps samples out of the first stage, and "
                    "there is none with module=None or max_epochs=0. Use 'train' or 'validation'."
                )
            generator = np.random.default_rng(seed)
            fit_rows, held_out = stratified_split(train.y.numpy(), self.identify_on, generator)
            train, chosen = train.take(fit_rows), train.take(held_out)
        present = chosen.y if chosen.weight is None else chosen.y[chosen.weight > 0]
        lacking = np.setdiff1d(np.arange(len(data.classes)), present.numpy())
        if len(lacking):
            raise ValueError(
                f"identify_on={self.identify_on!r} needs a sample of every class, of positive "
                f"sample_weight; it has none of class {data.classes[lacking[:5]].tolist()}."
            )
        return train, chosen

    def _fine_tune(self, module, fit, chosen, valid, runtime, seeds):
        """Train backbone, map and head together: network, its last layer, rows of the history."""
        layer = MappedLinear(fit.scale, fit.shift, *fit.head).to(runtime.device)
        module = replace_last_linear(module, layer)
        stage = Stage(
            "fine_tune",
            AlignmentLoss(fit.centers, self.reg_weight, self.alignment_weight),
            WeightedSampler(fit.weights, n_draws=int((fit.weights > 0).sum()), seed=seeds[0]),
            seed=seeds[1],
            changes={
                "max_epochs": self.fine_tune_epochs,
                "lr": self.lr if self.fine_tune_lr is None else self.fine_tune_lr,
                "compile": False,
                **TO_THE_END,
            },
        )
        chosen = replace(chosen, weight=None)  # it is in the probabilities
        valid = None if self.identify_on == "validation" else valid  # then it is trained on
        result = run_stage(self, module, stage, chosen, valid, runtime)
        return module, layer, result.history

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags
