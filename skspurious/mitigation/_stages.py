"""The first stage of composed methods."""

import inspect

from sklearn.base import clone

from skspurious.base import BaseTorchClassifier
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
_OF_THE_NETWORK = ("module", "weights", "module_params", "collate_fn", "eval_transform")


def make_first_stage(estimator, max_epochs):
    """The unfitted classifier of an estimator's first stage.

    By default plain training with the estimator's own shared parameters. A classifier that the
    user gave as ``first_stage`` is taken as it is; if it has no module, it gets the
    estimator's, with what goes along with it.
    """
    if estimator.first_stage is None:
        names = set(inspect.signature(BaseTorchClassifier.__init__).parameters) - {"self"}
        params = {name: getattr(estimator, name) for name in names - _SECOND_STAGE_ONLY}
        return ERMClassifier(**{**params, "max_epochs": max_epochs})
    first = clone(estimator.first_stage)
    if first.module is None:
        missing = [name for name in _OF_THE_NETWORK if getattr(first, name) is None]
        first.set_params(**{name: getattr(estimator, name) for name in missing})
    return first
