"""method="eiil": environments by the sign of the loss's derivative by a factor on the logits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.pipeline import make_pipeline

from skspurious import BalancedRetrainer, ERMClassifier, TorchFeatureExtractor
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.functional._environments import environment_penalty, scale_gradients
from skspurious.group_inference import EIILGroups, ErrorGroups, SpuriousGroupInferrer


def make_shortcut(n_samples=600, n_noise=5, seed=0):
    """The spurious feature is strong and agrees with the class in 9 of 10; the core is weak."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    is_minority = np.arange(n_samples) // 2 % 10 == 0
    sign = 2 * y - 1
    X = rng.normal(scale=0.5, size=(n_samples, 2 + n_noise))
    X[:, 0] += 0.1 * sign
    X[:, 1] += 3 * np.where(is_minority, -sign, sign)
    return X, y, is_minority


def make_inferrer(random_state=0, **params):
    return SpuriousGroupInferrer(EIILGroups(**params), random_state=random_state)


@pytest.mark.fidelity
def test_the_minority_of_a_shortcut_is_an_environment():
    X, y, is_minority = make_shortcut()
    inferrer = make_inferrer().fit(X, y)
    found = inferrer.labels_ % 2 == 1
    for k in (0, 1):
        both = (found & is_minority)[y == k].sum()
        assert both / found[y == k].sum() > 0.9
        assert both / is_minority[y == k].sum() > 0.9
    X_new, y_new, minority_new = make_shortcut(seed=1)
    new = inferrer.predict(X_new, y=y_new)
    assert (new % 2 == minority_new).mean() > 0.95
    proba = inferrer.predict_proba(X_new, y=y_new)
    assert_array_equal(proba.argmax(axis=1), new)


@pytest.mark.fidelity
def test_of_two_classes_the_environments_are_right_and_wrong():
    X, y, _ = make_shortcut(n_noise=30)
    inferrer = make_inferrer(C=0.1).fit(X, y)
    errors = SpuriousGroupInferrer(ErrorGroups(C=0.1), random_state=0).fit(X, y)
    assert_array_equal(inferrer.labels_, errors.labels_)
    assert_array_equal(inferrer.margin_, errors.margin_)
    X_new, y_new, _ = make_shortcut(n_noise=30, seed=1)
    assert_array_equal(inferrer.predict(X_new, y=y_new), errors.predict(X_new, y=y_new))


@pytest.mark.fidelity
def test_environments_have_the_largest_penalty_of_the_reference_out_of_fold():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 4)), rng.integers(3, size=300)
    X[np.arange(300), y] += 1.0
    inferrer = make_inferrer(cross_fit=3, C=1.0).fit(X, y)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    logits = cross_fitted_logits(X, y, 3, n_folds=3, C=1.0, random_state=seed)
    gradient = scale_gradients(logits, y)
    assert_array_equal(inferrer.labels_, 2 * y + (gradient > 0))
    assert_array_equal(inferrer.predict(X, y=y), inferrer.labels_)
    penalty = inferrer.method_.penalty_
    assert penalty == pytest.approx(environment_penalty(gradient, gradient > 0))
    for row in range(0, 300, 7):  # whatever sample changes its environment
        q = (gradient > 0).astype(float)
        q[row] = 1 - q[row]
        assert environment_penalty(gradient, q) < penalty
    wrong = logits.argmax(axis=1) != y
    assert 0 < ((gradient > 0) != wrong).mean() < 0.3  # with three classes not the errors


def test_logits_by_hand():
    """Wrong, but above the mean of all logits; wrong and below; right."""
    p = np.array([[0.5, 0.4, 0.1], [0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0, 0, 1]])
    logits = np.log(p + 1e-9)
    y = np.array([1, 1, 1, 0, 2])
    inferrer = make_inferrer(from_logits=True).fit(logits, y)
    assert_array_equal(inferrer.labels_, [1, 2, 1, 0, 3])
    q = softmax(logits, axis=1)
    margin = logits[np.arange(5), y] - (q * logits).sum(axis=1)
    assert_allclose(-scale_gradients(logits, y), margin)
    assert_array_equal(inferrer.predict(logits[:3] + 5.0, y=[1, 1, 1]), [1, 2, 1])


def test_logits_need_a_column_for_each_class():
    X, y, _ = make_shortcut()
    with pytest.raises(ValueError, match="needs a column for each of the 2 classes, and X has 7"):
        make_inferrer(from_logits=True).fit(X, y)


def test_a_network_is_the_reference():
    X, y, is_minority = make_shortcut()
    reference = ERMClassifier(lr=0.1, max_epochs=3, random_state=0)
    find = make_pipeline(
        TorchFeatureExtractor(reference, output="logits", cross_fit=3, random_state=0),
        make_inferrer(from_logits=True),
    )
    clf = BalancedRetrainer(group_inferrer=find, lr=0.1, max_epochs=2, random_state=0).fit(X, y)
    found = clf.group_inferrer_[-1].labels_ % 2 == 1
    assert (found == is_minority).mean() > 0.97


def test_order_of_rows_changes_nothing():
    X, y, _ = make_shortcut(n_noise=30)
    order = np.random.default_rng(1).permutation(600)
    inferrer, shuffled = make_inferrer().fit(X, y), make_inferrer().fit(X[order], y[order])
    assert_array_equal(shuffled.labels_, inferrer.labels_[order])


def test_eiil_refuses_global_scope():
    X, y, _ = make_shortcut(40)
    with pytest.raises(ValueError, match="scope='global' does not go with method='eiil'"):
        SpuriousGroupInferrer("eiil", scope="global").fit(X, y)
