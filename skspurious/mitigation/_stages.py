"""What the stages of composed methods share."""

import inspect

from skspurious.base import BaseTorchClassifier

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


def first_stage_params(params):
    """The shared training parameters that a first stage takes over from the second."""
    shared = inspect.signature(BaseTorchClassifier.__init__).parameters
    return {k: v for k, v in params.items() if k in shared and k not in _SECOND_STAGE_ONLY}
