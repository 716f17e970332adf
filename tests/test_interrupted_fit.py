"""A fit that is interrupted, wherever, leaves the estimator as it was."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
from registry import ENTRIES, SMALL, VIEWS, ignored_warnings
from sklearn.base import clone

import skspurious

pytestmark = ignored_warnings()

PACKAGE = str(Path(skspurious.__file__).parent)


class InterruptedAt:
    """Raises KeyboardInterrupt at the n-th call of a function of this package."""

    def __init__(self, n=None):
        self.n, self.n_calls = n, 0

    def __call__(self, frame, event, arg):
        code = frame.f_code
        # A generator is also called when it is thrown away, where nobody hears of an error.
        is_generator = code.co_flags & inspect.CO_GENERATOR
        if event == "call" and code.co_filename.startswith(PACKAGE) and not is_generator:
            self.n_calls += 1
            if self.n_calls == self.n:
                raise KeyboardInterrupt

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *error):
        sys.settrace(self.before)


def states(estimator):
    """The attributes of an estimator and of those among its parameters."""
    nested = [v for v in estimator.get_params().values() if hasattr(v, "get_params")]
    nested = [v for v in nested if not isinstance(v, type)]
    return [dict(vars(part)) for part in (estimator, *nested)]


def assert_untouched(estimator, before):
    for now, was in zip(states(estimator), before, strict=True):
        assert list(now) == list(was)
        assert all(now[name] is was[name] for name in was if name != "steps")


def moments(fit):
    """Some of the calls within a fit, the first and one near the end among them."""
    with InterruptedAt() as count:
        fit()
    return sorted({max(1, int(share * count.n_calls)) for share in (0, 0.4, 0.8, 0.98)})


def check(make, fit, other_fit):
    """``fit`` and ``other_fit`` are of an estimator; ``other_fit`` is interrupted."""
    new, fitted, counted = make(), make(), make()
    fit(fitted)
    before, unfitted = states(fitted), states(new)
    for n in moments(lambda: other_fit(counted)):
        with pytest.raises(KeyboardInterrupt), InterruptedAt(n):
            other_fit(fitted)
        assert_untouched(fitted, before)
        with pytest.raises(KeyboardInterrupt), InterruptedAt(n):
            other_fit(new)
        assert_untouched(new, unfitted)


@pytest.mark.parametrize("entry", ENTRIES + VIEWS, ids=lambda entry: entry.name)
def test_an_interrupted_fit_changes_nothing(entry):
    X, y, group = SMALL[entry.samples]()
    params = entry.quick if not entry.shared else {"lr": 0.1, "max_epochs": 2, "random_state": 0}
    given = {"sample_group": group} if entry.needs_groups else {}
    named = np.array(["cat", "dog"])[np.asarray(y)]

    def make():
        return clone(entry(**params))  # one Pipeline shares its steps with no other

    check(make, lambda e: e.fit(X, y, **given), lambda e: e.fit(X, named, **given))
