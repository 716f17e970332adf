"""A NumPy number is as good a parameter as a Python one: grids from arrays, scipy.stats.randint."""

from numbers import Integral, Real

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from registry import ENTRIES, QUICK, ignored_warnings
from scipy.stats import randint
from sklearn.model_selection import RandomizedSearchCV
from sklearn.utils._param_validation import Interval
from torch import nn

from skspurious import ERMClassifier, SpuriousGroupInferrer, TorchFeatureExtractor
from skspurious.group_inference import KMeansGroups

pytestmark = ignored_warnings()
TABLES = [entry for entry in ENTRIES if entry.samples == "table" and not entry.is_stateless]

# What an open parameter, or one that is large, is in this test.
SMALL = {
    "batch_size": 8,
    "head_steps": 50,
    "max_epochs": 3,
    "max_iter": 100,
    "n_components": 2,
    "n_epochs_no_change": 2,
    "n_selected": 50,
    "silhouette": 50,
    "subset_seed": 3,
}


def _numbers(estimator, make):
    """The numbers among the parameters, as another type makes them."""
    params = estimator.get_params(deep=False)
    found = {"random_state": make(3)} if "random_state" in params else {}
    for name, value in params.items():
        rules = estimator._parameter_constraints.get(name, [])
        kinds = {rule.type for rule in rules if isinstance(rule, Interval)}
        value = SMALL.get(name, value)
        if isinstance(value, bool) or not kinds & {Integral, Real}:
            continue
        if isinstance(value, int):
            found[name] = make(value)
        elif isinstance(value, float) and make is not int:
            found[name] = np.float64(value)
    return found


def _answers(entry, params):
    fitted = entry.fitted(**params)
    for name in ("labels_", "scores_"):
        if hasattr(fitted, name):
            return getattr(fitted, name)
    X = np.random.default_rng(0).normal(size=(20, fitted.n_features_in_)).astype(np.float32)
    return fitted.predict_proba(X) if hasattr(fitted, "predict_proba") else fitted.transform(X)


@pytest.mark.parametrize("entry", TABLES, ids=lambda entry: entry.name)
def test_numpy_numbers_are_numbers(entry):
    estimator = entry(**(QUICK if entry.shared else {}))
    expected = _answers(entry, _numbers(estimator, int))
    for make in (np.int64, np.uint8):  # short ones overflow where they are reckoned with
        assert_array_equal(_answers(entry, _numbers(estimator, make)), expected)


def test_numpy_numbers_of_networks_and_methods():
    X = np.random.default_rng(0).random((16, 1, 8, 8), dtype=np.float32)
    y = np.arange(16) % 2

    def network():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2))

    def fit(make):
        clf = ERMClassifier(network(), max_epochs=make(2), batch_size=make(5), lr=0.1)
        extractor = TorchFeatureExtractor(network(), batch_size=make(3))
        method = KMeansGroups(n_clusters=make(2), n_init=make(2))
        Z = extractor.fit_transform(X)
        return (
            clf.set_params(random_state=make(0)).fit(X, y).predict_proba(X).shape,
            SpuriousGroupInferrer(method, random_state=make(0)).fit(Z, y).labels_.shape,
        )

    assert fit(np.int16) == fit(int) == ((16, 2), (16,))


def test_a_randomised_search_over_integers():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = np.arange(40) % 2
    grid = {"batch_size": randint(4, 16), "max_epochs": np.array([1, 2])}
    search = RandomizedSearchCV(
        ERMClassifier(lr=0.1), grid, n_iter=3, cv=2, random_state=0, error_score="raise"
    )
    assert search.fit(X, y).best_score_ > 0
