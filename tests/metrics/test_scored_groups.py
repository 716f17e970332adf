"""Scores without group labels: by a view of the samples, on the fold or before the search."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious import ERMClassifier, SemiSupervisedGroupInferrer
from skspurious.data import GroupedData
from skspurious.group_inference import ViewJury
from skspurious.metrics import make_worst_group_scorer, worst_group_accuracy, worst_group_scorer
from skspurious.model_selection import EveryGroupKFold


class OneColumn(ClassifierMixin, BaseEstimator):
    """Says the class by one column, at a half."""

    def __init__(self, column=0):
        self.column = column

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[(np.asarray(X)[:, self.column] > 0.5).astype(int)]


def planted(n=400, seed=0):
    """Columns: the object, right in 85 %, and the background, which agrees with 93 %."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n // 2)
    core = np.where(rng.random(n) < 0.85, y, 1 - y)
    place = np.where(rng.random(n) < 0.93, y, 1 - y)
    X = np.stack([core, place], axis=1) + rng.normal(0, 0.05, (n, 2))
    return X, y, 2 * y + place


def mean_of_worst(y, predicted, group):
    """Mean over the classes of the worst group of each, by hand."""
    right = predicted == y
    return np.mean(
        [min(right[group == g].mean() for g in np.unique(group[y == c])) for c in np.unique(y)]
    )


def views():
    return ViewJury({"background": [1]}, random_state=0)


def test_without_groups_a_jury_of_the_scored_samples_says_them():
    X, y, _ = planted()
    model = LogisticRegression().fit(X, y)
    jury = ViewJury(clean=None, min_group_size=2, random_state=0).fit(X[::2], y[::2])
    groups = jury.labels_
    for classifier in (model, make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)):
        predicted = classifier.predict(X[::2])
        expected = mean_of_worst(y[::2], predicted, groups)
        assert worst_group_scorer(classifier, X[::2], y[::2]) == pytest.approx(expected)
        assert expected < 0.9
        of_all = make_worst_group_scorer(mean_over_classes=False)
        worst = worst_group_accuracy(y[::2], predicted, sample_group=groups)
        assert of_all(classifier, X[::2], y[::2]) == worst


def test_the_mean_over_classes_of_given_groups_and_of_a_loss():
    X, y, group = planted()
    model = LogisticRegression().fit(X, y)
    scorer = make_worst_group_scorer(mean_over_classes=True)
    expected = mean_of_worst(y, model.predict(X), group)
    assert scorer(model, X, y, sample_group=group) == pytest.approx(expected)
    assert scorer(model, GroupedData(X, group), y) == pytest.approx(expected)
    weight = np.arange(len(y)) % 3
    copies = np.repeat(np.arange(len(y)), weight)
    assert scorer(model, X, y, sample_group=group, sample_weight=weight) == pytest.approx(
        mean_of_worst(y[copies], model.predict(X)[copies], group[copies])
    )
    loss = -np.log(model.predict_proba(X)[np.arange(len(y)), y])
    expected = -np.mean(
        [max(loss[group == g].mean() for g in 2 * c + np.arange(2)) for c in (0, 1)]
    )
    scorer = make_worst_group_scorer("neg_log_loss", mean_over_classes=True)
    assert scorer(model, X, y, sample_group=group) == pytest.approx(expected)
    with pytest.raises(ValueError, match="mean_over_classes must be True, False or 'auto'"):
        make_worst_group_scorer(mean_over_classes="all")


@pytest.mark.parametrize("seed", range(5))
def test_a_view_prefers_the_object_where_accuracy_and_classes_prefer_the_background(seed):
    X, y, group = planted(seed=seed)
    models = [OneColumn(column).fit(X, y) for column in (0, 1)]
    truth = [worst_group_accuracy(y, m.predict(X), sample_group=group) for m in models]
    assert truth[0] > 0.5 > truth[1]
    by_class = [worst_group_accuracy(y, m.predict(X), sample_group=y) for m in models]
    assert by_class[0] < by_class[1]
    scorer = make_worst_group_scorer(group_inferrer=views())
    assert scorer(models[0], X, y) > scorer(models[1], X, y)
    search = GridSearchCV(OneColumn(), {"column": [0, 1]}, scoring=scorer, cv=3)
    assert search.fit(X, y).best_params_ == {"column": 0}


def test_groups_that_a_jury_found_before_the_search_are_sliced_by_folds():
    X, y, _ = planted()
    carried = views().fit_transform(X, y)
    group = carried.sample_group
    assert_array_equal(carried.group_inferrer.infer_groups(X, y), group)
    folds = EveryGroupKFold(4)
    search = GridSearchCV(OneColumn(), {"column": [0, 1]}, scoring=worst_group_scorer, cv=folds)
    search.fit(carried, y)
    assert search.best_params_ == {"column": 0}
    for column in (0, 1):
        scores = [
            worst_group_accuracy(
                y[test],
                OneColumn(column).fit(X, y).predict(X[test]),
                sample_group=group[test],
            )
            for _, test in folds.split(X, y, sample_group=group)
        ]
        assert search.cv_results_["mean_test_score"][column] == pytest.approx(np.mean(scores))
        for _, test in folds.split(X, y, sample_group=group):
            assert set(group[test]) == set(group)


class CountingInferrer(BaseEstimator):
    """Groups by the sign of the last column; counts how often it was fitted."""

    n_fits = 0

    def fit(self, X, y):
        type(self).n_fits += 1
        self.labels_ = self.infer_groups(X, y)
        return self

    def infer_groups(self, X, y):
        return 2 * np.asarray(y) + (np.asarray(X)[:, -1] > 0.5)


def test_an_unfitted_inferrer_is_fitted_on_each_fold_once_for_all_candidates():
    X, y, group = planted()
    CountingInferrer.n_fits = 0
    scorer = make_worst_group_scorer(group_inferrer=CountingInferrer())
    cv = StratifiedKFold(3)
    search = GridSearchCV(OneColumn(), {"column": [0, 1, 0, 1]}, scoring=scorer, cv=cv)
    search.fit(GroupedData(X, np.zeros(len(y))), y)  # what is given here counts before X
    assert CountingInferrer.n_fits == 3
    by_hand = [
        worst_group_accuracy(
            y[test], OneColumn(1).fit(X, y).predict(X[test]), sample_group=group[test]
        )
        for _, test in cv.split(X, y)
    ]
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(by_hand))
    model, other = OneColumn(1).fit(X, y), X.copy()
    other[0, 0] += 1.0  # other samples, other groups
    scorer(model, other, y)
    scorer(model, X[:200], y[:200][::-1].copy())
    assert CountingInferrer.n_fits == 5
    again = pickle.loads(pickle.dumps(scorer))
    assert again(model, X, y) == scorer(model, X, y)
    assert CountingInferrer.n_fits == 7  # a copy has no groups of its own yet


def test_group_labels_count_before_a_jury():
    X, y, group = planted()
    model = OneColumn(1).fit(X, y)
    expected = worst_group_accuracy(y, model.predict(X), sample_group=group)
    scorer = make_worst_group_scorer(group_inferrer=views())
    assert worst_group_scorer(model, GroupedData(X, group), y) == expected
    assert scorer(model, X, y, sample_group=group) == expected


def test_a_partly_known_attribute_is_used_by_an_inferrer_and_else_there_is_a_warning():
    X, y, group = planted(800)
    place = group % 2
    known = np.where(np.arange(len(y)) % 2 == 0, place, None)
    carried = GroupedData(X, sample_attribute=known)
    model = OneColumn(1).fit(X, y)
    with pytest.warns(UserWarning, match=r"sample_attribute.*group_inferrer='estimator'"):
        assert worst_group_scorer(model, carried, y) == worst_group_scorer(model, X, y)
    groups = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known).labels_
    expected = worst_group_accuracy(y, model.predict(X), sample_group=groups)
    scorer = make_worst_group_scorer(group_inferrer=SemiSupervisedGroupInferrer())
    assert scorer(model, carried, y) == expected
    other = np.where(np.arange(len(y)) % 2 == 1, place, None)  # on the same samples
    groups = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=other).labels_
    expected = worst_group_accuracy(y, model.predict(X), sample_group=groups)
    assert scorer(model, GroupedData(X, sample_attribute=other), y) == expected
    own = make_worst_group_scorer(group_inferrer="estimator")
    clf = ERMClassifier(group_inferrer=SemiSupervisedGroupInferrer(), random_state=0)
    clf.fit(carried, y)
    expected = worst_group_accuracy(y, clf.predict(X), sample_group=clf.group_inferrer_.labels_)
    assert own(clf, carried, y) == expected


def test_names_of_classes_and_the_order_of_samples_change_nothing():
    X, y, _ = planted()
    model = LogisticRegression().fit(X, y)
    expected = worst_group_scorer(model, X, y)
    order = np.random.default_rng(1).permutation(len(y))
    assert worst_group_scorer(model, X[order], y[order]) == expected
    names = np.array(["cat", "dog"])[y]
    assert worst_group_scorer(LogisticRegression().fit(X, names), X, names) == expected


@pytest.mark.parametrize("X", [np.random.default_rng(0).normal(size=(200, 2)), np.ones((200, 1))])
def test_where_views_find_nothing_the_worst_class_counts_and_it_says_so(X):
    y = np.tile([0, 1], 100)
    model = OneColumn().fit(X, y)
    with pytest.warns(UserWarning, match="of the worst class, which says nothing of a shortcut"):
        score = worst_group_scorer(model, X, y)
    assert score == worst_group_accuracy(y, model.predict(X), sample_group=y)


def test_where_there_are_no_views_the_worst_class_counts_and_it_says_why():
    class Constant(OneColumn):
        def predict(self, X):
            return np.ones(len(X), dtype=int)

    X, y = [{"a": 1}, {"a": 2}, {"a": 3}], np.array([0, 1, 1])
    with pytest.warns(UserWarning, match="find none: KeyError"):
        assert worst_group_scorer(Constant().fit(X, y), X, y) == 0.0


def test_early_stopping_keeps_some_of_every_group_that_views_found():
    X, y, _ = planted()
    carried = views().fit_transform(X, y)
    clf = ERMClassifier(early_stopping=True, validation_fraction=0.2, max_epochs=1, random_state=0)
    clf.fit(carried, y)
    size = np.bincount(carried.sample_group)
    kept_aside = np.bincount(carried.sample_group[clf.validation_indices_], minlength=len(size))
    assert len(size) == 4
    assert (kept_aside >= 1).all()
    assert np.abs(kept_aside - 0.2 * size).max() <= 1
    assert clf.used_group_labels_ == {"train": False, "validation": False}
