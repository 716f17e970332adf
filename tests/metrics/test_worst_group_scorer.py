import copy
import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn import metrics as skm
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious.data import GroupedData, encode_groups, unpack_groups
from skspurious.metrics import make_worst_group_scorer, worst_group_accuracy, worst_group_scorer

# Stand-ins, in NumPy, for the estimators that these scorers meet.


class SignInferrer(TransformerMixin, BaseEstimator):
    """Groups by class and the sign of the last column."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.labels_ = self.infer_groups(X, y)
        self.sampling_power_ = np.ones(2)
        return self

    def infer_groups(self, X, y):
        return 2 * np.searchsorted(self.classes_, y) + (np.asarray(X)[:, -1] > 0)

    def transform(self, X):
        return X

    def fit_transform(self, X, y):
        self.fit(X, y)
        return GroupedData(X, self.labels_, group_inferrer=self)


class GroupMeans(ClassifierMixin, BaseEstimator):
    """Nearest mean of the class, the mean of the means of its groups."""

    __metadata_request__fit = {"sample_group": True}

    def __init__(self, *, column=0, group_inferrer=None):
        self.column = column
        self.group_inferrer = group_inferrer

    def fit(self, X, y, *, sample_group=None):
        X, sample_group, self.group_inferrer_ = unpack_groups(X, sample_group)
        if sample_group is None and self.group_inferrer is not None:
            self.group_inferrer_ = clone(self.group_inferrer).fit(X, y)
            sample_group = _labels(self.group_inferrer_)
        if sample_group is None:
            raise ValueError("GroupMeans needs groups")
        group, self.groups_ = encode_groups(sample_group, n_samples=len(y))
        self.group_sizes_ = np.bincount(group)
        self.used_group_labels_ = {"train": self.group_inferrer_ is None}
        self.classes_ = np.unique(y)
        column = np.asarray(X)[:, self.column]
        self.means_ = np.array(
            [
                np.mean([column[(y == c) & (group == g)].mean() for g in np.unique(group[y == c])])
                for c in self.classes_
            ]
        )
        return self

    def predict(self, X):
        if isinstance(X, GroupedData):
            raise AssertionError("the scorer should unwrap GroupedData")
        distance = np.abs(np.asarray(X)[:, [self.column]] - self.means_)
        return self.classes_[distance.argmin(axis=1)]

    def infer_groups(self, X, y):
        if self.group_inferrer_ is None:
            raise ValueError("no group_inferrer_")
        last = self.group_inferrer_
        if isinstance(last, Pipeline):
            X, last = last[:-1].transform(X), last[-1]
        return last.infer_groups(X, y)


class CountingTransformer(TransformerMixin, BaseEstimator):
    """Passes everything on and counts calls of transform."""

    def fit(self, X, y=None):
        self.n_calls_ = 0
        return self

    def transform(self, X):
        self.n_calls_ += 1
        return X


def _labels(inferrer):
    return inferrer[-1].labels_ if isinstance(inferrer, Pipeline) else inferrer.labels_


def _data(n=240, seed=0):
    """Core feature, spurious feature; the attribute agrees with the class in 80 %."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    attribute = np.where(rng.random(n) < 0.8, y, 1 - y)
    X = np.stack([y + rng.normal(0, 0.6, n), attribute - 0.5 + rng.normal(0, 0.4, n)], axis=1)
    return X, y, 2 * y + attribute


X, Y, GROUP = _data()
FOLDS = list(StratifiedKFold(3).split(X, Y))
own_group_scorer = make_worst_group_scorer(group_inferrer="estimator")


def _expected(make, metric=worst_group_accuracy):
    """Worst group of each fold, computed by hand."""
    return [
        metric(Y[test], make(train).predict(X[test]), sample_group=GROUP[test])
        for train, test in FOLDS
    ]


def _logistic(train):
    return LogisticRegression().fit(X[train], Y[train])


def _group_means(train):
    return GroupMeans().fit(X[train], Y[train], sample_group=GROUP[train])


@pytest.fixture(params=[False, True], ids=["routing_off", "routing_on"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


# Where the groups come from


def test_worst_group_scorer_takes_explicit_groups(routing):
    model = LogisticRegression().fit(X, Y)
    expected = worst_group_accuracy(Y, model.predict(X), sample_group=GROUP)
    assert 0 < expected < 0.7
    assert worst_group_scorer(model, X, Y, sample_group=GROUP) == expected
    assert worst_group_scorer(model, X, Y, GROUP) == expected


def test_worst_group_scorer_takes_groups_that_x_carries(routing):
    for model in (LogisticRegression(), GroupMeans()):
        model.fit(GroupedData(X, GROUP), Y)
        expected = worst_group_accuracy(Y, model.predict(X), sample_group=GROUP)
        assert worst_group_scorer(model, GroupedData(X, GROUP), Y) == expected


@pytest.mark.parametrize(
    "inferrer",
    [SignInferrer(), make_pipeline(StandardScaler(), SignInferrer())],
    ids=["inferrer", "pipeline"],
)
def test_worst_group_scorer_takes_a_fitted_group_inferrer(inferrer, routing):
    inferrer = clone(inferrer).fit(X, Y)
    model = LogisticRegression().fit(X, Y)
    group = _labels(inferrer)[:50]
    expected = worst_group_accuracy(Y[:50], model.predict(X[:50]), sample_group=group)
    scorer = make_worst_group_scorer(group_inferrer=inferrer)
    assert scorer(model, X[:50], Y[:50]) == expected


_OWN = {
    "estimator": GroupMeans(group_inferrer=SignInferrer()),
    "estimator with pipeline": GroupMeans(
        group_inferrer=make_pipeline(StandardScaler(), SignInferrer())
    ),
    "last step": make_pipeline(StandardScaler(), GroupMeans(group_inferrer=SignInferrer())),
    "middle step": make_pipeline(StandardScaler(), SignInferrer(), GroupMeans()),
    "before sklearn's": make_pipeline(StandardScaler(), SignInferrer(), LogisticRegression()),
    "nested": make_pipeline(make_pipeline(StandardScaler(), SignInferrer()), GroupMeans()),
    "passthrough": make_pipeline("passthrough", SignInferrer(), GroupMeans()),
    "pipeline in pipeline": make_pipeline(
        StandardScaler(), make_pipeline(SignInferrer(), GroupMeans())
    ),
    "search": GridSearchCV(
        GroupMeans(group_inferrer=SignInferrer()), {"column": [0]}, scoring="accuracy", cv=2
    ),
}


@pytest.mark.parametrize("model", _OWN.values(), ids=_OWN)
def test_worst_group_scorer_takes_the_inferrer_of_the_estimator(model, routing):
    model = clone(model).fit(X, Y)
    rows = np.arange(60)
    centred = X[rows, 1] - (0 if "StandardScaler" not in repr(model) else X[:, 1].mean())
    group = 2 * Y[rows] + (centred > 0)
    expected = worst_group_accuracy(Y[rows], model.predict(X[rows]), sample_group=group)
    assert own_group_scorer(model, X[rows], Y[rows]) == expected


def test_worst_group_scorer_precedence():
    """Given beats the scorer's inferrer beats carried beats the estimator's own."""
    model = GroupMeans(group_inferrer=SignInferrer()).fit(X, Y)
    correct = model.predict(X) == Y
    right_first = np.where(correct, "right", "wrong")  # the worst group has 0
    halves = np.arange(len(Y)) % 2
    accuracy = {
        "given": worst_group_accuracy(Y, model.predict(X), sample_group=right_first),
        "carried": worst_group_accuracy(Y, model.predict(X), sample_group=halves),
        "scorer": worst_group_accuracy(Y, model.predict(X), sample_group=2 * Y + (X[:, 1] > 0.5)),
        "own": worst_group_accuracy(Y, model.predict(X), sample_group=2 * Y + (X[:, 1] > 0)),
    }
    assert len(set(accuracy.values())) == 4
    carried = GroupedData(X, halves)

    class Shifted(SignInferrer):
        def infer_groups(self, X, y):
            return super().infer_groups(np.asarray(X) - 0.5, y)

    scorer = make_worst_group_scorer(group_inferrer=Shifted().fit(X, Y))
    assert scorer(model, carried, Y, sample_group=right_first) == accuracy["given"]
    assert scorer(model, carried, Y) == accuracy["scorer"]
    assert scorer(model, X, Y) == accuracy["scorer"]
    assert worst_group_scorer(model, carried, Y) == accuracy["carried"]
    assert own_group_scorer(model, carried, Y) == accuracy["carried"]
    assert own_group_scorer(model, X, Y) == accuracy["own"]


def test_worst_group_scorer_runs_the_transformers_of_a_pipeline_once():
    model = make_pipeline(CountingTransformer(), SignInferrer(), GroupMeans()).fit(X, Y)
    before = model[0].n_calls_
    own_group_scorer(model, X, Y)
    assert model[0].n_calls_ == before + 1


# No groups


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(KMeans(3, n_init=1), LogisticRegression()),
    ],
    ids=["plain", "pipeline", "with KMeans"],
)
def test_worst_group_scorer_without_groups_names_the_remedies(model, routing):
    model.fit(X, Y)
    with pytest.raises(ValueError, match="has no groups") as error:
        own_group_scorer(model, X, Y)
    for remedy in (
        "ViewJury(clean=None).fit_transform(X, y)",
        "GroupedData(X, sample_group)",
        "group_inferrer=SpuriousGroupInferrer()",
        "make_worst_group_scorer(group_inferrer=None)",
        "error_score='raise'",
    ):
        assert remedy in str(error.value)


def test_worst_group_scorer_without_groups_does_not_ask_an_estimator_that_has_none():
    model = GroupMeans().fit(X, Y, sample_group=GROUP)
    with pytest.raises(ValueError, match="has no groups"):
        own_group_scorer(model, X, Y)


def test_a_search_without_groups_scores_nan_or_raises(routing):
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, scoring=own_group_scorer, cv=3)
    with pytest.warns(UserWarning, match="has no groups|non-finite"):
        search.fit(X, Y)
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
    with pytest.raises(ValueError, match="has no groups"):
        search.set_params(error_score="raise").fit(X, Y)


@pytest.mark.parametrize("model", [GroupMeans(), make_pipeline(StandardScaler(), GroupMeans())])
def test_group_labels_that_reach_fit_and_not_the_scorer_are_an_error(model):
    """Views must not take the place of labels that were given."""
    name = "sample_group" if isinstance(model, GroupMeans) else "groupmeans__sample_group"
    search = GridSearchCV(model, {}, scoring=worst_group_scorer, cv=3, error_score="raise")
    with pytest.raises(ValueError, match="without routing gives them to fit and not to the scorer"):
        search.fit(X, Y, **{name: GROUP})


def test_worst_group_scorer_refuses_what_is_no_inferrer():
    scorer = make_worst_group_scorer(group_inferrer=StandardScaler().fit(X))
    with pytest.raises(TypeError, match="group_inferrer must be a fitted inferrer"):
        scorer(LogisticRegression().fit(X, Y), X, Y)


def test_worst_group_scorer_compares_lengths():
    with pytest.raises(ValueError, match="sample_group has 3 rows for 240 samples"):
        worst_group_scorer(LogisticRegression().fit(X, Y), X, Y, sample_group=GROUP[:3])


# In searches and cross-validation


def test_grid_search_on_grouped_data(routing):
    search = GridSearchCV(
        GroupMeans(), {"column": [0, 1]}, scoring=worst_group_scorer, cv=FOLDS, error_score="raise"
    )
    search.fit(GroupedData(X, GROUP), Y)
    scores = [search.cv_results_[f"split{i}_test_score"][0] for i in range(3)]
    assert_allclose(scores, _expected(_group_means))
    assert search.best_params_ == {"column": 0}
    assert search.best_estimator_.group_sizes_.sum() == len(Y)


def test_grid_search_with_routing_hands_groups_to_fit_and_scorer():
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            GroupMeans(), {"column": [0]}, scoring=worst_group_scorer, cv=FOLDS, error_score="raise"
        )
        search.fit(X, Y, sample_group=GROUP)
    scores = [search.cv_results_[f"split{i}_test_score"][0] for i in range(3)]
    assert_allclose(scores, _expected(_group_means))
    assert_allclose(search.best_estimator_.group_sizes_, np.bincount(GROUP))


def test_grid_search_with_routing_hands_groups_to_the_scorer_alone():
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            LogisticRegression(),
            {"C": [1]},
            scoring=worst_group_scorer,
            cv=FOLDS,
            error_score="raise",
        )
        search.fit(X, Y, sample_group=GROUP)
    scores = [search.cv_results_[f"split{i}_test_score"][0] for i in range(3)]
    assert_allclose(scores, _expected(_logistic))


def test_grid_search_without_group_labels(routing):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GroupMeans(group_inferrer=SignInferrer())),
        {"groupmeans__column": [0, 1]},
        scoring=own_group_scorer,
        cv=FOLDS,
        error_score="raise",
    )
    search.fit(X, Y)
    assert search.best_params_ == {"groupmeans__column": 0}


def test_worst_group_scorer_next_to_accuracy(routing):
    scoring = {"accuracy": "accuracy", "worst": worst_group_scorer}
    keywords = {"cv": FOLDS, "scoring": scoring, "error_score": "raise"}
    result = cross_validate(LogisticRegression(), GroupedData(X, GROUP), Y, **keywords)
    assert_allclose(result["test_worst"], _expected(_logistic))
    accuracy = [skm.accuracy_score(Y[b], _logistic(a).predict(X[b])) for a, b in FOLDS]
    assert_allclose(result["test_accuracy"], accuracy)
    if routing:
        keywords["params"] = {"sample_group": GROUP}
        again = cross_validate(LogisticRegression(), X, Y, **keywords)
        assert_allclose(again["test_worst"], result["test_worst"])
        assert_allclose(again["test_accuracy"], result["test_accuracy"])


def test_worst_group_scorer_in_two_processes(routing):
    keywords = {"cv": FOLDS, "scoring": worst_group_scorer, "n_jobs": 2, "error_score": "raise"}
    if routing:
        keywords["params"] = {"sample_group": GROUP}
    data = X if routing else GroupedData(X, GROUP)
    scores = cross_val_score(LogisticRegression(), data, Y, **keywords)
    assert_allclose(scores, _expected(_logistic))


@pytest.mark.parametrize(
    "scoring", [worst_group_scorer, {"a": "accuracy", "w": worst_group_scorer}]
)
def test_a_search_fitted_with_sample_weight_runs(scoring):
    search = GridSearchCV(
        LogisticRegression(),
        {"C": [1]},
        scoring=scoring,
        cv=FOLDS,
        refit=False,
        error_score="raise",
    )
    search.fit(GroupedData(X, GROUP), Y, sample_weight=np.where(GROUP % 3 == 0, 1.0, 4.0))
    score = search.cv_results_["mean_test_score" if callable(scoring) else "mean_test_w"][0]
    assert 0 < score < 1


def test_worst_group_scorer_weighs_samples_within_groups():
    model, weight = LogisticRegression().fit(X, Y), np.random.default_rng(0).random(len(Y))
    expected = worst_group_accuracy(Y, model.predict(X), sample_group=GROUP, sample_weight=weight)
    score = worst_group_scorer(model, X, Y, sample_group=GROUP, sample_weight=weight)
    assert score == expected


def test_set_score_request_renames_in_a_copy():
    scorer = worst_group_scorer.set_score_request(sample_group="background", sample_weight=False)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            LogisticRegression().set_fit_request(sample_weight=True),
            {"C": [1]},
            scoring=scorer,
            cv=FOLDS,
            error_score="raise",
        )
        search.fit(X, Y, background=GROUP, sample_weight=np.ones(len(Y)))
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(np.mean(_expected(_logistic)))
    assert worst_group_scorer.get_metadata_routing().score.requests == {"sample_group": True}
    with pytest.raises(TypeError, match=r"takes sample_group and sample_weight, not \['groups'\]"):
        worst_group_scorer.set_score_request(groups=True)


def test_worst_group_scorer_does_not_request_sample_weight():
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            LogisticRegression().set_fit_request(sample_weight=True),
            {"C": [1]},
            scoring=worst_group_scorer,
            cv=FOLDS,
            error_score="raise",
        )
        search.fit(X, Y, sample_group=GROUP, sample_weight=np.ones(len(Y)))
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(np.mean(_expected(_logistic)))


# The object


@pytest.mark.parametrize(
    "round_trip",
    [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy, lambda s: clone(s, safe=False)],
    ids=["pickle", "deepcopy", "clone"],
)
def test_worst_group_scorer_survives(round_trip, routing):
    model = GroupMeans().fit(X, Y, sample_group=GROUP)
    for scorer in (
        worst_group_scorer,
        make_worst_group_scorer("f1", groups=[0, 1, 2, 3], empty="nan"),
        make_worst_group_scorer(group_inferrer=SignInferrer().fit(X, Y)),
    ):
        again = round_trip(scorer)
        expected = scorer(model, X, Y, sample_group=GROUP)
        assert_allclose(again(model, X, Y, sample_group=GROUP), expected)
        assert again.get_metadata_routing().score.requests == {"sample_group": True}


def test_a_search_with_worst_group_scorer_clones():
    search = clone(GridSearchCV(LogisticRegression(), {"C": [1]}, scoring=worst_group_scorer))
    search.fit(GroupedData(X, GROUP), Y)
    assert 0 < search.best_score_ < 1


def test_worst_group_scorer_repr_says_how_to_make_it():
    assert repr(worst_group_scorer) == "make_worst_group_scorer('accuracy')"
    scorer = make_worst_group_scorer(skm.fbeta_score, empty="nan", beta=2)
    assert repr(scorer) == "make_worst_group_scorer('fbeta_score', empty='nan', beta=2)"


# Other metrics


def test_make_worst_group_scorer_negates_losses():
    model, background = LogisticRegression().fit(X, Y), GROUP % 2
    losses = [
        skm.log_loss(Y[background == a], model.predict_proba(X[background == a])) for a in (0, 1)
    ]
    for name in ("log_loss", "neg_log_loss"):
        score = make_worst_group_scorer(name)(model, X, Y, sample_group=background)
        assert score == pytest.approx(-max(losses))


def test_make_worst_group_scorer_roc_auc_calls_a_method_that_scores():
    model, background = LogisticRegression().fit(X, Y), GROUP % 2
    expected = min(
        skm.roc_auc_score(Y[background == a], model.decision_function(X[background == a]))
        for a in (0, 1)
    )
    scorer = make_worst_group_scorer("roc_auc")
    assert scorer(model, X, Y, sample_group=background) == pytest.approx(expected)

    class OnlyProba:
        classes_ = model.classes_
        predict_proba = model.predict_proba

    assert scorer(OnlyProba(), X, Y, sample_group=background) == pytest.approx(expected)


def test_make_worst_group_scorer_log_loss_of_single_class_groups():
    model = LogisticRegression().fit(X, Y)
    own = -np.log(model.predict_proba(X)[np.arange(len(Y)), Y])
    expected = -max(own[g == GROUP].mean() for g in range(4))
    score = make_worst_group_scorer("log_loss")(model, X, Y, sample_group=GROUP)
    assert score == pytest.approx(expected)


def test_make_worst_group_scorer_of_a_fold_that_lacks_a_class_uses_the_classes_of_the_estimator():
    model, rows = LogisticRegression().fit(X, Y), Y == 1
    own = -np.log(model.predict_proba(X[rows])[:, 1])
    score = make_worst_group_scorer("log_loss")(model, X[rows], Y[rows], sample_group=Y[rows])
    assert score == pytest.approx(-own.mean())


def test_make_worst_group_scorer_of_a_callable():
    model, background = LogisticRegression().fit(X, Y), GROUP % 2

    def brier(y_true, proba, power):
        return np.mean(np.abs(y_true - proba[:, 1]) ** power)

    scorer = make_worst_group_scorer(
        brier, greater_is_better=False, response_method="predict_proba", power=2
    )
    squares = (Y - model.predict_proba(X)[:, 1]) ** 2
    expected = -max(squares[background == a].mean() for a in (0, 1))
    assert scorer(model, X, Y, sample_group=background) == pytest.approx(expected)


def test_make_worst_group_scorer_roc_auc_of_crossed_groups_says_what_to_do():
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(ValueError, match="pass the spurious attribute alone as sample_group"):
        make_worst_group_scorer("roc_auc")(model, X, Y, sample_group=GROUP)


def test_make_worst_group_scorer_of_an_expected_group_without_samples():
    model, rows = LogisticRegression().fit(X, Y), GROUP != 2
    keywords = {"sample_group": GROUP[rows]}
    with pytest.raises(ValueError, match=r"have no samples.*\[2\]"):
        make_worst_group_scorer(groups=range(4))(model, X[rows], Y[rows], **keywords)
    scorer = make_worst_group_scorer(groups=range(4), empty="nan")
    assert np.isnan(scorer(model, X[rows], Y[rows], **keywords))


def test_make_worst_group_scorer_names_the_missing_method():
    class Bare:
        def predict(self, X):
            return Y

    with pytest.raises(AttributeError, match=r"Bare has none of \['decision_function'"):
        make_worst_group_scorer("roc_auc")(Bare(), X, Y, sample_group=GROUP % 2)


def test_make_worst_group_scorer_checks_its_arguments_at_once():
    with pytest.raises(ValueError, match="metric='acc' is not known"):
        make_worst_group_scorer("acc")
    with pytest.raises(ValueError, match="empty must be"):
        make_worst_group_scorer(empty="zero")
