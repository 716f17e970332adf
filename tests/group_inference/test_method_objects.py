"""Methods as objects: parameters, searches, names, methods of one's own, memory."""

import pickle
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV

from skspurious import BalancedRetrainer, SpuriousGroupInferrer, worst_group_scorer
from skspurious.functional import class_means
from skspurious.group_inference import KMeansGroups, SpareGroups
from skspurious.group_inference._base import GroupMethod
from skspurious.group_inference._methods import METHODS


def make_groups(n_samples=200, seed=0):
    """Two classes of two groups each, the smaller with a quarter of the samples."""
    rng = np.random.default_rng(seed)
    y, odd = np.arange(n_samples) % 2, np.arange(n_samples) // 2 % 4 == 0
    X = 5.0 * np.eye(4)[np.where(odd, 2 + y, y)]
    return X + rng.normal(scale=0.5, size=X.shape), y, odd


# ------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_an_estimator_that_clones_and_sets(name):
    method = METHODS[name]()
    assert isinstance(method, BaseEstimator)
    params = method.get_params()
    assert set(params) <= set(method._parameter_constraints)
    twin = clone(method)
    assert twin is not method
    assert twin.get_params() == params
    key = "min_group_size"
    assert params[key] == 1
    inferrer = SpuriousGroupInferrer(method)
    assert inferrer.get_params()[f"method__{key}"] == 1
    inferrer.set_params(**{f"method__{key}": 3})
    assert clone(inferrer).method.get_params() == params | {key: 3}


@pytest.mark.parametrize("name", METHODS)
def test_a_name_is_the_method_with_its_defaults(name):
    X, y, _ = make_groups()
    by_name = SpuriousGroupInferrer(name, random_state=0).fit(X, y)
    by_object = SpuriousGroupInferrer(METHODS[name](), random_state=0).fit(X, y)
    assert type(by_name.method_) is METHODS[name]
    assert by_name.method == name  # what was passed is not replaced
    for attribute in ("labels_", "silhouette_", "cluster_centers_"):
        assert_array_equal(getattr(by_name, attribute), getattr(by_object, attribute))
    assert_array_equal(by_name.predict_proba(X, y=y), by_object.predict_proba(X, y=y))


def test_fit_learns_in_a_clone_of_the_method():
    X, y, _ = make_groups()
    method = KMeansGroups(n_clusters=2)
    before = dict(vars(method))
    inferrer = SpuriousGroupInferrer(method, random_state=0).fit(X, y)
    assert inferrer.method_ is not method
    assert vars(method) == before
    assert inferrer.method_.get_params() == method.get_params()


def test_a_search_chooses_among_parameters_of_the_method():
    X, y, _ = make_groups()
    clf = BalancedRetrainer(
        group_inferrer=SpuriousGroupInferrer(KMeansGroups()), lr=0.1, max_epochs=3, random_state=0
    )
    grid = {"group_inferrer__method__n_clusters": [1, 3]}
    search = GridSearchCV(clf, grid, scoring=worst_group_scorer, cv=2, error_score="raise")
    search.fit(X, y)
    chosen = search.best_params_["group_inferrer__method__n_clusters"]
    assert search.best_estimator_.group_inferrer_.n_clusters_.tolist() == [chosen, chosen]
    whole_methods = {"group_inferrer__method": ["dispersion", SpareGroups(n_clusters=2)]}
    search = GridSearchCV(clf, whole_methods, scoring=worst_group_scorer, cv=2, error_score="raise")
    assert search.fit(X, y).best_index_ in (0, 1)


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ("means", "'method' parameter of SpuriousGroupInferrer must be"),
        (None, "'method' parameter of SpuriousGroupInferrer must be"),
        (KMeansGroups(n_clusters=0), "'n_clusters' parameter of KMeansGroups must be"),
        (METHODS["error"](C=0.0), "'C' parameter of ErrorGroups must be"),
        (METHODS["dispersion"](min_group_size=0), "'min_group_size' parameter of DispersionGroups"),
    ],
)
def test_wrong_parameters_name_the_method_that_has_them(method, match):
    X, y, _ = make_groups()
    with pytest.raises(ValueError, match=match):
        SpuriousGroupInferrer(method).fit(X, y)


def test_validation_samples_come_with_their_classes():
    X, y, _ = make_groups()
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        SpuriousGroupInferrer().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        SpuriousGroupInferrer().fit(X, y, y_val=y)


# ------------------------------------------------------------------- a method of one's own


class FarGroups(GroupMethod):
    """Splits every class at a quantile of the distance from its mean."""

    supports_global = True

    def __init__(self, quantile=0.5):
        self.quantile = quantile

    def find(self, X, code, context):
        self.means_ = class_means(X, code)
        distance = np.linalg.norm(X - self.means_[code], axis=1)
        classes = range(len(self.means_))
        self.limits_ = [np.quantile(distance[code == k], self.quantile) for k in classes]
        self.seed_ = context.seed

    def assign(self, X, k):
        return (np.linalg.norm(X - self.means_[k], axis=1) > self.limits_[k]).astype(int)


def test_a_method_of_ones_own_needs_two_functions():
    X, y, _ = make_groups()
    inferrer = SpuriousGroupInferrer(FarGroups(quantile=0.75), random_state=0).fit(X, y)
    far = np.empty(200, dtype=bool)
    for k in (0, 1):
        distance = np.linalg.norm(X[y == k] - X[y == k].mean(axis=0), axis=1)
        far[y == k] = distance > np.quantile(distance, 0.75)
    assert_array_equal(inferrer.labels_, 2 * y + far)
    assert_array_equal(inferrer.cluster_sizes_, [75, 25, 75, 25])
    centers = [X[inferrer.labels_ == g].mean(axis=0) for g in range(4)]
    assert_allclose(inferrer.cluster_centers_, centers)
    assert np.isnan(inferrer.silhouette_).all()
    assert len(inferrer.cluster_search_) == 0
    assert inferrer.margin_ is None
    assert not inferrer.normalize_
    assert_array_equal(inferrer.predict(X[::3], y=y[::3]), inferrer.labels_[::3])
    inside = inferrer.predict_proba(X, y=y)
    assert_allclose(inside.sum(axis=1), 1.0)
    assert_array_equal(inside[inferrer.group_classes_ != y[:, None]], 0.0)
    squared = ((X[:, None] - inferrer.cluster_centers_) ** 2).sum(axis=2)
    assert_array_equal(inferrer.predict(X), squared.argmin(axis=1))
    again = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(again.predict(X, y=y), inferrer.labels_)
    seeds = {
        SpuriousGroupInferrer(FarGroups(), random_state=s).fit(X, y).method_.seed_ for s in (0, 1)
    }
    assert len(seeds) == 2


def test_a_method_of_ones_own_is_normalised_only_if_it_says_so():
    X, y, _ = make_groups()
    X = X * np.linspace(0.1, 10.0, 200)[:, None]
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    expected = SpuriousGroupInferrer(FarGroups()).fit(rows, y).labels_
    asked = SpuriousGroupInferrer(FarGroups(), normalize=True).fit(X, y)
    assert_array_equal(asked.labels_, expected)
    assert not np.array_equal(SpuriousGroupInferrer(FarGroups()).fit(X, y).labels_, expected)


def test_a_part_that_training_has_not_seen_goes_to_the_nearest_group_of_the_class():
    class Signs(GroupMethod):
        def find(self, X, code, context):
            pass

        def assign(self, X, k):
            return 5 + np.sign(X[:, 0]).astype(int)

    X, y = np.array([[-2.0], [-1.0], [3.0], [-4.0]]), np.array([0, 0, 0, 1])
    inferrer = SpuriousGroupInferrer(Signs()).fit(X, y)
    assert_array_equal(inferrer.labels_, [0, 0, 1, 2])
    # parts 5 (zeros) of both classes and 6 of class 1 are new; the centers are -1.5, 3 and -4
    assert_array_equal(inferrer.predict([[0.0], [0.0], [7.0]], y=[0, 1, 1]), [0, 2, 2])


def test_a_method_of_ones_own_can_look_at_all_classes_together():
    X, y, _ = make_groups()
    inferrer = SpuriousGroupInferrer(FarGroups(0.75), scope="global").fit(X, y)
    distance = np.linalg.norm(X - X.mean(axis=0), axis=1)
    far = distance > np.quantile(distance, 0.75)
    assert_array_equal(inferrer.clusters_, far)
    assert_array_equal(inferrer.labels_, 2 * y + far)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    # without classes, the probability of a part is shared among the classes by their sizes
    anywhere = inferrer.predict_proba(X)
    assert_allclose(anywhere.sum(axis=1), 1.0)
    shares = np.bincount(2 * y + far, minlength=4) / np.bincount(far)[[0, 1, 0, 1]]
    assert_allclose(anywhere[:, 0] / (anywhere[:, 0] + anywhere[:, 2]), shares[0])


# ------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    "method",
    [KMeansGroups(n_clusters=2, n_init=1), "dispersion"],
)
def test_memory_is_at_most_two_and_a_half_times_the_data(method):
    """What NumPy allocates, for a class with nearly all of the rows."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300_000, 64), dtype=np.float32)
    y, odd = np.arange(300_000) % 20 == 0, np.arange(300_000) % 7 == 0
    X[:, 0] += 8.0 * odd
    X.flags.writeable = False
    inferrer = SpuriousGroupInferrer(method, silhouette=50, random_state=0)
    tracemalloc.start()
    try:
        inferrer.fit(X, y)
        fit = tracemalloc.get_traced_memory()[1]
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        inferrer.predict(X, y=y)
        predict = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert fit < 2.5 * X.nbytes
    assert predict < X.nbytes
