"""SpuriousGroupInferrer as a scikit-learn estimator: what it returns, accepts and refuses."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from skspurious.data import GroupedData
from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.group_inference._methods import METHODS

NAMES = ["kmeans", "gmm", "spare", "dispersion"]
ALL_NAMES = [*NAMES, "error", "xrm", "eiil"]


def make_groups(n_samples=400, seed=0):
    """Two classes; in each, 1 sample in 8 has the attribute of the other class."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    attribute = np.where(np.arange(n_samples) // 2 % 8 == 0, 1 - y, y)
    X = np.zeros((n_samples, 6))
    X[np.arange(n_samples), attribute] = 6.0
    X[np.arange(n_samples), 2 + y] = 2.0
    order = rng.permutation(n_samples)
    return (X + rng.normal(scale=0.5, size=X.shape))[order], y[order], attribute[order]


def make_inferrer(method, **params):
    if method == "gmm":
        params = {"max_clusters": 3} | params  # mixtures take their time
    inferrer = SpuriousGroupInferrer(METHODS[method](), random_state=0)
    own = inferrer.method.get_params()
    return inferrer.set_params(**{f"method__{k}" if k in own else k: v for k, v in params.items()})


@pytest.mark.parametrize("method", ALL_NAMES)
def test_check_estimator(method):
    params = {"n_clusters": 2} if method == "gmm" else {}
    check_estimator(make_inferrer(method, **params), on_skip=None)


# ----------------------------------------------------------------------------- what fit learns


@pytest.mark.fidelity
@pytest.mark.parametrize("method", NAMES)
def test_groups_are_nested_in_classes_and_numbered_without_gaps(method):
    X, y, attribute = make_groups()
    inferrer = make_inferrer(method).fit(X, y)
    m = len(inferrer.groups_)
    assert_array_equal(inferrer.groups_, np.arange(m))
    assert_array_equal(np.unique(inferrer.labels_), np.arange(m))
    assert_array_equal(inferrer.group_classes_[inferrer.labels_], y)
    assert_array_equal(inferrer.group_classes_, [0, 0, 1, 1])
    assert_array_equal(inferrer.n_clusters_, [2, 2])
    assert_array_equal(inferrer.cluster_sizes_, np.bincount(inferrer.labels_))
    assert_array_equal(inferrer.cluster_sizes_, [175, 25, 175, 25])
    assert inferrer.cluster_centers_.shape == (4, 6)
    assert adjusted_rand_score(2 * y + attribute, inferrer.labels_) == 1.0


@pytest.mark.parametrize("method", ["kmeans", "spare"])
def test_centers_are_the_means_of_the_groups(method):
    X, y, _ = make_groups()
    inferrer = make_inferrer(method).fit(X, y)
    rows = X / np.linalg.norm(X, axis=1, keepdims=True) if inferrer.normalize_ else X
    expected = [rows[inferrer.labels_ == g].mean(axis=0) for g in inferrer.groups_]
    assert_allclose(inferrer.cluster_centers_, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ALL_NAMES)
def test_order_of_rows_only_permutes_the_groups(method):
    X, y, _ = make_groups()
    X = np.concatenate([X, X[:37]])  # repeated rows as well
    y = np.concatenate([y, y[:37]])
    order = np.random.default_rng(1).permutation(len(X))
    inferrer = make_inferrer(method).fit(X, y)
    shuffled = make_inferrer(method).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])
    assert_allclose(shuffled.cluster_centers_, inferrer.cluster_centers_, rtol=1e-9)
    assert_allclose(shuffled.silhouette_, inferrer.silhouette_, rtol=1e-9)


@pytest.mark.parametrize("method", ["kmeans", "spare"])
def test_order_of_rows_only_permutes_the_groups_where_rows_overlap(method):
    # No clusters to find, coarse values with many ties, a sampled silhouette.
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 4, size=(600, 4)).astype(np.float32), np.arange(600) % 2
    order = rng.permutation(600)
    params = {"silhouette": 20, "n_init": 2}
    inferrer = make_inferrer(method, **params).fit(X, y)
    shuffled = make_inferrer(method, **params).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ALL_NAMES)
def test_names_and_order_of_classes_only_rename_the_groups(method):
    X, y, _ = make_groups()
    X[y == 1] *= np.linspace(0.5, 1.5, (y == 1).sum())[:, None]  # the classes differ
    inferrer = make_inferrer(method).fit(X, y)
    swapped = make_inferrer(method).fit(X, np.array(["b", "a"])[y])
    assert_array_equal(swapped.classes_, ["a", "b"])
    n_first = inferrer.n_clusters_[0]
    n_second = inferrer.n_clusters_[1]
    rename = np.concatenate([n_second + np.arange(n_first), np.arange(n_second)])
    assert_array_equal(swapped.labels_, rename[inferrer.labels_])
    for name in ("n_clusters_", "silhouette_"):
        assert_array_equal(getattr(swapped, name), getattr(inferrer, name)[::-1])


def test_the_first_class_in_the_data_need_not_be_the_first_class():
    X, y, _ = make_groups()
    y_first = np.argsort(y != 1, kind="stable")  # class 1 comes first
    blurred = X + np.where(y[:, None] == 0, 0.0, np.random.default_rng(0).normal(0, 3, X.shape))
    inferrer = make_inferrer("spare").fit(blurred[y_first], y[y_first])
    assert_array_equal(inferrer.classes_, [0, 1])
    assert inferrer.silhouette_[0] > inferrer.silhouette_[1]


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ALL_NAMES)
def test_groups_that_the_data_carry_are_not_looked_at(method):
    X, y, attribute = make_groups()
    plain = make_inferrer(method).fit(X, y)
    for group in (attribute, np.zeros_like(y), np.arange(len(y))):
        carried = make_inferrer(method).fit(GroupedData(X, group), y)
        assert_array_equal(carried.labels_, plain.labels_)


@pytest.mark.parametrize("method", NAMES)
def test_float32_and_float64_give_the_same_groups(method):
    X, y, _ = make_groups()
    single = make_inferrer(method).fit(X.astype(np.float32), y)
    assert_array_equal(single.labels_, make_inferrer(method).fit(X, y).labels_)


@pytest.mark.parametrize("method", ["kmeans", "spare"])
def test_scale_and_offset_of_the_features_change_nothing(method):
    X, y, _ = make_groups()
    params = {"normalize": False}
    plain = make_inferrer(method, **params).fit(X, y)
    for scale, offset in ((1e-25, 0.0), (1e25, 0.0), (1.0, 1e5)):
        moved = make_inferrer(method, **params).fit(X * scale + offset, y)
        assert_array_equal(moved.labels_, plain.labels_)
        assert_allclose(moved.silhouette_, plain.silhouette_, atol=1e-6)


# ------------------------------------------------------------------------------------- new rows


@pytest.mark.fidelity
@pytest.mark.parametrize("method", ALL_NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_reproduces_the_training_groups(method, dtype):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 8)).astype(dtype), rng.integers(3, size=500)
    inferrer = make_inferrer(method).fit(X, y)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::7], y=y[::7]), inferrer.labels_[::7])
    one_by_one = [inferrer.predict(X[i : i + 1], y=y[i : i + 1])[0] for i in range(20)]
    assert_array_equal(one_by_one, inferrer.labels_[:20])


@pytest.mark.fidelity
@pytest.mark.parametrize("method", NAMES)
def test_predict_numbers_groups_alike_where_a_class_is_missing(method):
    X, y, attribute = make_groups()
    X_new, y_new, attribute_new = make_groups(seed=1)
    inferrer = make_inferrer(method).fit(X, y)
    of_class = {(y[i], attribute[i]): inferrer.labels_[i] for i in range(len(y))}
    only = y_new == 1
    expected = [of_class[y_new[i], attribute_new[i]] for i in np.flatnonzero(only)]
    assert_array_equal(inferrer.predict(X_new[only], y=y_new[only]), expected)


def test_predict_takes_the_nearest_center_of_the_class_or_of_all():
    X, y, _ = make_groups()
    inferrer = make_inferrer("spare").fit(X, y)
    X_new = np.random.default_rng(3).normal(2.0, 3.0, size=(200, 6))
    y_new = np.arange(200) % 2
    squared = ((X_new[:, None] - inferrer.cluster_centers_) ** 2).sum(axis=2)
    assert_array_equal(inferrer.predict(X_new), squared.argmin(axis=1))
    squared[inferrer.group_classes_ != y_new[:, None]] = np.inf
    assert_array_equal(inferrer.predict(X_new, y=y_new), squared.argmin(axis=1))


@pytest.mark.parametrize("method", ALL_NAMES)
def test_memberships_are_probabilities_inside_the_class(method):
    X, y, _ = make_groups()
    inferrer = make_inferrer(method).fit(X, y)
    X_new, y_new = 0.3 * X, y
    inside = inferrer.predict_proba(X_new, y=y_new)
    assert inside.shape == (400, 4)
    assert_allclose(inside.sum(axis=1), 1.0)
    assert_array_equal(inside[inferrer.group_classes_ != y_new[:, None]], 0.0)
    assert_array_equal(inside.argmax(axis=1), inferrer.predict(X_new, y=y_new))
    anywhere = inferrer.predict_proba(X_new)
    assert_allclose(anywhere.sum(axis=1), 1.0)
    assert_array_equal(anywhere.argmax(axis=1), inferrer.predict(X_new))


@pytest.mark.parametrize("n_features", [1, 2])
def test_membership_is_the_posterior_of_gaussians_of_one_variance(n_features):
    # Centers 0.5 and 10.5, each row .5 from its center: variance .25 in every feature.
    X = np.array([[0.0], [1.0], [10.0], [11.0]])
    variance = 0.25 / n_features  # further features are 0
    X, new = (np.pad(rows, ((0, 0), (0, n_features - 1))) for rows in (X, [[6.0], [0.0]]))
    inferrer = make_inferrer("spare", n_clusters=2).fit(X, np.zeros(4))
    odds = np.exp(-((6.0 - 0.5) ** 2 - (6.0 - 10.5) ** 2) / (2 * variance))
    row = inferrer.predict_proba(new[:1])[0]
    near = inferrer.predict(new[1:])[0]
    assert row[near] == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_membership_given_the_class_is_the_one_without_restricted_to_it():
    X, y, _ = make_groups()
    inferrer = make_inferrer("spare").fit(X, y)
    rows = np.random.default_rng(0).normal(2.0, 1.0, size=(50, 6))
    restricted = inferrer.predict_proba(rows)[:, :2]
    expected = restricted / restricted.sum(axis=1, keepdims=True)
    assert_allclose(inferrer.predict_proba(rows, y=np.zeros(50))[:, :2], expected, rtol=1e-9)


def test_memberships_are_shared_where_there_is_no_variance():
    X = np.array([[0.0], [0.0], [2.0], [2.0]])
    inferrer = make_inferrer("spare").fit(X, np.zeros(4))
    assert_array_equal(inferrer.predict_proba([[0.0], [1.0], [9.0]]), [[1, 0], [0.5, 0.5], [0, 1]])


# ------------------------------------------------------------------------ neighbors, exemplars


def test_kneighbors_equal_brute_force():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 5)) + 1000.0, rng.integers(2, size=200)
    rows, classes = X[:30] + 0.01, y[:30]
    inferrer = make_inferrer("spare", store_index=True).fit(X, y)
    exact = np.linalg.norm(rows[:, None] - X, axis=2)
    distance, position = inferrer.kneighbors(rows, 4)
    assert_array_equal(position, np.argsort(exact, axis=1)[:, :4])
    assert_allclose(distance, np.sort(exact, axis=1)[:, :4], atol=1e-2)
    exact[y != classes[:, None]] = np.inf
    position = inferrer.kneighbors(rows, 4, y=classes, return_distance=False)
    assert_array_equal(position, np.argsort(exact, axis=1)[:, :4])


def test_kneighbors_errors_name_the_remedy():
    X, y, _ = make_groups(40)
    with pytest.raises(ValueError, match="store_index=True"):
        make_inferrer("kmeans").fit(X, y).kneighbors(X)
    inferrer = make_inferrer("kmeans", store_index=True).fit(X, y)
    with pytest.raises(ValueError, match="between 1 and 40"):
        inferrer.kneighbors(X, 41)
    with pytest.raises(ValueError, match=r"between 1 and 20, .* smallest class asked for"):
        inferrer.kneighbors(X, 21, y=y)


@pytest.mark.parametrize("method", ALL_NAMES)
def test_exemplars_are_the_members_nearest_to_the_center(method):
    X, y, _ = make_groups(80)
    inferrer = make_inferrer(method).fit(X, y)
    rows = X / np.linalg.norm(X, axis=1, keepdims=True) if inferrer.normalize_ else X
    exemplars = inferrer.exemplars(7)
    assert [len(e) for e in exemplars] == np.minimum(inferrer.cluster_sizes_, 7).tolist()
    for group, positions in enumerate(exemplars):
        distance = np.linalg.norm(rows - inferrer.cluster_centers_[group], axis=1)
        distance[inferrer.labels_ != group] = np.inf
        # distances, not positions: of two members both are as near to their mean
        assert len(set(positions)) == len(positions)
        assert_allclose(distance[positions], np.sort(distance)[: len(positions)], rtol=1e-5)


# ---------------------------------------------------------------------------- kinds of input


def test_fit_transform_attaches_the_groups():
    X, y, attribute = make_groups()
    inferrer = make_inferrer("kmeans")
    for samples in (X, GroupedData(X, attribute)):
        result = inferrer.fit_transform(samples, y)
        assert isinstance(result, GroupedData)
        assert result.data is X
        assert result.group_inferrer is inferrer
        assert_array_equal(result.sample_group, inferrer.labels_)


def test_transform_returns_its_input():
    X, y, attribute = make_groups()
    inferrer = make_inferrer("kmeans").fit(X, y)
    frame, tensor = pd.DataFrame(X), torch.from_numpy(X)
    assert inferrer.transform(X) is X
    assert inferrer.transform(tensor) is tensor
    assert inferrer.transform(frame) is frame
    assert_array_equal(inferrer.transform(X.tolist()), X)
    carried = inferrer.transform(GroupedData(X, attribute, group_inferrer=inferrer))
    assert carried.data is X
    assert carried.group_inferrer is inferrer
    assert_array_equal(carried.sample_group, attribute)


@pytest.mark.parametrize("kind", [np.float16, torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_tensors_are_accepted(kind):
    X, y, _ = make_groups()
    expected = make_inferrer("spare").fit(X, y).labels_
    samples = X.astype(kind) if kind is np.float16 else torch.tensor(X, dtype=kind)
    samples = samples if kind is np.float16 else samples.requires_grad_()
    inferrer = make_inferrer("spare").fit(samples, torch.from_numpy(y))
    assert_array_equal(inferrer.labels_, expected)
    assert_array_equal(inferrer.predict(samples, y=torch.from_numpy(y)), expected)


def test_output_containers_and_feature_names_pass_through_a_pipeline():
    X, y, _ = make_groups(80)
    frame = pd.DataFrame(X, columns=list("abcdef"), index=np.arange(80) + 7)
    pipeline = make_pipeline(StandardScaler(), make_inferrer("kmeans"))
    result = pipeline.set_output(transform="pandas").fit_transform(frame, y)
    assert isinstance(result, GroupedData)
    assert list(result.data.columns) == list("abcdef")
    assert_array_equal(result.data.index, frame.index)
    assert list(pipeline.get_feature_names_out()) == list("abcdef")
    assert isinstance(pipeline.transform(frame), pd.DataFrame)
    kept = pipeline[-1].transform(GroupedData(frame, y))
    assert isinstance(kept, GroupedData)
    assert isinstance(kept.data, pd.DataFrame)
    with pytest.raises(ValueError, match="feature names should match"):
        pipeline[-1].predict(frame.rename(columns={"a": "z"}))


def test_the_carried_inferrer_numbers_the_groups_of_a_test_fold():
    X, y, attribute = make_groups()
    data = make_inferrer("kmeans").fit_transform(X, y)
    for _, test in KFold(4).split(data):
        fold = data[test]
        assert_array_equal(fold.group_inferrer.predict(fold, y=y[test]), fold.sample_group)
    assert adjusted_rand_score(2 * y + attribute, data.sample_group) == 1.0


def test_string_classes_and_one_class_work():
    X, y, _ = make_groups()
    names = np.array(["land bird", "water bird"], dtype=object)[y]
    inferrer = make_inferrer("kmeans").fit(X, names)
    assert inferrer.group_classes_.tolist() == ["land bird"] * 2 + ["water bird"] * 2
    assert_array_equal(inferrer.predict(X, y=pd.Series(names)), inferrer.labels_)
    for method in NAMES:
        alone = make_inferrer(method).fit(X[y == 0], y[y == 0])
        assert len(alone.groups_) == (1 if method == "dispersion" else 2)


# ------------------------------------------------------------------------ seeds, jobs, pickles


@pytest.mark.parametrize("method", NAMES)
def test_same_seed_same_groups_and_global_rng_untouched(method, assert_global_rng_untouched):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 6)), rng.integers(2, size=300)
    params = {"silhouette": 10}
    if method != "dispersion":
        params |= {"n_clusters": 6, "n_init": 1}
    with assert_global_rng_untouched():
        first, again = (make_inferrer(method, **params).fit(X, y) for _ in range(2))
        make_inferrer(method, random_state=None, **params).fit(X, y)
    other = make_inferrer(method, random_state=1, **params).fit(X, y)
    assert_array_equal(first.labels_, again.labels_)
    assert_array_equal(first.silhouette_, again.silhouette_)
    assert not np.array_equal(first.silhouette_, other.silhouette_)
    if method != "dispersion":
        assert not np.array_equal(first.labels_, other.labels_)


@pytest.mark.parametrize("silhouette", ["exact", 300])
def test_two_jobs_equal_one(silhouette):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 6)).astype(np.float32), rng.integers(5, size=500)
    one, two = (make_inferrer("kmeans", silhouette=silhouette, n_jobs=n).fit(X, y) for n in (1, 2))
    assert_array_equal(two.labels_, one.labels_)
    assert_array_equal(two.silhouette_, one.silhouette_)
    assert_array_equal(two.cluster_centers_, one.cluster_centers_)
    pd.testing.assert_frame_equal(two.cluster_search_, one.cluster_search_)


@pytest.mark.parametrize("method", ALL_NAMES)
@pytest.mark.parametrize("store_index", [True, False])
def test_pickle_and_deepcopy_keep_everything(method, store_index):
    X, y, _ = make_groups(80)
    inferrer = make_inferrer(method, store_index=store_index).fit(X, y)
    for other in (pickle.loads(pickle.dumps(inferrer)), copy.deepcopy(inferrer)):
        assert_array_equal(other.predict(X, y=y), inferrer.labels_)
        assert_array_equal(other.predict_proba(X), inferrer.predict_proba(X))
        if store_index:
            assert_array_equal(other.kneighbors(X)[1], inferrer.kneighbors(X)[1])


def test_clone_drops_what_was_learned():
    X, y, _ = make_groups(80)
    inferrer = make_inferrer("spare", n_clusters=2).fit(X, y)
    assert repr(clone(inferrer).get_params()) == repr(inferrer.get_params())
    assert clone(inferrer).method is not inferrer.method
    assert not hasattr(clone(inferrer), "labels_")
    assert not hasattr(inferrer.method, "models_")  # the clone in method_ is the fitted one


def test_verbose_shows_a_bar_and_silence_is_silent(capfd):
    X, y, _ = make_groups(80)
    make_inferrer("kmeans").fit(X, y)
    assert capfd.readouterr() == ("", "")
    make_inferrer("kmeans", verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == ""
    assert "classes" in err


# ------------------------------------------------------------------------------------- errors


def test_labels_of_new_rows_are_checked():
    X, y, _ = make_groups(40)
    inferrer = make_inferrer("kmeans").fit(X, y)
    with pytest.raises(ValueError, match=r"classes that fit did not see: \[7\]"):
        inferrer.predict(X, y=np.where(np.arange(40) == 3, 7, y))
    with pytest.raises(ValueError, match="39 labels for 40 samples"):
        inferrer.predict_proba(X, y=y[:39])


def test_sparse_input_and_continuous_targets_are_refused():
    from scipy.sparse import csr_array

    X, y, _ = make_groups(40)
    with pytest.raises(TypeError, match="dense data is required"):
        SpuriousGroupInferrer().fit(csr_array(X), y)
    with pytest.raises(ValueError, match="Unknown label type"):
        SpuriousGroupInferrer().fit(X, X[:, 0])


def test_a_number_of_clusters_for_each_class():
    X, y, _ = make_groups()
    inferrer = make_inferrer("spare", n_clusters={0: 3, 1: "auto"}).fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [3, 2])
    with pytest.raises(ValueError, match=r"n_clusters has the classes \[0\]"):
        make_inferrer("spare", n_clusters={0: 3}).fit(X, y)
    with pytest.raises(ValueError, match=r"n_clusters\[1\]=0"):
        make_inferrer("spare", n_clusters={0: 3, 1: 0}).fit(X, y)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="device='cuda', but torch sees no GPU"):
        SpuriousGroupInferrer(device="cuda").fit(*make_groups(40)[:2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("method", NAMES)
def test_a_gpu_gives_the_groups_of_the_cpu(method):
    X, y, _ = make_groups()
    on_gpu = make_inferrer(method, device="cuda").fit(X, y)
    assert_array_equal(on_gpu.labels_, make_inferrer(method, device="cpu").fit(X, y).labels_)
