import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from skspurious.data import make_sample_group
from skspurious.metrics import group_sample_weight


def test_group_sample_weight_by_hand():
    # Pairs (0, a): 2, (0, b): 1, (1, b): 1; 4 / (3 * 2) and 4 / (3 * 1).
    weight = group_sample_weight([0, 0, 0, 1], ["a", "a", "b", "b"])
    assert_allclose(weight, [2 / 3, 2 / 3, 4 / 3, 4 / 3])


def test_group_sample_weight_balances_every_pair_and_has_mean_one():
    rng = np.random.default_rng(0)
    y, attribute = rng.integers(0, 3, 500), rng.choice(["sea", "sky"], 500, p=[0.9, 0.1])
    weight = group_sample_weight(y, attribute)
    assert weight.mean() == pytest.approx(1)
    assert_allclose(pd.Series(weight).groupby([y, attribute]).sum(), 500 / 6)


def test_group_sample_weight_is_the_same_for_attribute_and_crossed_group():
    rng = np.random.default_rng(0)
    y, attribute = rng.integers(0, 2, (2, 50))
    crossed = group_sample_weight(y, make_sample_group(y, attribute))
    assert_allclose(group_sample_weight(y, attribute), crossed)
    frame = pd.DataFrame({"label": y, "attribute": attribute})
    assert_allclose(group_sample_weight(y, frame), crossed)


def test_group_sample_weight_of_one_group_is_one():
    assert_allclose(group_sample_weight([0, 0, 0], ["a"] * 3), 1)


def test_group_sample_weight_equals_copies_for_an_sklearn_estimator():
    y, attribute = np.repeat([0, 1], [6, 6]), np.array([0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1])
    X = np.random.default_rng(0).normal(size=(12, 2))
    weighted = LogisticRegression().fit(X, y, sample_weight=group_sample_weight(y, attribute))
    # Groups of 4 and 2: weights 12 / (4 * 4) and 12 / (4 * 2), so 1 to 2, times 3 / 4.
    copies = np.repeat(np.arange(12), np.where(y == attribute, 1, 2))
    repeated = LogisticRegression(C=0.75).fit(X[copies], y[copies])
    assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-3)


def test_group_sample_weight_compares_lengths():
    with pytest.raises(ValueError, match="sample_group has 1 rows for 2 samples"):
        group_sample_weight([0, 1], ["a"])


def test_group_sample_weight_refuses_missing_groups():
    with pytest.raises(ValueError, match="missing"):
        group_sample_weight([0, 1], ["a", None])
