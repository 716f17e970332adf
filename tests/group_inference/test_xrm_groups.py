"""method="xrm": right or wrong by the twin that has not seen the sample."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.preprocessing import StandardScaler

from skspurious import LastLayerRetrainer
from skspurious.functional._cross_fit import cross_fit_folds
from skspurious.functional._cross_mistakes import fit_linear_twins
from skspurious.group_inference import ErrorGroups, SpuriousGroupInferrer, XRMGroups
from skspurious.metrics import worst_group_accuracy


def make_shortcut(n_samples=1000, n_noise=20, seed=0, core=0.5):
    """The place is plain and goes with the class in 9 of 10; the object is spread out and weak."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    is_minority = np.arange(n_samples) // 2 % 10 == 0
    sign = 2 * y - 1
    place = np.where(is_minority, -sign, sign)
    X = rng.normal(size=(n_samples, 2 + n_noise))
    X[:, 0] = 3 * place + 0.5 * X[:, 0]
    X[:, 1] += core * sign
    return X.astype(np.float32), y, is_minority


def make_inferrer(random_state=0, **params):
    return SpuriousGroupInferrer(XRMGroups(**params), random_state=random_state)


@pytest.mark.fidelity
def test_the_minority_of_an_easy_shortcut_is_found():
    X, y, is_minority = make_shortcut()
    inferrer = make_inferrer().fit(X, y)
    found = inferrer.labels_ % 2 == 1
    assert_array_equal(inferrer.labels_ // 2, y)
    for k in (0, 1):
        both = (found & is_minority)[y == k].sum()
        assert both / found[y == k].sum() > 0.9
        assert both / is_minority[y == k].sum() > 0.9
    # and labels of the minority are what flips
    flipped = inferrer.method_.flipped_mask_
    assert flipped[is_minority].mean() > 0.9
    assert flipped[~is_minority].mean() < 0.05
    assert_array_equal(inferrer.method_.flip_counts_, [flipped.sum()])


@pytest.mark.fidelity
def test_flips_make_the_shortcut_the_rule():
    """Where the object could be learned too, errors out of fold miss most of the minority."""
    X, y, is_minority = make_shortcut(core=1.5)
    recall, precision = {}, {}
    for flip in (True, False):
        found = make_inferrer(flip_labels=flip).fit(X, y).margin_ < 0
        recall[flip], precision[flip] = found[is_minority].mean(), is_minority[found].mean()
    assert recall[True] > recall[False] + 0.2
    assert precision[True] > precision[False] + 0.02


def test_groups_of_xrm_serve_a_last_layer():
    X, y, _ = make_shortcut(core=1.5)
    X_new, y_new, minority_new = make_shortcut(core=1.5, seed=1)
    worst = {}
    for name, groups in {"xrm": make_inferrer().fit(X, y).labels_, "class": y}.items():
        head = LastLayerRetrainer(n_draws=2, C=1.0, random_state=0).fit(X, y, sample_group=groups)
        group = 2 * y_new + minority_new
        worst[name] = worst_group_accuracy(y_new, head.predict(X_new), sample_group=group)
    assert worst["xrm"] > worst["class"] + 0.05


def test_sides_are_those_of_the_twin_that_has_not_seen_the_row():
    X, y, _ = make_shortcut(300, n_noise=10)
    seed = 11
    method = XRMGroups(n_steps=50, batch_size=64)
    logits, coef, intercept, is_flipped = method._run(X, y, 2, seed)
    order, half = cross_fit_folds(X, y, 2, seed)
    rows = torch.from_numpy(StandardScaler().fit_transform(X[order]))
    number = y[order] != y[order[0]]  # the first class that appears is 0
    params = {"n_steps": 50, "batch_size": 64, "random_state": seed}
    twins = fit_linear_twins(
        rows, torch.from_numpy(number.astype(int)), torch.from_numpy(half), 2, **params
    )
    for k in (0, 1):
        judged = half == 1 - k
        expected = (rows @ twins[0][k] + twins[1][k])[judged].numpy()
        found = logits[order[judged]]
        found = found if y[order[0]] == 0 else found[:, ::-1]
        assert_allclose(found, expected, atol=1e-4)
    assert_array_equal(is_flipped[order], twins[2].numpy() != number)
    assert coef.shape == (2, 12, 2)
    assert intercept.shape == (2, 2)
    for k in (0, 1):  # halves share every class evenly
        assert abs((half[y[order] == k] == 0).sum() - 75) <= 1


def test_training_rows_keep_their_sides_and_new_ones_get_the_mean_of_both_twins():
    X, y, _ = make_shortcut()
    inferrer = make_inferrer(n_steps=100).fit(X, y)
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    assert_array_equal(inferrer.predict(X[::3].astype(float), y=y[::3]), inferrer.labels_[::3])
    X_new, y_new, minority_new = make_shortcut(seed=1)
    new = inferrer.predict(X_new, y=y_new)
    assert (new % 2 == minority_new).mean() > 0.95
    seed = np.random.default_rng(np.random.RandomState(0).randint(2**31 - 1)).integers(2**31 - 1)
    _, coef, intercept, _ = XRMGroups(n_steps=100)._run(X, y, 2, int(seed))
    mean = ((X_new @ coef[0] + intercept[0]) + (X_new @ coef[1] + intercept[1])) / 2
    assert_array_equal(new, 2 * y_new + (mean.argmax(axis=1) != y_new))
    copied = pickle.loads(pickle.dumps(inferrer))
    assert_array_equal(copied.predict(X, y=y), inferrer.labels_)


@pytest.mark.fidelity
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_order_and_names_change_nothing(dtype):
    X, y, _ = make_shortcut(300, n_noise=30)
    y[::7] = 2
    X = np.concatenate([X, X[:50]]).astype(dtype)
    y = np.concatenate([y, y[:25], 1 - y[25:50] % 2])
    inferrer = make_inferrer(n_steps=60).fit(X, y)
    assert inferrer.method_.flip_counts_[0] > 10
    order = np.random.default_rng(1).permutation(350)
    shuffled = make_inferrer(n_steps=60).fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])
    assert_array_equal(shuffled.margin_, inferrer.margin_[order])
    X, y = X[:325], y[:325]  # equal rows of different classes are told apart by the class
    inferrer = make_inferrer(n_steps=60).fit(X, y)
    renamed = make_inferrer(n_steps=60).fit(X, np.array(["c", "a", "b"])[y])
    assert_array_equal(renamed.margin_, inferrer.margin_)
    assert_array_equal(renamed.method_.flipped_mask_, inferrer.method_.flipped_mask_)


def test_copies_of_a_row_do_not_tell_on_each_other():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(300, 100)), 2, axis=0)
    y = np.repeat(rng.integers(2, size=300), 2)  # noise: there is nothing to learn
    inferrer = make_inferrer(flip_labels=False).fit(X, y)
    assert 0.4 < (inferrer.margin_ < 0).mean() < 0.6
    assert_array_equal(inferrer.margin_[::2], inferrer.margin_[1::2])


@pytest.mark.fidelity
def test_of_several_runs_the_one_with_the_most_flips_is_kept():
    X, y, _ = make_shortcut(300, n_noise=30)
    method = make_inferrer(n_runs=4, n_steps=60).fit(X, y).method_
    assert method.flip_counts_.shape == (4,)
    assert len(set(method.flip_counts_.tolist())) > 1
    assert method.flipped_mask_.sum() == method.flip_counts_.max()
    assert make_inferrer(n_steps=60).fit(X, y).method_.flip_counts_[0] == method.flip_counts_[0]


def test_without_flips_none_are_counted_and_the_groups_are_errors():
    X, y, _ = make_shortcut(n_noise=3, core=0.0)
    inferrer = make_inferrer(flip_labels=False).fit(X, y)
    assert_array_equal(inferrer.method_.flip_counts_, [0])
    errors = SpuriousGroupInferrer(ErrorGroups(cross_fit=2), random_state=0).fit(X, y)
    assert (inferrer.labels_ == errors.labels_).mean() > 0.97


def test_rare_and_constant_things_are_no_error():
    X, y, _ = make_shortcut(200, n_noise=3)
    X[:, 3] = 7.0
    for n_rare in (1, 2, 3):
        rows, code = np.concatenate([X, X[:n_rare] + 9.0]), np.concatenate([y, [2] * n_rare])
        inferrer = make_inferrer(n_steps=20).fit(rows, code)
        assert_array_equal(inferrer.predict(rows, y=code), inferrer.labels_)
        assert np.isfinite(inferrer.margin_).all()
    alone = make_inferrer(n_steps=5).fit(X[y == 0], y[y == 0])
    assert_array_equal(alone.labels_, 0)
    assert_array_equal(alone.predict(X[:5]), 0)


def test_xrm_refuses_what_makes_no_sense():
    X, y, _ = make_shortcut(40, n_noise=3)
    with pytest.raises(ValueError, match="scope='global' does not go with method='xrm'"):
        SpuriousGroupInferrer("xrm", scope="global").fit(X, y)
    for name, value in {"lr": 0.0, "momentum": 1.0, "n_steps": 0, "n_runs": 0}.items():
        with pytest.raises(ValueError, match=f"'{name}' parameter of XRMGroups must be"):
            make_inferrer(**{name: value}).fit(X, y)
