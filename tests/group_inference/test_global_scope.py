"""scope="global": clusters of all classes together, groups as their cells with the classes."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.group_inference._methods import METHODS


def make_backgrounds(n_samples=600, seed=0):
    """Three backgrounds, of which two go with a class; the third is in class 1 only."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    background = np.where(np.arange(n_samples) // 2 % 10 == 0, 1 - y, y)
    background[(y == 1) & (np.arange(n_samples) % 5 == 0)] = 2
    X = 6.0 * np.eye(4)[background]
    X[:, 3] = 0.5 * y
    order = rng.permutation(n_samples)
    return (X + rng.normal(scale=0.4, size=X.shape))[order], y[order], background[order]


def make_inferrer(method="kmeans", **params):
    inferrer = SpuriousGroupInferrer(METHODS[method](), scope="global", random_state=0)
    own = inferrer.method.get_params()
    return inferrer.set_params(**{f"method__{k}" if k in own else k: v for k, v in params.items()})


def test_global_scope_clusters_all_classes_together():
    X, y, background = make_backgrounds()
    inferrer = make_inferrer().fit(X, y)
    assert adjusted_rand_score(background, inferrer.clusters_) == 1.0
    sizes = np.bincount(inferrer.clusters_)
    assert_array_equal(sizes, np.sort(np.bincount(background))[::-1])  # the largest first
    # the groups are the five cells that occur, class by class, then cluster by cluster
    cells = sorted(set(zip(y.tolist(), inferrer.clusters_.tolist())))
    assert len(cells) == 5
    number = {cell: i for i, cell in enumerate(cells)}
    expected = [number[cell] for cell in zip(y.tolist(), inferrer.clusters_.tolist())]
    assert_array_equal(inferrer.labels_, expected)
    assert_array_equal(inferrer.groups_, np.arange(5))
    assert_array_equal(inferrer.group_classes_, [k for k, _ in cells])
    assert_array_equal(inferrer.group_clusters_, [c for _, c in cells])
    assert_array_equal(inferrer.n_clusters_, [2, 3])
    assert_array_equal(inferrer.cluster_sizes_, np.bincount(expected))
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    means = np.stack([rows[inferrer.clusters_ == c].mean(axis=0) for c in range(3)])
    assert_allclose(inferrer.cluster_centers_, means[inferrer.group_clusters_], atol=1e-5)
    expected = silhouette_score(rows, inferrer.clusters_)
    assert_allclose(inferrer.silhouette_, [expected, expected], atol=1e-6)
    table = inferrer.cluster_search_
    assert table["class"].isna().all()
    assert table["n_clusters"].tolist() == list(range(2, 11))
    assert table["selected"].tolist() == [False, True] + 7 * [False]


def test_global_scope_with_a_number_of_clusters_is_one_k_means():
    X, y, _ = make_backgrounds()
    inferrer = make_inferrer(n_clusters=3, normalize=False).fit(X, y)
    reference = KMeans(3, n_init=10, random_state=0).fit(X)
    assert adjusted_rand_score(reference.labels_, inferrer.clusters_) == 1.0
    order = np.argsort(-np.bincount(reference.labels_))
    expected = reference.cluster_centers_[order][inferrer.group_clusters_]
    assert_allclose(inferrer.cluster_centers_, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["kmeans", "spare"])
def test_global_scope_predicts_the_training_groups_in_any_order(method):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 6)).astype(np.float32), rng.integers(3, size=500)
    inferrer = make_inferrer(method, n_clusters=7).fit(X, y)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::9], y=y[::9]), inferrer.labels_[::9])
    order = rng.permutation(500)
    shuffled = make_inferrer(method, n_clusters=7).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])
    assert_array_equal(shuffled.clusters_, inferrer.clusters_[order])
    copied = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(copied.predict_proba(X), inferrer.predict_proba(X))


def test_global_scope_gives_a_cell_unseen_in_training_the_nearest_known_one():
    X, y, background = make_backgrounds()
    inferrer = make_inferrer(normalize=False).fit(X, y)
    row = X[background == 2][:1]
    (cluster,) = set(inferrer.clusters_[background == 2])
    assert cluster not in inferrer.group_clusters_[inferrer.group_classes_ == 0]
    known = inferrer.groups_[inferrer.group_classes_ == 0]
    distance = np.linalg.norm(inferrer.cluster_centers_[known] - row, axis=1)
    assert_array_equal(inferrer.predict(row, y=[0]), known[distance.argmin()])
    assert inferrer.group_clusters_[inferrer.predict(row, y=[1])[0]] == cluster


def test_global_scope_probabilities_agree_with_predictions():
    X, y, _ = make_backgrounds()
    inferrer = make_inferrer().fit(X, y)
    X_new = 0.3 * X + 1.0
    inside = inferrer.predict_proba(X_new, y=y)
    assert_allclose(inside.sum(axis=1), 1.0)
    assert_array_equal(inside[inferrer.group_classes_ != y[:, None]], 0.0)
    assert_array_equal(inside.argmax(axis=1), inferrer.predict(X_new, y=y))
    # without classes the probability of a cluster is shared by the sizes of its groups
    anywhere = inferrer.predict_proba(X_new)
    assert_allclose(anywhere.sum(axis=1), 1.0)
    assert_array_equal(anywhere.argmax(axis=1), inferrer.predict(X_new))
    for cluster in range(3):
        own = inferrer.group_clusters_ == cluster
        size = inferrer.cluster_sizes_[own]
        share = anywhere[:, own].sum(axis=1, keepdims=True) * size / size.sum()
        assert_allclose(anywhere[:, own], share)


def test_class_scope_has_its_groups_as_clusters():
    X, y, _ = make_backgrounds()
    for method in ("kmeans", "spare", "dispersion"):
        inferrer = SpuriousGroupInferrer(method, random_state=0).fit(X, y)
        assert_array_equal(inferrer.clusters_, inferrer.labels_)
        assert_array_equal(inferrer.group_clusters_, inferrer.groups_)


def test_global_scope_of_one_cluster_is_the_classes():
    X, y, _ = make_backgrounds()
    inferrer = make_inferrer(n_clusters=1).fit(X, y)
    assert_array_equal(inferrer.labels_, y)
    assert_array_equal(inferrer.clusters_, 0)
    assert np.isnan(inferrer.silhouette_).all()


def test_global_scope_refuses_what_it_cannot_do():
    X, y, _ = make_backgrounds(40)
    with pytest.raises(ValueError, match="scope='global' does not go with method=DispersionGroups"):
        make_inferrer("dispersion").fit(X, y)
    with pytest.raises(ValueError, match="with scope='global' the classes are clustered together"):
        make_inferrer(n_clusters={0: 2, 1: 2}).fit(X, y)
