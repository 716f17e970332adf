"""What all views share: groups travel along, and a view of pictures takes them in any form."""

import zlib

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Dataset

from skspurious.data import DatasetSamples, TensorSamples, unpack_groups
from skspurious.data._grouped import wrap_like
from skspurious.data._pictures import channels_first, is_pillow, pillow_pixels
from skspurious.data._samples import ViewedPaths, input_kind
from skspurious.utils._fitting import _fit_context
from skspurious.utils._rows import check_is_rows

_CHUNK_SIZE = 2**22  # numbers that are worked on at a time


def carry_groups(X, function):
    """What a function makes of the samples alone; groups that they carry stay around it."""
    samples = unpack_groups(X)[0]
    check_is_rows(samples, "X")
    return wrap_like(function(samples), X)


class View(TransformerMixin, BaseEstimator):
    """Base of the views that give samples of the same kind: pictures of pictures, texts of texts.

    A subclass writes ``_view(X)``, of samples without groups.
    """

    _parameter_constraints: dict = {}

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Check the parameters; nothing is learned.

        Parameters
        ----------
        X : same kinds as in ``transform``
        y : Ignored
            Only there for Pipelines.

        Returns
        -------
        self : object
        """
        return self

    def transform(self, X):
        """The view of every sample.

        Parameters
        ----------
        X : samples, or GroupedData of them
            Of the kinds that the class names. They are never changed.

        Returns
        -------
        Z : samples of the same kind
            GroupedData, with the same groups, where ``X`` carries groups.
        """
        self._validate_params()
        return carry_groups(X, self._view)

    def set_output(self, *, transform=None):
        """Does nothing: there are no columns. It lets a Pipeline set the output of its last step.

        Parameters
        ----------
        transform : str, default=None
            Container of tables.

        Returns
        -------
        self : object
        """
        return self

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class TableTransformer(TransformerMixin, BaseEstimator):
    """A table as an array; scikit-learn wraps these methods to obey ``set_output``.

    A subclass writes ``_table(X)``, of samples without groups, and ``get_feature_names_out``.
    """

    def transform(self, X):
        return self._table(X)

    def fit_transform(self, X, y=None):
        return self._table(X)


class TableCarrier:
    """Puts groups around the table; not a scikit-learn class, so its methods are not wrapped."""

    def transform(self, X):
        """The table of the samples.

        Parameters
        ----------
        X : same kinds as in ``fit``, or GroupedData
            Pictures of files and datasets are read here, one after the other.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out), float32, or GroupedData of it
            A DataFrame in place of the array after ``set_output(transform="pandas")``.
        """
        check_is_fitted(self)
        return carry_groups(X, super().transform)

    def fit_transform(self, X, y=None):
        """Fit, and give the table of the same samples.

        Parameters
        ----------
        X : same kinds as in ``transform``
        y : Ignored
            Only there for Pipelines.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features_out), float32, or GroupedData of it
        """
        self.fit(X, y)
        return carry_groups(X, super().fit_transform)


class PictureView(View):
    """Base of the views of pictures; a subclass writes ``_change(pictures)``.

    ``_change`` gets a tensor of shape (n, channels, height, width) that it may write to, and
    returns one of the same shape: what it makes of a picture must not depend on the others.
    """

    def apply(self, picture):
        """The view of one picture, as a dataset gives it.

        Parameters
        ----------
        picture : tensor, ndarray or picture of Pillow
            Of shape (channels, height, width), (height, width, channels) or (height, width).

        Returns
        -------
        picture : tensor or ndarray of the same type, with channels first
            Of a picture of Pillow a tensor of bytes.
        """
        picture = pillow_pixels(picture) if is_pillow(picture) else picture
        is_array = isinstance(picture, np.ndarray)
        if not is_array and not torch.is_tensor(picture):
            raise TypeError(
                f"a sample is a {type(picture).__name__}; {type(self).__name__} takes pictures "
                "as tensors, arrays or of Pillow."
            )
        return self._change_all(picture[None])[0]

    def _view(self, X):
        kind = picture_kind(X, type(self).__name__)
        if kind == "array":
            return self._change_all(X)
        if isinstance(X, TensorSamples):
            return TensorSamples(self._change_all(X.tensor))
        view = clone(self)  # what is read later does not change with this object's parameters
        if kind == "files":
            return ViewedPaths(getattr(X, "paths", X), [*getattr(X, "views", ()), view])
        if isinstance(X, DatasetSamples):
            return DatasetSamples(ViewedDataset(X.dataset, view), X.index, X.collate_fn)
        return ViewedDataset(X, view)

    def _change_all(self, X):
        """An array or tensor of pictures, changed a few at a time; the type stays."""
        X = check_pictures(X, type(self).__name__)
        is_tensor = torch.is_tensor(X)
        result = torch.empty_like(X, requires_grad=False) if is_tensor else np.empty_like(X)
        for part in picture_chunks(X):
            chunk = X[part]
            pictures = chunk.detach().clone() if is_tensor else torch.from_numpy(np.array(chunk))
            shape = pictures.shape
            changed = self._change(pictures.reshape(shape[0], -1, *shape[-2:])).reshape(shape)
            result[part] = changed if is_tensor else changed.numpy()
        return result

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


class ViewedDataset(Dataset):
    """A map-style dataset whose pictures are changed when they are read.

    Parameters
    ----------
    dataset : map-style dataset
        Of a sample that is a tuple the first part is the picture; the rest stays.
    view : PictureView
        What changes them.
    """

    def __init__(self, dataset, view):
        self.dataset = dataset
        self.view = view

    @property
    def views(self):
        """The views, the first one first."""
        return (*getattr(self.dataset, "views", ()), self.view)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        sample = self.dataset[i]
        if isinstance(sample, tuple | list):
            return (self.view.apply(sample[0]), *sample[1:])
        return self.view.apply(sample)


def picture_kind(X, name):
    """How pictures come: "files" (paths), "array" (or tensor) or "dataset".

    Raises
    ------
    ValueError
        If X is a table.
    """
    kind = input_kind(X)
    if kind == "strings" or isinstance(X, ViewedPaths):
        return "files"
    if kind == "table":
        raise ValueError(
            f"X is a table; {name} takes pictures: an array or tensor of shape (n_samples, "
            "channels, height, width), paths, or a dataset. Of a table a ColumnTransformer that "
            "keeps some columns is a view."
        )
    if kind == "samples":
        return "dataset"
    return "array" if kind in ("array", "tensor") else "dataset"


def check_pictures(X, name):
    """Pictures with channels first; raise where an array or tensor has not their shape."""
    shape = tuple(X.shape)
    if X.ndim not in (3, 4) or 0 in shape[1:]:
        raise ValueError(
            f"X has shape {shape}; {name} takes pictures of shape (n_samples, channels, height, "
            "width), or (n_samples, height, width) for grey ones."
        )
    if isinstance(X, np.ndarray) and min(X.strides) < 0:
        X = X.copy()  # torch has no negative strides
    return X if X.ndim == 3 else channels_first(X)


def picture_chunks(X):
    """Slices of a few pictures."""
    step = max(1, _CHUNK_SIZE // int(np.prod(X.shape[1:])))
    for start in range(0, len(X), step):
        yield slice(start, start + step)


def restore_type(values, dtype):
    """Computed values in the type of the pictures; whole numbers are rounded."""
    if dtype.is_floating_point:
        return values.to(dtype)
    if dtype == torch.bool:
        return values >= 0.5
    limits = torch.iinfo(dtype)
    return values.round().clamp(limits.min, limits.max).to(dtype)


def rng_of(content, seed):
    """A generator that the content of a sample and the seed decide, whatever its row is."""
    return np.random.default_rng([seed, zlib.crc32(content)])
