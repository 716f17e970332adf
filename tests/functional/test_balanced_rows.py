"""The balanced set: counts by hand, and what each way of balancing promises."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspurious.functional._balanced_rows import balanced_rows, cluster_class_counts, mixed_cells

fidelity = pytest.mark.fidelity

COUNTS = np.array([[40, 6, 0], [3, 30, 3], [0, 25, 0], [8, 9, 20]])


def _samples(counts, seed=0):
    """Shuffled clusters and labels with these counts."""
    cluster, label = (
        np.repeat(np.indices(counts.shape)[axis].ravel(), counts.ravel()) for axis in (0, 1)
    )
    order = np.random.default_rng(seed).permutation(len(label))
    return cluster[order], label[order]


def _counts_of(rows, cluster, label, shape=COUNTS.shape):
    table = np.zeros(shape, dtype=int)
    np.add.at(table, (cluster[rows], label[rows]), 1)
    return table


def test_counts_by_hand():
    assert_array_equal(
        cluster_class_counts([2, 0, 0, 2, 2], [1, 0, 0, 0, 1], n_classes=3),
        [[2, 0, 0], [0, 0, 0], [1, 2, 0]],
    )
    assert_array_equal(cluster_class_counts(*_samples(COUNTS)), COUNTS)


def test_cells_of_clusters_with_one_class_are_not_mixed():
    assert_array_equal(
        mixed_cells(COUNTS), [[True, True, False], [True] * 3, [False] * 3, [True] * 3]
    )
    # with at least 7 samples a cell, cluster 0 has one class, and cluster 1 as well
    assert_array_equal(mixed_cells(COUNTS, min_cell_size=7), [[False] * 3] * 3 + [[True] * 3])


@fidelity
def test_within_cluster_classes_are_equally_frequent_in_every_used_cluster():
    cluster, label = _samples(COUNTS)
    rows = balanced_rows(cluster, label, np.random.default_rng(0))
    # cluster 0: 6 of both its classes; 1: 3 of each; 2 is pure and left out; 3: 8 of each
    assert_array_equal(
        _counts_of(rows, cluster, label), [[6, 6, 0], [3, 3, 3], [0, 0, 0], [8, 8, 8]]
    )
    assert_array_equal(rows, np.unique(rows))
    assert rows.min() >= 0
    assert rows.max() < len(label)


def test_cell_sizes_are_bounded():
    cluster, label = _samples(COUNTS)
    rng = np.random.default_rng(0)
    rows = balanced_rows(cluster, label, rng, min_cell_size=4, max_cell_size=5)
    # cluster 1 has one class with 4 samples or more
    assert_array_equal(
        _counts_of(rows, cluster, label), [[5, 5, 0], [0, 0, 0], [0, 0, 0], [5, 5, 5]]
    )


def test_every_cell_gets_the_same_number_with_repetitions():
    cluster, label = _samples(COUNTS)
    rows = balanced_rows(cluster, label, np.random.default_rng(0), balance="cell")
    # the median of 40 6 3 30 3 25 8 9 20 is 9
    assert_array_equal(_counts_of(rows, cluster, label), 9 * (COUNTS > 0))
    small = rows[(cluster[rows] == 1) & (label[rows] == 0)]  # 3 samples, each 3 times
    assert_array_equal(np.unique(small, return_counts=True)[1], [3, 3, 3])
    rows = balanced_rows(cluster, label, np.random.default_rng(0), balance="cell", max_cell_size=4)
    assert_array_equal(_counts_of(rows, cluster, label), 4 * (COUNTS > 0))


def test_random_balances_the_classes_alone():
    cluster, label = _samples(COUNTS)
    rows = balanced_rows(cluster, label, np.random.default_rng(0), balance="random")
    # "within_cluster" has 17 + 17 + 11 = 45 samples: 15 of each class
    assert_array_equal(np.bincount(label[rows]), [15, 15, 15])
    assert len(np.unique(rows)) == 45
    pure = np.where(label == 0, 0, label + 1)  # no mixed cluster: the smallest class, 23
    rows = balanced_rows(pure, label, np.random.default_rng(0), balance="random")
    assert_array_equal(np.bincount(label[rows]), [23, 23, 23])


def test_a_class_that_no_mixed_cluster_has_is_not_lost():
    counts = np.array([[20, 4, 0], [6, 30, 0], [0, 0, 50]])
    cluster, label = _samples(counts)
    rows = balanced_rows(cluster, label, np.random.default_rng(0))
    assert_array_equal(_counts_of(rows, cluster, label, (3, 3)), [[4, 4, 0], [6, 6, 0], [0, 0, 10]])
    assert len(np.unique(rows)) == len(rows)


@fidelity
def test_pure_clusters_alone_give_nothing():
    cluster, label = _samples(np.array([[5, 0], [0, 9]]))
    assert len(balanced_rows(cluster, label, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("balance", ["within_cluster", "cell", "random"])
def test_the_generator_alone_decides(balance):
    cluster, label = _samples(COUNTS)
    first, again, other = (
        balanced_rows(cluster, label, np.random.default_rng(seed), balance=balance)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_sample_of_a_large_cell_can_be_drawn():
    cluster, label = _samples(np.array([[30, 5], [5, 5]]))
    seen = [balanced_rows(cluster, label, np.random.default_rng(s)) for s in range(150)]
    assert len(np.unique(np.concatenate(seen))) == len(label)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"cluster has shape \(2,\) and label \(3,\)"):
        cluster_class_counts([0, 1], [0, 1, 0])
    with pytest.raises(ValueError, match="balance must be"):
        balanced_rows([0, 0], [0, 1], np.random.default_rng(0), balance="classes")


def test_a_cell_of_one_sample_is_a_cell():
    cluster, label = np.repeat([[0, 0, 1, 1], [0, 1, 0, 1]], [4, 1, 1, 4], axis=1)
    rows = balanced_rows(cluster, label, np.random.default_rng(0), balance="cell")
    assert np.bincount(2 * cluster[rows] + label[rows]).tolist() == [3, 3, 3, 3]  # 2.5 rounded up
