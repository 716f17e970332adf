"""GEORGEClassifier: what the stages are made of, and that they work together."""

import copy
import pickle

import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from shortcut_data import small_shortcut
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skspurious import (
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    GroupedData,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    worst_group_accuracy,
)
from skspurious.datasets import make_spurious_images
from skspurious.group_inference import DispersionGroups, GaussianMixtureGroups, KMeansGroups
from skspurious.metrics import cluster_robust_accuracy, group_inference_report
from skspurious.networks import LeNet

TRAINING = {"optimizer": "adam", "lr": 2e-3, "max_epochs": 6, "batch_size": 32}
NET = {"module": LeNet, "module_params": {"n_classes": 2, "image_size": 8}}


@pytest.fixture(scope="module")
def table():
    return small_shortcut()


class Mlp(nn.Module):
    def __init__(self, n_features=8, n_classes=2):
        super().__init__()
        self.hidden = nn.Linear(n_features, 6)
        self.head = nn.Linear(6, n_classes)

    def forward(self, x):
        return self.head(self.hidden(x).relu())


def fast(X, **params):
    shared = {"lr": 0.1, "max_epochs": 2, "random_state": 0}
    shared |= {"group_method": KMeansGroups(max_clusters=4)}
    return GEORGEClassifier(Mlp, module_params={"n_features": X.shape[1]}, **shared | params)


def parameters_of(clf):
    return torch.cat([p.detach().ravel() for p in clf.module_.parameters()])


# --------------------------------------------------------------------------------------
# What it is made of


def stages_of(clf):
    return clf._make_group_inferrer()


def test_george_is_group_dro_on_groups_of_embeddings():
    clf = GEORGEClassifier(LeNet, adjustment=2.0, max_epochs=7)
    assert isinstance(clf, GroupDROClassifier)
    assert "group_inferrer" not in clf.get_params()
    assert clf.adjustment == 2.0
    extractor, inferrer = stages_of(clf)
    assert isinstance(extractor, TorchFeatureExtractor)
    assert (extractor.output, extractor.layer) == ("embedding", "penultimate")
    assert isinstance(extractor.module, ERMClassifier)
    assert extractor.module.module is clf.module is LeNet
    assert extractor.module.max_epochs == clf.max_epochs == 7  # full training, unless said
    assert isinstance(inferrer.method, KMeansGroups)
    assert inferrer.method.get_params() == KMeansGroups().get_params()


@pytest.mark.parametrize(
    ("representation", "method", "output", "expected"),
    [
        ("hardness", KMeansGroups(), "hardness", KMeansGroups()),
        (
            "hardness",
            KMeansGroups(reduction="pca", n_components=2),
            "hardness_residual",
            KMeansGroups(reduction="pca", n_components=2, n_unreduced=1),
        ),
        (
            "hardness",
            KMeansGroups(n_components=2),
            "hardness_residual",
            KMeansGroups(n_components=2, n_unreduced=1),
        ),
        ("hardness", DispersionGroups(), "hardness", DispersionGroups()),
        ("margin", KMeansGroups(), "logits", KMeansGroups(reduction="margin")),
        ("margin", KMeansGroups(reduction="margin"), "logits", KMeansGroups(reduction="margin")),
        ("embedding", "gmm", "embedding", GaussianMixtureGroups()),
        *(
            ("embedding", method, "embedding", method)
            for method in (
                GaussianMixtureGroups(n_components=3),
                KMeansGroups(reduction="umap"),
                KMeansGroups(overclustering=4),
            )
        ),
    ],
)
def test_george_representations_and_methods(representation, method, output, expected):
    clf = GEORGEClassifier(LeNet, representation=representation, group_method=method)
    before = repr(clf.get_params())
    extractor, inferrer = stages_of(clf)
    assert extractor.output == output
    assert type(inferrer.method) is type(expected)
    assert inferrer.method.get_params() == expected.get_params()
    assert repr(clf.get_params()) == before  # what the user gave is not changed


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"representation": "loss"}, "'representation' parameter of GEORGEClassifier must be"),
        (
            {"representation": "margin", "group_method": KMeansGroups(reduction="pca")},
            "is one number a sample already",
        ),
        ({"representation": "margin", "group_method": "dispersion"}, "clusters nothing"),
        ({"group_method": "means"}, "'group_method' parameter of GEORGEClassifier must be"),
    ],
)
def test_george_refuses_representations_that_make_no_sense(table, params, match):
    with pytest.raises(ValueError, match=match):
        GEORGEClassifier(**params).fit(*table[:2])


@pytest.mark.parametrize(
    ("params", "epochs"),
    [
        ({}, "auto"),
        ({"init_epochs": 3}, 3),
        ({"max_epochs": 5}, 5),
        ({"max_epochs": 5, "init_epochs": 3}, 3),
        ({"max_epochs": 5, "first_stage": ERMClassifier(max_epochs=4)}, 4),
    ],
)
def test_george_epochs_of_the_first_stage(params, epochs):
    assert stages_of(GEORGEClassifier(LeNet, **params))[0].module.max_epochs == epochs


def test_george_regularises_both_stages_alike_and_augments_only_the_second():
    params = {"weight_decay": 0.1, "lr": 1e-3, "optimizer_params": {"momentum": 0.9}}
    clf = GEORGEClassifier(LeNet, train_transform=torch.neg, lr_schedule="cosine")
    first = stages_of(clf.set_params(**params))[0].module
    for name, value in params.items():
        assert getattr(first, name) == getattr(clf, name) == value
    assert (first.train_transform, first.lr_schedule) == (None, None)


@pytest.mark.parametrize("params", [{"learning_rate": 0.1}, {"group_inferrer": None}])
def test_george_refuses_unknown_parameters(params):
    with pytest.raises(TypeError, match="has no parameter"):
        GEORGEClassifier(LeNet, **params)


def test_george_searches_reach_every_stage(table):
    X, y, _ = table
    clf = fast(X, first_stage=ERMClassifier(max_epochs=2))
    grid = {"first_stage__lr": [1e-6, 0.5], "group_method__n_clusters": [2, 3], "lr": [0.1]}
    search = GridSearchCV(clf, grid, cv=2, error_score="raise").fit(X, y)
    best = search.best_estimator_
    assert best.group_inferrer_[0].module.lr == search.best_params_["first_stage__lr"]
    n_clusters = search.best_params_["group_method__n_clusters"]
    assert best.group_inferrer_[-1].n_clusters_.tolist() == [n_clusters, n_clusters]
    slow, quick = (clone(fast(X)).set_params(lr=lr).fit(X, y) for lr in (1e-6, 0.5))
    assert [c.group_inferrer_[0].module.lr for c in (slow, quick)] == [1e-6, 0.5]


def test_george_can_be_cloned_and_pickled(table):
    X, y, _ = table
    clf = clone(fast(X)).fit(X, y)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert_array_equal(again.infer_groups(X, y), clf.infer_groups(X, y))


# --------------------------------------------------------------------------------------
# What it does


@pytest.mark.fidelity
def test_george_with_given_groups_is_group_dro(table):
    """With true groups the pipeline equals plain GroupDRO; with the classes, class GroupDRO."""
    X, y, group = table
    for groups in (group, y):
        george = fast(X).fit(X, y, sample_group=groups)
        plain = GroupDROClassifier(
            Mlp, module_params={"n_features": X.shape[1]}, lr=0.1, max_epochs=2, random_state=0
        ).fit(X, y, sample_group=groups)
        assert torch.equal(parameters_of(george), parameters_of(plain))


def test_george_is_its_steps_by_hand(table):
    X, y, _ = table
    clf = fast(X).fit(X, y)
    extractor, inferrer = clf.group_inferrer_
    Z = extractor.transform(X)
    assert Z.shape == (200, 6)
    by_hand = SpuriousGroupInferrer(
        KMeansGroups(max_clusters=4), random_state=inferrer.random_state
    ).fit(Z, y)
    assert_array_equal(inferrer.labels_, by_hand.labels_)
    assert_array_equal(clf.groups_, by_hand.groups_)
    carried = GroupedData(X, by_hand.labels_)
    second = GroupDROClassifier(
        Mlp, module_params={"n_features": X.shape[1]}, lr=0.1, max_epochs=2, random_state=0
    ).fit(carried, y)
    assert torch.equal(parameters_of(second), parameters_of(clf))


def test_george_second_stage_starts_anew(table):
    X, y, _ = table
    module = Mlp(n_features=X.shape[1])
    before = copy.deepcopy(module.state_dict())
    clf = GEORGEClassifier(
        module,
        lr=1e-9,
        first_stage=ERMClassifier(lr=0.5, max_epochs=2),
        max_epochs=2,
        random_state=0,
    )
    clf.fit(X, y)
    for name, value in clf.module_.state_dict().items():
        assert_allclose(value, before[name], atol=1e-6)
        assert torch.equal(module.state_dict()[name], before[name])
    first = clf.group_inferrer_[0].module_
    assert (first.head.weight - before["head.weight"]).abs().max() > 1e-2


@pytest.mark.fidelity
def test_george_groups_are_nested_in_classes_and_numbered_without_gaps(table):
    X, y, _ = table
    clf = fast(X).fit(X, y)
    inferred = clf.infer_groups(X, y)
    assert_array_equal(inferred, clf.group_inferrer_[-1].labels_)
    assert sorted(set(inferred)) == list(range(len(clf.groups_)))
    assert len(clf.groups_) >= 2
    of_class = [set(inferred[y == label]) for label in (0, 1)]
    assert not of_class[0] & of_class[1]
    # a split that lacks a class keeps the numbers
    assert set(clf.infer_groups(X[y == 1], y[y == 1])) == of_class[1]


@pytest.mark.fidelity
def test_george_does_not_look_at_true_groups(table):
    """Permuted group labels change neither the fit nor the chosen epoch."""
    X, y, _ = table
    clf = fast(X, early_stopping=True).fit(X, y)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    best = clf.history_["valid_worst_group_accuracy"].max()
    row = clf.history_.iloc[clf.best_epoch_ - 1]
    assert row["valid_worst_group_accuracy"] == best  # the worst cluster, not the worst true group
    assert f"valid_accuracy[{len(clf.groups_) - 1}]" in clf.history_


def test_george_same_seed_same_bits(table, assert_global_rng_untouched):
    X, y, _ = table
    with assert_global_rng_untouched():
        first, again, other = (fast(X, random_state=s).fit(X, y) for s in (0, 0, 1))
    assert torch.equal(parameters_of(first), parameters_of(again))
    assert not torch.equal(parameters_of(first), parameters_of(other))


@pytest.mark.fidelity
@pytest.mark.parametrize(
    "params",
    [
        {
            "representation": "hardness",
            "group_method": GaussianMixtureGroups(max_clusters=4),
        },
        {
            "representation": "hardness",
            "group_method": KMeansGroups(max_clusters=4, reduction="pca", n_components=1),
        },
        {"representation": "margin"},
        {"group_method": KMeansGroups(max_clusters=4, overclustering=5, n_components=3)},
    ],
    ids=["hardness", "residual", "margin", "overclustering"],
)
def test_george_groups_of_new_rows_follow_the_same_rule(table, params):
    X, y, _ = table
    clf = fast(X, **params).fit(X, y)
    inferrer = clf.group_inferrer_[-1]
    assert_array_equal(clf.infer_groups(X, y), inferrer.labels_)
    assert_array_equal(clf.infer_groups(X[::3], y[::3]), inferrer.labels_[::3])
    assert_array_equal(inferrer.group_classes_[inferrer.labels_], y)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.infer_groups(X, y), inferrer.labels_)
    assert inferrer.normalize_ == ("representation" not in params)


def test_george_margin_takes_more_than_two_classes_and_hardness_does_not(table):
    X, y, _ = table
    y = y + (X[:, 0] > 0)
    net = {"module_params": {"n_features": X.shape[1], "n_classes": 3}, "max_epochs": 2}
    clf = GEORGEClassifier(Mlp, representation="margin", random_state=0, **net).fit(X, y)
    assert_array_equal(clf.infer_groups(X, y), clf.group_inferrer_[-1].labels_)
    with pytest.raises(ValueError, match="output='hardness' is for two classes"):
        GEORGEClassifier(Mlp, representation="hardness", random_state=0, **net).fit(X, y)


# --------------------------------------------------------------------------------------
# Effect


@pytest.mark.fidelity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_george_finds_a_rare_subclass_and_its_worst_group_is_above_erm(seed):
    """Images with a colour shortcut in 95 %, end to end, with no group label anywhere."""
    train = make_spurious_images(800, image_size=8, random_state=seed)
    test = make_spurious_images(
        400, image_size=8, correlation_strength=0.5, random_state=100 + seed
    )

    def worst(clf):
        predicted = clf.predict(test.data)
        return worst_group_accuracy(test.target, predicted, sample_group=test.sample_group)

    erm = ERMClassifier(**NET, **TRAINING, random_state=seed).fit(train.data, train.target)
    george = GEORGEClassifier(**NET, **TRAINING, init_epochs=1, random_state=seed)
    george.fit(train.data, train.target)
    inferred = george.infer_groups(train.data, train.target)
    report = group_inference_report(train.sample_group, inferred, train.target)
    assert (report["recall"] > 0.9).all()
    assert worst(erm) < 0.2
    assert worst(george) > 0.9
    # what a user sees without labels: the worst cluster tells of ERM's failure
    clusters = george.infer_groups(test.data, test.target)
    predicted = erm.predict(test.data)
    robust = cluster_robust_accuracy(test.target, predicted, cluster=george, X=test.data)
    assert robust == worst_group_accuracy(test.target, predicted, sample_group=clusters)
    assert robust < erm.score(test.data, test.target) - 0.2
    assert robust < worst(george)
