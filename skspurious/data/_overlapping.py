"""OverlappingGroups: a sample may be in several groups, or in none."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from skspurious.utils._frames import as_pandas
from skspurious.utils._rows import check_is_rows


class OverlappingGroups:
    """Groups of which a sample may be in several, or in none.

    The metrics take them as ``sample_group``: every group is evaluated on its own samples.
    What balances groups (sampling, weights, GroupDRO, stratified folds) needs one group for each
    sample, and refuses them.

    Parameters
    ----------
    masks : dict, DataFrame, or array-like of shape (n_samples, n_groups)
        Which samples are in which group: a dict from group to mask, or a table with a column per
        group. True and False, or 1 and 0.
    groups : array-like of shape (n_groups,), default=None
        The groups, where `masks` is an array. By default the keys, the columns, or 0, 1, ....

    Attributes
    ----------
    masks : ndarray of shape (n_samples, n_groups), dtype bool
    groups : list
        Of any hashable values.

    Raises
    ------
    ValueError
        If a mask holds anything but true and false, masks have different lengths, or there are
        two groups of one name.

    See Also
    --------
    skspurious.metrics.group_report : The report on all of them.

    Notes
    -----
    A table of attributes that is given as ``sample_group`` without this class is crossed, into
    one group for each combination.

    CivilComments is evaluated on the comments that mention an identity, crossed with the label
    [1]_: sixteen groups, ``OverlappingGroups(identities).cross(y)``.

    References
    ----------
    .. [1] P. W. Koh, S. Sagawa et al., "WILDS: A Benchmark of in-the-Wild Distribution Shifts",
       ICML 2021, arXiv:2012.07421.

    Examples
    --------
    >>> from skspurious.data import OverlappingGroups
    >>> from skspurious.metrics import group_accuracy
    >>> groups = OverlappingGroups({"female": [1, 1, 0, 0], "muslim": [0, 1, 1, 0]})
    >>> group_accuracy([0, 0, 1, 1], [0, 1, 1, 1], sample_group=groups)
    group
    female    0.5
    muslim    0.5
    Name: accuracy, dtype: float64
    """

    def __init__(self, masks, groups=None):
        masks = as_pandas(masks)
        if not isinstance(masks, Mapping):
            check_is_rows(masks, "masks")
        if isinstance(masks, Mapping):
            groups = list(masks) if groups is None else list(groups)
            columns = [_as_mask(mask, name) for name, mask in masks.items()]
            lengths = {len(column) for column in columns}
            if len(lengths) > 1:
                raise ValueError(f"masks have different lengths: {sorted(lengths)}.")
            self.masks = np.stack(columns, axis=1) if columns else np.zeros((0, 0), dtype=bool)
        else:
            if groups is None and hasattr(masks, "columns"):
                groups = list(masks.columns)
            table = masks.to_numpy(dtype=object) if isinstance(masks, pd.DataFrame) else masks
            table = np.asarray(table)
            if table.ndim != 2:
                raise ValueError(
                    "masks must be a dict from group to mask or have shape (n_samples, n_groups); "
                    f"got {table.shape}."
                )
            groups = list(range(table.shape[1]) if groups is None else groups)
            names = groups if len(groups) == table.shape[1] else range(table.shape[1])
            columns = [_as_mask(column, name) for column, name in zip(table.T, names, strict=True)]
            self.masks = np.stack(columns, axis=1) if columns else table.astype(bool)
        self.groups = groups
        if len(groups) != self.masks.shape[1]:
            raise ValueError(f"{len(groups)} groups for {self.masks.shape[1]} masks.")
        if not groups:
            raise ValueError("masks has no groups; give a mask for each.")
        if len(set(groups)) < len(groups):
            twice = sorted({str(group) for group in groups if groups.count(group) > 1})
            raise ValueError(f"Groups occur twice: {twice[:5]}. Give every group one mask.")

    def __len__(self):
        return len(self.masks)

    def __getitem__(self, rows):
        """The same groups of some of the samples."""
        return OverlappingGroups(np.atleast_2d(self.masks[rows]), self.groups)

    def __repr__(self):
        return f"OverlappingGroups({len(self.groups)} groups of {len(self)} samples)"

    def cross(self, y):
        """Every group divided by class.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Class labels.

        Returns
        -------
        groups : OverlappingGroups
            Of pairs (group, class), in this order; those without samples are left out.

        Raises
        ------
        ValueError
            If the length of `y` differs.
        """
        y = np.asarray(y)
        if len(y) != len(self):
            raise ValueError(f"y has {len(y)} rows for {len(self)} samples.")
        crossed = {
            (group, label): self.masks[:, g] & (y == label)
            for g, group in enumerate(self.groups)
            for label in np.unique(y).tolist()
        }
        return OverlappingGroups({key: mask for key, mask in crossed.items() if mask.any()})


def _as_mask(mask, name):
    """A column of true and false."""
    mask = as_pandas(mask)
    column = mask.to_numpy(dtype=object) if hasattr(mask, "to_numpy") else np.asarray(mask)
    if np.ma.isMaskedArray(mask) and np.ma.getmaskarray(mask).any():
        raise ValueError(f"The mask of group {name!r} has masked values; fill them.")
    column = np.asarray(column)
    if column.ndim != 1:
        raise ValueError(f"The mask of group {name!r} has shape {column.shape}, not (n_samples,).")
    if column.dtype == bool:
        return column
    missing = pd.isna(column)
    is_flag = np.array([bool(known) and value in (0, 1) for known, value in zip(~missing, column)])
    if not is_flag.all():
        row = int(np.flatnonzero(~is_flag)[0])
        value = column.tolist()[row]
        raise ValueError(
            f"The mask of group {name!r} has {value!r} at row {row}; give True and False, "
            "or 1 and 0. Scores need a threshold first, for instance scores >= 0.5."
        )
    return column.astype(bool)
