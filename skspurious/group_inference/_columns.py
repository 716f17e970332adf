"""Columns of a table as a view: which ones are meant, and what numbers they are."""

from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import OrdinalEncoder

_MOST_CATEGORIES = 250  # of a column; boosted trees take up to 255, and the rest are one


def column_positions(columns, X, name):
    """Positions of the columns that a view names.

    Parameters
    ----------
    columns : str, int, slice, or list of names, positions or bools
        Whole numbers are names where the table has all of them as names.
    X : ndarray or DataFrame of shape (n_samples, n_features)
    name : str
        Name of the view, for messages.

    Returns
    -------
    positions : list of int
    """
    if not hasattr(X, "shape") or len(X.shape) != 2:
        raise TypeError(
            f"views has {name!r}: {columns!r}, but X is no table of which these could be columns. "
            "Give a transformer or a classifier."
        )
    known = list(X.columns) if isinstance(X, pd.DataFrame) else []
    n_columns = X.shape[1]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            wanted = [known.index(k) for k in _known_names(columns, known, name)]
            columns = slice(wanted[0], wanted[-1] + 1)
        return list(range(n_columns))[columns]
    wanted = [columns] if isinstance(columns, str | Integral) else list(columns)
    if wanted and all(isinstance(k, bool | np.bool_) for k in wanted):
        if len(wanted) != n_columns:
            raise ValueError(
                f"views has a mask of {len(wanted)} columns for {name!r}, but X has {n_columns}: "
                "give True or False for each."
            )
        return np.flatnonzero(wanted).tolist()
    if all(k in known for k in wanted):
        return [known.index(k) for k in wanted]
    is_position = [isinstance(k, Integral) and -n_columns <= k < n_columns for k in wanted]
    if not all(is_position):
        has = f"the columns {known[:20]}" if known else f"{n_columns} columns without names"
        raise ValueError(f"views has {name!r}: {columns!r}, but X has {has}. Name some of these.")
    return [int(k) % n_columns for k in wanted]


def _known_names(columns, known, name):
    ends = [columns.start or known[0], columns.stop or known[-1]]
    if columns.step is not None or not all(end in known for end in ends):
        raise ValueError(
            f"views has {name!r}: {columns!r}, but X has the columns {known[:20]}. Name the first "
            "and the last one."
        )
    return ends


class TableColumns(TransformerMixin, BaseEstimator):
    """Some columns of a table as numbers: dates as days, categories as codes, NaN where missing.

    Parameters
    ----------
    columns : list of int
        Positions of the columns.

    Attributes
    ----------
    kinds_ : list of str
        "number", "date" or "category", for each of the columns.
    encoder_ : OrdinalEncoder
        Of the categories.
    is_empty_ : bool ndarray of shape (n_columns,)
        Where all training samples lack a value: the column is 0.
    fill_ : ndarray of shape (n_columns,)
        The mean of numbers that no training sample lacks, for new ones that do; else NaN.
    """

    def __init__(self, columns):
        self.columns = columns

    def fit(self, X, y=None):
        if isinstance(X, np.ndarray):
            self.kinds_ = ["number"] * len(self.columns)
            return self
        table = X.iloc[:, self.columns]
        self.kinds_ = [_kind(dtype) for dtype in table.dtypes]
        self.encoder_ = OrdinalEncoder(
            handle_unknown="use_encoded_value",
            unknown_value=np.nan,
            max_categories=_MOST_CATEGORIES,
        )
        categories = self._of_kind(table, "category")
        if categories.shape[1]:
            self.encoder_.fit(_names(categories))
        self.is_empty_ = table.isna().all().to_numpy()  # which boosted trees do not take
        self.fill_ = np.full(len(self.kinds_), np.nan)
        Z = self.transform(X)
        is_whole = ~np.isnan(Z).any(axis=0) & (np.array(self.kinds_) != "category")
        self.fill_[is_whole] = Z[:, is_whole].mean(axis=0)
        return self

    def transform(self, X):
        if isinstance(X, np.ndarray):
            return X[:, self.columns]
        table = X.iloc[:, self.columns]
        Z = np.empty(table.shape)
        for at, kind in enumerate(self.kinds_):
            column = table.iloc[:, at]
            if kind == "number":
                Z[:, at] = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
            elif kind == "date":
                days = (pd.to_datetime(column, utc=True) - _EPOCH) / pd.Timedelta(days=1)
                Z[:, at] = days.to_numpy(dtype=np.float64, na_value=np.nan)
        categories = self._of_kind(table, "category")
        if categories.shape[1]:
            is_category = np.array(self.kinds_) == "category"
            Z[:, is_category] = self.encoder_.transform(_names(categories))
        Z[:, self.is_empty_] = 0.0
        return np.where(np.isnan(Z), self.fill_, Z)

    def _of_kind(self, table, kind):
        return table.iloc[:, [at for at, own in enumerate(self.kinds_) if own == kind]]


_EPOCH = pd.Timestamp("1970-01-01", tz="UTC")


def _kind(dtype):
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return "date"
    return "number" if pd.api.types.is_numeric_dtype(dtype) else "category"


def _names(categories):
    """Categories as an array of str, with NaN where there is none."""
    return categories.astype(str).where(categories.notna(), np.nan).to_numpy(dtype=object)
