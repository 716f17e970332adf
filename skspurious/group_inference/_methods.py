"""The methods by their names."""

from sklearn.base import clone

from skspurious.group_inference._dispersion import DispersionGroups
from skspurious.group_inference._eiil import EIILGroups
from skspurious.group_inference._error import ErrorGroups
from skspurious.group_inference._gmm import GaussianMixtureGroups
from skspurious.group_inference._kmeans import KMeansGroups
from skspurious.group_inference._spare import SpareGroups
from skspurious.group_inference._xrm import XRMGroups

METHODS = {
    "kmeans": KMeansGroups,
    "gmm": GaussianMixtureGroups,
    "spare": SpareGroups,
    "dispersion": DispersionGroups,
    "error": ErrorGroups,
    "xrm": XRMGroups,
    "eiil": EIILGroups,
}


def new_method(method):
    """An unfitted method: that of a name, or a clone of an object."""
    return METHODS[method]() if isinstance(method, str) else clone(method)
