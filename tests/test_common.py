"""scikit-learn's own checks on every public estimator, and a test that none is missing."""

import importlib
import inspect
import pkgutil

import pytest
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import skspurious
from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SpuriousGroupInferrer,
    SpuriousSamplePruner,
    TorchFeatureExtractor,
)
from skspurious.preprocessing import GroupedTransformer

# A linear head, trained briefly. Groups are inferred: the checks call fit(X, y).
FAST = {"lr": 0.1, "max_epochs": 10, "batch_size": 16, "random_state": 0}

ESTIMATORS = [
    ERMClassifier(group_inferrer=SpuriousGroupInferrer(method="dispersion"), **FAST),
    GroupDROClassifier(group_inferrer=SpuriousGroupInferrer(method="dispersion"), **FAST),
    BalancedRetrainer(group_inferrer=SpuriousGroupInferrer(method="spare", n_init=1), **FAST),
    JTTClassifier(**FAST),
    LastLayerRetrainer(group_inferrer=SpuriousGroupInferrer(method="dispersion"), C=1.0, **FAST),
    NSFClassifier(n_transform_steps=5, n_head_steps=60, nsf_lr=0.3, **FAST),
    PrunedRetrainer(score_epochs=3, **FAST),
    PruSCNetwork(
        n_clusters=2, mask_lr=0.3, mask_steps=6, mask_batch_size=8, finetune_lr=0.1, **FAST
    ),
    SpuriousGroupInferrer(n_init=1),
    SpuriousSamplePruner(score_epochs=3, **FAST),
    TorchFeatureExtractor(nn.Identity(), layer=""),
    TorchFeatureExtractor(ERMClassifier(**FAST)),
    GroupedTransformer(StandardScaler()),
]

# A weight scales a sample's loss; it does not make the sample be drawn twice.
EXPECTED_FAILED_CHECKS = {
    "ERMClassifier": {
        "check_sample_weight_equivalence_on_dense_data": (
            "two copies of a sample fall into different mini-batches, a weight of 2 stays in one; "
            "the check passes, up to float32 rounding, only when one batch holds all samples"
        )
    },
    "GroupDROClassifier": {
        "check_sample_weight_equivalence_on_dense_data": (
            "groups are sampled, and adjusted, by the number of their samples, as in the paper; "
            "weights act on the losses alone, and the inferrer does not see them"
        )
    },
    "BalancedRetrainer": {
        "check_sample_weight_equivalence_on_dense_data": (
            "samples are drawn by the inverse size of their group, a number of samples, as in the "
            "papers; weights act on the losses alone, and the inferrer does not see them"
        )
    },
    "JTTClassifier": {
        "check_sample_weight_equivalence_on_dense_data": (
            "the error set is a set of samples, drawn more often as in the paper; a weight acts "
            "on the losses alone, and two copies fall into different mini-batches"
        )
    },
    "LastLayerRetrainer": {
        "check_sample_weight_equivalence_on_dense_data": (
            "balanced draws take as many samples of each group as the smallest has, whatever "
            "their weights, and the inferrer does not see them"
        )
    },
    "NSFClassifier": {
        "check_sample_weight_equivalence_on_dense_data": (
            "means, map and parts are those of repeated samples, but the head's batches are drawn "
            "at random, as in the paper, as many as the smaller part has samples"
        )
    },
    "PruSCNetwork": {
        "check_sample_weight_equivalence_on_dense_data": (
            "clusters and the balanced set are made of samples, whatever their weights, which act "
            "on the losses alone; two copies fall into different mini-batches"
        )
    },
    "PrunedRetrainer": {
        "check_sample_weight_equivalence_on_dense_data": (
            "a share of the samples of each class is pruned, by their number; weights act on the "
            "losses alone, and two copies fall into different mini-batches"
        )
    },
}


def expected_failed_checks(estimator):
    return EXPECTED_FAILED_CHECKS.get(type(estimator).__name__, {})


def public_estimators():
    """Names of the estimator classes in the ``__all__`` of every public module."""
    names = set()
    for info in pkgutil.walk_packages(skspurious.__path__, "skspurious."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            if inspect.isclass(value) and issubclass(value, BaseEstimator):
                names.add(name)
    return names


# PruSC, on a few dozen samples whose clusters are the classes.
@pytest.mark.filterwarnings("ignore:.*two such clusters are needed:UserWarning")
@pytest.mark.filterwarnings("ignore:the balanced set has:UserWarning")
@pytest.mark.filterwarnings("ignore:sparsity 0|every logit of:UserWarning")
@pytest.mark.filterwarnings("ignore:the error set is:UserWarning")  # JTT, on a few dozen samples
@pytest.mark.filterwarnings("ignore:no sample was rescued:UserWarning")  # NSF, without a shortcut
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failed_checks)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_every_public_estimator_is_checked():
    assert public_estimators() == {type(estimator).__name__ for estimator in ESTIMATORS}


def test_every_estimator_of_the_top_level_is_public_in_its_family_too():
    top = {
        name
        for name in skspurious.__all__
        if inspect.isclass(getattr(skspurious, name))
        and issubclass(getattr(skspurious, name), BaseEstimator)
    }
    assert top <= public_estimators()


def test_expected_failures_name_estimators_that_are_checked_and_give_a_reason():
    assert set(EXPECTED_FAILED_CHECKS) <= public_estimators()
    for checks in EXPECTED_FAILED_CHECKS.values():
        assert all(len(reason) > 20 for reason in checks.values())


@pytest.mark.parametrize("name", sorted(EXPECTED_FAILED_CHECKS))
def test_expected_failures_are_few(name):
    """A failure is a decision, not a habit: one per estimator."""
    assert len(EXPECTED_FAILED_CHECKS[name]) <= 1
