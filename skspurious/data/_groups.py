"""Groups: any hashable values, one for every sample, and the one place where they are numbered."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.utils import column_or_1d

from skspurious.data._overlapping import OverlappingGroups
from skspurious.utils._frames import as_pandas
from skspurious.utils._rows import as_labels, check_is_rows


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
    label, _ = encode_groups(column_or_1d(as_labels(y, "y")), name="y")
    attribute, values = encode_groups(attribute, n_samples=len(label), name="attribute")
    return label * len(values) + attribute


def encode_groups(sample_group, *, n_samples=None, groups=None, name="sample_group"):
    """Number the groups 0 to n_groups-1.

    Parameters
    ----------
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Any hashable values. Several columns are several attributes, crossed.
    n_samples : int, default=None
        The length that ``sample_group`` must have.
    groups : array-like of shape (n_groups,), default=None
        All possible values, in the order of their numbers. By default those that occur, sorted.
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
    values = as_group_array(sample_group, name=name)
    if n_samples is not None and len(values) != n_samples:
        raise ValueError(
            f"{name} has {len(values)} rows for {n_samples} samples. Give one group per "
            f"sample; where rows are selected, select them in {name} too (GroupedData does)."
        )
    if values.ndim == 1:
        code, uniques = _factorize(values, name)
    else:
        code, uniques = _cross([_factorize(column, name) for column in values.T])
    if groups is None:
        return code.astype(np.int64), uniques
    known = groups if isinstance(groups, np.ndarray) and groups.ndim == 1 else list(groups)
    position = {_key(value): i for i, value in enumerate(known)}
    if len(position) < len(known):
        twice = pd.Series([_key(value) for value in known], dtype=object)
        twice = twice[twice.duplicated()].unique().tolist()
        raise ValueError(f"groups names some groups twice: {twice[:5]}. Name each of them once.")
    unseen = [_key(value) for value in uniques if _key(value) not in position]
    if unseen:
        raise ValueError(
            f"{name} has values that are not among the known groups: {unseen[:5]}. "
            f"Known: {list(position)[:20]}."
        )
    lookup = np.array([position[_key(value)] for value in uniques], dtype=np.int64)
    known = known if isinstance(known, np.ndarray) else _value_array(known)
    return lookup[code] if len(code) else code.astype(np.int64), known


def encode_attribute(sample_attribute, *, n_samples, values=None, missing_values="auto"):
    """Number the known values of an attribute that is known of some samples.

    Parameters
    ----------
    sample_attribute : array-like of shape (n_samples,), or None
        Any hashable values; None and NaN (of pandas too) where the value is not known. None in
        place of the array: it is known of no sample.
    n_samples : int
        The length that ``sample_attribute`` must have.
    values : array-like of shape (n_values,), default=None
        All possible values. By default those that occur, sorted.
    missing_values : "auto", None, or a value, default="auto"
        A further mark of what is not known, such as -1. "auto" refuses -1, which means "not known"
        to some and is a value to others; None takes it as a value.

    Returns
    -------
    code : ndarray of shape (n_samples,), dtype int64
        Index of each sample's value in ``values``; -1 where it is not known.
    values : ndarray of shape (n_values,)

    Raises
    ------
    ValueError
        If the length differs, there are several columns, -1 occurs and it is not said what it
        means, or a known value is not among ``values``.

    Examples
    --------
    >>> from skspurious.data._groups import encode_attribute
    >>> code, values = encode_attribute(["sand", None, "grass"], n_samples=3)
    >>> code.tolist(), values.tolist()
    ([1, -1, 0], ['grass', 'sand'])
    """
    name = "sample_attribute"
    if sample_attribute is None:
        sample_attribute = np.full(n_samples, None, dtype=object)
    array = as_group_array(sample_attribute, name=name)
    if array.ndim == 2:
        raise ValueError(
            f"{name} has {array.shape[1]} columns. Give one attribute, or several as one column of "
            "tuples, in which a row that lacks one of them is None."
        )
    if len(array) != n_samples:
        raise ValueError(
            f"{name} has {len(array)} rows for {n_samples} samples. Give one entry per sample, "
            "None where it is not known."
        )
    known = np.flatnonzero(~pd.isna(array))
    mark = -1 if isinstance(missing_values, str) and missing_values == "auto" else missing_values
    is_mark = np.array([_key(value) == mark for value in array[known]], dtype=bool)
    if missing_values == "auto" and is_mark.any():
        raise ValueError(
            f"{name} has {is_mark.sum()} entries -1. Where -1 stands for 'not known', say so by "
            "missing_values=-1; where it is a value of the attribute, by missing_values=None."
        )
    known = known[~is_mark]
    code = np.full(n_samples, -1, dtype=np.int64)
    code[known], values = encode_groups(
        _value_array(array[known].tolist()), groups=values, name=name
    )
    return code, values


def as_group_array(sample_group, name="sample_group"):
    """One value for each sample, or a column for each attribute, as an array."""
    sample_group = as_pandas(sample_group)
    if isinstance(sample_group, OverlappingGroups | Mapping):
        raise ValueError(
            f"{name} is of type {type(sample_group).__name__}; here every sample needs one group. "
            "Metrics alone take groups that overlap. Give an array with the group of each sample, "
            "for instance the attribute that matters most, or several attributes as columns, "
            "which are crossed."
        )
    check_is_rows(sample_group, name)
    if scipy.sparse.issparse(sample_group):
        raise TypeError(f"{name} is sparse; pass its toarray().")
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
        try:
            is_table = bool(rows) and isinstance(rows[0], list)
            array = np.array(rows, dtype=object) if is_table else _value_array(rows)
        except (TypeError, ValueError) as error:  # rows of several lengths
            raise TypeError(f"{name} must have one value for each sample: {error}.") from error
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise ValueError(
            f"{name} must have shape (n_samples,) or (n_samples, n_attributes); got {array.shape}."
        )
    return array


def _cross(columns):
    """Codes and values of the combinations that occur, of codes and values of each column."""
    code = np.zeros(len(columns[0][0]), dtype=np.int64)
    for column, uniques in columns:  # numbered anew each time: a product of many sizes overflows
        code = np.unique(code * max(1, len(uniques)) + column, return_inverse=True)[1]
    _, first = np.unique(code, return_index=True)
    values = zip(*(uniques[column[first]].tolist() for column, uniques in columns), strict=True)
    return code, _object_array(values)


def _has_tuples_or_mixed(rows):
    return any(isinstance(r, tuple) for r in rows) or len({type(r) for r in rows}) > 1


def _object_array(values):
    values = list(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _value_array(values):
    if _has_tuples_or_mixed(values) or any(isinstance(value, list) for value in values):
        return _object_array(values)
    return np.asarray(values)


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
    try:
        codes, uniques = pd.factorize(values)
    except TypeError as error:
        raise TypeError(f"{name} must have values that are hashable: {error}.") from error
    try:
        order = sorted(range(len(uniques)), key=uniques.__getitem__)
    except TypeError:  # values that cannot be compared: sorted as text
        order = sorted(range(len(uniques)), key=lambda i: (str(type(uniques[i])), str(uniques[i])))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[codes], _value_array([uniques[i] for i in order])
