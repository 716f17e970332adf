"""k-means against hand values, brute force and scikit-learn."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans

from skspurious.functional import _rows
from skspurious.functional._clustering import (
    assign_nearest,
    kmeans_centers,
    merge_small_clusters,
    seed_centers,
    squared_distances_to,
)
from skspurious.functional._kmeans_1d import kmeans_1d
from skspurious.functional._rows import find_line, row_ids, row_keys, unique_rows


def _inertia(X, centers):
    return ((X[:, None, :] - centers) ** 2).sum(axis=2).min(axis=1).sum()


def _reference_kmeans_1d(values, n_clusters):
    """Least inertia over all ways to cut the sorted values into intervals."""
    values = np.sort(values)
    return min(
        sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cut))
        for cut in itertools.combinations(range(1, len(values)), n_clusters - 1)
    )


# ------------------------------------------------------------------------- unique rows, lines


def test_unique_rows_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    X = rng.integers(-1, 2, size=(60, 3)).astype(np.float32)
    rows, index, count = unique_rows(X)
    assert_array_equal(X[index], rows)
    assert_array_equal(count, [np.all(row == X, axis=1).sum() for row in rows])
    again, _, count_again = unique_rows(X[rng.permutation(60)])
    assert_array_equal(again, rows)
    assert_array_equal(count_again, count)


def test_chunks_of_rows_change_nothing(monkeypatch):
    X = np.random.default_rng(0).integers(-1, 2, size=(60, 3)).astype(float)
    line = np.outer(np.arange(60.0), [1.0, 2.0, 2.0]) + 1.0

    def found():
        return [*unique_rows(X), row_ids(X), row_keys(X, np.arange(60)), find_line(line)]

    at_once = found()
    monkeypatch.setattr(_rows, "_CHUNK_SIZE", 21)  # 7 rows
    for whole, parts in zip(at_once, found(), strict=True):
        assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unique_rows_are_ordered_as_numbers(dtype):
    values = np.array([-np.inf, -300, -1.5, -1e-40, 0, 1e-40, 0.1, 1, 256, 257, np.inf], dtype)
    rows = np.random.default_rng(0).choice(values, size=(200, 3))
    expected = np.array(sorted({tuple(row) for row in rows.tolist()}), dtype)
    assert_array_equal(unique_rows(rows)[0], expected)
    assert_array_equal(expected[row_ids(rows)], rows)


def test_last_bits_do_not_move_rows():
    """Drawn seeds and folds follow this order: they must not change with the processor."""
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    other = np.nextafter(X, np.random.default_rng(1).choice([-9, 9], size=X.shape), dtype=X.dtype)
    assert (other != X).all()
    assert_array_equal(row_ids(X), row_ids(other))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keys_of_rows_tell_the_smallest_numbers_and_classes_apart(dtype):
    rows = np.array([[1e-30], [2e-30], [0.0], [-0.0], [0.0], [1e-30]], dtype=dtype)
    key = row_keys(rows, np.array([0, 0, 0, 0, 1, 0]))
    _, number = np.unique(key, return_inverse=True)
    equal = number[:, None] == number
    assert_array_equal(equal, np.equal.outer(*[[0, 1, 2, 2, 3, 0]] * 2))


def test_unique_rows_take_minus_zero_for_zero():
    rows, _, count = unique_rows(np.array([[0.0], [-0.0]]))
    assert_array_equal(rows, [[0.0]])
    assert_array_equal(count, [2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_find_line_keeps_distances_of_a_binary_softmax(dtype):
    p = np.random.default_rng(0).random(50).astype(dtype)
    X = np.stack([p, 1 - p], axis=1)
    position = find_line(X)
    expected = np.linalg.norm(X[:, None] - X[None], axis=2)
    assert_allclose(np.abs(position[:, None] - position), expected, atol=1e-6)


def test_find_line_sees_a_line_in_saturated_float32_outputs():
    p = 1.0 - 1e-5 * np.random.default_rng(0).random(50)
    assert find_line(np.stack([p, 1 - p], axis=1).astype(np.float32)) is not None


def test_find_line_finds_none_off_a_line():
    X = np.random.default_rng(0).random((50, 1)) * [1.0, 2.0, 3.0]
    assert find_line(X) is not None
    X[3, 2] += 1e-3
    assert find_line(X) is None


def test_find_line_of_constant_rows_is_a_point():
    assert_array_equal(find_line(np.full((4, 3), 0.3)), np.zeros(4))


# ------------------------------------------------------------------------------------- k-means


def test_seed_centers_picks_every_well_separated_cluster():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(5), [500, 3, 2, 2, 1])
    X = (100.0 * np.eye(5)[label] + rng.normal(size=(508, 5))).astype(np.float32)
    for seed in range(10):
        index = seed_centers(X, 5, rng=np.random.default_rng(seed))
        assert sorted(label[index]) == [0, 1, 2, 3, 4]


def test_seed_centers_never_draws_a_row_that_counts_zero_times():
    X = np.arange(20.0)[:, None].astype(np.float32)
    count = (np.arange(20) % 2).astype(np.int64)
    index = seed_centers(X, 6, rng=np.random.default_rng(0), sample_count=count)
    assert (index % 2 == 1).all()


def test_seed_centers_with_counts_draw_the_same_rows_as_with_copies():
    rng = np.random.default_rng(0)
    X, count = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(1, 30, size=50)
    copied = np.repeat(np.arange(50), count)
    for seed in range(10):
        counted = seed_centers(X, 8, rng=np.random.default_rng(seed), sample_count=count)
        index = seed_centers(X[copied], 8, rng=np.random.default_rng(seed))
        assert_array_equal(copied[index], counted)


@pytest.mark.parametrize(("n_samples", "n_features", "n_clusters"), [(800, 2, 4), (600, 12, 8)])
def test_kmeans_centers_are_as_good_as_sklearn(n_samples, n_features, n_clusters):
    rng = np.random.default_rng(n_features)
    center = rng.normal(scale=2.0, size=(n_clusters, n_features))
    X = center[rng.integers(n_clusters, size=n_samples)] + rng.normal(size=(n_samples, n_features))
    ours = _inertia(X, kmeans_centers(X, n_clusters))
    theirs = KMeans(n_clusters, n_init=10, random_state=0).fit(X).inertia_
    assert ours <= 1.002 * theirs


def test_kmeans_centers_keep_a_cluster_of_seven_among_ten_thousand():
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [10_000, 7])
    X = np.array([[0.0, 0.0], [30.0, 0.0]])[label] + rng.normal(scale=0.1, size=(10_007, 2))
    centers = kmeans_centers(X, 2)
    assert sorted(np.bincount(assign_nearest(X, centers)[0])) == [7, 10_000]


def test_kmeans_centers_with_counts_equal_copies():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(30, 2)), rng.normal(size=(10, 2)) + 8.0])
    count = rng.integers(1, 6, size=40)
    counted = kmeans_centers(X, 2, sample_count=count)
    copied = kmeans_centers(np.repeat(X, count, axis=0), 2)
    assert_allclose(np.sort(counted, axis=0), np.sort(copied, axis=0), rtol=1e-4)
    expected = np.average(X[:30], axis=0, weights=count[:30])
    assert_allclose(counted[np.argmin(counted[:, 0])], expected, rtol=1e-4)


def test_kmeans_centers_of_the_extremes():
    X = np.array([[0.0], [1.0], [5.0]])
    assert_allclose(kmeans_centers(X, 1, sample_count=np.array([1, 1, 2])), [[2.75]])
    assert_array_equal(np.sort(kmeans_centers(X, 3).ravel()), [0.0, 1.0, 5.0])
    with pytest.raises(ValueError, match="larger than the number of rows 3"):
        kmeans_centers(X, 4)


def test_kmeans_centers_are_seeded_and_leave_the_global_rng_alone(assert_global_rng_untouched):
    X = np.random.default_rng(0).random((300, 6))
    with assert_global_rng_untouched():
        first, again, other = (kmeans_centers(X, 5, n_init=1, random_state=s) for s in (0, 0, 1))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---------------------------------------------------------------------------------- assignment


def test_assign_nearest_equals_the_definition():
    rng = np.random.default_rng(0)
    X, centers = rng.normal(size=(200, 7)), rng.normal(size=(5, 7))
    label, squared = assign_nearest(X, centers, chunk_size=33)
    distances = ((X[:, None] - centers) ** 2).sum(axis=2)
    assert_array_equal(label, distances.argmin(axis=1))
    assert_allclose(squared, distances.min(axis=1))
    assert_allclose(squared_distances_to(X, centers, chunk_size=33), distances)


def test_assign_nearest_gives_ties_to_the_lower_center_one_by_one_or_together():
    grid = np.array(list(itertools.product(np.arange(5) / 10 + 1000.0, repeat=2)))
    centers = np.array([[1000.1, 1000.1], [1000.3, 1000.1], [1000.1, 1000.3]])
    together, _ = assign_nearest(grid, centers)
    one_by_one = [assign_nearest(row[None], centers)[0][0] for row in grid]
    assert_array_equal(together, one_by_one)
    middle = np.flatnonzero(np.isclose(grid, 1000.2).all(axis=1))
    assert together[middle] == [0]


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1e-20), (1e6, 1e-3), (0.0, 1e20)])
def test_assign_nearest_is_exact_at_any_scale_and_offset(offset, scale):
    rng = np.random.default_rng(0)
    X, centers = rng.random((100, 3)), rng.random((4, 3))
    expected = ((X[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    label, _ = assign_nearest(offset + scale * X, offset + scale * centers)
    assert_array_equal(label, expected)


def test_assign_nearest_takes_rows_very_far_away():
    label, _ = assign_nearest(np.array([[1e30], [-1e30]]), np.array([[0.0], [1e-9]]))
    assert_array_equal(label, [0, 0])  # both at the same distance in floating point


def test_merge_small_clusters_moves_rows_to_the_nearest_center_left():
    X = np.array([[0.0], [0.1], [0.2], [4.0], [4.4], [9.0], [9.1], [9.2]])
    centers = np.array([[0.1], [4.2], [9.1]])
    kept, label = merge_small_clusters(X, centers, min_cluster_size=3)
    assert_array_equal(kept, [0, 2])
    assert_array_equal(label, [0, 0, 0, 0, 0, 1, 1, 1])
    count = np.array([1, 1, 1, 2, 1, 1, 1, 1])
    kept, _ = merge_small_clusters(X, centers, min_cluster_size=3, sample_count=count)
    assert_array_equal(kept, [0, 1, 2])


def test_merge_small_clusters_leaves_one_at_least_and_drops_empty_ones():
    X = np.array([[0.0], [1.0]])
    kept, label = merge_small_clusters(X, np.array([[0.0], [1.0]]), min_cluster_size=9)
    assert len(kept) == 1
    assert_array_equal(label, [0, 0])
    kept, _ = merge_small_clusters(X, np.array([[0.0], [50.0], [1.0]]))
    assert_array_equal(kept, [0, 2])


# ------------------------------------------------------------------------------- one dimension


def test_kmeans_1d_by_hand():
    centers = kmeans_1d(np.array([9.0, 0.0, 5.0, 0.2]), 4)
    assert_allclose(centers[0], [3.55])
    assert_allclose(centers[1], [0.1, 7.0])
    assert_allclose(centers[2], [0.1, 5.0, 9.0])
    assert_allclose(centers[3], [0.0, 0.2, 5.0, 9.0])


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_1d_is_the_best_of_all_cuts(seed):
    values = np.random.default_rng(seed).normal(size=13) ** 3
    for k, centers in enumerate(kmeans_1d(values, 6), start=1):
        best = _reference_kmeans_1d(values, k)
        assert _inertia(values[:, None], centers[:, None]) == pytest.approx(best, abs=1e-9)


def test_kmeans_1d_is_no_worse_than_restarts():
    values = np.random.default_rng(0).random(2000) ** 4
    ours = _inertia(values[:, None], kmeans_1d(values, 6)[5][:, None])
    theirs = KMeans(6, n_init=10, random_state=0).fit(values[:, None]).inertia_
    assert ours <= theirs * (1 + 1e-9)


def test_kmeans_1d_with_counts_equals_copies():
    rng = np.random.default_rng(0)
    values, count = rng.normal(size=40), rng.integers(1, 5, size=40)
    copied = kmeans_1d(np.repeat(values, count), 4)
    for ours, expected in zip(kmeans_1d(values, 4, sample_count=count), copied):
        assert_allclose(ours, expected)


def test_kmeans_1d_refuses_more_clusters_than_values():
    with pytest.raises(ValueError, match="number of distinct values 2"):
        kmeans_1d(np.array([1.0, 1.0, 2.0]), 3)
