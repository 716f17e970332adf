"""Splits that keep every (class, group) on every side."""

import warnings
from numbers import Integral

import numpy as np
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from skspurious.data import GroupedData, encode_groups, unpack_groups
from skspurious.functional._split import stratified_split
from skspurious.utils._random import draw_seed
from skspurious.utils._rows import as_labels, check_is_rows
from skspurious.utils._warnings import warn

__all__ = ["EveryGroupKFold", "every_group_train_test_split"]


class EveryGroupKFold(BaseCrossValidator):
    """K-fold that puts samples of every (class, group) into every fold.

    A rare group can be missing from a fold that is stratified by class only, and then the
    worst-group accuracy of that fold says nothing about it. This splitter stratifies by class and
    group together. It does the opposite of scikit-learn's ``StratifiedGroupKFold``, which keeps
    all samples of a group in one fold.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=False
        Whether to shuffle the samples of each (class, group) before they are dealt out.
    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling; only with ``shuffle=True``.
    n_repeats : int, default=1
        How often all samples are dealt out, each time shuffled anew; several only with
        ``shuffle=True``. Where a group is small, the worst group of a search over more folds is
        less of an accident.

    See Also
    --------
    every_group_train_test_split : One split.

    Notes
    -----
    Groups come from ``sample_group``, given in a direct call or by metadata routing (requested by
    default), else from ``groups``, which is what scikit-learn hands to a splitter without
    routing (``search.fit(X, y, groups=g)``), else from ``X`` if it is a ``GroupedData``. Carried
    groups need no configuration.

    A (class, group) with fewer samples than ``n_splits`` cannot be in every fold: a UserWarning
    gives the counts.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious import GroupedData
    >>> from skspurious.model_selection import EveryGroupKFold
    >>> y, group = np.repeat([0, 1], [20, 4]), np.repeat([0, 1, 3, 2], [17, 3, 1, 3])
    >>> X = GroupedData(np.zeros((24, 1)), np.repeat([0, 1, 2], [17, 3, 4]))
    >>> for train, test in EveryGroupKFold(n_splits=3).split(X, y):
    ...     print(np.unique(X[test].sample_group, return_counts=True)[1])
    [6 1 1]
    [6 1 1]
    [5 1 2]
    """

    # `groups`, the base class says, is not routed; `sample_group` is.
    __metadata_request__split = {"sample_group": True}

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None, n_repeats=1):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_repeats = n_repeats
        if not isinstance(n_repeats, Integral) or n_repeats < 1:
            raise ValueError(f"n_repeats={n_repeats!r} must be a whole number, at least 1.")
        if n_repeats > 1 and not shuffle:
            raise ValueError(
                f"n_repeats={n_repeats} without shuffle gives equal folds: set shuffle=True."
            )
        self._k_fold()  # checks the arguments

    def split(self, X, y=None, groups=None, *, sample_group=None):
        """Indices of the training and test samples of each fold.

        Parameters
        ----------
        X : array-like or GroupedData of length n_samples
            The samples; only their number matters, and the groups that they carry.
        y : array-like of shape (n_samples,)
            Class labels.
        groups : array-like of shape (n_samples,), default=None
            Another name for ``sample_group``: the one under which scikit-learn hands groups to
            a splitter when metadata routing is off.
        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample.

        Yields
        ------
        train, test : ndarrays of int
            Indices.

        Raises
        ------
        ValueError
            If there are no groups, or no (class, group) has ``n_splits`` samples.
        """
        if sample_group is not None and groups is not None:
            raise ValueError("Give sample_group or groups, not both: they mean the same here.")
        strata, cells = _strata(X, y, sample_group if sample_group is not None else groups, self)
        size = np.bincount(strata)
        if np.all(size < self.n_splits):
            raise ValueError(
                f"n_splits={self.n_splits} is greater than the size of every (class, group); the "
                f"largest has {size.max()} samples. Use fewer splits."
            )
        small = np.flatnonzero(size < self.n_splits)
        if len(small):
            counts = ", ".join(
                f"class {cells[i][0]!r}, group {cells[i][1]!r}: {size[i]}" for i in small[:10]
            )
            warn(
                f"{len(small)} of {len(size)} (class, group) pairs have fewer samples than "
                f"n_splits={self.n_splits} and are missing from some folds ({counts})."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            folds = [
                fold
                for repeat in range(self.n_repeats)
                for fold in self._k_fold(repeat).split(np.zeros(len(strata)), strata)
            ]
        yield from folds

    def get_n_splits(self, X=None, y=None, groups=None, *, sample_group=None):
        """Number of splits: folds by repeats.

        Parameters
        ----------
        X, y, groups, sample_group : object
            Ignored.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits * self.n_repeats

    def _k_fold(self, repeat=0):
        seed = self.random_state
        if repeat and isinstance(seed, Integral):
            seed = int(np.random.default_rng([seed, repeat]).integers(2**31))
        return StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=seed)


def every_group_train_test_split(
    X, y, *arrays, sample_group=None, test_size=0.25, random_state=None
):
    """Split into training and test samples so that every (class, group) is on both sides.

    scikit-learn's ``train_test_split(stratify=...)`` refuses groups with one sample and may
    leave out other small ones; here a (class, group) with one sample goes to training, and any
    larger one is on both sides.

    Parameters
    ----------
    X : any kind of samples of length n_samples
        The samples; a GroupedData is split with the groups that it carries.
    y : array-like of shape (n_samples,)
        Class labels.
    *arrays : array-likes of length n_samples
        Further arrays to split in the same way, for instance the groups.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
        Group of each sample. None takes those that ``X`` carries.
    test_size : float, default=0.25
        Share of the test samples, in (0, 1). Held approximately: see
        :func:`~skspurious.functional.stratified_split`.
    random_state : int, RandomState instance or None, default=None
        Decides which samples go where.

    Returns
    -------
    X_train, X_test, y_train, y_test, ... : the parts
        Each of its input's kind; a list of paths or texts stays a list.

    Raises
    ------
    ValueError
        If there are no groups, lengths differ, or ``test_size`` is not in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.model_selection import every_group_train_test_split
    >>> X, y = np.zeros((100, 2)), np.repeat([0, 1], 50)
    >>> group = np.repeat([0, 1, 2], [48, 2, 50])
    >>> X_train, X_test, y_train, y_test, g_train, g_test = every_group_train_test_split(
    ...     X, y, group, sample_group=group, random_state=0)
    >>> np.bincount(g_test)
    array([12,  1, 12])
    """
    check_is_rows(X, "X")
    check_consistent_length(X, *arrays)
    strata, _ = _strata(X, y, sample_group, "every_group_train_test_split")
    seed = draw_seed(random_state)
    train, test = stratified_split(strata, test_size, np.random.default_rng(seed))
    return [part for a in (X, y, *arrays) for part in (take(a, train), take(a, test))]


def _strata(X, y, sample_group, caller):
    """Stratum of each sample, and the (class, group) of each stratum."""
    _, sample_group, _ = unpack_groups(X, sample_group)
    name = caller if isinstance(caller, str) else type(caller).__name__
    if y is None:
        raise ValueError(f"{name} needs y: it stratifies by class and group.")
    if sample_group is None:
        raise ValueError(
            f"{name} has no groups. Carry them in GroupedData(X, sample_group), which works in any "
            "search; or pass sample_group= (in a search: with "
            "sklearn.set_config(enable_metadata_routing=True)), or, in a search without routing, "
            "groups= to its fit."
        )
    y = column_or_1d(as_labels(y, "y"))
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    check_consistent_length(X, y)
    label, classes = encode_groups(y, name="y")
    group, groups = encode_groups(sample_group, n_samples=len(label))
    pairs, strata = np.unique(label * len(groups) + group, return_inverse=True)
    classes, groups = classes.tolist(), groups.tolist()
    cells = [(classes[pair // len(groups)], groups[pair % len(groups)]) for pair in pairs]
    return strata, cells


def take(data, index):
    """Rows of anything indexable, of the same kind."""
    return data[index] if isinstance(data, GroupedData) else GroupedData(data, None)[index].data
