"""Arguments with a row, or a value, for each sample: what is none is refused by its name."""

from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.validation import validate_data
from torch.utils.data import DataLoader

from skspurious.utils._frames import as_pandas

__all__ = [
    "as_column",
    "as_labels",
    "as_numbers",
    "check_is_rows",
    "check_same_rows",
    "validate_table",
]


def check_is_rows(values: Any, name: str) -> None:
    """Refuse what has no rows that can be selected, and say what to pass in its place.

    Parameters
    ----------
    values : object
        What the user passed.
    name : str
        Of the argument.

    Raises
    ------
    TypeError
        If it is one text, a DataLoader, an iterator, a dict or set, a number, a class or function.
    ValueError
        If values are masked.

    Examples
    --------
    >>> from skspurious.utils._rows import check_is_rows
    >>> check_is_rows("a text", "X")
    Traceback (most recent call last):
    TypeError: X is one text, 'a text'; pass a list with one entry for each sample.
    """
    remedy = _remedy(values)
    if remedy:
        raise TypeError(f"{name} is {remedy}")
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        n_masked = int(np.ma.getmaskarray(values).sum())
        raise ValueError(f"{name} has {n_masked} masked values. Fill them, or leave the rows out.")
    if isinstance(values, pd.DataFrame) and not values.columns.is_unique:
        twice = values.columns[values.columns.duplicated()].tolist()
        raise ValueError(f"{name} has columns whose names occur twice: {twice[:5]}. Rename them.")


def _remedy(values: Any) -> str:
    """What it is and what to pass in its place; empty where it has rows."""
    kind = type(values).__name__
    if values is None:
        return "None; pass one entry for each sample."
    if isinstance(values, str | bytes | bytearray):
        what = "one text" if isinstance(values, str) else "bytes"
        return f"{what}, {values[:20]!r}; pass a list with one entry for each sample."
    if isinstance(values, DataLoader):
        return (
            "a DataLoader, whose rows cannot be selected; pass its dataset, loader.dataset. "
            "Batches are made by batch_size= and collate_fn=."
        )
    if isinstance(values, Iterator):
        return f"a {kind}, which can be read once; pass list(...) of it."
    if isinstance(values, Mapping) and not scipy.sparse.issparse(values):
        return (
            f"a {kind}, whose rows cannot be selected. Of tokens of texts, pass the list of "
            "texts, and the tokenizer as collate_fn; of columns, a DataFrame; else a list with "
            "one dict for each sample."
        )
    if isinstance(values, Set):
        return f"a {kind}, which has no order; pass a list."
    if torch.is_tensor(values) and values.layout != torch.strided:
        return "a sparse tensor; pass its to_dense()."
    if torch.is_tensor(values) and (values.is_complex() or values.is_meta):
        return f"a tensor of type {values.dtype} on {values.device}; pass real numbers in memory."
    has_rows = hasattr(values, "__len__") or hasattr(values, "__array__")
    has_rows = has_rows or hasattr(values, "__getitem__") or hasattr(values, "shape")
    if isinstance(values, type) or not has_rows:
        return f"{values!r}, of type {kind}; pass one entry for each sample."
    if getattr(values, "ndim", None) == 0:
        return f"a single number, {values}; pass one entry for each sample."
    return ""


def check_same_rows(X: Any, values: Any, name: str) -> None:
    """Refuse a Series or frame whose index says that its rows are others than those of a DataFrame.

    Values are taken by position. Where both indexes hold the same labels in another order, or
    different labels that both mean something, positions are not what was meant. An index 0, 1, 2,
    ... means nothing, unless it is the other one in order.

    Parameters
    ----------
    X : any kind of samples
    values : object
        Groups or weights of the samples.
    name : str
        Of the argument.

    Raises
    ------
    ValueError
        If the rows are others.
    """
    if not (isinstance(X, pd.DataFrame) and isinstance(values, pd.Series | pd.DataFrame)):
        return
    own, other = X.index, values.index
    if len(own) != len(other) or own.equals(other):
        return
    is_reordered = own.is_unique and other.is_unique and own.isin(other).all()
    plain = pd.RangeIndex(len(own))
    if is_reordered or not (own.equals(plain) or other.equals(plain)):
        what = "the labels of X's in another order" if is_reordered else "labels that X's has not"
        raise ValueError(
            f"{name} has an index with {what}. Rows are taken by position: pass "
            f"{name}.loc[X.index] to go by labels, or {name}.to_numpy() if the order is right."
        )


def as_column(values: Any, name: str) -> Any:
    """Values of samples from a list, tensor or column of any library, as an array.

    Python numbers in an array of objects, and pandas' types that know missing values, become
    numbers again.

    Parameters
    ----------
    values : object
        None is returned as it is.
    name : str
        Of the argument.

    Returns
    -------
    values : ndarray, of any number of dimensions, or None

    Raises
    ------
    TypeError
        If there are no rows, or they differ in length.
    ValueError
        If values are missing or masked.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.utils._rows import as_column
    >>> as_column(np.array([1, 2], dtype=object), "y")
    array([1, 2])
    """
    if values is None:
        return None
    values = as_pandas(values)
    check_is_rows(values, name)
    if scipy.sparse.issparse(values):
        raise TypeError(f"{name} is a sparse {type(values).__name__}; pass its toarray().")
    if torch.is_tensor(values):
        values = values.detach().cpu()
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    else:
        try:
            array = np.asarray(values)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must have one value for each sample: {error}.") from error
    if array.dtype.names is not None:
        raise TypeError(f"{name} has fields {array.dtype.names}; pass one of them.")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return _of_plain_type(array, values, name)


def _of_plain_type(array: Any, values: Any, name: str) -> Any:
    """The array with numbers in place of objects, after a look for what is missing."""
    if array.dtype.kind in "US" and isinstance(values, list | tuple):
        objects = np.array(values, dtype=object)
        if not all(isinstance(value, str | bytes) for value in objects.ravel()):
            array = objects  # in which None and numbers did not become texts
    missing = pd.isna(array)
    if np.any(missing):
        row = int(np.argwhere(missing)[0][0])
        raise ValueError(
            f"{name} has {missing.sum()} missing values (NaN, None), the first at row {row}. "
            "Leave these rows out."
        )
    if array.dtype.kind in "mM":
        raise TypeError(f"{name} holds dates; pass them as str, or as numbers.")
    if array.dtype != object or array.ndim != 1:
        return array
    return pd.Series(array).infer_objects().to_numpy()


def as_labels(values: Any, name: str) -> Any:
    """Class labels as an array, which can be sorted; None is returned as it is.

    Parameters
    ----------
    values : array-like of shape (n_samples,)
    name : str
        Of the argument.

    Returns
    -------
    labels : ndarray, or None

    Raises
    ------
    TypeError
        If they cannot be compared with each other, or are dates.
    ValueError
        If some are missing, masked or infinite.

    Examples
    --------
    >>> from skspurious.utils._rows import as_labels
    >>> as_labels(["cow", 1], "y")
    Traceback (most recent call last):
    TypeError: y has labels that cannot be compared: of type int, str. Give all one type.
    """
    labels = as_column(values, name)
    if labels is None:
        return None
    if labels.dtype.kind == "c":
        raise ValueError(f"Complex data not supported as labels, in {name}.")
    assert_all_finite(labels, input_name=name)
    if labels.dtype == object:
        try:
            sorted(set(labels.ravel().tolist()))
        except TypeError as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in labels.ravel().tolist()}))
            raise TypeError(
                f"{name} has labels that cannot be compared: of type {kinds}. Give all one type."
            ) from error
    return labels


def validate_table(estimator: Any, X: Any, y: Any = "no_validation", **how: Any) -> Any:
    """scikit-learn's ``validate_data``, which names X also for what is no number at all."""
    X = plain_objects(X)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            return validate_data(estimator, X, y, **how)
    except OverflowError as error:
        raise ValueError(f"X has a number that no float holds: {error}.") from error


def as_numbers(X: Any, name: str) -> Any:
    """Rows of any number of dimensions as float32."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return check_array(
                plain_objects(X), dtype=np.float32, ensure_2d=False, allow_nd=True, input_name=name
            )
    except OverflowError as error:
        raise ValueError(f"{name} has a number that no float holds: {error}.") from error


def plain_objects(X: Any) -> Any:
    """Rows without dates, and with NaN for all that is missing."""
    dtype = getattr(X, "dtype", None)
    if dtype is not None and getattr(dtype, "kind", "") in "mM":
        raise TypeError("X holds dates; pass numbers.")
    if dtype is not None and dtype == np.dtype(object) and np.ndim(X) == 2 and pd.isna(X).any():
        X = np.where(pd.isna(X), np.nan, X)  # None, NA and NaT alike
    return X
