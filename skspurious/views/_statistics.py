"""ImageStatistics: a table of what pictures are like without looking at the object."""

from itertools import product
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import adaptive_avg_pool2d

from skspurious.data._grouped import take_rows
from skspurious.data._pictures import is_pillow, pillow_pixels, scale_of
from skspurious.data._samples import ImagePaths, TensorSamples, n_rows
from skspurious.utils._fitting import _fit_context
from skspurious.utils._parameters import nearest_names, refuses_unknown
from skspurious.utils._sklearn_compat import Interval
from skspurious.views._base import (
    TableCarrier,
    TableTransformer,
    carry_groups,
    check_pictures,
    picture_chunks,
    picture_kind,
)
from skspurious.views._images import luma
from skspurious.views._textures import blocks, spectrum

_CHANNELS = {1: ["grey"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}
_THICKNESS = 0.125  # of the border and of the corners, as a share of the shorter side


class ImageStatistics(TableCarrier, TableTransformer):
    """A few numbers about every picture, in named columns: a view for any classifier of tables.

    Borders, colours, brightness, sharpness and sizes say nothing of the object, but often much
    of how and where a picture was taken.

    .. versionadded:: 0.1

    Parameters
    ----------
    parts : list of str, default=None
        Which of these there are columns for; None is all.

        - "border": mean and standard deviation of every channel in a frame;
        - "corners": mean of every channel in the four corners;
        - "rows", "columns": mean of every channel in bands across and down the picture;
        - "edges": difference of each of these bands and the next one;
        - "colours": mean, standard deviation, smallest and largest value of every channel, and
          mean and standard deviation of the saturation (largest minus smallest channel);
        - "brightness": mean, standard deviation, smallest and largest value;
        - "sharpness": mean absolute difference of neighbouring pixels across and down, and mean
          absolute Laplacian;
        - "blocks": smallest and largest mean and standard deviation of blocks, wherever they
          stand in the picture: of brightness, channels and differences of colours;
        - "spectrum": logarithm of the energy at every frequency down and across, of brightness,
          and in rings of frequencies of two differences of colours: textures;
        - "size": height and width;
        - "file": bytes of the file, where pictures are paths.
    n_bands : int, default=16
        Bands of "rows", of "columns" and of "edges".

    Attributes
    ----------
    n_features_in_ : int
        Number of channels.
    parts_ : list of str
        The parts that there are columns for.

    See Also
    --------
    MaskCenter : A view that stays a picture.

    Notes
    -----
    Nothing is learned but which columns there are. Bytes are divided by 255, so they have the
    values of floats between 0 and 1. The frame and the corners are an eighth of the shorter side
    thick, at least one pixel. Bands share the rows evenly; of pictures with fewer rows than bands
    a row is in several. Blocks have an eighth of the shorter side, and each is a quarter of that
    from the next. The spectrum is the mean over tiles of 16 pixels that overlap by half, under a
    Hann window; smaller pictures are continued by their last pixels. The statistics are taken in
    float64.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import ImageStatistics
    >>> pictures = np.zeros((2, 3, 8, 8), dtype=np.uint8)
    >>> pictures[0, 0] = 255
    >>> statistics = ImageStatistics(["brightness", "size"]).set_output(transform="pandas")
    >>> statistics.fit_transform(pictures).round(2).iloc[:, [0, 4, 5]]
       brightness_mean  height  width
    0              0.3     8.0    8.0
    1              0.0     8.0    8.0
    """

    _parameter_constraints: dict = {
        "parts": [list, tuple, None],
        "n_bands": [Interval(Integral, 1, None, closed="left")],
    }

    @refuses_unknown
    def __init__(self, parts=None, *, n_bands=16):
        self.parts = parts
        self.n_bands = n_bands

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Note which columns there are; of files and datasets the first picture is read.

        Parameters
        ----------
        X : same kinds as in ``transform``
        y : Ignored
            Only there for Pipelines.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If `parts` has an unknown name, or "file" where pictures are no paths.
        """
        known = [*_PARTS, "file"]
        for part in self.parts or []:
            if part not in known:
                raise ValueError(f"parts has {part!r}{nearest_names(part, known)}")
        carry_groups(X, self._learn_columns)
        return self

    def _learn_columns(self, X):
        has_files = _paths_of(X) is not None
        known = [*_PARTS, "file"]
        self.parts_ = [part for part in known if self.parts is None or part in self.parts]
        if not has_files and "file" in self.parts_:
            if self.parts is not None:
                raise ValueError(
                    "parts has 'file', the bytes of the file, but the pictures are no paths. "
                    "Leave it out."
                )
            self.parts_.remove("file")
        if n_rows(X) == 0:
            raise ValueError("X has 0 samples; ImageStatistics needs at least one.")
        first = next(picture_batches(take_rows(X, np.arange(1)), type(self).__name__))
        luma(first)  # raises where the channels have no names
        self.n_features_in_ = first.shape[1]
        self._names = list(self._columns(first))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns.

        Parameters
        ----------
        input_features : Ignored
            Pictures have no names.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        return np.array([*self._names, *(["file_size"] if "file" in self.parts_ else [])], object)

    def _columns(self, pictures):
        """Name and values of each column, for a batch of pictures."""
        columns = {}
        for part in self.parts_:
            if part != "file":
                columns |= _PARTS[part](pictures, self.n_bands)
        return columns

    def _table(self, X):
        tables = [np.empty((0, len(self._names)), dtype=np.float32)]
        for pictures in picture_batches(X, type(self).__name__):
            if pictures.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has pictures of {pictures.shape[1]} channels, but ImageStatistics was "
                    f"fitted on pictures of {self.n_features_in_}."
                )
            columns = [values.float().cpu() for values in self._columns(pictures).values()]
            tables.append(torch.stack(columns, dim=1).numpy())
        table = np.concatenate(tables)
        if "file" not in self.parts_:
            return table
        paths = _paths_of(X)
        if paths is None:
            raise ValueError(
                "ImageStatistics was fitted on paths, and has a column for the bytes of the file, "
                "but X has no paths. Choose parts without 'file'."
            )
        sizes = np.array([Path(path).stat().st_size for path in paths], dtype=np.float32)
        return np.column_stack([table, sizes])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _paths_of(X):
    """Paths of the pictures, or None; a view of paths has them too."""
    if picture_kind(X, "ImageStatistics") != "files":
        return None
    return list(getattr(X, "paths", X))


def picture_batches(X, name):
    """Float64 tensors of shape (n, channels, height, width); bytes as floats between 0 and 1."""
    kind = picture_kind(X, name)
    X = X.tensor if isinstance(X, TensorSamples) else X
    if kind == "files" and not isinstance(X, ImagePaths):
        X = ImagePaths(X)
    if torch.is_tensor(X) or (isinstance(X, np.ndarray) and kind == "array"):
        X = check_pictures(X, name)
        scale = _divisor(X)
        parts = (X[part] for part in picture_chunks(X))
    else:
        scale = None
        parts = (_picture_of(X[i])[None] for i in range(len(X)))
    for part in parts:
        part = check_pictures(part, name)
        pictures = part.detach() if torch.is_tensor(part) else torch.from_numpy(np.array(part))
        pictures = pictures.reshape(len(pictures), -1, *pictures.shape[-2:])
        yield pictures.double() / (_divisor(pictures) if scale is None else scale)


def _divisor(pictures):
    """What brings pictures of a known scale to [0, 1]; floats stay what they are."""
    pictures = pictures if torch.is_tensor(pictures) else torch.from_numpy(np.asarray(pictures))
    if pictures.dtype == torch.bool or pictures.is_floating_point():
        return 1.0
    return {"bytes": 255.0, "uint16": 65535.0}.get(scale_of(pictures)[0], 1.0)


def _picture_of(sample):
    sample = sample[0] if isinstance(sample, tuple | list) else sample
    return pillow_pixels(sample) if is_pillow(sample) else sample


# --------------------------------------------------------------------------------------
# The parts: name -> values of a batch, of shape (n,)


def _per_channel(pattern, values):
    """Columns of values of shape (n, channels)."""
    names = _CHANNELS[values.shape[1]]
    return {pattern.format(name): values[:, k] for k, name in enumerate(names)}


def _spread(values, dims):
    return values.std(dim=dims, unbiased=False)


def _thickness(pictures):
    return max(1, round(_THICKNESS * min(pictures.shape[-2:])))


def _border(pictures, n_bands):
    thickness = _thickness(pictures)
    is_border = torch.ones(pictures.shape[-2:], dtype=torch.bool, device=pictures.device)
    is_border[thickness:-thickness, thickness:-thickness] = False
    pixels = pictures[:, :, is_border]
    return _per_channel("border_{}_mean", pixels.mean(dim=2)) | _per_channel(
        "border_{}_std", _spread(pixels, 2)
    )


def _corners(pictures, n_bands):
    t = _thickness(pictures)
    down = {"top": slice(t), "bottom": slice(-t, None)}
    across = {"left": slice(t), "right": slice(-t, None)}
    columns = {}
    for (row, rows), (side, sides) in product(down.items(), across.items()):
        means = pictures[:, :, rows, sides].mean(dim=(2, 3))
        columns |= _per_channel(f"corner_{row}_{side}_{{}}", means)
    return columns


def _bands(pattern, means):
    """Columns of means of shape (n, channels, n_bands)."""
    width = len(str(means.shape[2] - 1))
    return {
        name: values
        for k in range(means.shape[2])
        for name, values in _per_channel(f"{pattern}_{k:0{width}}_{{}}", means[:, :, k]).items()
    }


def _rows(pictures, n_bands):
    return _bands("row", adaptive_avg_pool2d(pictures, (n_bands, 1))[:, :, :, 0])


def _columns(pictures, n_bands):
    return _bands("column", adaptive_avg_pool2d(pictures, (1, n_bands))[:, :, 0])


def _edges(pictures, n_bands):
    rows = adaptive_avg_pool2d(pictures, (n_bands, 1))[:, :, :, 0].diff(dim=2)
    columns = adaptive_avg_pool2d(pictures, (1, n_bands))[:, :, 0].diff(dim=2)
    return _bands("row_edge", rows) | _bands("column_edge", columns)


def _colours(pictures, n_bands):
    colours = pictures[:, :3]
    saturation = colours.amax(dim=1) - colours.amin(dim=1)
    pixels = pictures.flatten(2)
    return {
        **_per_channel("colour_{}_mean", pixels.mean(dim=2)),
        **_per_channel("colour_{}_std", _spread(pixels, 2)),
        **_per_channel("colour_{}_min", pixels.amin(dim=2)),
        **_per_channel("colour_{}_max", pixels.amax(dim=2)),
        "saturation_mean": saturation.mean(dim=(1, 2)),
        "saturation_std": _spread(saturation, (1, 2)),
    }


def _brightness(pictures, n_bands):
    pixels = luma(pictures).flatten(1)
    return {
        "brightness_mean": pixels.mean(dim=1),
        "brightness_std": _spread(pixels, 1),
        "brightness_min": pixels.amin(dim=1),
        "brightness_max": pixels.amax(dim=1),
    }


def _sharpness(pictures, n_bands):
    grey = luma(pictures)[:, 0]
    padded = torch.nn.functional.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    around = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    return {
        "sharpness_across": _mean_or_zero(grey.diff(dim=2)),
        "sharpness_down": _mean_or_zero(grey.diff(dim=1)),
        "sharpness_laplacian": _mean_or_zero(around - 4.0 * grey),
    }


def _mean_or_zero(differences):
    """Mean absolute value; 0 where there is one pixel along the axis."""
    size = differences.shape[1] * differences.shape[2]
    return differences.abs().sum(dim=(1, 2)) / max(1, size)


def _size(pictures, n_bands):
    height, width = pictures.shape[-2:]
    one = torch.ones(len(pictures), dtype=torch.float64)
    return {"height": height * one, "width": width * one}


_PARTS = {
    "border": _border,
    "corners": _corners,
    "rows": _rows,
    "columns": _columns,
    "edges": _edges,
    "colours": _colours,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "blocks": blocks,
    "spectrum": spectrum,
    "size": _size,
}
