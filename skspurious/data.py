"""Samples, their groups, and the adapters that turn any X into indexable samples."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.utils import check_consistent_length
from torch.utils.data import Dataset, default_collate

__all__ = [
    "DatasetSamples",
    "GroupedData",
    "ImagePaths",
    "TensorSamples",
    "as_samples",
    "encode_groups",
    "make_sample_group",
    "unpack_groups",
]


# --------------------------------------------------------------------------------------
# Groups


class GroupedData:
    """Samples that carry their groups.

    Rows and groups are sliced together, so that groups reach ``fit`` and the scorer inside
    ``GridSearchCV``, ``cross_validate`` and ``train_test_split`` with nothing configured.

    Parameters
    ----------
    data : array, tensor, DataFrame, list, or map-style dataset of length n_samples
        The samples: anything that the estimators of this package accept as ``X``.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or None
        The group of every sample. None only makes ``data`` indexable by an array.
    group_inferrer : fitted inferrer, default=None
        What inferred the groups; set by ``SpuriousGroupInferrer.fit_transform``.

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
        self.sample_group = None if sample_group is None else _as_group_array(sample_group)
        self.group_inferrer = group_inferrer
        if self.sample_group is not None:
            check_consistent_length(data, self.sample_group)

    def __len__(self):
        return _n_rows(self.data)

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
        return GroupedData(_take_rows(self.data, index), group, group_inferrer=self.group_inferrer)

    def __array__(self, dtype=None, copy=None):
        """The data alone: a plain scikit-learn transformer sees an array."""
        array = np.asarray(self.data, dtype=dtype)
        return array.copy() if copy else array  # np.array(X) must not share memory with X

    def __repr__(self):
        groups = 0 if self.sample_group is None else len(encode_groups(self.sample_group)[1])
        return f"GroupedData({type(self.data).__name__} of shape {self.shape}, {groups} groups)"


def make_sample_group(y, attribute):
    """Cross the class label with a spurious attribute.

    ``group = label * n_attributes + attribute``, with label and attribute numbered by their
    sorted values: the numbering of the GroupDRO and DFR papers.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels.
    attribute : array-like of shape (n_samples,)
        Values of the spurious attribute.

    Returns
    -------
    sample_group : ndarray of shape (n_samples,), dtype int64

    Raises
    ------
    ValueError
        If the lengths differ or a value is missing.

    Examples
    --------
    >>> from skspurious.data import make_sample_group
    >>> make_sample_group(["cow", "cow", "camel"], ["grass", "sand", "sand"])
    array([2, 3, 1])
    """
    check_consistent_length(y, attribute)
    label, _ = encode_groups(y, name="y")
    attribute, values = encode_groups(attribute, name="attribute")
    return label * len(values) + attribute


def encode_groups(sample_group, *, n_samples=None, groups=None, name="sample_group"):
    """Number the groups 0 to m-1: the one place where this is done.

    Parameters
    ----------
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Any hashable values. Several columns are several attributes, crossed.
    n_samples : int, default=None
        The length that ``sample_group`` must have.
    groups : array-like of shape (n_groups,), default=None
        Known values. By default those that occur, sorted.
    name : str, default="sample_group"
        Name of the argument in error messages.

    Returns
    -------
    group : ndarray of shape (n_samples,), dtype int64
        Index of each sample's group in ``groups``.
    groups : ndarray of shape (n_groups,)
        The values; tuples where ``sample_group`` has several columns.

    Raises
    ------
    ValueError
        If the length differs from ``n_samples``, a value is missing, or a value is not
        among ``groups``.

    Examples
    --------
    >>> from skspurious.data import encode_groups
    >>> group, groups = encode_groups([["cow", "sand"], ["cow", "grass"], ["camel", "sand"]])
    >>> group.tolist(), groups.tolist()
    ([2, 1, 0], [('camel', 'sand'), ('cow', 'grass'), ('cow', 'sand')])
    """
    values = _as_group_array(sample_group, name=name)
    if n_samples is not None and len(values) != n_samples:
        raise ValueError(
            f"{name} has {len(values)} rows for {n_samples} samples. Give one group per "
            f"sample; where rows are selected, select them in {name} too (GroupedData does)."
        )
    if values.ndim == 1:
        code, uniques = _factorize(values, name)
    else:
        columns = [_factorize(column, name) for column in values.T]
        sizes = [len(u) for _, u in columns]
        crossed = np.ravel_multi_index([c for c, _ in columns], sizes)
        present, code = np.unique(crossed, return_inverse=True)
        cells = np.unravel_index(present, sizes)
        uniques = _object_array(
            zip(*(u[cell].tolist() for (_, u), cell in zip(columns, cells)), strict=True)
        )
    if groups is None:
        return code.astype(np.int64), uniques
    known = groups if isinstance(groups, np.ndarray) and groups.ndim == 1 else list(groups)
    position = {_key(value): i for i, value in enumerate(known)}
    unseen = [_key(value) for value in uniques if _key(value) not in position]
    if unseen:
        raise ValueError(
            f"{name} has values that are not among the known groups: {unseen[:5]}. "
            f"Known: {list(position)[:20]}."
        )
    lookup = np.array([position[_key(value)] for value in uniques], dtype=np.int64)
    known = known if isinstance(known, np.ndarray) else _value_array(known)
    return lookup[code] if len(code) else code.astype(np.int64), known


def unpack_groups(X, sample_group=None):
    """Separate the samples from the groups that they carry; explicit groups come first.

    Parameters
    ----------
    X : any kind of samples, or GroupedData
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


def _as_group_array(sample_group, name="sample_group"):
    if isinstance(sample_group, pd.DataFrame):
        columns = [sample_group[c].to_numpy(dtype=object) for c in sample_group.columns]
        array = np.stack(columns, axis=1)
        return array[:, 0] if array.shape[1] == 1 else array
    if isinstance(sample_group, pd.Series | pd.Index | pd.Categorical):
        array = np.asarray(sample_group)
    elif torch.is_tensor(sample_group):
        array = sample_group.detach().cpu().numpy()
    elif isinstance(sample_group, np.ndarray):
        array = sample_group
    else:
        rows = list(sample_group)
        if rows and isinstance(rows[0], list):
            array = np.array(rows, dtype=object)
        else:
            array = _value_array(rows)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} must have shape (n_samples,) or (n_samples, n_attributes); got {array.shape}."
        )
    return array


def _has_tuples_or_mixed(rows):
    return any(isinstance(r, tuple) for r in rows) or len({type(r) for r in rows}) > 1


def _object_array(values):
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _value_array(values):
    return _object_array(values) if _has_tuples_or_mixed(values) else np.asarray(values)


def _key(value):
    """Equal values are equal keys, whatever NumPy wrapped them in."""
    return value.item() if isinstance(value, np.generic) else value


def _has_missing(value):
    """Whether a tuple has a missing part."""
    return isinstance(value, tuple) and any(part is None or part != part for part in value)


def _factorize(values, name):
    """Codes 0..k-1 and the sorted values of one column."""
    missing = pd.isna(values)
    if values.dtype == object:
        missing = missing | np.array([_has_missing(value) for value in values], dtype=bool)
    if missing.any():
        raise ValueError(
            f"{name} has {missing.sum()} missing values, the first at row "
            f"{int(np.flatnonzero(missing)[0])}. Give every sample a group, for instance "
            "a value of its own for 'unknown'."
        )
    if values.dtype != object:
        uniques, codes = np.unique(values, return_inverse=True)
        return codes, uniques
    codes, uniques = pd.factorize(values)
    try:
        order = sorted(range(len(uniques)), key=uniques.__getitem__)
    except TypeError:  # values that cannot be compared: sorted as text
        order = sorted(range(len(uniques)), key=lambda i: (str(type(uniques[i])), str(uniques[i])))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], _value_array([uniques[i] for i in order])


# --------------------------------------------------------------------------------------
# Samples: one adapter gives every kind of X a length and row selection by an index array


class TensorSamples:
    """Resident samples: a batch is one ``index_select``.

    Parameters
    ----------
    tensor : tensor of shape (n_samples, ...)
        uint8 stays uint8 until it is in a batch.
    """

    is_resident = True

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    @property
    def sample_shape(self):
        """Shape of one sample."""
        return tuple(self.tensor.shape[1:])

    def take(self, index):
        """The samples of an index array, as samples."""
        return TensorSamples(self.tensor[torch.as_tensor(index)])

    def identity(self):
        """What tells these samples from others, for the fingerprint of a run."""
        return self.tensor


class DatasetSamples(Dataset):
    """Samples that are made one by one: a map-style dataset, paths or texts, through a loader.

    Parameters
    ----------
    dataset : sequence or map-style dataset
        Of a sample that is a tuple, the first item is the input; the label is fit's ``y``.
    index : ndarray of int, default=None
        Rows of the dataset, by default all.
    collate_fn : callable, default=None
        Makes a batch (tensor or dict of tensors) of a list of samples.
    """

    is_resident = False
    sample_shape = None

    def __init__(self, dataset, index=None, collate_fn=None):
        self.dataset = dataset
        self.index = np.arange(_n_rows(dataset)) if index is None else np.asarray(index)
        self.collate_fn = collate_fn

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        return self.dataset[int(self.index[i])]

    def take(self, index):
        """The samples of an index array, as samples; nothing is read yet."""
        return DatasetSamples(self.dataset, self.index[np.asarray(index)], self.collate_fn)

    def identity(self):
        """What tells these samples from others without reading them: their paths or texts."""
        content = getattr(self.dataset, "paths", self.dataset)
        is_text = isinstance(content, list) and all(isinstance(c, str) for c in content)
        return type(self.dataset).__qualname__, self.index, content if is_text else None

    def collate(self, samples):
        """One batch of a list of samples."""
        if self.collate_fn is not None:
            return self.collate_fn(samples)
        samples = [s[0] if isinstance(s, tuple | list) else s for s in samples]
        shapes = {tuple(s.shape) for s in samples if hasattr(s, "shape")}
        if len(shapes) > 1:
            raise ValueError(
                f"samples of one batch differ in shape: {sorted(shapes)[:4]}. Give all one "
                "shape, for images by ImagePaths(paths, transform=Resize(...)), or pass a "
                "collate_fn that does."
            )
        return default_collate(samples)


class ImagePaths(Dataset):
    """Image files as a map-style dataset of uint8 tensors of shape (3, height, width).

    Parameters
    ----------
    paths : sequence of str or Path
    transform : callable, default=None
        Acts on one image, for instance ``torchvision.transforms.v2.Resize((224, 224))``.
    """

    def __init__(self, paths, transform=None):
        self.paths = [str(p) for p in paths]
        self.transform = transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        from PIL import Image
        from torchvision.transforms.functional import pil_to_tensor

        if not Path(self.paths[i]).is_file():
            raise ValueError(
                f"X[{i}] = {self.paths[i]!r} is not a file. A list of str is read as image "
                "files; for texts, pass a collate_fn that turns a list of texts into a batch."
            )
        with Image.open(self.paths[i]) as file:
            image = pil_to_tensor(file.convert("RGB"))
        return image if self.transform is None else self.transform(image)


def as_samples(X, *, collate_fn=None, image_transform=None):
    """Turn any X into samples: a length, and row selection by an index array.

    Parameters
    ----------
    X : array, DataFrame, tensor, list of str, map-style dataset, or samples
    collate_fn : callable, default=None
        Makes a batch of a list of samples; texts need one.
    image_transform : callable, default=None
        Acts on every image that is read from a path.

    Returns
    -------
    samples : TensorSamples or DatasetSamples

    Raises
    ------
    TypeError
        If X has no length or cannot be indexed.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.data import as_samples
    >>> samples = as_samples(np.zeros((4, 3, 8, 8), dtype=np.uint8))
    >>> len(samples), samples.sample_shape, samples.take([0, 2]).tensor.dtype
    (4, (3, 8, 8), torch.uint8)
    """
    kind = input_kind(X)
    if kind == "samples":
        if X.is_resident or collate_fn is None:
            return X
        return DatasetSamples(X.dataset, X.index, collate_fn)
    if kind == "tensor":
        return TensorSamples(X.detach())
    if kind in ("array", "table"):
        array = np.asarray(X)
        if array.dtype not in (np.uint8, np.float16, np.float32):
            array = array.astype(np.float32)
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = array.copy()  # torch would warn that it may write to the user's array
        return TensorSamples(torch.from_numpy(array))
    if kind == "strings":
        X = list(X)
        return DatasetSamples(
            X if collate_fn is not None else ImagePaths(X, image_transform), collate_fn=collate_fn
        )
    return DatasetSamples(X, collate_fn=collate_fn)


def input_kind(X):
    """Kind of X: "array", "dataset", "samples", "strings", "table" (2-D numbers) or "tensor"."""
    if isinstance(X, TensorSamples | DatasetSamples):
        return "samples"
    if torch.is_tensor(X):
        return "tensor"
    if isinstance(X, pd.Series | pd.Index):
        X = X.to_numpy(dtype=object)
    if isinstance(X, np.ndarray):
        if X.ndim == 1 and len(X) and isinstance(X[0], str | Path):
            return "strings"
        return "array" if X.ndim > 2 and X.dtype.kind in "buif" else "table"
    if isinstance(X, list | tuple):
        first = X[0] if len(X) else None
        if isinstance(first, str | Path):
            return "strings"
        sample = first[0] if isinstance(first, tuple) and len(first) else first
        is_sample = torch.is_tensor(sample) or isinstance(sample, Mapping)
        if isinstance(sample, np.ndarray):
            is_sample = isinstance(first, tuple) or sample.ndim > 1
        return "dataset" if is_sample else "table"
    if isinstance(X, Dataset):
        if not hasattr(X, "__len__"):
            raise TypeError(
                f"X is a {type(X).__name__} without a length. Use a map-style dataset, with "
                "__len__ and __getitem__: rows must be selectable."
            )
        return "dataset"
    is_array_like = hasattr(X, "__array__") or hasattr(X, "__dataframe__")
    if is_array_like or scipy.sparse.issparse(X):
        return "table"
    if hasattr(X, "__getitem__") and hasattr(X, "__len__"):
        return "dataset"
    return "table"


def _n_rows(data):
    return int(data.shape[0]) if getattr(data, "shape", None) is not None else len(data)


def _take_rows(data, index):
    """Rows of any kind of X by an array of integers, as the same kind of X."""
    if isinstance(data, TensorSamples | DatasetSamples):
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
