"""What balancing the sides of a nuisance recovers: by a plain loop, its laws, alarms and power."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from skspurious.functional._cross_fit import cross_fit_folds
from skspurious.functional._recovery import recovery_tests


def make_data(strength, seed, n=300, n_classes=2):
    """The class in the first feature, a nuisance in the second, and what a view sees of it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    other = (y + rng.integers(1, n_classes, size=n)) % n_classes
    nuisance = np.where(rng.random(n) < strength, y, other)
    X = rng.normal(size=(n, 8))
    X[:, :n_classes] += 2.0 * np.eye(n_classes)[y]
    X[:, -n_classes:] += 4.0 * np.eye(n_classes)[nuisance]
    return X, y, np.eye(n_classes)[nuisance]


def reference(X, y, says, n_classes):
    """Sides, hits with balanced classes, and hits with balanced sides, by scikit-learn's Ridge."""
    order, fold = cross_fit_folds(X, y, 5, 0)
    fold_of = np.empty(len(y), dtype=int)
    fold_of[order] = fold

    def right(features, weight):
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        score = np.empty((len(y), n_classes))
        for k in np.unique(fold_of):
            rows = fold_of != k
            for c in range(n_classes):
                model = Ridge(alpha=weight[rows].sum())
                model.fit(features[rows], np.where(y[rows] == c, 1.0, -1.0), weight[rows])
                score[~rows, c] = model.predict(features[~rows])
        return score.argmax(axis=1) == y

    weight = 1.0 / np.bincount(y)[y]
    is_wrong = ~right(says, weight)
    sides = 2 * y + is_wrong
    return is_wrong, right(X, weight), right(X, 1.0 / np.bincount(sides)[sides])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_figures_are_those_of_a_plain_loop(n_classes):
    X, y, says = make_data(0.8, 0, n_classes=n_classes)
    is_wrong, before, after = reference(X, y, says, n_classes)
    (test,) = recovery_tests(X, y, [says], n_permutations=1)
    np.testing.assert_array_equal(test.is_wrong, is_wrong)
    np.testing.assert_array_equal(test.is_hit, before)
    change = after.astype(float) - before
    gained = [change[(y == k) & is_wrong].mean() for k in range(n_classes)]
    lost = [-change[(y == k) & ~is_wrong].mean() for k in range(n_classes)]
    np.testing.assert_allclose(test.class_recovered, gained)
    np.testing.assert_allclose(test.class_lost, lost)
    assert test.recovered == pytest.approx(np.mean(gained))
    assert test.lost == pytest.approx(np.mean(lost))
    spread = [change[(y == k) & is_wrong] for k in range(n_classes)]
    error = np.sqrt(sum(s.var() / len(s) for s in spread)) / n_classes
    assert test.standard_error == pytest.approx(error)


def test_the_order_of_the_samples_and_the_names_of_the_classes_change_nothing():
    X, y, says = make_data(0.7, 0)
    (test,) = recovery_tests(X, y, [says], n_permutations=20)
    order = np.random.default_rng(1).permutation(len(y))
    (shuffled,) = recovery_tests(X[order], y[order], [says[order]], n_permutations=20)
    (renamed,) = recovery_tests(X, 1 - y, [says], n_permutations=20)
    np.testing.assert_array_equal(shuffled.is_wrong, test.is_wrong[order])
    np.testing.assert_array_equal(renamed.class_recovered, test.class_recovered[::-1])
    assert shuffled[4:] == pytest.approx(test[4:])
    assert renamed[4:] == pytest.approx(test[4:])


def test_a_nuisance_twice_is_corrected_for_once():
    X, y, says = make_data(0.55, 3)
    coin = np.random.default_rng(0).normal(size=(len(y), 2))
    (alone,) = recovery_tests(X, y, [says], n_permutations=50)
    twice = recovery_tests(X, y, [says, says], n_permutations=50)
    with_coin = recovery_tests(X, y, [says, coin], n_permutations=50)[0]
    assert twice[0].p_value == twice[1].p_value == alone.p_value
    assert with_coin.p_value >= alone.p_value  # the largest of two is larger than the first


@pytest.mark.parametrize("says", ["class", "nothing"])
def test_what_has_one_side_has_no_evidence(says):
    X, y, _ = make_data(0.8, 0)
    n = np.eye(2)[y] if says == "class" else np.ones((len(y), 1))
    (test,) = recovery_tests(X, y, [n], n_permutations=20)
    assert test.p_value == 1.0 or test.p_value > 0.05
    assert abs(test.recovered) < 0.05
    if says == "class":
        assert np.isnan(test.class_recovered).all()


def test_without_a_nuisance_there_is_nothing_to_say():
    X, y, _ = make_data(0.8, 0, n=50)
    assert recovery_tests(X, y, [], n_permutations=2) == []


def test_alarms_without_a_shortcut_are_few():
    """At level 0.05 in 40 sets two are expected, and more than six in one of 300 tries."""
    alarms = 0
    for seed in range(40):
        X, y, says = make_data(0.5, seed)
        (test,) = recovery_tests(X, y, [says], n_permutations=39, random_state=seed)
        alarms += test.p_value <= 0.05
    assert alarms <= 6


def test_a_view_of_the_object_is_no_evidence():
    """It says the class, and is wrong about hard samples: the object, seen through a fog."""
    alarms = 0
    for seed in range(20):
        X, y, _ = make_data(0.5, seed)
        fog = X[:, :2] + np.random.default_rng(seed + 100).normal(size=(len(y), 2))
        (test,) = recovery_tests(X, y, [fog], n_permutations=39, random_state=seed)
        assert test.is_wrong.mean() < 0.35
        alarms += test.p_value <= 0.05
    assert alarms <= 3


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_strong_shortcut_is_found(n_classes):
    X, y, says = make_data(0.9, 0, n_classes=n_classes)
    (test,) = recovery_tests(X, y, [says])
    assert test.p_value == 0.01
    assert test.recovered > 0.1
    assert test.lost < test.recovered
