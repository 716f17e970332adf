"""Samplers: which rows make up each batch of an epoch.

A sampler is a pure function of its seed and the epoch. So every process draws the same global
batches and takes its share, a resumed run draws what the unbroken run would have drawn, and
there is no sampler state to save.
"""

import numpy as np
import torch
from torch import Tensor


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


class UniformSampler:
    """Every row once an epoch, shuffled."""

    def __init__(self, n_samples: int, *, seed: int):
        self.n_samples = n_samples
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        return torch.from_numpy(_generator(self.seed, epoch).permutation(self.n_samples))


class WeightedSampler:
    """Draws with replacement, row i with probability ``p[i]``.

    Inverse of the cumulative sum, so there is no limit on the number of rows
    (``torch.multinomial`` stops at 2**24).
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


class SubsetSampler:
    """The rows of a fixed subset, shuffled every epoch."""

    def __init__(self, rows: np.ndarray, *, seed: int):
        self.rows = np.asarray(rows, dtype=np.int64)
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        return torch.from_numpy(_generator(self.seed, epoch).permutation(self.rows))


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
    """

    def __init__(self, group: np.ndarray, *, batch_size: int, seed: int):
        self.members = [np.flatnonzero(group == g) for g in np.unique(group)]
        self.n_groups = len(self.members)
        if batch_size < self.n_groups:
            raise ValueError(
                f"batch_size={batch_size} cannot hold one sample of each of {self.n_groups} "
                "groups. Use a larger batch_size, or balance by sampling."
            )
        self.batch_size = batch_size
        self.n_batches = -(-len(group) // batch_size)
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


Sampler = UniformSampler | WeightedSampler | SubsetSampler | BalancedBatchSampler
