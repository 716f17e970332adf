"""The one file that touches private scikit-learn names."""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_params,
)
from sklearn.utils._pprint import _EstimatorPrettyPrinter
from sklearn.utils._user_interface import _print_elapsed_time
from sklearn.utils.validation import _check_sample_weight, _check_y

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "_EstimatorPrettyPrinter",
    "_check_sample_weight",
    "_check_y",
    "_fit_context",
    "_print_elapsed_time",
    "print_as_estimator",
    "validate_params",
]


def print_as_estimator(method: object) -> None:
    """Break lines of what has this ``__repr__`` as those of an estimator, in Pipelines too."""
    _EstimatorPrettyPrinter._dispatch[method] = _EstimatorPrettyPrinter._pprint_estimator
