"""Weights and scores of a jury, by hand and by laws."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspurious.functional._jury import balanced_hits, jury_scores, view_weights


def test_hits_by_hand():
    votes = np.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [[0.1, 0.9], [0.6, 0.4], [0.7, 0.3]]])
    y = np.array([0, 1, 1])
    # class 0: (1 + 1/2) / 2, class 1: (1 + 1/2) / 3; the second view is right about none
    assert_allclose(balanced_hits(votes, y), [(0.75 + 0.5) / 2, (0.25 + 1 / 6) / 2])


def test_hits_count_every_class_the_same_and_not_those_that_are_absent():
    y = np.repeat([0, 2], [98, 2])
    votes = np.zeros((1, 100, 3))
    votes[0, :, 0] = 1.0
    hits = balanced_hits(votes, y)
    assert_allclose(hits, [((98 + 1 / 3) / 99 + (1 / 3) / 3) / 2])


def test_a_view_without_an_opinion_is_at_chance():
    for n_classes in (2, 3, 7):
        y = np.arange(70) % n_classes
        assert_allclose(balanced_hits(np.full((1, 70, n_classes), 0.2), y), 1 / n_classes)


def test_weights_by_hand():
    # (a - 1/K) / (1 - 1/K) / (1 - a): 0.8 / 0.1 and 0.5 / 0.25, squared
    assert_allclose(view_weights(np.array([0.9, 0.75]), 2), [64 / 68, 4 / 68])
    # three classes: 0.7 / 0.2 and 0.4 / 0.4
    assert_allclose(view_weights(np.array([0.8, 0.6]), 3), [12.25 / 13.25, 1 / 13.25])


@pytest.mark.parametrize("n_classes", [2, 5])
def test_weights_laws(n_classes):
    accuracy = np.array([0.9, 0.3, 0.75, 1 / n_classes, 0.6, 0.05])
    weight = view_weights(accuracy, n_classes)
    assert weight.sum() == pytest.approx(1.0)
    assert_array_equal(weight > 0, accuracy > 1 / n_classes)
    above = np.flatnonzero(weight)
    assert_array_equal(np.argsort(weight[above]), np.argsort(accuracy[above]))
    order = np.array([3, 1, 5, 0, 4, 2])
    assert_allclose(view_weights(accuracy[order], n_classes), weight[order])


def test_the_clean_sample_counts_at_most_as_much_as_the_best_view():
    accuracy = np.array([0.9, 0.8, 0.99])
    clean = np.array([False, False, True])
    weight = view_weights(accuracy, 2, clean=clean)
    assert weight[2] == pytest.approx(weight[0])
    weaker = view_weights(np.array([0.9, 0.8, 0.7]), 2, clean=clean)
    assert_allclose(weaker, view_weights(np.array([0.9, 0.8, 0.7]), 2))
    # no view is above chance: neither is the clean sample heard
    assert_array_equal(view_weights(np.array([0.5, 0.5, 0.99]), 2, clean=clean), np.zeros(3))
    assert_array_equal(view_weights(np.array([0.9]), 2, clean=np.array([True])), [1.0])


def test_three_standard_errors_by_hand():
    # 100 samples of each of two classes: the standard error is sqrt(0.25 / 100 * 2) / 2 = 0.0354
    assert_array_equal(view_weights(np.array([0.6, 0.61]), 2, n_samples=100), [0.0, 1.0])
    # of 25 and 400: sqrt(0.25 * (1/25 + 1/400)) / 2 = 0.0515
    size = np.array([25, 400])
    assert_array_equal(view_weights(np.array([0.65, 0.66]), 2, n_samples=size), [0.0, 1.0])
    # one sample of a rare class does not silence all views
    size = np.array([1, 100, 100])
    assert_array_equal(view_weights(np.array([0.9]), 3, n_samples=size), [1.0])


def test_one_class_has_no_weights():
    assert_array_equal(view_weights(np.array([1.0, 1.0]), 1, n_samples=10), [0.0, 0.0])


def test_scores_by_hand():
    votes = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.6, 0.4]]])
    score = jury_scores(votes, np.array([0.25, 0.75]))
    assert_allclose(score, [[0.375, 0.625], [0.575, 0.425]])


def test_scores_are_equal_where_nobody_is_heard():
    votes = np.array([[[0.9, 0.05, 0.05]]])
    assert_allclose(jury_scores(votes, np.zeros(1)), np.full((1, 3), 1 / 3))


def test_scores_laws():
    rng = np.random.default_rng(0)
    votes = rng.dirichlet(np.ones(3), size=(5, 40))
    weight = rng.dirichlet(np.ones(5))
    score = jury_scores(votes, weight)
    assert_allclose(score, sum(w * v for w, v in zip(weight, votes, strict=True)))
    assert_allclose(score.sum(axis=1), 1.0)
    order = rng.permutation(5)  # to the last bit
    assert_array_equal(jury_scores(votes[order], weight[order]), score)
    # a view that is given twice with half the weight each counts as one
    twice = jury_scores(votes[[0, 0, 1, 2, 3, 4]], np.r_[weight[0] / 2, weight[0] / 2, weight[1:]])
    assert_allclose(twice, score)
    # a view of weight 0 changes nothing
    with_silent = jury_scores(np.concatenate([votes, votes[:1]]), np.r_[weight, 0.0])
    assert_array_equal(with_silent, score)
