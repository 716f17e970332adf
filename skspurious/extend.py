"""What a method is made of: base class, losses, samplers, stages, and the checks of a method.

``docs/extending.md`` writes a method from scratch.
"""

from skspurious._engine._objective import Objective, WeightedLoss
from skspurious._engine._samplers import (
    BalancedBatchSampler,
    BalancedSubsetSampler,
    SubsetSampler,
    UniformSampler,
    WeightedSampler,
)
from skspurious._engine._stage import Stage
from skspurious._method_checks import check_method
from skspurious._prediction import read_outputs
from skspurious._training import Trained, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.callbacks import Callback
from skspurious.group_inference._base import GroupMethod
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

__all__ = [
    "BalancedBatchSampler",
    "BalancedSubsetSampler",
    "BaseTorchClassifier",
    "Callback",
    "GroupMethod",
    "Interval",
    "Objective",
    "Stage",
    "StrOptions",
    "SubsetSampler",
    "Trained",
    "UniformSampler",
    "WeightedLoss",
    "WeightedSampler",
    "check_method",
    "extends",
    "read_outputs",
    "run_stage",
]
