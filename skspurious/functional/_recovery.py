r"""What balancing the sides of a nuisance recovers, and whether chance would recover as much.

A nuisance is what a view without the object says of a sample. The *side* of a sample is whether
the nuisance is right about its class. A linear head in which both sides of a class count the same
is compared with one in which only the classes do, out of fold:

- *recovered*: accuracy that the balanced head gains on the wrong sides, mean over the classes;
- *lost*: accuracy that it loses on the right sides;
- *gain*: recovered minus lost, what is tested.

Two kinds of nothing gain a little too:

1. *The nuisance is in the representation, but does not go with the class.* By chance it goes with
   it a little, one way or the other, and what learns it takes that for a rule. Each draw deals the
   nuisance to other samples, together with the part of the representation that belongs to it (its
   canonical variates within the classes), and everything is done again: sides, heads, gain.
2. *The nuisance sees the object, so its wrong side is the hard samples.* Each draw permutes the
   sides among samples of one class that are equally hard, by the margin of the head that balances
   classes, and balances again.

The p-value is that against the first; of a nuisance that says the class more often than chance,
beyond doubt, it is the larger of both: one that does not say the class cannot see the object.
Where balancing loses more than it recovers, it is 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from skspurious.functional._cross_fit import cross_fit_folds

__all__ = ["Recovery", "leading_components", "recovery_tests"]

_SOFT = 0.3  # in the test a hit counts gradually: within so many standard deviations of margins
_STRATUM = 20  # samples that are taken for equally hard
_BEYOND_DOUBT = 3.0  # standard errors


class Recovery(NamedTuple):
    """What balancing the sides of one nuisance does; of each class where it says so.

    A class that has too few samples on a side stays whole, and has NaN.

    Attributes
    ----------
    is_wrong : bool ndarray of shape (n_samples,)
        Whether the nuisance takes the sample for another class, out of fold.
    is_hit : bool ndarray of shape (n_samples,)
        Whether the head that balances the classes is right, out of fold.
    class_recovered : ndarray of shape (n_classes,)
        Accuracy that balancing the sides gains on the wrong side.
    class_lost : ndarray of shape (n_classes,)
        Accuracy that it loses on the right side.
    recovered : float
        Mean of ``class_recovered`` over the classes with two sides; 0 without any.
    lost : float
        The same of ``class_lost``.
    standard_error : float
        Of ``recovered``.
    p_value : float
        Probability that a nuisance without influence gains as much, corrected for the number of
        nuisances that are tested together.
    """

    is_wrong: np.ndarray
    is_hit: np.ndarray
    class_recovered: np.ndarray
    class_lost: np.ndarray
    recovered: float
    lost: float
    standard_error: float
    p_value: float


def recovery_tests(
    X: np.ndarray,
    y: np.ndarray,
    nuisances: Sequence[np.ndarray],
    *,
    n_folds: int = 5,
    n_components: int | None = 64,
    min_group_size: int = 5,
    n_permutations: int = 99,
    random_state: int = 0,
) -> list[Recovery]:
    """Test of every nuisance whether balancing its sides recovers what it misleads.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Representation of the samples, on which heads are fitted.
    y : ndarray of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    nuisances : sequence of ndarrays of shape (n_samples, n_columns)
        What each nuisance says of a sample, such as the probabilities of the classes by a model of
        a view that has not seen the sample, or the indicators of an attribute.
    n_folds : int, default=5
        Folds, stratified by class.
    n_components : int or None, default=64
        Principal components of the standardised columns that heads are fitted on, at most. None
        takes ``X`` for such components.
    min_group_size : int, default=5
        Fewest samples of a side; a class with fewer stays whole.
    n_permutations : int, default=99
        Draws of each kind. The smallest p-value is one of so many and one.
    random_state : int, default=0
        Seed of the folds and draws.

    Returns
    -------
    recoveries : list of Recovery
        One for every nuisance. Neither the order of the samples nor the names of the classes have
        an influence.

    Notes
    -----
    Heads are ridge regressions on -1 and 1, with the variance of a column as the penalty, so that a
    draw takes a few products of matrices.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 150)
    >>> sand = np.where(rng.random(300) < 0.9, y, 1 - y)  # goes with the class
    >>> X = np.stack([y + 0.4 * rng.normal(size=300), sand + 0.2 * rng.normal(size=300)], axis=1)
    >>> coin = rng.integers(2, size=300)
    >>> sand, coin = recovery_tests(X, y, [np.eye(2)[sand], np.eye(2)[coin]])
    >>> sand.recovered > 0.1, sand.p_value, coin.p_value > 0.05
    (True, 0.01, True)
    """
    order, fold = cross_fit_folds(X, y, n_folds, random_state)
    order = order[np.argsort(fold, kind="stable")]
    Z = X[order].astype(np.float64)
    Z = _with_ones(Z if n_components is None else leading_components(Z, n_components))
    N = [_with_ones(leading_components(n[order].astype(np.float64))) for n in nuisances]
    heads = _Heads(y[order], np.bincount(fold)[np.unique(fold)], min_group_size)
    base = heads.margins(Z, heads.class_weight)
    sides = [heads.sides(n) for n in N]
    after = [heads.balanced(Z, wrong) for wrong in sides]
    gain = np.array([heads.gain(base, m, wrong) for m, wrong in zip(after, sides)])
    seed = np.random.SeedSequence(random_state).spawn(2)
    null = [
        _redealt(heads, Z, N, base, n_permutations, np.random.default_rng(seed[0])),
        _permuted(heads, Z, sides, base, n_permutations, np.random.default_rng(seed[1])),
    ]
    by_chance, by_hardness = (_p_values(gain, draws) for draws in null)
    says_class = np.array([heads.says_class(wrong) for wrong in sides])
    p_value = np.where(says_class, np.maximum(by_chance, by_hardness), by_chance)
    p_value = np.where(gain > 0, p_value, 1.0)
    back = np.argsort(order)
    return [_describe(heads, base, m, wrong, p, back) for m, wrong, p in zip(after, sides, p_value)]


def _redealt(
    heads: "_Heads",
    Z: np.ndarray,
    N: list[np.ndarray],
    base: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gains of nuisances that are dealt to other samples, with their part of Z."""
    parts = [_nuisance_part(Z, n, heads.y) for n in N]
    gain = np.empty((n_draws, len(N)))
    for draw in gain:
        other = rng.permutation(len(Z))  # the same for all nuisances: they may be alike
        for j, (n, (variate, loading)) in enumerate(zip(N, parts)):
            wrong = heads.sides(n[other])
            dealt = Z + (variate[other] - variate) @ loading
            before = heads.margins(dealt, heads.class_weight) if len(loading) else base
            draw[j] = heads.gain(before, heads.balanced(dealt, wrong), wrong)
    return gain


def _permuted(
    heads: "_Heads",
    Z: np.ndarray,
    sides: list[np.ndarray],
    base: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gains of sides that are permuted among equally hard samples of a class."""
    stratum = np.empty(len(base), dtype=np.int64)
    n_strata = 0
    for of_class in heads.classes:
        for rows in (of_class[base[of_class] > 0], of_class[base[of_class] <= 0]):
            rank = np.argsort(np.argsort(base[rows], kind="stable"))
            n = max(1, len(rows) // _STRATUM)
            stratum[rows] = n_strata + rank * n // max(1, len(rows))
            n_strata += n
    place = np.argsort(stratum, kind="stable")
    gain = np.empty((n_draws, len(sides)))
    for draw in gain:
        other = np.lexsort((rng.random(len(base)), stratum))
        for j, wrong in enumerate(sides):
            permuted = np.empty_like(wrong)
            permuted[place] = wrong[other]
            draw[j] = heads.gain(base, heads.balanced(Z, permuted), permuted)
    return gain


def _nuisance_part(Z: np.ndarray, N: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canonical variates of Z that go with the nuisance within classes, and their loadings.

    Kept are those whose correlation is above what two independent sets of so many columns have.
    """
    within = []
    for A in (Z, N):
        mean = np.stack([A[y == k].mean(axis=0) for k in range(y.max() + 1)])
        within.append((A - mean[y])[:, :-1])  # the last column is the intercept
    (to_z, from_z), (to_n, _) = _whitening(within[0]), _whitening(within[1])
    left, r, _ = np.linalg.svd(to_z.T @ within[0].T @ within[1] @ to_n / len(y))
    z, n = to_z.shape[1] / len(y), to_n.shape[1] / len(y)
    edge = np.sqrt(z * max(1 - n, 0)) + np.sqrt(n * max(1 - z, 0))
    kept = left[:, : len(r)][:, r > edge]
    loading = np.zeros((kept.shape[1], Z.shape[1]))
    loading[:, :-1] = (from_z @ kept).T
    return Z[:, :-1] @ (to_z @ kept), loading


def _whitening(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix that makes the columns of A uncorrelated, and its way back."""
    value, vector = np.linalg.eigh(A.T @ A / len(A))
    is_used = value > 1e-8 * max(value.max(initial=0.0), 1e-8)
    root = np.sqrt(value[is_used])
    return vector[:, is_used] / root, vector[:, is_used] * root


def _p_values(gain: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Of every nuisance, against the largest of all nuisances in each draw."""
    both = np.concatenate([draws, gain[None]])
    spread = both.std(axis=0)
    both = (both - both.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    largest = both[:-1].max(axis=1, initial=-np.inf)
    return (1 + (largest[:, None] >= both[-1]).sum(axis=0)) / (len(draws) + 1)


def leading_components(
    X: np.ndarray, n_components: int = 64, *, is_quick: bool = False
) -> np.ndarray:
    """The standardised columns, or where they are many their first principal components.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    n_components : int, default=64
        Most columns of the result.
    is_quick : bool, default=False
        Whether components are found in float32 and two power iterations, five times as fast.

    Returns
    -------
    Z : ndarray of shape (n_samples, at most n_components)

    Examples
    --------
    >>> leading_components(np.array([[1.0, 5.0], [3.0, 5.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    mean, std = X.mean(axis=0), X.std(axis=0)
    X = (X - mean) / np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, np.inf)
    if min(X.shape) <= n_components:
        return X
    from sklearn.decomposition import PCA

    if not is_quick:
        return PCA(n_components, random_state=0).fit_transform(X)
    pca = PCA(n_components, svd_solver="randomized", iterated_power=2, random_state=0)
    return pca.fit_transform(X.astype(np.float32))


def _with_ones(X: np.ndarray) -> np.ndarray:
    return np.concatenate([X, np.ones((len(X), 1))], axis=1)


class _Heads:
    """Ridge heads of samples that are sorted by fold, each fitted on the other folds."""

    def __init__(self, y: np.ndarray, fold_size: np.ndarray, min_group_size: int):
        self.y = y
        self.n_classes = int(y.max()) + 1
        self.min_group_size = min_group_size
        end = np.cumsum(fold_size)
        self.folds = [slice(e - n, e) for e, n in zip(end, fold_size)]
        target = np.where(np.arange(self.n_classes) == y[:, None], 1.0, -1.0)
        self.target = target[:, 1:] if self.n_classes == 2 else target
        self.classes = [np.flatnonzero(y == k) for k in range(self.n_classes)]
        self.class_weight = len(y) / (self.n_classes * np.bincount(y)[y])

    def margins(self, Z: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Score of the own class minus the largest of the others, out of fold."""
        weighted = Z * weight[:, None]
        gram = np.stack([weighted[f].T @ Z[f] for f in self.folds])
        product = np.stack([weighted[f].T @ self.target[f] for f in self.folds])
        total = np.array([weight[f].sum() for f in self.folds])
        gram, product, total = gram.sum(0) - gram, product.sum(0) - product, total.sum() - total
        penalty = np.ones(Z.shape[1])
        penalty[-1] = 1e-9  # of the intercept
        gram += total[:, None, None] * np.diag(penalty)
        coef = np.linalg.solve(gram, product)
        score = np.concatenate([Z[f] @ c for f, c in zip(self.folds, coef)])
        if self.n_classes == 2:
            return np.where(self.y == 1, score[:, 0], -score[:, 0])
        own = score[np.arange(len(score)), self.y]
        score[np.arange(len(score)), self.y] = -np.inf
        return own - score.max(axis=1)

    def sides(self, N: np.ndarray) -> np.ndarray:
        """1 where the nuisance takes a sample for another class."""
        return (self.margins(N, self.class_weight) < 0).astype(np.int64)

    def says_class(self, wrong: np.ndarray) -> bool:
        """Whether a nuisance says the class more often than chance, beyond doubt."""
        size = np.bincount(self.y)
        accuracy = np.mean(1 - np.bincount(self.y, wrong) / size)
        chance = 1 / self.n_classes
        error = np.sqrt(chance * (1 - chance) * np.sum(1 / size)) / self.n_classes
        return bool(accuracy > chance + _BEYOND_DOUBT * error)

    def balanced(self, Z: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Margins where the sides of every class count the same."""
        size = self._sizes(wrong)
        n_sides = 1 + self._is_split(size)
        weight = self.class_weight.copy()
        for k in np.flatnonzero(n_sides == 2):
            rows = self.classes[k]
            weight[rows] *= len(rows) / (2 * size[k][wrong[rows]])
        return self.margins(Z, weight)

    def gain(self, before: np.ndarray, after: np.ndarray, wrong: np.ndarray) -> float:
        """Recovered minus lost, with hits that count gradually."""
        width = _SOFT * before.std() + 1e-12
        recovered, lost = self.by_class(ndtr(after / width) - ndtr(before / width), wrong)
        difference = (recovered - lost)[self._is_split(self._sizes(wrong))]
        return float(difference.mean()) if len(difference) else 0.0

    def by_class(self, change: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean change on the wrong side of every class, and mean loss on its right side."""
        size = self._sizes(wrong)
        total = np.bincount(2 * self.y + wrong, change, minlength=size.size).reshape(size.shape)
        mean = np.where(self._is_split(size)[:, None], total / np.maximum(size, 1), np.nan)
        return mean[:, 1], -mean[:, 0]

    def _sizes(self, wrong: np.ndarray) -> np.ndarray:
        count = np.bincount(2 * self.y + wrong, minlength=2 * self.n_classes)
        return count.reshape(self.n_classes, 2)

    def _is_split(self, size: np.ndarray) -> np.ndarray:
        return size.min(axis=1) >= self.min_group_size


def _describe(
    heads: _Heads,
    before: np.ndarray,
    after: np.ndarray,
    wrong: np.ndarray,
    p_value: float,
    back: np.ndarray,
) -> Recovery:
    """Figures of plain hits, for samples in the order in which they came."""
    change = (after > 0).astype(np.float64) - (before > 0)
    recovered, lost = heads.by_class(change, wrong)
    is_split = np.isfinite(recovered)
    variance = [
        change[rows][wrong[rows] == 1].var() / (wrong[rows] == 1).sum()
        for rows, split in zip(heads.classes, is_split)
        if split
    ]
    n_split = max(1, is_split.sum())
    mean_recovered, mean_lost = recovered[is_split].sum() / n_split, lost[is_split].sum() / n_split
    error = np.sqrt(np.sum(variance)) / n_split
    gains = is_split.any() and mean_recovered > mean_lost - error
    return Recovery(
        is_wrong=wrong[back] == 1,
        is_hit=(before > 0)[back],
        class_recovered=recovered,
        class_lost=lost,
        recovered=float(mean_recovered),
        lost=float(mean_lost),
        standard_error=float(error),
        p_value=float(p_value) if gains else 1.0,
    )
