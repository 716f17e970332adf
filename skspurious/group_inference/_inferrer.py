"""SpuriousGroupInferrer: groups of the training samples, found per class without group labels."""

import warnings
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
from tqdm.auto import tqdm

from skspurious.data import GroupedData, unpack_groups
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.group_inference import _dispersion, _error, _gmm, _kmeans, _spare
from skspurious.group_inference._base import CellGroups, NeighborIndex, NestedGroups, Settings
from skspurious.group_inference._clusters import SplitData, cluster_class
from skspurious.group_inference._error import margins_of
from skspurious.utils._random import draw_seed
from skspurious.utils._sklearn_compat import Interval, StrOptions, _fit_context

_METHODS = {
    "kmeans": _kmeans.METHOD,
    "gmm": _gmm.METHOD,
    "spare": _spare.METHOD,
    "dispersion": _dispersion.METHOD,
    "error": _error.METHOD,
}
_CHOOSE = {
    "macro": _kmeans.choose_by_macro_silhouette,
    "mean": _spare.choose_by_mean_silhouette,
}


# From this many numbers on, moving a class to the GPU pays for setting faiss up there.
_GPU_MIN_ELEMENTS = 2**25


class _PassThrough(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """The samples as they are; scikit-learn wraps this ``transform`` to obey ``set_output``."""

    def transform(self, X):
        checked = self._check_samples(X)
        return X if hasattr(X, "shape") else checked


class _GroupCarrier:
    """Puts groups around the output; not a scikit-learn class, so its methods are not wrapped."""

    def transform(self, X):
        """Return the samples as they are.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)

        Returns
        -------
        X : the same object; groups that it carries are kept
        """
        check_is_fitted(self)
        samples, group, inferrer = unpack_groups(X)
        samples = super().transform(samples)
        if group is None:
            return samples
        return GroupedData(samples, group, group_inferrer=inferrer)

    def fit_transform(self, X, y):
        """Find the groups and attach them to the samples.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        X : GroupedData
            The samples, carrying ``labels_`` as their groups and this inferrer.
        """
        samples, _, _ = unpack_groups(X)
        self.fit(samples, y)
        return GroupedData(super().transform(samples), self.labels_, group_inferrer=self)


class SpuriousGroupInferrer(_GroupCarrier, _PassThrough):
    """Find the groups hidden in each class, from an embedding or from early outputs.

    Within a class, samples that share a spurious attribute lie together in the embedding of a
    trained network, and in the outputs of a network that has been trained for an epoch or two.
    So the samples of every class are clustered, and each cluster of a class is a group
    (``method="kmeans"`` and ``"gmm"`` [1]_, ``"spare"`` [2]_). Or every class is split in two:
    samples that lie nearest to their own class mean and those nearer to another one
    (``"dispersion"`` [3]_), samples that a first model gets right and wrong (``"error"`` [5]_).
    No group label is needed anywhere.

    .. versionadded:: 0.1

    Parameters
    ----------
    method : {"kmeans", "gmm", "spare", "dispersion", "error"}, default="kmeans"
        What makes the groups of a class, and what "auto" stands for in other parameters.

        - "kmeans": clusters of normalised rows, at most 10, as many as give the largest macro
          silhouette (mean over clusters); for embeddings. As in GEORGE.
        - "gmm": the same with Gaussian mixtures of full covariance; for a few dimensions, so
          with a `reduction` or on hardness. As in GEORGE.
        - "spare": clusters of rows as they are, at most 5, as many as give the largest mean
          silhouette; for softmax outputs early in training. As in SPARE.
        - "dispersion": nearest class mean agrees with the class or not; for embeddings of data
          that were not memorised. As in NSF. The parameters of clustering have no effect.
        - "error": a class-balanced linear model of the rows that has not seen the sample is
          right or wrong about it; for embeddings on which a network itself makes no errors any
          more. JTT's error set, cross-fitted. The parameters of clustering have no effect.
    scope : {"class", "global"}, default="class"
        What is clustered: every class by itself, or all samples together, as in PruSC [4]_.
        Then a cluster runs through the classes, and a group is what a class has in a cluster.
        Not for "dispersion" and "error", which compare the classes anyway.
    n_clusters : "auto", int or dict, default="auto"
        Clusters per class: the number that the silhouette chooses, one number for all classes,
        or a number or "auto" for each class label. A class with fewer distinct rows than a given
        number stays whole. With ``scope="global"`` the clusters of all classes together, "auto"
        or a number.
    max_clusters : "auto" or int, default="auto"
        Largest number of clusters that is tried; 10 for "kmeans" and "gmm", 5 for "spare".
    min_cluster_size : int, default=1
        Fewest samples of a cluster. Those of a smaller one go to the nearest center, or most
        probable component, that is left. With "dispersion" and "error", a class with fewer
        samples on one side stays whole.
    normalize : "auto" or bool, default="auto"
        Whether rows are divided by their Euclidean norm; "auto" is True for "kmeans" and "gmm",
        but never for a single feature (hardness), ``reduction="margin"`` or `n_unreduced`.
    reduction : {None, "pca", "umap", "margin"}, default=None
        What is clustered in place of the rows.

        - None: the rows, or as many principal components as `n_components` says, if it is given.
        - "pca": `n_components` principal components of each class.
        - "umap": a UMAP of each class with 10 neighbors and no minimal distance [6]_; needs
          ``skspurious[umap]``. A class of at most 10 distinct rows is taken as it is. New rows
          are put where the nearest training row of their class is.
        - "margin": logit (or probability) of the own class minus the largest of the others, of
          rows that have one for each class. Also :meth:`predict` then needs ``y``.
    n_components : int or float, default=None
        Dimensions kept of each class: for PCA a number or a share of variance; for UMAP a
        number, and None is 2. Without those of `n_unreduced`.
    n_unreduced : int, default=0
        Leading features that "pca" and "umap" leave as they are, in front of what the others are
        reduced to: 1 for GEORGE's hardness with a reduction of the residual, see
        ``TorchFeatureExtractor(output="hardness_residual")``.
    overclustering : bool, default=False
        Whether each cluster is split further, where a part of it is harder and better separated.
        A part becomes a group of its own if its samples have a larger silhouette than before,
        and a positive one; a mean loss not below the cluster's; at least 0.5 % of the samples of
        the class and `overclustering_min_size`; and in ``eval_set``, if there is one, that many
        too. What is left of a cluster remains one group. Only for methods that cluster; a class
        that stays whole is not split.
    overclustering_factor : int, default=5
        Parts of each cluster.
    overclustering_min_size : int, default=25
        Fewest samples of such a part, in training and in ``eval_set``.
    n_folds : int, default=5
        Folds, stratified by class, of the linear model behind "error" and behind the losses of
        `overclustering` where ``fit`` is not given any. Copies of a row are in one fold.
    C : float, default=1e-3
        Inverse strength of that model's L2 regularisation, as in scikit-learn; the model is a
        logistic regression on standardised features, in which every class counts the same.
    criterion : {"auto", "macro", "mean"}, default="auto"
        Silhouette that chooses the number of clusters: the mean over clusters of their means
        ("macro", for "kmeans" and "gmm"; ties go to more clusters) or over samples ("mean", for
        "spare"; what a sample cannot tell apart is decided by the macro silhouette).
    silhouette : {"auto", "exact", "stratified"}, default="auto"
        "exact" compares all pairs of rows of a class; "stratified" a sample of every cluster,
        never a uniform one, which would lose the tiny clusters; "auto" is exact where it is
        affordable (up to about 6,000 distinct rows a class, more on a GPU) and where the rows of
        the class lie on a line, which the softmax of two classes does.
    silhouette_size : int, default=300
        Rows of every cluster in the stratified sample.
    silhouette_threshold : float, default=0.9
        Mean silhouette from which on the clusters of a class count as well separated.
    high_power : "auto" or float, default="auto"
        Sampling power of a class whose clusters are not; 2 for "spare", else 1.
    min_silhouette : float, default=None
        With ``n_clusters="auto"``, a class whose best silhouette is below it stays whole; None
        splits every class that has two different rows.
    n_init : int, default=10
        Restarts of k-means. Mixtures have 3.
    store_index : bool, default=True
        Whether to keep the rows (or margins) as a faiss index for :meth:`kneighbors`: a float32
        copy.
    device : {"auto", "cpu", "cuda"}, default="auto"
        Where k-means and exact silhouettes run; "auto" takes the GPUs that faiss sees.
    n_jobs : int, default=None
        Classes clustered at the same time, in threads; None is one. UMAP takes one at a time.
    random_state : int, RandomState instance or None, default=None
        Seed of the restarts, of the stratified sample and of the folds.
    verbose : int, default=0
        1 shows a progress bar over the classes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    labels_ : ndarray of shape (n_samples,), int64
        Group of every training sample, 0 to n_groups-1: class by class, within a class by
        decreasing size (near before far for "dispersion", right before wrong for "error"; with
        ``scope="global"`` in the order of the clusters).
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
        Center of every group, of the normalised rows where ``normalize_``, of the margins with
        ``reduction="margin"``. With ``scope="global"`` the groups of a cluster have its center.
    n_clusters_ : ndarray of shape (n_classes,), int64
        Groups of every class.
    silhouette_ : ndarray of shape (n_classes,), float64
        Mean silhouette of every class; NaN where the class is one group. With
        ``scope="global"`` that of the clusters of all classes.
    sampling_power_ : ndarray of shape (n_classes,), float64
        1 where `silhouette_` reaches `silhouette_threshold` and where the class is one group,
        else `high_power`; what :class:`~skspurious.mitigation.BalancedRetrainer` samples by.
    margin_ : ndarray of shape (n_samples,), or None
        Logit of the own class minus the largest of the others: with ``method="error"`` of the
        linear model that was fitted without the sample, negative where it is wrong; with
        ``reduction="margin"`` of the rows. Else None.
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
    Needs class labels in training, and group labels nowhere. k-means runs on all rows by faiss;
    where the rows of a class lie on a line it is solved exactly. The result depends neither on
    the order of the rows nor on the names of the classes, and not on the number of jobs; the
    folds of "error" depend on the bytes of the rows, so other rows, or the same ones in another
    precision, are dealt out otherwise.

    With "error", a training row that :meth:`predict` meets again keeps the group that it got out
    of fold; all other rows are judged by a model of all training rows.

    Differences from GEORGE's code: a class can stay whole (constant rows, or `min_silhouette`);
    groups can have a minimum size; silhouettes are taken on a stratified sample where all pairs
    are too many, as they are for SPARE's choice. UMAP does not transform new rows, because its
    transform is random and depends on the rows beside them. Losses are cross-fitted unless
    given: those of a network that fits its training data are all about 0 and select nothing.
    Groups are numbered once, from the training data, so validation data that lack a class keep
    the numbers. From JTT: errors are out of fold, and of a linear model.

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
    .. [6] L. McInnes, J. Healy, J. Melville. "UMAP: Uniform Manifold Approximation and Projection
       for Dimension Reduction." 2018. arXiv:1802.03426.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import SpuriousGroupInferrer
    >>> rng = np.random.default_rng(0)
    >>> on_sand = np.arange(300) < 30                  # of 300 cows, 30 stand on sand
    >>> Z = np.where(on_sand[:, None], [0.0, 5.0], [5.0, 0.0]) + rng.normal(size=(300, 2))
    >>> inferrer = SpuriousGroupInferrer(random_state=0).fit(Z, ["cow"] * 300)
    >>> inferrer.cluster_sizes_
    array([270,  30])
    >>> inferrer.predict([[6.0, 1.0], [-1.0, 4.0]], y=["cow", "cow"])
    array([0, 1])
    """

    _parameter_constraints: dict = {
        "method": [StrOptions(set(_METHODS))],
        "scope": [StrOptions({"class", "global"})],
        "n_clusters": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), dict],
        "max_clusters": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "min_cluster_size": [Interval(Integral, 1, None, closed="left")],
        "normalize": [StrOptions({"auto"}), "boolean"],
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "n_unreduced": [Interval(Integral, 0, None, closed="left")],
        "reduction": [StrOptions({"pca", "umap", "margin"}), None],
        "overclustering": ["boolean"],
        "overclustering_factor": [Interval(Integral, 2, None, closed="left")],
        "overclustering_min_size": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "criterion": [StrOptions({"auto", "macro", "mean"})],
        "silhouette": [StrOptions({"auto", "exact", "stratified"})],
        "silhouette_size": [Interval(Integral, 2, None, closed="left")],
        "silhouette_threshold": [Interval(Real, -1, 1, closed="both")],
        "high_power": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "min_silhouette": [Interval(Real, -1, 1, closed="both"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "store_index": ["boolean"],
        "device": [StrOptions({"auto", "cpu", "cuda"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        method="kmeans",
        *,
        scope="class",
        n_clusters="auto",
        max_clusters="auto",
        min_cluster_size=1,
        normalize="auto",
        reduction=None,
        n_components=None,
        n_unreduced=0,
        overclustering=False,
        overclustering_factor=5,
        overclustering_min_size=25,
        n_folds=5,
        C=1e-3,
        criterion="auto",
        silhouette="auto",
        silhouette_size=300,
        silhouette_threshold=0.9,
        high_power="auto",
        min_silhouette=None,
        n_init=10,
        store_index=True,
        device="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.method = method
        self.scope = scope
        self.n_clusters = n_clusters
        self.max_clusters = max_clusters
        self.min_cluster_size = min_cluster_size
        self.normalize = normalize
        self.reduction = reduction
        self.n_components = n_components
        self.n_unreduced = n_unreduced
        self.overclustering = overclustering
        self.overclustering_factor = overclustering_factor
        self.overclustering_min_size = overclustering_min_size
        self.n_folds = n_folds
        self.C = C
        self.criterion = criterion
        self.silhouette = silhouette
        self.silhouette_size = silhouette_size
        self.silhouette_threshold = silhouette_threshold
        self.high_power = high_power
        self.min_silhouette = min_silhouette
        self.n_init = n_init
        self.store_index = store_index
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, *, losses=None, eval_set=None):
        """Find the groups of the training samples.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
            Embedding, logits or probabilities. Groups that it carries are not looked at.
        y : array-like of shape (n_samples,)
            Class labels.
        losses : array-like of shape (n_samples,), default=None
            Loss of the trained network on every sample, which `overclustering` looks at. By
            default that of a linear model on the rows, out of fold: see `n_folds`.
        eval_set : tuple (X, y), default=None
            Validation samples, which `overclustering` counts.

        Returns
        -------
        self : SpuriousGroupInferrer
        """
        X, y = validate_data(self, _as_array(X), y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, code = np.unique(y, return_inverse=True)
        method = _METHODS[self.method]
        has_own_scale = X.shape[1] == 1 or self.reduction == "margin" or self.n_unreduced > 0
        normalize = method.normalize and not has_own_scale
        self.normalize_ = normalize if self.normalize == "auto" else bool(self.normalize)
        settings = self._resolve_settings(method, draw_seed(self.random_state))
        rows = self._represent(X, code)

        if method.split is not None:
            self._refuse_global_scope()
            groups, silhouette, search = method.split(rows, code, settings)
        else:
            split_data = self._prepare_split(X, code, losses, eval_set, settings)
            groups, silhouette, search = self._cluster(rows, code, settings, split_data)

        self.labels_, self._center_distance = groups.fit(rows, code)
        self._groups = groups
        self._index = NeighborIndex(rows) if self.store_index else None
        self.cluster_centers_ = groups.centers
        self.cluster_sizes_ = np.bincount(self.labels_, minlength=len(groups.centers))
        self.groups_ = np.arange(len(groups.centers))
        self.group_classes_ = self.classes_[groups.group_class]
        is_global = self.scope == "global"
        self.group_clusters_ = groups.cluster_id if is_global else self.groups_.copy()
        self.clusters_ = self.group_clusters_[self.labels_]
        self.n_clusters_ = np.bincount(groups.group_class, minlength=len(self.classes_))
        self.margin_ = rows[:, 0] if self.reduction == "margin" else getattr(groups, "margin", None)
        self.silhouette_ = np.where(self.n_clusters_ > 1, silhouette, np.nan)
        self.sampling_power_ = _spare.sampling_power(
            self.silhouette_,
            threshold=self.silhouette_threshold,
            high_power=method.high_power if self.high_power == "auto" else self.high_power,
        )
        self.cluster_search_ = pd.DataFrame(
            [
                (None if is_global else self.classes_[k], *row)
                for k, rows in enumerate(search)
                for row in rows
            ],
            columns=["class", "n_clusters", "silhouette", "macro_silhouette", "selected"],
        )
        return self

    def predict(self, X, y=None):
        """Group of new rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            Class labels. Given, a row gets a group of its class: that of the nearest center or
            most probable component (with ``scope="global"`` among the clusters in which `fit`
            saw the class), or, for "dispersion" and "error", the side it is on. None takes the
            nearest center of all classes; with ``scope="global"`` the most probable group; for
            "dispersion" and "error" the near or right group of the predicted class.

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
        X, code = self._prepare(X, y)
        return self._groups.assign(X, code)

    def predict_proba(self, X, y=None):
        """Probability of every group for new rows.

        Softmax of -d²/(2v), where d is the distance to the center of the group and v the mean
        squared distance of the training samples to their centers, per feature: the posterior of
        equally likely Gaussians of one variance, of which :meth:`predict` is the mode. With
        ``method="gmm"`` and `y` it is the mixture's posterior. With ``method="dispersion"`` the
        distances are those to the class means, with ``"error"`` the logistic function of the
        margin takes their place. With ``scope="global"`` and no `y`, the probability of the
        cluster is shared among its groups in proportion to their sizes. With `overclustering` it
        is the probability of the cluster times that of its parts, while :meth:`predict` decides
        on the cluster first.

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
        X, code = self._prepare(X, y)
        return self._groups.membership(X, code)

    def kneighbors(self, X, n_neighbors=5, *, y=None, return_distance=True):
        """Training samples nearest to the given rows.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        n_neighbors : int, default=5
            Number of neighbors.
        y : array-like of shape (n_samples,), default=None
            Class labels. Given, neighbors are of the same class.
        return_distance : bool, default=True
            Whether to return the distances as well.

        Returns
        -------
        distance : ndarray of shape (n_samples, n_neighbors), float64
            Euclidean distances, increasing; of normalised rows where ``normalize_``. Only with
            `return_distance`.
        position : ndarray of shape (n_samples, n_neighbors), int64
            Rows of the training data.
        """
        check_is_fitted(self)
        if self._index is None:
            raise ValueError("kneighbors needs the training rows: fit with store_index=True.")
        X, code = self._prepare(X, y)
        train_code = self._groups.group_class[self.labels_]
        parts = [(slice(None), None)]
        if code is not None:
            parts = [(code == k, np.flatnonzero(train_code == k)) for k in np.unique(code)]
        available = min(len(train_code if among is None else among) for _, among in parts)
        if not 1 <= n_neighbors <= available:
            raise ValueError(
                f"n_neighbors={n_neighbors} must be between 1 and {available}, the number of "
                f"training samples{'' if y is None else ' of the smallest class asked for'}."
            )
        distance = np.empty((len(X), n_neighbors))
        position = np.empty((len(X), n_neighbors), dtype=np.int64)
        for rows, among in parts:
            distance[rows], position[rows] = self._index.search(X[rows], n_neighbors, among)
        return (distance, position) if return_distance else position

    def exemplars(self, n_exemplars=5):
        """Training samples nearest to the center of each group, to look at.

        Parameters
        ----------
        n_exemplars : int, default=5
            Samples per group; a smaller group gives all it has.

        Returns
        -------
        positions : list of ndarray
            For each group, rows of the training data, the nearest first.
        """
        check_is_fitted(self)
        order = np.lexsort((self._center_distance, self.labels_))
        ends = np.cumsum(self.cluster_sizes_)
        return [
            order[end - size : end][:n_exemplars] for end, size in zip(ends, self.cluster_sizes_)
        ]

    # ------------------------------------------------------------------- steps of fit

    def _resolve_settings(self, method, seed):
        device, gpu_min_elements = _resolve_device(self.device)
        criterion = method.criterion if self.criterion == "auto" else self.criterion
        reduction, n_components = self._resolve_reduction()
        return Settings(
            candidates=method.candidates,
            choose=_CHOOSE[criterion],
            criterion=criterion,
            max_clusters=(
                method.max_clusters if self.max_clusters == "auto" else self.max_clusters
            ),
            min_cluster_size=self.min_cluster_size,
            min_silhouette=self.min_silhouette,
            reduction=reduction,
            n_components=n_components,
            n_unreduced=self._resolve_unreduced(reduction),
            n_init=self.n_init,
            silhouette=self.silhouette,
            silhouette_size=self.silhouette_size,
            overclustering_factor=self.overclustering_factor if self.overclustering else 0,
            overclustering_min_size=self.overclustering_min_size,
            n_folds=self.n_folds,
            C=self.C,
            seed=seed,
            device=device,
            gpu_min_elements=gpu_min_elements,
        )

    def _resolve_reduction(self):
        """What is reduced class by class, and to how many dimensions."""
        reduction, n_components = self.reduction, self.n_components
        if reduction is None:
            return (None if n_components is None else "pca"), n_components
        if reduction == "umap":
            n_components = 2 if n_components is None else n_components
            if not isinstance(n_components, Integral):
                raise ValueError(
                    f"n_components={n_components!r} is a share of variance, which goes with "
                    "reduction='pca': give reduction='umap' an integer."
                )
        if reduction == "pca" and n_components is None:
            raise ValueError("reduction='pca' needs n_components: a number or a share of variance.")
        if reduction == "margin" and (n_components is not None or self.normalize is True):
            raise ValueError(
                "reduction='margin' leaves one number of every row: use n_components=None and "
                "normalize='auto' or False."
            )
        return reduction, n_components

    def _resolve_unreduced(self, reduction):
        """Leading features that are not reduced."""
        if self.n_unreduced == 0:
            return 0
        if reduction not in ("pca", "umap"):
            raise ValueError(
                f"n_unreduced={self.n_unreduced} is for reduction='pca' or 'umap', here it is "
                f"{self.reduction!r}. Use n_unreduced=0."
            )
        if self.n_unreduced >= self.n_features_in_:
            raise ValueError(
                f"n_unreduced={self.n_unreduced} leaves none of the {self.n_features_in_} features "
                "to reduce. Use fewer, or reduction=None."
            )
        return self.n_unreduced

    def _prepare_split(self, X, code, losses, eval_set, settings):
        """What over-clustering looks at: losses, and validation rows with their classes."""
        if not self.overclustering:
            return None
        if losses is None:
            logits = cross_fitted_logits(
                X,
                code,
                len(self.classes_),
                n_folds=settings.n_folds,
                C=settings.C,
                random_state=settings.seed,
            )
            losses = -log_softmax(logits, axis=1)[np.arange(len(X)), code]
        losses = check_array(losses, ensure_2d=False, dtype=np.float64, input_name="losses")
        if losses.shape != (len(X),):
            raise ValueError(
                f"losses has shape {losses.shape} for {len(X)} samples: give one for each."
            )
        valid = (None, None) if eval_set is None else self._prepare(*eval_set)
        return (losses, *valid)

    def _cluster(self, X, code, settings, split_data):
        """Cluster the classes, several at a time, or all samples together."""
        is_global = self.scope == "global"
        if is_global:
            self._refuse_dict_for_global_scope()
        part = np.zeros_like(code) if is_global else code
        tasks = (
            delayed(cluster_class)(
                X[part == k], n_clusters, settings, _of_part(split_data, part, k, is_global)
            )
            for k, n_clusters in enumerate(
                [self.n_clusters] if is_global else self._n_clusters_by_class()
            )
        )
        n_jobs = 1 if settings.reduction == "umap" else self.n_jobs  # numba's threads do not mix
        found = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(tasks)
        bar = tqdm(found, total=part.max() + 1, desc="classes", disable=not self.verbose)
        with warnings.catch_warnings():  # a mixture of too many components need not converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = list(bar)
        models = [c.model for c in clusters]
        groups = CellGroups(models[0], len(self.classes_)) if is_global else NestedGroups(models)
        silhouette = np.array([c.silhouette for c in clusters])
        return groups, np.broadcast_to(silhouette, len(self.classes_)), [c.search for c in clusters]

    def _n_clusters_by_class(self):
        if not isinstance(self.n_clusters, dict):
            return [self.n_clusters] * len(self.classes_)
        labels = self.classes_.tolist()
        if set(self.n_clusters) != set(labels):
            raise ValueError(
                f"n_clusters has the classes {list(self.n_clusters)}, y has {labels}: give a "
                "number or 'auto' for each class."
            )
        for label, value in self.n_clusters.items():
            if value != "auto" and not (isinstance(value, Integral) and value >= 1):
                raise ValueError(
                    f"n_clusters[{label!r}]={value!r}: use 'auto' or a positive integer."
                )
        return [self.n_clusters[label] for label in labels]

    # ------------------------------------------------------------------------- checks

    def _refuse_global_scope(self):
        if self.scope == "global":
            raise ValueError(
                f"scope='global' does not go with method={self.method!r}, which finds no "
                "clusters: use scope='class', or a method that clusters."
            )

    def _refuse_dict_for_global_scope(self):
        if isinstance(self.n_clusters, dict):
            raise ValueError(
                f"n_clusters={self.n_clusters!r} gives a number for each class, but with "
                "scope='global' the classes are clustered together: give 'auto' or a number."
            )

    def _check_samples(self, X):
        return validate_data(self, _as_array(X), reset=False, dtype=[np.float64, np.float32])

    def _prepare(self, X, y):
        """Rows as they are clustered, and their class codes."""
        X = self._check_samples(X)
        code = self._encode_classes(y, len(X))
        return self._represent(X, code), code

    def _represent(self, X, code):
        """Normalised rows, or their margins."""
        if self.reduction != "margin":
            return _normalize_rows(X) if self.normalize_ else X
        if X.shape[1] != len(self.classes_):
            raise ValueError(
                f"reduction='margin' needs a logit or probability for each of the "
                f"{len(self.classes_)} classes, X has {X.shape[1]} columns: use "
                "TorchFeatureExtractor(output='logits')."
            )
        if code is None:
            raise ValueError(
                "reduction='margin' compares the own class with the others: give y, the class "
                "labels of the rows."
            )
        return margins_of(X, code)[:, None]

    def _encode_classes(self, y, n_samples):
        """Class codes, or None where no labels are given."""
        if y is None:
            return None
        y = column_or_1d(y)
        if len(y) != n_samples:
            raise ValueError(f"y has {len(y)} labels for {n_samples} samples: give one for each.")
        code = pd.Index(self.classes_).get_indexer(y)
        if (code < 0).any():
            unseen = list(dict.fromkeys(y[code < 0].tolist()))
            raise ValueError(
                f"y has classes that fit did not see: {unseen[:5]}. Known: "
                f"{self.classes_.tolist()[:20]}."
            )
        return code

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # The rows keep their dtype, but the GroupedData around them has none to compare.
        tags.transformer_tags.preserves_dtype = []
        return tags


def _of_part(split_data, part, k, is_global):
    """Losses and validation rows of one class, or of all."""
    if split_data is None:
        return None
    losses, X_valid, valid_code = split_data
    if X_valid is not None and not is_global:
        X_valid = X_valid[valid_code == k]
    return SplitData(losses[part == k], X_valid)


def _as_array(X):
    """Samples without their groups, in a form that scikit-learn checks."""
    X, _, _ = unpack_groups(X)
    if torch.is_tensor(X):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    return X.astype(np.float32) if getattr(X, "dtype", None) == np.float16 else X


def _normalize_rows(X):
    length = np.sqrt(np.einsum("ij,ij->i", X, X))
    return X / np.maximum(length, 1e-6)[:, None]


def _resolve_device(device):
    """Torch device of the silhouettes, and from how many numbers on faiss uses the GPUs."""
    import faiss

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda', but torch sees no GPU: use device='auto' or 'cpu'.")
    has_gpu = torch.cuda.is_available() and faiss.get_num_gpus() > 0
    if device == "cpu" or not (has_gpu or device == "cuda"):
        return "cpu", np.inf
    if not has_gpu:
        return "cuda", np.inf
    return "cuda", 0 if device == "cuda" else _GPU_MIN_ELEMENTS
