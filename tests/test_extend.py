"""check_method sees what a method of one's own may get wrong."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skspurious import ERMClassifier, GroupDROClassifier, SpuriousGroupInferrer
from skspurious._method_checks import CHECKS
from skspurious.extend import (
    BaseTorchClassifier,
    Objective,
    Stage,
    Trained,
    UniformSampler,
    check_method,
    extends,
    run_stage,
)

FAST = {"lr": 0.1, "max_epochs": 10, "batch_size": 16, "random_state": 0}
SPLIT = {"check_sample_weight_equivalence_on_dense_data": "copies fall into different batches"}


class Method(BaseTorchClassifier):
    """A method; what follows goes wrong in one way each."""

    def __init__(self, module=None, **shared):
        super().__init__(module, **shared)


Method = extends(ERMClassifier)(Method)  # whose docstring names no parameter


class Documented(ERMClassifier):
    pass


Documented.__doc__ = ERMClassifier.__doc__


class SeedIgnored(Documented):
    def _make_sampler(self, data, seed):
        return UniformSampler(len(data.train), seed=np.random.randint(2**31))  # noqa: NPY002


class SameForEverySeed(Documented):
    def _train(self, module, data, runtime, seeds):
        for p in module.parameters():
            torch.nn.init.zeros_(p)
        return super()._train(module, data, runtime, [0, 0])


class OwnErrorForMissingGroups(Documented):
    def _make_objective(self, data):
        if data.train.group is None:
            raise ValueError("no groups")
        return Objective()


class ShortMask(Documented):
    def _learned(self, data, objective, sampler):
        return {"classes_seen_": data.train.y.numpy()}


class GoesOn(Documented):
    def _train(self, module, data, runtime, seeds):
        module = getattr(self, "module_", module)
        return super()._train(module, data, runtime, seeds)


class CountsGroups(Documented):
    def predict(self, X):
        labels = super().predict(X)
        return labels[::-1] if hasattr(X, "sample_group") else labels


WRONG = {
    Method: "check_documentation: .* are not in the docstring of Method",
    SeedIgnored: "check_the_seed_is_all: two fits with random_state=0 differ",
    SameForEverySeed: "check_the_seed_is_all: .* give the same network",
    OwnErrorForMissingGroups: "check_groups_come_in_every_way: .*set _needs_groups = True",
    ShortMask: r"check_rows_are_those_of_x: \['classes_seen_'\] have no entry",
    GoesOn: "check_what_is_passed_stays: a second fit goes on",
    CountsGroups: "check_predict_takes_no_groups: predict depends on the groups",
}


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: cls.__name__)
def test_check_method_names_what_is_wrong(cls, monkeypatch):
    monkeypatch.setattr("skspurious._method_checks.check_estimator", lambda *args, **kwargs: None)
    with pytest.raises(AssertionError, match=WRONG[cls]):
        check_method(cls(**FAST))


def test_check_method_runs_the_checks_of_scikit_learn():
    with pytest.raises(AssertionError):
        check_method(ERMClassifier(**FAST))  # without the failure that is expected


def test_check_method_takes_methods_that_need_groups():
    inferrer = SpuriousGroupInferrer("dispersion")
    clf = GroupDROClassifier(group_inferrer=inferrer, **FAST)
    check_method(clf, expected_failed_checks=SPLIT)
    assert not hasattr(clf, "module_")
    assert len(CHECKS) == 7


def test_check_method_refuses_what_is_no_method():
    with pytest.raises(TypeError, match=r"LogisticRegression is no BaseTorchClassifier"):
        check_method(LogisticRegression())


def test_stages_follow_one_another_and_are_named():
    class Twice(Documented):
        def _train(self, module, data, runtime, seeds):
            history = []
            for name, n_epochs in (("one", 2), ("two", 3)):
                sampler = UniformSampler(len(data.train), seed=seeds[0])
                stage = Stage(name, Objective(), sampler, seeds[1], {"max_epochs": n_epochs})
                history += run_stage(self, module, stage, data.train, None, runtime).history
            return Trained(module, history, learned={"answer_": 42})

    X = np.eye(4, dtype=np.float32)
    clf = Twice(**FAST).fit(X, [0, 1, 0, 1])
    assert clf.history_["stage"].tolist() == ["one"] * 2 + ["two"] * 3
    assert clf.history_["train_loss"].is_monotonic_decreasing  # the second goes on
    assert clf.answer_ == 42
