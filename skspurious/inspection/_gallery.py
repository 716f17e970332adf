"""Images of every group, side by side."""

import numpy as np
import torch

from skspurious.data import encode_groups, unpack_groups
from skspurious.inspection._base import AS_IT_IS, make_axes, row_label
from skspurious.utils._rows import check_is_rows

__all__ = ["GroupGalleryDisplay"]


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
        ImportError
            If matplotlib is not installed.
        """
        X, sample_group, _ = unpack_groups(X, sample_group)
        if sample_group is None:
            raise ValueError(
                "GroupGalleryDisplay needs groups. Pass sample_group=, or X as "
                "GroupedData(X, sample_group)."
            )
        check_is_rows(X, "X")
        X = torch.stack(list(X)) if isinstance(X, list | tuple) and torch.is_tensor(X[0]) else X
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

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        height, width = self.mosaic.shape[:2]
        row = height / len(self.groups)
        labels = [row_label(group, n) for group, n in zip(self.groups, self.sizes)]
        inches = 0.4 / row  # per pixel, so that a row is 0.4 inches high
        figsize = (0.4 + 0.08 * max(map(len, labels)) + inches * width, 0.3 + inches * height)
        ax = make_axes(type(self).__name__, ax, figsize=figsize, layout="compressed")
        self.im_ = ax.imshow(self.mosaic, **({"interpolation": "nearest"} | im_kwargs))
        ax.set_yticks((np.arange(len(self.groups)) + 0.5) * row - 0.5, labels, **AS_IT_IS)
        ax.set_xticks([])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _pixels(X):
    """Images in NCHW order, uint8 or from 0 to 1, as uint8 in NHWC order with three channels."""
    X = X.detach().cpu().numpy() if torch.is_tensor(X) else np.asarray(X)
    if X.dtype.kind not in "buif":
        raise TypeError(f"X holds {X.dtype}; images are uint8, or numbers from 0 to 1.")
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
