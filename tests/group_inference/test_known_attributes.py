"""How a partly known attribute travels: GroupedData, Pipelines, searches, scorers, routing."""

import numpy as np
import pytest
import sklearn
import sklearn.pipeline
from numpy.testing import assert_array_equal
from registry import QUICK, TAKE_INFERRER, ignored_warnings
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    SemiSupervisedGroupInferrer,
    SPAREClassifier,
    SpuriousGroupInferrer,
    SpuriousSamplePruner,
    TorchFeatureExtractor,
    worst_group_scorer,
)
from skspurious.datasets import make_spurious_classification
from skspurious.metrics import make_worst_group_scorer, worst_group_accuracy
from skspurious.pipeline import make_pipeline

pytestmark = [
    *ignored_warnings(),
    pytest.mark.filterwarnings("ignore:too few labels:UserWarning"),
]


@pytest.fixture(scope="module")
def data():
    """Embedding, class, attribute, and the attribute of half of the samples."""
    bunch = make_spurious_classification(160, correlation_strength=0.8, random_state=0)
    attribute = bunch.sample_group % 2
    known = np.full(160, None)
    known[::2] = attribute[::2]
    return bunch.data.astype(np.float32), bunch.target, attribute, known


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


class Seen(SemiSupervisedGroupInferrer):
    """Remembers what reached ``fit``, and the rows whose groups were asked for."""

    def fit(self, X, y, *, sample_attribute=None):
        super().fit(X, y, sample_attribute=sample_attribute)
        self.rows_ = np.asarray(X)
        given = X.sample_attribute if isinstance(X, GroupedData) else None
        self.seen_ = given if sample_attribute is None else sample_attribute
        self.asked_ = []
        return self

    def infer_groups(self, X, y):
        self.asked_.append(getattr(X, "sample_attribute", None))
        return super().infer_groups(X, y)


def dro(inferrer=None, **params):
    inferrer = Seen() if inferrer is None else inferrer
    return GroupDROClassifier(group_inferrer=inferrer, **QUICK | params)


# ------------------------------------------------------------------------------- GroupedData


def test_rows_and_attribute_are_sliced_together(data):
    X, _, attribute, known = data
    Z = GroupedData(X, attribute, sample_attribute=known)
    part = Z[[3, 4, 8]]
    assert part.sample_attribute.tolist() == [None, known[4], known[8]]
    assert_array_equal(part.sample_group, attribute[[3, 4, 8]])
    assert Z[10:12].sample_attribute.tolist() == [known[10], None]
    train, _ = train_test_split(Z, random_state=0)
    assert len(train.sample_attribute) == len(train) == 120
    assert "attribute of 80 samples" in repr(Z)
    assert GroupedData(X).sample_attribute is None
    with pytest.raises(ValueError, match="inconsistent"):
        GroupedData(X, sample_attribute=known[:-1])


def test_every_carrier_carries_it(data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    extractor = TorchFeatureExtractor(nn.Identity(), layer="").fit(Z)
    assert_array_equal(extractor.transform(Z).sample_attribute, known)
    pruner = SpuriousSamplePruner(score_epochs=2, random_state=0)
    kept, _ = pruner.fit_resample(Z, y)
    assert_array_equal(kept.sample_attribute, known[pruner.kept_indices_])
    scaled = make_pipeline(StandardScaler()).fit_transform(Z, y)
    assert_array_equal(scaled.sample_attribute, known)
    inferrer = SpuriousGroupInferrer("dispersion").fit(X, y)
    assert_array_equal(inferrer.transform(Z).sample_attribute, known)


# ------------------------------------------------------------------------- into an estimator


@pytest.mark.parametrize("entry", TAKE_INFERRER, ids=lambda entry: entry.name)
def test_the_inferrer_of_every_classifier_is_fed(entry, data):
    X, y, attribute, known = data
    if entry.finds_groups:
        pytest.skip("its inferrer looks at an embedding of its own")
    clf = entry(group_inferrer=Seen(), **QUICK)
    clf.fit(GroupedData(X, attribute, sample_attribute=known), y)
    alone = SemiSupervisedGroupInferrer().fit(X, y, sample_attribute=known)
    assert_array_equal(clf.group_inferrer_.seen_, known)
    assert_array_equal(clf.group_inferrer_.labels_, alone.labels_)
    assert_array_equal(clf.infer_groups(X, y), alone.labels_)
    assert clf.used_group_labels_["train"] is False


def test_groups_that_are_carried_too_are_for_the_score(data):
    X, y, attribute, known = data
    wrong = GroupedData(X, 1 - attribute, sample_attribute=known)
    clf = dro().fit(wrong, y)
    assert_array_equal(clf.groups_, [0, 1, 2, 3])
    assert_array_equal(clf.group_inferrer_.labels_[::2] % 2, attribute[::2])
    expected = worst_group_accuracy(y, clf.predict(X), sample_group=attribute)
    assert clf.score(wrong, y) == pytest.approx(expected)


def test_validation_samples_keep_what_is_known_of_them(data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    clf = dro().fit(Z[:120], y[:120], X_val=Z[120:], y_val=y[120:])
    (asked,) = clf.group_inferrer_.asked_
    assert_array_equal(asked, known[120:])


def test_without_an_attribute_nothing_goes_on(data):
    X, y, _, known = data
    with pytest.raises(ValueError, match=r"GroupedData\(X, sample_attribute=a\)"):
        dro().fit(X, y)
    with pytest.raises(ValueError, match="SemiSupervisedGroupInferrer, from a sample_attribute"):
        GroupDROClassifier(**QUICK).fit(GroupedData(X, sample_attribute=known), y)


def test_an_inferrer_that_has_no_use_for_it_says_so(data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    ignored = "SpuriousGroupInferrer finds groups without the sample_attribute that X carries"
    with pytest.warns(UserWarning, match=ignored):
        dro(SpuriousGroupInferrer("dispersion")).fit(Z, y)
    with pytest.warns(UserWarning, match=ignored):
        SPAREClassifier(**QUICK).fit(Z, y)
    steps = make_pipeline(SpuriousGroupInferrer("dispersion"), GroupDROClassifier(**QUICK))
    with pytest.warns(UserWarning, match=ignored):
        steps.fit(Z, y)
    ERMClassifier(**QUICK).fit(Z, y)  # has no inferrer: plain training


# ------------------------------------------------------------------------------- Pipelines


@pytest.mark.parametrize("where", ["step", "last step"])
def test_our_pipeline_carries_it_to_the_inferrer(where, data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    if where == "step":
        model = make_pipeline(StandardScaler(), Seen(), GroupDROClassifier(**QUICK)).fit(Z, y)
        inferrer = model[1]
        assert model[-1].group_inferrer_ is inferrer
    else:
        model = make_pipeline(StandardScaler(), dro()).fit(Z, y)
        inferrer = model[-1].group_inferrer_
    assert_array_equal(inferrer.seen_, known)
    assert_array_equal(inferrer.rows_, StandardScaler().fit_transform(X))
    assert_array_equal(model[-1].groups_, [0, 1, 2, 3])
    model.infer_groups(Z, y)
    assert_array_equal(inferrer.asked_[-1], known)
    model.predict(Z)
    by_argument = clone(model)
    if where == "step":
        by_argument.fit(X, y, seen__sample_attribute=known)
        assert_array_equal(by_argument[1].seen_, known)


@pytest.mark.parametrize("make", [make_pipeline, sklearn.pipeline.make_pipeline])
def test_pipelines_as_inferrers(make, data):
    X, y, _, known = data
    clf = dro(make(StandardScaler(), Seen())).fit(GroupedData(X, sample_attribute=known), y)
    assert_array_equal(clf.group_inferrer_[-1].seen_, known)
    clf.infer_groups(GroupedData(X, sample_attribute=known), y)
    assert_array_equal(clf.group_inferrer_[-1].asked_[-1], known)


def test_pipelines_as_inferrers_with_routing(data, routing):
    X, y, _, known = data
    for make in (make_pipeline, sklearn.pipeline.make_pipeline):
        clf = dro(make(StandardScaler(), Seen())).fit(GroupedData(X, sample_attribute=known), y)
        assert_array_equal(clf.group_inferrer_[-1].seen_, known)


def test_a_pipeline_of_scikit_learn_drops_it_loudly(data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    lost = "a step before has dropped the one that X carried into the Pipeline"
    with pytest.raises(ValueError, match=lost):
        sklearn.pipeline.make_pipeline(StandardScaler(), dro()).fit(Z, y)
    with pytest.raises(ValueError, match=lost):
        sklearn.pipeline.make_pipeline(StandardScaler(), Seen()).fit(Z, y)
    steps = sklearn.pipeline.make_pipeline(StandardScaler(), dro(Seen(if_unknown="class")))
    with pytest.warns(UserWarning, match=lost):
        steps.fit(Z, y)


def test_routing_takes_the_attribute_to_the_inferrer(data, routing):
    X, y, _, known = data
    for make in (make_pipeline, sklearn.pipeline.make_pipeline):
        model = make(StandardScaler(), Seen(), GroupDROClassifier(**QUICK))
        model.fit(X, y, sample_attribute=known)
        assert_array_equal(model[1].seen_, known)
        assert_array_equal(model[-1].groups_, [0, 1, 2, 3])


# --------------------------------------------------------------------- searches and scorers


def test_a_search_feeds_the_inferrer_by_folds_and_scores_by_groups(data):
    X, y, attribute, known = data
    Z = GroupedData(X, 2 * y + attribute, sample_attribute=known)
    cv = StratifiedKFold(2)
    grid = {"group_inferrer__C": [1e-3, 1.0]}
    search = GridSearchCV(dro(), grid, scoring=worst_group_scorer, cv=cv, error_score="raise")
    search.fit(Z, y)
    assert_array_equal(search.best_estimator_.group_inferrer_.seen_, known)
    by_hand = []
    for train, test in cv.split(X, y):
        inferrer = Seen(C=1.0).fit(X[train], y[train], sample_attribute=known[train])
        clf = GroupDROClassifier(**QUICK).fit(X[train], y[train], sample_group=inferrer.labels_)
        group = (2 * y + attribute)[test]
        by_hand.append(worst_group_accuracy(y[test], clf.predict(X[test]), sample_group=group))
    scores = [search.cv_results_[f"split{i}_test_score"][1] for i in (0, 1)]
    assert scores == pytest.approx(by_hand)


def test_without_groups_the_scorer_infers_them_and_keeps_what_is_known(data):
    X, y, _, known = data
    Z = GroupedData(X, sample_attribute=known)
    scorer = make_worst_group_scorer(group_inferrer="estimator")
    models = [dro(), make_pipeline(StandardScaler(), dro())]
    models += [make_pipeline(StandardScaler(), Seen(), GroupDROClassifier(**QUICK))]
    for model in models:
        model.fit(Z[:100], y[:100])
        inferrer = model.group_inferrer_ if model is models[0] else model[-1].group_inferrer_
        score = scorer(model, Z[100:], y[100:])
        assert_array_equal(inferrer.asked_[-1], known[100:])
        group = model.infer_groups(Z[100:], y[100:])
        expected = worst_group_accuracy(y[100:], model.predict(X[100:]), sample_group=group)
        assert score == pytest.approx(expected)
    scores = cross_val_score(models[1], Z, y, scoring=scorer, cv=2, error_score="raise")
    assert np.isfinite(scores).all()
