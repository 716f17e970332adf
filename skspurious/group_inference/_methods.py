"""The methods by their names."""

from sklearn.base import clone

from skspurious.group_inference._dispersion import DispersionGroups
from skspurious.group_inference._error import ErrorGroups
from skspurious.group_inference._gmm import GaussianMixtureGroups
from skspurious.group_inference._kmeans import KMeansGroups
from skspurious.group_inference._spare import SpareGroups

METHODS = {
    "kmeans": KMeansGroups,
    "gmm": GaussianMixtureGroups,
    "spare": SpareGroups,
    "dispersion": DispersionGroups,
    "error": ErrorGroups,
}


def new_method(method):
    """An unfitted method: that of a name, or a clone of an object."""
    return METHODS[method]() if isinstance(method, str) else clone(method)
