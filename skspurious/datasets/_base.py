"""What the data sets share: labels, attributes, group numbers and descriptions."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skspurious.utils._sklearn_compat import Interval

# What the parameters of all make_* functions may be.
SYNTHETIC_CONSTRAINTS = {
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_classes": [Interval(Integral, 2, None, closed="left")],
    "n_attributes": [Interval(Integral, 2, None, closed="left"), None],
    "correlation_strength": [Interval(Real, 0, 1, closed="both")],
    "label_noise": [Interval(Real, 0, 1, closed="both")],
    "random_state": ["random_state"],
}

# Ten hues, 36 degrees apart; the names of the hues of 2, 5 or 10 attributes.
_HUE_NAMES = (
    *("red", "orange", "lime", "green", "spring green"),
    *("cyan", "azure", "blue", "violet", "rose"),
)


def make_generator(random_state):
    """A generator of one's own, so that the global one stays as it is, also for None."""
    if random_state is None:
        return np.random.default_rng()
    return np.random.default_rng(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def name_hues(n_attributes):
    """Names of 2, 5 or 10 colours whose hues are evenly spaced, beginning with red."""
    return np.array(_HUE_NAMES[:: 10 // n_attributes])


def draw_labels(n_samples, n_classes, rng):
    """Labels in random order; class sizes differ by one at most, the first classes larger."""
    return rng.permutation(np.arange(n_samples) % n_classes)


def assign_attributes(y, *, n_classes, n_attributes, correlation_strength, rng):
    """Draw the spurious attribute of every sample; the group sizes are not left to chance.

    Of the ``n`` samples of class ``c``, ``correlation_strength * n``, to the nearest integer, get
    the attribute ``c % n_attributes``. The rest get the other attributes in turn, beginning with
    the one that follows. Which samples get which is random.
    """
    attribute = np.empty(len(y), dtype=np.int64)
    for label in range(n_classes):
        rows = rng.permutation(np.flatnonzero(y == label))
        n_aligned = int(np.floor(correlation_strength * len(rows) + 0.5))
        turn = np.arange(len(rows) - n_aligned) % (n_attributes - 1)
        attribute[rows[:n_aligned]] = label % n_attributes
        attribute[rows[n_aligned:]] = (label + 1 + turn) % n_attributes
    return attribute


def flip_labels(y, *, n_classes, n_flipped, rng):
    """Copy of ``y`` in which ``n_flipped`` random samples have another, random label.

    What is drawn from ``rng`` afterwards does not depend on ``n_flipped``.
    """
    rows = rng.permutation(len(y))[:n_flipped]
    shift = rng.integers(1, n_classes, size=len(y))
    flipped = y.copy()
    flipped[rows] = (y[rows] + shift[rows]) % n_classes
    return flipped


def draw_labels_and_attributes(
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


def number_names(word, n):
    """Names such as "class 0", "class 1"."""
    return np.array([f"{word} {i}" for i in range(n)])


def make_bunch(*, target, spurious_attribute, target_names, attribute_names, DESCR, **fields):
    """Bunch of a data set, with ``sample_group`` and the table of group sizes in DESCR.

    Groups are numbered over all classes and attributes that there can be, as
    ``make_sample_group`` numbers them when all occur: a split in which one is absent keeps the
    numbers of the others.
    """
    n_classes, n_attributes = len(target_names), len(attribute_names)
    group = target * n_attributes + spurious_attribute
    sizes = np.bincount(group, minlength=n_classes * n_attributes)
    table = np.array2string(sizes.reshape(n_classes, n_attributes), threshold=1000)
    title = "Group sizes (a row for each class, a column for each attribute):"
    return Bunch(
        target=target,
        spurious_attribute=spurious_attribute,
        sample_group=group,
        target_names=target_names,
        attribute_names=attribute_names,
        DESCR=f"{DESCR}\n{title}\n{table}\n",
        **fields,
    )
