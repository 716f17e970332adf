"""Methods that cluster: what they share, from their parameters to the clusters of all classes."""

import warnings
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from skspurious.functional._rows import row_order
from skspurious.group_inference._base import GroupMethod
from skspurious.group_inference._clusters import cluster_class
from skspurious.group_inference._sides import margins_of
from skspurious.utils._sklearn_compat import Interval, StrOptions


class ClusterMethod(GroupMethod):
    """Base of the methods that cluster the samples of every class.

    Subclasses define ``candidates``, which makes clusterings of rows, and ``choose``, which
    picks one of them by its silhouette.

    Parameters
    ----------
    n_clusters : "auto", int or dict, default="auto"
        Clusters per class. "auto" is the number with the best silhouette; an int is for every
        class; a dict has an int or "auto" for each class label. A class with fewer distinct rows
        than its int stays whole. With ``scope="global"``, "auto" or the int is the number of
        clusters of all classes together.
    max_clusters : int, default=10
        Largest number of clusters that "auto" tries.
    min_silhouette : float, default=None
        With ``n_clusters="auto"``, a class whose best silhouette is below it stays whole; None
        splits every class that has two different rows.
    min_group_size : int, default=1
        Fewest training samples of a cluster. A smaller cluster is dropped, and its samples go to
        the nearest center, or most probable component, that is left.
    reduction : {None, "pca", "umap", "margin"}, default=None
        What is clustered in place of the rows. "pca": the `n_components` first principal
        components of each class. "umap": a UMAP of each class with 10 neighbors and no minimal
        distance [2]_; it needs ``skspurious[umap]``, leaves a class of at most 10 distinct rows as
        it is, and puts new rows where the nearest training row of their class is. "margin": the
        logit (or probability) of the own class minus the largest of the others, for rows that
        hold one for each class; ``predict`` then needs ``y``. None: the rows, or with
        `n_components` the same as "pca".
    n_components : int or float, default=None
        Dimensions that the rows of a class are reduced to. "pca" needs their number, or the share
        of the variance to keep; "umap" takes a number, where None is 2. The features that
        `n_unreduced` leaves as they are do not count.
    n_unreduced : int, default=0
        Number of leading features that "pca" and "umap" leave as they are; the reduced others are
        put behind them. Use 1 for the output of
        ``TorchFeatureExtractor(output="hardness_residual")``, whose first feature is the hardness.
    overclustering : int, default=None
        Parts that each cluster is split into in a second step; None leaves this step out. A part
        becomes a group of its own if (i) its mean silhouette is larger than before and positive;
        (ii) its mean loss is not below the cluster's; (iii) it has at least 0.5 % of the samples
        of the class and at least `overclustering_min_size`; and (iv) it has at least that many
        validation samples, where ``fit`` is given any. What is left of a cluster is one group.
    overclustering_min_size : int, default=25
        Fewest samples of such a part, in training and in validation.
    """

    supports_global = True
    has_centers = True

    _parameter_constraints: dict = {
        "n_clusters": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), dict],
        "max_clusters": [Interval(Integral, 2, None, closed="left")],
        "min_silhouette": [Interval(Real, -1, 1, closed="both"), None],
        "min_group_size": [Interval(Integral, 1, None, closed="left")],
        "reduction": [StrOptions({"pca", "umap", "margin"}), None],
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
            None,
        ],
        "n_unreduced": [Interval(Integral, 0, None, closed="left")],
        "overclustering": [Interval(Integral, 2, None, closed="left"), None],
        "overclustering_min_size": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_clusters="auto",
        max_clusters=10,
        min_silhouette=None,
        min_group_size=1,
        reduction=None,
        n_components=None,
        n_unreduced=0,
        overclustering=None,
        overclustering_min_size=25,
    ):
        self.n_clusters = n_clusters
        self.max_clusters = max_clusters
        self.min_silhouette = min_silhouette
        self.min_group_size = min_group_size
        self.reduction = reduction
        self.n_components = n_components
        self.n_unreduced = n_unreduced
        self.overclustering = overclustering
        self.overclustering_min_size = overclustering_min_size

    # ------------------------------------------------------------- what subclasses supply

    def candidates(self, work, position, count, numbers, min_size, context):
        """Clusterings, each as a cluster model and the label of every row.

        Parameters
        ----------
        work : ndarray of shape (n_distinct, n_features)
            Distinct rows, centered and scaled.
        position : ndarray of shape (n_distinct,) or None
            Their coordinate on a line, where they lie on one.
        count : ndarray of shape (n_distinct,), int64
            How often each occurs.
        numbers : sequence of int
            Increasing numbers of clusters to make.
        min_size : int
            Fewest samples of a cluster.
        context : InferenceContext

        Yields
        ------
        model : cluster model, as :class:`~skspurious.group_inference._clusters.CentroidClusters`
        label : ndarray of shape (n_distinct,), int64
        """
        raise NotImplementedError

    def choose(self, scores):
        """Index of the best of several SilhouetteScore."""
        raise NotImplementedError

    def floor_of(self, score):
        """The silhouette that `min_silhouette` is about."""
        return score.macro

    # ------------------------------------------------------------------------- the method

    @property
    def needs_losses(self):
        """For over-clustering."""
        return self.overclustering is not None

    def should_normalize(self, normalize, n_features):
        """Never a single feature, a margin, or features that keep their scale beside others."""
        if self.reduction == "margin" and (self.n_components is not None or normalize is True):
            raise ValueError(
                "reduction='margin' leaves one number of every row: use n_components=None and "
                "normalize='auto' or False."
            )
        has_own_scale = self.reduction == "margin" or self.n_unreduced > 0
        if normalize == "auto" and has_own_scale:
            return False
        return super().should_normalize(normalize, n_features)

    def represent(self, X, code, n_classes):
        """The rows, or their margins."""
        if self.reduction != "margin":
            return X
        if X.shape[1] != n_classes:
            raise ValueError(
                f"reduction='margin' needs a logit or probability for each of the "
                f"{n_classes} classes, X has {X.shape[1]} columns: use "
                "TorchFeatureExtractor(output='logits')."
            )
        if code is None:
            raise ValueError(
                "reduction='margin' compares the own class with the others: give y, the class "
                "labels of the rows."
            )
        return margins_of(X, code)[:, None]

    def find(self, X, code, context):
        """Cluster the classes, several at a time, or all samples together."""
        self.reduction_, self.n_components_ = self._resolve_reduction(X.shape[1])
        numbers = self._n_clusters_by_part(context)
        orders = _orders_by_class(X, code, len(numbers))
        tasks = (
            delayed(cluster_class)(X, orders[k], numbers[k], self, context, context.X_val_of(k))
            for k in range(len(numbers))
        )
        n_jobs = 1 if self.reduction_ == "umap" else context.n_jobs  # numba's threads do not mix
        found = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(tasks)
        bar = tqdm(found, total=len(numbers), desc="classes", disable=not context.verbose)
        with warnings.catch_warnings():  # a mixture of too many components need not converge
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = list(bar)
        self.models_ = [c.model for c in clusters]
        silhouette = np.array([c.silhouette for c in clusters])
        self.silhouette_ = np.broadcast_to(silhouette, len(context.classes)).copy()
        self.search_ = [c.search for c in clusters]
        self.margin_ = X[:, 0] if self.reduction_ == "margin" else None

    def assign(self, X, k):
        """Cluster of every row."""
        return self.models_[k].assign(X, np.arange(len(self.models_[k])))

    def find_centers(self, X, group):
        """Those of the clusters."""
        return np.stack(
            [self._model(k).centers[j] for k, j in zip(self.group_class_, self.group_part_)]
        )

    def assign_among(self, X, k, parts):
        """Nearest or most probable of the clusters that the class is in."""
        return self._model(k).assign(X, parts)

    def membership_among(self, X, k, parts):
        """Probability of the clusters that the class is in."""
        return self._model(k).membership(X, parts, self.variance_)

    def _model(self, k):
        return self.models_[0 if self.is_global_ else k]

    # ---------------------------------------------------------------------- steps of find

    def _resolve_reduction(self, n_features):
        """What is reduced class by class, and to how many dimensions."""
        reduction, n_components = self.reduction, self.n_components
        if reduction is None and n_components is not None:
            reduction = "pca"
        if reduction == "umap":
            n_components = 2 if n_components is None else n_components
            if not isinstance(n_components, Integral):
                raise ValueError(
                    f"n_components={n_components!r} is a share of variance, which goes with "
                    "reduction='pca': give reduction='umap' an integer."
                )
        if reduction == "pca" and n_components is None:
            raise ValueError("reduction='pca' needs n_components: a number or a share of variance.")
        if self.n_unreduced > 0 and reduction not in ("pca", "umap"):
            raise ValueError(
                f"n_unreduced={self.n_unreduced} is for reduction='pca' or 'umap', here it is "
                f"{reduction!r}. Use n_unreduced=0."
            )
        if self.n_unreduced >= n_features:
            raise ValueError(
                f"n_unreduced={self.n_unreduced} leaves none of the {n_features} features "
                "to reduce. Use fewer, or reduction=None."
            )
        return reduction, n_components

    def _n_clusters_by_part(self, context):
        """Number of clusters, or "auto", of every class, or of all together."""
        if not isinstance(self.n_clusters, dict):
            return [self.n_clusters] * (1 if context.is_global else len(context.classes))
        if context.is_global:
            raise ValueError(
                f"n_clusters={self.n_clusters!r} gives a number for each class, but with "
                "scope='global' the classes are clustered together: give 'auto' or a number."
            )
        labels = context.classes.tolist()
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


def _orders_by_class(X, code, n_classes):
    """Positions of the rows of every class, in the order of the rows' values."""
    order = row_order(X)
    if n_classes == 1:
        return [order]
    sorted_code = code[order]
    return [order[sorted_code == k] for k in range(n_classes)]
