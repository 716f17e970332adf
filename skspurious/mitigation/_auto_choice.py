"""What a head is fitted on: plain samples, classes or groups, compared without group labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skspurious.functional._cross_fit import fit_balanced_logistic
from skspurious.functional._error_set import stratified_folds
from skspurious.functional._metrics import group_means
from skspurious.group_inference import KMeansGroups, SpuriousGroupInferrer
from skspurious.group_inference._effect import BalancingEffect, effect_of
from skspurious.group_inference._sides import taken_for

_N_FOLDS = 5
_N_COMPONENTS = 128  # of the representation on which candidates are compared
_WORST_CLASS_GAINS = 0.1  # accuracy of the class that plain training is worst on
_CLASSES_GAIN = 0.02  # in the mean over the classes
_SURE = 0.4  # of the median margin
_FEWEST_SURE = 10  # samples of a group that are kept at least


@dataclass(frozen=True)
class Choice:
    """What to fit a head on.

    Parameters
    ----------
    effect : BalancingEffect
    level : {"none", "small", "large"}
        Of the effect; "small" also where it is doubtful, so that the head is changed less.
    chosen : {"plain", "classes", "jury", "errors", "clusters"}
    table : DataFrame
        For each candidate the accuracy out of fold in the worst group, and in the mean over groups.
    labels : ndarray of shape (n_samples,)
        Groups of the chosen one; those of the jury for "plain".
    is_sure : ndarray of shape (n_samples,), bool
        Samples of which the jury is sure; all of them where the groups are others.
    """

    effect: BalancingEffect
    level: str
    chosen: str
    table: pd.DataFrame
    labels: np.ndarray
    is_sure: np.ndarray


def choose(Z, y, jury, margin, said, *, seed, names, is_trusted=True):
    """Choose among candidates by the worst of the groups that the views make of the classes.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Representation of the samples.
    y, jury : ndarray of shape (n_samples,)
        Classes and the jury's groups.
    margin : ndarray of shape (n_samples,)
        By how much the own class is ahead of the others by the jury; negative is the minority.
    said : ndarray of shape (n_samples, n_classes)
        What the views say, without the samples themselves.
    seed : int
    names : list of str
        The candidates beside "plain".
    is_trusted : bool, default=True
        Whether the views are known to lack the object; otherwise at most classes are balanced.

    Returns
    -------
    choice : Choice
    """
    effect = effect_of(Z, y, said, seed=seed)
    Z = _leading_components(Z)
    candidates = {
        "plain": lambda: np.zeros_like(y),
        "classes": lambda: y,
        "jury": lambda: jury,
        "errors": lambda: SpuriousGroupInferrer("error", random_state=seed).fit(Z, y).labels_,
        "clusters": lambda: (
            SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=seed).fit(Z, y).labels_
        ),
    }
    candidates = {name: candidates[name]() for name in ["plain", *names]}
    sides = y * said.shape[1] + taken_for(said, y)
    fold = stratified_folds(sides, _N_FOLDS, np.random.default_rng(seed))
    rows = {}
    for name, strata in candidates.items():
        hits = _hits(Z, y, None if name == "plain" else strata, fold)
        accuracy = group_means(hits, sides, int(sides.max()) + 1)
        rows[name] = {"worst_group": np.nanmin(accuracy), "mean": np.nanmean(accuracy)}
    table = pd.DataFrame(rows).T.rename_axis("candidate")
    level = effect.level
    if is_trusted and level != "none":
        chosen = best_candidate(table, sides)
        if names == ["jury"] and chosen == "plain":
            # What the two are compared on is not what the network will have: a gentle head.
            chosen, level = "jury", "small"
    else:
        # Weakly regularised: a strong penalty misses a class by itself.
        is_lost = "classes" in names and loses_a_class(
            *(_hits(Z, y, strata, fold, C=1.0) for strata in (None, y)), y
        )
        chosen = "classes" if is_lost else "plain"
    labels = candidates["jury" if chosen == "plain" else chosen]
    is_sure = sure_samples(margin, labels) if chosen == "jury" else np.ones(len(y), dtype=bool)
    return Choice(effect, level, chosen, table, labels, is_sure)


def sure_samples(margin, group):
    """Samples whose side the jury is sure of; every group keeps at least its ten surest.

    Parameters
    ----------
    margin : ndarray of shape (n_samples,)
    group : ndarray of shape (n_samples,)

    Returns
    -------
    is_sure : ndarray of shape (n_samples,), bool
    """
    distance = np.abs(margin)
    is_sure = distance >= _SURE * np.median(distance)
    for k in np.unique(group):
        own = np.sort(distance[group == k])
        is_sure |= (group == k) & (distance >= own[-min(_FEWEST_SURE, len(own))])
    return is_sure


def groups_of_views(said, y, *, min_group_size=5):
    """Both sides of every class by what the views say; a class with too few on a side is whole.

    Parameters
    ----------
    said : ndarray of shape (n_samples, n_classes)
    y : ndarray of shape (n_samples,)
    min_group_size : int, default=5

    Returns
    -------
    group : ndarray of shape (n_samples,)
    """
    is_wrong = taken_for(said, y) != y
    size = np.stack(
        [np.bincount(y[rows], minlength=said.shape[1]) for rows in (is_wrong, ~is_wrong)]
    )
    is_split = size.min(axis=0) >= min_group_size
    return 2 * y + (is_wrong & is_split[y])


def best_candidate(table, sides):
    """The jury, unless another is better in the worst group by more than its standard error."""
    worst = table["worst_group"]
    size = np.bincount(sides)
    error = np.sqrt(worst["jury"] * (1.0 - worst["jury"]) / size[size > 0].min())
    return worst.idxmax() if worst.max() > worst["jury"] + error else "jury"


def loses_a_class(plain, balanced, y):
    """Whether plain training misses much of its worst class that balancing the classes keeps.

    Parameters
    ----------
    plain, balanced : ndarray of shape (n_samples,)
        Whether the two heads are right, out of fold.
    y : ndarray of shape (n_samples,)
        Classes.
    """
    change, n_classes = balanced - plain, int(y.max()) + 1
    before, gained = (group_means(values, y, n_classes) for values in (plain, change))
    variance = group_means((change - gained[y]) ** 2, y, n_classes) / np.bincount(y)
    error = np.sqrt(variance.sum()) / n_classes
    is_much = gained[before.argmin()] >= _WORST_CLASS_GAINS
    return bool(is_much and gained.mean() > max(_CLASSES_GAIN, 2.0 * error))


def _leading_components(Z):
    """Standardised rows, in at most so many dimensions that heads take no time."""
    Z = StandardScaler().fit_transform(Z)
    if min(Z.shape) <= _N_COMPONENTS:
        return Z
    return PCA(_N_COMPONENTS, random_state=0).fit_transform(Z)


def _hits(Z, y, strata, fold, C=1e-3):
    """Whether heads of the other folds are right: balanced over `strata`, or plain ones."""
    hits = np.empty(len(y))
    for k in np.unique(fold):
        rows, rest = fold != k, fold == k
        if strata is None:
            plain = LogisticRegression(C=C, max_iter=1000).fit(Z[rows], y[rows])
            predicted = plain.predict(Z[rest])
        else:
            coef, intercept = fit_balanced_logistic(
                Z[rows], y[rows], int(y.max()) + 1, C=C, strata=strata[rows]
            )
            predicted = (Z[rest] @ coef + intercept).argmax(axis=1)
        hits[rest] = predicted == y[rest]
    return hits
