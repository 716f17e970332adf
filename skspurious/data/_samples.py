"""Samples: one adapter gives every kind of X a length and row selection by an index array."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import torch
from torch.utils.data import Dataset, default_collate

from skspurious.data._pictures import is_pillow, read_file
from skspurious.data._tokenizers import as_collate
from skspurious.utils._identity import NoIdentityError, fingerprint
from skspurious.utils._random import seeded_draws
from skspurious.utils._rows import as_numbers, check_is_rows

_N_LOOKED_AT = 8  # samples of a dataset by which one is told from another


class TensorSamples:
    """Samples in one tensor in memory: a batch is one ``index_select``.

    Parameters
    ----------
    tensor : tensor of shape (n_samples, ...)
        uint8 stays uint8 until it is in a batch.
    is_raw : bool, default=True
        False for pictures that the user has standardised: no preprocessing is theirs any more.
    """

    is_resident = True

    def __init__(self, tensor, *, is_raw=True):
        self.tensor = tensor
        self.is_raw = is_raw

    def __len__(self):
        return len(self.tensor)

    @property
    def sample_shape(self):
        """Shape of one sample."""
        return tuple(self.tensor.shape[1:])

    def take(self, index):
        """The samples of an index array, as samples."""
        return TensorSamples(self.tensor[torch.as_tensor(index)], is_raw=self.is_raw)

    def identity(self):
        """What tells these samples from others, for the fingerprint of a run."""
        return self.tensor


class DatasetSamples(Dataset):
    """Samples that are made one by one: a map-style dataset, paths or texts, through a loader.

    Parameters
    ----------
    dataset : sequence or map-style dataset
        Where a sample is a tuple, its first item is the input. Labels in it are not used: they
        are the ``y`` of ``fit``.
    index : ndarray of int, default=None
        Rows of the dataset, by default all.
    collate_fn : callable, default=None
        Makes a batch (tensor or dict of tensors) from a list of samples.
    are_image_files : bool, default=False
        Whether the dataset reads the image files of a list of paths.
    form : callable, default=None
        Acts on each sample as it is read.
    """

    is_resident = False
    sample_shape = None

    def __init__(self, dataset, index=None, collate_fn=None, *, are_image_files=False, form=None):
        self.dataset = dataset
        self.index = np.arange(n_rows(dataset)) if index is None else np.asarray(index)
        self.collate_fn = collate_fn
        self.are_image_files = are_image_files
        self.form = form

    def __len__(self):
        return len(self.index)

    def __getitem__(self, i):
        sample = self.dataset[int(self.index[i])]
        return sample if self.form is None else self.form(sample)

    def take(self, index):
        """The samples of an index array, as samples; nothing is read yet."""
        return self._like(index=self.index[np.asarray(index)])

    def with_form(self, form):
        """The same samples, with what acts on each as it is read."""
        return self._like(form=form)

    def _like(self, **changes):
        kept = {
            "dataset": self.dataset,
            "index": self.index,
            "collate_fn": self.collate_fn,
            "are_image_files": self.are_image_files,
            "form": self.form,
        }
        return DatasetSamples(**kept | changes)

    def identity(self):
        """What tells these samples from others: the dataset, its files, and some of its rows."""
        paths = getattr(self.dataset, "paths", None)
        if paths is None and isinstance(getattr(self.dataset, "samples", None), list):
            paths = [sample[0] for sample in self.dataset.samples]  # a folder of torchvision
        rows = None if isinstance(self.dataset, list | tuple) else self._some_rows()
        return self.dataset, self.index, _file_states(paths or []), rows

    def _some_rows(self):
        """Hashes of a few samples; one that is another time different does not count."""
        rows = []
        for i in np.unique(np.linspace(0, len(self) - 1, _N_LOOKED_AT).astype(int)).tolist():
            once, again = (self._hash_of_row(i) for _ in range(2))
            rows.append(once if once == again else None)
        return rows

    def _hash_of_row(self, i):
        try:
            with seeded_draws(i):
                return fingerprint(self[i])
        except NoIdentityError:
            return None

    def collate(self, samples):
        """One batch of a list of samples.

        Parameters
        ----------
        samples : list
            Samples as the dataset gives them; of tuples the first item.

        Returns
        -------
        batch : tensor, or what ``collate_fn`` makes

        Raises
        ------
        ValueError
            If the samples differ in shape and there is no ``collate_fn``.
        """
        if self.collate_fn is not None:
            return self.collate_fn(samples)
        samples = [s[0] if isinstance(s, tuple | list) else s for s in samples]
        shapes = {tuple(s.shape) for s in samples if hasattr(s, "shape")}
        if len(shapes) > 1:
            raise ValueError(
                f"samples of one batch differ in shape: {sorted(shapes)[:4]}. Give all one "
                "shape, for pictures by image_size=, or pass a collate_fn that does."
            )
        return default_collate(samples)


def _file_states(paths):
    """Size and time of every file."""
    states = [os.stat(path) for path in paths if os.path.isfile(path)]
    return np.array([(state.st_size, state.st_mtime_ns) for state in states], dtype=np.int64)


class ImagePaths(Dataset):
    """Image files as a map-style dataset of uint8 tensors of shape (3, height, width).

    Parameters
    ----------
    paths : sequence of str or Path
        Files that Pillow can read. They are turned as their EXIF data say; every mode of colour
        becomes RGB; grey levels of 16 bits, and floats from 0 to 1, become bytes by their scale.
    transform : callable, default=None
        Acts on one image, for instance ``torchvision.transforms.v2.Resize((224, 224))``.
    """

    views = ()

    def __init__(self, paths, transform=None):
        self.paths = [str(p) for p in paths]
        self.transform = transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        self.check_files(rows=[i])
        image = read_file(self.paths[i], i)
        for view in self.views:
            image = view.apply(image)
        return image if self.transform is None else self.transform(image)

    def check_files(self, *, name="X", rows=None):
        """Check that every path is a file; nothing is read.

        Parameters
        ----------
        name : str, default="X"
            What the user calls the paths.
        rows : sequence of int, default=None
            Rows to look at; None is all.

        Raises
        ------
        ValueError
            If one is not; it names the row.
        """
        for i in range(len(self.paths)) if rows is None else rows:
            if not Path(self.paths[i]).is_file():
                raise ValueError(
                    f"{name}[{i}] = {self.paths[i]!r} is not a file. A list of str is read as "
                    "image files; for texts, pass a collate_fn that turns a list of texts into a "
                    "batch."
                )

    def with_transform(self, transform):
        """The same files, with another transform after the views."""
        return ViewedPaths(self.paths, self.views, transform)


class ViewedPaths(ImagePaths):
    """Image files of which views are read: a picture is read, and then changed.

    What a view of paths gives. An estimator treats it as it treats paths: what it would do to
    every picture that it reads comes after the views.

    Parameters
    ----------
    paths : sequence of str or Path
        Files that Pillow can read.
    views : sequence of views
        Their method ``apply`` is called one after the other, with one picture.
    transform : callable, default=None
        Acts on one image, after the views.
    """

    def __init__(self, paths, views, transform=None):
        super().__init__(paths, transform)
        self.views = tuple(views)

    def take(self, index):
        """The files of an index array; nothing is read yet."""
        return ViewedPaths([self.paths[i] for i in index], self.views, self.transform)


def as_samples(X, *, collate_fn=None, image_transform=None):
    """Turn any X into samples: a length, and row selection by an index array.

    Parameters
    ----------
    X : array, DataFrame, tensor, list of str, map-style dataset, or samples
        What the user passed.
    collate_fn : callable, default=None
        Makes a batch from a list of samples; texts need one.
    image_transform : callable, default=None
        Acts on every image that is read from a path.

    Returns
    -------
    samples : TensorSamples or DatasetSamples

    Raises
    ------
    TypeError
        If X has no length or cannot be indexed.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.data import as_samples
    >>> samples = as_samples(np.zeros((4, 3, 8, 8), dtype=np.uint8))
    >>> len(samples), samples.sample_shape, samples.take([0, 2]).tensor.dtype
    (4, (3, 8, 8), torch.uint8)
    """
    kind, collate_fn = input_kind(X), as_collate(collate_fn)
    if kind == "samples":
        if X.is_resident or collate_fn is None:
            return X
        return X._like(collate_fn=collate_fn)
    if kind == "tensor":
        return TensorSamples(X.detach())
    if kind in ("array", "table"):
        array = X if isinstance(X, list | tuple) else np.asarray(X)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
            array = as_numbers(X, "X")
        elif array.dtype not in (np.uint8, np.float16, np.float32):
            with np.errstate(over="ignore"):  # what becomes infinite is refused by who reads it
                array = array.astype(np.float32)
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = array.copy()  # torch would warn that it may write to the user's array
        return TensorSamples(torch.from_numpy(array))
    if kind == "strings":
        X = list(X)
        if collate_fn is not None:
            return DatasetSamples(X, collate_fn=collate_fn)
        return DatasetSamples(ImagePaths(X, image_transform), are_image_files=True)
    if isinstance(X, ViewedPaths):
        return DatasetSamples(X.with_transform(image_transform), are_image_files=True)
    return DatasetSamples(X, collate_fn=collate_fn)


def input_kind(X, name="X"):
    """Kind of X: "array", "dataset", "samples", "strings", "table" (2-D numbers) or "tensor"."""
    if isinstance(X, TensorSamples | DatasetSamples):
        return "samples"
    check_is_rows(X, name)
    if torch.is_tensor(X):
        return "tensor"
    if isinstance(X, pd.Series | pd.Index):
        X = X.to_numpy(dtype=object)
    if isinstance(X, np.ndarray):
        if X.ndim == 1 and len(X) and isinstance(X[0], str | Path):
            return "strings"
        return "array" if X.ndim > 2 and X.dtype.kind in "buif" else "table"
    if isinstance(X, list | tuple):
        first = X[0] if len(X) else None
        if isinstance(first, str | Path):
            return "strings"
        sample = first[0] if isinstance(first, tuple) and len(first) else first
        is_sample = torch.is_tensor(sample) or isinstance(sample, Mapping) or is_pillow(sample)
        if isinstance(sample, np.ndarray):
            is_sample = isinstance(first, tuple) or sample.ndim > 1
        return "dataset" if is_sample else "table"
    if isinstance(X, Dataset):
        if not hasattr(X, "__len__"):
            raise TypeError(
                f"{name} is a {type(X).__name__} without a length. Use a map-style dataset, with "
                "__len__ and __getitem__: rows must be selectable."
            )
        return "dataset"
    is_array_like = hasattr(X, "__array__") or hasattr(X, "__dataframe__")
    if is_array_like or scipy.sparse.issparse(X):
        return "table"
    if hasattr(X, "__getitem__") and hasattr(X, "__len__"):
        return "dataset"
    return "table"


def n_rows(data):
    return int(data.shape[0]) if getattr(data, "shape", None) is not None else len(data)
