"""The parameters that all classifiers share, written once."""

import os
from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from torch import nn

from skspurious._engine._modules import build_module
from skspurious.utils._parameters import ModuleParametersMixin, from_preset
from skspurious.utils._sklearn_compat import Interval, StrOptions


class TrainingParameters(ModuleParametersMixin, BaseEstimator):
    """What to train, and how.

    Parameters
    ----------
    module : None, str, nn.Module, class, callable or FrozenEstimator, default=None
        The network. None is a linear head sized in ``fit``; a str names a torchvision model,
        whose head is resized to the classes; an instance is copied before training and never
        changed; a class or callable is called in ``fit``, under the seed, with
        ``module_params``; a fitted classifier in a ``FrozenEstimator`` gives a copy of its
        ``module_``.
    weights : str or torchvision weights, default=None
        Pretrained weights of a torchvision model, such as "DEFAULT". Unless an
        ``eval_transform`` is given, pictures of any kind (arrays, tensors, files, datasets) get
        the preprocessing that belongs to the weights, where they are bytes or between 0 and 1;
        pictures with negative values are taken as standardised already.
    module_params : dict, default=None
        Arguments of a class or callable ``module``, or of a torchvision model.
    group_inferrer : estimator or Pipeline ending in one, default=None
        A :class:`~skspurious.SpuriousGroupInferrer`,
        :class:`~skspurious.group_inference.ViewJury` or
        :class:`~skspurious.group_inference.SemiSupervisedGroupInferrer`. Cloned and fitted inside
        ``fit`` where no groups are given. Groups that ``X`` carries then only count for the score.
    criterion : None or callable, default=None
        Loss of each sample: None is the cross-entropy. A callable gets the logits, of shape
        (n, n_classes), and the class codes, of shape (n,), and returns losses of shape (n,), such
        as ``nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")``. It takes the place of the
        cross-entropy in training and validation; scores by which samples are chosen, and last
        layers that a method fits by a solver of its own, keep theirs.
    optimizer : {"auto", "sgd", "adam", "adamw"} or torch optimizer class, default="auto"
        "sgd" has momentum 0.9 unless ``optimizer_params`` says otherwise. A class must learn from
        batches: LBFGS, Rprop and SparseAdam are refused. "auto" is "sgd", except
        that a linear head, ``module=None``, is fitted to the minimum of its loss, all samples at
        once and whatever the seed, where none of these is set: ``optimizer``, ``lr``,
        ``max_epochs``, ``optimizer_params``, ``lr_schedule``, ``max_grad_norm``,
        ``early_stopping``, ``train_transform``. ``history_`` then has one row, with the number of
        iterations (``n_iter``) and the ``weight_decay``; validation samples are evaluated there,
        and ``checkpoint_dir`` has nothing to save.
    optimizer_params : dict, default=None
        Further arguments of the optimizer.
    lr : "auto" or float, default="auto"
        Learning rate. "auto" is 0.01.
    weight_decay : "auto" or float, default="auto"
        L2 penalty of the optimizer ("adamw": decoupled). "auto" is 0. For a linear head that is
        fitted to the minimum the penalty is ``weight_decay / 2`` times the squared weights, beside
        the mean loss, with free intercepts; "auto" is 5e-5 times the sum of the variances of the
        features, times the number of samples over the effective number, so that it is larger
        where a few samples count as much as all others.
    lr_schedule : {None, "cosine", "onecycle", "linear", "plateau"} or callable, default=None
        Learning rate over the optimizer steps of the whole run. "plateau" lowers it to a tenth
        where ten epochs have not bettered the monitored accuracy, or without one the loss. A
        callable gets ``(optimizer, n_steps)`` and returns a torch scheduler; a
        ``ReduceLROnPlateau``, such as ``partial(ReduceLROnPlateau, patience=2)``, is stepped after
        each epoch: by the loss with its mode "min", by the monitored accuracy with "max", of the
        validation samples where there are any.
    max_grad_norm : float, default=None
        Norm to which gradients are clipped.
    max_epochs : "auto" or int, default="auto"
        Number of passes over the data. "auto" is 10.
    batch_size : int, default=128
        Samples per forward pass, over all processes together. A network with batch
        normalisation leaves out a last batch of one sample.
    gradient_accumulation : int, default=1
        Batches per optimizer step.
    train_transform : callable, default=None
        Acts on a whole training batch; after the preprocessing of ``weights``, and in place of
        ``eval_transform`` where that is given. Those of ``skspurious.transforms`` draw anew for
        every image; a transform of ``torchvision.transforms.v2`` draws once a batch, and changes
        all its images alike. None is no augmentation.
    eval_transform : callable, default=None
        Acts on a whole batch in validation and prediction.
    collate_fn : callable, default=None
        Makes a batch (a tensor, or a dict passed to the network by keyword) from a list of
        samples; texts need one. A tokenizer of transformers is taken as it is: it pads to the
        longest text of the batch, and truncates.
    image_size : int or tuple of two ints, default=None
        Height and width that pictures are resized to; an int is both. None leaves them.
    early_stopping : bool, default=False
        Stop after ``n_epochs_no_change`` epochs without a better ``monitor``. Without ``X_val``,
        a part of the training samples is kept aside for validation.
    validation_fraction : float, default=0.1
        Share of the training samples that is kept aside where validation samples are needed and
        none are given, stratified by class and group.
    n_epochs_no_change : int, default=5
        Patience of ``early_stopping``.
    monitor : {"auto", "worst_group_accuracy", "accuracy", "loss"} or None, default="auto"
        Value on the validation samples by which the best epoch is chosen, whose network is kept.
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
        Folder in which each epoch is saved. The same fit started again resumes there: a fit of
        the same parameters, samples and code. Of files their sizes and times count, of other
        datasets their attributes and some rows. Needs an integer ``random_state``. A file that is
        damaged or of another version raises ``skspurious.exceptions.UnreadableFileError``.
    run_name : str, default=None
        Tells fits in one ``checkpoint_dir`` apart, where a parameter or a dataset has no content
        to tell by, such as an open file or a connection. Without a name that is an error.
    callbacks : list of Callback, default=None
        Called before and after training and after each epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches, dropout and augmentation. Global generators are not touched.
    verbose : int, default=0
        0 prints nothing; 1 shows a progress bar.
    """

    _presets: dict = {}

    _parameter_constraints: dict = {
        "module": [None, str, nn.Module, callable, FrozenEstimator],
        "weights": [None, str, object],
        "module_params": [dict, None],
        "group_inferrer": [None, BaseEstimator],
        "criterion": [None, callable],
        "optimizer": [StrOptions({"auto", "sgd", "adam", "adamw"}), callable],
        "optimizer_params": [dict, None],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "weight_decay": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "lr_schedule": [None, StrOptions({"cosine", "onecycle", "linear", "plateau"}), callable],
        "max_grad_norm": [None, Interval(Real, 0, None, closed="neither")],
        "max_epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "gradient_accumulation": [Interval(Integral, 1, None, closed="left")],
        "train_transform": [None, callable],
        "eval_transform": [None, callable],
        "collate_fn": [None, callable],
        "image_size": [None, Interval(Integral, 1, None, closed="left"), tuple, list],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_epochs_no_change": [Interval(Integral, 1, None, closed="left")],
        "monitor": [None, StrOptions({"auto", "worst_group_accuracy", "accuracy", "loss"})],
        "device": [str, torch.device],
        "precision": [StrOptions({"float32", "bf16", "fp16"})],
        "compile": ["boolean"],
        "num_workers": [Interval(Integral, 0, None, closed="left")],
        "checkpoint_dir": [None, str, os.PathLike],
        "run_name": [None, str],
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
        criterion=None,
        optimizer="auto",
        optimizer_params=None,
        lr="auto",
        weight_decay="auto",
        lr_schedule=None,
        max_grad_norm=None,
        max_epochs="auto",
        batch_size=128,
        gradient_accumulation=1,
        train_transform=None,
        eval_transform=None,
        collate_fn=None,
        image_size=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_epochs_no_change=5,
        monitor="auto",
        device="auto",
        precision="float32",
        compile=False,
        num_workers=0,
        checkpoint_dir=None,
        run_name=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.module = module
        self.weights = weights
        self.module_params = module_params
        self.group_inferrer = group_inferrer
        self.criterion = criterion
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
        self.image_size = image_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_epochs_no_change = n_epochs_no_change
        self.monitor = monitor
        self.device = device
        self.precision = precision
        self.compile = compile
        self.num_workers = num_workers
        self.checkpoint_dir = checkpoint_dir
        self.run_name = run_name
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

    def _initial_module(self, data, seed):
        """The network that training starts from, to be changed."""
        return build_module(
            self.module,
            weights=self.weights,
            module_params=self.module_params,
            sample_shape=data.train.samples.sample_shape,
            n_classes=len(data.classes),
            seed=seed,
        )

    # What the preparation of data asks.

    _needs_groups = False

    @property
    def _balances_groups(self):
        """Whether samples count by their groups, so that groups of nothing cost accuracy."""
        return self._needs_groups

    _uses_criterion = True  # whether anything is trained that its loss is for

    _splits_by_group = True  # what is kept aside is stratified by group, too

    def _check_data(self, data):
        """Raise, before a network is built, where the method cannot be trained on the data."""

    @property
    def _keeps_part_aside(self):
        """Whether a part of the training samples is for validation, where none are given."""
        return self.early_stopping

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
                "give X_val, y_val and sample_group_val, or groups or a group_inferrer in fit."
            )
        return f"valid_{self.monitor}"
