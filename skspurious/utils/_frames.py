"""Frames and columns of polars and Arrow are taken wherever those of pandas are."""

from typing import Any

import pandas as pd


def as_pandas(values: Any) -> Any:
    """Frames and columns of polars and Arrow as those of pandas; everything else as it is.

    Neither library is imported.

    Parameters
    ----------
    values : object

    Returns
    -------
    values : DataFrame, Series or object
    """
    library = type(values).__module__.partition(".")[0]
    if library == "pyarrow" and hasattr(values, "to_pandas"):
        return values.to_pandas()
    if library == "polars":
        if hasattr(values, "collect"):  # a lazy frame
            values = values.collect()
        if hasattr(values, "columns"):
            return pd.DataFrame({name: _column(values[name]) for name in values.columns})
        return pd.Series(_column(values), name=values.name)
    return values


def _column(series: Any) -> Any:
    """Numbers as an array; what has missing values or is no number as a list."""
    is_plain = series.dtype.is_numeric() and series.null_count() == 0
    return series.to_numpy() if is_plain else series.to_list()
