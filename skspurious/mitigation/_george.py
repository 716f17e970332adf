"""GEORGE: cluster the classes of a trained network into groups, then GroupDRO."""

from functools import partial

from sklearn.pipeline import make_pipeline

from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._stages import first_stage_params
from skspurious.utils._parameters import RESNET50, from_preset

# The authors' configurations; each stage has the same training, but for ISIC's smaller rate in the
# second, and keeps its best epoch.
_PRESETS: dict = {
    "waterbirds": {
        **RESNET50,
        "lr": 1e-5,
        "weight_decay": 1.0,
        "max_epochs": 300,
        "adjustment": 2.0,
        "balance": "sampling",
        "representation": "hardness",
        "clustering": "gmm",
    },
    "u-mnist": {
        "optimizer": "adam",
        "lr": 2e-3,
        "weight_decay": 1e-5,
        "max_epochs": 100,
        "balance": None,
        "reduction": "umap",
        "clustering": "gmm",
        "overclustering": True,
    },
    "isic": {
        **RESNET50,
        "init_params": {"lr": 1e-3},
        "lr": 5e-4,
        "weight_decay": 1e-3,
        "batch_size": 16,
        "max_epochs": 20,
        "balance": None,
        "reduction": "umap",
        "clustering": "gmm",
        "overclustering": True,
    },
    "celeba": {
        **RESNET50,
        "lr": 1e-5,
        "weight_decay": 0.1,
        "max_epochs": 50,
        "adjustment": 3.0,
        "balance": "sampling",
        "representation": "hardness",
        "clustering": "gmm",
    },
}


def make_george(
    module=None,
    *,
    init_epochs=None,
    init_params=None,
    representation="embedding",
    reduction=None,
    n_components=None,
    clustering="kmeans",
    n_clusters="auto",
    max_clusters=10,
    overclustering=False,
    overclustering_factor=5,
    n_jobs=None,
    **params,
):
    """GEORGE [1]_: cluster a trained network's embeddings class by class, then GroupDRO.

    Subclasses on which a network does badly tend to be separate in its embedding. Each class
    is clustered by itself, the clusters become the groups, and a fresh network minimises the
    loss of the worst one. No group labels are used anywhere.

    Parameters
    ----------
    module : None, str, nn.Module, class, callable or FrozenEstimator, default=None
        The network of both stages; each starts anew from it.
    init_epochs : int, default=None
        Epochs of plain training before the embeddings are clustered; None is the second
        stage's ``max_epochs``.
    init_params : dict, default=None
        Parameters of the first stage's ``ERMClassifier`` that differ from the second stage's.
        By default it has the same network, optimizer, regularisation and batches, and neither
        augmentation nor a schedule.
    representation : {"embedding", "hardness", "margin"}, default="embedding"
        What is clustered. "embedding" is the L2-normalised input of the last layer. "hardness"
        is the part of it along the direction between the two classes, one number a sample; it
        needs exactly two classes and a network with an output for each; with a `reduction` the
        reduced rest of the embedding is put behind it. "margin" is the logit of the own class
        minus the largest of the others, for any number of classes.
    reduction : {None, "pca", "umap"}, default=None
        Reduces the embeddings of each class before they are clustered; "umap" needs
        ``skspurious[umap]``.
    n_components : int or float, default=None
        Dimensions that `reduction` leaves, hardness not counted; None is 2 for "umap".
    clustering : {"kmeans", "gmm"}, default="kmeans"
        k-means, or Gaussian mixtures of full covariance, which want few dimensions: hardness,
        margin or a reduction.
    n_clusters : "auto" or int, default="auto"
        Groups per class; "auto" chooses by the macro silhouette.
    max_clusters : int, default=10
        Largest number that "auto" tries.
    overclustering : bool, default=False
        Whether clusters are split further where a part is harder and better separated, see
        ``SpuriousGroupInferrer``.
    overclustering_factor : int, default=5
        Parts of each cluster.
    n_jobs : int, default=None
        Classes clustered at once.
    **params
        Parameters of the second stage, a ``GroupDROClassifier``: its ``lr``, ``max_epochs``,
        ``adjustment``, ``random_state`` and so on.

    Returns
    -------
    classifier : GroupDROClassifier
        With a pipeline of feature extractor and inferrer as its ``group_inferrer``.

    Notes
    -----
    ``make_george.preset("waterbirds")`` has the authors' settings for a data set, and takes changes
    to them like ``preset`` of the classifiers.

    Needs group labels neither in training nor in validation: with validation data the epoch is
    kept whose worst cluster is best. ``init_epochs + max_epochs`` passes over the data, and one
    for the embeddings.

    Differences from the authors' code: no validation metric looks at true groups, not even to
    reweight validation samples; over-clustering takes losses that are cross-fitted on the
    embeddings, since those of the trained network are near 0, and does not count validation
    samples (``SpuriousGroupInferrer.fit`` takes both, if you run the steps yourself);
    "margin" is ours; hardness keeps its own scale beside a reduction of the rest (their
    ``hc_weight`` of 1), whose dimensions are counted without it, so their ``components=k`` is
    ``n_components=k - 1``; groups of the AUROC variant (pairs of clusters) are not included. All
    that the inferrer does otherwise is in its notes.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré, "No Subclass Left Behind:
       Fine-Grained Robustness in Coarse-Grained Classification Problems", NeurIPS 2020.
       arXiv:2011.12945.

    Examples
    --------
    >>> from skspurious import make_george
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.networks import LeNet
    >>> clf = make_george(LeNet(), max_epochs=3, random_state=0)
    >>> clf.group_inferrer[-1].method
    'kmeans'
    >>> clf = make_george(LeNet(), representation="hardness", clustering="gmm", random_state=0)
    >>> clf.group_inferrer[0].output
    'hardness'
    """
    first = ERMClassifier(module, **{**first_stage_params(params), **(init_params or {})})
    if init_epochs is not None:
        first.set_params(max_epochs=init_epochs)
    outputs = {"embedding": "embedding", "hardness": "hardness", "margin": "logits"}
    if representation not in outputs:
        raise ValueError(f"representation={representation!r}: use one of {list(outputs)}.")
    if reduction is not None and representation == "margin":
        raise ValueError(
            f"reduction={reduction!r} is for representation='embedding' or 'hardness'; "
            "'margin' is one number a sample already."
        )
    has_residual = representation == "hardness" and reduction is not None
    inferrer = SpuriousGroupInferrer(
        method=clustering,
        n_clusters=n_clusters,
        max_clusters=max_clusters,
        reduction="margin" if representation == "margin" else reduction,
        n_components=n_components,
        n_unreduced=1 if has_residual else 0,
        overclustering=overclustering,
        overclustering_factor=overclustering_factor,
        n_jobs=n_jobs,
    )
    output = "hardness_residual" if has_residual else outputs[representation]
    extractor = TorchFeatureExtractor(first, output=output, device=first.device)
    return GroupDROClassifier(module, group_inferrer=make_pipeline(extractor, inferrer), **params)


make_george.preset = partial(from_preset, make_george, _PRESETS)
