"""Which rows make up each batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.stats import chisquare

from skspurious._engine import _samplers
from skspurious._engine._batches import LabelledSamples, iterate_batches
from skspurious._engine._samplers import (
    BalancedBatchSampler,
    CellBatchSampler,
    SubsetSampler,
    UniformSampler,
    WeightedSampler,
)
from skspurious.data import TensorSamples

GROUP_SIZES = [
    ({0: 5, 1: 3, 2: 2}, 7),  # places left over go round the groups
    ({0: 100, 1: 1, 2: 4, 3: 9}, 16),  # a group of one sample
    ({0: 3, 1: 3}, 2),  # one sample of each
    ({0: 30, 2: 7, 5: 2}, 11),  # ids with gaps
    ({1: 6}, 4),  # one group
    ({0: 2, 1: 2}, 64),  # a batch larger than the data
]


def _groups(sizes):
    group = np.repeat(list(sizes), list(sizes.values()))
    return np.random.default_rng(0).permutation(group)


def _draws(sampler, n_epochs):
    return np.concatenate([sampler(epoch).numpy() for epoch in range(n_epochs)])


# --------------------------------------------------------------------------------------
# Exactly balanced batches


@pytest.mark.fidelity
@pytest.mark.parametrize(("sizes", "batch_size"), GROUP_SIZES)
def test_balanced_batches_hold_equally_many_of_each_group(sizes, batch_size):
    group = _groups(sizes)
    sampler = BalancedBatchSampler(group, batch_size=batch_size, seed=3)
    rows = _draws(sampler, 5).reshape(-1, batch_size)
    assert len(rows) == 5 * -(-len(group) // batch_size)
    present = np.unique(group)
    counts = (group[rows][:, :, None] == present).sum(1)
    assert (counts.max(1) - counts.min(1) <= 1).all()
    # The places left over are dealt out evenly: after m batches all groups are level.
    whole = counts[: len(counts) // len(present) * len(present)]
    assert np.ptp(whole.sum(0)) == 0


@pytest.mark.fidelity
@pytest.mark.parametrize(("sizes", "batch_size"), GROUP_SIZES)
def test_balanced_batches_repeat_no_sample_before_a_full_pass_also_across_epochs(sizes, batch_size):
    group = _groups(sizes)
    rows = _draws(BalancedBatchSampler(group, batch_size=batch_size, seed=3), 7)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        walk = rows[group[rows] == g]
        for start in range(0, len(walk), len(members)):
            one_pass = walk[start : start + len(members)]
            assert len(np.unique(one_pass)) == len(one_pass)
            if len(one_pass) == len(members):
                assert_array_equal(np.sort(one_pass), members)


def test_balanced_batches_shuffle_every_pass_anew():
    group = np.repeat([0, 1], 20)
    rows = _draws(BalancedBatchSampler(group, batch_size=10, seed=0), 4)
    passes = rows[group[rows] == 0].reshape(4, 20)
    assert len({tuple(p) for p in passes}) == 4


def test_balanced_batches_refuse_a_batch_smaller_than_the_groups():
    with pytest.raises(ValueError, match=r"batch_size=2 cannot hold .* 3 groups"):
        BalancedBatchSampler(np.array([0, 1, 4]), batch_size=2, seed=0)


# --------------------------------------------------------------------------------------
# Weighted draws


@pytest.mark.fidelity
def test_weighted_sampler_draws_in_proportion_to_p():
    p = np.array([0.5, 0.0, 3.0, 1.0, 0.0, 0.25])
    draws = WeightedSampler(p, n_draws=40_000, seed=1)(0).numpy()
    counts = np.bincount(draws, minlength=len(p))
    positive = p > 0
    assert counts[~positive].sum() == 0
    expected = p[positive] / p.sum() * 40_000
    assert chisquare(counts[positive], expected).pvalue > 1e-3


def test_weighted_sampler_draws_with_replacement_as_many_as_there_are_rows():
    p = np.full(1000, 1e-3)
    draws = WeightedSampler(p, seed=0)(0).numpy()
    assert len(draws) == 1000
    # With replacement about 1 - 1/e of the rows come.
    assert 0.58 < len(np.unique(draws)) / 1000 < 0.68


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0.0)])
def test_weighted_sampler_never_draws_a_row_of_probability_zero(monkeypatch, uniform):
    # The ends of the unit interval: the first and last rows have probability zero.
    p = np.array([0.0, 0.1, 0.0, 0.7, 0.0])
    fixed = SimpleNamespace(random=lambda n: np.full(n, uniform))
    monkeypatch.setattr(_samplers, "_generator", lambda seed, epoch: fixed)
    assert set(WeightedSampler(p, seed=0)(0).tolist()) == {1 if uniform == 0 else 3}


@pytest.mark.fidelity
def test_weighted_sampler_has_no_limit_on_the_number_of_rows():
    n = 2**24 + 10  # torch.multinomial stops at 2**24
    p = np.zeros(n)
    p[[0, 2**24 + 2, n - 1]] = [1.0, 1.0, 2.0]
    draws = WeightedSampler(p, n_draws=8000, seed=0)(0).numpy()
    rows, counts = np.unique(draws, return_counts=True)
    assert_array_equal(rows, [0, 2**24 + 2, n - 1])
    assert chisquare(counts, [2000, 2000, 4000]).pvalue > 1e-3


@pytest.mark.parametrize("p", [[0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_weighted_sampler_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="p must be finite and non-negative"):
        WeightedSampler(np.array(p), seed=0)


# --------------------------------------------------------------------------------------
# The others, and what all have in common


def test_uniform_sampler_takes_every_row_once():
    assert_array_equal(np.sort(UniformSampler(50, seed=0)(3).numpy()), np.arange(50))


def test_subset_sampler_takes_every_row_of_the_subset_once_in_a_new_order():
    rows = np.array([2, 3, 5, 7, 11, 13, 17, 19])
    sampler = SubsetSampler(rows, seed=0)
    assert_array_equal(np.sort(sampler(0).numpy()), rows)
    assert_array_equal(np.sort(sampler(1).numpy()), rows)
    assert sampler(0).tolist() != sampler(1).tolist()


def _make_all(seed):
    group = np.repeat([0, 1, 3], [40, 15, 5])
    return [
        UniformSampler(60, seed=seed),
        WeightedSampler(np.linspace(0, 1, 60), seed=seed),
        SubsetSampler(np.arange(0, 60, 2), seed=seed),
        BalancedBatchSampler(group, batch_size=7, seed=seed),
    ]


def test_samplers_are_functions_of_the_seed_and_the_epoch(assert_global_rng_untouched):
    with assert_global_rng_untouched():
        for first, again, other in zip(_make_all(0), _make_all(0), _make_all(1)):
            in_order = [first(epoch) for epoch in range(4)]
            assert torch.equal(again(3), in_order[3])  # whichever epoch is asked for first
            assert torch.equal(again(0), in_order[0])
            assert not torch.equal(in_order[0], in_order[1])
            assert not torch.equal(in_order[0], other(0))
            assert in_order[0].dtype == torch.int64


@pytest.mark.fidelity
@pytest.mark.parametrize("n_processes", [2, 3])
@pytest.mark.parametrize("batch_size", [4, 5, 60])
def test_processes_share_the_batches_of_one_process(n_processes, batch_size):
    for sampler in _make_all(0):
        plan = sampler(1)[:23]  # a short last batch
        data = LabelledSamples(TensorSamples(torch.arange(60.0)[:, None]), torch.arange(60))
        shares = []
        for rank in range(n_processes):
            runtime = SimpleNamespace(
                rank=rank, n_processes=n_processes, device=torch.device("cpu")
            )
            shares.append(list(iterate_batches(data, plan, runtime, batch_size, None)))
        assert {len(share) for share in shares} == {-(-23 // batch_size)}
        for batch, parts in zip(plan.split(batch_size), zip(*shares)):
            assert len({len(part["y"]) for part in parts}) == 1  # all processes step together
            together = torch.full((n_processes * len(parts[0]["y"]),), -1)
            for rank, part in enumerate(parts):
                rows = torch.where(part["is_real"], part["position"], -1)
                together[rank::n_processes] = rows
                assert torch.equal(part["weight"], part["is_real"].float())
                assert torch.equal(part["X"][:, 0].long(), part["position"])
            assert torch.equal(together[together >= 0], batch)


# --------------------------------------------------------------------------------------
# Clusters that meet classes


def _cells(counts, seed=0):
    """Shuffled rows with these numbers of each class (column) in each cluster (row)."""
    counts = np.asarray(counts)
    code = np.repeat(np.arange(counts.size), counts.ravel())
    code = np.random.default_rng(seed).permutation(code)
    cluster, label = np.divmod(code, counts.shape[1])
    return np.arange(100, 100 + len(code)), cluster, label


CELL_COUNTS = [
    ([[9, 9], [3, 3]], 8),
    ([[1, 1], [1, 1]], 6),  # rows come again and again in a batch
    ([[20, 20], [5, 5], [7, 7], [2, 2]], 30),
    ([[4, 4, 0], [0, 6, 6], [5, 0, 5]], 16),  # classes differ
    ([[5, 5]] * 20, 12),  # more cells than places
    ([[4, 4, 0], [0, 4, 4], [4, 0, 4]] * 3, 6),  # the same, and classes differ
    ([[3, 3, 3, 3, 3]] * 6, 8),  # fewer places than the classes of two clusters
]


@pytest.mark.fidelity
@pytest.mark.parametrize(("counts", "batch_size"), CELL_COUNTS)
def test_cell_batches_give_every_row_a_partner_of_both_kinds(counts, batch_size):
    rows, cluster, label = _cells(counts)
    sampler = CellBatchSampler(rows, cluster, label, batch_size=batch_size, n_batches=7, seed=0)
    for epoch in range(5):
        batches = sampler(epoch).numpy().reshape(7, batch_size) - 100
        for batch in batches:
            c, y = cluster[batch], label[batch]
            positive = (y[:, None] == y) & (c[:, None] != c)
            negative = (y[:, None] != y) & (c[:, None] == c)
            assert positive.any(1).all()
            assert negative.any(1).all()


@pytest.mark.parametrize(("counts", "batch_size"), CELL_COUNTS)
def test_cell_batches_hold_equally_many_of_every_cell_they_have(counts, batch_size):
    rows, cluster, label = _cells(counts)
    sampler = CellBatchSampler(rows, cluster, label, batch_size=batch_size, n_batches=40, seed=0)
    batches = sampler(0).numpy().reshape(40, batch_size) - 100
    cell = cluster * np.shape(counts)[1] + label
    for batch in batches:
        _, size = np.unique(cell[batch], return_counts=True)
        assert np.ptp(size) <= 1
    n_cells = len(np.unique(cell))
    if n_cells <= batch_size:
        assert all(len(np.unique(cell[batch])) == n_cells for batch in batches)
    assert set(cell[batches.ravel()]) == set(cell)  # over the epoch all cells have come


def test_cell_batches_walk_through_a_cell_before_they_repeat():
    rows, cluster, label = _cells([[9, 9], [3, 3]])
    sampler = CellBatchSampler(rows, cluster, label, batch_size=8, n_batches=9, seed=0)
    drawn = sampler(0).numpy() - 100  # 18 of each cell
    for c in range(2):
        for y in range(2):
            of_cell = drawn[(cluster[drawn] == c) & (label[drawn] == y)]
            _, times = np.unique(of_cell, return_counts=True)
            assert times.tolist() == ([2] * 9 if c == 0 else [6] * 3)


def test_cell_batches_keep_a_class_that_never_has_a_partner():
    rows, cluster, label = _cells([[5, 5, 0], [5, 5, 0], [0, 0, 5]])
    sampler = CellBatchSampler(rows, cluster, label, batch_size=4, n_batches=60, seed=0)
    assert set(label[sampler(0).numpy() - 100]) == {0, 1, 2}


def test_cell_batches_are_a_function_of_seed_and_epoch():
    make = [
        CellBatchSampler(*_cells([[9, 9], [3, 3]]), batch_size=8, n_batches=5, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(make[0](3), make[1](3))
    assert not torch.equal(make[0](3), make[0](4))
    assert not torch.equal(make[0](3), make[2](3))


def test_cell_batches_need_room_for_two_clusters_of_two_classes():
    with pytest.raises(ValueError, match="batch_size=3 cannot hold two clusters"):
        CellBatchSampler(*_cells([[1, 1], [1, 1]]), batch_size=3, n_batches=1, seed=0)
