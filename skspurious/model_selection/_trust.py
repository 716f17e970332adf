"""selection_trust: how far the scores of a search rank candidates by their worst group."""

from itertools import combinations

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from skspurious.data import unpack_groups
from skspurious.model_selection._split import take
from skspurious.model_selection._trust_result import SelectionTrust
from skspurious.utils._random import draw_seed
from skspurious.utils._rows import as_labels, check_is_rows

__all__ = ["selection_trust"]


def selection_trust(
    search,
    X,
    y,
    sample_attribute=None,
    *,
    n_resamples=1000,
    confidence=0.95,
    n_jobs=None,
    random_state=0,
):
    """How far the scores of a search can be trusted to rank candidates by their worst group.

    A search without group labels ranks by something that it hopes goes with the worst group. With
    the attribute of a few samples (where the picture was taken, who wrote) this says whether it
    does: Spearman's correlation of the scores with the worst group by these labels, and an
    interval. Without labels it says how well the folds agree, which is another question.

    .. versionadded:: 0.1

    Parameters
    ----------
    search : fitted search
        Such as a ``GridSearchCV``; with several metrics, ``refit`` names the one.
    X : any kind of samples, or GroupedData
        What the search was fitted on.
    y : array-like of shape (n_samples,)
        Class labels.
    sample_attribute : array-like of shape (n_samples,), default=None
        The attribute that groups are made of, None or NaN where it is not known. Groups are
        class by attribute.
    n_resamples : int, default=1000
        Resamples of the bootstrap.
    confidence : float, default=0.95
        Of the interval.
    n_jobs : int, default=None
        Candidates that are fitted at the same time; None is one.
    random_state : int, RandomState instance or None, default=0
        Seed of the resamples.

    Returns
    -------
    trust : SelectionTrust
        With ``correlation``, ``interval`` and ``candidates``; prints one sentence.

    Raises
    ------
    TypeError
        If ``search`` has no ``cv_results_``.
    ValueError
        If lengths differ, no sample or only one group has a label, or the search had fewer than
        three candidates with scores; without labels, if it had fewer than two folds.

    See Also
    --------
    skspurious.metrics.make_worst_group_scorer : The scores, with and without group labels.

    Notes
    -----
    With labels, each candidate is fitted anew on the search's folds, those that hold labelled
    samples, and predicts them out of fold: it takes as long as the search did. Accuracy in the
    smallest group decides, so labels are to be had of all groups: drawn at random, of 4,000
    samples with 2 % in the minority, 64 see hardly any of it, and the correlation is not seen
    either. Half of them from samples of each class on which a model or a jury of views is wrong is
    enough (docs/results/label_free_selection.md): 64 labels then tell a score that misleads from
    one that does not; the estimate is off by 0.2 in the mean. Groups of fewer than five labelled
    samples are named in ``sparse_groups`` and by ``print``.

    The interval is of a bootstrap of the labelled samples within their groups, by percentiles or
    mirrored at the estimate, whichever is wider. What few labels estimate is noisy, so that the
    correlation is one with something noisy, and rather too low: of intervals of 95 % about 80 %
    held the correlation with the worst group of test samples.

    A sample that is tested several times, as with repeated folds, counts with its mean.

    Without labels the correlation is the mean over pairs of folds, between the scores of one and
    of the other, and the interval is of a bootstrap of the candidates. Scores that agree over folds
    can agree on something else than the worst group: accuracy does.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skspurious.datasets import make_spurious_classification
    >>> from skspurious.model_selection import selection_trust
    >>> data = make_spurious_classification(600, random_state=0)
    >>> X, y = data.data, data.target
    >>> search = GridSearchCV(LogisticRegression(), {"C": [1e-4, 1e-3, 0.01, 1]}, cv=3).fit(X, y)
    >>> attribute = np.where(np.arange(600) < 200, data.spurious_attribute, np.nan)
    >>> selection_trust(search, X, y, attribute).n_labelled
    200
    """
    score, folds = _scores(search)
    check_is_rows(X, "X")
    y = column_or_1d(as_labels(y, "y"), warn=True)
    check_consistent_length(X, y, sample_attribute)
    rng = np.random.default_rng(draw_seed(random_state))
    about = {"n_resamples": n_resamples, "confidence": confidence}
    table = pd.DataFrame({"params": list(search.cv_results_["params"]), "score": score})
    if sample_attribute is None:
        value, draws = _agreement(folds, n_resamples, rng)
        return SelectionTrust(
            "folds", value, interval_of(value, draws, confidence), 0, {}, table, **about
        )
    group, names = _labelled_groups(sample_attribute, y)
    is_right = _out_of_fold(search, X, y, group >= 0, n_jobs)
    group = group[group >= 0]
    worst = worst_accuracy(is_right, group)
    table["worst_group"] = worst
    value = rank_correlation(score, worst)
    draws = [
        rank_correlation(score, worst_accuracy(is_right[:, rows], group[rows]))
        for rows in resample_within(group, n_resamples, rng)
    ]
    size = dict(zip(names, np.bincount(group).tolist(), strict=True))
    interval = interval_of(value, np.array(draws), confidence)
    return SelectionTrust("labels", value, interval, len(group), size, table, **about)


def rank_correlation(a, b):
    """Spearman's correlation; 0 where one of them is constant, which ranks nothing."""
    a, b = (rankdata(x) - (len(x) + 1) / 2 for x in (a, b))
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0


def _scores(search):
    """Mean scores of the candidates, and those of the folds, (n_folds, n_candidates)."""
    if not hasattr(search, "fit") or not hasattr(search, "cv"):
        raise TypeError(f"search must be a fitted search, such as a GridSearchCV; got {search!r}.")
    check_is_fitted(search, "cv_results_")
    name = search.refit if search.multimetric_ else "score"
    if not isinstance(name, str):
        raise ValueError(
            f"the search has several metrics and refit={name!r}: refit must name the one that "
            "ranks the candidates."
        )
    result = search.cv_results_
    score = np.asarray(result[f"mean_test_{name}"], dtype=np.float64)
    folds = np.stack([result[f"split{k}_test_{name}"] for k in range(search.n_splits_)])
    if np.isnan(score).any() or len(score) < 3:
        raise ValueError(
            f"the search has {len(score)} candidates, {int(np.isnan(score).sum())} of them without "
            "a score: at least three are needed, all with scores. error_score='raise' says why "
            "scores are missing."
        )
    return score, folds


def _labelled_groups(sample_attribute, y):
    """Group of every sample, -1 where the attribute is not known, and what the groups are."""
    attribute = column_or_1d(np.asarray(sample_attribute, dtype=object))
    is_known = ~pd.isna(attribute)
    group = np.full(len(y), -1)
    pairs = [f"class {c}, {a}" for c, a in zip(y[is_known], attribute[is_known], strict=True)]
    if len(set(pairs)) < 2:
        raise ValueError(
            f"sample_attribute is known of {is_known.sum()} samples of {len(set(pairs))} group(s); "
            "a worst group needs labels of two or more. Without any, leave it out."
        )
    names, group[is_known] = np.unique(pairs, return_inverse=True)
    return group, names.tolist()


def _out_of_fold(search, X, y, is_labelled, n_jobs):
    """Whether candidates are right on labelled samples, out of fold: (n_candidates, n_labelled)."""
    cv = check_cv(search.cv, y, classifier=is_classifier(search.estimator))
    folds = list(cv.split(X, y))
    position = np.cumsum(is_labelled) - 1

    def fit_and_predict(params):
        right, n_seen = np.zeros(is_labelled.sum()), np.zeros(is_labelled.sum(), dtype=int)
        for train, test in folds:
            test = test[is_labelled[test]]
            if len(test):
                model = clone(search.estimator).set_params(**clone(params, safe=False))
                model.fit(take(X, train), y[train])
                right[position[test]] += model.predict(unpack_groups(take(X, test))[0]) == y[test]
                n_seen[position[test]] += 1
        return right / np.maximum(n_seen, 1), n_seen

    found = Parallel(n_jobs=n_jobs)(
        delayed(fit_and_predict)(params) for params in search.cv_results_["params"]
    )
    n_seen = found[0][1]
    if not n_seen.all():
        raise ValueError(
            f"{int((n_seen == 0).sum())} labelled samples are in no test fold of the search: leave "
            "their labels out, or search with a splitter that tests every sample."
        )
    return np.stack([right for right, _ in found])


def worst_accuracy(is_right, group):
    """Accuracy in the worst group, of every candidate."""
    size = np.bincount(group)
    member = (group[:, None] == np.flatnonzero(size)).astype(np.float64)
    return (is_right @ member / size[size > 0]).min(axis=1)


def resample_within(group, n_resamples, rng):
    """Rows drawn with replacement from each group, as many as it has."""
    rows = [np.flatnonzero(group == g) for g in np.unique(group)]
    for _ in range(n_resamples):
        yield np.concatenate([rng.choice(r, len(r)) for r in rows])


def _agreement(folds, n_resamples, rng):
    """Mean correlation over pairs of folds, and the same over resampled candidates."""
    if len(folds) < 2:
        raise ValueError("the search has one fold: without labels its stability cannot be told.")

    def mean(scores):
        return float(np.mean([rank_correlation(a, b) for a, b in combinations(scores, 2)]))

    n = folds.shape[1]
    return mean(folds), np.array(
        [mean(folds[:, rng.integers(n, size=n)]) for _ in range(n_resamples)]
    )


def interval_of(value, draws, confidence):
    """The wider of both bootstrap intervals on each side: by percentiles, and these mirrored.

    Resampled labels are noisier than the labels themselves, so resampled correlations lie below
    the estimate as the estimate lies below the truth.
    """
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    low, high = min(low, 2 * value - high), max(high, 2 * value - low)
    return float(max(low, -1.0)), float(min(high, 1.0))
