"""What ``Estimator()`` gives on the data that everybody tries first, where no groups mislead."""

import numpy as np
import pytest
from registry import CLASSIFIERS, ignored_warnings
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious import SpuriousGroupInferrer

pytestmark = ignored_warnings()

PLAIN = {"ERMClassifier", "PrunedRetrainer"}  # all others balance something


@pytest.fixture(scope="module")
def accuracy():
    """Mean accuracy of five folds, by data set and estimator."""
    sets = [load(return_X_y=True) for load in (load_iris, load_wine, load_breast_cancer)]
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def of(estimator):
        pipeline = make_pipeline(StandardScaler(), estimator)
        return np.array([cross_val_score(pipeline, X, y, cv=folds).mean() for X, y in sets])

    return of


@pytest.fixture(scope="module")
def reference(accuracy):
    return accuracy(LogisticRegression())


@pytest.mark.parametrize(
    "entry",
    CLASSIFIERS,
    ids=lambda entry: entry.name,
)
def test_defaults_are_near_logistic_regression(entry, accuracy, reference):
    needs_inferrer = entry.needs_groups and entry.takes_inferrer
    params = {"group_inferrer": SpuriousGroupInferrer()} if needs_inferrer else {}
    found = accuracy(entry.cls(random_state=0, **params))
    limit = 0.02 if entry.name in PLAIN else 0.03
    assert (found > reference - limit).all()
