"""Lines of the accuracy over the epochs."""

from sklearn.utils.validation import check_is_fitted

from skspurious.inspection._base import AS_IT_IS, COLOR, LINE_COLOR, WORST_COLOR, make_axes

__all__ = ["HistoryDisplay"]


class HistoryDisplay:
    """Accuracy over the epochs of training: the worst group and the mean.

    Make one with :meth:`from_estimator`.

    .. versionadded:: 0.1

    Parameters
    ----------
    history : DataFrame
        The ``history_`` of a fitted classifier: one row per epoch.

    best_epoch : int, default=None
        Epoch to mark, counted from 1.

    estimator_name : str, default=None
        Title of the plot.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the lines.

    figure_ : matplotlib Figure
        Figure that holds them.

    lines_ : dict of str to matplotlib Line2D
        The lines, by their columns in ``history``.
    """

    def __init__(self, history, *, best_epoch=None, estimator_name=None):
        self.history = history
        self.best_epoch = best_epoch
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(cls, estimator, *, estimator_name=None, ax=None, **line_kwargs):
        """Draw the training of a fitted classifier of this package.

        Parameters
        ----------
        estimator : fitted classifier
            A classifier with a ``history_``; for a search pass its ``best_estimator_``.

        estimator_name : str, default=None
            Title of the plot. None means the class name.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **line_kwargs : dict
            Keywords of ``Axes.plot``.

        Returns
        -------
        display : HistoryDisplay

        Raises
        ------
        TypeError
            If the estimator keeps no history.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(estimator)
        if getattr(estimator, "history_", None) is None:
            raise TypeError(
                f"{type(estimator).__name__} has no history_. Pass a fitted classifier of "
                "skspurious: of a search its best_estimator_, of a Pipeline its last step."
            )
        display = cls(
            estimator.history_,
            best_epoch=getattr(estimator, "best_epoch_", None),
            estimator_name=estimator_name or type(estimator).__name__,
        )
        return display.plot(ax=ax, **line_kwargs)

    def plot(self, ax=None, **line_kwargs):
        """Draw the lines: validation thick, training thin, the worst groups in red.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **line_kwargs : dict
            Keywords of ``Axes.plot``.

        Returns
        -------
        display : HistoryDisplay
            This object, with ``ax_``, ``figure_`` and ``lines_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = make_axes(type(self).__name__, ax, figsize=(6.0, 3.6))
        self.lines_ = {}
        for rows, width, style in (("valid", 2.0, "-"), ("train", 1.0, "--")):
            for what, color in (("worst_group_accuracy", WORST_COLOR), ("accuracy", LINE_COLOR)):
                column = f"{rows}_{what}"
                if column not in self.history.columns:
                    continue
                label = f"{rows}, {'mean' if what == 'accuracy' else 'worst group'}"
                style_kwargs = {
                    "color": color,
                    "linewidth": width,
                    "linestyle": style,
                    "marker": "." if len(self.history) < 30 else None,
                    "label": label,
                }
                (self.lines_[column],) = ax.plot(
                    self.history["epoch"], self.history[column], **(style_kwargs | line_kwargs)
                )
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch, color=COLOR, linewidth=1, label="best epoch")
        ax.set_ylim(-0.02, 1.02)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("epoch")
        ax.set_ylabel("accuracy")
        ax.legend(fontsize="small")
        if self.estimator_name:
            ax.set_title(self.estimator_name, fontsize="medium", **AS_IT_IS)
        self.ax_, self.figure_ = ax, ax.figure
        return self
