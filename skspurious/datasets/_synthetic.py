"""Synthetic data with a known spurious attribute: tables and images."""

from numbers import Integral, Real

import numpy as np
from scipy.fft import dct
from scipy.special import ndtr

from skspurious.datasets._base import (
    assign_attributes,
    draw_labels,
    flip_labels,
    make_bunch,
    make_generator,
)
from skspurious.utils._sklearn_compat import Interval, validate_params

__all__ = ["make_spurious_classification", "make_spurious_images"]

_N_STRIPES = 3  # periods across an image
_CHUNK = 1024  # images made at a time, for the cache

_CLASSIFICATION_DESCR = """Synthetic table with a spurious attribute

Normal core features around the centre of the class, normal spurious features around the centre of
the spurious attribute, and noise. Correlation strength {correlation_strength}.
"""
_IMAGES_DESCR = """Synthetic images with a spurious attribute

Grey stripes whose direction tells the class, colour that tells the spurious attribute, and noise.
Correlation strength {correlation_strength}.
"""
_SHARED_CONSTRAINTS = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_classes": [Interval(Integral, 2, None, closed="left")],
    "n_attributes": [Interval(Integral, 2, None, closed="left"), None],
    "correlation_strength": [Interval(Real, 0, 1, closed="both")],
    "label_noise": [Interval(Real, 0, 1, closed="both")],
    "random_state": ["random_state"],
}


@validate_params(
    {
        **_SHARED_CONSTRAINTS,
        "n_core_features": [Interval(Integral, 1, None, closed="left"), None],
        "n_spurious_features": [Interval(Integral, 1, None, closed="left"), None],
        "n_noise_features": [Interval(Integral, 0, None, closed="left")],
        "core_separation": [Interval(Real, 0, None, closed="left")],
        "spurious_separation": [Interval(Real, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def make_spurious_classification(
    n_samples=1000,
    *,
    n_classes=2,
    n_attributes=None,
    correlation_strength=0.95,
    n_core_features=None,
    n_spurious_features=None,
    n_noise_features=4,
    core_separation=2.5,
    spurious_separation=5.0,
    label_noise=0.0,
    random_state=None,
):
    """Make a table of core, spurious and noise features of known difficulty.

    The core features depend on the class and the spurious features on the spurious attribute.
    The two agree as often as ``correlation_strength`` says. A model that uses whatever predicts
    the class relies on the spurious features, and fails where they mislead.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of rows. Class sizes differ by one at most.
    n_classes : int, default=2
        Number of classes.
    n_attributes : int, default=None
        Number of values of the spurious attribute. None means as many as classes.
    correlation_strength : float, default=0.95
        Share of each class ``c`` whose attribute is ``c % n_attributes``: exactly, to the nearest
        integer. The rest is spread evenly over the other attributes. ``1 / n_attributes`` makes
        balanced groups (a test set), 1 leaves no minority group, 0 none but those.
    n_core_features : int, default=None
        Number of core features, ``n_classes - 1`` at least. None means that, or 2 if more.
    n_spurious_features : int, default=None
        Number of spurious features, ``n_attributes - 1`` at least. None means that, or 2 if more.
    n_noise_features : int, default=4
        Number of standard normal features that depend on nothing.
    core_separation : float, default=2.5
        Distance between the core centres of any two classes, in standard deviations of a feature.
    spurious_separation : float, default=5.0
        The same of the spurious centres of any two attributes.
    label_noise : float, default=0.0
        Share of the samples, to the nearest integer, whose label is another, random one. Their
        features, and so the correlation, are those of the clean label.
    random_state : int, RandomState instance or None, default=None
        Pass an int for the same data in every call. The centres do not depend on it, so calls
        with other states are new samples of the same problem.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        With

        data : ndarray of shape (n_samples, n_features), dtype float64
            Core features first, then spurious features, then noise.
        target : ndarray of shape (n_samples,), dtype int64
            The class, with label noise.
        clean_target : ndarray of shape (n_samples,), dtype int64
            The class without label noise.
        spurious_attribute : ndarray of shape (n_samples,), dtype int64
            The spurious attribute.
        sample_group : ndarray of shape (n_samples,), dtype int64
            ``target * n_attributes + spurious_attribute``.
        core_features, spurious_features, noise_features : ndarray of int
            The columns of each kind.
        core_accuracy : float
            Accuracy of the best classifier on the core features alone, for clean labels: what a
            model can reach in every group.
        spurious_accuracy : float
            Accuracy of the best guess of the attribute on the spurious features alone, when all
            attributes are equally frequent.
        feature_names, target_names, attribute_names : ndarray of str
            Names.
        DESCR : str
            What this is, with the size of every group.

    Raises
    ------
    ValueError
        If there are too few features for centres that are equally far apart.

    See Also
    --------
    make_spurious_images : Images, for networks that are trained end to end.

    Notes
    -----
    The centres are the corners of a regular simplex whose sides are the separation, spread over
    all features of their kind, and every feature has variance 1. With ``s`` the separation and
    ``k`` the number of centres, the best accuracy is the integral over ``z`` of
    ``pdf(z) * cdf(z + s / sqrt(2)) ** (k - 1)``, the standard normal density and distribution; for
    ``k = 2`` it is ``cdf(s / 2)``.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(1000, random_state=0)
    >>> np.bincount(train.sample_group)
    array([475,  25,  25, 475])
    >>> round(train.core_accuracy, 3)
    0.894
    >>> test = make_spurious_classification(1000, correlation_strength=0.5, random_state=1)
    >>> np.bincount(test.sample_group)
    array([250, 250, 250, 250])
    """
    n_attributes = n_classes if n_attributes is None else n_attributes
    n_core = _resolve_n_features("n_core_features", n_core_features, "n_classes", n_classes)
    n_spurious = _resolve_n_features(
        "n_spurious_features", n_spurious_features, "n_attributes", n_attributes
    )
    rng = make_generator(random_state)
    label, attribute, target = _draw_labels_and_attributes(
        n_samples, n_classes, n_attributes, correlation_strength, label_noise, rng
    )
    columns = np.split(
        np.arange(n_core + n_spurious + n_noise_features), [n_core, n_core + n_spurious]
    )
    core, spurious, noise = columns
    X = rng.standard_normal((n_samples, n_core + n_spurious + n_noise_features))
    X[:, :n_core] += _simplex(n_classes, n_core, core_separation)[label]
    X[:, n_core : n_core + n_spurious] += _simplex(n_attributes, n_spurious, spurious_separation)[
        attribute
    ]
    kinds = [("core", core), ("spurious", spurious), ("noise", noise)]
    return make_bunch(
        data=X,
        target=target,
        clean_target=label,
        spurious_attribute=attribute,
        core_features=core,
        spurious_features=spurious,
        noise_features=noise,
        core_accuracy=_simplex_accuracy(n_classes, core_separation),
        spurious_accuracy=_simplex_accuracy(n_attributes, spurious_separation),
        feature_names=np.array([f"{kind}{i}" for kind, of in kinds for i in range(len(of))]),
        target_names=_number_names("class", n_classes),
        attribute_names=_number_names("attribute", n_attributes),
        DESCR=_CLASSIFICATION_DESCR.format(correlation_strength=correlation_strength),
    )


@validate_params(
    {
        **_SHARED_CONSTRAINTS,
        "image_size": [Interval(Integral, 8, None, closed="left")],
        "core_contrast": [Interval(Real, 0, 1, closed="both")],
        "spurious_contrast": [Interval(Real, 0, 1, closed="both")],
        "spurious_size": [Interval(Integral, 1, None, closed="left"), None],
        "noise": [Interval(Real, 0, None, closed="left")],
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
        balanced groups (a test set), 1 leaves no minority group, 0 none but those.
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
    label, attribute, target = _draw_labels_and_attributes(
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
        target_names=_number_names("class", n_classes),
        attribute_names=_number_names("attribute", n_attributes),
        DESCR=_IMAGES_DESCR.format(correlation_strength=correlation_strength),
    )


def _draw_labels_and_attributes(
    n_samples, n_classes, n_attributes, correlation_strength, label_noise, rng
):
    """Clean label, attribute, and label with noise."""
    label = draw_labels(n_samples, n_classes, rng)
    attribute = assign_attributes(
        label,
        n_classes=n_classes,
        n_attributes=n_attributes,
        correlation_strength=correlation_strength,
        rng=rng,
    )
    n_flipped = int(np.floor(label_noise * n_samples + 0.5))
    return label, attribute, flip_labels(label, n_classes=n_classes, n_flipped=n_flipped, rng=rng)


def _number_names(word, n):
    return np.array([f"{word} {i}" for i in range(n)])


def _resolve_n_features(name, value, centres_name, n_centres):
    """Number of features; a regular simplex of n corners needs n - 1 dimensions."""
    if value is None:
        return max(2, n_centres - 1)
    if value < n_centres - 1:
        raise ValueError(
            f"{name}={value} is too few for {centres_name}={n_centres} equally distant centres. "
            f"Use {name} >= {n_centres - 1}, or None."
        )
    return value


def _simplex(n_centres, n_features, separation):
    """Centres (n_centres, n_features), all pairs ``separation`` apart, with mean 0."""
    # The unit vectors are sqrt(2) apart. Rows 1.. of the orthonormal cosine matrix turn them, less
    # their mean, into n - 1 dimensions; rows 0.. of a larger one spread these over all features.
    corners = dct(np.eye(n_centres), norm="ortho", axis=0)[1:].T
    spread = dct(np.eye(n_features), norm="ortho", axis=0)[: n_centres - 1]
    return separation / np.sqrt(2) * corners @ spread


def _simplex_accuracy(n_centres, separation):
    """Accuracy of the nearest centre, for standard normal noise and equally frequent centres."""
    z, weight = np.polynomial.hermite_e.hermegauss(101)
    correct = ndtr(z + separation / np.sqrt(2)) ** (n_centres - 1)
    return float(weight @ correct / weight.sum())


def _waves(n_classes, size):
    """Phase of the stripes of each class at each pixel: (n_classes, size, size) float32."""
    angle = np.pi * np.arange(n_classes)[:, None, None] / n_classes
    position = 2 * np.pi * _N_STRIPES * np.arange(size) / size
    wave = np.cos(angle) * position + np.sin(angle) * position[:, None]
    return wave.astype(np.float32)
