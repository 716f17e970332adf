"""scikit-learn's own checks on every public estimator, and a test that none is missing.

All of them at the estimators' defaults take 72 CPU seconds in one process on one core.
"""

import importlib
import inspect
import pkgutil

import pytest
from registry import ENTRIES, VIEWS, by_name, ignored_warnings
from sklearn.base import BaseEstimator
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import skspurious
from skspurious.group_inference._base import GroupMethod

pytestmark = ignored_warnings()


def expected_failed_checks(estimator):
    return by_name(ENTRIES)[type(estimator).__name__].failures


def public_estimators():
    """Names of the estimator classes in the ``__all__`` of every public module."""
    names = set()
    for info in pkgutil.walk_packages(skspurious.__path__, "skspurious."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            # Methods of the inferrer have parameters, but no fit and no predict of their own: the
            # inferrer with each of them is checked in tests/group_inference.
            is_estimator = inspect.isclass(value) and issubclass(value, BaseEstimator)
            if is_estimator and not issubclass(value, GroupMethod):
                names.add(name)
    return names


@parametrize_with_checks(
    [entry.to_check() for entry in ENTRIES], expected_failed_checks=expected_failed_checks
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# Those of scikit-learn's checks that give no X: it would be a table, which is no picture or text.
WITHOUT_X = [
    checks.check_estimator_cloneable,
    checks.check_estimator_repr,
    checks.check_estimator_tags_renamed,
    checks.check_get_params_invariance,
    checks.check_mixin_order,
    checks.check_no_attributes_set_in_init,
    checks.check_set_params,
    checks.check_valid_tag_types,
]


@pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
@pytest.mark.parametrize("check", WITHOUT_X, ids=lambda check: check.__name__)
def test_scikit_learn_checks_of_views(entry, check):
    check(entry.name, entry())


def test_every_public_estimator_is_in_the_registry():
    """From which every common suite draws."""
    bases = {"BaseTorchClassifier"}  # what others extend is no estimator of its own
    assert public_estimators() - bases == {entry.name for entry in ENTRIES + VIEWS}


def test_every_estimator_of_the_top_level_is_public_in_its_family_too():
    top = {
        name
        for name in skspurious.__all__
        if inspect.isclass(getattr(skspurious, name))
        and issubclass(getattr(skspurious, name), BaseEstimator)
    }
    assert top <= public_estimators()


def test_expected_failures_give_a_reason():
    for entry in ENTRIES:
        assert all(len(reason) > 20 for reason in entry.failures.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_expected_failures_are_few(entry):
    """A failure is a decision, not a habit: one per estimator."""
    as_in_scikit_learn = {k for k, why in entry.failures.items() if why.startswith("as in scikit")}
    assert len(set(entry.failures) - as_in_scikit_learn) <= 1
