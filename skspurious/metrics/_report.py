"""The report of one evaluation: a table of groups with honest intervals."""

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from skspurious.data import OverlappingGroups, encode_groups
from skspurious.functional._metrics import (
    adjusted_mean,
    group_counts,
    group_means,
    wilson_interval,
)
from skspurious.metrics._checks import (
    check_empty,
    find_members,
    group_index,
    is_correct,
    training_sizes,
)
from skspurious.utils._files import replace_text

__all__ = ["GroupReport", "group_report"]


_HTML_MARK = ' title="worst group" style="background-color: #fde0dd; font-weight: bold"'


class GroupReport(pd.DataFrame):
    """Table of groups, as :func:`group_report` makes it: a DataFrame with a summary.

    One row per group, in group order, with columns ``n``, ``accuracy``, ``low``, ``high`` (the
    Wilson interval) and ``gap`` (accuracy minus the average), and ``n_train`` where the training
    mix is known. Selecting, copying or sorting gives a plain DataFrame without the summary.

    Attributes
    ----------
    confidence : float
        Confidence level of the intervals.
    worst_group : object
        The group with the lowest accuracy, the first of equals, among those with samples.
    worst_group_accuracy : float
        Its accuracy; NaN where an expected group has no samples.
    average_accuracy : float
        Mean over the evaluated samples.
    adjusted_accuracy : float or None
        Mean over groups, weighted by their training sizes; None where these are not known.
    """

    _metadata = ["confidence", "_average"]

    @property
    def _constructor(self):
        return pd.DataFrame

    @property
    def worst_group(self):
        """The group with the lowest accuracy among those with samples, the first of equals."""
        return self.index.tolist()[self._worst_row()]

    @property
    def worst_group_accuracy(self):
        """Lowest accuracy of a group; NaN where an expected group has no samples."""
        return float(self["accuracy"].to_numpy().min())

    @property
    def average_accuracy(self):
        """Mean over the evaluated samples, each of which counts once."""
        return self._average

    @property
    def adjusted_accuracy(self):
        """Mean over groups weighted by their training sizes, or None."""
        if "n_train" not in self.columns:
            return None
        return adjusted_mean(self["accuracy"], self["n_train"])

    def _worst_row(self):
        return int(np.nanargmin(self["accuracy"].to_numpy()))

    def _is_complete(self):
        columns = {"n", "accuracy", "low", "high", "gap"}
        return hasattr(self, "confidence") and columns <= set(self.columns) and len(self) > 0

    def _summary(self):
        worst = self.iloc[self._worst_row()]
        value = f"{worst['accuracy']:.4f} [{worst['low']:.4f}, {worst['high']:.4f}]"
        where = f"group {_text(self.worst_group)}, n = {int(worst['n'])}"
        n_empty = int((self["n"] == 0).sum())
        if n_empty:
            where = f"{n_empty} group(s) have no samples; lowest seen {value}, {where}"
            value = "nan"
        yield "worst-group accuracy", value, where
        yield "average accuracy", f"{self.average_accuracy:.4f}", "mean over the samples"
        if self.adjusted_accuracy is not None:
            text = f"{self.adjusted_accuracy:.4f}"
            yield "adjusted accuracy", text, "groups weighted by their training sizes"

    def _note(self):
        return f"low, high: {100 * self.confidence:g} % Wilson interval; gap: to the average"

    def __repr__(self):
        if not self._is_complete():
            return super().__repr__()
        table = self.copy()
        marks = [""] * len(self)
        marks[self._worst_row()] = "<- worst"
        table.insert(len(table.columns), "", marks, allow_duplicates=True)
        lines = [table.to_string(float_format="{:.4f}".format), ""]
        lines += [f"{name:<22}{value}  ({what})" for name, value, what in self._summary()]
        text = "\n".join([*lines, self._note()])
        return "\n".join(line.rstrip() for line in text.splitlines())

    __str__ = __repr__

    def _repr_html_(self):
        if not self._is_complete():
            return super()._repr_html_()
        return self._marked_html()

    def to_html(self, buf=None, **kwargs):
        """The table and its summary as HTML with the worst group marked.

        Parameters
        ----------
        buf : str, path or file-like, default=None
            Where to write. None returns the text.
        **kwargs : dict
            Keywords of ``DataFrame.to_html``. With any of them the result is that method's plain
            table, without the summary.

        Returns
        -------
        html : str or None
        """
        if kwargs or not self._is_complete():
            return super().to_html(buf, **kwargs)
        html = self._marked_html()
        if buf is None:
            return html
        if hasattr(buf, "write"):
            buf.write(html)
        else:
            replace_text(buf, html)
        return None

    def _marked_html(self):
        worst = self._worst_row()
        names = [name if name is not None else "group" for name in self.index.names]
        head = "".join(f"<th>{escape(str(name))}</th>" for name in [*names, *self.columns])
        rows = []
        for i, (group, row) in enumerate(zip(self.index, self.to_numpy(dtype=object))):
            levels = group if isinstance(self.index, pd.MultiIndex) else (group,)
            cells = [f"<th>{escape(str(level))}</th>" for level in levels]
            cells += [f"<td>{escape(_text(value))}</td>" for value in row]
            mark = _HTML_MARK if i == worst else ""
            rows.append(f"<tr{mark}>{''.join(cells)}</tr>")
        summary = "<br>".join(
            f"{escape(name)}: <b>{escape(value)}</b> ({escape(what)})"
            for name, value, what in self._summary()
        )
        return (
            f'<table border="1" class="dataframe skspurious-group-report"><thead><tr>{head}</tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>{summary}<br><small>{escape(self._note())}</small></p>"
        )


def group_report(
    y_true,
    y_pred,
    *,
    sample_group,
    train_group=None,
    group_sizes=None,
    groups=None,
    empty="raise",
    confidence=0.95,
):
    r"""Accuracy of every group with its interval, and the averages by their names.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), or \
            OverlappingGroups
        Group of each sample: any hashable values; several columns are crossed. A dict of masks,
        or :class:`~skspurious.data.OverlappingGroups`, where a sample may be in several.
    train_group : array-like of shape (n_train,) or (n_train, n_attributes), default=None
        Group of each training sample. Adds the column ``n_train`` and the adjusted accuracy, the
        average under the training mix (see :func:`adjusted_accuracy`).
    group_sizes : mapping or Series from group to number, default=None
        Instead of ``train_group``: the training size of each group, 0 for a group that is not in
        it.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect, in the order of the rows. By default those that occur in
        ``sample_group`` or in training, sorted.
    empty : {"raise", "nan"}, default="raise"
        What to do with an expected group without samples: raise a ValueError, or show a row of NaN,
        so that the worst-group accuracy is NaN too.
    confidence : float, default=0.95
        Confidence level of the Wilson intervals.

    Returns
    -------
    report : GroupReport
        A DataFrame with one row per group, columns ``n``, ``accuracy``, ``low``, ``high``,
        ``gap`` (and ``n_train``), and attributes ``worst_group``, ``worst_group_accuracy``,
        ``average_accuracy`` and ``adjusted_accuracy``. Prints as text, shows as HTML in a
        notebook.

    Raises
    ------
    ValueError
        If there are no samples, lengths differ, a sample has a group that is not among
        ``groups``, or an expected group is empty and ``empty="raise"``.

    Notes
    -----
    Each interval is for its group alone. With many small groups one is low by chance, so the
    lowest accuracy that is observed tends to be below the true accuracy of the worst group.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.metrics import group_report
    >>> y_true = np.repeat([0, 1], [96, 4])
    >>> y_pred = np.repeat([0, 1, 0], [96, 1, 3])
    >>> report = group_report(y_true, y_pred, sample_group=np.repeat(["grass", "sand"], [96, 4]))
    >>> report
            n  accuracy    low   high     gap
    group
    grass  96    1.0000 0.9615 1.0000  0.0300
    sand    4    0.2500 0.0456 0.6994 -0.7200  <- worst
    <BLANKLINE>
    worst-group accuracy  0.2500 [0.0456, 0.6994]  (group sand, n = 4)
    average accuracy      0.9700  (mean over the samples)
    low, high: 95 % Wilson interval; gap: to the average
    >>> report.worst_group, report.worst_group_accuracy, report.average_accuracy
    ('sand', 0.25, 0.97)
    """
    check_empty(empty)
    correct = is_correct(y_true, y_pred)
    if len(correct) == 0:
        raise ValueError("y_true has 0 samples; a group report needs at least one.")
    sizes = training_sizes(train_group, group_sizes)
    if sizes is not None and isinstance(sample_group, OverlappingGroups | Mapping):
        raise ValueError(
            "The training mix weights groups that divide the samples, and sample_group overlaps; "
            "leave train_group and group_sizes out."
        )
    if groups is None and sizes is not None:
        groups = _union(encode_groups(sample_group, n_samples=len(correct))[1], sizes)
    members = find_members(sample_group, len(correct), groups, empty=empty)
    rows, group, values, n = members.rows, members.group, members.values, members.counts
    n_correct = group_counts(group, len(values), sample_weight=correct[rows])
    accuracy = group_means(correct[rows], group, len(values))
    low, high = wilson_interval(n_correct, n, confidence)
    columns = {
        "n": n.astype(np.int64),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "gap": accuracy - correct.mean(),
    }
    if sizes is not None:
        train = np.array([sizes.get(value, 0) for value in values.tolist()])
        whole = np.all(train == np.floor(train))
        columns["n_train"] = train.astype(np.int64) if whole else train
    report = GroupReport(columns, index=group_index(values, sample_group))
    report.confidence = float(confidence)
    report._average = float(correct.mean())
    return report


def _union(values, sizes):
    """Sorted union of the groups that occur and those of training."""
    present = set(values.tolist())
    extra = [group for group, size in sizes.items() if size > 0 and group not in present]
    if not extra:
        return values
    rows = np.empty(len(values) + len(extra), dtype=object)
    rows[:] = [*values.tolist(), *extra]
    return encode_groups(rows)[1]


def _text(value):
    if isinstance(value, float | np.floating):
        return f"{value:.4f}"
    if isinstance(value, tuple):
        return "(" + ", ".join(str(part) for part in value) + ")"
    return str(value)
