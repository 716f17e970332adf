"""SPARE: separate groups early in training, then resample."""

from numbers import Integral

from sklearn.pipeline import make_pipeline

from skspurious._engine._config import auto
from skspurious.base import BaseTorchClassifier
from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SpareGroups, SpuriousGroupInferrer
from skspurious.group_inference._base import GroupMethod
from skspurious.group_inference._methods import METHODS, new_method
from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._stages import make_first_stage
from skspurious.networks import LeNet
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

_HEAD_LR = 1e-4  # of a head's first stage, of which an epoch at 0.01 is not early any more
_FIRST_STAGE = ERMClassifier(lr=1e-3, weight_decay=1e-4, max_epochs=1)


@extends(BalancedRetrainer, without=("by", "group_inferrer", "start_from"))
class SPAREClassifier(BalancedRetrainer):
    """SPARE [1]_: infers groups from a network's early outputs, then retrains on balanced groups.

    Networks learn simple, spurious features first. So after an epoch or two the outputs of
    one class fall into clusters that share a spurious feature. They become the groups, each
    class clustered by itself, and a fresh network is trained on equally frequent groups.
    No group labels are used anywhere.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    init_epochs : int, default=1
        Epochs of plain training before the outputs are clustered, where `first_stage` is None;
        with an `epoch_selector`, the last epoch that it can choose.
    first_stage : classifier, default=None
        The plain training whose outputs are clustered. None trains with the second stage's
        parameters for network, optimizer, regularisation and batches, without augmentation and
        schedule; ``set_params`` then changes both stages; for ``module=None`` and ``lr="auto"`` its
        learning rate is 0.0001. An unfitted classifier, such as
        ``ERMClassifier(lr=0.1, max_epochs=2)``, is trained by its own parameters, except that
        ``module=None`` in it is the network of the second stage. A search knows its parameters as
        ``first_stage__lr`` and so on.
    group_method : str or GroupMethod, default="spare"
        What makes groups of the outputs of a class: a method of
        :class:`~skspurious.group_inference.SpuriousGroupInferrer`, by its name or as an object,
        such as ``SpareGroups(n_clusters=4)``, which a search knows as
        ``group_method__n_clusters``.
    epoch_selector : None, "silhouette" or callable, default=None
        Which epoch's outputs are clustered: None is the last. "silhouette" is the one whose
        clusters have the highest silhouette, mean over the classes; no group labels are
        needed. A callable ``(extractor, X, y) -> float`` scores the network after each epoch,
        for instance by the recall of known groups, and the epoch with the highest value is taken;
        ``used_group_labels_["validation"]`` is then True, since the callable may look at groups.
    warm_start : bool, default=False
        Whether the second stage goes on with the weights of the first instead of new ones.
    shared parameters

    Attributes
    ----------
    group_inferrer_ : Pipeline or None
        The fitted first stage, as a ``TorchFeatureExtractor`` of early outputs, and the fitted
        ``SpuriousGroupInferrer``; or what inferred the groups carried by ``X``. None where
        groups are given.
    shared attributes

    See Also
    --------
    BalancedRetrainer : The second stage alone, with groups that are given or found otherwise.
    GEORGEClassifier : Clusters the embedding of a fully trained network.
    JTTClassifier : Upweights what a first network gets wrong.

    Notes
    -----
    Needs group labels neither in training nor in validation: with validation data the epoch is
    kept whose worst cluster is best. Groups that are given are used in place of inferred ones.
    ``init_epochs + max_epochs`` passes over the data, and one for the outputs.

    The authors give no rule for the epoch that needs no group labels; "silhouette" is ours. A
    high silhouette tells how well separated the clusters are, not what they are: in 7 of 18 runs on
    shortcuts in CIFAR-10 its epoch was no better than the first (``docs/results/defaults.md``).

    References
    ----------
    .. [1] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman, "Identifying Spurious Biases
       Early in Training through the Lens of Simplicity Bias", AISTATS 2024. arXiv:2305.18761.

    Examples
    --------
    >>> from skspurious import SPAREClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = SPAREClassifier(max_epochs=5, random_state=0).fit(train.data, train.target)
    >>> clf.used_group_labels_
    {'train': False, 'validation': False}
    """

    # The settings of the scripts in SpuCo 2.0.3 and its earlier versions; "robust" is the second
    # stage.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "first_stage": _FIRST_STAGE,
            "lr": 1e-4,
            "weight_decay": 0.1,
            "max_epochs": 300,
        },
        "spuco_mnist": {
            "module": LeNet,
            "first_stage": ERMClassifier(lr=1e-3, weight_decay=1e-2, batch_size=32, max_epochs=1),
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
            "first_stage": _FIRST_STAGE,
            "group_method": SpareGroups(n_clusters=4),
            "lr": 1e-4,
            "weight_decay": 0.1,
            "max_epochs": 100,
        },
    }

    _parameter_constraints: dict = {
        **BalancedRetrainer._parameter_constraints,
        "init_epochs": [Interval(Integral, 1, None, closed="left")],
        "first_stage": [None, BaseTorchClassifier],
        "group_method": [StrOptions(set(METHODS)), GroupMethod],
        "epoch_selector": [None, StrOptions({"silhouette"}), callable],
        "warm_start": ["boolean"],
    }

    def __init__(
        self,
        module=None,
        *,
        init_epochs=1,
        first_stage=None,
        group_method="spare",
        epoch_selector=None,
        warm_start=False,
        **shared,
    ):
        super().__init__(module, **shared)
        self.init_epochs = init_epochs
        self.first_stage = first_stage
        self.group_method = group_method
        self.epoch_selector = epoch_selector
        self.warm_start = warm_start

    def _make_group_inferrer(self):
        first = make_first_stage(self, self.init_epochs)
        if self.module is None and self.first_stage is None and auto(first.lr):
            first.set_params(lr=_HEAD_LR)
        method = new_method(self.group_method)
        selector = self.epoch_selector
        if isinstance(selector, str):
            selector = SpuriousGroupInferrer(method)
        extractor = TorchFeatureExtractor(
            first, output="proba", epoch_selector=selector, device=first.device
        )
        return make_pipeline(extractor, SpuriousGroupInferrer(method))

    def _starts_from_inferrer(self, data):
        if self.warm_start and data.group_inferrer is None:
            raise ValueError(
                "warm_start=True goes on from the first stage, and there is none where groups are "
                "given. Pass no sample_group, or set warm_start=False."
            )
        return self.warm_start
