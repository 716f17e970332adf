"""Stages that have ended are not run again: first stages, scores, heads, NSF's steps."""

from pathlib import Path

import numpy as np
import pytest
from registry import ignored_warnings
from sklearn.base import clone

from skspurious import (
    GEORGEClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    SPAREClassifier,
    SpuriousSamplePruner,
)
from skspurious._engine._steps import TrainStep
from skspurious.datasets import make_spurious_classification
from skspurious.functional import _nsf
from skspurious.mitigation import _last_layer_heads
from skspurious.mitigation._last_layer_heads import fit_l1_logistic

pytestmark = ignored_warnings()


@pytest.fixture(scope="module")
def data():
    bunch = make_spurious_classification(200, correlation_strength=0.9, random_state=0)
    return bunch.data.astype(np.float32), bunch.target, bunch.sample_group


class Count:
    """Calls of a function; raises KeyboardInterrupt at the n-th."""

    def __init__(self, function, limit=None):
        self.function, self.limit, self.n = function, limit, 0

    def __call__(self, *args, **kwargs):
        if self.n == self.limit:
            raise KeyboardInterrupt
        self.n += 1
        return self.function(*args, **kwargs)

    def __get__(self, instance, owner):
        return lambda *args, **kwargs: self(instance, *args, **kwargs)


def state_of(estimator):
    arrays = {k: v for k, v in vars(estimator).items() if isinstance(v, np.ndarray)}
    module = getattr(estimator, "module_", None)
    weights = {} if module is None else module.state_dict()
    return {**arrays, **{k: v.numpy() for k, v in weights.items()}}


def assert_resumes(estimator, fit, monkeypatch, tmp_path, owner, name, limit):
    """A fit that stops at the call ``limit`` of a function goes on there, with the same bits."""
    function = getattr(owner, name)

    def counted(estimator, limit=None):
        count = Count(function, limit)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, count)
            fit(estimator)
        return count.n

    unbroken, saved = clone(estimator), clone(estimator).set_params(checkpoint_dir=tmp_path)
    n_calls = counted(unbroken)
    with pytest.raises(KeyboardInterrupt):
        counted(clone(saved), limit)
    resumed = clone(saved)
    n_left = counted(resumed)
    expected = state_of(unbroken)
    assert list(state_of(resumed)) == list(expected)
    for key, value in state_of(resumed).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)
    assert not list(Path(tmp_path).rglob("*.part"))
    return n_calls, n_left


FAST = {"lr": 0.1, "batch_size": 50, "random_state": 0}  # 4 steps an epoch
EPOCHS = {
    "spare": SPAREClassifier(init_epochs=3, max_epochs=2, **FAST),
    "spare, chosen epoch": SPAREClassifier(
        init_epochs=3, max_epochs=2, epoch_selector="silhouette", **FAST
    ),
    "george": GEORGEClassifier(init_epochs=3, max_epochs=2, **FAST),
    "pruned": PrunedRetrainer(score_epochs=(2, 3), max_epochs=2, n_runs=2, **FAST),
    "pruner": SpuriousSamplePruner(score_epochs=(2, 3), difficulty="forgetting", **FAST),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_first_stages_and_scores_resume(name, data, tmp_path, monkeypatch):
    X, y, _ = data
    n_calls, n_left = assert_resumes(
        EPOCHS[name], lambda e: e.fit(X, y), monkeypatch, tmp_path, TrainStep, "__call__", 10
    )
    assert n_left == n_calls - 8  # two epochs had ended


def test_the_search_of_dfr_resumes(data, tmp_path, monkeypatch):
    X, y, group = data
    monkeypatch.setitem(_last_layer_heads._FEW_NUMBERS, "cpu", 0)  # as with many rows
    dfr = LastLayerRetrainer(n_tuning_splits=3, n_draws=3, Cs=(0.1, 1.0), random_state=0)
    n_calls, n_left = assert_resumes(
        dfr,
        lambda e: e.fit(X, y, sample_group=group),
        monkeypatch,
        tmp_path,
        _last_layer_heads,
        fit_l1_logistic.__name__,
        5,
    )
    assert n_left == n_calls - 4  # two of three halvings had ended


def test_the_steps_of_nsf_resume(data, tmp_path, monkeypatch):
    X, y, _ = data
    nsf = NSFClassifier(transform_steps=20, head_steps=5, nsf_lr=0.01, random_state=0)
    fit = lambda e: e.fit(X, y)  # noqa: E731
    assert_resumes(nsf, fit, monkeypatch, tmp_path, _nsf, "fit_balanced_head", 0)
    count = Count(_nsf.fit_elimination)
    monkeypatch.setattr(_nsf, "fit_elimination", count)
    clone(nsf).set_params(checkpoint_dir=tmp_path).fit(X, y)
    assert count.n == 0
