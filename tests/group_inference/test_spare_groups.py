"""method="spare": the planted case of early outputs, the sampled silhouette."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import adjusted_rand_score, silhouette_score

from skspurious.functional._silhouette import SilhouetteScore, score_partitions
from skspurious.group_inference import SpareGroups, SpuriousGroupInferrer
from skspurious.group_inference._spare import choose_by_mean_silhouette

SIZES = (10082, 15, 15, 14, 7)


def make_early_outputs(sizes=SIZES, *, peak=7.0, seed=0, n_outputs=5):
    """Softmax outputs that follow the spurious attribute: logits of size `peak`, noise of 1."""
    rng = np.random.default_rng(seed)
    attribute = np.repeat(np.arange(len(sizes)), sizes)
    logits = peak * np.eye(n_outputs)[attribute] + rng.normal(size=(len(attribute), n_outputs))
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba /= proba.sum(axis=1, keepdims=True)
    order = rng.permutation(len(attribute))
    return proba[order], attribute[order]


def _purity(labels, truth):
    return sum(np.bincount(truth[labels == g]).max() for g in np.unique(labels)) / len(truth)


def _score(mean, macro, error=0.0):
    return SilhouetteScore(mean, macro, error, np.array([]))


@pytest.mark.fidelity
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_planted_groups_are_found_with_their_number(dtype):
    Z, attribute = make_early_outputs()
    inferrer = SpuriousGroupInferrer("spare", random_state=0)
    inferrer.fit(Z.astype(dtype), np.zeros(len(Z)))
    assert_array_equal(inferrer.n_clusters_, [5])
    assert_array_equal(inferrer.cluster_sizes_, SIZES)
    assert _purity(inferrer.labels_, attribute) == 1.0
    assert inferrer.silhouette_[0] > 0.9


@pytest.mark.fidelity
def test_a_larger_limit_does_not_split_further():
    Z, _ = make_early_outputs()
    inferrer = SpuriousGroupInferrer(SpareGroups(max_clusters=7), random_state=0)
    assert_array_equal(inferrer.fit(Z, np.zeros(len(Z))).cluster_sizes_, SIZES)


@pytest.mark.fidelity
@pytest.mark.parametrize("silhouette", ["exact", 200])
def test_all_silhouettes_find_the_planted_groups(silhouette):
    Z, attribute = make_early_outputs((1500, 12, 9, 6, 5))
    inferrer = SpuriousGroupInferrer(
        SpareGroups(max_clusters=6), silhouette=silhouette, random_state=0
    ).fit(Z, np.zeros(len(Z)))
    assert adjusted_rand_score(attribute, inferrer.labels_) == 1.0
    expected = silhouette_score(Z, attribute)
    tolerance = 1e-6 if silhouette == "exact" else 0.02
    assert inferrer.silhouette_[0] == pytest.approx(expected, abs=tolerance)


def test_the_mean_silhouette_chooses_and_the_macro_one_decides_what_noise_cannot():
    assert choose_by_mean_silhouette([_score(0.80, 0.9), _score(0.81, 0.1)]) == 1
    assert choose_by_mean_silhouette([_score(0.80, 0.9), _score(0.81, 0.1, 0.02)]) == 0
    assert choose_by_mean_silhouette([_score(0.80, 0.9, 0.02), _score(0.81, 0.1)]) == 1
    assert choose_by_mean_silhouette([_score(0.5, 0.2), _score(0.5, 0.6), _score(0.5, 0.3)]) == 1
    assert choose_by_mean_silhouette([_score(0.2, 0.9, 0.01), _score(0.81, 0.1, 0.01)]) == 1


@pytest.mark.fidelity
def test_the_stratified_silhouette_at_200_chooses_the_exact_k_for_every_seed():
    Z, attribute = make_early_outputs()
    # The partitions that k-means goes through from k=2 to 5, and k=6 that cuts the majority.
    rest = np.where(Z[:, 0] < np.median(Z[attribute == 0, 0]), 5, 0)
    cut = np.where(attribute == 0, rest, attribute)
    partitions = [np.minimum(attribute, k - 1) for k in (2, 3, 4, 5)] + [cut]
    for seed in range(10):
        scores = score_partitions(
            Z, partitions, method="stratified", n_per_cluster=200, random_state=seed
        )
        assert choose_by_mean_silhouette(scores) == 3


@pytest.mark.fidelity
@pytest.mark.parametrize("seed", range(3))
def test_inference_at_200_finds_the_planted_groups_for_any_seed(seed):
    Z, _ = make_early_outputs(seed=seed)
    inferrer = SpuriousGroupInferrer(
        SpareGroups(max_clusters=6, n_init=5), silhouette=200, random_state=seed
    )
    assert_array_equal(inferrer.fit(Z, np.zeros(len(Z))).cluster_sizes_, SIZES)


@pytest.mark.fidelity
def test_binary_outputs_are_clustered_and_scored_exactly():
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.beta(40, 1, 3498), rng.beta(1, 40, 184)])
    Z = np.stack([p, 1 - p], axis=1).astype(np.float32)
    inferrer = SpuriousGroupInferrer("spare").fit(Z, np.zeros(3682))
    assert_array_equal(inferrer.cluster_sizes_, [3498, 184])
    assert inferrer.silhouette_[0] == pytest.approx(
        silhouette_score(Z.astype(np.float64), inferrer.labels_), abs=1e-6
    )
    # Nothing is drawn on a line, so another seed gives the same bits.
    other = SpuriousGroupInferrer("spare", random_state=5).fit(Z, np.zeros(3682))
    assert_array_equal(other.labels_, inferrer.labels_)
    assert_array_equal(other.silhouette_, inferrer.silhouette_)


def test_saturated_outputs_are_clustered_without_a_warning():
    Z = np.repeat(np.eye(4, dtype=np.float32), [500, 20, 3, 2], axis=0)
    inferrer = SpuriousGroupInferrer("spare", random_state=0).fit(Z, np.zeros(525))
    assert_array_equal(inferrer.cluster_sizes_, [500, 20, 3, 2])
    assert inferrer.silhouette_[0] == 1.0
