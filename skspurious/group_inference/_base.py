"""GroupMethod: what every way to find groups supplies, and how its groups are numbered."""

from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator

from skspurious.functional._clustering import assign_nearest, squared_distances_to
from skspurious.functional._rows import row_chunks, squared_to_own_center
from skspurious.functional._silhouette import score_partitions


@dataclass(frozen=True)
class InferenceContext:
    """What a method is told besides the rows and their classes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Class labels; the codes are positions in it.
    is_global : bool
        Whether the classes are to be looked at together (``scope="global"``).
    silhouette : "auto", "exact" or int
        As in :class:`SpuriousGroupInferrer`.
    seed : int
        Seed of everything random.
    device : str
        Torch device.
    gpu_min_elements : float
        From how many numbers on faiss uses the GPUs.
    n_jobs : int or None
        Classes that may be looked at at once, in threads.
    verbose : int
        1 shows a progress bar.
    losses : ndarray of shape (n_samples,) or None
        Loss of every training sample, where the method asks for them by ``needs_losses``.
    X_val : ndarray of shape (n_val_samples, n_features) or None
        Validation rows that were passed to ``fit``.
    code_val : ndarray of shape (n_val_samples,) or None
        Their class codes.
    """

    classes: np.ndarray
    is_global: bool = False
    silhouette: object = "auto"
    seed: int = 0
    device: str = "cpu"
    gpu_min_elements: float = np.inf
    n_jobs: int | None = None
    verbose: int = 0
    losses: np.ndarray | None = None
    X_val: np.ndarray | None = None
    code_val: np.ndarray | None = None

    def X_val_of(self, k):
        """Validation rows of a class, or all where the classes are looked at together."""
        if self.X_val is None or self.is_global:
            return self.X_val
        return self.X_val[self.code_val == k]

    @property
    def silhouette_params(self):
        """Arguments of ``score_partitions`` and ``mean_silhouettes``."""
        is_size = not isinstance(self.silhouette, str)
        return {
            "method": "stratified" if is_size else self.silhouette,
            "n_per_cluster": self.silhouette if is_size else 300,
            "random_state": self.seed,
            "device": self.device,
        }

    def score_partitions(self, X, partitions, sample_count):
        """Silhouette scores of several partitions of the same rows."""
        return score_partitions(X, partitions, sample_count=sample_count, **self.silhouette_params)


class GroupMethod(BaseEstimator):
    """Base of the methods of :class:`SpuriousGroupInferrer`: what divides a class into groups.

    A method writes two functions. :meth:`find` looks at the training rows and remembers what
    it learned in attributes; :meth:`assign` says which part of their class rows belong to. The
    inferrer checks the data, numbers the groups and answers all questions about new rows. Its
    parameters are those of ``__init__``, which only stores them, as in scikit-learn.

    .. versionadded:: 0.1

    Attributes
    ----------
    silhouette_ : ndarray of shape (n_classes,), optional
        Set by ``find`` where it knows the mean silhouette of every class; else NaN.
    margin_ : ndarray of shape (n_samples,), optional
        Set by ``find`` where the method has margins, see :class:`SpuriousGroupInferrer`.
    normalizes : bool
        Class attribute: what ``normalize="auto"`` means for this method.
    needs_losses : bool
        Class attribute: whether ``find`` needs ``losses`` in its context.
    made_of_errors : bool
        Class attribute: whether its groups are what a model is right and wrong about.
    supports_global : bool
        Class attribute: whether ``scope="global"`` makes sense. With this scope ``find`` gets class
        codes that are all 0, and a group is the part of a class in a cluster.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.functional import class_means
    >>> from skspurious.group_inference import SpuriousGroupInferrer
    >>> from skspurious.extend import GroupMethod
    >>> class FarGroups(GroupMethod):
    ...     "Splits every class at a quantile of the distance from its mean."
    ...
    ...     def __init__(self, quantile=0.5):
    ...         self.quantile = quantile
    ...
    ...     def find(self, X, code, context):
    ...         self.means_ = class_means(X, code)
    ...         distance = np.linalg.norm(X - self.means_[code], axis=1)
    ...         classes = range(len(self.means_))
    ...         self.limits_ = [np.quantile(distance[code == k], self.quantile) for k in classes]
    ...
    ...     def assign(self, X, k):
    ...         return (np.linalg.norm(X - self.means_[k], axis=1) > self.limits_[k]).astype(int)
    >>> inferrer = SpuriousGroupInferrer(FarGroups(quantile=0.75))
    >>> inferrer.fit([[0.0], [1.0], [2.0], [9.0]], ["cow"] * 4).labels_
    array([0, 0, 0, 1])
    """

    _parameter_constraints: dict = {}  # checked where a method has them

    normalizes = False
    needs_losses = False
    made_of_errors = False
    supports_global = False

    # ----------------------------------------------------------- what a method supplies

    def find(self, X, code, context):
        """Learn how to divide the classes.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), float32 or float64
            The training rows, normalised where the inferrer does so. Not to be changed.
        code : ndarray of shape (n_samples,), int64
            Class codes, 0 to n_classes-1; each occurs.
        context : InferenceContext
            The inferrer's settings: seed, device and so on.

        Raises
        ------
        NotImplementedError
            In this base class; a method overrides it.
        """
        raise NotImplementedError

    def assign(self, X, k):
        """Part of their class that rows belong to.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_features)
            Rows of one class, from training or new; not always all of them.
        k : int
            The code of their class.

        Returns
        -------
        part : ndarray of shape (n_rows,), int
            Numbers of the parts, not negative. A part without training rows is not a group: rows
            that are assigned to it go to the group with the nearest center.

        Raises
        ------
        NotImplementedError
            In this base class; a method overrides it.
        """
        raise NotImplementedError

    # ------------------------------------------------------ what a method may do otherwise

    def should_normalize(self, normalize, n_features):
        """Whether rows are divided by their norm, given the inferrer's ``normalize``."""
        return self.normalizes and n_features > 1 if normalize == "auto" else bool(normalize)

    def represent(self, X, code, n_classes):
        """What is looked at in place of the rows; they are normalised already."""
        return X

    def find_centers(self, X, group):
        """Center of every group, in float64: by default the mean of its training rows."""
        centers = np.zeros((len(self.group_class_), X.shape[1]))
        for part in row_chunks(*X.shape):
            for g in np.unique(group[part]):
                centers[g] += X[part][group[part] == g].sum(axis=0, dtype=np.float64)
        return centers / np.bincount(group)[:, None]

    def assign_among(self, X, k, parts):
        """Position of each row's part in `parts`, the sorted parts of class `k` that are groups."""
        part = self.assign(X, 0 if self.is_global_ else k)
        position = np.minimum(np.searchsorted(parts, part), len(parts) - 1)
        lost = np.flatnonzero(parts[position] != part)
        if len(lost):
            position[lost] = assign_nearest(X[lost], self.centers_[self.group_class_ == k])[0]
        return position

    def membership_among(self, X, k, parts):
        """Probability of every one of `parts` of a class, or of all where `k` is None."""
        if k is None:
            of = [np.flatnonzero(self.group_part_ == p) for p in parts]
            size = self.group_size_
            centers = np.stack([np.average(self.centers_[g], axis=0, weights=size[g]) for g in of])
        else:
            centers = self.centers_[self.group_class_ == k]
        return soft_nearest(squared_distances_to(X, centers), self.variance_)

    def assign_any(self, X):
        """Group of rows whose class is not known: by default that of the nearest center."""
        if self.is_global_:
            return self.membership_any(X).argmax(axis=1)
        return assign_nearest(X, self.centers_)[0]

    def membership_any(self, X):
        """Probability of every group for rows whose class is not known."""
        if not self.is_global_:
            return soft_nearest(squared_distances_to(X, self.centers_), self.variance_)
        # That of the cluster, shared among the classes in it.
        clusters, cluster = np.unique(self.group_part_, return_inverse=True)
        size = self.group_size_
        share = size / np.bincount(cluster, weights=size)[cluster]
        return self.membership_among(X, None, clusters)[:, cluster] * share

    # -------------------------------------------------------------- numbering, for the inferrer

    def number_groups(self, X, code, is_global):
        """Number the parts that training rows are in; groups and distances to their centers."""
        part = np.empty(len(X), dtype=np.int64)
        for rows, k in _rows_by_class(X, code):
            part[rows] = self.assign(X[rows], 0 if is_global else k)
        n_parts = part.max() + 1
        pairs, group = np.unique(code * n_parts + part, return_inverse=True)
        self.group_class_, self.group_part_ = np.divmod(pairs, n_parts)
        self.group_size_ = np.bincount(group)
        self.is_global_ = is_global
        self.centers_ = self.find_centers(X, group)
        squared = squared_to_own_center(X, self.centers_, group)
        self.variance_ = float(squared.mean() / X.shape[1])
        return group, np.sqrt(squared)

    def groups_of(self, X, code=None):
        """Group of every row, in its class, or of all groups where `code` is None."""
        if code is None:
            return np.concatenate([self.assign_any(X[part]) for part in row_chunks(*X.shape)])
        group = np.empty(len(X), dtype=np.int64)
        for rows, k in _rows_by_class(X, code):
            own = np.flatnonzero(self.group_class_ == k)
            group[rows] = own[self.assign_among(X[rows], k, self.group_part_[own])]
        return group

    def memberships_of(self, X, code=None):
        """Probability of every group, shape (n_rows, n_groups)."""
        if code is None:
            return np.concatenate([self.membership_any(X[part]) for part in row_chunks(*X.shape)])
        result = np.zeros((len(X), len(self.group_class_)))
        for rows, k in _rows_by_class(X, code):
            own = np.flatnonzero(self.group_class_ == k)
            result[np.ix_(rows, own)] = self.membership_among(X[rows], k, self.group_part_[own])
        return result


def _rows_by_class(X, code):
    """Positions of rows of one class and its code, a few at a time."""
    for part in row_chunks(*X.shape):
        for k in np.unique(code[part]):
            yield part.start + np.flatnonzero(code[part] == k), k


def soft_nearest(squared_distance, variance):
    """Softmax of -squared_distance / (2 variance); the nearest alone where there is no variance."""
    excess = squared_distance - squared_distance.min(axis=1, keepdims=True)
    weight = np.exp(-excess / (2.0 * variance)) if variance > 0.0 else (excess <= 0.0).astype(float)
    return weight / weight.sum(axis=1, keepdims=True)
