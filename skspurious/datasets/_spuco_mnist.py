"""SpuCoMNIST: MNIST in five classes, on coloured backgrounds."""

import gzip
import hashlib
import zlib
from numbers import Real
from os import PathLike
from pathlib import Path

import numpy as np
from sklearn.datasets import get_data_home

from skspurious.datasets._base import flip_labels, make_bunch, make_generator, name_hues
from skspurious.utils._sklearn_compat import Interval, StrOptions, validate_params

__all__ = ["fetch_spuco_mnist"]

_N_CLASSES = 5
_CHUNK = 1024  # images painted at a time, for the cache

# The hues 0, 1/5, .. 4/5 of matplotlib's "hsv" colour map, which is piecewise linear with 256
# steps and so not quite the HSV formula, to the nearest of 256 levels.
_COLOURS = np.array(
    [[255, 0, 0], [209, 255, 0], [0, 255, 92], [0, 116, 255], [185, 0, 255]], dtype=np.uint8
)

# Side in pixels of the square in the upper left corner whose background is coloured.
_COLOURED_SIZE = {"large": 28, "medium": 4, "small": 2}

# Of the decompressed files.
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

_REMEDY = "Delete it, and fetch it again with download_if_missing=True or copy it from elsewhere."

_DESCR = """SpuCoMNIST, split "{split}", magnitude "{magnitude}"

MNIST in the five classes 01, 23, 45, 67 and 89. Pixels without ink, in all of the image or in a
corner, have a colour that goes with the class.
"""


@validate_params(
    {
        "data_home": [str, PathLike, None],
        "split": [StrOptions({"train", "val", "test"})],
        "correlation_strength": [Interval(Real, 0, 1, closed="both")],
        "magnitude": [StrOptions(set(_COLOURED_SIZE))],
        "label_noise": [Interval(Real, 0, 1, closed="both")],
        "download_if_missing": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def fetch_spuco_mnist(
    data_home=None,
    *,
    split="train",
    correlation_strength=0.995,
    magnitude="large",
    label_noise=0.0,
    download_if_missing=False,
    validation_fraction=0.2,
    random_state=0,
):
    """Load MNIST on coloured backgrounds: SpuCoMNIST, built from the MNIST files.

    Five classes, the digits 01, 23, 45, 67 and 89, and five colours. In the training split nearly
    all images of a class have its colour. In the validation and test splits all colours are
    equally frequent in every class.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder that holds the MNIST files as torchvision lays them out: in ``MNIST/raw``, or in
        ``mnist/MNIST/raw``, decompressed or as ``.gz``. None means scikit-learn's data folder,
        ``sklearn.datasets.get_data_home()``.
    split : {"train", "val", "test"}, default="train"
        Training and validation split share MNIST's training set, the test split is MNIST's.
    correlation_strength : float, default=0.995
        Share of each class, in the training split, that has the colour of the class: exactly,
        rounded down. The colours of the others are random. Has no effect on other splits.
    magnitude : {"large", "medium", "small"}, default="large"
        Where the pixels without ink are coloured: everywhere, or in the 4 by 4 or the 2 by 2
        pixels of the upper left corner. The other pixels without ink stay black.
    label_noise : float, default=0.0
        Share of the training split, rounded down, whose label is another, random one. The colour
        goes with the clean label. Has no effect on other splits.
    download_if_missing : bool, default=False
        Whether to download MNIST through torchvision into ``data_home`` where it is missing.
    validation_fraction : float, default=0.2
        Share of each digit of MNIST's training set, rounded down, that is for validation.
    random_state : int, RandomState instance or None, default=0
        Decides colours, label noise and the order of the rows. Which images are for validation is
        fixed: no image is in two splits, whatever the state.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        With

        data : ndarray of shape (n_samples, 3, 28, 28), dtype uint8
            The images.
        target : ndarray of shape (n_samples,), dtype int64
            The class, ``digit // 2``, with label noise.
        clean_target : ndarray of shape (n_samples,), dtype int64
            The class without label noise.
        spurious_attribute : ndarray of shape (n_samples,), dtype int64
            The colour; that of a class has the number of the class.
        sample_group : ndarray of shape (n_samples,), dtype int64
            ``target * 5 + spurious_attribute``.
        digit : ndarray of shape (n_samples,), dtype int64
            The digit.
        source_index : ndarray of shape (n_samples,), dtype int64
            Row of the image in MNIST's training set, or test set for ``split="test"``.
        target_names, attribute_names : ndarray of str
            Names of the classes and of the colours.
        DESCR : str
            What this is, with the size of every group.

    Raises
    ------
    FileNotFoundError
        If a file is missing and not to be downloaded.
    OSError
        If the content of a file is not that of MNIST, by its sha256.
    ValueError
        If an argument is out of range, or no image is left for a split.

    See Also
    --------
    load_spurious_digits : The same idea on small bundled images; no download.

    Notes
    -----
    With the default arguments, the classes have, in this order,

    - train (48,004): 10,133, 9,672, 9,011, 9,747 and 9,441 images, of which 10,082, 9,623, 8,965,
      9,698 and 9,393 have the colour of the class; 51, 49, 46, 49 and 48 have one of the others;
    - val (11,996): 2,532, 2,417, 2,252, 2,436 and 2,359 images, equally many of every colour, but
      for one image where the number is no multiple of 5 (450 to 507 a group);
    - test (10,000): 2,115, 2,042, 1,874, 1,986 and 1,983 images, likewise (374 to 423 a group).

    This is the data set of SpuCo 2.0.3 [1]_. These agree with it: the classes; the image size; the
    colours; which pixels get them; the sizes of the splits, of their classes, and of the groups
    whose colour is that of the class; that the other images of the training split get any of the
    other colours at random, so that the smallest groups vary with ``random_state`` (the 51 images
    of the first class: 17, 8, 12 and 14 for the default); that noise flips labels after the
    colours are drawn; and that the validation and test splits are balanced and have clean labels.
    It differs in that

    - images are uint8, so that three levels of the colours are rounded, by less than 0.5 of 255;
    - which images are for validation is a draw of our own, stratified by digit, as theirs is;
    - rows are shuffled, where theirs are in the order of MNIST;
    - groups may be empty, at a strength of 1 for instance, where theirs raises an error;
    - neither the variance levels of the background, nor noise of the core feature, nor one
      strength for each class, nor a correlated validation split are offered.

    References
    ----------
    .. [1] S. Joshi, Y. Yang, Y. Xue, W. Yang, B. Mirzasoleiman, "Towards Mitigating Spurious
       Correlations in the Wild: A Benchmark and a more Realistic Dataset", 2023. arXiv:2306.11957
    .. [2] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to
       Document Recognition", Proceedings of the IEEE 86(11), 1998.

    Examples
    --------
    >>> from skspurious.datasets import fetch_spuco_mnist
    >>> train = fetch_spuco_mnist("data", download_if_missing=True)  # doctest: +SKIP
    >>> train.data.shape  # doctest: +SKIP
    (48004, 3, 28, 28)
    """
    home = Path(get_data_home() if data_home is None else data_home).expanduser()
    images, digits = _read_mnist(home, split == "test", download_if_missing)
    index = _split_index(digits, split, validation_fraction)
    rng = make_generator(random_state)
    index = index[rng.permutation(len(index))]
    digit = digits[index].astype(np.int64)
    label = digit // 2
    if split == "train":
        attribute = _deal_correlated(label, correlation_strength, rng)
        n_flipped = int(label_noise * len(label))
        target = flip_labels(label, n_classes=_N_CLASSES, n_flipped=n_flipped, rng=rng)
    else:
        attribute = _deal_balanced(label, rng)
        target = label.copy()
    return make_bunch(
        data=_paint(images, index, _COLOURS[attribute], _COLOURED_SIZE[magnitude]),
        target=target,
        clean_target=label,
        spurious_attribute=attribute,
        digit=digit,
        source_index=index,
        target_names=np.array([f"{2 * c}-{2 * c + 1}" for c in range(_N_CLASSES)]),
        attribute_names=name_hues(_N_CLASSES),
        DESCR=_DESCR.format(split=split, magnitude=magnitude),
    )


# --------------------------------------------------------------------------------------
# Reading


def _read_mnist(home, test, download):
    """Images (n, 28, 28) and digits (n,), uint8, from checked files."""
    prefix = "t10k" if test else "train"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    paths = [_find(home, name) for name in names]
    if download and None in paths:
        from torchvision.datasets import MNIST

        MNIST(str(home), train=not test, download=True)
        paths = [_find(home, name) for name in names]
    missing = [name for name, path in zip(names, paths) if path is None]
    if missing:
        raise FileNotFoundError(
            f"MNIST is not in data_home={str(home)!r}: no {' and no '.join(missing)} (nor .gz) in "
            f"{home / 'MNIST' / 'raw'} or {home / 'mnist' / 'MNIST' / 'raw'}. Pass the folder that "
            "holds them as data_home, or download_if_missing=True."
        )
    images, digits = (_read_idx(path, name) for path, name in zip(paths, names))
    return images, digits


def _find(home, name):
    """Path of a file, decompressed or not; None if there is none."""
    for folder in (home / "MNIST" / "raw", home / "mnist" / "MNIST" / "raw"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def _read_idx(path, name):
    """Content of an IDX file of bytes, once its sha256 is right."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise OSError(
                f"{path} is damaged and cannot be decompressed: {error}. {_REMEDY}"
            ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != _SHA256[name]:
        raise OSError(
            f"{path} is not the file of MNIST: its content has the sha256 {digest}, not "
            f"{_SHA256[name]}. {_REMEDY}"
        )
    n_axes = content[3]  # magic number: 0, 0, type, number of axes; then a length for each axis
    shape = np.frombuffer(content, ">u4", count=n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


# --------------------------------------------------------------------------------------
# Building


def _split_index(digits, split, validation_fraction):
    """Rows of a split, in order: a fixed draw from MNIST's training set, stratified by digit."""
    if split == "test":
        return np.arange(len(digits))
    rng = np.random.RandomState(0)  # its stream is frozen, so the split is for ever
    parts = []
    for d in range(10):
        rows = rng.permutation(np.flatnonzero(digits == d))
        n_val = int(validation_fraction * len(rows))
        parts.append(rows[:n_val] if split == "val" else rows[n_val:])
    index = np.sort(np.concatenate(parts))
    if len(index) == 0:
        raise ValueError(
            f"validation_fraction={validation_fraction} leaves no image for split={split!r}. Use "
            "a larger one, such as 0.2."
        )
    return index


def _deal_correlated(label, correlation_strength, rng):
    """Colours of a training split: aligned ones exactly, the others dealt at random."""
    colour = np.empty(len(label), dtype=np.int64)
    for c in range(_N_CLASSES):
        rows = rng.permutation(np.flatnonzero(label == c))
        n_aligned = int(correlation_strength * len(rows))
        # One card for every image of the class, not only for those that will keep theirs.
        others = np.delete(np.arange(_N_CLASSES), c)
        cards = rng.permutation(others[np.arange(len(rows)) % len(others)])
        colour[rows] = cards
        colour[rows[:n_aligned]] = c
    return colour


def _deal_balanced(label, rng):
    """Colours of a validation or test split: equally many of each in every class."""
    colour = np.empty(len(label), dtype=np.int64)
    for c in range(_N_CLASSES):
        rows = np.flatnonzero(label == c)
        colour[rows] = rng.permutation(np.arange(len(rows)) % _N_CLASSES)
    return colour


def _paint(images, index, colour, size):
    """Rows ``index`` as (n, 3, 28, 28), with ``colour`` (n, 3) where there is no ink."""
    data = np.empty((len(index), 3, *images.shape[1:]), dtype=np.uint8)
    for start in range(0, len(index), _CHUNK):
        rows = slice(start, start + _CHUNK)
        ink = images[index[rows], None]
        data[rows] = ink
        blank = ink[:, :, :size, :size] == 0
        data[rows, :, :size, :size] += blank * colour[rows, :, None, None]
    return data
