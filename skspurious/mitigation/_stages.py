"""The first stage of composed methods."""

import inspect
from pathlib import Path

import numpy as np
from sklearn.base import clone

from skspurious._engine._modules import weights_transform
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._training import run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.data import DatasetSamples, TensorSamples, as_samples
from skspurious.functional._split import stratified_split
from skspurious.mitigation._erm import ERMClassifier

# A first stage shows what the network learns by itself: no augmentation, no validation.
_SECOND_STAGE_ONLY = {
    "callbacks",
    "checkpoint_dir",
    "early_stopping",
    "group_inferrer",
    "lr_schedule",
    "monitor",
    "n_epochs_no_change",
    "random_state",
    "train_transform",
    "validation_fraction",
    "verbose",
}
_OF_THE_NETWORK = (
    "module",
    "weights",
    "module_params",
    "collate_fn",
    "eval_transform",
    "image_size",
)


def make_first_stage(estimator, max_epochs):
    """The unfitted classifier of an estimator's first stage.

    By default plain training with the estimator's own shared parameters. A classifier that the
    user gave as ``first_stage`` is taken as it is; if it has no module, it gets the
    estimator's, with what goes along with it; if it has one, it takes over ``collate_fn`` alone,
    where it has none. Its checkpoints lie in the estimator's folder.
    """
    if estimator.first_stage is None:
        names = set(inspect.signature(BaseTorchClassifier.__init__).parameters) - {"self"}
        params = {name: getattr(estimator, name) for name in names - _SECOND_STAGE_ONLY}
        first = ERMClassifier(**{**params, "max_epochs": max_epochs})
    else:
        first = clone(estimator.first_stage)
        names = _OF_THE_NETWORK if first.module is None else ("collate_fn",)
        missing = [name for name in names if getattr(first, name) is None]
        first.set_params(**{name: getattr(estimator, name) for name in missing})
    if first.checkpoint_dir is None and estimator.checkpoint_dir is not None:
        folder = Path(estimator.checkpoint_dir, "first_stage")
        first.set_params(checkpoint_dir=folder, run_name=estimator.run_name)
    return first


def read_for(first, samples):
    """Samples as a first stage reads them that has a network, tokens or preprocessing of its own.

    Parameters
    ----------
    first : BaseTorchClassifier
    samples : TensorSamples or DatasetSamples
        As the second stage reads them.

    Returns
    -------
    samples : TensorSamples or DatasetSamples
    """
    if isinstance(samples, TensorSamples):
        return samples
    if not samples.are_image_files:
        return as_samples(samples, collate_fn=first.collate_fn)
    transform = None
    if first.eval_transform is None:
        transform = weights_transform(first.module, first.weights)
    files = samples.dataset.with_transform(transform)
    return DatasetSamples(files, samples.index, are_image_files=True)


def train_on_part(estimator, module, data, runtime, seeds):
    """Plain training on a part of the samples; a new last layer is for those that are left.

    With ``max_epochs=0`` the network comes trained, and all samples are left.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        With the parameter ``holdout_fraction``.
    module : nn.Module
        Trained in place.
    data, runtime, seeds : as ``_train`` is given them

    Returns
    -------
    held_out : ndarray of int
        Positions in ``data.train`` that the network was not trained on.
    part : LabelledSamples
        What it was trained on.
    result : LoopResult or None
        None where it comes trained.
    """
    everything = np.arange(len(data.train))
    if estimator.max_epochs == 0:
        if estimator.module is None:
            raise ValueError(
                "max_epochs=0 is for a network that is trained already, such as "
                "module=FrozenEstimator(fitted_classifier); module=None has nothing learned."
            )
        return everything, data.train, None
    fraction, rng = estimator.holdout_fraction, np.random.default_rng(seeds[0])
    rows, held_out = stratified_split(data.train.y.numpy(), fraction, rng)
    if len(held_out) == 0:
        raise ValueError(
            f"holdout_fraction={fraction} of {len(everything)} samples, of which no two are of "
            "one class, leaves none for the last layer. Give more samples."
        )
    part = data.train.take(rows)
    stage = Stage("erm", Objective(), UniformSampler(len(part), seed=seeds[0]), seed=seeds[1])
    return held_out, part, run_stage(estimator, module, stage, part, data.valid, runtime)
