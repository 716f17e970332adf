"""Warnings point at the line of the user, whatever is between."""

import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skspurious
from skspurious.model_selection import EveryGroupKFold
from skspurious.utils._warnings import warn

PACKAGE = Path(skspurious.__file__).parent
X, y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2


def of_the_package(path, source, **names):
    """The names that source code defines when it lies in a file of the package."""
    namespace = {"__name__": f"skspurious.{Path(path).stem}", "warn": warn, **names}
    exec(compile(textwrap.dedent(source), str(PACKAGE / path), "exec"), namespace)
    return namespace


formula = of_the_package(
    "functional/_formula.py",
    """
    import contextlib
    import functools
    import torch

    @contextlib.contextmanager
    def quiet():
        yield

    @functools.singledispatch
    def outer(n):
        middle(n)

    @quiet()
    def middle(n):
        inner(n)

    @torch.no_grad()
    def inner(n):
        warn(f"{n} rows")
    """,
)["outer"]

# Its fit is wrapped as those of the package are, by scikit-learn's _fit_context.
method = of_the_package(
    "mitigation/_method.py",
    """
    from skspurious.utils._sklearn_compat import _fit_context

    class Method(ClassifierMixin, BaseEstimator):
        _parameter_constraints = {"C": [float]}

        def __init__(self, C=1.0):
            self.C = C

        @_fit_context(prefer_skip_nested_validation=True)
        def fit(self, X, y):
            self.classes_ = [0, 1]
            self._train()
            return self

        def _train(self):
            warn("outliers", RuntimeWarning)

        def predict(self, X):
            return [0] * len(X)
    """,
    BaseEstimator=BaseEstimator,
    ClassifierMixin=ClassifierMixin,
)["Method"]


def lines_of(function):
    """Where the warnings of a call are said to be, as lines of this file after its first."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    assert caught
    assert {w.filename for w in caught} == {__file__}
    return {w.lineno - function.__code__.co_firstlineno for w in caught}


def test_fit_is_the_line_directly_and_from_a_pipeline_or_a_search():
    def directly():
        clf = method()
        clf.fit(X, y)

    def in_a_pipeline():
        pipeline = make_pipeline(StandardScaler(), method())
        pipeline.fit(X, y)

    def in_a_search():
        clf = make_pipeline(StandardScaler(), method())
        grid = {"method__C": [1.0, 2.0]}
        GridSearchCV(clf, grid, cv=2).fit(X, y)

    assert lines_of(directly) == {2}
    assert lines_of(in_a_pipeline) == {2}
    assert lines_of(in_a_search) == {3}


def test_a_function_of_the_functional_layer_behind_decorators():
    def directly():
        formula(len(X))

    assert lines_of(directly) == {1}


def test_a_generator_and_what_cross_validates_with_it():
    few = np.array([0] * 10 + [1] * 2)

    def directly():
        splits = EveryGroupKFold(3).split(X, few, few)
        list(splits)

    def in_cross_validate():
        splitter = EveryGroupKFold(3)
        cross_validate(
            make_pipeline(StandardScaler(), Plain()),
            X,
            few,
            groups=few,
            cv=splitter,
        )

    assert lines_of(directly) == {2}
    (line,) = lines_of(in_cross_validate)
    assert 2 <= line <= 8


class Plain(ClassifierMixin, BaseEstimator):
    """Warns of nothing; a class of the user's."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=int)


def test_without_a_line_of_the_user_it_is_the_outermost_one(monkeypatch):
    monkeypatch.setattr("skspurious.utils._warnings._is_internal", lambda frame: True)
    with pytest.warns(UserWarning, match="lost") as caught:
        warn("lost")
    assert caught[0].filename != __file__


def test_a_filter_by_category_and_module_works():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="outliers"):
            method().fit(X, y)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=__name__)
        method().fit(X, y)


def test_a_folder_beside_the_package_is_the_users():
    beside = of_the_package(
        PACKAGE.with_name("skspurious_study") / "run.py", "def run():\n    warn('here')"
    )
    with pytest.warns(UserWarning, match="here") as caught:
        beside["run"]()
    assert Path(caught[0].filename).name == "run.py"
