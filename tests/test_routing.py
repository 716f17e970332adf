"""How groups travel through scikit-learn: searches, cross-validation, Pipelines, routing."""

from functools import partial

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    JTTClassifier,
    SPAREClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_scorer,
)
from skspurious.datasets import make_spurious_classification
from skspurious.group_inference import KMeansGroups, SpareGroups, ViewJury
from skspurious.metrics import make_worst_group_scorer, worst_group_accuracy
from skspurious.model_selection import EveryGroupKFold

FAST = {"max_epochs": 3, "batch_size": 32, "random_state": 0}
GRID = {"lr": [1e-3, 0.1]}


@pytest.fixture(scope="module")
def data():
    bunch = make_spurious_classification(160, correlation_strength=0.85, random_state=0)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


class SeenGroups(GroupDROClassifier):
    """GroupDRO that remembers what reached ``fit``."""

    def fit(self, X, y, *, sample_group=None, sample_weight=None):
        self.seen_rows_, self.seen_groups_ = X, sample_group
        return super().fit(X, y, sample_group=sample_group, sample_weight=sample_weight)


def _reference_scores(clf, X, y, group, cv):
    """Worst-group accuracy of every fold, by hand."""
    scores = []
    for train, test in cv.split(X, y):
        fitted = clone(clf).fit(X[train], y[train], sample_group=group[train])
        predicted = fitted.predict(X[test])
        right = predicted == y[test]
        scores.append(min(right[group[test] == g].mean() for g in np.unique(group[test])))
    return scores


# --------------------------------------------------------------------------------------
# Routing off, scikit-learn's default


@pytest.mark.parametrize("cls", [GroupDROClassifier, BalancedRetrainer, ERMClassifier])
def test_grouped_data_reaches_fit_and_scorer_in_cross_validation(cls, data):
    X, y, group = data
    clf, cv = cls(lr=0.1, **FAST), StratifiedKFold(2)
    result = cross_validate(
        clf, GroupedData(X, group), y, scoring=worst_group_scorer, cv=cv, error_score="raise"
    )
    assert_allclose(result["test_score"], _reference_scores(clf, X, y, group, cv))


def test_grouped_data_in_a_search_needs_no_configuration(data):
    X, y, group = data
    search = GridSearchCV(
        GroupDROClassifier(**FAST), GRID, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    search.fit(GroupedData(X, group), y)
    best = search.best_estimator_
    assert best.groups_.tolist() == [0, 1, 2, 3]
    assert best.used_group_labels_ == {"train": True, "validation": False}
    for i, lr in enumerate(GRID["lr"]):
        clf = GroupDROClassifier(lr=lr, **FAST)
        expected = np.mean(_reference_scores(clf, X, y, group, StratifiedKFold(2)))
        assert search.cv_results_["mean_test_score"][i] == pytest.approx(expected)
    carried = search.score(GroupedData(X, group), y)
    assert carried == worst_group_accuracy(y, search.predict(X), sample_group=group)


def test_the_default_scoring_of_a_search_on_grouped_data_is_the_worst_group(data):
    X, y, group = data
    search = GridSearchCV(GroupDROClassifier(**FAST), GRID, cv=2).fit(GroupedData(X, group), y)
    other = GridSearchCV(GroupDROClassifier(**FAST), GRID, scoring=worst_group_scorer, cv=2)
    other.fit(GroupedData(X, group), y)
    assert_allclose(search.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"])


@pytest.mark.slow  # two processes that import torch
def test_grouped_data_in_parallel_gives_the_same(data):
    X, y, group = data
    clf = GroupDROClassifier(lr=0.1, **FAST)
    one, two = (
        cross_validate(
            clf,
            GroupedData(X, group),
            y,
            scoring=worst_group_scorer,
            cv=2,
            n_jobs=n_jobs,
            error_score="raise",
        )["test_score"]
        for n_jobs in (None, 2)
    )
    assert_array_equal(one, two)


def test_label_free_search_scores_by_inferred_groups(data):
    X, y, _ = data
    scorer = make_worst_group_scorer(group_inferrer="estimator")
    clf = GroupDROClassifier(group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=2)), **FAST)
    search = GridSearchCV(clf, GRID, scoring=scorer, cv=2, error_score="raise")
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert best.used_group_labels_ == {"train": False, "validation": False}
    expected = worst_group_accuracy(y, best.predict(X), sample_group=best.infer_groups(X, y))
    assert search.score(X, y) == expected
    assert scorer(search, X, y) == expected


def test_label_free_search_end_to_end(data):
    """The first example of the README, on a table."""
    X, y, _ = data
    find = make_pipeline(
        TorchFeatureExtractor(ERMClassifier(lr=0.1, max_epochs=1), output="proba"),
        SpuriousGroupInferrer(SpareGroups(n_init=2)),
    )
    clf = BalancedRetrainer(group_inferrer=find, **FAST)
    grid = {**GRID, "group_inferrer__spuriousgroupinferrer__method__n_clusters": [2, 3]}
    search = GridSearchCV(clf, grid, scoring=worst_group_scorer, cv=2, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert not hasattr(find[-1], "labels_")
    n_clusters = search.best_params_["group_inferrer__spuriousgroupinferrer__method__n_clusters"]
    assert len(search.best_estimator_.groups_) == 2 * n_clusters


def test_pipeline_of_extractor_inferrer_and_classifier(data):
    X, y, _ = data
    early = ERMClassifier(lr=0.1, max_epochs=1, random_state=0)
    pipeline = make_pipeline(
        TorchFeatureExtractor(early, output="logits"),
        SpuriousGroupInferrer(KMeansGroups(n_init=2), random_state=0),
        GroupDROClassifier(lr=0.1, **FAST),
    ).fit(X, y)
    inferrer, clf = pipeline[1], pipeline[-1]
    assert clf.group_inferrer_ is inferrer
    assert_array_equal(clf.groups_, inferrer.groups_)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    Z = pipeline[0].transform(X)
    by_hand = clone(clf).fit(Z, y, sample_group=inferrer.labels_)
    assert_array_equal(by_hand.predict_proba(Z), pipeline.predict_proba(X))
    # a scorer can take the groups of new rows from the inferrer in the Pipeline
    group = inferrer.predict(Z[:50], y=y[:50])
    expected = worst_group_accuracy(y[:50], pipeline.predict(X[:50]), sample_group=group)
    scorer = make_worst_group_scorer(group_inferrer="estimator")
    assert scorer(pipeline, X[:50], y[:50]) == expected


def test_pipeline_of_extractor_inferrer_and_classifier_in_a_search(data):
    X, y, group = data
    pipeline = make_pipeline(
        TorchFeatureExtractor(ERMClassifier(lr=0.1, max_epochs=1), output="logits"),
        SpuriousGroupInferrer(KMeansGroups(n_init=2)),
        GroupDROClassifier(**FAST),
    )
    grid = {"groupdroclassifier__lr": [1e-3, 0.1]}
    search = GridSearchCV(pipeline, grid, scoring=worst_group_scorer, cv=2, error_score="raise")
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # groups that X carries judge the candidates, and do not train them
    search.fit(GroupedData(X, group), y)
    assert search.best_estimator_[-1].used_group_labels_ == {"train": False, "validation": False}
    expected = worst_group_accuracy(y, search.predict(X), sample_group=group)
    assert worst_group_scorer(search, GroupedData(X, group), y) == expected


def test_pipeline_passes_groups_to_a_step_by_name(data):
    X, y, group = data
    pipeline = make_pipeline(StandardScaler(), GroupDROClassifier(lr=0.1, **FAST))
    pipeline.fit(X, y, groupdroclassifier__sample_group=group)
    assert pipeline[-1].groups_.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="does not accept the sample_group parameter"):
        pipeline.fit(X, y, sample_group=group)


def test_a_plain_transformer_loses_carried_groups_loudly(data):
    X, y, group = data
    pipeline = make_pipeline(StandardScaler(), GroupDROClassifier(lr=0.1, **FAST))
    with pytest.raises(ValueError, match="needs the group of every training sample and has none"):
        pipeline.fit(GroupedData(X, group), y)


def test_sample_group_reaches_fit_in_a_search_but_not_the_scorer(data):
    X, y, group = data
    search = GridSearchCV(
        SeenGroups(**FAST), GRID, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    with pytest.raises(ValueError, match=r"the scorer was given none\. Carry them in GroupedData"):
        search.fit(X, y, sample_group=group)
    search.set_params(scoring="accuracy").fit(X, y, sample_group=group)
    assert_array_equal(search.best_estimator_.seen_groups_, group)
    result = cross_validate(
        SeenGroups(**FAST), X, y, params={"sample_group": group}, cv=2, return_estimator=True
    )
    for clf in result["estimator"]:
        rows = [np.flatnonzero((row == X).all(1))[0] for row in clf.seen_rows_]
        assert_array_equal(clf.seen_groups_, group[rows])


@pytest.mark.parametrize("cls", [GroupDROClassifier, BalancedRetrainer])
def test_no_groups_in_a_search_raise_with_the_remedy(cls, data):
    X, y, _ = data
    search = GridSearchCV(cls(**FAST), GRID, scoring=worst_group_scorer, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=r"GroupedData\(X, g\), which also reaches fit"):
        search.fit(X, y)
    with pytest.raises(ValueError, match="All the 2 fits failed"):  # scikit-learn's default
        cross_validate(cls(**FAST), X, y, cv=2)


@pytest.mark.parametrize("cls", [ERMClassifier, partial(JTTClassifier, init_epochs=3)])
def test_every_method_has_a_score_without_group_labels(cls, data):
    """Those that infer no groups, too: by views of the samples of the fold."""
    X, y, _ = data
    search = GridSearchCV(
        cls(**FAST), {"lr": [0.05, 0.1]}, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    search.fit(X, y)
    found = ViewJury(clean=None, min_group_size=2, random_state=0).fit(X, y).labels_
    right = search.predict(X) == y
    worst = [min(right[found == g].mean() for g in np.unique(found[y == k])) for k in (0, 1)]
    assert search.score(X, y) == pytest.approx(np.mean(worst))


def test_groups_is_not_silently_accepted(data):
    """With routing off ``groups=`` goes to the splitter alone; a method without groups raises."""
    X, y, group = data
    for clf in (GroupDROClassifier(**FAST), BalancedRetrainer(**FAST)):
        search = GridSearchCV(clf, GRID, cv=EveryGroupKFold(2), error_score="raise")
        with pytest.raises(ValueError, match=r"never groups="):
            search.fit(X, y, groups=group)


def test_groups_for_the_splitter_and_sample_group_for_fit_live_side_by_side(data):
    X, y, group = data
    search = GridSearchCV(
        SeenGroups(**FAST), GRID, scoring="accuracy", cv=EveryGroupKFold(2), error_score="raise"
    )
    search.fit(X, y, groups=group, sample_group=group)
    assert_array_equal(search.best_estimator_.seen_groups_, group)


def test_every_group_k_fold_reads_carried_groups_in_a_search(data):
    X, y, group = data
    result = cross_validate(
        GroupDROClassifier(lr=0.1, **FAST),
        GroupedData(X, group),
        y,
        scoring=worst_group_scorer,
        cv=EveryGroupKFold(2),
        return_indices=True,
        error_score="raise",
    )
    for test in result["indices"]["test"]:
        assert set(group[test]) == set(group)


def test_cross_val_predict_and_train_test_split(data):
    X, y, group = data
    clf = GroupDROClassifier(lr=0.1, **FAST)
    predicted = cross_val_predict(clf, GroupedData(X, group), y, cv=2)
    assert predicted.shape == y.shape
    X_train, X_test, y_train, y_test = train_test_split(
        GroupedData(X, group), y, stratify=group, random_state=0
    )
    clf.fit(X_train, y_train)
    assert clf.score(X_test, y_test) == worst_group_accuracy(
        y_test, clf.predict(X_test), sample_group=X_test.sample_group
    )


def test_spare_in_cross_validation(data):
    X, y, _ = data
    clf = SPAREClassifier(init_epochs=1, lr=0.1, **FAST)
    result = cross_validate(clf, X, y, scoring=worst_group_scorer, cv=2, error_score="raise")
    assert np.isfinite(result["test_score"]).all()


# --------------------------------------------------------------------------------------
# Routing on


@pytest.mark.usefixtures("routing")
def test_routing_hands_sample_group_to_fit_and_scorer_without_requests(data):
    X, y, group = data
    clf = GroupDROClassifier(lr=0.1, **FAST)
    cv = StratifiedKFold(2)
    result = cross_validate(
        clf,
        X,
        y,
        params={"sample_group": group},
        scoring=worst_group_scorer,
        cv=cv,
        error_score="raise",
    )
    assert_allclose(result["test_score"], _reference_scores(clf, X, y, group, cv))
    search = GridSearchCV(
        SeenGroups(**FAST), GRID, scoring=worst_group_scorer, cv=2, error_score="raise"
    )
    search.fit(X, y, sample_group=group)
    assert_array_equal(search.best_estimator_.seen_groups_, group)
    score = search.score(X, y, sample_group=group)
    assert score == worst_group_accuracy(y, search.predict(X), sample_group=group)


@pytest.mark.usefixtures("routing")
def test_routing_reaches_the_last_step_of_a_pipeline(data):
    X, y, group = data
    pipeline = make_pipeline(StandardScaler(), SeenGroups(lr=0.1, **FAST))
    pipeline.fit(X, y, sample_group=group)
    assert_array_equal(pipeline[-1].seen_groups_, group)
    assert pipeline.score(X, y, sample_group=group) == worst_group_accuracy(
        y, pipeline.predict(X), sample_group=group
    )


@pytest.mark.usefixtures("routing")
def test_routing_keeps_grouped_data_and_inferrers_working(data):
    X, y, group = data
    for clf, samples in (
        (GroupDROClassifier(lr=0.1, **FAST), GroupedData(X, group)),
        (
            GroupDROClassifier(
                group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_init=2)), lr=0.1, **FAST
            ),
            X,
        ),
        (SPAREClassifier(lr=0.1, **FAST), X),
    ):
        result = cross_validate(
            clf, samples, y, scoring=worst_group_scorer, cv=2, error_score="raise"
        )
        assert np.isfinite(result["test_score"]).all()


@pytest.mark.usefixtures("routing")
def test_routing_refuses_a_stray_groups(data):
    X, y, group = data
    search = GridSearchCV(GroupDROClassifier(**FAST), GRID, scoring=worst_group_scorer, cv=2)
    with pytest.raises(TypeError, match=r"unexpected argument.*groups"):
        search.fit(X, y, groups=group, sample_group=group)


@pytest.mark.usefixtures("routing")
def test_routing_asks_before_it_passes_sample_weight_on(data):
    X, y, group = data
    search = GridSearchCV(GroupDROClassifier(**FAST), GRID, cv=2)
    with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
        search.fit(X, y, sample_group=group, sample_weight=np.ones(len(y)))


@pytest.mark.parametrize("cls", [GroupDROClassifier, BalancedRetrainer, ERMClassifier])
def test_requests_are_class_defaults_that_survive_clone(cls):
    clf = clone(cls())
    routing = clf.get_metadata_routing()
    assert routing.fit.requests["sample_group"] is True
    assert routing.score.requests["sample_group"] is True
    assert not routing.predict.requests
