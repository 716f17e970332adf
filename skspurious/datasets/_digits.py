"""The embedded default: scikit-learn's bundled real digits on coloured backgrounds."""

from numbers import Integral, Real

import numpy as np
from sklearn.datasets import load_digits

from skspurious.datasets._base import assign_attributes, make_bunch, make_generator, name_hues
from skspurious.utils._sklearn_compat import Interval, Options, StrOptions, validate_params

__all__ = ["load_spurious_digits"]

_N_VAL, _N_TEST = 20, 40  # images of each digit

_DESCR = """Real handwritten digits on coloured backgrounds, split "{split}"

The 8 by 8 images of scikit-learn's load_digits (a copy of the test set of the UCI data set
"Optical Recognition of Handwritten Digits"), light strokes on a background whose colour goes with
the class.
"""


@validate_params(
    {
        "split": [StrOptions({"train", "val", "test"})],
        "n_classes": [Options(Integral, {2, 5, 10})],
        "correlation_strength": [Interval(Real, 0, 1, closed="both")],
        "background_brightness": [Interval(Real, 0, 1, closed="right")],
        "image_size": [Interval(Integral, 8, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def load_spurious_digits(
    *,
    split="train",
    n_classes=2,
    correlation_strength=0.95,
    background_brightness=0.5,
    image_size=16,
    random_state=0,
):
    """Load real digits whose background colour nearly tells the class.

    The bundled digits of scikit-learn, so nothing is downloaded. In the training split most
    images of a class have the colour of that class. A small network reads the colour, which is
    right on nearly all of these images, and fails on the rare combinations. In the validation and
    test splits every image is there once on every colour.

    Parameters
    ----------
    split : {"train", "val", "test"}, default="train"
        Which digits. Of each of the ten digits, 20 images are for validation, 40 for testing, and
        the rest, 1,197 in all, for training. The three never share an image, whatever
        ``random_state``.
    n_classes : {2, 5, 10}, default=2
        Number of classes and of colours: 2 has 0-4 against 5-9, 5 has the pairs 0-1 to 8-9, and
        10 has the digits.
    correlation_strength : float, default=0.95
        Share of each class, in the training split, that has the colour of the class: exactly, to
        the nearest integer. The rest is spread evenly over the other colours.
    background_brightness : float, default=0.5
        Brightness of the background, above 0, up to 1. The brighter, the easier is the colour and
        the harder is the digit.
    image_size : int, default=16
        Height and width in pixels, 8 at least. Pixels are repeated as often as they fit, and the
        rest is a border of background.
    random_state : int, RandomState instance or None, default=0
        Decides which images have the wrong colour, and the order of the rows. The split is fixed.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        With

        data : ndarray of shape (n_samples, 3, image_size, image_size), dtype uint8
            The images. 1,197 rows of "train"; ``200 * n_classes`` of "val"; ``400 * n_classes``
            of "test".
        target : ndarray of shape (n_samples,), dtype int64
            The class, ``digit * n_classes // 10``.
        spurious_attribute : ndarray of shape (n_samples,), dtype int64
            The colour; that of a class has the number of the class.
        sample_group : ndarray of shape (n_samples,), dtype int64
            ``target * n_classes + spurious_attribute``.
        digit : ndarray of shape (n_samples,), dtype int64
            The digit that was written.
        source_index : ndarray of shape (n_samples,), dtype int64
            Row of the image in ``sklearn.datasets.load_digits``.
        target_names, attribute_names : ndarray of str
            Names of the classes and of the colours.
        DESCR : str
            What this is, with the size of every group.

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    fetch_spuco_mnist : The same idea on 70,000 larger images.
    make_spurious_images : Images of which everything can be chosen.

    Notes
    -----
    With the default arguments the groups of the training split have 571, 30, 30 and 566 samples
    (0-4 on red, 0-4 on cyan, 5-9 on red, 5-9 on cyan), those of the validation split 100 each, and
    those of the test split 200 each.

    A pixel is ``background * (1 - ink) + 255 * ink``, to the nearest integer, where ``ink`` is the
    value of the digit between 0 and 1. Strokes are lighter than the background in all channels,
    so that what is learned about a digit on one colour helps on the others.

    An image of the validation and test splits occurs once on every colour. Within a group all
    images differ, so intervals of a group's accuracy are right; an interval of the average would
    count the copies as independent images.

    References
    ----------
    .. [1] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
       Learning Repository, 1998. https://doi.org/10.24432/C50P49

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.datasets import load_spurious_digits
    >>> train = load_spurious_digits(split="train")
    >>> train.data.shape, train.target_names, train.attribute_names
    ((1197, 3, 16, 16), array(['0-4', '5-9'], dtype='<U3'), array(['red', 'cyan'], dtype='<U4'))
    >>> np.bincount(train.sample_group)
    array([571,  30,  30, 566])
    """
    rng = make_generator(random_state)
    source = load_digits()
    index = _split_index(source.target, split)
    if split == "train":
        label = source.target[index] * n_classes // 10
        attribute = assign_attributes(
            label,
            n_classes=n_classes,
            n_attributes=n_classes,
            correlation_strength=correlation_strength,
            rng=rng,
        )
    else:
        attribute = np.tile(np.arange(n_classes), len(index))
        index = np.repeat(index, n_classes)
    order = rng.permutation(len(index))
    index, attribute = index[order], attribute[order]
    ink = _resize(source.images[index].astype(np.uint16), image_size)
    colour = np.rint(255 * background_brightness * _hues(n_classes)).astype(np.uint16)
    digit = source.target[index].astype(np.int64)
    return make_bunch(
        data=_blend(ink, colour[attribute]),
        target=digit * n_classes // 10,
        spurious_attribute=attribute,
        digit=digit,
        source_index=index,
        target_names=_name_classes(n_classes),
        attribute_names=name_hues(n_classes),
        DESCR=_DESCR.format(split=split),
    )


def _split_index(digits, split):
    """Rows of ``load_digits`` that belong to a split: a fixed draw, stratified by digit."""
    part = {
        "test": slice(_N_TEST),
        "val": slice(_N_TEST, _N_TEST + _N_VAL),
        "train": slice(_N_TEST + _N_VAL, None),
    }[split]
    rng = np.random.RandomState(0)  # its stream is frozen, so the split is for ever
    return np.concatenate([rng.permutation(np.flatnonzero(digits == d))[part] for d in range(10)])


def _resize(images, size):
    """Repeat pixels to the largest multiple of 8 within ``size``; pad the rest with 0."""
    scale = size // 8
    before = (size - 8 * scale) // 2
    pad = (before, size - 8 * scale - before)
    return np.pad(images.repeat(scale, axis=1).repeat(scale, axis=2), ((0, 0), pad, pad))


def _hues(n):
    """Colours of full saturation, evenly spaced hues from red on: (n, 3) in [0, 1]."""
    sixth = (np.arange(n)[:, None] * 6 / n + np.array([5, 3, 1])) % 6
    return 1 - np.clip(np.minimum(sixth, 4 - sixth), 0, 1)


def _blend(ink, colour):
    """Strokes of up to 16 units of ``ink`` (n, h, w) on ``colour`` (n, 3): (n, 3, h, w) uint8."""
    ink, colour = ink[:, None], colour[:, :, None, None]
    return ((colour * (16 - ink) + 255 * ink + 8) // 16).astype(np.uint8)


def _name_classes(n_classes):
    width = 10 // n_classes
    first = range(0, 10, width)
    return np.array([f"{d}-{d + width - 1}" if width > 1 else str(d) for d in first])
