"""method="gmm", and what is clustered: principal components, UMAP, hardness, margins."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.mixture import GaussianMixture

from skspurious.functional._kmeans_1d import kmeans_1d
from skspurious.group_inference import SpuriousGroupInferrer, _gmm
from skspurious.group_inference._gmm import GaussianClusters
from skspurious.group_inference._methods import METHODS
from skspurious.group_inference._spaces import LinearSpace


def make_inferrer(method="gmm", **params):
    params = {"normalize": False, "max_clusters": 4} | params
    inferrer = SpuriousGroupInferrer(METHODS[method](), random_state=0)
    own = inferrer.method.get_params()
    return inferrer.set_params(**{f"method__{k}" if k in own else k: v for k, v in params.items()})


def make_crossing(seed=0):
    """Two long Gaussians that lie across each other: only their shapes tell them apart."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(800, 2))
    label = np.arange(800) % 4 == 0
    X *= np.where(label[:, None], [0.1, 4.0], [4.0, 0.1])
    return X + np.where(label[:, None], [6.0, 3.0], 0.0), label


@pytest.mark.fidelity
def test_mixtures_find_separated_gaussians_with_their_number():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2, 3, 4], [100, 60, 30, 80, 40])
    X = 5.0 * np.eye(5)[label] + rng.normal(scale=0.3, size=(310, 5))
    y = (label > 2).astype(int)
    inferrer = make_inferrer().fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [3, 2])
    assert_array_equal(inferrer.cluster_sizes_, [100, 60, 30, 80, 40])
    assert adjusted_rand_score(label, inferrer.labels_) == 1.0
    means = [X[inferrer.labels_ == g].mean(axis=0) for g in inferrer.groups_]
    assert_allclose(inferrer.cluster_centers_, means)


def test_mixtures_see_shapes_that_k_means_does_not():
    X, label = make_crossing()
    mixture = make_inferrer(n_clusters=2).fit(X, np.zeros(800))
    centers = make_inferrer("kmeans", n_clusters=2).fit(X, np.zeros(800))
    assert adjusted_rand_score(label, mixture.labels_) > 0.95
    assert adjusted_rand_score(label, centers.labels_) < 0.8


def test_mixture_posterior_is_weight_times_density():
    X, label = make_crossing()
    inferrer = make_inferrer(n_clusters=2).fit(X, np.zeros(800))
    X_new = np.random.default_rng(1).normal(3.0, 2.0, size=(50, 2))
    joint = []
    for own in (~label, label):  # the larger first
        covariance = np.cov(X[own].T, bias=True)
        density = multivariate_normal(X[own].mean(axis=0), covariance).logpdf(X_new)
        joint.append(np.log(own.mean()) + density)
    expected = expit(joint[1] - joint[0])
    proba = inferrer.predict_proba(X_new, y=np.zeros(50))
    assert_allclose(proba[:, 1], expected, atol=0.02)  # EM shares the few rows in between
    assert_array_equal(proba.argmax(axis=1), inferrer.predict(X_new, y=np.zeros(50)))


def test_gaussian_clusters_by_hand():
    # N(0, 1) with weight 1/3 and N(4, 4) with weight 2/3; precision factors 1 and 1/2
    model = GaussianClusters(
        np.log([1 / 3, 2 / 3]), np.array([[0.0], [4.0]]), np.array([[[1.0]], [[0.5]]])
    )
    X = np.array([[0.0], [1.0], [4.0]])
    first = np.exp(-0.5 * X[:, 0] ** 2) / 3
    second = 2 / 3 * 0.5 * np.exp(-0.5 * (X[:, 0] - 4) ** 2 / 4)
    proba = model.membership(X, np.array([0, 1]), None)
    assert_allclose(proba[:, 1], second / (first + second))
    assert_array_equal(model.assign(X, np.array([0, 1])), [0, 0, 1])
    assert_array_equal(model.assign(X, np.array([1])), [0, 0, 0])  # positions among those asked for
    assert_array_equal(model.keep([1, 0]).assign(X, np.array([0, 1])), [1, 1, 0])


@pytest.mark.fidelity
@pytest.mark.parametrize("scope", ["class", "global"])
def test_mixtures_predict_the_training_groups_in_any_order(scope):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), rng.integers(2, size=300)
    X = np.concatenate([X, X[:20]])
    y = np.concatenate([y, y[:20]])
    inferrer = make_inferrer(scope=scope).fit(X, y)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::7], y=y[::7]), inferrer.labels_[::7])
    proba = inferrer.predict_proba(X, y=y)
    assert_array_equal(proba.argmax(axis=1), inferrer.labels_)
    assert_allclose(proba.sum(axis=1), 1.0)
    assert_array_equal(proba[inferrer.group_classes_ != y[:, None]], 0.0)
    anywhere = inferrer.predict_proba(X)
    assert_array_equal(anywhere.argmax(axis=1), inferrer.predict(X))
    order = rng.permutation(320)
    shuffled = make_inferrer(scope=scope).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])
    copied = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(copied.predict_proba(X, y=y), proba)


@pytest.mark.fidelity
def test_the_macro_silhouette_chooses_the_number_of_components():
    """A large Gaussian and two small ones: the mean silhouette joins the small ones."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [500, 20, 20])
    X = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])[label] + rng.normal(size=(540, 2))
    params = {"max_clusters": 3, "min_group_size": 15}
    inferrer = make_inferrer(**params).fit(X, np.zeros(540))
    assert inferrer.n_clusters_ == [3]
    table = inferrer.cluster_search_
    assert table["n_clusters"][table["silhouette"].idxmax()] == 2
    best = table[table["selected"]].iloc[0]
    sample = silhouette_samples(X, label)
    assert best["macro_silhouette"] == pytest.approx(
        np.mean([sample[label == k].mean() for k in range(3)]), abs=0.01
    )
    assert best["macro_silhouette"] == table["macro_silhouette"].max()


def test_small_components_are_merged_into_the_most_probable_one():
    rng = np.random.default_rng(0)
    X = np.concatenate(
        [rng.normal(size=(100, 2)), rng.normal(size=(60, 2)) + 12, [[0.0, 30.0]] * 3]
    )
    X[-3:] += rng.normal(scale=0.1, size=(3, 2))
    whole = make_inferrer(n_clusters=3).fit(X, np.zeros(163))
    assert_array_equal(whole.cluster_sizes_, [100, 60, 3])
    merged = make_inferrer(n_clusters=3, min_group_size=5).fit(X, np.zeros(163))
    assert len(merged.groups_) == 2
    assert merged.cluster_sizes_.min() >= 5
    assert_array_equal(merged.predict(X, y=np.zeros(163)), merged.labels_)


def test_small_components_by_hand():
    model = GaussianClusters(np.zeros(3), np.zeros((3, 1)), np.ones((3, 1, 1)))
    score = np.array([[9.0, 0.0, 1.0]] * 6 + [[0.0, 9.0, 1.0]] * 3 + [[2.0, 1.0, 9.0]] * 1)
    one = np.ones(10)
    for count, min_size, expected in (
        (one, 1, [0] * 6 + [1] * 3 + [2]),
        (one, 2, [0] * 6 + [1] * 3 + [0]),  # the last row's second best is component 0
        (one, 5, [0] * 10),
        (one, 11, [0] * 10),  # one is left, whatever its size
        (2 * one, 2, [0] * 6 + [1] * 3 + [2]),  # rows that come twice
    ):
        kept, label = model.without_small(score, count, min_size)
        assert_array_equal(label, expected)
        assert len(kept) == max(expected) + 1


def test_degenerate_classes_stay_whole():
    rng = np.random.default_rng(0)
    parts = [np.full((20, 3), 0.7), rng.normal(size=(1, 3)), rng.normal(size=(2, 3))]
    parts.append(4.0 * np.eye(3)[np.arange(60) % 3] + rng.normal(scale=0.1, size=(60, 3)))
    X, y = np.concatenate(parts), np.repeat(np.arange(4), [20, 1, 2, 60])
    inferrer = make_inferrer().fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 1, 1, 3])
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)


# ---------------------------------------------------------------------------------- reductions


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_spaces_have_rows_of_unit_scale(scale):
    """Their mean is 1.75 where the last comes twice."""
    method = SimpleNamespace(reduction_=None)
    rows, count = scale * np.array([[-2.0], [1.0], [4.0]]), np.array([1, 1, 2])
    space = LinearSpace(rows, count, method, 0)
    centered = np.array([[-3.75], [-0.75], [2.25]])
    length = np.sqrt((3.75**2 + 0.75**2 + 2 * 2.25**2) / 4)
    assert_allclose(space.transform(rows), centered / length)
    assert_allclose(space.restore(centered / length), rows)
    same = LinearSpace(0 * rows, count, method, 0)
    assert_array_equal(same.transform(0 * rows), 0 * rows)  # nothing to divide by


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_pca_is_fitted_in_each_class_alone(method):
    rng = np.random.default_rng(0)
    y, side = np.arange(400) % 2, np.arange(400) // 2 % 4 == 0
    X = rng.normal(size=(400, 20))
    X[np.arange(400), y] += 12.0 * side  # the classes differ in the direction of their clusters
    inferrer = make_inferrer(method, reduction="pca", n_components=1).fit(X, y)
    assert adjusted_rand_score(2 * y + side, inferrer.labels_) == 1.0
    line = PCA(1).fit_transform(X[y == 0])
    expected = silhouette_samples(line, inferrer.labels_[y == 0]).mean()
    assert inferrer.silhouette_[0] == pytest.approx(expected, abs=1e-6)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert inferrer.cluster_centers_.shape == (4, 20)
    alone = make_inferrer(method, n_components=1).fit(X, y)  # n_components alone means PCA
    assert_array_equal(alone.labels_, inferrer.labels_)


@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_umap_is_a_space_for_clusters(method, assert_global_rng_untouched):
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2, 3], [70, 40, 60, 8])
    X = 6.0 * np.eye(10)[label] + rng.normal(size=(178, 10))
    y = np.repeat([0, 1, 2], [110, 60, 8])
    params = {"reduction": "umap", "n_clusters": {0: 2, 1: 1, 2: 1}}
    with assert_global_rng_untouched():
        inferrer = make_inferrer(method, **params).fit(X, y)
    assert adjusted_rand_score(label, inferrer.labels_) == 1.0
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::5], y=y[::5]), inferrer.labels_[::5])
    near = X + rng.normal(scale=0.1, size=X.shape)
    assert_array_equal(inferrer.predict(near, y=y), inferrer.labels_)
    assert inferrer.cluster_centers_.shape == (4, 10)
    assert inferrer.method_.models_[0].space.embedding.shape == (110, 2)
    assert_allclose(inferrer.predict_proba(X, y=y).sum(axis=1), 1.0)
    order = rng.permutation(178)
    shuffled = make_inferrer(method, **params).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])


def test_umap_that_is_missing_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    X, _ = make_crossing()
    with pytest.raises(ImportError, match=r"pip install 'skspurious\[umap\]'"):
        make_inferrer(reduction="umap").fit(X, np.zeros(800))


# ------------------------------------------------------------------------- hardness and margins


@pytest.mark.fidelity
def test_one_feature_is_never_normalised():
    """Hardness has one column; dividing it by its length would leave its sign."""
    hardness = np.concatenate([np.random.default_rng(0).normal(size=90) + 5, np.full(10, 1.0)])
    for method in ("kmeans", "gmm"):
        inferrer = make_inferrer(method, n_clusters=2, normalize="auto")
        inferrer.fit(hardness[:, None], np.zeros(100))
        assert not inferrer.normalize_
        assert len(inferrer.groups_) == 2


def make_hardness_and_residual(seed=0):
    """Four groups of a class: two by hardness, in each two by what is left of the embedding."""
    rng = np.random.default_rng(seed)
    hard, side = np.arange(400) % 2, np.arange(400) // 2 % 2
    residual = rng.normal(size=(400, 12))
    residual[:, 3] += 12.0 * side
    hardness = 8.0 * hard + rng.normal(scale=0.3, size=400)
    return np.column_stack([hardness, residual]), 2 * hard + side


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
@pytest.mark.parametrize("reduction", ["pca", "umap"])
def test_features_in_front_are_not_reduced(method, reduction):
    if reduction == "umap":
        pytest.importorskip("umap")
    X, label = make_hardness_and_residual()
    params = {"reduction": reduction, "n_components": 1, "n_clusters": 4, "normalize": "auto"}
    inferrer = make_inferrer(method, n_unreduced=1, **params).fit(X, np.zeros(400))
    assert not inferrer.normalize_  # hardness would be lost in the length of the rows
    assert adjusted_rand_score(label, inferrer.labels_) == 1.0
    assert_array_equal(inferrer.predict(X, y=np.zeros(400)), inferrer.labels_)
    if reduction == "pca":  # the plane is that of hardness and of the residual's first component
        plane = np.column_stack([X[:, 0], PCA(1).fit_transform(X[:, 1:])])
        expected = silhouette_samples(plane, inferrer.labels_).mean()
        assert inferrer.silhouette_[0] == pytest.approx(expected, abs=1e-6)
        centers = [X[inferrer.labels_ == g].mean(axis=0) for g in range(4)]
        assert_allclose(inferrer.cluster_centers_[:, 0], np.array(centers)[:, 0], atol=1e-4)
        # without it, one component of everything does not tell the four apart
        whole = make_inferrer(method, **params | {"normalize": False}).fit(X, np.zeros(400))
        assert adjusted_rand_score(label, whole.labels_) < 0.9


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_unreduced": 1}, "n_unreduced=1 is for reduction='pca' or 'umap', here it is None"),
        ({"n_unreduced": 1, "reduction": "margin"}, "here it is 'margin'"),
        ({"n_unreduced": 2, "n_components": 1}, "n_unreduced=2 leaves none of the 2 features"),
    ],
)
def test_unreduced_features_need_others_that_are_reduced(params, match):
    X, _ = make_crossing()
    with pytest.raises(ValueError, match=match):
        make_inferrer(**params).fit(X, np.arange(800) % 2)


@pytest.mark.fidelity
def test_margin_clusters_the_own_logit_against_the_largest_other():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3))
    y = np.arange(300) % 3
    hard = np.arange(300) // 3 % 5 == 0
    logits[np.arange(300), y] += np.where(hard, -4.0, 6.0)
    inferrer = make_inferrer("kmeans", reduction="margin", n_clusters=2, normalize="auto")
    inferrer.fit(logits, y)
    others = np.where(np.arange(3) == y[:, None], -np.inf, logits).max(axis=1)
    margin = logits[np.arange(300), y] - others
    assert_allclose(inferrer.margin_, margin)
    assert_array_equal(inferrer.labels_, 2 * y + hard)
    centers = [np.sort(kmeans_1d(margin[y == k], 2)[1])[::-1] for k in range(3)]
    assert_allclose(inferrer.cluster_centers_[:, 0], np.concatenate(centers))
    assert not inferrer.normalize_
    # a constant on all logits of a row changes nothing
    moved = logits + rng.normal(size=(300, 1))
    assert_array_equal(inferrer.predict(moved, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict_proba(moved, y=y).argmax(axis=1), inferrer.labels_)


def test_margin_needs_classes_and_a_column_for_each():
    logits, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    inferrer = make_inferrer("kmeans", reduction="margin").fit(logits, y)
    with pytest.raises(ValueError, match="give y, the class labels of the rows"):
        inferrer.predict(logits)
    with pytest.raises(ValueError, match="each of the 2 classes, X has 3 columns"):
        make_inferrer("kmeans", reduction="margin").fit(logits, y == 0)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"reduction": "pca"}, "reduction='pca' needs n_components"),
        ({"reduction": "umap", "n_components": 0.9}, "give reduction='umap' an integer"),
        ({"reduction": "margin", "n_components": 2}, "leaves one number of every row"),
        ({"reduction": "margin", "normalize": True}, "leaves one number of every row"),
    ],
)
def test_reductions_that_make_no_sense_are_refused(params, match):
    logits, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    with pytest.raises(ValueError, match=match):
        make_inferrer("kmeans", **params).fit(logits, y)


def test_large_classes_are_fitted_to_a_sample_that_keeps_tiny_clusters(monkeypatch):
    class Recorder(GaussianMixture):
        def fit(self, X):
            n_rows.append(len(X))
            return super().fit(X)

    n_rows = []
    monkeypatch.setattr(_gmm, "GaussianMixture", Recorder)
    monkeypatch.setattr(_gmm, "_MAX_COST", 0.0)
    monkeypatch.setattr(_gmm, "_MIN_SAMPLE", 300)
    monkeypatch.setattr(_gmm, "_MIN_OF_STRATUM", 50)
    sizes = np.array([3000, 900, 40])
    label = np.repeat([0, 1, 2], sizes)
    X = 8.0 * np.eye(3)[label] + np.random.default_rng(0).normal(scale=0.5, size=(3940, 3))
    inferrer = make_inferrer(n_clusters=3).fit(X, np.zeros(3940))
    # of 3000 rows 3000 * 300 / 3940 are drawn, of 900 as many as 69, and all of 40
    assert n_rows == [228 + 69 + 40]
    assert_array_equal(inferrer.labels_, label)
    assert_array_equal(inferrer.predict(X, y=np.zeros(3940)), label)
    clusters = inferrer.method_.models_[0].clusters
    assert_allclose(np.exp(clusters.log_weight), sizes / 3940, rtol=1e-6)  # not the sample's shares
    again = make_inferrer(n_clusters=3).fit(X[::-1], np.zeros(3940))
    assert_array_equal(again.labels_, label[::-1])
    monkeypatch.setattr(_gmm, "_MIN_SAMPLE", 3940)
    make_inferrer(n_clusters=3).fit(X, np.zeros(3940))
    assert n_rows[-1] == 3940  # a class that is not larger is taken as it is
