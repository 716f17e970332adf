"""How an estimator trains: its shared parameters as settings of the loop, and what comes out."""

import copy
import re
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from skspurious._engine._batches import iterate_batches
from skspurious._engine._callbacks import Callback, ProgressBar, Recorder
from skspurious._engine._checkpoint import CheckpointFolder
from skspurious._engine._config import LoopConfig
from skspurious._engine._modules import check_output, weights_transform
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._preparation import prepare
from skspurious.data import TensorSamples
from skspurious.utils._identity import WITHOUT_EFFECT, NoIdentityError, fingerprint
from skspurious.utils._random import check_private_random_state


@dataclass(frozen=True)
class Trained:
    """What a method's training gives.

    Parameters
    ----------
    module : nn.Module
        The fitted network.
    history : list of dict
        Rows of ``history_``.
    best_epoch : int, default=None
        Epoch whose network was kept; None without validation.
    learned : dict, default={}
        Learned attributes by name, each with its underscore at the end. They are set when all
        else is done, and may replace attributes that every classifier has.

    Examples
    --------
    >>> from torch import nn
    >>> from skspurious.extend import Trained
    >>> trained = Trained(nn.Linear(3, 2), [{"epoch": 1}], learned={"error_rate_": 0.25})
    >>> trained.best_epoch is None
    True
    """

    module: nn.Module
    history: list[dict]
    best_epoch: int | None = None
    learned: dict[str, Any] = field(default_factory=dict)


def begin_fit(estimator, X, y, *, group_inferrer=None, **given):
    """Everything up to the training: checks, groups, and the initial network.

    Parameters
    ----------
    estimator : TrainingParameters
    X, y : as passed to ``fit``
    group_inferrer : estimator or None
        Unfitted.
    **given
        What else was passed to ``fit``.

    Returns
    -------
    runtime : Runtime
    data : FitData
    module : nn.Module
        The estimator's own, to be changed.
    seeds : list of two ints
        Of the sampler, and of dropout and augmentation.
    """
    runtime = Runtime(estimator.device, estimator.precision)
    seeds = runtime.agree(
        check_private_random_state(estimator.random_state).randint(2**31 - 1, size=5)
    ).tolist()
    data = prepare(estimator, X, y, group_inferrer=group_inferrer, seeds=seeds[:2], **given)
    estimator._check_data(data)
    module = estimator._initial_module(data, seed=seeds[2])
    check_module(estimator, module, data, runtime)
    check_criterion(estimator, len(data.classes), runtime)
    return runtime, data, module, seeds[3:]


def with_criterion(objective, estimator, runtime):
    """The objective, with a copy of the estimator's ``criterion`` on the device."""
    criterion = estimator.criterion
    if isinstance(criterion, nn.Module):  # which is not trained
        criterion = copy.deepcopy(criterion).to(runtime.device).requires_grad_(False)
    objective.criterion = criterion
    return objective


def check_criterion(estimator, n_classes, runtime):
    """Raise where ``criterion`` does not give a loss for each sample, before training."""
    if estimator.criterion is None:
        return
    if not estimator._uses_criterion:
        raise ValueError(
            f"criterion has no effect: {type(estimator).__name__} fits the last layer by a solver "
            "of its own, and nothing else with module=None or max_epochs=0. Leave criterion=None, "
            "or give a module and max_epochs."
        )
    criterion = with_criterion(Objective(), estimator, runtime).criterion
    logits = torch.zeros(3, n_classes, device=runtime.device, requires_grad=True)
    y = torch.tensor([0, 1, 0], device=runtime.device)
    what = f"criterion={estimator.criterion!r}"
    remedy = (
        "Give a function of logits (n, n_classes) and class codes (n,) that returns losses (n,), "
        "or an instance of a loss of torch.nn such as nn.CrossEntropyLoss(reduction='none')."
    )
    if isinstance(criterion, type):
        raise ValueError(f"{what} is a class. {remedy}")
    try:
        with runtime.fork_rng():
            losses = criterion(logits, y)
    except Exception as error:
        raise ValueError(
            f"{what} fails on logits of shape (3, {n_classes}): {error}. {remedy}"
        ) from error
    if not torch.is_tensor(losses) or losses.shape != y.shape:
        got = f"shape {tuple(losses.shape)}" if torch.is_tensor(losses) else type(losses).__name__
        raise ValueError(f"{what} gives {got} for 3 samples, not a loss for each. {remedy}")
    if not (losses.is_floating_point() and losses.requires_grad):
        raise ValueError(f"{what} gives losses without a gradient: nothing could be learned.")


def run_stage(estimator, module, stage, train, valid, runtime):
    """Train ``module`` in place, in one run of the loop.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        Its parameters say how to train.
    module : nn.Module
        The network.
    stage : Stage
        The loss, the sampler, and what differs from the estimator's parameters.
    train : LabelledSamples
        Samples to train on, such as ``data.train`` or a part of it, ``data.train.take(rows)``.
    valid : LabelledSamples or None
        Samples to evaluate after each epoch, ``data.valid``. With None the last epoch is kept.
    runtime : Runtime
        The ``runtime`` that ``_train`` was given.

    Returns
    -------
    result : LoopResult
        ``history`` (list of dict), ``best_epoch`` and ``objective``.

    Raises
    ------
    TypeError
        If an item of ``callbacks`` is not a Callback.
    ValueError
        If training diverges.

    Examples
    --------
    >>> from skspurious.extend import (
    ...     BaseTorchClassifier, Objective, Stage, Trained, UniformSampler, run_stage
    ... )
    >>> class Plain(BaseTorchClassifier):
    ...     def _train(self, module, data, runtime, seeds):
    ...         sampler = UniformSampler(len(data.train), seed=seeds[0])
    ...         stage = Stage("plain", Objective(), sampler, seed=seeds[1])
    ...         result = run_stage(self, module, stage, data.train, data.valid, runtime)
    ...         return Trained(module, result.history, result.best_epoch)
    >>> Plain(max_epochs=2).fit([[0.0], [1.0]], [0, 1]).history_["stage"].tolist()
    ['plain', 'plain']
    """
    with_criterion(stage.objective, estimator, runtime)
    config = loop_config(estimator, train, valid)
    if config.checkpoint_dir is not None:
        recorders = [c for c in stage.callbacks_of(config) if isinstance(c, Recorder)]
        run = _fingerprint(estimator, module, stage, train, valid, recorders)
        config = replace(config, fingerprint=run)
    return stage.run(module, train, valid, runtime, config)


def loop_config(estimator, train, valid=None):
    """The shared parameters as settings of the loop."""
    train_transform, eval_transform = transforms_of(estimator, train.samples)
    if valid is not None:
        _, eval_transform = transforms_of(estimator, valid.samples)
    callbacks = list(estimator.callbacks or [])
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks has a {type(callback).__name__}; expected instances of Callback."
            )
    if estimator.verbose:
        callbacks.append(ProgressBar())
    return LoopConfig(
        max_epochs=estimator.max_epochs,
        batch_size=estimator.batch_size,
        lr=estimator.lr,
        optimizer=estimator.optimizer,
        optimizer_params=estimator.optimizer_params,
        weight_decay=estimator.weight_decay,
        lr_schedule=estimator.lr_schedule,
        max_grad_norm=estimator.max_grad_norm,
        gradient_accumulation=estimator.gradient_accumulation,
        train_transform=train_transform,
        eval_transform=eval_transform,
        monitor=estimator._monitored(valid),
        patience=estimator.n_epochs_no_change if estimator.early_stopping else None,
        num_workers=estimator.num_workers,
        compile=estimator.compile,
        checkpoint_dir=estimator.checkpoint_dir,
        callbacks=callbacks,
        is_head=estimator.module is None,
    )


def transforms_of(estimator, samples):
    """Batch transforms of training and evaluation; the first may add augmentation.

    The preprocessing of ``weights`` acts on batches of arrays and tensors, and on pictures of
    files and datasets one by one, as they are read; the augmentation comes after it. Where the
    user gives an ``eval_transform`` there is none.
    """
    default = None
    if isinstance(samples, TensorSamples) and samples.is_raw:
        default = weights_transform(estimator.module, estimator.weights)
    augment = estimator.train_transform
    if estimator.eval_transform is not None:
        evaluation = estimator.eval_transform
        return evaluation if augment is None else augment, evaluation
    if augment is None or default is None:
        return default if augment is None else augment, default
    return partial(_one_after_the_other, default, augment), default


def _one_after_the_other(first, second, batch):
    return second(first(batch))


def check_module(estimator, module, data, runtime):
    """Raise where the network's output does not fit the classes, before training."""
    module.to(runtime.device)
    rows = torch.arange(min(2, len(data.train)))
    with runtime.fork_rng():
        batch = next(
            iterate_batches(
                data.train,
                rows,
                runtime,
                batch_size=2,
                transform=transforms_of(estimator, data.train.samples)[1],
                is_shared=False,
            )
        )
        check_output(module, batch["X"], len(data.classes))


def _fingerprint(estimator, module, stage, train, valid, recorders):
    """What tells this run from another."""
    changes = {k: v for k, v in stage.changes.items() if k not in WITHOUT_EFFECT}
    objective = [type(stage.objective), stage.objective.state_dict()]
    run = [stage.seed, changes, objective, type(stage.sampler), vars(stage.sampler)]
    data = [
        [part.samples.identity(), part.y, part.group, part.weight]
        for part in (train, valid)
        if part is not None
    ]
    return identity_of(estimator, module, run, [r.identity() for r in recorders], data)


def identity_of(estimator, *parts):
    """The fingerprint of an estimator's parameters and of what else counts."""
    if not isinstance(estimator.random_state, Integral):
        raise ValueError(
            "checkpoint_dir needs an integer random_state, so that the same fit started "
            f"again is the same run; got random_state={estimator.random_state!r}."
        )
    params = estimator.get_params(deep=False)
    params = {k: v for k, v in params.items() if k not in WITHOUT_EFFECT}
    try:
        return fingerprint(type(estimator), params, *parts, run_name=estimator.run_name)
    except NoIdentityError as error:
        raise ValueError(
            f"checkpoint_dir cannot tell this fit from others: {error} Set run_name to a name "
            "that no other fit in this folder has."
        ) from error


def remembered(estimator, name, compute, *, parts, runtime, generator=None):
    """What ``compute`` gives; with a ``checkpoint_dir`` it is kept there, and computed once.

    Parameters
    ----------
    estimator : BaseTorchClassifier
    name : str
        Folder within the ``checkpoint_dir``.
    compute : callable
        Without arguments; returns tensors, numbers, or containers of them.
    parts : list
        What the result depends on, besides the parameters.
    runtime : Runtime
    generator : torch.Generator, default=None
        What ``compute`` draws from; afterwards it is as if it had been drawn from now.

    Returns
    -------
    result : what ``compute`` returned; from a file its tensors are on the CPU
    """
    if estimator.checkpoint_dir is None:
        return compute()
    start = None if generator is None else generator.get_state()
    run = identity_of(estimator, name, start, *parts)
    folder = CheckpointFolder(Path(estimator.checkpoint_dir, name), run)
    kept = folder.load({}, runtime)
    if kept is None:
        kept = {"result": compute(), "end": None}
        kept["end"] = None if generator is None else generator.get_state()
        folder.save({}, kept, runtime)
    if generator is not None:
        generator.set_state(kept["end"])
    return kept["result"]


def history_frame(history, groups, valid_groups):
    """History as a DataFrame, its group columns named by the groups' values."""

    def name(column):
        values = valid_groups if column.startswith("valid_") else groups
        return re.sub(r"_group_(\d+)$", lambda m: f"[{values[int(m[1])]}]", column)

    return pd.DataFrame(history).rename(columns=name)
