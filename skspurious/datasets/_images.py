"""Synthetic images with a known spurious attribute."""

from numbers import Integral, Real

import numpy as np

from skspurious.datasets._base import (
    SYNTHETIC_CONSTRAINTS,
    draw_labels_and_attributes,
    make_bunch,
    make_generator,
    number_names,
)
from skspurious.utils._sklearn_compat import Interval, validate_params

__all__ = ["make_spurious_images"]

_N_STRIPES = 3  # periods across an image
_CHUNK = 1024  # images made at a time, for the cache

_DESCR = """Synthetic images with a spurious attribute

Grey stripes whose direction tells the class, colour that tells the spurious attribute, and noise.
Correlation strength {correlation_strength}.
"""


@validate_params(
    {
        **SYNTHETIC_CONSTRAINTS,
        "image_size": [Interval(Integral, 8, None, closed="left")],
        "core_contrast": [Interval(Real, 0, 1, closed="both")],
        "spurious_contrast": [Interval(Real, 0, 1, closed="both")],
        "spurious_size": [Interval(Integral, 1, None, closed="left"), None],
        "noise": [Interval(Real, 0, 1e30, closed="both")],
    },
    prefer_skip_nested_validation=True,
)
def make_spurious_images(
    n_samples=1000,
    *,
    n_classes=2,
    n_attributes=None,
    correlation_strength=0.95,
    image_size=16,
    core_contrast=0.5,
    spurious_contrast=0.5,
    spurious_size=None,
    noise=0.1,
    label_noise=0.0,
    random_state=None,
):
    """Make images in which stripes tell the class and a colour nearly tells it, too.

    The direction of grey stripes is the core feature: their position is random, so that no single
    pixel says anything about the class. The colour is the spurious feature. A network learns the
    colour first, and fails where it misleads.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of images. Class sizes differ by one at most.
    n_classes : int, default=2
        Number of classes. The stripes of class ``c`` are turned by ``c / n_classes`` of half a
        circle.
    n_attributes : int, default=None
        Number of colours. None means as many as classes.
    correlation_strength : float, default=0.95
        Share of each class ``c`` whose attribute is ``c % n_attributes``: exactly, to the nearest
        integer. The rest is spread evenly over the other attributes. ``1 / n_attributes`` makes
        balanced groups, as for a test set; 1 leaves no minority group, 0 no majority group.
    image_size : int, default=16
        Height and width in pixels, 8 at least.
    core_contrast : float, default=0.5
        Amplitude of the stripes in [0, 1], where 1 is a quarter of the range of a pixel. The
        smaller, the harder is the core feature; 0 removes it.
    spurious_contrast : float, default=0.5
        Amplitude of the colour in [0, 1], where 1 is a quarter of the range of a pixel; 0 removes
        the spurious feature.
    spurious_size : int, default=None
        Side in pixels of the square in the upper left corner that is coloured. None means the
        whole image.
    noise : float, default=0.1
        Standard deviation of the noise of every pixel and channel; 1 is the range of a pixel.
    label_noise : float, default=0.0
        Share of the samples, to the nearest integer, whose label is another, random one. Their
        images, and so the correlation, are those of the clean label.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same data in every call. With the same int, other contrasts, sizes of
        the square or noises change neither labels nor colours nor the position of the stripes.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        With

        data : ndarray of shape (n_samples, 3, image_size, image_size), dtype uint8
            The images.
        target : ndarray of shape (n_samples,), dtype int64
            The class, with label noise.
        clean_target : ndarray of shape (n_samples,), dtype int64
            The class without label noise.
        spurious_attribute : ndarray of shape (n_samples,), dtype int64
            The colour.
        sample_group : ndarray of shape (n_samples,), dtype int64
            ``target * n_attributes + spurious_attribute``.
        target_names, attribute_names : ndarray of str
            Names.
        DESCR : str
            What this is, with the size of every group.

    Raises
    ------
    ValueError
        If the coloured square is larger than the image.

    See Also
    --------
    make_spurious_classification : A table, for linear heads.
    load_spurious_digits : Real images.

    Notes
    -----
    A pixel at row ``i`` and column ``j`` of channel ``k`` is, before it is rounded and clipped to
    0..255, with ``t = pi * class / n_classes`` and a random ``phase`` for every image, ::

        127.5 + 63.75 * core_contrast * sin(6 * pi * (j * cos(t) + i * sin(t)) / image_size + phase)
              + 63.75 * spurious_contrast * cos(2 * pi * (attribute / n_attributes + k / 3))
              + 255 * noise * standard_normal

    The colour adds up to 0 over the channels, and the stripes are equal in all channels. So the
    mean of the channels knows nothing of the colour, and their differences nothing of the class.
    Without noise nothing is clipped. With two attributes, the colours of ``m`` pixels are
    ``0.25 * spurious_contrast / noise * sqrt(6 * m)`` standard deviations of the noise apart.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.datasets import make_spurious_images
    >>> train = make_spurious_images(200, random_state=0)
    >>> train.data.shape, train.data.dtype
    ((200, 3, 16, 16), dtype('uint8'))
    >>> np.bincount(train.sample_group)
    array([95,  5,  5, 95])
    """
    n_attributes = n_classes if n_attributes is None else n_attributes
    spurious_size = image_size if spurious_size is None else spurious_size
    if spurious_size > image_size:
        raise ValueError(
            f"spurious_size={spurious_size} does not fit into image_size={image_size}. Use "
            f"spurious_size <= {image_size}, or None for the whole image."
        )
    rng = make_generator(random_state)
    label, attribute, target = draw_labels_and_attributes(
        n_samples, n_classes, n_attributes, correlation_strength, label_noise, rng
    )
    phase = rng.uniform(0, 2 * np.pi, size=n_samples).astype(np.float32)
    wave = _waves(n_classes, image_size)
    hue = np.arange(n_attributes)[:, None] / n_attributes + np.arange(3) / 3
    colour = np.float32(63.75 * spurious_contrast) * np.cos(2 * np.pi * hue, dtype=np.float32)

    data = np.empty((n_samples, 3, image_size, image_size), dtype=np.uint8)
    for start in range(0, n_samples, _CHUNK):
        rows = slice(start, start + _CHUNK)
        stripes = np.sin(wave[label[rows]] + phase[rows, None, None])
        image = rng.standard_normal(data[rows].shape, dtype=np.float32)
        image *= np.float32(255 * noise)
        image += (np.float32(127.5) + np.float32(63.75 * core_contrast) * stripes)[:, None]
        image[:, :, :spurious_size, :spurious_size] += colour[attribute[rows], :, None, None]
        data[rows] = np.clip(np.rint(image, out=image), 0, 255, out=image)
    return make_bunch(
        data=data,
        target=target,
        clean_target=label,
        spurious_attribute=attribute,
        target_names=number_names("class", n_classes),
        attribute_names=number_names("attribute", n_attributes),
        DESCR=_DESCR.format(correlation_strength=correlation_strength),
    )


def _waves(n_classes, size):
    """Phase of the stripes of each class at each pixel: (n_classes, size, size) float32."""
    angle = np.pi * np.arange(n_classes)[:, None, None] / n_classes
    position = 2 * np.pi * _N_STRIPES * np.arange(size) / size
    wave = np.cos(angle) * position + np.sin(angle) * position[:, None]
    return wave.astype(np.float32)
