"""GEORGE: cluster the classes of a trained network into groups, then GroupDRO."""

from sklearn.pipeline import make_pipeline

from skspurious.embedding import TorchFeatureExtractor
from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.mitigation._erm import ERMClassifier
from skspurious.mitigation._group_dro import GroupDROClassifier
from skspurious.mitigation._stages import first_stage_params


def make_george(
    module=None,
    *,
    init_epochs=None,
    init_params=None,
    n_clusters="auto",
    max_clusters=10,
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
    n_clusters : "auto" or int, default="auto"
        Groups per class; "auto" chooses by the macro silhouette.
    max_clusters : int, default=10
        Largest number that "auto" tries.
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
    Differences from the authors' code: clusters are found by k-means on L2-normalised
    embeddings (theirs: also Gaussian mixtures on UMAP or on the logit margin), and no
    validation metric looks at true groups.

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
    """
    first = ERMClassifier(module, **{**first_stage_params(params), **(init_params or {})})
    if init_epochs is not None:
        first.set_params(max_epochs=init_epochs)
    inferrer = SpuriousGroupInferrer(
        method="kmeans", n_clusters=n_clusters, max_clusters=max_clusters, n_jobs=n_jobs
    )
    extractor = TorchFeatureExtractor(first, output="embedding", device=first.device)
    return GroupDROClassifier(module, group_inferrer=make_pipeline(extractor, inferrer), **params)
