"""Over-clustering: the four criteria, what is left of a cluster, the losses."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from sklearn.metrics import silhouette_samples

from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.functional._silhouette import mean_silhouettes
from skspurious.functional._subclusters import select_subclusters
from skspurious.group_inference import SpuriousGroupInferrer, _clusters
from skspurious.group_inference._methods import METHODS
from skspurious.group_inference._samples import check_losses

RARE = np.repeat([False, True, False], [500, 60, 300])


def make_hidden(seed=0):
    """A large cluster, a rare one beside it and a third far away in class 0; class 1 is round.

    Two clusters are best by the macro silhouette where only two are tried, and the rare one is
    then hidden in the large one.
    """
    rng = np.random.default_rng(seed)
    center = np.repeat([[0.0, 0.0], [6.0, 0.0], [0.0, 16.0]], [500, 60, 300], axis=0)
    X = np.concatenate([center, np.full((200, 2), 40.0)])
    X += rng.normal(scale=0.5, size=X.shape)
    loss = np.full(len(X), 0.1)
    loss[:860][RARE] = 2.0
    return X, np.repeat([0, 1], [860, 200]), loss


def make_inferrer(method="kmeans", **params):
    shared = {"normalize": False, "n_clusters": {0: 2, 1: 1}, "overclustering": 5}
    params = shared | params
    inferrer = SpuriousGroupInferrer(METHODS[method](), random_state=0)
    own = inferrer.method.get_params()
    return inferrer.set_params(**{f"method__{k}" if k in own else k: v for k, v in params.items()})


# -------------------------------------------------------------------------- the four criteria


PASSING = {
    "parent": np.array([0, 0, 1]),
    "new_silhouette": np.array([0.1, 0.5, 0.3]),
    "old_silhouette": np.array([0.2, 0.4, 0.4]),
    "loss": np.array([0.1, 1.0, 0.1]),
    "size": np.array([9000, 50, 950]),
    "valid_size": np.array([900, 25, 95]),
}


@pytest.mark.fidelity
@pytest.mark.parametrize(
    ("change", "criterion"),
    [
        ({}, None),
        ({"new_silhouette": [0.1, 0.4, 0.3]}, "i: not larger than before"),
        ({"new_silhouette": [0.1, -0.1, 0.3], "old_silhouette": [0.2, -0.5, 0.4]}, "i: below 0"),
        ({"loss": [1.1, 1.0, 0.1]}, "ii: easier than its cluster"),
        ({"size": [9001, 49, 950]}, "iii: below 0.5 %"),
        ({"valid_size": [900, 24, 95]}, "iv: rare in validation"),
    ],
)
def test_each_criterion_vetoes_alone(change, criterion):
    case = PASSING | {key: np.array(value) for key, value in change.items()}
    assert_array_equal(select_subclusters(**case), [False, criterion is None, False])


@pytest.mark.fidelity
def test_the_smallest_size_is_25_whatever_the_share():
    case = PASSING | {"valid_size": None}
    for size, kept in ((24, False), (25, True)):
        case["size"] = np.array([1000, size, 100])
        assert select_subclusters(**case)[1] == kept
        assert select_subclusters(**case, min_size=24)[1]
    case["size"] = np.array([9001, 49, 950])
    assert select_subclusters(**case, min_share=0.0)[1]


def test_an_equal_loss_passes_and_a_rounding_error_does_not_veto():
    case = PASSING | {"loss": np.array([0.1, 0.1, 0.1]), "size": np.array([9000, 70, 930])}
    assert_array_equal(select_subclusters(**case), [False, True, False])


def test_a_rest_that_is_too_small_takes_back_the_smallest_part():
    case = {
        "parent": np.array([0, 0, 0]),
        "new_silhouette": np.array([0.9, 0.9, 0.1]),
        "old_silhouette": np.array([0.2, 0.2, 0.2]),
        "loss": np.array([1.0, 1.0, 0.0]),
        "size": np.array([60, 30, 5]),
    }
    assert_array_equal(select_subclusters(**case), [True, True, False])
    assert_array_equal(select_subclusters(**case, min_rest=6), [True, False, False])
    assert_array_equal(select_subclusters(**case, min_rest=36), [False, False, False])


# ------------------------------------------------------------------------------ the silhouettes


@pytest.mark.parametrize("method", ["exact", "stratified"])
def test_mean_silhouettes_of_parts_equal_those_of_scikit_learn(method):
    rng = np.random.default_rng(0)
    part = np.repeat([0, 1, 2, 3, 4], [30, 20, 10, 25, 15])
    cluster = np.array([0, 0, 1, 1, 1])[part]
    X = rng.normal(size=(100, 3)) + 3.0 * part[:, None] * [1.0, 0.0, 0.5]
    params = {"method": method, "n_per_cluster": 30}  # all members: nothing is estimated
    found = mean_silhouettes(X, [part, cluster], part, **params)
    for row, labels in zip(found, (part, cluster)):
        sample = silhouette_samples(X, labels)
        assert_allclose(row, [sample[part == p].mean() for p in range(5)], atol=1e-9)
    count = rng.integers(1, 4, size=100)
    repeated = np.repeat(np.arange(100), count)
    found = mean_silhouettes(
        X, [part, cluster], part, sample_count=count, method=method, n_per_cluster=90
    )
    expected = mean_silhouettes(
        X[repeated], [part[repeated], cluster[repeated]], part[repeated], method="exact"
    )
    assert_allclose(found, expected, atol=1e-9)


def test_mean_silhouettes_of_a_sample_are_near_the_exact_ones():
    X, _, _ = make_hidden()
    X = X[:860]
    part = np.repeat([0, 1, 2, 3], [250, 250, 60, 300])
    partitions = [part, np.array([0, 0, 0, 1])[part]]
    exact = mean_silhouettes(X, partitions, part, method="exact")
    for seed in range(3):
        params = {"method": "stratified", "n_per_cluster": 60, "random_state": seed}
        found = mean_silhouettes(X, partitions, part, **params)
        # two halves of one cluster, told apart by 60 rows of each: a deviation of about 0.06
        halves = np.zeros((2, 4), dtype=bool)
        halves[0, :2] = True
        assert_allclose(found[halves], exact[halves], atol=0.2)
        assert_allclose(found[~halves], exact[~halves], atol=0.03)


# ---------------------------------------------------------------------------------- in an inferrer


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
@pytest.mark.parametrize("silhouette", ["exact", 300])
def test_a_hard_part_of_a_cluster_becomes_a_group(method, silhouette):
    X, y, loss = make_hidden()
    base = make_inferrer(method, overclustering=None).fit(X, y)
    assert_array_equal(base.cluster_sizes_, [560, 300, 200])
    inferrer = make_inferrer(method, silhouette=silhouette, overclustering=2)
    inferrer.fit(X, y, losses=loss)
    # the large cluster gives the rare one; its rest and the others stay
    rare = inferrer.labels_[:860] == inferrer.labels_[:860][RARE][0]
    assert_array_equal(rare, RARE)
    of_base = [set(base.labels_[inferrer.labels_ == g]) for g in inferrer.groups_]
    assert all(len(bases) == 1 for bases in of_base)  # groups are nested in base clusters
    assert inferrer.n_clusters_[1] == 1
    sizes = inferrer.cluster_sizes_[inferrer.group_classes_ == 0]
    assert (np.diff(sizes) <= 0).all()  # the largest first
    means = [X[inferrer.labels_ == g].mean(axis=0) for g in inferrer.groups_]
    assert_allclose(inferrer.cluster_centers_, means)


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ["kmeans", "gmm", "spare"])
@pytest.mark.parametrize("scope", ["class", "global"])
def test_overclustering_predicts_the_training_groups_in_any_order(method, scope):
    X, y, loss = make_hidden()
    params = {"scope": scope, "n_clusters": 3}
    inferrer = make_inferrer(method, **params).fit(X, y, losses=loss)
    # of all four clusters together a mixture of three may find the rare one by itself
    assert len(inferrer.groups_) > 3 or (method, scope) == ("gmm", "global")
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::7], y=y[::7]), inferrer.labels_[::7])
    proba = inferrer.predict_proba(X, y=y)
    assert_allclose(proba.sum(axis=1), 1.0)
    assert_array_equal(proba[inferrer.group_classes_ != y[:, None]], 0.0)
    assert (proba.argmax(axis=1) == inferrer.labels_).mean() > 0.95
    order = np.random.default_rng(0).permutation(len(X))
    shuffled = make_inferrer(method, **params).fit(X[order], y[order], losses=loss[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])


@pytest.mark.fidelity
@pytest.mark.parametrize("veto", ["silhouettes", "losses", "size", "validation"])
def test_where_all_parts_are_vetoed_the_base_clusters_remain(veto):
    X, y, loss = make_hidden()
    params, valid = {"overclustering": 2}, {}
    base = make_inferrer(overclustering=None).fit(X, y)
    inferrer = make_inferrer(**params).fit(X, y, losses=loss)
    assert len(inferrer.groups_) > len(base.groups_)
    if veto == "silhouettes":  # halves of round clusters, however hard, are not separated
        X, y = X[:860][~RARE], y[:860][~RARE]
        loss = (X[:, 0] > 0.0).astype(float)
        params["n_clusters"] = 2
        base = make_inferrer(n_clusters=2, overclustering=None).fit(X, y)
    elif veto == "losses":
        loss[:860][RARE] = 0.0
    elif veto == "size":
        params["overclustering_min_size"] = 400
    elif veto == "validation":
        valid = {"X_val": X[::50], "y_val": y[::50]}
    inferrer = make_inferrer(**params).fit(X, y, losses=loss, **valid)
    assert_array_equal(inferrer.labels_, base.labels_)
    assert_array_equal(inferrer.predict(X, y=y), base.labels_)


def test_validation_rows_count_in_their_class_alone():
    X, y, loss = make_hidden()
    base = make_inferrer(overclustering=None).fit(X, y)
    params = {"overclustering": 2}
    enough = make_inferrer(**params).fit(X, y, losses=loss, X_val=X, y_val=y)
    assert len(enough.groups_) > len(base.groups_)
    other = make_inferrer(**params).fit(X, y, losses=loss, X_val=X, y_val=np.ones_like(y))
    assert_array_equal(other.labels_, base.labels_)


def test_losses_are_cross_fitted_where_none_are_given():
    X, y, _ = make_hidden()
    X[y == 1] += [-31.0, -40.0]  # the rare part is the one nearest to class 1
    params = {"n_clusters": {0: 2, 1: 1}, "overclustering": 2}
    inferrer = make_inferrer(**params).fit(X, y)
    logits = cross_fitted_logits(X, y, 2, random_state=0)
    losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
    assert losses[:860][RARE].mean() > losses[:860][~RARE].mean()
    given = make_inferrer(**params).fit(X, y, losses=losses)
    assert_array_equal(given.labels_, inferrer.labels_)
    opposite = make_inferrer(**params).fit(X, y, losses=-losses)
    assert not np.array_equal(opposite.labels_, inferrer.labels_)


@pytest.mark.parametrize("seed", [0, 3])
def test_cross_fitted_losses_follow_the_seed(seed):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.arange(60) % 3
    logits = cross_fitted_logits(X, y, 3, random_state=seed)
    expected = -log_softmax(logits, axis=1)[np.arange(60), y]
    assert_array_equal(check_losses(None, X, y, seed), expected)
    assert not np.array_equal(check_losses(None, X, y, seed + 1), expected)


@pytest.mark.parametrize(
    ("losses", "is_group"), [((0.0, 0.3), True), ((0.3, 0.0), True), ((0.06, 0.06), False)]
)
def test_the_loss_of_equal_rows_is_their_mean(losses, is_group):
    """Every row of the rare part comes twice; the others have a loss of 0.1."""
    X, y, _ = make_hidden()
    rare = np.flatnonzero(np.append(RARE, np.zeros(200, dtype=bool)))
    loss = np.full(len(X), 0.1)
    loss[rare] = losses[0]
    X, y = np.concatenate([X, X[rare]]), np.append(y, y[rare])
    loss = np.append(loss, np.full(len(rare), losses[1]))
    inferrer = make_inferrer().fit(X, y, losses=loss)
    group = inferrer.labels_[rare]
    is_alone = not np.isin(inferrer.labels_[:500], group).any()
    assert is_alone == is_group


def test_the_loss_of_a_part_is_that_of_its_samples_and_not_of_its_distinct_rows():
    """Of the rare part half of the rows come three times: 0.09 in the mean, 0.16 of the rows."""
    X, y, _ = make_hidden()
    rare = np.flatnonzero(np.append(RARE, np.zeros(200, dtype=bool)))
    loss = np.full(len(X), 0.1)
    loss[rare[::2]], loss[rare[1::2]] = 0.02, 0.3
    at = np.concatenate([np.arange(len(X)), rare[::2], rare[::2]])
    inferrer = make_inferrer(overclustering=2).fit(X[at], y[at], losses=loss[at])
    base = make_inferrer(overclustering=None).fit(X[at], y[at])
    assert_array_equal(inferrer.labels_, base.labels_)
    others = make_inferrer(overclustering=2).fit(X, y, losses=loss)
    assert len(others.groups_) > len(base.groups_)


def test_the_variance_of_clusters_in_a_space_is_that_of_a_feature():
    """Means (1, 0) and (10, 3), the last row three times: 14 for 6 rows of 2 features."""
    work, label = np.array([[0.0, 0], [2, 0], [10, 0], [10, 4]]), np.array([0, 0, 1, 1])
    found = _clusters._in_input_space(None, None, work, work, np.array([1, 1, 1, 3]), label)
    assert_allclose(found.centers, [[1.0, 0.0], [10.0, 3.0]])
    assert found.variance == pytest.approx(14 / 12)


def test_without_overclustering_losses_change_nothing():
    X, y, loss = make_hidden()
    plain = make_inferrer(overclustering=None).fit(X, y)
    given = make_inferrer(overclustering=None).fit(X, y, losses=loss, X_val=X, y_val=y)
    assert_array_equal(given.labels_, plain.labels_)


def test_overclustering_checks_the_losses():
    X, y, loss = make_hidden()
    with pytest.raises(ValueError, match=r"losses has shape \(1059,\) for 1060 samples"):
        make_inferrer().fit(X, y, losses=loss[1:])
    with pytest.raises(ValueError, match="contains NaN"):
        make_inferrer().fit(X, y, losses=np.where(loss > 1, np.nan, loss))


def test_clusters_with_fewer_rows_than_parts_are_not_split():
    X = np.repeat([[0.0], [0.1], [0.2], [9.0], [9.1]], 30, axis=0)
    inferrer = make_inferrer(n_clusters=2).fit(X, np.zeros(150), losses=np.ones(150))
    assert_array_equal(inferrer.cluster_sizes_, [90, 60])
    inferrer = make_inferrer(n_clusters=2, overclustering=3)
    inferrer.fit(X, np.zeros(150), losses=np.ones(150))
    assert_array_equal(inferrer.cluster_sizes_, [60, 30, 30, 30])
