"""method="error": right or wrong, out of fold."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious.functional._cross_fit import (
    cross_fit_folds,
    cross_fitted_logits,
    fit_balanced_logistic,
)
from skspurious.functional._error_set import stratified_folds
from skspurious.group_inference import ErrorGroups, SpuriousGroupInferrer
from skspurious.group_inference._base import InferenceContext


def make_shortcut(n_samples=600, n_noise=0, seed=0, core=0.1):
    """The spurious feature is strong and agrees with the class in 9 of 10; the core is weak."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    conflicting = np.arange(n_samples) // 2 % 10 == 0
    sign = 2 * y - 1
    X = np.stack([core * sign, 3 * np.where(conflicting, -sign, sign)], axis=1)
    X = np.concatenate([X, np.zeros((n_samples, n_noise))], axis=1)
    return X + rng.normal(scale=0.5, size=X.shape), y, conflicting


def make_inferrer(random_state=0, scope="class", **params):
    return SpuriousGroupInferrer(ErrorGroups(**params), scope=scope, random_state=random_state)


@pytest.mark.fidelity
def test_groups_are_right_and_wrong_samples_of_each_class():
    X, y, conflicting = make_shortcut(core=0.0)  # 6 deviations from the boundary
    inferrer = make_inferrer().fit(X, y)
    assert_array_equal(inferrer.labels_, 2 * y + conflicting)
    assert_array_equal(inferrer.margin_ < 0, conflicting)
    assert_array_equal(inferrer.cluster_sizes_, [270, 30, 270, 30])
    centers = [X[inferrer.labels_ == g].mean(axis=0) for g in inferrer.groups_]
    assert_allclose(inferrer.cluster_centers_, centers)
    assert len(inferrer.cluster_search_) == 0


@pytest.mark.fidelity
def test_margins_are_those_of_models_that_have_not_seen_the_sample():
    """Many features separate the training data: only unseen samples can be wrong."""
    X, y, conflicting = make_shortcut(400, n_noise=500)
    inferrer = make_inferrer(C=10.0).fit(X, y)
    rows = StandardScaler().fit_transform(X)
    in_sample = LogisticRegression(C=10.0, class_weight="balanced").fit(rows, y)
    assert in_sample.score(rows, y) == 1.0
    wrong = inferrer.margin_ < 0
    assert wrong[conflicting].mean() > 0.3  # 40 of them; in the sample none is wrong
    assert wrong[~conflicting].mean() < 0.4
    assert_array_equal(inferrer.labels_, 2 * y + wrong)
    # and yet the training rows keep their groups, in any company
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::3], y=y[::3]), inferrer.labels_[::3])


def test_new_rows_are_judged_by_a_model_of_all_training_rows():
    X, y, _ = make_shortcut(n_noise=5)
    X_new, y_new, conflicting_new = make_shortcut(n_noise=5, seed=1)
    inferrer = make_inferrer(C=0.01).fit(X, y)
    scaler = StandardScaler().fit(X)
    model = LogisticRegression(C=0.01, class_weight="balanced").fit(scaler.transform(X), y)
    decision = model.decision_function(scaler.transform(X_new))
    margin = np.where(y_new == 1, decision, -decision)
    assert_array_equal(inferrer.predict(X_new, y=y_new), 2 * y_new + (margin < 0))
    assert ((margin < 0) == conflicting_new).mean() > 0.95
    proba = inferrer.predict_proba(X_new, y=y_new)
    assert_allclose(proba[np.arange(600), 2 * y_new + 1], expit(-margin), atol=1e-4)
    assert_allclose(proba.sum(axis=1), 1.0)
    # without classes: the right group of the predicted class
    assert_array_equal(inferrer.predict(X_new), 2 * (decision > 0))
    anywhere = inferrer.predict_proba(X_new)
    assert_allclose(anywhere[:, 2], expit(decision), atol=1e-4)
    assert_allclose(anywhere[:, [1, 3]], 0.0)


def test_a_row_with_another_class_than_in_training_is_a_new_row():
    X, y, _ = make_shortcut()
    inferrer = make_inferrer().fit(X, y)
    swapped = inferrer.predict(X, y=1 - y)
    decision = X @ inferrer.method_.coef_ + inferrer.method_.intercept_
    right = decision.argmax(axis=1) == 1 - y
    assert_array_equal(swapped, 2 * (1 - y) + ~right)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_error_groups_do_not_depend_on_the_order_of_rows(dtype):
    X, y, _ = make_shortcut(n_noise=30)
    X = np.concatenate([X, X[:50]]).astype(dtype)
    y = np.concatenate([y, y[:25], 1 - y[25:50]])
    inferrer = make_inferrer().fit(X, y)
    order = np.random.default_rng(1).permutation(650)
    shuffled = make_inferrer().fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])
    assert_array_equal(shuffled.margin_, inferrer.margin_[order])
    assert_array_equal(inferrer.predict(X.astype(np.float64), y=y), inferrer.labels_)
    copied = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(copied.predict(X, y=y), inferrer.labels_)


def test_error_seed_and_folds_decide_the_folds():
    X, y, _ = make_shortcut(n_noise=30)
    first, again = (make_inferrer().fit(X, y).margin_ for _ in range(2))
    assert_array_equal(first, again)
    other = make_inferrer(random_state=1).fit(X, y).margin_
    fewer = make_inferrer(cross_fit=2).fit(X, y).margin_
    stronger = make_inferrer(C=1e-5).fit(X, y).margin_
    assert not np.allclose(first, other)
    assert not np.allclose(first, fewer)
    assert np.abs(stronger).mean() < 0.5 * np.abs(first).mean()


def test_three_classes_have_one_wrong_group_each():
    rng = np.random.default_rng(0)
    center = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    y = np.arange(300) % 3
    at = np.where(np.arange(300) // 3 % 10 == 0, (y + 1) % 3, y)
    X = center[at] + rng.normal(scale=0.3, size=(300, 2))
    inferrer = make_inferrer(C=1.0).fit(X, y)
    assert_array_equal(inferrer.labels_, 2 * y + (at != y))
    proba = inferrer.predict_proba(X, y=y)
    assert_array_equal(proba.argmax(axis=1), inferrer.labels_)


def test_a_class_without_errors_and_a_class_of_few_errors_stay_whole():
    X, y, conflicting = make_shortcut()
    keep = ~(conflicting & (y == 0)) | (np.arange(600) < 60)  # class 0 keeps 3 errors
    X, y = X[keep], y[keep]
    assert_array_equal(make_inferrer().fit(X, y).n_clusters_, [2, 2])
    inferrer = make_inferrer(min_group_size=4).fit(X, y)
    assert_array_equal(inferrer.n_clusters_, [1, 2])
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    alone = make_inferrer().fit(X[y == 0], y[y == 0])
    assert_array_equal(alone.labels_, 0)
    assert_array_equal(alone.predict(X[:5]), 0)


def test_rare_classes_are_no_error():
    X, y, _ = make_shortcut()
    for n_rare in (1, 2, 3):
        rows, code = np.concatenate([X, X[:n_rare] + 9.0]), np.concatenate([y, [2] * n_rare])
        inferrer = make_inferrer().fit(rows, code)
        assert_array_equal(inferrer.predict(rows, y=code), inferrer.labels_)
        assert inferrer.n_clusters_[2] in (1, 2)
        assert np.isfinite(inferrer.margin_).all()


def test_error_refuses_global_scope():
    X, y, _ = make_shortcut(40)
    with pytest.raises(ValueError, match="scope='global' does not go with method=ErrorGroups"):
        make_inferrer(scope="global").fit(X, y)


def test_a_cut_leaves_the_errors_that_the_model_is_sure_of():
    X, y, _ = make_shortcut()
    X = X + np.random.default_rng(1).normal(scale=1.5, size=X.shape)  # some are near the boundary
    whole = make_inferrer().fit(X, y)
    margin = whole.margin_
    sure = margin < -0.3 * np.abs(margin).mean()
    assert 20 < sure.sum() < 0.8 * (margin < 0).sum()
    for by in ("error", "predicted_class"):
        inferrer = make_inferrer(cut=0.3, by=by).fit(X, y)
        assert_array_equal(inferrer.labels_, 2 * y + sure)
        assert_allclose(inferrer.margin_, margin + 0.3 * np.abs(margin).mean())
        assert_array_equal(inferrer.predict(X, y), inferrer.labels_)
        new = X + 1e-6  # near enough to be the same to the model of all rows, but no copies
        far = np.abs(whole.predict(new, y) - whole.labels_) == 0
        assert far.mean() > 0.8
        found = inferrer.predict(new, y) % 2 == 1
        own = whole.method_.margins(new[y == 1], 1) < -0.3 * np.abs(margin).mean()
        assert_array_equal(found[y == 1], own)


# ------------------------------------------------------------------------------ the linear model


@pytest.mark.fidelity
def test_cross_fitted_logits_equal_a_loop_over_the_folds():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 3)), np.arange(90) % 3
    logits = cross_fitted_logits(X, y, 3, n_folds=4, C=0.5, random_state=3)
    order = np.lexsort(X.T[::-1])  # as numbers, the first column first
    _, first = np.unique(y[order], return_index=True)
    strata = np.searchsorted(np.sort(first), first)[y[order]]  # numbered as they appear
    fold = np.empty(90, dtype=int)
    fold[order] = stratified_folds(strata, 4, np.random.Generator(np.random.PCG64(3)))
    for k in range(4):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.5, class_weight="balanced")
        ).fit(X[fold != k], y[fold != k])
        assert_allclose(logits[fold == k], model.decision_function(X[fold == k]), atol=1e-3)


def test_copies_of_a_row_do_not_tell_on_each_other():
    rng = np.random.default_rng(0)
    X, y = (
        np.repeat(rng.normal(size=(150, 100)), 2, axis=0),
        np.repeat(rng.integers(2, size=150), 2),
    )
    logits = cross_fitted_logits(X, y, 2, C=1.0)  # labels of noise: nothing to learn
    assert 0.35 < (logits.argmax(axis=1) == y).mean() < 0.65
    assert_array_equal(logits[::2], logits[1::2])


def test_balanced_logistic_equals_scikit_learn_on_standardised_features():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) * [1.0, 10.0, 0.1, 0.0] + [0.0, 100.0, 0.0, 5.0]
    y = rng.choice(3, p=[0.7, 0.2, 0.1], size=200)
    coef, intercept = fit_balanced_logistic(X, y, 4, C=0.3)
    rows = StandardScaler().fit_transform(X)
    model = LogisticRegression(C=0.3, class_weight="balanced", max_iter=1000).fit(rows, y)
    logits = X @ coef + intercept
    assert_allclose(logits[:, :3], model.decision_function(rows), atol=1e-6)
    assert_allclose(logits[:, 3], -30.0)  # class 3 has no sample


# --------------------------------------------------------------------------------------
# By predicted class


def taken_for_others(n_samples=900, seed=0):
    """Three classes; of ten rows of a class one lies with each of the other two."""
    rng = np.random.default_rng(seed)
    center = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    y = np.arange(n_samples) % 3
    turn = np.arange(n_samples) // 3 % 10
    at = np.where(turn == 0, (y + 1) % 3, np.where(turn == 1, (y + 2) % 3, y))
    return center[at] + rng.normal(scale=0.3, size=(n_samples, 2)), y, at


def test_groups_by_predicted_class():
    X, y, at = taken_for_others()
    inferrer = make_inferrer(C=1.0, by="predicted_class").fit(X, y)
    other = np.where(at == y, 0, 1 + at - (at > y))  # own class, then the others in order
    assert_array_equal(inferrer.labels_, 3 * y + other)
    assert_array_equal(inferrer.margin_ < 0, at != y)
    assert_array_equal(inferrer.n_clusters_, 3)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    X_new, y_new, at_new = taken_for_others(seed=1)
    new = inferrer.predict(X_new, y=y_new)
    assert_array_equal(new, 3 * y_new + np.where(at_new == y_new, 0, 1 + at_new - (at_new > y_new)))
    proba = inferrer.predict_proba(X_new, y=y_new)
    assert_array_equal(proba.argmax(axis=1), new)
    assert_allclose(proba.sum(axis=1), 1.0)
    assert_array_equal(inferrer.predict(X_new), 3 * at_new)
    assert (inferrer.silhouette_ > 0.8).all()
    order = np.random.default_rng(2).permutation(900)
    again = make_inferrer(C=1.0, by="predicted_class").fit(X[order], y[order])
    assert_array_equal(again.labels_, inferrer.labels_[order])
    copied = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(copied.predict(X, y=y), inferrer.labels_)


def test_of_two_classes_the_predicted_class_is_right_or_wrong():
    X, y, _ = make_shortcut(n_noise=5)
    by_error, by_class = (make_inferrer(by=by).fit(X, y) for by in ("error", "predicted_class"))
    assert_array_equal(by_class.labels_, by_error.labels_)
    X_new, y_new, _ = make_shortcut(n_noise=5, seed=1)
    assert_array_equal(by_class.predict(X_new, y=y_new), by_error.predict(X_new, y=y_new))


def test_small_cells_are_put_together():
    X, y, at = taken_for_others()
    keep = (y != 0) | (at == 0) | (np.arange(900) < 200)  # class 0: 7 rows at 1, 7 rows at 2
    few_at_2 = keep & ~((y == 1) & (at == 2) & (np.arange(900) >= 100))  # class 1: 4 rows at 2
    X, y, at = X[few_at_2], y[few_at_2], at[few_at_2]
    params = {"C": 1.0, "by": "predicted_class"}
    assert_array_equal(make_inferrer(**params).fit(X, y).n_clusters_, [3, 3, 3])
    inferrer = make_inferrer(min_group_size=10, **params).fit(X, y)
    # of class 0 both are small, and together large enough; of class 1 the small one joins the other
    assert_array_equal(inferrer.n_clusters_, [2, 2, 3])
    for k in (0, 1):
        group = inferrer.labels_[y == k]
        assert_array_equal(group - group.min(), at[y == k] != k)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    whole = make_inferrer(min_group_size=20, **params).fit(X, y)
    assert_array_equal(whole.n_clusters_, [1, 2, 3])
    assert_allclose(whole.predict_proba(X, y=y).sum(axis=1), 1.0)


def test_a_class_that_nothing_was_taken_for_in_training():
    X, y, at = taken_for_others()
    keep = (y != 0) | (at != 2)
    inferrer = make_inferrer(C=1.0, by="predicted_class").fit(X[keep], y[keep])
    assert_array_equal(inferrer.n_clusters_, [2, 3, 3])
    new = inferrer.predict(X[~keep], y=y[~keep])
    assert_array_equal(new, 1)  # wrong, as those at class 1


# --------------------------------------------------------------------------------------
# The probe


def make_view_with_the_object(n_samples=2000, seed=0):
    """A view that shows the place and some of the object, and 22 columns of the sample itself."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    sign = 2 * y - 1
    conflicting = rng.random(n_samples) < 0.1
    place = np.where(conflicting, -sign, sign)
    core = sign + rng.normal(scale=0.8, size=n_samples)
    noise = rng.normal(scale=0.5, size=(n_samples, 2))
    view = np.stack([place + noise[:, 0], core], axis=1)
    clean = np.stack([3 * place + noise[:, 1], 1.5 * core], axis=1)
    rest = rng.normal(size=(n_samples, 20))
    return np.concatenate([view, clean, rest], axis=1), y, conflicting


def test_the_probe_repairs_a_view_that_holds_some_of_the_object():
    X, y, conflicting = make_view_with_the_object()
    found = {
        "view": make_inferrer().fit(X[:, :2], y),
        "probe": make_inferrer(probe=22).fit(X, y),
    }
    recall = {k: (f.margin_ < 0)[conflicting].mean() for k, f in found.items()}
    precision = {k: conflicting[f.margin_ < 0].mean() for k, f in found.items()}
    assert recall["view"] < 0.65 < 0.75 < recall["probe"]
    assert precision["view"] < 0.87 < 0.9 < precision["probe"]
    inferrer = found["probe"]
    assert_array_equal(inferrer.labels_, 2 * y + (inferrer.margin_ < 0))
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    X_new, y_new, conflicting_new = make_view_with_the_object(seed=1)
    new = inferrer.predict(X_new, y=y_new)
    assert (new % 2 == conflicting_new).mean() > 0.98
    other_view = np.concatenate([X_new[:, :2][::-1], X_new[:, 2:]], axis=1)
    assert_array_equal(inferrer.predict(other_view, y=y_new), new)  # of new rows it is not asked
    order = np.random.default_rng(2).permutation(2000)
    again = make_inferrer(probe=22).fit(X[order], y[order])
    assert_array_equal(again.labels_, inferrer.labels_[order])


def test_the_probe_by_hand():
    """Sides of the other folds by a model of the view, and classes by sides count the same."""
    X, y, _ = make_view_with_the_object(300)
    params = {"n_folds": 3, "random_state": 5}
    order, fold = cross_fit_folds(X, y, 3, 5)
    logits = np.empty((300, 2))
    for k in range(3):
        rows, held_out = order[fold != k], order[fold == k]
        seen = cross_fitted_logits(X[rows, :2], y[rows], 2, C=1.0, **params).argmax(axis=1)
        scaler = StandardScaler().fit(X[rows, 2:])
        count = np.bincount(2 * y[rows] + seen)
        model = LogisticRegression(C=1.0).fit(
            scaler.transform(X[rows, 2:]),
            seen,
            sample_weight=len(rows) / 4 / count[2 * y[rows] + seen],
        )
        decision = model.decision_function(scaler.transform(X[held_out, 2:]))
        logits[held_out] = np.stack([-decision, decision], axis=1) / 2
    method = ErrorGroups(cross_fit=3, C=1.0, probe=22)
    method.find(X, y, InferenceContext(classes=np.arange(2), seed=5))
    assert_allclose(method.margin_, logits[np.arange(300), y] - logits[np.arange(300), 1 - y],
                    atol=2e-3)  # fmt: skip


def test_the_probe_does_not_know_random_labels():
    right = []
    for seed in range(10):
        X = make_view_with_the_object(300, seed=seed)[0]
        y = np.random.default_rng(seed).permutation(np.arange(300) % 2)
        right.append((make_inferrer(seed, probe=22).fit(X, y).margin_ > 0).mean())
    assert abs(np.mean(right) - 0.5) < 3 * 0.5 / np.sqrt(10 * 300)


def test_a_probe_of_all_columns_is_refused():
    X, y, _ = make_shortcut()
    with pytest.raises(ValueError, match=r"probe=2, but X has 2 columns: the view needs some"):
        make_inferrer(probe=2).fit(X, y)
