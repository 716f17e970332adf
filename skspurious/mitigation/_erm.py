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
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    module_ : nn.Module
        The fitted network, in evaluation mode.
    groups_ : ndarray of shape (n_groups,)
        Values of the groups; empty where there are none.
    group_inferrer_ : estimator or None
        The fitted ``group_inferrer``, or the one that inferred the groups carried by ``X``.
    history_ : DataFrame
        One row per epoch: losses, accuracies (also of each group), learning rate, seconds.
    used_group_labels_ : dict
        Whether group labels were used: of "train" samples, of "validation" samples.
    best_epoch_ : int or None
        Epoch, from 1, whose network was kept; None without validation.
    n_features_in_ : int
        Number of features, or of channels.

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
