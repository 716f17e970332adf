"""Displays, in scikit-learn's idiom: computed once by ``from_...``, drawn by ``plot``."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skspurious.data import encode_groups, unpack_groups
from skspurious.metrics import group_report

__all__ = ["GroupAccuracyDisplay", "GroupGalleryDisplay", "HistoryDisplay"]

# Told apart with colour-blind eyes and in grey.
_COLOR, _WORST_COLOR, _LINE_COLOR = "#8fb3d1", "#c1272d", "#333333"


class GroupAccuracyDisplay:
    """Accuracy of every group, as bars with Wilson intervals; the worst group is marked.

    Make one with :meth:`from_predictions` or :meth:`from_estimator`.

    .. versionadded:: 0.1

    Parameters
    ----------
    report : GroupReport
        What :func:`skspurious.group_report` returns.

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
        """
        report = group_report(
            y_true, y_pred, sample_group=sample_group, groups=groups, confidence=confidence
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
            If there are no groups.
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
            sample_group = estimator.infer_groups(samples, y)
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
        """
        report = self.report
        accuracy, low, high = report[["accuracy", "low", "high"]].to_numpy().T
        worst, mean = np.nanargmin(accuracy), report.average_accuracy
        ax = _axes(type(self).__name__, ax, figsize=(6.0, 1.4 + 0.26 * len(report)))

        position = np.arange(len(report))
        color = [_WORST_COLOR if row == worst else _COLOR for row in position]
        self.bars_ = ax.barh(position, accuracy, **({"color": color, "height": 0.75} | bar_kwargs))
        ax.errorbar(
            accuracy,
            position,
            # Rounding can put an end of the interval a hair inside the accuracy.
            xerr=np.maximum([accuracy - low, high - accuracy], 0),
            fmt="none",
            ecolor=_LINE_COLOR,
            elinewidth=1,
            capsize=2,
        )
        ax.axvline(mean, color=_LINE_COLOR, linestyle="--", linewidth=1)
        ax.set_yticks(position, [_row_label(g, n) for g, n in zip(report.index, report["n"])])
        ax.get_yticklabels()[worst].set(color=_WORST_COLOR, fontweight="bold")  # a bar may be 0
        ax.set_ylim(len(report) - 0.5, -0.5)
        ax.set_xlim(0, 1)
        ax.set_xlabel(f"accuracy, {100 * report.confidence:g} % Wilson interval")
        ax.set_ylabel(", ".join(str(name) for name in report.index.names if name is not None))
        title = f"worst group {accuracy[worst]:.3f}, mean (dashed) {mean:.3f}"
        name = f"{self.estimator_name}\n" if self.estimator_name else ""
        ax.set_title(name + title, fontsize="medium")
        self.ax_, self.figure_ = ax, ax.figure
        return self


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
            One with a ``history_``; of a search, its ``best_estimator_``.

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
        """
        ax = _axes(type(self).__name__, ax, figsize=(6.0, 3.6))
        self.lines_ = {}
        for rows, width, style in (("valid", 2.0, "-"), ("train", 1.0, "--")):
            for what, color in (("worst_group_accuracy", _WORST_COLOR), ("accuracy", _LINE_COLOR)):
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
            ax.axvline(self.best_epoch, color=_COLOR, linewidth=1, label="best epoch")
        ax.set_ylim(-0.02, 1.02)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("epoch")
        ax.set_ylabel("accuracy")
        ax.legend(fontsize="small")
        if self.estimator_name:
            ax.set_title(self.estimator_name, fontsize="medium")
        self.ax_, self.figure_ = ax, ax.figure
        return self


class GroupGalleryDisplay:
    """Some images of every group, one row per group.

    Make one with :meth:`from_data`.

    .. versionadded:: 0.1

    Parameters
    ----------
    mosaic : ndarray of shape (height, width, 3), dtype uint8
        The images side by side, one row per group.

    groups : list
        The group of each row.

    sizes : list of int
        Number of samples of each of these groups.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the images.

    figure_ : matplotlib Figure
        Figure that holds them.

    im_ : matplotlib AxesImage
        The images.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.inspection import GroupGalleryDisplay
    >>> X = np.zeros((4, 3, 8, 8), dtype=np.uint8)
    >>> display = GroupGalleryDisplay.from_data(X, sample_group=["a", "b", "a", "a"])
    >>> display.groups, display.sizes
    (['a', 'b'], [3, 1])
    """

    def __init__(self, mosaic, *, groups, sizes):
        self.mosaic = mosaic
        self.groups = groups
        self.sizes = sizes

    @classmethod
    def from_data(cls, X, *, sample_group=None, groups=None, n_images=8, ax=None, **im_kwargs):
        """Draw images of each group, evenly spaced over its rows.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, n_channels, height, width), or GroupedData
            Images with one or three channels: uint8, or numbers from 0 to 1.

        sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes), default=None
            Group of each image: any hashable values. None takes those that ``X`` carries.

        groups : array-like of shape (n_groups,), default=None
            The groups to show, in this order. By default all, sorted.

        n_images : int, default=8
            Images per group. A smaller group shows all it has.

        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **im_kwargs : dict
            Keywords of ``Axes.imshow``.

        Returns
        -------
        display : GroupGalleryDisplay

        Raises
        ------
        ValueError
            If there are no groups, or ``X`` does not hold images.
        """
        X, sample_group, _ = unpack_groups(X, sample_group)
        if sample_group is None:
            raise ValueError(
                "GroupGalleryDisplay needs groups. Pass sample_group=, or X as "
                "GroupedData(X, sample_group)."
            )
        code, values = encode_groups(sample_group, n_samples=len(X))
        shown = np.arange(len(values))
        if groups is not None:
            shown, _ = encode_groups(groups, groups=values, name="groups")
        rows = [np.flatnonzero(code == g) for g in shown]
        picked = [r[np.linspace(0, len(r) - 1, min(n_images, len(r))).astype(int)] for r in rows]
        mosaic = _mosaic([_pixels(X[index]) for index in picked], n_images)
        display = cls(
            mosaic, groups=[values.tolist()[g] for g in shown], sizes=[len(r) for r in rows]
        )
        return display.plot(ax=ax, **im_kwargs)

    def plot(self, ax=None, **im_kwargs):
        """Draw the images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a figure.

        **im_kwargs : dict
            Keywords of ``Axes.imshow``.

        Returns
        -------
        display : GroupGalleryDisplay
            This object, with ``ax_``, ``figure_`` and ``im_``.
        """
        height, width = self.mosaic.shape[:2]
        row = height / len(self.groups)
        labels = [_row_label(group, n) for group, n in zip(self.groups, self.sizes)]
        inches = 0.4 / row  # per pixel, so that a row is 0.4 inches high
        figsize = (0.4 + 0.08 * max(map(len, labels)) + inches * width, 0.3 + inches * height)
        ax = _axes(type(self).__name__, ax, figsize=figsize, layout="compressed")
        self.im_ = ax.imshow(self.mosaic, **({"interpolation": "nearest"} | im_kwargs))
        ax.set_yticks((np.arange(len(self.groups)) + 0.5) * row - 0.5, labels)
        ax.set_xticks([])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _axes(name, ax, figsize, layout="constrained"):
    """The axes to draw on, on a figure of their own unless given."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{name} draws with matplotlib, which cannot be imported. "
            "Install it with: pip install skspurious[plot]"
        ) from error
    return plt.subplots(figsize=figsize, layout=layout)[1] if ax is None else ax


def _row_label(group, n):
    name = ", ".join(str(part) for part in group) if isinstance(group, tuple) else str(group)
    return f"{name}  (n = {int(n)})"


def _pixels(X):
    """Images in NCHW order, uint8 or from 0 to 1, as uint8 in NHWC order with three channels."""
    X = X.detach().cpu().numpy() if torch.is_tensor(X) else np.asarray(X)
    if X.ndim != 4 or X.shape[1] not in (1, 3):
        raise ValueError(
            "X must hold images of shape (n_samples, 1 or 3 channels, height, width); rows of it "
            f"have shape {X.shape}."
        )
    if X.dtype != np.uint8:
        if not (X.min() >= 0 and X.max() <= 1):
            raise ValueError(
                f"X holds {X.dtype} from {X.min():g} to {X.max():g}. Pass uint8, or scale it to "
                "0 to 1."
            )
        X = np.round(X * 255).astype(np.uint8)
    return np.broadcast_to(X, (len(X), 3, *X.shape[2:])).transpose(0, 2, 3, 1)


def _mosaic(rows, n_columns, border=1):
    """One row of images per group on white, as one image."""
    height, width = rows[0].shape[1:3]
    tile_height, tile_width = height + 2 * border, width + 2 * border
    canvas = np.full((len(rows) * tile_height, n_columns * tile_width, 3), 255, dtype=np.uint8)
    for i, images in enumerate(rows):
        for j, image in enumerate(images):
            top, left = i * tile_height + border, j * tile_width + border
            canvas[top : top + height, left : left + width] = image
    return canvas
