import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    StratifiedKFold,
)
from sklearn.preprocessing import StandardScaler

from skspurious.data import GroupedData
from skspurious.metrics import worst_group_accuracy, worst_group_scorer
from skspurious.model_selection import EveryGroupKFold, selection_trust
from skspurious.model_selection._trust import interval_of, rank_correlation, resample_within


class Mix(ClassifierMixin, BaseEstimator):
    """Says the class by a mean of two columns; with weight 1 by the background alone."""

    def __init__(self, weight=0.0):
        self.weight = weight

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.n_seen_ = len(y)
        return self

    def predict(self, X):
        X = np.asarray(X)
        return self.classes_[((1 - self.weight) * X[:, 0] + self.weight * X[:, 1] > 0.5) * 1]


def planted(n=600, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n // 2)
    place = np.where(rng.random(n) < 0.9, y, 1 - y)
    X = np.stack([y + rng.normal(0, 0.5, n), place + rng.normal(0, 0.2, n)], axis=1)
    return X, y, np.array(["land", "water"])[place]


X, Y, PLACE = planted()
WEIGHTS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
CELL = 2 * Y + (PLACE == "water")


def fitted(scoring="accuracy", X=X, cv=4, **keywords):
    return GridSearchCV(Mix(), {"weight": WEIGHTS}, scoring=scoring, cv=cv, **keywords).fit(X, Y)


def mask(n, seed=0):
    """The attribute of n samples of each (class, attribute); others are not known."""
    rng = np.random.default_rng(seed)
    known = np.concatenate([rng.permutation(np.flatnonzero(c == CELL))[:n] for c in range(4)])
    attribute = np.full(len(Y), None, dtype=object)
    attribute[known] = PLACE[known]
    return attribute


def test_with_all_labels_by_hand():
    search = fitted()
    trust = selection_trust(search, X, Y, PLACE, n_resamples=50)
    worst = [worst_group_accuracy(Y, Mix(w).fit(X, Y).predict(X), sample_group=CELL)
             for w in WEIGHTS]  # fmt: skip
    assert trust.kind == "labels"
    assert trust.n_labelled == len(Y)
    assert_allclose(trust.candidates["worst_group"], worst)
    assert_allclose(trust.candidates["score"], search.cv_results_["mean_test_score"])
    assert trust.candidates["params"].tolist() == search.cv_results_["params"]
    expected = spearmanr(search.cv_results_["mean_test_score"], worst).statistic
    assert trust.correlation == pytest.approx(expected)
    assert list(trust.group_sizes) == [
        "class 0, land",
        "class 0, water",
        "class 1, land",
        "class 1, water",
    ]
    assert list(trust.group_sizes.values()) == np.bincount(CELL).tolist()
    assert trust.sparse_groups == []


def test_a_sample_that_is_tested_several_times_counts_with_its_mean():
    several = StratifiedKFold(4), RepeatedStratifiedKFold(n_splits=4, n_repeats=3, random_state=0)
    once, thrice = (selection_trust(fitted(cv=cv), X, Y, PLACE, n_resamples=5) for cv in several)
    assert_allclose(thrice.candidates["worst_group"], once.candidates["worst_group"])


def test_candidates_are_fitted_on_the_folds_that_the_labelled_samples_are_not_in():
    """One labelled sample a group, and a candidate that learns: out of fold it is wrong."""

    class Memory(Mix):
        def fit(self, X, y):
            self.known_ = {tuple(row): label for row, label in zip(X, y, strict=True)}
            return super().fit(X, y)

        def predict(self, X):
            return np.array([self.known_.get(tuple(row), -1) for row in X])

    search = GridSearchCV(Memory(), {"weight": [0.0, 0.5, 1.0]}, cv=3).fit(X, Y)
    assert search.score(X, Y) == 1.0
    trust = selection_trust(search, X, Y, mask(1), n_resamples=10)
    assert trust.candidates["worst_group"].tolist() == [0.0, 0.0, 0.0]
    assert trust.correlation == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_few_labels_tell_a_score_that_misleads_from_one_that_does_not(seed):
    by_accuracy = selection_trust(fitted(), X, Y, mask(16, seed))
    carried = GroupedData(X, CELL)
    search = fitted(worst_group_scorer, carried, EveryGroupKFold(4))
    by_groups = selection_trust(search, carried, Y, mask(16, seed))
    assert by_accuracy.correlation < 0.5 < 0.8 < by_groups.correlation
    for trust in (by_accuracy, by_groups):
        assert trust.n_labelled == 64
        low, high = trust.interval
        assert -1 <= low <= trust.correlation <= high <= 1
    all_labels = selection_trust(search, carried, Y, PLACE, n_resamples=50)
    assert by_groups.interval[0] <= all_labels.correlation <= by_groups.interval[1]


@pytest.mark.parametrize(
    ("value", "confidence", "expected"),
    [
        (0.3, 0.9, (0.03, 0.57)),  # symmetric draws: both intervals are the same
        (0.5, 0.9, (0.03, 0.97)),  # 0.03 to 0.57, and mirrored 0.43 to 0.97
        (0.1, 0.9, (-0.37, 0.57)),
        (0.5, 0.5, (0.15, 0.85)),
        (0.9, 0.9, (0.03, 1.0)),
        (-0.9, 0.9, (-1.0, 0.57)),
    ],
)
def test_intervals_by_hand(value, confidence, expected):
    draws = np.linspace(0.0, 0.6, 601)
    assert interval_of(value, draws, confidence) == pytest.approx(expected)


def test_labels_are_resampled_within_their_groups():
    group = np.repeat([0, 2], [5, 40])
    draws = list(resample_within(group, 20, np.random.default_rng(0)))
    assert all(np.array_equal(np.bincount(group[rows]), [5, 0, 40]) for rows in draws)
    assert len({tuple(rows) for rows in draws}) == 20
    assert any(len(set(rows[:5])) < 5 for rows in draws)  # with replacement


def test_more_labels_and_less_confidence_narrow_the_interval():
    search = fitted()

    def width(n, confidence=0.95):
        low, high = selection_trust(search, X, Y, mask(n), confidence=confidence).interval
        return high - low

    assert width(25) < width(4)
    assert width(8, confidence=0.5) < width(8)


def test_names_and_kinds_of_the_attribute_change_nothing():
    search = fitted()
    expected = selection_trust(search, X, Y, mask(10))
    code = np.array([np.nan if a is None else float(a == "water") for a in mask(10)])
    for attribute in (code, pd.Series(mask(10)), pd.Series(code, dtype="Int64"), mask(10).tolist()):
        trust = selection_trust(search, X, Y, attribute)
        assert trust.correlation == expected.correlation
        assert trust.interval == expected.interval
        assert list(trust.group_sizes.values()) == [10] * 4


def test_same_seed_equal_other_seed_another_interval(assert_global_rng_untouched):
    search = GridSearchCV(Mix(), {"weight": np.linspace(0, 1, 15)}, cv=2).fit(X, Y)
    with assert_global_rng_untouched():
        one, again, other = (
            selection_trust(search, X, Y, mask(10), random_state=s).interval for s in (0, 0, 1)
        )
    assert one == again != other


def test_groups_with_few_labels_are_named():
    attribute = mask(10)
    rows = np.flatnonzero((CELL == 1) & ~pd.isna(attribute))
    attribute[rows[3:]] = None
    trust = selection_trust(fitted(), X, Y, attribute, n_resamples=10)
    assert trust.sparse_groups == ["class 0, water"]
    assert "Too few labels to tell: class 0, water." in repr(trust)


def test_without_labels_folds_are_compared():
    search = fitted(cv=3)
    trust = selection_trust(search, X, Y)
    folds = [search.cv_results_[f"split{k}_test_score"] for k in range(3)]
    expected = np.mean(
        [spearmanr(folds[a], folds[b]).statistic for a, b in [(0, 1), (0, 2), (1, 2)]]
    )
    assert trust.kind == "folds"
    assert trust.correlation == pytest.approx(expected)
    assert trust.interval[0] < trust.correlation <= trust.interval[1]  # folds disagree
    assert trust.n_labelled == 0
    assert "worst_group" not in trust.candidates
    assert "Without group labels" in repr(trust)


def test_rank_correlation_is_spearmans_and_0_where_nothing_is_ranked():
    rng = np.random.default_rng(0)
    a, b = rng.integers(5, size=(2, 30))  # with ties
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, np.ones(30)) == 0.0


def test_other_searches_metrics_and_labels():
    names = np.array(["cat", "dog"])[Y]
    search = RandomizedSearchCV(
        LogisticRegression(),
        {"C": [1e-5, 1e-3, 0.1]},
        n_iter=3,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
        scoring={"accuracy": "accuracy", "auc": "roc_auc"},
        refit="auc",
    ).fit(X, names)
    trust = selection_trust(search, X, names, mask(10), n_resamples=10)
    assert_allclose(trust.candidates["score"], search.cv_results_["mean_test_auc"])
    assert next(iter(trust.group_sizes)) == "class cat, land"
    search.refit = False
    with pytest.raises(ValueError, match="refit must name the one"):
        selection_trust(search, X, names)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ([None] * len(Y), "is known of 0 samples of 0 group"),
        ([1] + [None] * (len(Y) - 1), "is known of 1 samples of 1 group"),
        ([1, 2], "inconsistent numbers of samples"),
    ],
)
def test_errors_of_the_labels(attribute, message):
    with pytest.raises(ValueError, match=message):
        selection_trust(fitted(), X, Y, attribute)


def test_errors_of_the_search():
    with pytest.raises(TypeError, match="search must be a fitted search"):
        selection_trust(StandardScaler(), X, Y)
    two = GridSearchCV(Mix(), {"weight": [0.0, 1.0]}, cv=2).fit(X, Y)
    with pytest.raises(ValueError, match="2 candidates, 0 of them without a score"):
        selection_trust(two, X, Y)
    one_fold = [(np.arange(0, 600, 2), np.arange(1, 600, 2))]
    search = GridSearchCV(Mix(), {"weight": WEIGHTS}, cv=one_fold).fit(X, Y)
    with pytest.raises(ValueError, match="the search has one fold"):
        selection_trust(search, X, Y)
    with pytest.raises(ValueError, match="labelled samples are in no test fold"):
        selection_trust(search, X, Y, PLACE)
