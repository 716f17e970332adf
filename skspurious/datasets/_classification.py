"""A synthetic table with a known spurious attribute."""

from numbers import Integral, Real

import numpy as np
from scipy.fft import dct
from scipy.special import ndtr

from skspurious.datasets._base import (
    SYNTHETIC_CONSTRAINTS,
    draw_labels_and_attributes,
    make_bunch,
    make_generator,
    number_names,
)
from skspurious.utils._sklearn_compat import Interval, validate_params

__all__ = ["make_spurious_classification"]

_DESCR = """Synthetic table with a spurious attribute

Normal core features around the centre of the class, normal spurious features around the centre of
the spurious attribute, and noise. Correlation strength {correlation_strength}.
"""


@validate_params(
    {
        **SYNTHETIC_CONSTRAINTS,
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
        balanced groups, as for a test set; 1 leaves no minority group, 0 no majority group.
    n_core_features : int, default=None
        Number of core features, at least ``n_classes - 1``. None means this number, but not less
        than 2.
    n_spurious_features : int, default=None
        Number of spurious features, at least ``n_attributes - 1``. None means this number, but not
        less than 2.
    n_noise_features : int, default=4
        Number of standard normal features that depend on nothing.
    core_separation : float, default=2.5
        Distance between the core centres of any two classes, in standard deviations of a feature.
    spurious_separation : float, default=5.0
        Distance between the spurious centres of any two attributes, in the same unit.
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
    label, attribute, target = draw_labels_and_attributes(
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
        target_names=number_names("class", n_classes),
        attribute_names=number_names("attribute", n_attributes),
        DESCR=_DESCR.format(correlation_strength=correlation_strength),
    )


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
