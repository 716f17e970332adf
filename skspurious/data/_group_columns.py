"""Groups that are columns of the table X: they are no features, and predicting needs none."""

import pandas as pd

from skspurious.utils._parameters import nearest_names


def named_columns(X, sample_group, name="sample_group"):
    """The columns of a DataFrame that `sample_group` names.

    Parameters
    ----------
    X : any kind of samples
    sample_group : str, list of str, or groups
    name : str, default="sample_group"
        Of the argument, for errors.

    Returns
    -------
    columns : tuple of str
        Empty where `sample_group` is groups and no names.

    Raises
    ------
    ValueError
        If a name is given, and X is no DataFrame or has no such column.

    Examples
    --------
    >>> import pandas as pd
    >>> from skspurious.data._group_columns import named_columns
    >>> X = pd.DataFrame({"weight": [600.0, 400.0], "place": ["field", "sand"]})
    >>> named_columns(X, "place"), named_columns(X, ["field", "sand"])
    (('place',), ())
    """
    known = list(X.columns) if isinstance(X, pd.DataFrame) else []
    if isinstance(sample_group, str):
        if sample_group in known:
            return (sample_group,)
        what = f"X is of type {type(X).__name__}, whose columns have no names"
        if known:
            near = nearest_names(sample_group, map(str, known))
            what = f"X has no column {sample_group!r}{near}"
        raise ValueError(
            f"{name}={sample_group!r} is taken for the name of a column, and {what} Give the group "
            "of every sample, or the name of a column of the DataFrame X."
        )
    if not known or not isinstance(sample_group, list | tuple) or len(sample_group) == len(X):
        return ()
    is_named = len(sample_group) > 0 and all(part in known for part in sample_group)
    return tuple(sample_group) if is_named else ()


def without_columns(X, columns):
    """The samples without these columns, where they are a DataFrame that has them."""
    if not columns or not isinstance(X, pd.DataFrame):
        return X
    return X.drop(columns=[column for column in columns if column in X.columns])
