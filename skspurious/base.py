"""BaseTorchClassifier: the shared parameters, and the skeleton of fit and predict."""

import copy
import os
import re
from abc import ABCMeta
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from skspurious._engine._callbacks import Callback, ProgressBar
from skspurious._engine._checkpoint import fingerprint
from skspurious._engine._loop import (
    LabelledSamples,
    LoopConfig,
    Objective,
    fit_loop,
    iterate_batches,
    predict_logits,
)
from skspurious._engine._modules import (
    build_module,
    check_output,
    forward,
    last_linear,
    layer_output,
    weights_transform,
)
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import UniformSampler
from skspurious.data import (
    TensorSamples,
    as_samples,
    encode_groups,
    input_kind,
    unpack_groups,
)
from skspurious.functional._split import stratified_split
from skspurious.utils._parameters import ModuleParametersMixin, from_preset
from skspurious.utils._random import check_private_random_state
from skspurious.utils._sklearn_compat import (
    Interval,
    StrOptions,
    _check_sample_weight,
    _check_y,
    _fit_context,
)

# Parameters that change nothing about the result, and so do not tell two runs apart.
_NOT_IN_FINGERPRINT = ("callbacks", "checkpoint_dir", "device", "num_workers", "verbose")


class BaseTorchClassifier(ModuleParametersMixin, ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base of the classifiers that train a torch network.

    Parameters
    ----------
    module : None, str, nn.Module, class, callable or FrozenEstimator, default=None
        The network. None is a linear head sized in ``fit``; a str names a torchvision model,
        whose head is resized to the classes; an instance is copied before training and never
        changed; a class or callable is called in ``fit``, under the seed, with
        ``module_params``; a fitted classifier in a ``FrozenEstimator`` gives a copy of its
        ``module_``.
    weights : str or torchvision weights, default=None
        Pretrained weights of a torchvision model, such as "DEFAULT". Unless transforms are
        given, images in arrays, tensors and files get the preprocessing that belongs to the
        weights; a dataset makes its own.
    module_params : dict, default=None
        Arguments of a class or callable ``module``, or of a torchvision model.
    group_inferrer : estimator or Pipeline ending in a SpuriousGroupInferrer, default=None
        Cloned and fitted inside ``fit`` where no groups are given or carried by ``X``.
    optimizer : {"sgd", "adam", "adamw"} or torch optimizer class, default="sgd"
        "sgd" has momentum 0.9 unless ``optimizer_params`` says otherwise.
    optimizer_params : dict, default=None
        Further arguments of the optimizer.
    lr : float, default=0.01
        Learning rate.
    weight_decay : float, default=0.0
        L2 penalty of the optimizer ("adamw": decoupled).
    lr_schedule : {None, "cosine", "onecycle", "linear"} or callable, default=None
        Learning rate over the optimizer steps of the whole run. A callable gets
        ``(optimizer, n_steps)`` and returns a torch scheduler.
    max_grad_norm : float, default=None
        Norm to which gradients are clipped.
    max_epochs : int, default=10
        Number of passes over the data.
    batch_size : int, default=128
        Samples per forward pass, over all processes together. A network with batch
        normalisation leaves out a last batch of one sample.
    gradient_accumulation : int, default=1
        Batches per optimizer step.
    train_transform : callable, default=None
        Acts on a whole training batch, such as a transform of ``torchvision.transforms.v2``
        (as a value of a search's grid, inside ``v2.Compose``). None is the transform of
        evaluation: without augmentation both see the same.
    eval_transform : callable, default=None
        Acts on a whole batch in validation and prediction.
    collate_fn : callable, default=None
        Makes a batch (a tensor, or a dict passed to the network by keyword) of a list of
        samples; texts need one.
    early_stopping : bool, default=False
        Stop after ``n_epochs_no_change`` epochs without a better ``monitor``. Without an
        ``eval_set``, a part of the training samples is kept aside for validation.
    validation_fraction : float, default=0.1
        That part, stratified by class and group.
    n_epochs_no_change : int, default=5
        Patience of ``early_stopping``.
    monitor : {"auto", "worst_group_accuracy", "accuracy", "loss"} or None, default="auto"
        What the best epoch is best in, on validation samples; its network is the fitted one.
        "auto" is the worst-group accuracy where there are groups, otherwise the accuracy. Ties
        go to the higher accuracy, then to the later epoch. None keeps the last epoch.
    device : str or torch.device, default="auto"
        "auto" is CUDA, then MPS, then the CPU.
    precision : {"float32", "bf16", "fp16"}, default="float32"
        Precision of the forward pass.
    compile : bool, default=False
        Whether to run the network through ``torch.compile``.
    num_workers : int, default=0
        Processes that load samples; arrays and tensors need none.
    checkpoint_dir : path, default=None
        Folder in which each epoch is saved. The same fit started again resumes there. Needs an
        integer ``random_state``.
    callbacks : list of Callback, default=None
        Called before and after training and after each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches, dropout and augmentation. Global generators are not touched.
    verbose : int, default=0
        0 prints nothing; 1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    module_ : nn.Module
        The fitted network, in evaluation mode.
    groups_ : ndarray of shape (n_groups,)
        Values of the groups; empty where there are none.
    group_inferrer_ : estimator or None
        The fitted ``group_inferrer``, or the one that inferred the groups carried by ``X``.
    history_ : DataFrame
        One row per epoch: losses and accuracies (also of each group), learning rate, seconds.
    used_group_labels_ : dict
        Whether group labels were used: of "train" samples, of "validation" samples. The
        latter is True as well where a function of the user chose the inferrer's epoch.
    best_epoch_ : int or None
        Epoch, from 1, whose network was kept; None without validation.
    n_features_in_ : int
        Number of features, or of channels.
    """

    # Routing works without set_fit_request; never needed by predict.
    __metadata_request__fit = {"sample_group": True}
    __metadata_request__score = {"sample_group": True}

    _needs_groups = False
    _presets: dict = {}

    _parameter_constraints: dict = {
        "module": [None, str, nn.Module, callable, FrozenEstimator],
        "weights": [None, str, object],
        "module_params": [dict, None],
        "group_inferrer": [None, BaseEstimator],
        "optimizer": [StrOptions({"sgd", "adam", "adamw"}), callable],
        "optimizer_params": [dict, None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [None, StrOptions({"cosine", "onecycle", "linear"}), callable],
        "max_grad_norm": [None, Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "gradient_accumulation": [Interval(Integral, 1, None, closed="left")],
        "train_transform": [None, callable],
        "eval_transform": [None, callable],
        "collate_fn": [None, callable],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_epochs_no_change": [Interval(Integral, 1, None, closed="left")],
        "monitor": [None, StrOptions({"auto", "worst_group_accuracy", "accuracy", "loss"})],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "bf16", "fp16"})],
        "compile": ["boolean"],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "checkpoint_dir": [None, str, os.PathLike],
        "callbacks": [None, list, tuple],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        module=None,
        *,
        weights=None,
        module_params=None,
        group_inferrer=None,
        optimizer="sgd",
        optimizer_params=None,
        lr=0.01,
        weight_decay=0.0,
        lr_schedule=None,
        max_grad_norm=None,
        max_epochs=10,
        batch_size=128,
        gradient_accumulation=1,
        train_transform=None,
        eval_transform=None,
        collate_fn=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_epochs_no_change=5,
        monitor="auto",
        device="auto",
        precision="float32",
        compile=False,
        num_workers=0,
        checkpoint_dir=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.weights = weights
        self.module_params = module_params
        self.group_inferrer = group_inferrer
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.max_grad_norm = max_grad_norm
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.gradient_accumulation = gradient_accumulation
        self.train_transform = train_transform
        self.eval_transform = eval_transform
        self.collate_fn = collate_fn
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_epochs_no_change = n_epochs_no_change
        self.monitor = monitor
        self.device = device
        self.precision = precision
        self.compile = compile
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def preset(cls, name, **changes):
        """An estimator with the settings that the method's paper has for a data set.

        What the paper leaves open has the default. Augmentation is left to the caller, for it
        depends on how the images come; ``docs/fidelity.md`` says where a setting is from.

        Parameters
        ----------
        name : str
            Name of the data set, such as "waterbirds".
        **changes
            Parameters that replace those of the preset or come on top. Presets of text data
            need ``module=``: the network that the caller loads.

        Returns
        -------
        estimator : estimator of this class, unfitted

        Raises
        ------
        ValueError
            If there is no preset of that name, or it needs a ``module``.
        """
        return from_preset(cls, cls._presets, name, **changes)

    # ----------------------------------------------------------------------------------
    # What a method supplies

    def _initial_module(self, train, seed):
        """The network that training starts from, to be changed."""
        return build_module(
            self.module,
            weights=self.weights,
            module_params=self.module_params,
            sample_shape=train.samples.sample_shape,
            n_classes=len(self.classes_),
            seed=seed,
        )

    def _make_objective(self, train):
        """The loss of the method; ``train`` are the encoded training samples."""
        return Objective()

    def _make_sampler(self, train, seed):
        """The sampler of the method."""
        return UniformSampler(len(train), seed=seed)

    def _train(self, module, train, valid, runtime, seeds):
        """The fitted network and the result of its last stage; a method may have several.

        ``module`` is the initial network, the method's own to change.
        """
        sampler = self._make_sampler(train, seeds[0])
        objective = self._make_objective(train)
        result = self._run_stage(module, objective, sampler, train, valid, runtime, seed=seeds[1])
        return module, result

    def _store_result(self, result):
        """Learned attributes of the method, from its objective."""

    # ----------------------------------------------------------------------------------
    # Fit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, sample_group=None, sample_weight=None, eval_set=None):
        """Train the network.

        Parameters
        ----------
        X : array, DataFrame, tensor, list of paths or texts, map-style dataset, or GroupedData
            The training samples. 2-D arrays of numbers become float32; tensors keep their type.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample, any hashable values; several columns are crossed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each sample in the loss.
        eval_set : tuple (X, y) or (X, y, sample_group), default=None
            Validation samples, looked at after each epoch.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If lengths differ, groups are needed and missing, the network does not fit the
            classes, or training diverges.
        """
        X, sample_group, carried_inferrer = unpack_groups(X, sample_group)
        raw = X  # the inferrer sees what the user passed
        X, y = self._check_X_y(X, y)
        self.classes_, code = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; y has one class: "
                f"{self.classes_.tolist()[0]!r}."
            )
        runtime = Runtime(self.device, self.precision)
        seeds = runtime.agree(
            check_private_random_state(self.random_state).randint(2**31 - 1, size=5)
        )
        group = self._resolve_groups(raw, y, sample_group, carried_inferrer, int(seeds[0]))
        train = self._encode(X, code, group, sample_weight)
        valid = self._encode_eval_set(eval_set, train)
        if valid is None and self.early_stopping:
            train, valid = self._split(train, int(seeds[1]))
            self.used_group_labels_["validation"] = self.used_group_labels_["train"]

        module = self._initial_module(train, seed=int(seeds[2]))
        self._check_module(module, train, runtime)
        self.module_, result = self._train(module, train, valid, runtime, seeds[3:].tolist())
        self.history_ = self._history_frame(result.history)
        self.best_epoch_ = result.best_epoch
        self.used_group_labels_["validation"] |= _epoch_chosen_by_function(self.group_inferrer_)
        self._store_result(result)
        return self

    def _run_stage(
        self, module, objective, sampler, train, valid, runtime, *, seed, stage="", **changes
    ):
        """Train in place, in one run of the loop; ``changes`` are other fields of its config.

        A method of several stages names each: they keep their checkpoints apart.
        """
        config = replace(self._loop_config(valid, seed), **changes)
        if config.checkpoint_dir is not None:
            config.checkpoint_dir = Path(config.checkpoint_dir, stage)
        config.fingerprint = self._fingerprint(module, objective, sampler, train, valid)
        return fit_loop(module, objective, sampler, train, valid, runtime, config)

    def _check_X_y(self, X, y):
        """X as this estimator reads it, and y as an array; lengths are compared."""
        if input_kind(X) == "table":
            X, y = validate_data(self, X, y, dtype=np.float32)
            self._sample_shape = X.shape[1:]
        else:
            if y is None:
                raise ValueError(
                    f"This {type(self).__name__} estimator requires y to be passed, but the "
                    "target y is None. Pass the labels as y, also for datasets that hold them."
                )
            y = _check_y(y.cpu().numpy() if torch.is_tensor(y) else y, estimator=self)
            X = self._check_not_table(X, reset=True)
            check_consistent_length(X, y)
        check_classification_targets(y)
        return X, y

    def _check_not_table(self, X, *, reset):
        """Samples of an N-D array, tensor, list or dataset; shapes and values are checked."""
        transform = weights_transform(self.module, self.weights)
        samples = as_samples(
            X,
            collate_fn=self.collate_fn,
            image_transform=transform if self.eval_transform is None else None,
        )
        if reset:  # what an earlier fit on another kind of X learned
            vars(self).pop("feature_names_in_", None)
            vars(self).pop("n_features_in_", None)
        if len(samples) == 0:
            raise ValueError(f"X has 0 samples; {type(self).__name__} needs at least one.")
        if isinstance(samples, TensorSamples):
            if samples.tensor.ndim < 2:
                raise ValueError(
                    f"X has shape {tuple(samples.tensor.shape)}; expected one row per sample."
                )
            if samples.tensor.is_floating_point() and not samples.tensor.isfinite().all():
                raise ValueError("X contains NaN or infinity. Impute or drop these samples.")
            shape = samples.sample_shape
            if reset:
                self.n_features_in_ = shape[0]
                self._sample_shape = shape
            elif shape != self._sample_shape:
                raise ValueError(
                    f"X has samples of shape {shape}, but {type(self).__name__} was fitted on "
                    f"samples of shape {self._sample_shape}."
                )
        elif reset:
            self._sample_shape = None
        return samples

    def _resolve_groups(self, X, y, sample_group, carried_inferrer, seed):
        """Group codes of the training samples: given, carried, inferred, or none."""
        self.group_inferrer_ = carried_inferrer
        has_labels = sample_group is not None and carried_inferrer is None
        self.used_group_labels_ = {"train": has_labels, "validation": False}
        if sample_group is None and self.group_inferrer is not None:
            self.group_inferrer_ = _seed_nested(clone(self.group_inferrer), seed).fit(X, y)
            sample_group = last_step(self.group_inferrer_).labels_
        if sample_group is None:
            if self._needs_groups:
                raise ValueError(_groups_missing(type(self).__name__))
            self.groups_ = np.empty(0, dtype=np.int64)
            return None
        group, self.groups_ = encode_groups(sample_group, n_samples=len(y))
        return group

    def _encode(self, X, code, group, sample_weight=None, n_groups=None):
        """Labelled samples of encoded labels and groups."""
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, code, dtype=np.float32, ensure_non_negative=True
            )
            weight = torch.from_numpy(weight)
        return LabelledSamples(
            as_samples(X, collate_fn=self.collate_fn),
            torch.from_numpy(code.astype(np.int64)),
            None if group is None else torch.from_numpy(group),
            weight,
            len(self.groups_) if n_groups is None else n_groups,
        )

    def _encode_eval_set(self, eval_set, train):
        """Validation samples with their groups: given, carried, or inferred."""
        self._valid_groups = None  # those of the training samples
        if eval_set is None:
            return None
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise ValueError(
                "eval_set must be a tuple (X, y) or (X, y, sample_group); got "
                f"{type(eval_set).__name__}"
                + (f" of length {len(eval_set)}." if hasattr(eval_set, "__len__") else ".")
            )
        X, y, *rest = eval_set
        X, sample_group, inferrer = unpack_groups(X, rest[0] if rest else None)
        has_labels = sample_group is not None and inferrer is None
        self.used_group_labels_["validation"] = has_labels
        raw, X = X, self._check_X(X)
        y = column_or_1d(y.cpu().numpy() if torch.is_tensor(y) else y)
        check_consistent_length(X, y)
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise ValueError(f"eval_set has classes that are not in y: {unseen[:5].tolist()}.")
        if sample_group is None and self.group_inferrer_ is not None:
            sample_group = self._infer(raw, y)
        group, values = None, self.groups_
        if sample_group is not None:
            name = "the groups of eval_set"
            group, values = encode_groups(sample_group, n_samples=len(y), name=name)
            if train.group is None:
                self.groups_ = values
            elif self.used_group_labels_["train"] == has_labels:
                # Training codes stay; values of their own come after.
                values = self.groups_ = _union(self.groups_, values)
                group, _ = encode_groups(sample_group, groups=values)
                train.n_groups = len(values)
            # Otherwise labels on one side and inferred groups on the other: never mixed.
            self._valid_groups = values
        return self._encode(X, np.searchsorted(self.classes_, y), group, n_groups=len(values))

    def _split(self, train, seed):
        """Keep a part of the samples aside for validation, stratified by class and group."""
        strata = train.y.numpy()
        if train.group is not None:
            strata = strata * train.n_groups + train.group.numpy()
        _, strata = np.unique(strata, return_inverse=True)
        rng = np.random.default_rng(seed)
        fit_rows, valid_rows = stratified_split(strata, self.validation_fraction, rng)
        if len(valid_rows) == 0:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {len(train)} samples leaves "
                "none for validation. Give an eval_set or more samples."
            )
        return train.take(fit_rows), train.take(valid_rows)

    def _check_module(self, module, train, runtime):
        """Raise where the network's output does not fit the classes, before training."""
        config = {"transform": self._transforms()[1], "batch_size": 2}
        module.to(runtime.device)
        rows = torch.arange(min(2, len(train)))
        with runtime.fork_rng():
            batch = next(iterate_batches(train, rows, runtime, is_shared=False, **config))
            check_output(module, batch["X"], len(self.classes_))

    def _transforms(self):
        """Batch transforms of training and evaluation; the first may add augmentation."""
        if self._sample_shape is None:  # paths: preprocessed image by image
            default = None
        else:
            default = weights_transform(self.module, self.weights)
        evaluation = default if self.eval_transform is None else self.eval_transform
        return evaluation if self.train_transform is None else self.train_transform, evaluation

    def _loop_config(self, valid, seed):
        train_transform, eval_transform = self._transforms()
        callbacks = list(self.callbacks or [])
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks has a {type(callback).__name__}; expected instances of Callback."
                )
        if self.verbose:
            callbacks.append(ProgressBar())
        return LoopConfig(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer=self.optimizer,
            optimizer_params=self.optimizer_params,
            weight_decay=self.weight_decay,
            lr_schedule=self.lr_schedule,
            max_grad_norm=self.max_grad_norm,
            gradient_accumulation=self.gradient_accumulation,
            train_transform=train_transform,
            eval_transform=eval_transform,
            monitor=self._monitored(valid),
            patience=self.n_epochs_no_change if self.early_stopping else None,
            num_workers=self.num_workers,
            compile=self.compile,
            checkpoint_dir=self.checkpoint_dir,
            callbacks=callbacks,
            seed=seed,
        )

    def _monitored(self, valid):
        """Column of the history that the best epoch is best in."""
        if valid is None or self.monitor is None:
            return None
        if self.monitor == "auto":
            name = "accuracy" if valid.group is None else "worst_group_accuracy"
            return f"valid_{name}"
        if self.monitor == "worst_group_accuracy" and valid.group is None:
            raise ValueError(
                "monitor='worst_group_accuracy' needs the groups of the validation samples: "
                "give eval_set=(X, y, sample_group), or groups or a group_inferrer in fit."
            )
        return f"valid_{self.monitor}"

    def _fingerprint(self, module, objective, sampler, train, valid):
        """What tells this run from another; only made where a checkpoint is kept."""
        if self.checkpoint_dir is None:
            return ""
        if not isinstance(self.random_state, Integral):
            raise ValueError(
                "checkpoint_dir needs an integer random_state, so that the same fit started "
                f"again is the same run; got random_state={self.random_state!r}."
            )
        params = self.get_params(deep=False)
        params = {k: v for k, v in params.items() if k not in _NOT_IN_FINGERPRINT}
        parts = [type(self).__qualname__, params, module, objective.state_dict(), vars(sampler)]
        for data in (train, valid):
            if data is not None:
                parts += [data.samples.identity(), data.y, data.group, data.weight]
        return fingerprint(*parts)

    def _history_frame(self, history):
        """History as a DataFrame, its group columns named by the groups' values."""
        valid_groups = self.groups_ if self._valid_groups is None else self._valid_groups

        def name(column):
            groups = valid_groups if column.startswith("valid_") else self.groups_
            return re.sub(r"_group_(\d+)$", lambda m: f"[{groups[int(m[1])]}]", column)

        return pd.DataFrame(history).rename(columns=name)

    # ----------------------------------------------------------------------------------
    # Predict

    def _check_X(self, X):
        if input_kind(X) == "table":
            return validate_data(self, X, reset=False, dtype=np.float32)
        return self._check_not_table(X, reset=False)

    def _logits(self, X):
        """Logits of any X, as a float array of shape (n_samples, n_classes)."""
        X, _, _ = unpack_groups(X)
        samples = as_samples(self._check_X(X), collate_fn=self.collate_fn)
        runtime = Runtime(self.device, self.precision)
        module, apply = self.module_.to(runtime.device), forward
        if self.module is None and runtime.device.type != "mps":
            # A linear head, in float64: a row's logits do not depend on the rows of its batch.
            module, apply = copy.deepcopy(module).double(), _forward_float64
        logits = self._outputs(module, samples, runtime, apply)
        return logits.cpu().double().numpy()

    def _outputs(self, module, samples, runtime, apply=forward, rows=None):
        """What ``apply`` makes of a network and samples, in evaluation mode, on the device."""
        with runtime.fork_rng():
            return predict_logits(
                module,
                samples,
                runtime=runtime,
                rows=rows,
                batch_size=max(self.batch_size, 256),
                transform=self._transforms()[1],
                num_workers=self.num_workers,
                apply=apply,
            )

    def _embedding(self, module, samples, runtime):
        """What the last linear layer is given: (n_samples, n_features), float32, on the device."""
        head = last_linear(module)[1]
        if head.out_features != len(self.classes_):
            raise ValueError(
                f"the last linear layer of {type(module).__name__} has {head.out_features} "
                f"outputs for {len(self.classes_)} classes, so it is not the head. Wrap the "
                "network in a module that registers its head last."
            )
        embedding = self._outputs(module, samples, runtime, layer_output).float()
        if embedding.ndim != 2:
            raise ValueError(
                f"the last linear layer of {type(module).__name__} is given samples of shape "
                f"{tuple(embedding.shape[1:])}; one vector a sample is needed. Pool before it."
            )
        return embedding

    def decision_function(self, X):
        """Logits, or for two classes the logit of the second minus that of the first.

        Parameters
        ----------
        X : same kinds as in ``fit``

        Returns
        -------
        decision : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        check_is_fitted(self)
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X):
        """Class probabilities.

        Parameters
        ----------
        X : same kinds as in ``fit``

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        check_is_fitted(self)
        decision = self.decision_function(X)
        if decision.ndim == 1:
            return np.column_stack([expit(-decision), expit(decision)])
        return softmax(decision, axis=1)

    def predict(self, X):
        """Class labels; needs no groups.

        Parameters
        ----------
        X : same kinds as in ``fit``

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.classes_[self._logits(X).argmax(axis=1)]

    def score(self, X, y, *, sample_group=None, sample_weight=None):
        """Worst-group accuracy where groups are given or carried by X, otherwise accuracy.

        Parameters
        ----------
        X : same kinds as in ``fit``
        y : array-like of shape (n_samples,)
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        X, sample_group, _ = unpack_groups(X, sample_group)
        if sample_group is None:
            return super().score(X, y, sample_weight=sample_weight)
        from skspurious.metrics import worst_group_accuracy

        return worst_group_accuracy(
            y, self.predict(X), sample_group=sample_group, sample_weight=sample_weight
        )

    def infer_groups(self, X, y):
        """Groups of new rows, by the inferrer that was fitted.

        Parameters
        ----------
        X : same kinds as in ``fit``
        y : array-like of shape (n_samples,)
            Class labels: inferred groups are nested in classes.

        Returns
        -------
        sample_group : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        if self.group_inferrer_ is None:
            raise ValueError(
                f"this {type(self).__name__} was fitted without a group_inferrer, so it cannot "
                "infer the groups of new rows. Pass group_inferrer= to its constructor."
            )
        return self._infer(unpack_groups(X)[0], y)

    def _infer(self, X, y):
        """Groups of rows from the inferrer's last step, on the output of the steps before."""
        inferrer = self.group_inferrer_
        if isinstance(inferrer, Pipeline):
            X = inferrer[:-1].transform(X) if len(inferrer) > 1 else X
            inferrer = inferrer[-1]
        return inferrer.predict(unpack_groups(X)[0], y=y)

    # ----------------------------------------------------------------------------------

    def __getstate__(self):
        state = super().__getstate__()
        if "module_" in state:  # a file written on a GPU opens on a machine without one
            state = {**state, "module_": copy.deepcopy(state["module_"]).cpu()}
        return state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags


def _forward_float64(module, inputs):
    return forward(module, inputs.double())


def _groups_missing(name):
    return (
        f"{name} needs the group of every training sample and has none. Give them in one of "
        "three ways: fit(X, y, sample_group=g); X as GroupedData(X, g), which also reaches fit "
        "inside GridSearchCV and cross_validate (with metadata routing off they pass "
        "sample_group= on only under that name, never groups=); or "
        f"{name}(group_inferrer=...), which infers them without labels. To see this error in a "
        "search, pass error_score='raise'."
    )


def _seed_nested(estimator, seed):
    """Give every ``random_state=None`` inside a cloned estimator a seed of its own."""
    params = estimator.get_params(deep=True)
    names = sorted(
        k for k in params if k.rpartition("__")[2] == "random_state" and params[k] is None
    )
    seeds = np.random.default_rng(seed).integers(2**31 - 1, size=len(names))
    return estimator.set_params(**{k: int(s) for k, s in zip(names, seeds)}) if names else estimator


def last_step(estimator):
    return steps(estimator)[-1]


def steps(estimator):
    """Steps of a pipeline, or the estimator alone."""
    return list(estimator) if isinstance(estimator, Pipeline) else [estimator]


def _epoch_chosen_by_function(group_inferrer):
    """Whether a user's function chose an epoch for the inferrer: it may look at group labels."""
    return any(callable(getattr(step, "epoch_selector", None)) for step in steps(group_inferrer))


def _union(known, values):
    """Two sets of group values, the known ones first."""
    extra = [v for v in values.tolist() if v not in set(known.tolist())]
    if not extra:
        return known
    union = np.empty(len(known) + len(extra), dtype=object)
    union[:] = known.tolist() + extra
    return union
