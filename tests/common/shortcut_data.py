"""Small data with a shortcut, and a small network, for tests of several methods."""

import numpy as np
from torch import nn

from skspurious.datasets import make_spurious_classification


def small_shortcut(n_samples=200):
    """Rows, classes and groups, which a test cannot change for the next one."""
    bunch = make_spurious_classification(n_samples, correlation_strength=0.9, random_state=0)
    arrays = bunch.data.astype(np.float32), bunch.target, bunch.sample_group
    for array in arrays:
        array.flags.writeable = False
    return arrays


def planted_shortcut(rho, s, *, c=1.0, n_samples=2000, noise=0.05, seed=0):
    """Core feature +-c, spurious feature +-s that agrees with the class in a share rho."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    # Exact shares in both classes
    conflicting = np.arange(n_samples) // 2 >= round(rho * n_samples / 2)
    sign = 2 * y - 1
    spurious = np.where(conflicting, -sign, sign)
    X = np.stack([c * sign, s * spurious], axis=1) + rng.normal(scale=noise, size=(n_samples, 2))
    return X, y, conflicting


class Net(nn.Module):
    """Batch normalisation, a hidden layer, dropout, and a head."""

    def __init__(self, bias=True):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.hidden = nn.Linear(8, 5)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(5, 2, bias=bias)

    def embed(self, x):
        return self.dropout(self.hidden(self.norm(x)).relu())

    def forward(self, x):
        return self.head(self.embed(x))
