"""Silhouettes against hand values, a plain loop and scikit-learn; the stratified estimate."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import silhouette_samples as sklearn_silhouette_samples
from sklearn.metrics import silhouette_score

from skspurious.functional._silhouette import (
    score_partitions,
    silhouette_samples,
    silhouette_samples_1d,
    stratified_silhouette,
)


def _reference_silhouette(X, labels):
    """The definition, one sample at a time."""
    result = np.zeros(len(X))
    for i in range(len(X)):
        distance = np.sqrt(((X - X[i]) ** 2).sum(axis=1))
        own = np.flatnonzero((labels == labels[i]) & (np.arange(len(X)) != i))
        if len(own) == 0:
            continue
        a = distance[own].mean()
        b = min(distance[labels == c].mean() for c in set(labels) - {labels[i]})
        result[i] = (b - a) / max(a, b) if max(a, b) > 0 else 0.0
    return result


def _random_partition(n_samples, n_features, n_clusters, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_features))
    labels = rng.integers(n_clusters, size=n_samples)
    labels[:n_clusters] = np.arange(n_clusters)
    return X, labels


@pytest.mark.fidelity
def test_silhouette_samples_by_hand():
    # Sample 0: a = 1, b = mean(5, 6) = 5.5, so 4.5 / 5.5; sample 1: a = 1, b = 4.5, so 3.5 / 4.5.
    X = np.array([[0.0], [1.0], [5.0], [6.0]])
    expected = [9 / 11, 7 / 9, 7 / 9, 9 / 11]
    assert_allclose(silhouette_samples(X, np.array([0, 0, 1, 1])), expected)
    assert_allclose(silhouette_samples_1d(X[:, 0], np.array([0, 0, 1, 1])), expected)


@pytest.mark.fidelity
def test_silhouette_samples_equal_the_definition():
    X, labels = _random_partition(60, 3, 4)
    assert_allclose(silhouette_samples(X, labels), _reference_silhouette(X, labels), atol=1e-12)


@pytest.mark.fidelity
@pytest.mark.parametrize("chunk_elements", [1, 1000, 2**21])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silhouette_samples_equal_sklearn_in_chunks_of_any_size(chunk_elements, dtype):
    X, labels = _random_partition(200, 5, 4, seed=1)
    X = X.astype(dtype) + dtype(100)
    labels[labels == 3] = 2
    labels[0] = 3  # the only member of its cluster
    ours = silhouette_samples(X, labels, chunk_elements=chunk_elements)
    assert_allclose(ours, sklearn_silhouette_samples(X.astype(np.float64), labels), atol=1e-6)
    assert ours[0] == 0.0


@pytest.mark.fidelity
def test_silhouette_samples_1d_equal_sklearn():
    X, labels = _random_partition(500, 1, 5, seed=2)
    X[10:40] = X[0]  # equal values, in several clusters
    ours = silhouette_samples_1d(X[:, 0] + 1000.0, labels)
    assert_allclose(ours, sklearn_silhouette_samples(X, labels), atol=1e-9)


def test_several_partitions_share_one_pass():
    X, first = _random_partition(80, 3, 4)
    second = (first > 1).astype(int)
    both = silhouette_samples(X, np.stack([first, second]))
    assert both.shape == (2, 80)
    assert_allclose(both[0], silhouette_samples(X, first), atol=1e-12)
    assert_allclose(both[1], silhouette_samples(X, second), atol=1e-12)


@pytest.mark.parametrize("kernel", ["exact", "1d"])
def test_a_count_of_two_equals_two_copies(kernel):
    X, labels = _random_partition(50, 1, 3)
    count = np.random.default_rng(4).integers(1, 4, size=50)
    copied = np.repeat(np.arange(50), count)

    def samples(rows, label, count=None):
        if kernel == "1d":
            return silhouette_samples_1d(rows[:, 0], label, sample_count=count)
        return silhouette_samples(rows, label, sample_count=count)

    counted = samples(X, labels, count)
    assert_allclose(counted[copied], samples(X[copied], labels[copied]), atol=1e-10)


def test_equal_rows_in_one_cluster_have_silhouette_one():
    X = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert_array_equal(silhouette_samples(X, np.array([0, 0, 1, 1])), np.ones(4))
    assert_array_equal(silhouette_samples(np.zeros((4, 2)), np.array([0, 0, 1, 1])), np.zeros(4))


def test_an_empty_cluster_changes_nothing():
    X, labels = _random_partition(60, 3, 3)
    gap = np.where(labels == 2, 5, labels)
    assert_allclose(silhouette_samples(X, gap), silhouette_samples(X, labels), atol=1e-12)


@pytest.mark.fidelity
def test_stratified_silhouette_of_all_members_is_exact():
    X, labels = _random_partition(90, 3, 3, seed=5)
    score = stratified_silhouette(X, labels, n_per_cluster=90)
    sample = silhouette_samples(X, labels)
    assert score.mean == pytest.approx(silhouette_score(X, labels))
    assert_allclose(score.cluster_mean, [sample[labels == c].mean() for c in range(3)])
    assert score.macro == pytest.approx(np.mean(score.cluster_mean))
    assert score.mean_error == 0.0


def test_stratified_silhouette_weights_clusters_by_their_true_size():
    # Every member of a cluster has the same silhouette, so any sample gives the exact mean.
    X = np.concatenate([np.zeros(900), np.full(90, 1.0), np.full(10, 1.0)])[:, None]
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    score = stratified_silhouette(X, labels, n_per_cluster=20)
    assert score.mean == pytest.approx(0.9 * 1.0 + 0.1 * 0.0)
    assert score.macro == pytest.approx(1 / 3)


def test_stratified_silhouette_is_close_to_the_exact_one_and_knows_how_close():
    X, labels = _random_partition(2000, 3, 2, seed=6)
    X[labels == 1] += 2.0
    labels[labels == 1] = np.where(np.arange((labels == 1).sum()) < 20, 1, 2)
    exact = silhouette_score(X, labels)
    scores = [stratified_silhouette(X, labels, random_state=seed) for seed in range(20)]
    errors = np.array([score.mean for score in scores]) - exact
    assert np.abs(errors).max() < 0.05
    assert 0.25 < np.std(errors) / np.mean([score.mean_error for score in scores]) < 4.0


def test_stratified_silhouette_depends_on_the_seed_only():
    X, labels = _random_partition(1000, 3, 2)
    first, again, other = (
        stratified_silhouette(X, labels, n_per_cluster=50, random_state=s) for s in (0, 0, 1)
    )
    assert first.mean == again.mean
    assert first.mean != other.mean


def test_score_partitions_takes_the_exact_path_when_it_can():
    X, labels = _random_partition(400, 3, 3)
    line = 3.0 + np.outer(X[:, 0], [1.0, -2.0])
    for rows in (X, line):
        (score,) = score_partitions(rows, [labels], n_per_cluster=5)
        assert score.mean == pytest.approx(silhouette_score(rows, labels), abs=1e-9)
        assert score.mean_error == 0.0
        (sampled,) = score_partitions(rows, [labels], method="stratified", n_per_cluster=5)
        assert sampled.mean_error > 0.0


def test_score_partitions_samples_when_there_are_too_many_pairs(monkeypatch):
    monkeypatch.setitem(
        score_partitions.__wrapped__.__globals__["_MAX_DISTANCES"], "cpu", 100.0 * 100.0
    )
    X, labels = _random_partition(200, 3, 3)
    (score,) = score_partitions(X, [labels], n_per_cluster=20)
    assert score.mean_error > 0.0
    (exact,) = score_partitions(X, [labels], method="exact")
    assert exact.mean_error == 0.0


@pytest.mark.parametrize("method", ["exact", "stratified"])
def test_score_partitions_counts_repeated_rows(method):
    X, labels = _random_partition(60, 3, 3)
    count = np.random.default_rng(0).integers(1, 5, size=60)
    copied = np.repeat(np.arange(60), count)
    (counted,) = score_partitions(X, [labels], method=method, sample_count=count, n_per_cluster=500)
    assert counted.mean == pytest.approx(silhouette_score(X[copied], labels[copied]), abs=1e-6)


def test_silhouette_errors_name_the_remedy():
    X, labels = _random_partition(20, 2, 2)
    with pytest.raises(ValueError, match="1 cluster"):
        silhouette_samples(X, np.zeros(20, dtype=int))
    with pytest.raises(ValueError, match="use 'auto'"):
        score_partitions(X, [labels], method="uniform")
    with pytest.raises(ValueError, match="give one a row"):
        silhouette_samples(X, labels, sample_count=np.ones(3))
    with pytest.raises(ValueError, match="at least 2"):
        stratified_silhouette(X, labels, n_per_cluster=1)


@pytest.mark.gpu
def test_silhouette_samples_on_a_gpu_equal_the_cpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    X, labels = _random_partition(300, 4, 3)
    assert_allclose(
        silhouette_samples(X, labels, device="cuda"), silhouette_samples(X, labels), atol=1e-9
    )
