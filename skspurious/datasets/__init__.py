"""Data sets with a known spurious attribute: generators, a bundled one, and readers."""

from skspurious.datasets._classification import make_spurious_classification
from skspurious.datasets._digits import load_spurious_digits
from skspurious.datasets._images import make_spurious_images
from skspurious.datasets._spuco_mnist import fetch_spuco_mnist

__all__ = [
    "fetch_spuco_mnist",
    "load_spurious_digits",
    "make_spurious_classification",
    "make_spurious_images",
]
