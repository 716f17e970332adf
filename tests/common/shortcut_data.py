"""Small data with a shortcut, and a small network, for tests of several methods."""

import numpy as np
from sklearn.datasets import load_digits
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


def framed_digits(n=600, strength=0.95, seed=0):
    """Grey digits with a red or blue frame of two pixels; 0 to 4 or 5 to 9; the colour."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    chosen = rng.permutation(len(digits.target))[:n]
    X = np.zeros((n, 3, 16, 16), dtype=np.uint8)
    X[:, :, 4:12, 4:12] = (digits.images[chosen] / 16 * 255).astype(np.uint8)[:, None]
    y = (digits.target[chosen] > 4).astype(int)
    colour = np.where(rng.random(n) < strength, y, 1 - y)
    frame = np.ones((16, 16), dtype=bool)
    frame[2:-2, 2:-2] = False
    for i, k in enumerate(2 * colour):  # red or blue
        X[i, k][frame] = rng.integers(150, 250)
    return X, y, colour


def accuracies_after_fit(clf, correlation_strength, seed):
    """Worst-group and mean accuracy on balanced test data."""
    train = make_spurious_classification(
        1500, correlation_strength=correlation_strength, random_state=seed
    )
    test = make_spurious_classification(2000, correlation_strength=0.5, random_state=100 + seed)
    clf.fit(train.data, train.target, sample_group=train.sample_group)
    worst = clf.score(test.data, test.target, sample_group=test.sample_group)
    return worst, clf.score(test.data, test.target)


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
