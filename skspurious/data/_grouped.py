"""GroupedData: samples that carry their groups."""

import numpy as np
import scipy.sparse
import torch
from sklearn.utils import check_consistent_length

from skspurious.data._groups import as_group_array, encode_groups
from skspurious.data._samples import DatasetSamples, TensorSamples, ViewedPaths, n_rows


class GroupedData:
    """Samples that carry their groups.

    Rows and groups are sliced together, so that groups reach ``fit`` and the scorer inside
    ``GridSearchCV``, ``cross_validate`` and ``train_test_split`` with nothing configured.

    Parameters
    ----------
    data : array, tensor, DataFrame, list, or map-style dataset of length n_samples
        The samples: anything that the estimators of this package accept as ``X``.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or None
        The group of every sample. None carries no groups: it only makes ``data`` indexable by an
        array.
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

    def __init__(self, data, sample_group, *, group_inferrer=None):
        if isinstance(data, GroupedData):
            raise TypeError(
                "data is a GroupedData already; pass data.data to give it other groups."
            )
        self.data = data
        self.sample_group = None if sample_group is None else as_group_array(sample_group)
        self.group_inferrer = group_inferrer
        if self.sample_group is not None:
            check_consistent_length(data, self.sample_group)

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
        group = None if self.sample_group is None else self.sample_group[index]
        return GroupedData(take_rows(self.data, index), group, group_inferrer=self.group_inferrer)

    def __array__(self, dtype=None, copy=None):
        """The data alone: a plain scikit-learn transformer sees an array."""
        array = np.asarray(self.data, dtype=dtype)
        return array.copy() if copy else array  # np.array(X) must not share memory with X

    def __repr__(self):
        groups = 0 if self.sample_group is None else len(encode_groups(self.sample_group)[1])
        return f"GroupedData({type(self.data).__name__} of shape {self.shape}, {groups} groups)"


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
        return X, sample_group, None
    if sample_group is not None:
        return X.data, sample_group, None
    return X.data, X.sample_group, X.group_inferrer


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
