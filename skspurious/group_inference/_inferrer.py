"""SpuriousGroupInferrer: groups of the training samples, found per class without group labels."""

from numbers import Integral

import numpy as np
import pandas as pd
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from skspurious.functional._rows import row_chunks
from skspurious.group_inference._base import GroupMethod, InferenceContext
from skspurious.group_inference._evidence import Nuisance, nuisance_of_groups, why_not_tested
from skspurious.group_inference._found_evidence import CarriesEvidence
from skspurious.group_inference._methods import METHODS, new_method
from skspurious.group_inference._neighbors import NeighborIndex, TrainingRows
from skspurious.group_inference._samples import (
    GroupCarrier,
    PassThrough,
    check_losses,
    encode_classes,
    normalize_rows,
    resolve_device,
    rows_of_fit,
)
from skspurious.utils._fitting import _fit_context
from skspurious.utils._random import draw_seed
from skspurious.utils._sklearn_compat import Interval, StrOptions


class SpuriousGroupInferrer(CarriesEvidence, TrainingRows, GroupCarrier, PassThrough):
    """Find the groups hidden in each class, from an embedding or from early outputs.

    Within a class, samples that share a spurious attribute lie together in the embedding of a
    trained network, and in the outputs of a network that has been trained for an epoch or two.
    A *method* divides every class into such groups: by clusters, or in two by a rule. No group
    label is needed anywhere.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    method : str or GroupMethod, default="kmeans"
        What divides a class into groups. A name is the method with its default parameters; an
        object has parameters of its own, as in ``method=KMeansGroups(n_clusters=4)``, which a
        search knows as ``method__n_clusters``.

        - "kmeans", :class:`KMeansGroups`: clusters of normalised rows, as many as give the
          largest macro silhouette (mean over clusters); for embeddings. As in GEORGE [1]_.
        - "gmm", :class:`GaussianMixtureGroups`: the same with Gaussian mixtures of full
          covariance; for a few dimensions. As in GEORGE.
        - "spare", :class:`SpareGroups`: clusters of rows as they are, as many as give the
          largest mean silhouette; for softmax outputs early in training. As in SPARE [2]_.
        - "dispersion", :class:`DispersionGroups`: whether the nearest class mean is the own
          one; for embeddings of data that were not memorised. As in NSF [3]_.
        - "error", :class:`ErrorGroups`: whether a linear model that has not seen the sample is
          right about it; for embeddings on which a network itself makes no errors any more.
          JTT's error set [5]_, cross-fitted.
        - "xrm", :class:`XRMGroups`: whether a linear model is right that was trained on the
          other half of the rows, and on its twin's mistakes [6]_; for embeddings.
        - "eiil", :class:`EIILGroups`: environments in which the risk of a linear model differs
          most [7]_; for embeddings, or logits of a network.
    scope : {"class", "global"}, default="class"
        What is clustered: every class by itself, or with "global" all samples together, as in
        PruSC [4]_. A global cluster may hold several classes; each class in it is a group.
        The methods that compare the classes anyway take "class" alone: "dispersion", "error",
        "xrm" and "eiil".
    normalize : "auto" or bool, default="auto"
        Whether rows are divided by their Euclidean norm; "auto" is True for "kmeans" and "gmm",
        but never for a single feature (hardness), ``reduction="margin"`` or `n_unreduced`.
    silhouette : {"auto", "exact"} or int, default="auto"
        How silhouettes are computed. "exact" compares all pairs of rows of a class. An int draws
        that many rows of every cluster, since a uniform sample would lose the tiny clusters.
        "auto" is exact where that is affordable, up to about 6,000 distinct rows in a class, more
        on a GPU, and where the rows of the class lie on a line, as the softmax of two classes
        does; otherwise it draws 300.
    store_index : bool, default=False
        Whether to keep a float32 copy of the rows (or margins) for :meth:`kneighbors`.
    device : str or torch.device, default="auto"
        Where k-means and exact silhouettes run; "auto" takes the GPUs that faiss sees.
    n_jobs : int, default=None
        Classes clustered at the same time, in threads; None is one. UMAP takes one at a time.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that a method draws: restarts, folds, samples for silhouettes.
    verbose : int, default=0
        1 shows a progress bar over the classes.

    Attributes
    ----------
    method_ : GroupMethod
        The fitted method, a clone of `method` or what its name stands for.
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    labels_ : ndarray of shape (n_samples,), int64
        Group of every training sample, 0 to n_groups-1: class by class, within a class by
        decreasing size (near before far for "dispersion", right before wrong for "error", "xrm"
        and "eiil"; with ``scope="global"`` in the order of the clusters).
    clusters_ : ndarray of shape (n_samples,), int64
        Cluster of every training sample. With ``scope="global"`` 0 to n_clusters-1 by
        decreasing size, over all classes; else ``labels_``.
    groups_ : ndarray of shape (n_groups,), int64
        The groups, 0 to n_groups-1.
    group_classes_ : ndarray of shape (n_groups,)
        Class label of every group.
    group_clusters_ : ndarray of shape (n_groups,), int64
        Cluster of every group: ``group_clusters_[inferrer.predict(X, y)]`` are the clusters of
        new rows. With ``scope="class"`` every group is a cluster.
    cluster_sizes_ : ndarray of shape (n_groups,), int64
        Training samples of every group.
    cluster_centers_ : ndarray of shape (n_groups, n_features), float64
        Center of every group: of normalised rows if ``normalize_``, of margins with
        ``reduction="margin"``. With ``scope="global"`` the groups of a cluster share its center.
    n_clusters_ : ndarray of shape (n_classes,), int64
        Groups of every class.
    silhouette_ : ndarray of shape (n_classes,), float64
        Mean silhouette of every class; NaN where the class is one group. With
        ``scope="global"`` the mean silhouette over the samples of all classes.
    margin_ : ndarray of shape (n_samples,), or None
        Logit of the own class minus the largest of the others. With "error", "xrm" and "eiil"
        these are logits of the linear model that was fitted without the sample, and a negative
        margin is an error; with ``reduction="margin"`` the rows are the logits. Otherwise None.
    evidence_ : Evidence
        What balancing the groups recovers for a linear head, see :func:`evidence_of`. Groups that
        are made of errors or are clusters have none, unless by ``ErrorGroups(probe=)``. Looked for
        when it is first asked for, in at most 2,500 rows that are kept until then.
    cluster_search_ : DataFrame
        Every number of clusters that was tried: class (None with ``scope="global"``),
        n_clusters, silhouette, macro_silhouette, selected.
    normalize_ : bool
        Whether rows are normalised.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where the input has them.

    See Also
    --------
    skspurious.embedding.TorchFeatureExtractor : Makes the embedding or the early outputs.
    skspurious.mitigation.BalancedRetrainer : Retrains with balanced groups (SPARE's second step).
    skspurious.mitigation.GroupDROClassifier : Minimises the loss of the worst group (GEORGE's).

    Notes
    -----
    Needs class labels in training, and group labels nowhere. The result depends neither on the
    order of the rows nor on the names of the classes, nor on the number of jobs. Besides the rows
    themselves, ``fit`` takes at most about two and a half times their memory.

    Differences from GEORGE's code: a class can stay whole (constant rows, or `min_silhouette`);
    groups can have a minimum size; silhouettes are taken on a stratified sample where all pairs
    are too many, as they are for SPARE's choice. UMAP does not transform new rows, because its
    transform is random and depends on the rows beside them. Losses are cross-fitted unless
    given: those of a network that fits its training data are all about 0 and select nothing.
    Groups are numbered once, from the training data, so validation data that lack a class keep
    the numbers.

    References
    ----------
    .. [1] N. Sohoni, J. Dunnmon, G. Angus, A. Gu, C. Ré. "No Subclass Left Behind: Fine-Grained
       Robustness in Coarse-Grained Classification Problems." NeurIPS 2020. arXiv:2011.12945.
    .. [2] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman. "Identifying Spurious Biases Early
       in Training through the Lens of Simplicity Bias." AISTATS 2024. arXiv:2305.18761.
    .. [3] W. Li et al. "Let Samples Speak: Mitigating Spurious Correlation by Exploiting the
       Clusterness of Samples." CVPR 2025. arXiv:2512.22874.
    .. [4] P. Q. Le, J. Schlötterer, C. Seifert. "Out of Spuriousity: Improving Robustness to
       Spurious Correlations without Group Annotations." TMLR 2025. arXiv:2407.14974.
    .. [5] E. Z. Liu et al. "Just Train Twice: Improving Group Robustness without Training Group
       Information." ICML 2021. arXiv:2107.09044.
    .. [6] M. Pezeshki et al. "Discovering Environments with XRM." ICML 2024. arXiv:2309.16748.
    .. [7] E. Creager, J.-H. Jacobsen, R. Zemel. "Environment Inference for Invariant Learning."
       ICML 2021. arXiv:2010.07249.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import KMeansGroups, SpuriousGroupInferrer
    >>> rng = np.random.default_rng(0)
    >>> on_sand = np.arange(300) < 30                  # of 300 cows, 30 stand on sand
    >>> Z = np.where(on_sand[:, None], [0.0, 5.0], [5.0, 0.0]) + rng.normal(size=(300, 2))
    >>> inferrer = SpuriousGroupInferrer(random_state=0).fit(Z, ["cow"] * 300)
    >>> inferrer.cluster_sizes_
    array([270,  30])
    >>> inferrer.predict([[6.0, 1.0], [-1.0, 4.0]], y=["cow", "cow"])
    array([0, 1])
    >>> three = SpuriousGroupInferrer(KMeansGroups(n_clusters=3), random_state=0)
    >>> three.fit(Z, ["cow"] * 300).n_clusters_
    array([3])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions(set(METHODS)), GroupMethod],
        "scope": [StrOptions({"class", "global"})],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "silhouette": [StrOptions({"auto", "exact"}), Interval(Integral, 2, None, closed="left")],
        "store_index": ["boolean"],
        "device": [str, torch.device],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        method="kmeans",
        *,
        scope="class",
        normalize="auto",
        silhouette="auto",
        store_index=False,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.method = method
        self.scope = scope
        self.normalize = normalize
        self.silhouette = silhouette
        self.store_index = store_index
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, losses=None, X_val=None, y_val=None):
        """Find the groups of the training samples.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
            Embedding, logits or probabilities. Groups that ``X`` carries are ignored.
        y : array-like of shape (n_samples,)
            Class labels.
        losses : array-like of shape (n_samples,), default=None
            Loss of the trained network on every sample, for over-clustering. None takes the loss
            of a linear model on the rows that was fitted without the sample.
        X_val : array-like, tensor or GroupedData of shape (n_val_samples, n_features), default=None
            Validation samples, which over-clustering counts in every part.
        y_val : array-like of shape (n_val_samples,), default=None
            Class labels of the validation samples.

        Returns
        -------
        self : SpuriousGroupInferrer

        Raises
        ------
        ValueError
            If parameters contradict each other or the data, or one of `X_val` and
            `y_val` is missing.
        """
        X, y = rows_of_fit(self, X, y)
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        method = self.method_ = new_method(self.method)
        method._validate_params()
        is_global = self.scope == "global"
        if is_global and not method.supports_global:
            raise ValueError(
                f"scope='global' does not go with method={self.method!r}, which finds no "
                "clusters: use scope='class', or a method that clusters."
            )
        self.normalize_ = method.should_normalize(self.normalize, X.shape[1])
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both or neither.")
        X_val, code_val = (None, None) if X_val is None else self._prepare(X_val, y_val)
        seed = draw_seed(self.random_state)
        losses = check_losses(losses, X, code, seed) if method.needs_losses else None
        context = self._make_context(is_global, seed, losses, X_val, code_val)

        rows = self._represent(X, code)
        method.find(rows, np.zeros_like(code) if is_global else code, context)
        self.labels_, self._center_distance = method.number_groups(rows, code, is_global)
        self._index = NeighborIndex(rows) if self.store_index else None
        self._describe_groups(is_global)
        self._look_for_evidence(X, code)
        return self

    def predict(self, X, y=None):
        """Group of new rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Class labels. With them, a row gets a group of its class: that of the nearest center
            or most probable component (with ``scope="global"`` among the clusters in which `fit`
            saw the class), and with the methods that split in two by a rule the side that it is
            on. Without them, it gets the group with the nearest center in any class; with
            ``scope="global"`` the most probable group; and with a rule the near or right group
            of the class that the method predicts.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            Values of ``groups_``. For the training samples and their labels, ``labels_``.

        Raises
        ------
        ValueError
            If `y` has a class that `fit` did not see, or another length than `X`, or is missing
            with ``reduction="margin"``.
        """
        check_is_fitted(self)
        return self._by_chunks(self.method_.groups_of, X, y)

    def infer_groups(self, X, y):
        """Group of new rows of known classes; Pipelines, searches and scorers call this.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        group : ndarray of shape (n_samples,), int64
            As :meth:`predict` gives them.
        """
        return self.predict(X, y=y)

    def predict_proba(self, X, y=None):
        """Probability of every group for new rows.

        Softmax of -d²/(2v), where d is the distance to the center of the group and v the mean
        squared distance of the training samples to their centers, per feature: the posterior of
        equally likely Gaussians of one variance, of which :meth:`predict` is the mode. With
        ``method="gmm"`` and `y` it is the mixture's posterior. With ``method="dispersion"`` d is
        the distance to a class mean; with ``"error"``, ``"xrm"`` and ``"eiil"`` it is the
        logistic function of the margin. With ``scope="global"`` and no `y`, the probability of a
        cluster is shared among its groups in proportion to their sizes. With `overclustering` the
        probability of a part is that of its cluster times its own in the cluster, whereas
        :meth:`predict` decides on the cluster first.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Class labels. Given, groups of other classes have probability 0.

        Returns
        -------
        probability : ndarray of shape (n_samples, n_groups), float64
            Rows sum to 1.
        """
        check_is_fitted(self)
        return self._by_chunks(self.method_.memberships_of, X, y)

    # ------------------------------------------------------------------- steps of fit

    def _make_context(self, is_global, seed, losses, X_val, code_val):
        device, gpu_min_elements = resolve_device(self.device)
        return InferenceContext(
            classes=self.classes_,
            is_global=is_global,
            silhouette=self.silhouette,
            seed=seed,
            device=device,
            gpu_min_elements=gpu_min_elements,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            losses=losses,
            X_val=None if X_val is None else self._represent(X_val, code_val),
            code_val=code_val,
        )

    def _describe_groups(self, is_global):
        """Learned attributes, from the method's groups."""
        method, n_classes = self.method_, len(self.classes_)
        self.cluster_centers_ = method.centers_
        self.cluster_sizes_ = method.group_size_
        self.groups_ = np.arange(len(method.centers_))
        self.group_classes_ = self.classes_[method.group_class_]
        self.group_clusters_ = (
            np.unique(method.group_part_, return_inverse=True)[1]
            if is_global
            else self.groups_.copy()
        )
        self.clusters_ = self.group_clusters_[self.labels_]
        self.n_clusters_ = np.bincount(method.group_class_, minlength=n_classes)
        silhouette = getattr(method, "silhouette_", np.full(n_classes, np.nan))
        self.silhouette_ = np.where(self.n_clusters_ > 1, silhouette, np.nan)
        self.margin_ = getattr(method, "margin_", None)
        self.cluster_search_ = pd.DataFrame(
            [
                (None if is_global else self.classes_[k], *row)
                for k, rows in enumerate(getattr(method, "search_", []))
                for row in rows
            ],
            columns=["class", "n_clusters", "silhouette", "macro_silhouette", "selected"],
        )

    def _look_for_evidence(self, X, code):
        """What the groups say of the class, and whether that can be evidence."""
        untested, probe = why_not_tested(self), getattr(self.method_, "probe", None)
        says = None
        if not self.method_.made_of_errors or probe is not None:
            says = nuisance_of_groups(self.labels_, code, first_is_right=probe is not None)
        Z = X if probe is None else X[:, -probe:]
        self.keep_evidence(Z, code, Nuisance("groups", says, untested))

    # ------------------------------------------------------------------------- checks

    def _prepare(self, X, y):
        """Rows, and their class codes."""
        X = self._check_samples(X)
        return X, encode_classes(y, self.classes_, len(X))

    def _represent(self, X, code):
        """Rows as the method sees them."""
        rows = normalize_rows(X) if self.normalize_ else X
        return self.method_.represent(rows, code, len(self.classes_))

    def _by_chunks(self, function, X, y):
        """What a function of represented rows and class codes gives, a part of them at a time."""
        X, code = self._prepare(X, y)
        return np.concatenate(
            [
                function(self._represent(X[part], c), c)
                for part in row_chunks(*X.shape)
                for c in [None if code is None else code[part]]
            ]
        )
