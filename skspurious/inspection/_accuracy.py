"""Bars of the accuracy of every group."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skspurious.data import unpack_groups
from skspurious.data._grouped import without_groups
from skspurious.inspection._base import (
    AS_IT_IS,
    COLOR,
    LINE_COLOR,
    WORST_COLOR,
    make_axes,
    row_label,
)
from skspurious.metrics import group_report

__all__ = ["GroupAccuracyDisplay"]


class GroupAccuracyDisplay:
    """Accuracy of every group, as bars with Wilson intervals; the worst group is marked.

    Make one with :meth:`from_predictions` or :meth:`from_estimator`.

    .. versionadded:: 0.1

    Parameters
    ----------
    report : GroupReport
        The report that :func:`skspurious.group_report` returns.

    estimator_name : str, default=None
        Title of the plot.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure that holds them.

    bars_ : matplotlib BarContainer
        The bars, in group order from the top.

    See Also
    --------
    skspurious.group_report : The same numbers as a table.

    Examples
    --------
    >>> from skspurious.inspection import GroupAccuracyDisplay
    >>> display = GroupAccuracyDisplay.from_predictions(
    ...     [0, 0, 1, 1], [0, 0, 1, 0], sample_group=["grass", "grass", "sand", "sand"]
    ... )
    >>> display.report.worst_group
    'sand'
    """

    def __init__(self, report, *, estimator_name=None):
        self.report = report
        self.estimator_name = estimator_name

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        *,
        sample_group,
        groups=None,
        confidence=0.95,
        estimator_name=None,
        ax=None,
        **bar_kwargs,
    ):
        """Draw from predicted classes.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True classes.

        y_pred : array-like of shape (n_samples,)
            Predicted classes.

        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
            Group of each sample: any hashable values; several columns are crossed.

        groups : array-like of shape (n_groups,), default=None
            The groups to expect, in the order of the bars. By default those that occur, sorted.
            One without samples has no bar, and its label says so.

        confidence : float, default=0.95
            Confidence level of the intervals.

        estimator_name : str, default=None
            Title of the plot.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **bar_kwargs : dict
            Keywords of ``Axes.barh``.

        Returns
        -------
        display : GroupAccuracyDisplay

        Raises
        ------
        ValueError
            If lengths differ, or a sample has a group that is not among ``groups``.
        ImportError
            If matplotlib is not installed.
        """
        report = group_report(
            y_true,
            y_pred,
            sample_group=sample_group,
            groups=groups,
            empty="nan",
            confidence=confidence,
        )
        return cls(report, estimator_name=estimator_name).plot(ax=ax, **bar_kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        sample_group=None,
        groups=None,
        confidence=0.95,
        estimator_name=None,
        ax=None,
        **bar_kwargs,
    ):
        """Draw from a fitted classifier; groups are given, carried by ``X``, or inferred.

        Parameters
        ----------
        estimator : fitted classifier
            Any classifier with ``predict``.

        X : samples, n_samples of them
            What the classifier accepts. A ``GroupedData`` carries its groups.

        y : array-like of shape (n_samples,)
            True classes.

        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each sample. None takes the groups that ``X`` carries, else those that the
            classifier infers (``infer_groups``).

        groups : array-like of shape (n_groups,), default=None
            The groups to expect, in the order of the bars. By default those that occur, sorted.
            One without samples has no bar, and its label says so.

        confidence : float, default=0.95
            Confidence level of the intervals.

        estimator_name : str, default=None
            Title of the plot. None means the class name.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **bar_kwargs : dict
            Keywords of ``Axes.barh``.

        Returns
        -------
        display : GroupAccuracyDisplay

        Raises
        ------
        ValueError
            If there are no groups, lengths differ, or a sample has a group that is not among
            ``groups``.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(estimator)
        samples, sample_group, _ = unpack_groups(X, sample_group)
        if sample_group is None:
            if getattr(estimator, "group_inferrer_", None) is None:
                raise ValueError(
                    "GroupAccuracyDisplay needs groups. Pass sample_group=, or X as "
                    f"GroupedData(X, sample_group), or an estimator that was fitted with a "
                    f"group_inferrer; this {type(estimator).__name__} has none."
                )
            sample_group = estimator.infer_groups(without_groups(X), y)
        return cls.from_predictions(
            y,
            estimator.predict(samples),
            sample_group=sample_group,
            groups=groups,
            confidence=confidence,
            estimator_name=estimator_name or type(estimator).__name__,
            ax=ax,
            **bar_kwargs,
        )

    def plot(self, ax=None, **bar_kwargs):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **bar_kwargs : dict
            Keywords of ``Axes.barh``.

        Returns
        -------
        display : GroupAccuracyDisplay
            This object, with ``ax_``, ``figure_`` and ``bars_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        report = self.report
        accuracy, low, high = report[["accuracy", "low", "high"]].to_numpy().T
        worst, mean = np.nanargmin(accuracy), report.average_accuracy
        ax = make_axes(type(self).__name__, ax, figsize=(6.0, 1.4 + 0.26 * len(report)))

        position = np.arange(len(report))
        color = [WORST_COLOR if row == worst else COLOR for row in position]
        self.bars_ = ax.barh(position, accuracy, **({"color": color, "height": 0.75} | bar_kwargs))
        ax.errorbar(
            accuracy,
            position,
            # Rounding can put an end of the interval a hair inside the accuracy.
            xerr=np.maximum([accuracy - low, high - accuracy], 0),
            fmt="none",
            ecolor=LINE_COLOR,
            elinewidth=1,
            capsize=2,
        )
        ax.axvline(mean, color=LINE_COLOR, linestyle="--", linewidth=1)
        labels = [row_label(g, n) for g, n in zip(report.index, report["n"])]
        ax.set_yticks(position, labels, **AS_IT_IS)
        ax.get_yticklabels()[worst].set(color=WORST_COLOR, fontweight="bold")  # a bar may be 0
        ax.set_ylim(len(report) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel(f"accuracy, {100 * report.confidence:g} % Wilson interval")
        names = [str(name) for name in report.index.names if name is not None]
        ax.set_ylabel(", ".join(names), **AS_IT_IS)
        title = f"worst group {accuracy[worst]:.3f}, mean (dashed) {mean:.3f}"
        name = f"{self.estimator_name}\n" if self.estimator_name else ""
        ax.set_title(name + title, fontsize="medium", **AS_IT_IS)
        self.ax_, self.figure_ = ax, ax.figure
        return self
