"""GEORGE: cluster the classes of a trained network into groups, then GroupDRO."""

from numbers import Integral

from sklearn.pipeline import make_pipeline

from skspurious.base import BaseTorchClassifier
from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import GaussianMixtureGroups, SpuriousGroupInferrer
from skspurious.group_inference._base import GroupMethod
from skspurious.group_inference._methods import METHODS, new_method
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._stages import make_first_stage
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

_OVERCLUSTERED_UMAP = GaussianMixtureGroups(reduction="umap", overclustering=5)


@extends(GroupDROClassifier, without=("group_inferrer",))
class GEORGEClassifier(GroupDROClassifier):
    """GEORGE [1]_: clusters a trained network's embeddings class by class, then GroupDRO.

    Subclasses on which a network does badly tend to be separate in its embedding. Each class
    is clustered by itself, the clusters become the groups, and a fresh network minimises the
    loss of the worst one. No group labels are used anywhere.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    init_epochs : int, default=None
        Epochs of plain training before the embeddings are clustered, where `first_stage` is
        None. None is ``max_epochs``, as many as the second stage has.
    first_stage : classifier, default=None
        The plain training whose embeddings are clustered. None trains with the second stage's
        parameters for network, optimizer, regularisation and batches, without augmentation and
        schedule; ``set_params`` then changes both stages. An unfitted classifier, such as
        ``ERMClassifier(lr=0.1, max_epochs=20)``, is trained by its own parameters, except that
        ``module=None`` in it is the network of the second stage. A search knows its parameters as
        ``first_stage__lr`` and so on.
    representation : {"embedding", "hardness", "margin"}, default="embedding"
        What is clustered. "embedding" is the L2-normalised input of the last layer. "hardness"
        is the part of that input along the direction between the two classes, one number for each
        sample; it needs exactly two classes and a network with an output for each. With a
        reduction in `group_method` the rest of the embedding, reduced, is put behind the
        hardness. "margin" is the logit of the own class minus the largest of the others, for any
        number of classes.
    group_method : str or GroupMethod, default="kmeans"
        What makes groups of the representations of a class: a method of
        :class:`~skspurious.group_inference.SpuriousGroupInferrer`, by its name or as an object,
        such as ``GaussianMixtureGroups(reduction="umap", overclustering=5)``. A search knows
        the parameters of an object as ``group_method__n_clusters`` and so on. Gaussian mixtures
        want few dimensions: hardness, margin or a reduction.
    shared parameters

    Attributes
    ----------
    group_inferrer_ : Pipeline or None
        The fitted first stage, as a ``TorchFeatureExtractor`` of embeddings, and the fitted
        ``SpuriousGroupInferrer``; or what inferred the groups carried by ``X``. None where
        groups are given.
    shared attributes

    See Also
    --------
    GroupDROClassifier : The second stage alone, with groups that are given or found otherwise.
    SPAREClassifier : Clusters the outputs of a network early in training.
    PruSCNetwork : Clusters the classes together, then prunes the network.

    Notes
    -----
    Needs group labels neither in training nor in validation: with validation data the epoch is
    kept whose worst cluster is best. Groups that are given are used in place of inferred
    ones; groups that ``X`` carries count for the score alone. ``init_epochs + max_epochs`` passes
    over the data, and one for the embeddings.

    Differences from the authors' code: no validation metric looks at true groups, not even to
    reweight validation samples; over-clustering takes losses that are cross-fitted on the
    embeddings, since those of the trained network are near 0, and does not count validation
    samples (``SpuriousGroupInferrer.fit`` takes both, if you run the steps yourself);
    "margin" is ours; hardness keeps its own scale beside a reduction of the rest (their
    ``hc_weight`` of 1), whose dimensions are counted without it, so their ``components=k`` is
    ``n_components=k - 1``; groups of the AUROC variant (pairs of clusters) are not included. The
    Notes of ``SpuriousGroupInferrer`` list the differences of the clustering.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré, "No Subclass Left Behind:
       Fine-Grained Robustness in Coarse-Grained Classification Problems", NeurIPS 2020.
       arXiv:2011.12945.

    Examples
    --------
    >>> from skspurious import GEORGEClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.networks import LeNet
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = GEORGEClassifier(max_epochs=3, random_state=0).fit(train.data, train.target)
    >>> clf.group_weights_.shape == clf.groups_.shape
    True
    >>> clf = GEORGEClassifier(LeNet, representation="hardness", group_method="gmm")
    """

    # The authors' configurations; each stage has the same training, but for ISIC's smaller rate in
    # the second, and keeps its best epoch.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 1.0,
            "max_epochs": 300,
            "adjustment": 2.0,
            "balance": "sampling",
            "representation": "hardness",
            "group_method": "gmm",
        },
        "u-mnist": {
            "optimizer": "adam",
            "lr": 2e-3,
            "weight_decay": 1e-5,
            "max_epochs": 100,
            "balance": None,
            "group_method": _OVERCLUSTERED_UMAP,
        },
        "isic": {
            **RESNET50,
            "first_stage": ERMClassifier(lr=1e-3, weight_decay=1e-3, batch_size=16, max_epochs=20),
            "lr": 5e-4,
            "weight_decay": 1e-3,
            "batch_size": 16,
            "max_epochs": 20,
            "balance": None,
            "group_method": _OVERCLUSTERED_UMAP,
        },
        "celeba": {
            **RESNET50,
            "lr": 1e-5,
            "weight_decay": 0.1,
            "max_epochs": 50,
            "adjustment": 3.0,
            "balance": "sampling",
            "representation": "hardness",
            "group_method": "gmm",
        },
    }

    _needs_groups = True

    _parameter_constraints: dict = {
        **GroupDROClassifier._parameter_constraints,
        "init_epochs": [None, Interval(Integral, 1, None, closed="left")],
        "first_stage": [None, BaseTorchClassifier],
        "representation": [StrOptions({"embedding", "hardness", "margin"})],
        "group_method": [StrOptions(set(METHODS)), GroupMethod],
    }

    def __init__(
        self,
        module=None,
        *,
        init_epochs=None,
        first_stage=None,
        representation="embedding",
        group_method="kmeans",
        **shared,
    ):
        super().__init__(module, **shared)
        self.init_epochs = init_epochs
        self.first_stage = first_stage
        self.representation = representation
        self.group_method = group_method

    def _make_group_inferrer(self):
        max_epochs = self.max_epochs if self.init_epochs is None else self.init_epochs
        first = make_first_stage(self, max_epochs)
        method, output = self._method_and_output()
        extractor = TorchFeatureExtractor(first, output=output, device=first.device)
        return make_pipeline(extractor, SpuriousGroupInferrer(method))

    def _method_and_output(self):
        """The method, told how its rows are made up, and what the extractor has to give."""
        method = new_method(self.group_method)
        params = method.get_params(deep=False)
        reduction = params.get("reduction")
        if self.representation == "margin":
            if "reduction" not in params:
                raise ValueError(
                    "representation='margin' is one number a sample, to be clustered; "
                    f"group_method={self.group_method!r} clusters nothing. Use 'kmeans' or 'gmm'."
                )
            if reduction not in (None, "margin"):
                raise ValueError(
                    f"reduction={reduction!r} is for representation='embedding' or 'hardness'; "
                    "'margin' is one number a sample already."
                )
            return method.set_params(reduction="margin"), "logits"
        if self.representation == "embedding" or (
            reduction is None and params.get("n_components") is None
        ):
            return method, self.representation
        return method.set_params(n_unreduced=1), "hardness_residual"
