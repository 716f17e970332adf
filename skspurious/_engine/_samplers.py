"""Samplers: which rows make up each batch of an epoch.

A sampler is a pure function of its seed and the epoch. So every process draws the same global
batches and takes its share, a resumed run draws what the unbroken run would have drawn, and
there is no sampler state to save.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skspurious.functional._split import balanced_subset


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


class UniformSampler:
    """Every row once an epoch, shuffled.

    Parameters
    ----------
    n_samples : int
        Number of rows.
    seed : int
        Seed; the order depends on it and on the epoch alone.

    Examples
    --------
    >>> from skspurious.extend import UniformSampler
    >>> sorted(UniformSampler(4, seed=0)(epoch=0).tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, n_samples: int, *, seed: int):
        self.n_samples = n_samples
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        return torch.from_numpy(_generator(self.seed, epoch).permutation(self.n_samples))

    def frequency(self, n_samples: int) -> np.ndarray:
        """How often each row comes in the mean of many epochs, up to a factor."""
        return np.ones(n_samples)


class WeightedSampler:
    """Draws with replacement, row i with probability ``p[i]``.

    Rows are found in the cumulative sum of ``p``, so their number has no limit
    (``torch.multinomial`` stops at 2**24).

    Parameters
    ----------
    p : array-like of shape (n_samples,)
        Non-negative, with any positive sum. Rows of probability 0 are never drawn.
    n_draws : int, default=None
        Draws of an epoch; None is as many as there are rows.
    seed : int
        Seed; the draws depend on it and on the epoch alone.

    Raises
    ------
    ValueError
        If ``p`` has a negative or infinite value, or sums to 0.

    Examples
    --------
    >>> from skspurious.extend import WeightedSampler
    >>> WeightedSampler([0.0, 3.0, 0.0], n_draws=2, seed=0)(epoch=0).tolist()
    [1, 1]
    """

    def __init__(self, p: np.ndarray, *, n_draws: int | None = None, seed: int):
        p = np.asarray(p, dtype=np.float64)
        if not np.isfinite(p).all() or (p < 0).any() or p.sum() <= 0:
            raise ValueError("p must be finite and non-negative, with a positive sum.")
        # Rows of probability zero are left out: rounding can never draw one of them.
        self.rows = np.flatnonzero(p)
        self.cumulative = np.cumsum(p[self.rows])
        self.n_draws = len(p) if n_draws is None else n_draws
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        draws = _generator(self.seed, epoch).random(self.n_draws) * self.cumulative[-1]
        position = np.searchsorted(self.cumulative, draws, side="right")
        return torch.from_numpy(self.rows[np.minimum(position, len(self.rows) - 1)])

    def frequency(self, n_samples: int) -> np.ndarray:
        """How often each row comes in the mean of many epochs, up to a factor."""
        p = np.zeros(n_samples)
        p[self.rows] = np.diff(self.cumulative, prepend=0.0)
        return p


class SubsetSampler:
    """The rows of a fixed subset, shuffled every epoch.

    Parameters
    ----------
    rows : array-like of shape (n_rows,), int
        The rows; a row that is listed twice is seen twice an epoch.
    seed : int
        Seed; the order depends on it and on the epoch alone.

    Examples
    --------
    >>> from skspurious.extend import SubsetSampler
    >>> sorted(SubsetSampler([1, 3, 3], seed=0)(epoch=0).tolist())
    [1, 3, 3]
    """

    def __init__(self, rows: np.ndarray, *, seed: int):
        self.rows = np.asarray(rows, dtype=np.int64)
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        return torch.from_numpy(_generator(self.seed, epoch).permutation(self.rows))

    def frequency(self, n_samples: int) -> np.ndarray:
        """How often each row comes in an epoch."""
        return np.bincount(self.rows, minlength=n_samples)


class BalancedSubsetSampler:
    """A new subset every epoch, with as many rows of every group as the smallest has, shuffled.

    Parameters
    ----------
    group : array-like of shape (n_samples,), int
        Ids 0 to m-1.
    seed : int
        Seed; the draws depend on it and on the epoch alone.

    Examples
    --------
    >>> from skspurious.extend import BalancedSubsetSampler
    >>> group = [0, 0, 0, 1]
    >>> rows = BalancedSubsetSampler(group, seed=0)(epoch=0)
    >>> sorted(group[row] for row in rows)
    [0, 1]
    """

    def __init__(self, group: np.ndarray, *, seed: int):
        self.group = np.asarray(group, dtype=np.int64)
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        rng = _generator(self.seed, epoch)
        return torch.from_numpy(rng.permutation(balanced_subset(self.group, rng)))

    def frequency(self, n_samples: int) -> np.ndarray:
        """How often each row comes in the mean of many epochs, up to a factor."""
        return 1.0 / np.bincount(self.group)[self.group]


class BalancedBatchSampler:
    """Exactly balanced batches: in each, the counts of any two groups differ by at most one.

    Every group is walked by its own endless sequence of permutations, so none of its rows comes
    twice before all have come once. The places left over when the batch size is not a multiple
    of the number of groups go round the groups.

    Parameters
    ----------
    group : ndarray of shape (n_samples,), int
        Ids 0 to m-1; ids that do not occur take no place.
    batch_size : int
        At least the number of groups that occur.
    seed : int
        Seed; the draws depend on it and on the epoch alone.

    Raises
    ------
    ValueError
        If a batch is too small for one row of each group.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.extend import BalancedBatchSampler
    >>> group = np.array([0, 0, 0, 1])
    >>> rows = BalancedBatchSampler(group, batch_size=2, seed=0)(epoch=0)
    >>> [sorted(group[batch].tolist()) for batch in rows.split(2)]
    [[0, 1], [0, 1]]
    """

    def __init__(self, group: np.ndarray, *, batch_size: int, seed: int):
        self.members = [np.flatnonzero(group == g) for g in np.unique(group)]
        self.n_groups = len(self.members)
        if batch_size < self.n_groups:
            raise ValueError(
                f"batch_size={batch_size} cannot hold one sample of each of {self.n_groups} "
                "groups. Use a larger batch_size, or balance by sampling."
            )
        self.batch_size = int(batch_size)
        self.n_batches = -(-len(group) // self.batch_size)
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        each, extra = divmod(self.batch_size, self.n_groups)
        batch = np.arange(epoch * self.n_batches, (epoch + 1) * self.n_batches + 1)
        rows, batch_of_row = [], []
        for g, members in enumerate(self.members):
            # The extra places are dealt out 0, 1, ..., m-1, 0, 1, ...; group g has had this many
            # draws before each batch:
            before = batch * each + (batch * extra - g + self.n_groups - 1) // self.n_groups
            rows.append(self._stream(g, members, before[0], before[-1]))
            batch_of_row.append(np.repeat(np.arange(self.n_batches), np.diff(before)))
        order = np.argsort(np.concatenate(batch_of_row), kind="stable")
        return torch.from_numpy(np.concatenate(rows)[order])

    def frequency(self, n_samples: int) -> np.ndarray:
        """How often each row comes in the mean of many epochs, up to a factor."""
        share = np.zeros(n_samples)
        for members in self.members:
            share[members] = 1.0 / len(members)
        return share

    def _stream(self, g: int, members: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Draws start to stop of the endless sequence of permutations of one group."""
        n = len(members)
        first, last = start // n, -(-stop // n)
        # A counter-based generator gives pass k the same random keys whichever epoch asks.
        blocks = -(-n // 4)  # Philox makes four numbers per count
        bits = np.random.Philox(key=[self.seed, g], counter=[first * blocks, 0, 0, 0])
        keys = np.random.Generator(bits).random((last - first, 4 * blocks))[:, :n]
        walk = members[np.argsort(keys, axis=1)].ravel()
        return walk[start - first * n : stop - first * n]


class CellBatchSampler:
    """Batches in which clusters meet classes: equally many rows of each cell, a class in a cluster.

    Where all cells fit into a batch, every batch has all of them. Otherwise it has the cells of
    a few clusters, other ones in every batch, and of a few classes. So a row has rows of its
    class from other clusters beside it, and rows of other classes from its own cluster, wherever
    there are any. The rows of a cell are walked in a random order, round and round within an
    epoch, and all batches have the same size.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,), int
        The rows to draw.
    cluster, label : ndarrays of shape (n_rows,), int
        Cluster and class of each of them.
    batch_size : int
        At least 4: two clusters of two classes.
    n_batches : int
        Batches of an epoch.
    seed : int
    """

    def __init__(
        self,
        rows: np.ndarray,
        cluster: np.ndarray,
        label: np.ndarray,
        *,
        batch_size: int,
        n_batches: int,
        seed: int,
    ):
        if batch_size < 4:
            raise ValueError(
                f"batch_size={batch_size} cannot hold two clusters of two classes: use at least 4."
            )
        self.rows = np.asarray(rows, dtype=np.int64)
        cells, self.cell = np.unique(np.stack([cluster, label]), axis=1, return_inverse=True)
        self.cell_cluster, self.cell_label = cells
        self.batch_size, self.n_batches, self.seed = int(batch_size), n_batches, seed

    def __call__(self, epoch: int) -> Tensor:
        rng = _generator(self.seed, epoch)
        n_cells = len(self.cell_cluster)
        order = np.lexsort((rng.random(len(self.rows)), self.cell))
        size = np.bincount(self.cell, minlength=n_cells)
        start = np.cumsum(size) - size
        drawn = np.zeros(n_cells, dtype=np.int64)
        plan = []
        for _ in range(self.n_batches):
            chosen = rng.permutation(self._choose(rng))
            quota = np.full(len(chosen), self.batch_size // len(chosen))
            quota[: self.batch_size % len(chosen)] += 1
            first = np.repeat(np.cumsum(quota) - quota, quota)
            place = np.repeat(drawn[chosen], quota) + np.arange(self.batch_size) - first
            position = np.repeat(start[chosen], quota) + place % np.repeat(size[chosen], quota)
            plan.append(rng.permutation(self.rows[order[position]]))
            drawn[chosen] += quota
        return torch.from_numpy(np.concatenate(plan))

    def _choose(self, rng: np.random.Generator) -> np.ndarray:
        """The cells of one batch."""
        if len(self.cell_cluster) <= self.batch_size:
            return np.arange(len(self.cell_cluster))
        # Half of the batch at most for one cluster, so that there are two.
        labels = rng.permutation(np.unique(self.cell_label))[: self.batch_size // 2]
        allowed = np.isin(self.cell_label, labels)
        clusters = rng.permutation(np.unique(self.cell_cluster))
        place = np.argsort(clusters)[np.searchsorted(np.sort(clusters), self.cell_cluster)]
        candidates = np.flatnonzero(allowed)
        candidates = candidates[np.argsort(place[candidates], kind="stable")]
        _, n_of_cluster = np.unique(place[candidates], return_counts=True)
        n_whole = np.cumsum(n_of_cluster)
        n_fitting = n_whole[n_whole <= self.batch_size]
        return self._paired(candidates[: n_fitting[-1]])

    def _paired(self, chosen: np.ndarray) -> np.ndarray:
        """Without the cells that are alone in the batch, but would not be in another one."""
        while True:
            cluster, label = self.cell_cluster[chosen], self.cell_label[chosen]
            is_alone = (np.bincount(cluster)[cluster] < 2) | (np.bincount(label)[label] < 2)
            could_be_paired = (np.bincount(self.cell_cluster)[cluster] > 1) & (
                np.bincount(self.cell_label)[label] > 1
            )
            kept = chosen[~(is_alone & could_be_paired)]
            if len(kept) == len(chosen) or len(kept) == 0:
                return chosen
            chosen = kept


Sampler = Callable[[int], Tensor]  # the rows of an epoch, by its number from 0
