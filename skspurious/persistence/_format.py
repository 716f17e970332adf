"""What the writer and the reader of model files agree on.

The tensors of a file are all arrays and weights; its header has a JSON text, a tree of nodes,
which says what they belong to, and a hash of both. Reading it calls no function that the file
names: classes are looked up in the public modules of this package and of scikit-learn that are
listed here, and what is code (a network of the user's own, a transform) is not written but given
again by the caller.
"""

import hashlib
import importlib

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from skspurious._engine._modules import build_module
from skspurious.utils._identity import bytes_of

FORMAT = 2
KEY, HASH = "skspurious", "blake2b"  # of the header
GIVEN = "given"  # node of a parameter that is not in the file

# Modules whose public classes are made again, and what else occurs in fitted estimators.
_FAMILIES = {
    *(f"skspurious.{name}" for name in ("embedding", "group_inference", "mitigation", "views")),
    *("skspurious.pipeline", "sklearn.calibration", "sklearn.cluster", "sklearn.compose"),
    *("sklearn.decomposition", "sklearn.discriminant_analysis", "sklearn.dummy"),
    *("sklearn.ensemble", "sklearn.feature_extraction", "sklearn.feature_selection"),
    *("sklearn.frozen", "sklearn.impute", "sklearn.kernel_approximation", "sklearn.linear_model"),
    *("sklearn.mixture", "sklearn.naive_bayes", "sklearn.neighbors", "sklearn.neural_network"),
    *("sklearn.pipeline", "sklearn.preprocessing", "sklearn.random_projection", "sklearn.svm"),
    *("sklearn.feature_extraction.text", "sklearn.tree"),
}
_PARTS = {
    f"skspurious.{module}:{name}"
    for module, names in {
        "data._description": ["InputDescription"],
        "embedding._frozen": ["FrozenNetwork"],
        "group_inference._clusters": ["CentroidClusters", "MappedClusters"],
        "group_inference._columns": ["TableColumns"],
        "group_inference._effect": ["BalancingEffect"],
        "group_inference._evidence": ["Evidence"],
        "group_inference._found_evidence": ["KeptSamples"],
        "group_inference._gmm": ["GaussianClusters"],
        "group_inference._judge": ["Judge"],
        "group_inference._neighbors": ["NeighborIndex", "TrainingRows"],
        "group_inference._overclustering": ["SplitClusters"],
        "group_inference._spaces": ["LinearSpace", "UmapSpace"],
        "mitigation._xrm_twins": ["TwinGroups", "TwinNetworks"],
    }.items()
    for name in names
}
_NAMED = ("skspurious.networks", "torch.optim", "numpy")  # whose classes can be parameters


def find_class(name):
    """A listed class by its name, or None: nothing else is imported."""
    module, _, qualname = name.partition(":")
    if name in _PARTS:
        return getattr(importlib.import_module(module), qualname)
    words = module.split(".")
    for family in {".".join(words[:n]) for n in (2, 3)} & _FAMILIES:
        public = importlib.import_module(family)
        cls = getattr(public, qualname, None) if qualname in public.__all__ else None
        if isinstance(cls, type) and issubclass(cls, BaseEstimator) and cls.__module__ == module:
            return cls
    return None


def name_of(value):
    """The name under which a class that is a parameter is written, or None."""
    if not isinstance(value, type):
        return None
    inside = [m for m in _NAMED if f"{value.__module__}.".startswith(f"{m}.")]
    return f"{inside[0]}:{value.__qualname__}" if inside else None


def find_named(name):
    """The class that a parameter names, or None."""
    module, _, qualname = name.partition(":")
    value = getattr(importlib.import_module(module), qualname, None) if module in _NAMED else None
    kinds = (nn.Module, torch.optim.Optimizer, np.generic)
    return value if isinstance(value, type) and issubclass(value, kinds) else None


def content_hash(text, tensors):
    """The hash of a file: of the JSON text and of all tensors, with their names and shapes."""
    digest = hashlib.blake2b(text.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def fresh_network(owner):
    """A network as the owner's ``module`` makes it, with any weights."""
    return build_module(
        owner.module,
        module_params=owner.module_params,
        sample_shape=owner._description.sample_shape,
        n_classes=len(owner.classes_) if hasattr(owner, "classes_") else None,
        seed=0,
    )
