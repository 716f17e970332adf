"""method="dispersion": class times near or far."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import silhouette_score

from skspurious.functional._dispersion import find_dispersed
from skspurious.group_inference import DispersionGroups, SpuriousGroupInferrer


def make_conflict(n_samples=600, seed=0):
    """Two classes; 1 sample in 10 has the spurious feature of the other class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    conflicting = np.arange(n_samples) // 2 % 10 == 0
    sign = 2 * y - 1
    X = np.stack([sign, 3 * np.where(conflicting, -sign, sign)], axis=1)
    return X + rng.normal(scale=0.3, size=X.shape), y, conflicting


@pytest.mark.fidelity
def test_groups_are_near_and_far_samples_of_each_class():
    X, y, conflicting = make_conflict()
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    dispersed, means = find_dispersed(X, y)
    assert_array_equal(inferrer.labels_, 2 * y + dispersed)
    assert_array_equal(dispersed, conflicting)
    assert_allclose(inferrer.cluster_centers_[1], X[(y == 0) & dispersed].mean(axis=0))
    expected = [silhouette_score(X[y == k], dispersed[y == k]) for k in (0, 1)]
    assert_allclose(inferrer.silhouette_, expected, atol=1e-6)
    assert_allclose(means[0], X[y == 0].mean(axis=0))


@pytest.mark.fidelity
def test_a_class_without_outliers_is_one_group():
    X, y, conflicting = make_conflict()
    keep = ~(conflicting & (y == 0))
    inferrer = SpuriousGroupInferrer("dispersion").fit(X[keep], y[keep])
    assert_array_equal(inferrer.n_clusters_, [1, 2])
    assert np.isnan(inferrer.silhouette_[0])
    # A new sample of class 0 that lies far still belongs to its only group.
    far = X[conflicting & (y == 0)]
    zeros = np.zeros(len(far))
    assert_array_equal(inferrer.predict(far, y=zeros), 0)
    proba = inferrer.predict_proba(far, y=zeros)
    assert_allclose(proba, np.tile([1.0, 0.0, 0.0], (len(far), 1)))


@pytest.mark.fidelity
def test_new_rows_follow_the_same_rule():
    X, y, _ = make_conflict()
    X_new, y_new, conflicting_new = make_conflict(seed=1)
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    assert_array_equal(inferrer.predict(X_new, y=y_new), 2 * y_new + conflicting_new)
    nearest = np.where(conflicting_new, 1 - y_new, y_new)
    assert_array_equal(inferrer.predict(X_new), 2 * nearest)


@pytest.mark.parametrize("n_features", [1, 3])
def test_membership_compares_the_own_mean_with_the_nearest_other_one(n_features):
    # Class means 1, 7 and 21. The row at 1 of class 1 lies far; that at 14 is a tie, so near.
    X = np.zeros((7, n_features))
    X[:, 0] = [0.0, 2.0, 1.0, 6.0, 14.0, 20.0, 22.0]
    new = np.eye(1, n_features) * 5.0
    y = np.array([0, 0, 1, 1, 1, 2, 2])
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 2, 1])
    variance = (1 + 1 + 36 + 1 + 49 + 1 + 1) / 7 / n_features
    odds = np.exp(-((5.0 - 7.0) ** 2 - (5.0 - 1.0) ** 2) / (2 * variance))  # of near, at 5
    proba = inferrer.predict_proba(new, y=[1])[0]
    assert_allclose(proba, [0.0, odds / (1 + odds), 1 / (1 + odds), 0.0])
    weight = np.exp(-np.array([16.0, 4.0, 0.0, 256.0]) / (2 * variance)) * [1, 1, 0, 1]
    assert_allclose(inferrer.predict_proba(new)[0], weight / weight.sum())


def test_rows_are_not_normalised_unless_asked():
    X, y, _ = make_conflict()
    assert not SpuriousGroupInferrer("dispersion").fit(X, y).normalize_
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    asked = SpuriousGroupInferrer("dispersion", normalize=True).fit(X, y)
    assert_array_equal(asked.labels_, SpuriousGroupInferrer("dispersion").fit(rows, y).labels_)


def test_few_outliers_can_be_left_in_their_class():
    X, y, conflicting = make_conflict()
    keep = ~(conflicting & (y == 0)) | (np.arange(600) < 60)  # class 0 keeps 3 outliers
    X, y = X[keep], y[keep]
    assert_array_equal(SpuriousGroupInferrer("dispersion").fit(X, y).n_clusters_, [2, 2])
    inferrer = SpuriousGroupInferrer(DispersionGroups(min_group_size=4)).fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 2])
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)


def test_a_class_of_outliers_only_is_one_group():
    # The mean of class 1 is 0, and so are no samples of it; both lie nearer to another mean.
    X = np.array([[-4.0], [-4.2], [-4.0], [4.0], [4.0], [4.2]])
    y = np.array([0, 0, 1, 1, 2, 2])
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 1, 1])
    assert_array_equal(inferrer.labels_, y)
    assert_array_equal(inferrer.predict([[0.1]]), [1])


def test_three_classes_have_one_far_group_each():
    rng = np.random.default_rng(0)
    center = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    y = np.arange(300) % 3
    at = np.where(np.arange(300) // 3 % 10 == 0, (y + 1 + np.arange(300) // 30 % 2) % 3, y)
    X = center[at] + rng.normal(scale=0.3, size=(300, 2))
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    assert_array_equal(inferrer.labels_, 2 * y + (at != y))
    proba = inferrer.predict_proba(X, y=y)
    assert_allclose(proba.sum(axis=1), 1.0)
    assert_array_equal(proba.argmax(axis=1), inferrer.labels_)
