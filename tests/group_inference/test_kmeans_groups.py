"""method="kmeans": the choice of k, PCA, cluster sizes, degenerate classes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from skspurious.functional._silhouette import SilhouetteScore
from skspurious.group_inference import KMeansGroups, SpareGroups, SpuriousGroupInferrer
from skspurious.group_inference._kmeans import choose_by_macro_silhouette


def _scores(*macro):
    return [SilhouetteScore(0.5, value, 0.0, np.array([])) for value in macro]


def make_blobs(sizes, *, n_features=8, scale=0.3, seed=0):
    """Separated Gaussians of given sizes around multiples of the axes."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    X = 4.0 * np.eye(n_features)[label] + rng.normal(scale=scale, size=(len(label), n_features))
    order = rng.permutation(len(label))
    return X[order], label[order]


@pytest.mark.fidelity
def test_the_macro_silhouette_chooses_and_ties_go_to_more_clusters():
    assert choose_by_macro_silhouette(_scores(0.2, 0.7, 0.4)) == 1
    assert choose_by_macro_silhouette(_scores(0.7, 0.2, 0.7)) == 2
    assert choose_by_macro_silhouette(_scores(0.7, 0.2, 0.69)) == 0


@pytest.mark.fidelity
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_separated_gaussians_are_found_with_their_number(n_jobs):
    X_first, first = make_blobs([100, 60, 30])
    X_second, second = make_blobs([80, 50, 40, 20, 10, 10], seed=1)
    X, y = np.concatenate([X_first, X_second]), np.repeat([0, 1], [190, 210])
    truth = np.concatenate([first, 3 + second])
    inferrer = SpuriousGroupInferrer(random_state=0, n_jobs=n_jobs).fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [3, 6])
    assert adjusted_rand_score(truth, inferrer.labels_) == 1.0
    assert_array_equal(inferrer.cluster_sizes_, [100, 60, 30, 80, 50, 40, 20, 10, 10])


def make_unbalanced(seed=0):
    """A large cluster and two small ones behind each other.

    Taken together, the small ones lie farther from the large one, which raises its silhouettes
    and so the mean; the macro silhouette sees that they are two.
    """
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1, 2], [500, 20, 20])
    return np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])[label] + rng.normal(size=(540, 2))


@pytest.mark.fidelity
@pytest.mark.parametrize(("method", "n_clusters"), [(KMeansGroups, 3), (SpareGroups, 2)])
def test_macro_and_mean_silhouette_choose_differently(method, n_clusters):
    inferrer = SpuriousGroupInferrer(method(max_clusters=10), normalize=False, random_state=0)
    assert inferrer.fit(make_unbalanced(), np.zeros(540)).n_clusters_ == [n_clusters]


@pytest.mark.parametrize(("method", "n_clusters"), [(KMeansGroups, 1), (SpareGroups, 2)])
def test_the_silhouette_floor_is_on_what_chooses(method, n_clusters):
    # With two clusters the mean silhouette is about .86 and the macro one about .74.
    inferrer = SpuriousGroupInferrer(
        method(max_clusters=2, min_silhouette=0.8), normalize=False, random_state=0
    )
    assert inferrer.fit(make_unbalanced(), np.zeros(540)).n_clusters_ == [n_clusters]


def test_search_table_holds_the_silhouettes_that_scikit_learn_computes():
    X, _ = make_blobs([60, 40, 20], scale=1.0)
    inferrer = SpuriousGroupInferrer(KMeansGroups(max_clusters=4), normalize=False, random_state=0)
    inferrer.fit(X, np.array(["a"] * 120))
    table = inferrer.cluster_search_
    assert table["n_clusters"].tolist() == [2, 3, 4]
    assert table["class"].tolist() == ["a"] * 3
    assert table["selected"].tolist() == (table["n_clusters"] == inferrer.n_clusters_[0]).tolist()
    sample = silhouette_samples(X, inferrer.labels_)
    chosen = table[table["selected"]].iloc[0]
    assert chosen["silhouette"] == pytest.approx(sample.mean(), abs=1e-6)
    macro = np.mean([sample[inferrer.labels_ == g].mean() for g in inferrer.groups_])
    assert chosen["macro_silhouette"] == pytest.approx(macro, abs=1e-6)
    assert inferrer.silhouette_[0] == pytest.approx(sample.mean(), abs=1e-6)


def test_normalisation_ignores_the_length_of_rows():
    X, truth = make_blobs([60, 40, 20], scale=0.1)
    X *= np.random.default_rng(0).uniform(0.01, 100.0, size=120)[:, None]
    inferrer = SpuriousGroupInferrer(random_state=0).fit(X, np.zeros(120))
    assert adjusted_rand_score(truth, inferrer.labels_) == 1.0
    assert_allclose(np.linalg.norm(inferrer.cluster_centers_, axis=1), 1.0, atol=0.05)
    assert_array_equal(inferrer.predict(7.0 * X, y=np.zeros(120)), inferrer.labels_)


@pytest.mark.parametrize("n_components", [1, 2, 3, 500, 0.9])
def test_pca_of_each_class_keeps_the_clusters(n_components):
    rng = np.random.default_rng(0)
    label = np.arange(300) % 3
    X = np.zeros((300, 30))
    X[:, 0] = 10.0 * label  # three clusters on a line, in 29 dimensions of noise
    X += rng.normal(scale=0.3, size=X.shape)
    inferrer = SpuriousGroupInferrer(
        KMeansGroups(n_components=n_components), normalize=False, random_state=0
    ).fit(X, np.zeros(300))
    assert adjusted_rand_score(label, inferrer.labels_) == 1.0
    assert inferrer.cluster_centers_.shape == (3, 30)
    assert_array_equal(inferrer.predict(X, y=np.zeros(300)), inferrer.labels_)
    assert_array_equal(inferrer.predict(X), inferrer.labels_)


def test_silhouettes_are_taken_after_pca():
    rng = np.random.default_rng(0)
    X = np.concatenate([10.0 * (np.arange(200) % 2)[:, None], rng.normal(size=(200, 40))], axis=1)
    plain, reduced = (
        SpuriousGroupInferrer(
            KMeansGroups(n_clusters=2, n_components=n), normalize=False, random_state=0
        ).fit(X, np.zeros(200))
        for n in (None, 1)
    )
    assert plain.silhouette_[0] < 0.6
    assert reduced.silhouette_[0] > 0.95


def test_small_clusters_are_merged():
    X, truth = make_blobs([100, 60, 4])
    whole = SpuriousGroupInferrer(random_state=0).fit(X, np.zeros(164))
    merged = SpuriousGroupInferrer(KMeansGroups(min_group_size=5), random_state=0).fit(
        X, np.zeros(164)
    )
    assert_array_equal(whole.cluster_sizes_, [100, 60, 4])
    assert merged.n_clusters_ == [2]
    assert merged.cluster_sizes_.min() >= 5
    assert adjusted_rand_score(truth[truth < 2], merged.labels_[truth < 2]) == 1.0
    assert_array_equal(merged.predict(X, y=np.zeros(164)), merged.labels_)


def test_a_silhouette_floor_keeps_a_homogeneous_class_whole():
    rng = np.random.default_rng(0)
    X, _ = make_blobs([50, 30])
    X = np.concatenate([X, rng.normal(size=(80, 8))])
    y = np.repeat([0, 1], 80)
    params = {"normalize": False, "random_state": 0}
    assert SpuriousGroupInferrer(**params).fit(X, y).n_clusters_.min() >= 2
    inferrer = SpuriousGroupInferrer(KMeansGroups(min_silhouette=0.25), **params).fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [2, 1])
    assert np.isnan(inferrer.silhouette_[1])
    assert not inferrer.cluster_search_.query("`class` == 1")["selected"].any()


def test_a_given_number_of_clusters_is_used():
    X, _ = make_blobs([60, 40, 20])
    y = np.zeros(120)
    for k in (1, 2, 5):
        inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=k), random_state=0).fit(X, y)
        assert_array_equal(inferrer.n_clusters_, [k])
        assert np.isnan(inferrer.silhouette_[0]) == (k == 1)
    method = KMeansGroups(n_clusters=5, max_clusters=2)
    five = SpuriousGroupInferrer(method, random_state=0).fit(X, y)
    assert_array_equal(five.n_clusters_, [5])


@pytest.mark.fidelity
@pytest.mark.parametrize("method", [KMeansGroups, SpareGroups])
@pytest.mark.parametrize("n_clusters", ["auto", 4])
@pytest.mark.parametrize("n_components", [None, 0.999, 3])
def test_degenerate_classes_stay_whole(method, n_clusters, n_components):
    rng = np.random.default_rng(0)
    X = np.concatenate(
        [
            np.full((20, 3), 0.7),  # constant rows
            rng.normal(size=(1, 3)),  # one sample
            rng.normal(size=(2, 3)),  # two samples
            np.zeros((5, 3)),  # zeros
            4.0 * np.eye(3)[np.arange(60) % 3] + rng.normal(scale=0.1, size=(60, 3)),
        ]
    )
    y = np.repeat(np.arange(5), [20, 1, 2, 5, 60])
    inferrer = SpuriousGroupInferrer(
        method(n_clusters=n_clusters, n_components=n_components), random_state=0
    ).fit(X, y)
    assert_array_equal(inferrer.n_clusters_[:4], 1)
    assert inferrer.n_clusters_[4] == (3 if n_clusters == "auto" else 4)
    assert np.isnan(inferrer.silhouette_[:4]).all()
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_allclose(inferrer.predict_proba(X, y=y).sum(axis=1), 1.0)


def test_fewer_distinct_rows_than_clusters_stay_whole():
    X = np.repeat(np.eye(3), 10, axis=0)
    four = SpuriousGroupInferrer(KMeansGroups(n_clusters=4), random_state=0).fit(X, np.zeros(30))
    three = SpuriousGroupInferrer(KMeansGroups(n_clusters=3), random_state=0).fit(X, np.zeros(30))
    auto = SpuriousGroupInferrer(random_state=0).fit(X, np.zeros(30))
    assert_array_equal(four.n_clusters_, [1])
    assert_array_equal(three.n_clusters_, [3])
    assert_array_equal(auto.n_clusters_, [3])
    assert auto.silhouette_[0] == 1.0


def test_repeated_rows_count():
    # The repeated row pulls its cluster: 9 copies at 0 and one row at 1 have their mean at 0.1.
    X = np.array([[0.0]] * 9 + [[1.0]] + [[5.0]] * 4)
    inferrer = SpuriousGroupInferrer(
        SpareGroups(n_clusters=2), normalize=False, random_state=0
    ).fit(X, np.zeros(14))
    assert_allclose(inferrer.cluster_centers_, [[0.1], [5.0]], atol=1e-6)
    assert_array_equal(inferrer.cluster_sizes_, [10, 4])
    expected = silhouette_samples(X, inferrer.labels_).mean()
    assert inferrer.silhouette_[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_components", [None, 1])
def test_the_center_of_a_whole_class_is_its_mean(n_components):
    X = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [8.0, 5.0]])
    inferrer = SpuriousGroupInferrer(
        KMeansGroups(n_clusters=1, n_components=n_components), normalize=False, random_state=0
    ).fit(X, np.zeros(4))
    assert_allclose(inferrer.cluster_centers_, [[2.0, 2.0]])


@pytest.mark.fidelity
def test_a_class_to_ignore_is_one_group():
    X_first, _ = make_blobs([60, 40])
    X_second, second = make_blobs([50, 30, 20], seed=1)
    X, y = np.concatenate([X_first, X_second]), np.repeat(["ignored", "split"], 100)
    inferrer = SpuriousGroupInferrer(
        KMeansGroups(n_clusters={"ignored": 1, "split": "auto"}), random_state=0
    )
    inferrer.fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 3])
    assert_array_equal(inferrer.labels_[:100], 0)
    assert adjusted_rand_score(second, inferrer.labels_[100:]) == 1.0
