"""GroupedData: samples that carry their groups."""

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.utils import check_consistent_length

from skspurious.data._group_columns import named_columns, without_columns
from skspurious.data._groups import as_group_array, encode_groups
from skspurious.data._overlapping import OverlappingGroups
from skspurious.data._samples import DatasetSamples, TensorSamples, ViewedPaths, n_rows
from skspurious.utils._frames import as_pandas
from skspurious.utils._rows import check_is_rows, check_same_rows


class GroupedData:
    """Samples that carry their groups.

    Rows and groups are sliced together, so that groups reach ``fit`` and the scorer inside
    ``GridSearchCV``, ``cross_validate`` and ``train_test_split`` with nothing configured.

    Parameters
    ----------
    data : array, tensor, DataFrame, list, or map-style dataset of length n_samples
        The samples: anything that the estimators of this package accept as ``X``.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups, default=None
        The group of every sample. None carries no groups. Those that overlap are for scores alone.
        The name of a column of a DataFrame, or a list of names, takes these columns out of it.
    sample_attribute : array-like of shape (n_samples,), default=None
        Values of a spurious attribute where they are known, and None or NaN elsewhere. They are
        for a ``group_inferrer`` that takes them, ``SemiSupervisedGroupInferrer``. They are no
        groups: scores use ``sample_group``, and estimators without an inferrer neither.
    group_inferrer : fitted inferrer, default=None
        The inferrer that inferred the groups; ``SpuriousGroupInferrer.fit_transform`` sets it.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious import GroupedData
    >>> X = GroupedData(np.arange(8.0).reshape(4, 2), ["field", "water", "field", "water"])
    >>> X[[0, 3]].sample_group
    array(['field', 'water'], dtype='<U5')
    """

    def __init__(self, data, sample_group=None, *, sample_attribute=None, group_inferrer=None):
        if isinstance(data, GroupedData):
            raise TypeError(
                "data is a GroupedData already; pass data.data to give it other groups."
            )
        data = as_pandas(data)
        if data is not None:  # groups alone
            check_is_rows(data, "data")
        columns = named_columns(data, sample_group)
        if columns:
            data, sample_group = without_columns(data, columns), data[list(columns)]
        self.data = data
        check_same_rows(data, sample_group, "sample_group")
        check_same_rows(data, sample_attribute, "sample_attribute")
        is_array = sample_group is not None and not isinstance(sample_group, OverlappingGroups)
        self.sample_group = as_group_array(sample_group) if is_array else sample_group
        self.sample_attribute = (
            None
            if sample_attribute is None
            else as_group_array(sample_attribute, name="sample_attribute")
        )
        self.group_inferrer = group_inferrer
        for values in (self.sample_group, self.sample_attribute):
            if values is not None:
                check_consistent_length(data, values)

    def __len__(self):
        return n_rows(self.data)

    @property
    def shape(self):
        """Shape of the data; ``(n_samples,)`` where the data have no shape of their own."""
        shape = getattr(self.data, "shape", None)
        return (len(self),) if shape is None else tuple(shape)

    def __getitem__(self, index):
        if isinstance(index, tuple):  # scikit-learn asks for X[index, ...]
            index, *rest = index
            if any(part is not Ellipsis for part in rest):
                raise IndexError("GroupedData selects rows alone; use .data for columns.")
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        index = np.atleast_1d(np.asarray(index))
        if index.size == 0:
            index = index.astype(np.int64)
        if index.dtype == bool:
            check_consistent_length(index, self)
            index = np.flatnonzero(index)
        carried = (self.sample_group, self.sample_attribute)
        group, attribute = (None if values is None else values[index] for values in carried)
        return GroupedData(
            take_rows(self.data, index),
            group,
            sample_attribute=attribute,
            group_inferrer=self.group_inferrer,
        )

    def __array__(self, dtype=None, copy=None):
        """The data alone: a plain scikit-learn transformer sees an array."""
        array = np.asarray(self.data, dtype=dtype)
        return array.copy() if copy else array  # np.array(X) must not share memory with X

    def __repr__(self):
        text = f"{type(self.data).__name__} of shape {self.shape}, {self._n_groups()} groups"
        if self.sample_attribute is not None:
            text += f", attribute of {(~pd.isna(self.sample_attribute)).sum()} samples"
        return f"GroupedData({text})"

    def _n_groups(self):
        if isinstance(self.sample_group, OverlappingGroups):
            return len(self.sample_group.groups)
        return 0 if self.sample_group is None else len(encode_groups(self.sample_group)[1])


def unpack_groups(X, sample_group=None):
    """Separate the samples from the groups that they carry; explicit groups come first.

    Parameters
    ----------
    X : any kind of samples, or GroupedData
        The samples, which may carry groups.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
        Explicit groups.

    Returns
    -------
    X : the samples without their groups
    sample_group : the explicit groups, else those carried, else None
    group_inferrer : the inferrer of the carried groups, or None

    Examples
    --------
    >>> from skspurious.data import GroupedData, unpack_groups
    >>> X, sample_group, _ = unpack_groups(GroupedData(["a.png", "b.png"], [0, 1]))
    >>> X, sample_group.tolist()
    (['a.png', 'b.png'], [0, 1])
    """
    if not isinstance(X, GroupedData):
        return as_pandas(X), sample_group, None
    if sample_group is not None:
        return X.data, sample_group, None
    return X.data, X.sample_group, X.group_inferrer


def take_group_columns(X, sample_group, name="sample_group", fitted=()):
    """The samples without the columns that `sample_group` names, the groups, and the names.

    Parameters
    ----------
    X : any kind of samples, or GroupedData
    sample_group : str, list of str, groups, or None
        Groups that are no names are left as they are.
    name : str, default="sample_group"
        Of the argument, for errors.
    fitted : tuple of str, default=()
        The names that ``fit`` was given, which count where `sample_group` is None.

    Returns
    -------
    X : the samples
    sample_group : the groups
    columns : tuple of str
    """
    samples = unpack_groups(X)[0]
    check_same_rows(samples, sample_group, name)
    if sample_group is None:
        columns = fitted if set(fitted) <= set(getattr(samples, "columns", ())) else ()
    else:
        columns = named_columns(samples, sample_group, name)
    if not columns:
        return X, sample_group, ()
    return wrap_like(without_columns(samples, columns), X), samples[list(columns)], columns


def take_named_groups(X, sample_group=None, X_val=None, sample_group_val=None, **given):
    """The same of all that ``fit`` is given: X, the names, and the other arguments."""
    check_same_rows(unpack_groups(X)[0], given.get("sample_weight"), "sample_weight")
    X, sample_group, columns = take_group_columns(X, sample_group)
    if X_val is not None:
        X_val, sample_group_val, _ = take_group_columns(
            X_val, sample_group_val, "sample_group_val", fitted=columns
        )
    first = {"sample_group": sample_group, "X_val": X_val}
    return X, columns, {**first, **given, "sample_group_val": sample_group_val}


def wrap_like(Z, X):
    """Samples that were made of those of ``X``, carrying what it carries."""
    if not isinstance(X, GroupedData):
        return Z
    return GroupedData(
        Z,
        X.sample_group,
        sample_attribute=X.sample_attribute,
        group_inferrer=X.group_inferrer,
    )


def carried_attribute(X):
    """The ``sample_attribute`` that X carries, or None."""
    return X.sample_attribute if isinstance(X, GroupedData) else None


def without_groups(X):
    """The samples, still with the ``sample_attribute`` that they carry, but without groups."""
    attribute = carried_attribute(X)
    samples = unpack_groups(X)[0]
    return samples if attribute is None else GroupedData(samples, sample_attribute=attribute)


def take_rows(data, index):
    """Rows of any kind of X by an array of integers, as the same kind of X."""
    if isinstance(data, TensorSamples | DatasetSamples | ViewedPaths):
        return data.take(index)
    if hasattr(data, "iloc"):
        return data.iloc[index]
    if torch.is_tensor(data):
        return data[torch.as_tensor(index, device=data.device)]
    if isinstance(data, np.ndarray) or scipy.sparse.issparse(data):
        return data[index]
    if isinstance(data, list | tuple):
        return [data[i] for i in index]
    if hasattr(data, "select") and hasattr(data, "column_names"):  # Hugging Face
        return data.select(index)
    return DatasetSamples(data).take(index)
