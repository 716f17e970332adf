"""SPAREClassifier: what the two stages are made of, and that they work together."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import small_shortcut
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupedData,
    SPAREClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_accuracy,
)
from skspurious.base import BaseTorchClassifier
from skspurious.datasets import make_spurious_classification, make_spurious_images
from skspurious.group_inference import DispersionGroups, SpareGroups
from skspurious.metrics import group_inference_report
from skspurious.networks import LeNet

TRAINING = {"optimizer": "adam", "lr": 2e-3, "max_epochs": 6, "batch_size": 32}
NET = {"module": LeNet, "module_params": {"n_classes": 2, "image_size": 8}}


@pytest.fixture(scope="module")
def table():
    return small_shortcut()


def fast(**params):
    """SPARE of a linear head, trained briefly."""
    return SPAREClassifier(**{"lr": 0.1, "max_epochs": 2, "random_state": 0, **params})


def parameters_of(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


# --------------------------------------------------------------------------------------
# What it is made of


def test_spare_is_balanced_retraining_on_groups_of_early_probabilities(table):
    X, y, _ = table
    clf = fast(init_epochs=2, high_power=3.0, group_method=SpareGroups(max_clusters=4)).fit(X, y)
    assert isinstance(clf, BalancedRetrainer)
    assert (clf.balance, clf.sampling_power, clf.class_balanced) == ("sampling", "auto", "auto")
    assert not {"by", "group_inferrer", "start_from"} & set(clf.get_params())
    assert isinstance(clf.group_inferrer_, Pipeline)
    extractor, inferrer = clf.group_inferrer_
    assert isinstance(extractor, TorchFeatureExtractor)
    assert extractor.output == "proba"
    assert isinstance(extractor.module, ERMClassifier)
    assert (extractor.module.max_epochs, extractor.module.lr) == (2, 0.1)
    assert isinstance(inferrer, SpuriousGroupInferrer)
    assert isinstance(inferrer.method_, SpareGroups)
    assert inferrer.method_.max_clusters == 4


def first_stage_of(clf):
    return clf._make_group_inferrer()[0].module


def test_spare_first_stage_takes_over_training_and_nothing_else():
    def augment(batch):
        return batch

    second = {
        "lr": 0.3,
        "weight_decay": 0.2,
        "optimizer": "adamw",
        "batch_size": 64,
        "eval_transform": torch.neg,
        "device": "cpu",
        "precision": "bf16",
        "module_params": {"n_classes": 3},
    }
    alone = {
        "train_transform": augment,
        "lr_schedule": "cosine",
        "early_stopping": True,
        "validation_fraction": 0.3,
        "n_epochs_no_change": 3,
        "monitor": "accuracy",
        "verbose": 1,
        "callbacks": [],
        "random_state": 0,
        "max_epochs": 7,
        "balance": "weights",
    }
    clf = SPAREClassifier(LeNet).set_params(**second, **alone)
    first = first_stage_of(clf)
    plain = ERMClassifier().get_params()
    assert first.module is clf.module is LeNet
    for name, value in second.items():
        assert getattr(first, name) == getattr(clf, name) == value
    for name, value in alone.items():
        assert getattr(clf, name) == value
        if name not in ("balance", "max_epochs"):
            assert getattr(first, name) == plain[name], name
    assert first.max_epochs == 1
    assert clf._make_group_inferrer()[0].device == "cpu"


def test_spare_takes_a_first_stage_as_it_is_but_for_its_network():
    params = {"weights": "DEFAULT", "eval_transform": torch.neg, "collate_fn": list}
    given = ERMClassifier(lr=0.5, train_transform=torch.neg, max_epochs=3, device="cpu")
    clf = SPAREClassifier("resnet18", first_stage=given, lr=0.1, batch_size=7, **params)
    first = first_stage_of(clf)
    assert (first.lr, first.batch_size, first.max_epochs) == (0.5, 128, 3)
    assert (first.train_transform, clf.train_transform) == (torch.neg, None)
    assert first.module == "resnet18"
    assert {name: getattr(first, name) for name in params} == params
    assert given.module is given.weights is None  # what the user gave is not changed
    other = first_stage_of(clone(clf).set_params(first_stage__module="resnet50"))
    assert (other.module, other.weights, other.eval_transform) == ("resnet50", None, None)


@pytest.mark.parametrize("params", [{"learning_rate": 0.1}, {"group_inferrer": None}])
def test_spare_refuses_unknown_parameters(params):
    with pytest.raises(TypeError, match="has no parameter"):
        SPAREClassifier(**params)


def test_spare_searches_reach_both_stages(table):
    """lr is that of both stages; that of a first stage that is given is another."""
    X, y, _ = table
    clf = fast(init_epochs=2)
    slow, quick = (clone(clf).set_params(lr=lr).fit(X, y) for lr in (1e-6, 0.5))
    for fitted, lr in ((slow, 1e-6), (quick, 0.5)):
        assert fitted.group_inferrer_[0].module.lr == fitted.lr == lr
    assert not torch.equal(
        parameters_of(slow.group_inferrer_[0]), parameters_of(quick.group_inferrer_[0])
    )
    clf = fast(first_stage=ERMClassifier(lr=0.1), group_method=SpareGroups())
    grid = {"first_stage__lr": [1e-6, 0.5], "group_method__n_clusters": [2, 3]}
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_estimator_
    assert best.group_inferrer_[0].module.lr == search.best_params_["first_stage__lr"]
    n_clusters = search.best_params_["group_method__n_clusters"]
    assert best.group_inferrer_[-1].n_clusters_.tolist() == [n_clusters, n_clusters]
    assert best.lr == 0.1
    fitted = [
        clone(clf).set_params(first_stage__lr=lr).fit(X, y).group_inferrer_[0] for lr in (1e-6, 0.5)
    ]
    assert not torch.equal(parameters_of(fitted[0]), parameters_of(fitted[1]))


def test_spare_with_another_way_to_find_groups_is_balanced_by_their_sizes(table):
    X, y, _ = table
    clf = fast(group_method=DispersionGroups(), high_power=9.0).fit(X, y)
    plain = fast(group_method="dispersion", high_power=1.0).fit(X, y)
    assert isinstance(clf.group_inferrer_[-1].method_, DispersionGroups)
    assert torch.equal(parameters_of(clf), parameters_of(plain))


def test_spare_what_the_first_stage_leaves_out_are_shared_parameters():
    from skspurious.mitigation._stages import _SECOND_STAGE_ONLY

    shared = set(BaseTorchClassifier().get_params(deep=False))
    assert shared >= _SECOND_STAGE_ONLY


def test_spare_can_be_cloned_and_pickled(table):
    X, y, _ = table
    clf = clone(fast(first_stage=ERMClassifier())).set_params(first_stage__lr=0.2).fit(X, y)
    assert clf.group_inferrer_[0].module.lr == 0.2
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert_array_equal(again.infer_groups(X, y), clf.infer_groups(X, y))


# --------------------------------------------------------------------------------------
# What it does


def test_spare_is_its_three_steps_by_hand(table):
    X, y, _ = table
    clf = fast().fit(X, y)
    extractor, inferrer = clf.group_inferrer_
    early = ERMClassifier(lr=0.1, max_epochs=1, random_state=extractor.module.random_state).fit(
        X, y
    )
    Z = early.predict_proba(X)
    assert_allclose(extractor.transform(X), Z, atol=1e-6)
    by_hand = SpuriousGroupInferrer(method="spare", random_state=inferrer.random_state)
    by_hand.fit(extractor.transform(X), y)
    assert_array_equal(inferrer.labels_, by_hand.labels_)
    carried = GroupedData(X, by_hand.labels_, group_inferrer=clf.group_inferrer_)
    second = BalancedRetrainer(lr=0.1, max_epochs=2, random_state=0).fit(carried, y)
    assert torch.equal(parameters_of(second), parameters_of(clf))


def test_spare_second_stage_starts_anew(table):
    """From the factory under its seed, or from the user's module; never from the first stage."""
    X, y, _ = table
    still = {"lr": 1e-9, "first_stage": ERMClassifier(lr=0.5, max_epochs=5)}
    module = nn.Linear(X.shape[1], 2)
    before = copy.deepcopy(module.state_dict())
    clf = fast(module=module, **still).fit(X, y)
    assert_allclose(clf.module_.weight.detach(), before["weight"], atol=1e-6)
    assert torch.equal(module.weight, before["weight"])
    first = clf.group_inferrer_[0].module_
    assert (first.weight - before["weight"]).abs().max() > 1e-2
    built = fast(module=nn.Linear, module_params={"in_features": X.shape[1], "out_features": 2})
    built.set_params(lr=1e-9).fit(X, y)
    plain = ERMClassifier(**{k: getattr(built, k) for k in ("module", "module_params", "lr")})
    plain.set_params(max_epochs=2, random_state=0).fit(X, y)
    assert_allclose(parameters_of(built), parameters_of(plain), atol=1e-6)


def test_spare_warm_start_goes_on_from_the_first_stage(table):
    X, y, _ = table
    first_stage = {"first_stage": ERMClassifier(lr=0.5, max_epochs=5)}
    still = fast(lr=1e-9, warm_start=True, **first_stage).fit(X, y)
    network = still.group_inferrer_[0].module_
    assert_allclose(parameters_of(still), parameters_of(still.group_inferrer_[0]), atol=1e-6)
    assert still.module_ is not network
    # by hand: a balanced training of that network on those groups
    clf = fast(lr=0.2, warm_start=True, **first_stage).fit(X, y)
    inferrer = clf.group_inferrer_
    assert torch.equal(parameters_of(inferrer[0]), parameters_of(still.group_inferrer_[0]))
    carried = GroupedData(X, inferrer[-1].labels_, group_inferrer=inferrer)
    params = {"lr": 0.2, "max_epochs": 2, "random_state": 0}
    by_hand = BalancedRetrainer(network, **params).fit(carried, y)
    assert torch.equal(parameters_of(by_hand), parameters_of(clf))
    # an inferrer that comes with the samples has a network just as well
    goes_on = BalancedRetrainer(start_from="group_inferrer", **params).fit(carried, y)
    assert torch.equal(parameters_of(goes_on), parameters_of(clf))
    assert not torch.equal(parameters_of(fast(lr=0.2, **first_stage).fit(X, y)), parameters_of(clf))


def test_spare_warm_start_needs_a_first_stage(table):
    X, y, group = table
    with pytest.raises(ValueError, match=r"warm_start=True .* Pass no sample_group"):
        fast(warm_start=True).fit(X, y, sample_group=group)
    clusters = BalancedRetrainer(
        group_inferrer=SpuriousGroupInferrer(), start_from="group_inferrer"
    )
    with pytest.raises(ValueError, match="start_from='group_inferrer' needs a group inferrer"):
        clusters.fit(X, y)


def test_spare_clusters_the_epoch_with_the_highest_silhouette(table):
    """By hand: SPARE with each number of epochs, and the best of their silhouettes."""
    X, y, _ = table
    first = ERMClassifier(lr=2.0, batch_size=16, max_epochs=4)
    clf = fast(first_stage=first, epoch_selector="silhouette", random_state=2).fit(X, y)
    extractor, inferrer = clf.group_inferrer_
    first.set_params(random_state=extractor.module.random_state)
    runs = [
        fast(first_stage=clone(first).set_params(max_epochs=n), random_state=2).fit(X, y)
        for n in (1, 2, 3, 4)
    ]
    silhouettes = [run.group_inferrer_[-1].silhouette_.mean() for run in runs]
    assert_allclose(extractor.epoch_scores_, silhouettes, rtol=1e-6)
    best = int(np.argmax(silhouettes))
    assert extractor.estimator_.best_epoch_ == best + 1
    assert torch.equal(parameters_of(runs[best].group_inferrer_[0]), parameters_of(extractor))
    assert_array_equal(runs[best].group_inferrer_[-1].labels_, inferrer.labels_)
    assert torch.equal(parameters_of(runs[best]), parameters_of(clf))
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    again = pickle.loads(pickle.dumps(clone(clf).fit(X, y)))
    assert torch.equal(parameters_of(again), parameters_of(clf))


def test_spare_epoch_by_known_groups_says_that_it_used_them(table):
    """The authors' way: the epoch whose smallest clusters hold most of the minority."""
    X, y, group = table
    recalls = []

    def recall(extractor, X, y):
        labels = SpuriousGroupInferrer("spare", random_state=0).fit(extractor.transform(X), y)
        report = group_inference_report(group, labels.labels_, y)
        recalls.append(report["recall"].min())
        return recalls[-1]

    clf = fast(init_epochs=3, epoch_selector=recall).fit(X, y)
    assert len(recalls) == 3
    assert clf.group_inferrer_[0].estimator_.best_epoch_ == np.argmax(recalls) + 1
    assert clf.used_group_labels_ == {"train": False, "validation": True}


def test_spare_refuses_an_unknown_epoch_selector(table):
    with pytest.raises(ValueError, match=r"'epoch_selector' parameter .* 'recall'"):
        fast(epoch_selector="recall").fit(*table[:2])


def test_spare_second_stage_leaves_the_first_unchanged(table):
    X, y, _ = table
    one, many = (fast(max_epochs=n).fit(X, y).group_inferrer_ for n in (1, 5))
    assert torch.equal(parameters_of(one[0]), parameters_of(many[0]))
    assert_array_equal(one[-1].labels_, many[-1].labels_)


def test_spare_same_seed_same_bits(table, assert_global_rng_untouched):
    X, y, _ = table
    with assert_global_rng_untouched():
        first, again, other = (fast(random_state=s).fit(X, y) for s in (0, 0, 1))
    assert torch.equal(parameters_of(first), parameters_of(again))
    assert not torch.equal(parameters_of(first), parameters_of(other))
    # without a seed the stages of one fit differ from those of the next
    free = [fast(random_state=None).fit(X, y) for _ in range(2)]
    assert not torch.equal(parameters_of(free[0]), parameters_of(free[1]))


def test_spare_groups_never_mix_classes_and_hold_every_sample_once(table):
    X, y, _ = table
    inferrer = fast().fit(X, y).group_inferrer_[-1]
    for g, label in zip(inferrer.groups_, inferrer.group_classes_, strict=True):
        assert set(y[inferrer.labels_ == g]) == {label}
    assert len(inferrer.labels_) == len(y)
    assert inferrer.cluster_sizes_.sum() == len(y)


def test_spare_uses_the_high_power_where_clusters_are_not_separated(table):
    """Badly separated clusters: the power changes what is trained; well separated ones: 1."""
    X, y, _ = table
    low, high = (fast(silhouette_threshold=1.0, high_power=p).fit(X, y) for p in (1.0, 3.0))
    assert (high.group_inferrer_[-1].silhouette_ < 1.0).all()
    assert not torch.equal(parameters_of(low), parameters_of(high))
    unused = fast(silhouette_threshold=-1.0, high_power=3.0).fit(X, y)
    assert torch.equal(parameters_of(unused), parameters_of(low))


def test_spare_tells_whether_group_labels_were_used(table):
    X, y, group = table
    clf = fast(early_stopping=True).fit(X, y)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    assert "valid_worst_group_accuracy" in clf.history_
    clf.fit(X, y, X_val=X, y_val=y, sample_group_val=group)
    assert clf.used_group_labels_ == {"train": False, "validation": True}
    # labels that are given are used instead of inferred ones, and that is said
    clf.fit(X, y, sample_group=group)
    assert clf.used_group_labels_ == {"train": True, "validation": True}
    assert clf.group_inferrer_ is None


def test_spare_shows_one_bar(table, capfd):
    X, y, _ = table
    fast(verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_spare_survives_a_class_that_cannot_be_split():
    """Constant samples: one cluster a class, power 1, and plain class-balanced training."""
    X = np.zeros((20, 3), dtype=np.float32)
    y = np.arange(20) % 2
    clf = fast(high_power=9.0).fit(X, y)
    assert clf.group_inferrer_[-1].n_clusters_.tolist() == [1, 1]
    plain = fast(high_power=1.0).fit(X, y)
    assert torch.equal(parameters_of(clf), parameters_of(plain))


# --------------------------------------------------------------------------------------
# Effect


@pytest.mark.fidelity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spare_finds_the_minority_early_and_its_worst_group_is_above_erm(seed):
    """Images with a colour shortcut in 95 %, end to end, with no group label in training."""
    train = make_spurious_images(800, image_size=8, random_state=seed)
    test = make_spurious_images(
        400, image_size=8, correlation_strength=0.5, random_state=100 + seed
    )

    def worst(clf):
        predicted = clf.predict(test.data)
        return worst_group_accuracy(test.target, predicted, sample_group=test.sample_group)

    erm = ERMClassifier(**NET, **TRAINING, random_state=seed).fit(train.data, train.target)
    spare = SPAREClassifier(**NET, **TRAINING, random_state=seed).fit(train.data, train.target)
    inferred = spare.infer_groups(train.data, train.target)
    report = group_inference_report(train.sample_group, inferred, train.target)
    assert (report["recall"] > 0.9).all()
    assert (report["precision"] > 0.9).all()
    assert worst(erm) < 0.2
    assert worst(spare) > 0.9


def test_spare_on_embeddings_raises_the_worst_group(table):
    X, y, _ = table
    test = make_spurious_classification(400, correlation_strength=0.5, random_state=1)
    scores = []
    for clf in (
        ERMClassifier(lr=0.1, max_epochs=10, random_state=0),
        SPAREClassifier(lr=0.1, max_epochs=10, random_state=0),
    ):
        predicted = clf.fit(X, y).predict(test.data)
        scores.append(worst_group_accuracy(test.target, predicted, sample_group=test.sample_group))
    assert scores[1] > scores[0]
