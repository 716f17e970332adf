"""GroupedTransformer: what goes through it keeps its groups."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skspurious import GroupDROClassifier, GroupedData, worst_group_scorer
from skspurious.preprocessing import GroupedTransformer


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(loc=5, size=(80, 3)).astype(np.float32)
    y = np.arange(80) % 2
    return X, y, np.where(np.arange(80) % 4 < 2, "field", "water")


@pytest.mark.parametrize("in_one_go", [False, True])
def test_samples_are_transformed_and_groups_kept(data, in_one_go):
    X, y, group = data
    carried = GroupedData(X, group)
    step = GroupedTransformer(StandardScaler())
    out = step.fit_transform(carried, y) if in_one_go else step.fit(carried, y).transform(carried)
    assert isinstance(out, GroupedData)
    assert_allclose(out.data, StandardScaler().fit_transform(X))
    assert_array_equal(out.sample_group, group)


def test_without_groups_it_is_the_transformer(data):
    X, y, _ = data
    step = GroupedTransformer(PCA(2, random_state=0)).fit(X, y)
    assert_array_equal(step.transform(X), PCA(2, random_state=0).fit(X).transform(X))
    assert step.n_features_in_ == 3
    assert step.get_feature_names_out().tolist() == ["pca0", "pca1"]


def test_the_users_transformer_stays_unfitted(data):
    X, y, group = data
    scaler = StandardScaler()
    GroupedTransformer(scaler).fit(GroupedData(X, group), y)
    assert not hasattr(scaler, "mean_")
    with pytest.raises(NotFittedError):
        GroupedTransformer(scaler).transform(X)


def test_output_container(data):
    X, y, group = data
    step = GroupedTransformer(StandardScaler()).set_output(transform="pandas")
    out = step.fit(GroupedData(X, group), y).transform(GroupedData(X, group))
    assert isinstance(out.data, pd.DataFrame)
    assert_array_equal(out.sample_group, group)


def test_a_column_transformer_before_a_classifier_that_needs_groups_in_a_search(data):
    X, y, group = data
    table = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=np.resize(list("uvw"), len(y)))
    table.index = np.arange(len(table)) + 1000
    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(sparse_output=False), ["kind"]),
    )
    model = make_pipeline(
        GroupedTransformer(columns), GroupDROClassifier(max_epochs=2, random_state=0)
    )
    grid = {
        "groupdroclassifier__lr": [0.1, 0.01],
        "groupedtransformer__transformer__standardscaler__with_mean": [True, False],
    }
    search = GridSearchCV(model, grid, scoring=worst_group_scorer, cv=2, error_score="raise")
    search.fit(GroupedData(table, group), y)
    assert search.best_estimator_[-1].groups_.tolist() == ["field", "water"]
    assert search.best_estimator_[-1].n_features_in_ == 6
    assert search.predict(table).shape == (80,)
