"""SPARE: separate groups early in training, then resample."""

from functools import partial

from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._stages import first_stage_params
from skspurious.networks import LeNet
from skspurious.utils._parameters import RESNET50, from_preset

# The settings of the scripts in SpuCo 2.0.3 and its earlier versions; "robust" is the second stage.
_FIRST = {"lr": 1e-3, "weight_decay": 1e-4}
_PRESETS: dict = {
    "waterbirds": {
        **RESNET50,
        "init_params": _FIRST,
        "lr": 1e-4,
        "weight_decay": 0.1,
        "max_epochs": 300,
    },
    "spuco_mnist": {
        "module": LeNet,
        "init_params": {"lr": 1e-3, "weight_decay": 1e-2, "batch_size": 32},
        "high_power": 20.0,
        "silhouette_threshold": 1.0,  # the script gives every class the high power
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "batch_size": 32,
        "max_epochs": 20,
    },
    "spuco_animals": {
        "module": "resnet18",
        "weights": "IMAGENET1K_V1",
        "init_params": _FIRST,
        "n_clusters": 4,
        "lr": 1e-4,
        "weight_decay": 0.1,
        "max_epochs": 100,
    },
}


def make_spare(
    module=None,
    *,
    init_epochs=1,
    init_params=None,
    n_clusters="auto",
    max_clusters=5,
    silhouette_threshold=0.9,
    high_power=2.0,
    epoch_selector=None,
    warm_start=False,
    n_jobs=None,
    **params,
):
    """SPARE [1]_: infer groups from a network's early outputs, then retrain on balanced groups.

    Networks learn simple, spurious features first. So after an epoch or two the outputs of
    one class fall into clusters that share a spurious feature. They become the groups, each
    class clustered by itself, and a fresh network is trained on equally frequent groups.
    No group labels are used anywhere.

    Parameters
    ----------
    module : None, str, nn.Module, class, callable or FrozenEstimator, default=None
        The network of both stages; each starts anew from it, but see `warm_start`.
    init_epochs : int, default=1
        Epochs of plain training before the outputs are clustered; with an `epoch_selector` the
        largest number that it can choose.
    init_params : dict, default=None
        Parameters of the first stage's ``ERMClassifier`` that differ from the second stage's.
        By default it has the same network, optimizer and batches, and neither augmentation
        nor a schedule.
    n_clusters : "auto" or int, default="auto"
        Groups per class; "auto" chooses by the silhouette.
    max_clusters : int, default=5
        Largest number that "auto" tries.
    silhouette_threshold : float, default=0.9
        A class whose silhouette is lower is sampled with ``high_power``.
    high_power : float, default=2.0
        Sampling power of a class whose clusters are not well separated, and therefore hold
        majority samples among the minority's; other classes have 1.
    epoch_selector : None, "silhouette" or callable, default=None
        Which epoch's outputs are clustered: None is the last. "silhouette" is the one whose
        clusters have the highest silhouette, mean over the classes; no group labels are
        needed. A callable ``(extractor, X, y) -> float`` scores the network after each epoch,
        for instance by the recall of groups that are known; the highest value is taken, and
        ``used_group_labels_["validation"]`` is True, for what it looks at is its own affair.
    warm_start : bool, default=False
        Whether the second stage goes on with the weights of the first instead of new ones.
    n_jobs : int, default=None
        Classes clustered at once.
    **params
        Parameters of the second stage, a ``BalancedRetrainer``: its ``lr``, ``max_epochs``,
        ``train_transform``, ``random_state`` and so on.

    Returns
    -------
    classifier : BalancedRetrainer
        With a pipeline of feature extractor and inferrer as its ``group_inferrer``.

    Notes
    -----
    ``make_spare.preset("waterbirds")`` has the authors' settings for a data set, and takes changes
    to them like ``preset`` of the classifiers.

    With "silhouette" the clusters of each epoch are found as those of the chosen one are: with
    the arguments given here. A later ``set_params`` for the inferrer does not reach them, they
    are ``group_inferrer__torchfeatureextractor__epoch_selector__...``.

    The authors give no rule for the epoch that needs no group labels; "silhouette" is ours. A
    high silhouette tells how well separated the clusters are, not what they are: in 7 of 18 runs on
    shortcuts in CIFAR-10 its epoch was no better than the first (``docs/results/defaults.md``).

    References
    ----------
    .. [1] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman, "Identifying Spurious Biases
       Early in Training through the Lens of Simplicity Bias", AISTATS 2024. arXiv:2305.18761.

    Examples
    --------
    >>> from skspurious import make_spare
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = make_spare(max_epochs=5, random_state=0).fit(train.data, train.target)
    >>> clf.used_group_labels_
    {'train': False, 'validation': False}
    """
    first = ERMClassifier(
        module, **{**first_stage_params(params), "max_epochs": init_epochs, **(init_params or {})}
    )
    inferrer = SpuriousGroupInferrer(
        method="spare",
        n_clusters=n_clusters,
        max_clusters=max_clusters,
        silhouette_threshold=silhouette_threshold,
        high_power=high_power,
        n_jobs=n_jobs,
    )
    if epoch_selector == "silhouette":
        epoch_selector = clone(inferrer)
    elif isinstance(epoch_selector, str):
        raise ValueError(
            f"epoch_selector={epoch_selector!r}: use None, 'silhouette' or a function "
            "(extractor, X, y) -> float."
        )
    extractor = TorchFeatureExtractor(
        first, output="proba", epoch_selector=epoch_selector, device=first.device
    )
    return BalancedRetrainer(
        module,
        group_inferrer=make_pipeline(extractor, inferrer),
        start_from="group_inferrer" if warm_start else "module",
        **params,
    )


make_spare.preset = partial(from_preset, make_spare, _PRESETS)
