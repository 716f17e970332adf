"""Groups found without group labels, or from a few."""

from skspurious.group_inference._annotations import suggest_annotations
from skspurious.group_inference._dispersion import DispersionGroups
from skspurious.group_inference._eiil import EIILGroups
from skspurious.group_inference._error import ErrorGroups
from skspurious.group_inference._evidence import Evidence, evidence_of
from skspurious.group_inference._gmm import GaussianMixtureGroups
from skspurious.group_inference._inferrer import SpuriousGroupInferrer
from skspurious.group_inference._jury import ViewJury
from skspurious.group_inference._kmeans import KMeansGroups
from skspurious.group_inference._semi_supervised import SemiSupervisedGroupInferrer
from skspurious.group_inference._spare import SpareGroups
from skspurious.group_inference._xrm import XRMGroups

__all__ = [
    "DispersionGroups",
    "EIILGroups",
    "ErrorGroups",
    "Evidence",
    "GaussianMixtureGroups",
    "KMeansGroups",
    "SemiSupervisedGroupInferrer",
    "SpareGroups",
    "SpuriousGroupInferrer",
    "ViewJury",
    "XRMGroups",
    "evidence_of",
    "suggest_annotations",
]
