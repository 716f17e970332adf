"""A fit is all or nothing."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from sklearn.base import BaseEstimator

from skspurious.utils._parameters import shallow_copy
from skspurious.utils._sklearn_compat import _fit_context as _sklearn_fit_context


def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable:
    """scikit-learn's ``_fit_context``, for a fit that works on a copy.

    What is learned goes to a copy of the estimator, whose attributes become the estimator's own at
    the end, by one assignment. A fit that fails, or is interrupted, leaves it as it was: fitted
    as before, or not fitted.
    """
    validated = _sklearn_fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)

    def decorator(fit: Callable) -> Callable:
        on_copy = validated(fit)
        parameters = inspect.signature(fit).parameters

        @functools.wraps(fit)
        def whole(self: Any, *args: Any, **kwargs: Any) -> Any:
            if "groups" in kwargs and "groups" not in parameters:
                remedy = "It finds groups, and takes none."
                if "sample_group" in parameters:
                    remedy = "Pass them as sample_group=, or as X=GroupedData(X, sample_group)."
                raise TypeError(f"{type(self).__name__}.fit has no argument groups. {remedy}")
            working = shallow_copy(self)
            on_copy(working, *args, **kwargs)
            self.__dict__ = vars(working)
            return self

        return whole

    return decorator


@contextlib.contextmanager
def restored_on_failure(pipeline: BaseEstimator) -> Iterator[None]:
    """The steps, which are fitted in place, as they were before a fit that fails."""
    steps = [v for v in pipeline.get_params(deep=True).values() if isinstance(v, BaseEstimator)]
    before = [(step, vars(step).copy()) for step in steps]
    try:
        yield
    except BaseException:
        for step, state in before:
            step.__dict__ = state
        raise
