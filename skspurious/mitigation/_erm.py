"""Empirical risk minimisation: plain training."""

from skspurious.base import BaseTorchClassifier
from skspurious.utils._parameters import RESNET50, extends


@extends(BaseTorchClassifier)
class ERMClassifier(BaseTorchClassifier):
    """Plain training: the mean cross-entropy over all samples [1]_.

    What every other method is compared with, and the first stage of most: early in training
    its outputs tell which samples share a spurious feature.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    shared parameters

    Attributes
    ----------
    shared attributes

    See Also
    --------
    GroupDROClassifier : Minimises the worst group's loss.
    BalancedRetrainer : Trains on equally frequent groups.

    Notes
    -----
    Needs no groups. Where they are given, they are reported in ``history_`` and choose the best
    epoch.

    References
    ----------
    .. [1] V. Vapnik, "Principles of Risk Minimization for Learning Theory", NeurIPS 1991.

    Examples
    --------
    >>> from skspurious import ERMClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.metrics import worst_group_accuracy
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = ERMClassifier(max_epochs=5, random_state=0).fit(train.data, train.target)
    >>> clf.predict(train.data[:2]).shape
    (2,)
    """

    # The plain training of the papers whose methods are compared with it: Sagawa et al., ICLR
    # 2020, appendix C.2; Idrissi et al., CLeaR 2022, for CivilComments.
    _presets: dict = {
        "waterbirds": {**RESNET50, "lr": 1e-3, "weight_decay": 1e-4, "max_epochs": 300},
        "celeba": {**RESNET50, "lr": 1e-4, "weight_decay": 1e-4, "max_epochs": 50},
        "multinli": {
            "optimizer": "adamw",
            "lr": 2e-5,
            "lr_schedule": "linear",
            "max_grad_norm": 1.0,
            "batch_size": 32,
            "max_epochs": 20,
        },
        "civilcomments": {"lr": 1e-4, "weight_decay": 1e-4, "batch_size": 4, "max_epochs": 7},
    }

    def __init__(self, module=None, **shared):
        super().__init__(module, **shared)
