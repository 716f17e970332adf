"""Groups found without group labels, or from a few."""

from skspurious.group_inference._annotations import suggest_annotations
from skspurious.group_inference._dispersion import DispersionGroups
from skspurious.group_inference._error import ErrorGroups
from skspurious.group_inference._gmm import GaussianMixtureGroups
from skspurious.group_inference._inferrer import SpuriousGroupInferrer
from skspurious.group_inference._kmeans import KMeansGroups
from skspurious.group_inference._semi_supervised import SemiSupervisedGroupInferrer
from skspurious.group_inference._spare import SpareGroups

__all__ = [
    "DispersionGroups",
    "ErrorGroups",
    "GaussianMixtureGroups",
    "KMeansGroups",
    "SemiSupervisedGroupInferrer",
    "SpareGroups",
    "SpuriousGroupInferrer",
    "suggest_annotations",
]
