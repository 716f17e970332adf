"""What the writer and the reader of model files agree on.

The tensors of a file are all arrays and weights; its header has a JSON text, a tree of nodes,
which says what they belong to. Reading it calls no function that the file names: classes come
from this package and from scikit-learn, and what is code (a network of the user's own, a
transform) is not written but given again by the caller.
"""

import numpy as np
import torch
from torch import nn

from skspurious._engine._modules import build_module

FORMAT = 1
KEY = "skspurious"  # of the header
PACKAGES = ("skspurious", "sklearn")  # whose classes are made again
NAMED = ("skspurious.", "torch.optim.", "numpy.")  # whose classes can be parameters
GIVEN = "given"  # node of a parameter that is not in the file


def is_named(value):
    """Whether a value is a class that is written by its name."""
    return (
        isinstance(value, type)
        and f"{value.__module__}.".startswith(NAMED)
        and "." not in value.__qualname__
        and issubclass(value, nn.Module | torch.optim.Optimizer | np.generic)
    )


def fresh_network(owner):
    """A network as the owner's ``module`` makes it, with any weights."""
    return build_module(
        owner.module,
        module_params=owner.module_params,
        sample_shape=owner._description.sample_shape,
        n_classes=len(owner.classes_) if hasattr(owner, "classes_") else None,
        seed=0,
    )
