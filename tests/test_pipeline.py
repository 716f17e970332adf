"""skspurious.pipeline carries groups and validation samples; scikit-learn's Pipeline warns."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.pipeline
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    GroupedData,
    LastLayerRetrainer,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_scorer,
)
from skspurious.datasets import make_spurious_classification
from skspurious.metrics import worst_group_accuracy
from skspurious.pipeline import Pipeline, make_pipeline

FAST = {"lr": 0.1, "max_epochs": 3, "batch_size": 32, "random_state": 0}
SHIFT = np.linspace(-300, 300, 8, dtype=np.float32)  # so that scaling matters


@pytest.fixture(scope="module")
def data():
    bunch = make_spurious_classification(200, correlation_strength=0.85, random_state=0)
    return bunch.data.astype(np.float32) * 50 + SHIFT, bunch.target, bunch.sample_group


@pytest.fixture(scope="module")
def validation():
    bunch = make_spurious_classification(120, correlation_strength=0.85, random_state=1)
    return bunch.data.astype(np.float32) * 50 + SHIFT, bunch.target, bunch.sample_group


@pytest.fixture(params=[False, True], ids=["routing off", "routing on"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


@pytest.fixture
def routing_on():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def scaled(make=GroupDROClassifier, **params):
    return make_pipeline(StandardScaler(), make(**FAST, **params))


def weights_of(model):
    last = model[-1] if isinstance(model, sklearn.pipeline.Pipeline) else model
    return np.concatenate([p.detach().numpy().ravel() for p in last.module_.parameters()])


# --------------------------------------------------------------------------------------
# Groups


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("way", ["given", "carried"])
def test_groups_go_through_every_transformer(data, way):
    X, y, group = data
    frame = pd.DataFrame(X[:, :3], columns=["a", "b", "c"]).assign(
        kind=np.where(X[:, 3] > 0, "p", "q")
    )
    columns = make_column_transformer(
        (StandardScaler(), ["a", "b", "c"]), (OneHotEncoder(sparse_output=False), ["kind"])
    )
    model = make_pipeline(columns, PCA(4), GroupDROClassifier(**FAST))
    if way == "given":
        model.fit(frame, y, sample_group=group)
    else:
        model.fit(GroupedData(frame, group), y)
    Z = clone(columns).fit_transform(frame)
    Z = PCA(4).fit_transform(Z)
    by_hand = GroupDROClassifier(**FAST).fit(Z, y, sample_group=group)
    assert_array_equal(weights_of(model), weights_of(by_hand))
    assert model[-1].groups_.tolist() == [0, 1, 2, 3]
    assert model[-1].used_group_labels_["train"] is True
    predicted = model.predict(frame)
    assert_array_equal(model.predict(GroupedData(frame, group)), predicted)
    expected = worst_group_accuracy(y, predicted, sample_group=group)
    assert model.score(GroupedData(frame, group), y) == expected
    assert model.score(frame, y, sample_group=group) == expected
    assert model.score(frame, y) == (predicted == y).mean() != expected


def test_given_before_inferred_before_carried(data):
    X, y, group = data
    names = np.array(["p", "q", "r", "s"])[group]
    find = SpuriousGroupInferrer("dispersion")
    inferred = clone(find).fit(StandardScaler().fit_transform(X), y)
    as_step = make_pipeline(StandardScaler(), find, GroupDROClassifier(**FAST))
    in_last = scaled(group_inferrer=find)
    for model in (as_step, in_last):
        model.fit(GroupedData(X, names), y, sample_group=group + 10)
        assert model[-1].groups_.tolist() == [10, 11, 12, 13]
        assert model[-1].used_group_labels_["train"] is True
        model.fit(GroupedData(X, names), y)
        assert_array_equal(model[-1].groups_, inferred.groups_)
        assert model[-1].used_group_labels_["train"] is False
        # carried ones are what the score counts by
        expected = worst_group_accuracy(y, model.predict(X), sample_group=names)
        assert model.score(GroupedData(X, names), y) == expected
        assert_array_equal(model.infer_groups(X, y), inferred.labels_)
    assert scaled().fit(GroupedData(X, names), y)[-1].groups_.tolist() == ["p", "q", "r", "s"]


def test_validation_samples_have_inferred_groups_where_a_step_infers_them(data, validation):
    X, y, _ = data
    X_val, y_val, group_val = validation
    model = make_pipeline(StandardScaler(), SpuriousGroupInferrer("dispersion"), ERMClassifier())
    model.fit(X, y, X_val=GroupedData(X_val, group_val), y_val=y_val)
    assert model[-1].used_group_labels_ == {"train": False, "validation": False}
    inferred = np.unique(model.infer_groups(X_val, y_val))
    shown = [f"valid_accuracy[{group}]" for group in inferred]
    assert set(shown) <= set(model[-1].history_)
    model.fit(X, y, X_val=X_val, y_val=y_val, sample_group_val=group_val)  # given: used
    assert model[-1].used_group_labels_ == {"train": False, "validation": True}


def test_groups_of_new_rows_need_an_inferrer(data):
    X, y, group = data
    model = scaled().fit(X, y, sample_group=group)
    with pytest.raises(ValueError, match=r"no step of .* infers groups"):
        model.infer_groups(X, y)


def _reference_scores(model, X, y, group, cv):
    """Worst-group accuracy of each fold, by hand."""
    scores = []
    for train, test in cv.split(X, y):
        scaler = clone(model[0]).fit(X[train])
        clf = clone(model[-1]).fit(scaler.transform(X[train]), y[train], sample_group=group[train])
        right = clf.predict(scaler.transform(X[test])) == y[test]
        scores.append(min(right[group[test] == g].mean() for g in np.unique(group[test])))
    return scores


@pytest.mark.usefixtures("routing")
@pytest.mark.parametrize("scoring", [worst_group_scorer, None])
def test_a_search_over_a_transformer_is_scored_by_the_groups_that_x_carries(data, scoring):
    X, y, group = data
    cv = StratifiedKFold(2)
    grid = {"standardscaler__with_std": [True, False], "groupdroclassifier__lr": [0.1]}
    search = GridSearchCV(scaled(), grid, scoring=scoring, cv=cv, error_score="raise")
    search.fit(GroupedData(X, group), y)
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    ):
        model = scaled().set_params(**params)
        assert score == pytest.approx(np.mean(_reference_scores(model, X, y, group, cv)))
    assert search.best_estimator_[-1].groups_.tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("routing_on")
def test_sample_group_is_routed_through_a_search(data):
    X, y, group = data
    cv = StratifiedKFold(2)
    search = GridSearchCV(scaled(), {"groupdroclassifier__lr": [0.1]}, cv=cv, error_score="raise")
    search.set_params(scoring=worst_group_scorer).fit(X, y, sample_group=group)
    expected = np.mean(_reference_scores(scaled(), X, y, group, cv))
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected)


@pytest.mark.slow  # two processes that import torch
def test_two_processes_give_the_same(data):
    X, y, group = data
    one, two = (
        cross_validate(
            scaled(), GroupedData(X, group), y, scoring=worst_group_scorer, cv=2, n_jobs=n_jobs,
            error_score="raise",
        )["test_score"]
        for n_jobs in (None, 2)
    )  # fmt: skip
    assert_array_equal(one, two)


# --------------------------------------------------------------------------------------
# Validation samples


@pytest.mark.usefixtures("routing")
def test_validation_samples_are_transformed(data, validation):
    """The example of the issue: DFR on a frozen scale, whose head is tuned on held-out groups."""
    X, y, _ = data
    X_val, y_val, group_val = validation
    model = scaled(LastLayerRetrainer, n_draws=2)
    model.fit(X, y, X_val=X_val, y_val=y_val, sample_group_val=group_val)
    scaler = StandardScaler().fit(X)
    by_hand = LastLayerRetrainer(n_draws=2, **FAST).fit(
        scaler.transform(X),
        y,
        X_val=scaler.transform(X_val),
        y_val=y_val,
        sample_group_val=group_val,
    )
    assert_array_equal(
        model.decision_function(X_val), by_hand.decision_function(scaler.transform(X_val))
    )
    assert model.score(X_val, y_val, sample_group=group_val) > 0.5


def test_the_epoch_is_chosen_by_the_worst_group_of_the_transformed_samples(data, validation):
    X, y, group = data
    X_val, y_val, group_val = validation
    model = scaled().set_params(groupdroclassifier__max_epochs=8)
    model.fit(GroupedData(X, group), y, X_val=GroupedData(X_val, group_val), y_val=y_val)
    history = model[-1].history_
    best = history["valid_worst_group_accuracy"].max()
    assert model.score(X_val, y_val, sample_group=group_val) == pytest.approx(best)
    assert model[-1].used_group_labels_ == {"train": True, "validation": True}


def test_early_stopping_keeps_groups(data):
    X, y, group = data
    model = scaled(early_stopping=True).fit(GroupedData(X, group), y)
    assert "valid_worst_group_accuracy" in model[-1].history_
    rows = [*model[-1].train_indices_, *model[-1].validation_indices_]
    assert sorted(rows) == list(range(200))


# --------------------------------------------------------------------------------------
# A Pipeline like scikit-learn's


def test_it_is_one_of_scikit_learn(data):
    X, y, group = data
    model = scaled().fit(X, y, sample_group=group)
    assert isinstance(model, sklearn.pipeline.Pipeline)
    assert repr(scaled()).startswith("Pipeline(steps=[('standardscaler', StandardScaler())")
    assert isinstance(model[:1], Pipeline)
    assert_array_equal(model[:1].transform(X), model[0].transform(X))
    carried = model[:1].transform(GroupedData(X, group))
    assert_array_equal(carried.sample_group, group)
    assert model["standardscaler"] is model.named_steps["standardscaler"] is model[0]
    assert_array_equal(model.classes_, [0, 1])
    assert model.n_features_in_ == 8
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    fresh = clone(model)
    assert not hasattr(fresh[-1], "module_")
    assert_array_equal(weights_of(fresh.fit(GroupedData(X, group), y)), weights_of(model))


def test_without_groups_it_does_what_scikit_learn_does(data):
    X, y, _ = data
    steps = [
        ("scale", StandardScaler()),
        ("best", SelectKBest(k=3)),
        ("last", LogisticRegression()),
    ]
    ours = Pipeline(clone(steps, safe=False)).fit(X, y)
    theirs = sklearn.pipeline.Pipeline(clone(steps, safe=False)).fit(X, y)
    for method in ("predict", "predict_proba", "decision_function", "predict_log_proba"):
        assert_array_equal(getattr(ours, method)(X), getattr(theirs, method)(X))
    assert ours.score(X, y) == theirs.score(X, y)
    Z = Pipeline(clone(steps[:2], safe=False)).fit_transform(X, y)
    assert_array_equal(Z, ours[:2].transform(X))
    assert not hasattr(ours, "transform")
    assert not hasattr(Pipeline(steps[:2]), "predict")


def test_a_last_step_without_use_for_groups_gets_the_samples(data):
    X, y, group = data
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(GroupedData(X, group), y)
    assert_array_equal(model.predict(GroupedData(X, group)), model.predict(X))
    by_groups = worst_group_accuracy(y, model.predict(X), sample_group=group)
    assert worst_group_scorer(model, GroupedData(X, group), y) == by_groups


@pytest.mark.parametrize("left_out", ["passthrough", None])
def test_steps_may_be_left_out(data, left_out):
    X, y, group = data
    model = Pipeline([("out", left_out), ("scale", StandardScaler()), ("last", left_out)])
    Z = model.fit(GroupedData(X, group), y).transform(GroupedData(X, group))
    assert_array_equal(Z.sample_group, group)
    assert_allclose(Z.data, StandardScaler().fit_transform(X))
    assert_allclose(clone(model).fit_transform(X, y), Z.data)


class Counts(TransformerMixin, BaseEstimator):
    n_fits = 0

    def fit(self, X, y=None):
        Counts.n_fits += 1
        self.fitted_ = True
        return self

    def transform(self, X):
        assert not isinstance(X, GroupedData)
        return X


def test_memory_caches_fitted_transformers(data, tmp_path):
    X, y, group = data
    Counts.n_fits = 0
    step = Counts()
    model = make_pipeline(step, GroupDROClassifier(**FAST), memory=str(tmp_path))
    first = weights_of(model.fit(GroupedData(X, group), y))
    again = clone(model).set_params(groupdroclassifier__lr=0.01).fit(GroupedData(X, group), y)
    assert Counts.n_fits == 1
    assert not hasattr(step, "fitted_")  # a cached transformer is a clone
    assert model[0].fitted_
    assert not np.array_equal(weights_of(again), first)
    assert model[-1].groups_.tolist() == [0, 1, 2, 3]


def test_verbose_says_how_long_each_step_took(data, capsys):
    X, y, group = data
    make_pipeline(StandardScaler(), GroupDROClassifier(**FAST), verbose=True).fit(
        X, y, sample_group=group
    )
    printed = capsys.readouterr().out
    assert "(step 1 of 2) Processing standardscaler" in printed
    assert "(step 2 of 2) Processing groupdroclassifier" in printed


def test_pandas_output_reaches_the_last_step(data):
    X, y, group = data
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(8)])
    model = scaled().set_output(transform="pandas").fit(GroupedData(frame, group), y)
    assert model[-1].feature_names_in_.tolist() == list(frame.columns)
    assert isinstance(model[:1].transform(GroupedData(frame, group)).data, pd.DataFrame)
    assert model[:1].get_feature_names_out().tolist() == list(frame.columns)


# --------------------------------------------------------------------------------------
# Pipelines in Pipelines


def test_one_in_another(data, validation):
    X, y, group = data
    X_val, y_val, group_val = validation
    given = {"X_val": X_val, "y_val": y_val, "sample_group_val": group_val}
    flat = make_pipeline(StandardScaler(), PCA(5), GroupDROClassifier(**FAST))
    flat.fit(GroupedData(X, group), y, **given)
    as_last = make_pipeline(StandardScaler(), make_pipeline(PCA(5), GroupDROClassifier(**FAST)))
    as_first = make_pipeline(make_pipeline(StandardScaler(), PCA(5)), GroupDROClassifier(**FAST))
    for model in (as_last, as_first):
        model.fit(GroupedData(X, group), y, **given)
        assert_array_equal(model.predict_proba(X), flat.predict_proba(X))
        assert model.score(GroupedData(X, group), y) == flat.score(GroupedData(X, group), y)
    inner = make_pipeline(StandardScaler(), SpuriousGroupInferrer("dispersion"))
    model = make_pipeline(inner, GroupDROClassifier(**FAST)).fit(GroupedData(X, group), y)
    assert model[-1].used_group_labels_["train"] is False
    assert_array_equal(model.infer_groups(X, y), model[0][-1].labels_)


def test_as_an_inferrer(data):
    X, y, _ = data
    find = make_pipeline(
        StandardScaler(),
        TorchFeatureExtractor(ERMClassifier(**FAST)),
        SpuriousGroupInferrer("spare"),
    )
    clf = BalancedRetrainer(group_inferrer=find, **FAST).fit(StandardScaler().fit_transform(X), y)
    assert isinstance(clf.group_inferrer_, Pipeline)
    assert_array_equal(clf.infer_groups(StandardScaler().fit_transform(X), y),
                       clf.group_inferrer_[-1].labels_)  # fmt: skip
    assert not hasattr(find[-1], "labels_")


# --------------------------------------------------------------------------------------
# Arguments


@pytest.mark.usefixtures("routing")
def test_a_last_step_that_takes_no_groups_says_so(data):
    X, y, group = data
    model = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(TypeError, match="LogisticRegression, the last step, takes no sample_group"):
        model.fit(X, y, sample_group=group)
    with pytest.raises(TypeError, match="takes no X_val, y_val"):
        model.fit(X, y, X_val=X, y_val=y)


def test_arguments_of_steps(data):
    X, y, group = data
    weight = np.where(y == 1, 5.0, 1.0)
    model = scaled().fit(X, y, sample_group=group, groupdroclassifier__sample_weight=weight)
    assert not np.array_equal(weights_of(model), weights_of(scaled().fit(X, y, sample_group=group)))
    by_name = scaled().fit(X, y, groupdroclassifier__sample_group=group)
    assert_array_equal(weights_of(by_name), weights_of(scaled().fit(X, y, sample_group=group)))
    for name in ("sample_wait", "scaler__sample_weight"):
        with pytest.raises(ValueError, match=rf"no argument '{name}'.*\['standardscaler', 'gr"):
            scaled().fit(X, y, **{name: weight})


def test_weights_of_a_transformer_are_its_own(data):
    X, y, group = data
    weight = np.linspace(0, 1, len(y))
    model = scaled().fit(X, y, sample_group=group, standardscaler__sample_weight=weight)
    assert_allclose(model[0].mean_, np.average(X, axis=0, weights=weight), rtol=1e-4)


@pytest.mark.usefixtures("routing_on")
def test_routed_arguments(data):
    X, y, group = data
    weight = np.linspace(0, 1, len(y))
    model = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=True),
        GroupDROClassifier(**FAST).set_fit_request(sample_weight=False),
    )
    model.fit(X, y, sample_group=group, sample_weight=weight)
    assert_allclose(model[0].mean_, np.average(X, axis=0, weights=weight), rtol=1e-4)
    assert_array_equal(
        weights_of(model),
        weights_of(GroupDROClassifier(**FAST).fit(model[0].transform(X), y, sample_group=group)),
    )
    with pytest.raises(TypeError, match="sample_wait"):
        model.fit(X, y, sample_group=group, sample_wait=weight)


# --------------------------------------------------------------------------------------
# scikit-learn's own


def theirs(make=GroupDROClassifier, **params):
    return sklearn.pipeline.make_pipeline(StandardScaler(), make(**FAST, **params))


@pytest.mark.usefixtures("routing_on")
def test_transform_input_of_scikit_learn_works_with_the_default_requests(data, validation):
    X, y, group = data
    X_val, y_val, group_val = validation
    given = {"X_val": X_val, "y_val": y_val, "sample_group_val": group_val}
    model = sklearn.pipeline.make_pipeline(
        StandardScaler(), GroupDROClassifier(**FAST), transform_input=["X_val"]
    )
    model.fit(X, y, sample_group=group, **given)
    ours = scaled().fit(X, y, sample_group=group, **given)
    assert_array_equal(weights_of(model), weights_of(ours))


def test_unscaled_validation_samples_are_warned_about(data, validation):
    X, y, group = data
    X_val, y_val, group_val = validation
    given = {"X_val": X_val, "y_val": y_val, "sample_group_val": group_val}
    arguments = {f"groupdroclassifier__{k}": v for k, v in {**given, "sample_group": group}.items()}
    with pytest.warns(UserWarning, match="more than half of X_val lies outside .*make_pipeline"):
        theirs().fit(X, y, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled().fit(X, y, sample_group=group, **given)


def test_a_method_that_needs_groups_names_the_pipeline_that_carries_them(data):
    X, y, group = data
    with pytest.raises(ValueError, match=r"a step before has dropped .*skspurious\.pipeline"):
        theirs().fit(GroupedData(X, group), y)
    with pytest.raises(ValueError, match=r"a step before may have dropped .*skspurious\.pipeline"):
        GroupDROClassifier(**FAST).fit(X, y)


def test_plain_accuracy_in_place_of_the_worst_group_is_warned_about(data):
    X, y, group = data
    model = theirs(ERMClassifier).fit(X, y)
    with pytest.warns(UserWarning, match="did not reach ERMClassifier, so this score is plain"):
        score = model.score(GroupedData(X, group), y)
    assert score == (model.predict(X) == y).mean()
    with pytest.warns(UserWarning, match="did not reach ERMClassifier, so early stopping looks"):
        theirs(ERMClassifier, early_stopping=True).fit(GroupedData(X, group), y)


@pytest.mark.filterwarnings("error")
def test_no_warning_where_nothing_was_dropped(data):
    X, y, group = data
    for samples in (X, GroupedData(X, None)):
        model = theirs(ERMClassifier, early_stopping=True).fit(samples, y)
        model.score(samples, y)
    for samples in (X, GroupedData(X, None), GroupedData(X, group)):
        model = scaled(ERMClassifier, early_stopping=True).fit(samples, y)
        model.score(samples, y)
    # a network within a transformer of ours sees no groups, and no step before dropped any
    first = TorchFeatureExtractor(ERMClassifier(early_stopping=True, **FAST))
    make_pipeline(StandardScaler(), first, GroupDROClassifier(**FAST)).fit(GroupedData(X, group), y)
    # theirs at the end of ours loses none either
    model = make_pipeline(StandardScaler(), sklearn.pipeline.make_pipeline(ERMClassifier(**FAST)))
    model.fit(GroupedData(X, group), y)
    assert model[-1][-1].groups_.tolist() == [0, 1, 2, 3]
