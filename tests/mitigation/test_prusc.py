"""PruSCNetwork: its stages, its promises, and each item of its acceptance list."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skspurious import (
    ERMClassifier,
    GroupedData,
    PruSCNetwork,
    SemiSupervisedGroupInferrer,
    SpuriousGroupInferrer,
    worst_group_accuracy,
)
from skspurious._engine._modules import layer_output
from skspurious._engine._objective import WeightedLoss
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import CellBatchSampler, SubsetSampler
from skspurious.callbacks import Callback
from skspurious.datasets import make_spurious_images
from skspurious.group_inference import KMeansGroups
from skspurious.metrics import make_worst_group_scorer
from skspurious.mitigation import _prusc, _prusc_masks, _prusc_set

fidelity = pytest.mark.fidelity

# A mask logit falls from 1.5 to 0 in about 15 steps of 0.1.
QUICK = {
    "n_clusters": 4,
    "lr": 0.05,
    "max_epochs": 3,
    "batch_size": 16,
    "mask_lr": 0.1,
    "mask_epochs": 2,
    "mask_steps": 30,
    "fine_tune_epochs": 3,
    "fine_tune_lr": 0.01,
    "random_state": 0,
}
MASK_ONLY = {"fine_tune_epochs": 0}
FINETUNE_ONLY = {"mask_epochs": 0, "mask_steps": 0}


def _make(n, correlation, seed, n_attributes=1):
    """2-D core features, and strong features of attributes that agree with the class so often."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    agrees = rng.random((n_attributes, n)) < correlation
    attributes = np.where(agrees, y, 1 - y)
    core = 0.8 * (2 * y - 1)[:, None] + rng.normal(size=(n, 2))
    spurious = 4.0 * (2 * attributes.T - 1) + rng.normal(size=(n, n_attributes))
    X = np.hstack([core, spurious, rng.normal(size=(n, 2))])
    group = y
    for attribute in attributes:
        group = 2 * group + attribute
    return X.astype(np.float32), y, group


class Net(nn.Module):
    """Two hidden layers with batch normalisation between them."""

    def __init__(self, n_features=5, width=16, n_classes=2, norm=True):
        super().__init__()
        self.one = nn.Linear(n_features, width)
        self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
        self.two = nn.Linear(width, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.two(self.norm(self.one(x)).relu()).relu())


def _net(seed=0, **params):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(**params)


@pytest.fixture(scope="module")
def data():
    X, y, group = _make(400, 0.85, 0)
    for array in (X, y, group):
        array.flags.writeable = False
    return X, y, group


@pytest.fixture(scope="module")
def fitted(data):
    return PruSCNetwork(_net(), **QUICK).fit(data[0], data[1])


@pytest.fixture(scope="module")
def mask_only(data):
    return PruSCNetwork(_net(), **QUICK | MASK_ONLY).fit(data[0], data[1])


def _parameters(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def _layers(module):
    return {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


# --------------------------------------------------------------------------------------
# Stage by stage


@fidelity
def test_without_later_stages_it_is_erm_bit_for_bit(data):
    X, y, _ = data
    params = {k: QUICK[k] for k in ("lr", "max_epochs", "batch_size", "random_state")}
    erm = ERMClassifier(_net(), **params).fit(X, y)
    clf = PruSCNetwork(_net(), **QUICK | MASK_ONLY | FINETUNE_ONLY).fit(X, y)
    assert_array_equal(clf.predict_proba(X), erm.predict_proba(X))
    for network in (clf.module_, clf.erm_module_):
        for name, value in network.state_dict().items():
            assert torch.equal(value, erm.module_.state_dict()[name]), name
    assert clf.density_ == 1.0
    assert (clf.layer_density_ == 1.0).all()
    assert clf.history_["stage"].unique().tolist() == ["erm"]


@fidelity
def test_the_stage_of_masks_changes_no_weight(data, mask_only):
    """Weights, biases and the affine part of the normalisation; those that are kept."""
    before, after = _parameters(mask_only.erm_module_), _parameters(mask_only.module_)
    assert 0 < mask_only.sparsity_ < 1
    for name, value in before.items():
        kept = mask_only.masks_.get(name.removesuffix(".weight"))
        if kept is None or name.endswith("bias"):
            assert torch.equal(after[name], value), name
        else:
            assert torch.equal(after[name], torch.where(kept, value, 0.0)), name


@fidelity
def test_the_module_that_was_passed_is_untouched(data):
    net = _net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    PruSCNetwork(net, **QUICK).fit(data[0], data[1])
    assert set(net.state_dict()) == set(before)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert net.training


@fidelity
@pytest.mark.parametrize(
    ("optimizer", "params"), [("sgd", {"momentum": 0.9}), ("adamw", None), ("adam", None)]
)
def test_pruned_weights_stay_zero_in_fine_tuning(data, mask_only, optimizer, params):
    more = {"optimizer": optimizer, "optimizer_params": params, "weight_decay": 0.1}
    clf = PruSCNetwork(mask_only.erm_module_, **QUICK | {"max_epochs": 0}, **more)
    clf.fit(data[0], data[1])
    for name, layer in _layers(clf.module_).items():
        kept = clf.masks_[name]
        assert (~kept).any()
        assert (layer.weight[~kept] == 0).all()
        theta = clf.erm_module_.get_submodule(name).weight
        assert (layer.weight[kept] != theta[kept]).any()


def test_fine_tuning_leaves_the_masks_as_they_were(fitted, mask_only):
    for name, kept in mask_only.masks_.items():
        assert torch.equal(kept, fitted.masks_[name])
    assert fitted.density_ == mask_only.density_


@fidelity
def test_sparsity_is_a_recount_of_the_zeros(fitted):
    weights = {name: layer.weight for name, layer in _layers(fitted.module_).items()}
    n_zero = sum(int((w == 0).sum()) for w in weights.values())
    n_all = sum(w.numel() for w in weights.values())
    assert fitted.sparsity_ == n_zero / n_all
    assert fitted.density_ == pytest.approx(1 - fitted.sparsity_)
    assert fitted.layer_density_.index.tolist() == list(weights) == list(fitted.masks_)
    for name, weight in weights.items():
        assert fitted.layer_density_[name] == pytest.approx(float((weight != 0).float().mean()))
    sizes = [w.numel() for w in weights.values()]
    assert np.average(fitted.layer_density_, weights=sizes) == pytest.approx(fitted.density_)


@fidelity
def test_too_few_steps_prune_nothing_and_say_so(data):
    clf = PruSCNetwork(_net(), **QUICK | {"mask_lr": 0.01})
    with pytest.warns(UserWarning, match="sparsity 0: no weight was pruned"):
        clf.fit(data[0], data[1])
    assert clf.sparsity_ == 0


@fidelity
@pytest.mark.parametrize(
    ("variant", "weights"), [("paper", [0.0, 0.3, 30.0]), ("code", [0.0, 3e-4, 3e-2])]
)
def test_a_larger_penalty_prunes_more(data, variant, weights):
    density = []
    for weight in weights:
        clf = PruSCNetwork(_net(), variant=variant, sparsity_weight=weight, **QUICK | MASK_ONLY)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "every logit of|sparsity 0")
            density.append(clf.fit(data[0], data[1]).density_)
    assert density[0] > density[1] > density[2]


def test_a_layer_that_would_die_keeps_a_share_and_warns(data, monkeypatch):
    monkeypatch.setattr(_prusc_masks, "_MIN_DENSITY", 0.05)
    clf = PruSCNetwork(_net(), sparsity_weight=1e3, **QUICK)
    message = r"every logit of \d layers is negative.*they keep 0.05 of their weights"
    with pytest.warns(UserWarning, match=message):
        clf.fit(data[0], data[1])
    for name, kept in clf.masks_.items():
        assert kept.sum() >= 0.05 * kept.numel(), name
    assert clf.masks_["head"].sum() >= 1


def test_a_trained_network_is_taken_as_it_is(data):
    X, y, _ = data
    erm = ERMClassifier(_net(), max_epochs=3, lr=0.05, random_state=0).fit(X, y)
    clf = PruSCNetwork(erm.module_, **QUICK | {"max_epochs": 0}).fit(X, y)
    for name, value in clf.erm_module_.state_dict().items():
        assert torch.equal(value, erm.module_.state_dict()[name])
    assert clf.history_["stage"].unique().tolist() == ["masks", "fine_tune"]
    assert all(p.requires_grad for p in clf.module_.parameters())


def test_history_has_the_stages(fitted):
    history = fitted.history_
    assert history["stage"].value_counts(sort=False).to_dict() == {
        "erm": 3,
        "masks": 2,
        "fine_tune": 3,
    }
    masks = history[history["stage"] == "masks"]
    assert masks["density"].is_monotonic_decreasing
    assert masks["density"].iloc[-1] == pytest.approx(fitted.density_)
    assert (masks["contrastive_loss"] > 0).all()
    assert (masks["lr"] == 0.1).all()
    assert masks["contrastive_loss"].iloc[-1] < masks["contrastive_loss"].iloc[0]


def test_batch_statistics_are_those_of_the_pruned_network(data, mask_only):
    X, _, _ = data
    one = mask_only.module_.one(torch.tensor(X[mask_only.balanced_indices_])).detach()
    # all rows, the last and smaller batch too; float32 sums of a few dozen products
    assert_allclose(mask_only.module_.norm.running_mean, one.mean(0), atol=1e-5)
    assert_allclose(mask_only.module_.norm.running_var, one.var(0), rtol=1e-4)
    old = mask_only.erm_module_.norm.running_mean
    assert not torch.allclose(mask_only.module_.norm.running_mean, old, atol=0.1)


def test_masks_are_learned_under_batch_statistics_which_are_estimated_anew_after(
    data, mask_only, monkeypatch
):
    means = []
    recalibrate = PruSCNetwork._recalibrate

    def spy(self, module, *args):
        means.append(module.norm.running_mean.clone())
        recalibrate(self, module, *args)
        means.append(module.norm.running_mean.clone())

    monkeypatch.setattr(PruSCNetwork, "_recalibrate", spy)
    PruSCNetwork(_net(), **QUICK | MASK_ONLY).fit(data[0], data[1])
    learned, estimated = means
    before = mask_only.erm_module_.norm.running_mean
    assert not torch.allclose(learned, before, atol=1e-3)
    assert not torch.allclose(learned, estimated, atol=1e-3)
    assert torch.equal(estimated, mask_only.module_.norm.running_mean)


# --------------------------------------------------------------------------------------
# The loss of the masks


def _mask_loss(data, variant="paper", **weights):
    """Loss, and gradients of the logits, of one batch with given masks."""
    X, y, _ = data
    net = _net(norm=False).train()
    masks = _prusc_masks.attach_masks(net, PruSCNetwork(variant=variant))
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    for mask in masks.values():
        mask.is_learned = True
        mask.logits.requires_grad_(True)
    cluster = np.arange(len(y)) // 2 % 3
    loss = _prusc_masks.MaskLoss(
        [1.0, 1.0],
        net,
        masks.values(),
        cluster,
        variant=_prusc_masks.VARIANTS[variant],
        **{"sparsity_weight": 0.3, "contrastive_weight": 1.0} | weights,
    )
    batch = {"X": torch.tensor(X[:24]), "y": torch.tensor(y[:24]), "weight": None}
    batch["position"] = torch.arange(24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value, losses, _ = loss(net, {**batch, "is_real": None}, Runtime("cpu"))
    value.backward()
    gradient = {name: mask.logits.grad.clone() for name, mask in masks.items()}
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)
    return value.item(), losses.mean().item(), gradient, loss.log()


@fidelity
def test_the_gradient_of_the_contrastive_loss_reaches_the_masks(data):
    """In the authors' code it is a constant."""
    off = _mask_loss(data, contrastive_weight=0.0, sparsity_weight=0.0)
    on = _mask_loss(data, contrastive_weight=1.0, sparsity_weight=0.0)
    assert off[0] == pytest.approx(off[1])
    assert on[1] == pytest.approx(off[1])  # the same masks
    assert on[0] - off[0] == pytest.approx(on[3]["contrastive_loss"], rel=1e-5)
    for name in ("one", "two"):
        assert not torch.allclose(on[2][name], off[2][name], rtol=1e-2)
    assert torch.allclose(on[2]["head"], off[2]["head"])  # it comes after the embedding
    twice = _mask_loss(data, contrastive_weight=2.0, sparsity_weight=0.0)
    assert twice[0] - off[0] == pytest.approx(2 * (on[0] - off[0]), rel=1e-4)


def test_the_penalty_enters_with_its_weight(data):
    off = _mask_loss(data, contrastive_weight=0.0, sparsity_weight=0.0)
    on = _mask_loss(data, contrastive_weight=0.0, sparsity_weight=2.0)
    # all logits are 1.5: density sigma(1.5) = 0.8176
    assert on[0] - off[0] == pytest.approx(2 * 0.81757, rel=1e-4)
    n = sum(g.numel() for g in on[2].values())
    for name, gradient in on[2].items():
        expected = 2 * 0.81757 * (1 - 0.81757) / n
        assert_allclose(gradient - off[2][name], expected, rtol=1e-2, atol=2e-6)
    # of the variant "code" it is the sum of the logits
    off = _mask_loss(data, "code", contrastive_weight=0.0, sparsity_weight=0.0)
    on = _mask_loss(data, "code", contrastive_weight=0.0, sparsity_weight=1e-3)
    assert on[0] - off[0] == pytest.approx(1e-3 * 1.5 * n, rel=1e-4)
    for name, gradient in on[2].items():
        assert_allclose(gradient - off[2][name], 1e-3, rtol=1e-2, atol=2e-6)


@fidelity
def test_features_and_logits_come_from_one_forward_pass(data, monkeypatch):
    calls = []
    original = _prusc_masks.forward

    def counted(module, inputs):
        calls.append(1)
        return original(module, inputs)

    monkeypatch.setattr(_prusc_masks, "forward", counted)
    _mask_loss(data)
    assert len(calls) == 1


@fidelity
@pytest.mark.parametrize(
    "params",
    [
        {"contrastive_weight": 0.0},
        {"balanced_set": "random"},
        {"balanced_set": "cell"},
        {"variant": "code", "sparsity_weight": 3e-4},
        {"sparsity_weight": 0.0},
        {"mask_lr": 0.05},
        {"fine_tune_lr": 0.02},
        FINETUNE_ONLY,
        MASK_ONLY,
    ],
)
def test_every_ablation_can_be_expressed_and_makes_a_difference(data, fitted, params):
    X, y, _ = data
    clf = PruSCNetwork(_net(), **QUICK | params).fit(X, y)
    assert np.abs(clf.predict_proba(X) - fitted.predict_proba(X)).max() > 1e-4


def test_without_the_contrastive_loss_there_is_no_column_of_it(data):
    clf = PruSCNetwork(_net(), contrastive_weight=0.0, **QUICK).fit(data[0], data[1])
    assert "contrastive_loss" not in clf.history_


# --------------------------------------------------------------------------------------
# Clusters and the balanced set


@fidelity
def test_clusters_are_those_of_the_embedding_in_evaluation_mode_without_augmentation(data, fitted):
    X, y, _ = data
    Z = layer_output(fitted.erm_module_.eval(), torch.tensor(X)).detach().numpy()
    inferrer = SpuriousGroupInferrer(
        KMeansGroups(n_clusters=4),
        scope="global",
        normalize=True,
        random_state=fitted.group_inferrer_.random_state,
    ).fit(Z, y)
    assert_array_equal(inferrer.clusters_, fitted.clusters_)
    assert_array_equal(np.unique(fitted.clusters_), np.arange(4))
    noisy = PruSCNetwork(
        fitted.erm_module_,
        train_transform=lambda batch: batch + 100 * torch.randn_like(batch),
        **QUICK | {"max_epochs": 0, "fine_tune_lr": 1e-9},
    )
    assert_array_equal(noisy.fit(X, y).clusters_, fitted.clusters_)


def test_the_table_counts_classes_in_clusters(data, fitted):
    y = data[1]
    table = fitted.cluster_table_
    for c in range(4):
        for k in fitted.classes_:
            assert table.loc[c, k] == np.sum((fitted.clusters_ == c) & (y == k))


@fidelity
def test_classes_are_equally_frequent_in_every_cluster_of_the_balanced_set(data, fitted):
    y, rows = data[1], fitted.balanced_indices_
    assert_array_equal(rows, np.unique(rows))
    for c in range(4):
        counts = np.bincount(y[rows][fitted.clusters_[rows] == c], minlength=2)
        assert counts[0] == counts[1] == fitted.cluster_table_.loc[c].min()


def test_a_cluster_of_two_of_three_classes_is_mixed():
    cluster, y = np.repeat([[0, 0, 1, 1, 2], [0, 1, 1, 2, 0]], [4, 2, 3, 5, 6], axis=1)
    rows, table = _prusc_set.draw_balanced_set(
        cluster,
        y,
        ["a", "b", "c"],
        balanced_set="within_cluster",
        on_pure_clusters="raise",
        batch_size=10,
        seed=0,
    )
    assert table.to_numpy().tolist() == [[4, 2, 0], [0, 3, 5], [6, 0, 0]]
    cells = np.bincount(3 * cluster[rows] + y[rows], minlength=9).reshape(3, 3)
    assert cells.tolist() == [[2, 2, 0], [0, 3, 3], [0, 0, 0]]


@fidelity
def test_pure_clusters_alone_are_an_error_with_the_table_or_a_warning():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = (np.where(y[:, None] == 1, [9.0, 0.0], [0.0, 9.0]) + rng.normal(size=(80, 2)) / 9).astype(
        np.float32
    )
    clf = PruSCNetwork(on_pure_clusters="raise", **QUICK | {"n_clusters": 2, "mask_steps": 60})
    with pytest.raises(ValueError, match=r"(?s)0 of 2 clusters .*cluster.*40.*balanced_set='cell'"):
        clf.fit(X, y)
    clf.set_params(on_pure_clusters="warn")
    with pytest.warns(UserWarning, match="random set that is balanced by class"):
        clf.fit(X, y)
    assert_array_equal(np.bincount(y[clf.balanced_indices_]), [40, 40])
    assert clf.score(X, y) == 1


def test_a_small_balanced_set_warns_and_takes_every_cell(data):
    X, y, _ = data
    X, y = X[:100], y[:100]
    clf = PruSCNetwork(_net(), **QUICK | {"batch_size": 64})
    with pytest.warns(UserWarning, match=r"fewer than a batch of 64.*balanced_set='cell'"):
        clf.fit(X, y)
    rows = clf.balanced_indices_
    cell = 2 * clf.clusters_[rows] + y[rows]
    assert len(set(np.unique(cell, return_counts=True)[1])) == 1


def test_the_number_of_clusters_can_be_chosen(data):
    X, y, _ = data
    clf = PruSCNetwork(_net(), **QUICK | {"n_clusters": "auto"}).fit(X, y)
    tried = {}
    for k in (4, 8, 16):
        other = PruSCNetwork(_net(), **QUICK | {"n_clusters": k} | FINETUNE_ONLY | MASK_ONLY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tried[k] = np.nanmax(other.fit(X, y).group_inferrer_.silhouette_)
    assert len(clf.cluster_table_) == max(tried, key=tried.get)


def test_an_inferrer_of_ones_own_is_fitted_on_the_embedding(data):
    X, y, _ = data
    inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=3, n_init=2), scope="global")
    clf = PruSCNetwork(_net(), group_inferrer=inferrer, **QUICK).fit(X, y)
    assert not hasattr(inferrer, "labels_")
    assert clf.group_inferrer_.n_features_in_ == 16  # the embedding's width, not that of X
    assert len(clf.cluster_table_) == 3
    assert_array_equal(clf.infer_groups(X, y), clf.group_inferrer_.labels_)
    assert_array_equal(clf.groups_, clf.group_inferrer_.groups_)
    by_class = SpuriousGroupInferrer(
        KMeansGroups(n_clusters=2, n_init=2)
    )  # every cluster has one class
    with pytest.warns(UserWarning, match="0 of 4 clusters"):
        PruSCNetwork(_net(), group_inferrer=by_class, **QUICK).fit(X, y)


def test_classes_of_unequal_number_are_weighed_in_the_balanced_set():
    """Of three classes, two meet in one cluster more than the third."""
    weight = _prusc_masks.class_weight(np.array([0, 0, 1, 1, 1, 1]), 3)
    objective = WeightedLoss(weight, by="class")
    assert_allclose(objective.weight, [1.5, 0.75, 1])  # 6 / (2 * 2), 6 / (2 * 4); none of class 2
    y = torch.tensor([0, 0, 1, 1, 1, 1])
    loss = objective.reduce(torch.ones(6), {"y": y, "weight": None}, Runtime("cpu"))
    assert loss == 1
    assert (_prusc_masks.class_weight(np.array([0, 1, 1, 0]), 2) == 1).all()


@fidelity
def test_masks_are_learned_on_the_balanced_set_alone(data, fitted, monkeypatch):
    drawn = {"masks": set(), "fine_tune": set()}
    for name, file, cls in (
        ("masks", _prusc_masks, CellBatchSampler),
        ("fine_tune", _prusc, SubsetSampler),
    ):

        class Spy(cls):
            stage = name

            def __call__(self, epoch):
                rows = super().__call__(epoch)
                drawn[self.stage] |= set(rows.tolist())
                return rows

        monkeypatch.setattr(file, cls.__name__, Spy)
    PruSCNetwork(_net(), **QUICK).fit(data[0], data[1])
    rows = set(fitted.balanced_indices_.tolist())
    assert drawn["fine_tune"] == rows
    assert drawn["masks"] <= rows
    assert len(drawn["masks"]) > len(rows) / 2


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(3, 0, 3), (2, 31, 2), (0, 12, 1)])
def test_steps_and_epochs_of_masks(data, monkeypatch, epochs, steps, expected):
    n_steps = []
    original = _prusc_masks.MaskLoss.forward

    def counted(self, *args):
        n_steps.append(1)
        return original(self, *args)

    monkeypatch.setattr(_prusc_masks.MaskLoss, "forward", counted)
    clf = PruSCNetwork(_net(), **QUICK | {"mask_epochs": epochs, "mask_steps": steps})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "sparsity 0")
        clf.fit(data[0], data[1])
    assert (clf.history_["stage"] == "masks").sum() == expected
    a_pass = -(-len(clf.balanced_indices_) // 16)
    assert len(n_steps) == max(epochs * a_pass, -(-steps // max(epochs, 1)) * max(epochs, 1))


# --------------------------------------------------------------------------------------
# Group labels


@fidelity
@pytest.mark.parametrize("early_stopping", [False, True])
def test_group_labels_are_not_needed_and_change_nothing(data, early_stopping):
    X, y, group = data
    params = QUICK | {"early_stopping": early_stopping}
    without = PruSCNetwork(_net(), **params).fit(X, y)
    permuted = np.random.default_rng(0).permutation(group)
    for given in (group, permuted, y % 1):
        clf = PruSCNetwork(_net(), **params).fit(X, y, sample_group=given)
        assert_array_equal(clf.predict_proba(X), without.predict_proba(X))
        assert all(torch.equal(clf.masks_[k], v) for k, v in without.masks_.items())
        assert_array_equal(clf.balanced_indices_, without.balanced_indices_)
        assert clf.used_group_labels_ == {"train": False, "validation": False}
        assert_array_equal(clf.groups_, np.unique(given))
        assert f"train_accuracy[{given[0]}]" in clf.history_  # they are reported
        if early_stopping:  # by the cells of what was kept aside
            column = "valid_worst_group_accuracy"
            assert_array_equal(clf.history_[column], without.history_[column])


def test_lengths_of_group_labels_are_compared(data):
    with pytest.raises(ValueError, match="sample_group has 3 rows for 400 samples"):
        PruSCNetwork(**QUICK).fit(data[0], data[1], sample_group=[0, 1, 2])


def test_validation_by_cells_or_by_given_groups(data):
    X, y, _ = data
    Xv, yv, gv = _make(200, 0.5, 9)
    clf = PruSCNetwork(_net(), **QUICK).fit(X, y, X_val=Xv, y_val=yv)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    cells = clf.infer_groups(Xv, yv)
    tuned = clf.history_[clf.history_["stage"] == "fine_tune"]
    assert clf.score(Xv, yv, sample_group=cells) == pytest.approx(
        tuned["valid_worst_group_accuracy"].max()
    )
    best = tuned[tuned["epoch"] == clf.best_epoch_].iloc[0]
    assert clf.score(Xv, yv) == pytest.approx(best["valid_accuracy"])
    for cell in np.unique(cells):
        accuracy = clf.score(Xv[cells == cell], yv[cells == cell])
        assert best[f"valid_accuracy[{cell}]"] == pytest.approx(accuracy)
    clf = PruSCNetwork(_net(), monitor="worst_group_accuracy", **QUICK)
    clf.fit(X, y, X_val=Xv, y_val=yv, sample_group_val=gv)
    assert clf.used_group_labels_ == {"train": False, "validation": True}
    assert f"valid_accuracy[{gv.max()}]" in clf.history_
    assert clf.score(Xv, yv, sample_group=gv) == pytest.approx(
        clf.history_.query("stage == 'fine_tune'")["valid_worst_group_accuracy"].max()
    )


def test_a_search_without_group_labels_goes_by_the_cells(data):
    X, y, _ = data
    search = GridSearchCV(
        PruSCNetwork(_net(), **QUICK),
        {"contrastive_weight": [0.0, 1.0]},
        scoring=make_worst_group_scorer(group_inferrer="estimator"),
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    cells = best.infer_groups(X, y)
    assert search.score(X, y) == worst_group_accuracy(y, best.predict(X), sample_group=cells)


# --------------------------------------------------------------------------------------
# The fitted network


@fidelity
def test_predictions_are_deterministic_and_those_of_the_pruned_network(data, fitted, mask_only):
    X = data[0]
    for clf in (fitted, mask_only):
        proba = clf.predict_proba(X)
        assert_array_equal(clf.predict_proba(X), proba)
        clf.module_.train()
        assert_array_equal(clf.predict_proba(X), proba)
        logits = clf.module_(torch.tensor(X)).detach().double()
        assert_allclose(logits.softmax(1), proba, atol=1e-6)
    with torch.no_grad():
        dense = mask_only.erm_module_(torch.tensor(X)).softmax(1)
    assert np.abs(mask_only.predict_proba(X) - dense.numpy()).max() > 0.01
    assert not any("parametrizations" in name for name in fitted.module_.state_dict())


@fidelity
def test_pickle_joblib_and_clone_round_trips(data, fitted, tmp_path):
    X, y, _ = data
    joblib.dump(fitted, tmp_path / "clf.joblib")
    for again in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "clf.joblib")):
        assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert_array_equal(again.infer_groups(X, y), fitted.infer_groups(X, y))
        assert all(torch.equal(again.masks_[k], v) for k, v in fitted.masks_.items())
    fresh = clone(fitted)
    assert not hasattr(fresh, "module_")
    unlike = {"module"}
    params, expected = fresh.get_params(), fitted.get_params()
    assert {k: v for k, v in params.items() if k not in unlike} == {
        k: v for k, v in expected.items() if k not in unlike
    }


@fidelity
def test_same_seed_same_masks(data, fitted, assert_global_rng_untouched):
    X, y, _ = data
    with assert_global_rng_untouched():
        again = PruSCNetwork(_net(), **QUICK).fit(X, y)
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert all(torch.equal(again.masks_[k], v) for k, v in fitted.masks_.items())
    other = PruSCNetwork(_net(), **QUICK | {"random_state": 1}).fit(X, y)
    assert not all(torch.equal(other.masks_[k], v) for k, v in fitted.masks_.items())


class StopAfter(Callback):
    """Counts epochs over all stages, and stops the fit after some."""

    def __init__(self, n_epochs=None):
        self.n_epochs, self.seen = n_epochs, 0

    def on_epoch_end(self, *, module, row):
        self.seen += 1
        if self.seen == self.n_epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("n_epochs", [2, 4, 7], ids=["erm", "masks", "fine_tune"])
def test_a_run_that_is_killed_in_any_stage_resumes(data, fitted, tmp_path, n_epochs):
    X, y, _ = data
    killed = PruSCNetwork(_net(), checkpoint_dir=tmp_path, callbacks=[StopAfter(n_epochs)], **QUICK)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(X, y)
    rest = StopAfter()
    again = PruSCNetwork(_net(), checkpoint_dir=tmp_path, callbacks=[rest], **QUICK).fit(X, y)
    assert n_epochs + rest.seen == 8
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert_array_equal(again.history_["train_loss"], fitted.history_["train_loss"])
    assert_array_equal(again.history_["stage"], fitted.history_["stage"])


# --------------------------------------------------------------------------------------
# Kinds of networks


def test_a_linear_head_becomes_a_selection_of_features(data):
    X, y, _ = data
    clf = PruSCNetwork(**QUICK).fit(X, y)
    assert type(clf.module_) is nn.Linear
    assert list(clf.masks_) == [""]
    assert 0 < clf.sparsity_ < 1
    weight = clf.module_.weight.detach().double().numpy()
    logits = X.astype(float) @ weight.T + clf.module_.bias.detach().double().numpy()
    assert_allclose(clf.decision_function(X), logits[:, 1] - logits[:, 0], rtol=1e-9, atol=1e-9)


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3)
        )
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.body(x).relu().mean((2, 3)))


def test_images_and_excluded_layers():
    bunch = make_spurious_images(200, image_size=10, correlation_strength=0.8, random_state=0)
    X, y = bunch.data, bunch.target
    params = QUICK | {"n_clusters": 2, "batch_size": 8, "exclude": ["body.0"]}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*two such clusters|.*fewer than a batch")
        clf = PruSCNetwork(Convolutions, **params).fit(X, y)
        with pytest.raises(ValueError, match=r"exclude has names .*\['layer4'\]"):
            PruSCNetwork(Convolutions, **params | {"exclude": ["layer4"]}).fit(X, y)
    assert list(clf.masks_) == ["body.3", "head"]
    assert (clf.module_.body[0].weight != 0).all()
    assert (clf.module_.body[3].weight[~clf.masks_["body.3"]] == 0).all()


class DictTexts(nn.Module):
    """Keywords in, an object with logits out; the weight of a layer is the embedding's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(64, 8, padding_idx=0)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        mean = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)

        class Output:
            logits = self.head(self.hidden(mean).tanh())

        return Output


def _tokenize(texts):
    ids = [torch.tensor([1 + ord(c) % 63 for c in text]) for text in texts]
    ids = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def test_texts_in_dict_batches():
    y = np.arange(120) % 2
    place = np.where(np.random.default_rng(0).random(120) < 0.8, y, 1 - y)
    texts = [
        ("aaa bb" if label else "zzz yy") + (" sea" * 3 if p else " land" * 2)
        for label, p in zip(y, place)
    ]
    params = QUICK | {"n_clusters": 2, "batch_size": 8}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*two such clusters|.*fewer than a batch")
        clf = PruSCNetwork(DictTexts, collate_fn=_tokenize, **params).fit(texts, y)
    assert list(clf.masks_) == ["hidden", "head"]
    assert 0 < clf.sparsity_ < 1
    assert clf.predict(texts).shape == (120,)
    assert_array_equal(clf.infer_groups(texts, y), clf.group_inferrer_.labels_)


@pytest.mark.parametrize("n", [4, 9])
def test_few_samples(n):
    X = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    clf = PruSCNetwork(**QUICK | {"n_clusters": 8})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(X, np.arange(n) % 2)
    assert clf.predict(X).shape == (n,)


def test_values_of_a_partly_known_attribute_are_the_clusters():
    X, y, group = _make(300, 0.8, seed=0)
    place = group % 2
    known = np.where(np.arange(300) % 3 > 0, place, None)
    params = QUICK | MASK_ONLY | {"early_stopping": True, "validation_fraction": 0.2}
    clf = PruSCNetwork(Net(), group_inferrer=SemiSupervisedGroupInferrer(), **params)
    clf.fit(GroupedData(X, sample_attribute=known), y)
    rows = clf.train_indices_
    assert len(rows) == 240
    cluster, is_known = clf.clusters_[rows], rows % 3 > 0
    assert_array_equal(cluster[is_known], place[rows][is_known])
    assert (cluster == place[rows]).mean() > 0.95
    assert clf.cluster_table_.to_numpy().min() > 0  # both classes in each
    clf = clf.set_params(early_stopping=False)
    clf.fit(
        GroupedData(X, sample_attribute=known),
        y,
        X_val=GroupedData(X, sample_attribute=np.zeros(300, dtype=int)),  # said to have one value
        y_val=y,
    )
    last = clf.history_.iloc[-1]
    is_there = last[[f"valid_accuracy[{k}]" for k in range(4)]].notna()
    assert is_there.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [("balanced_set", "classes"), ("variant", "hard"), ("mask_lr", 0), ("max_epochs", -1)],
)
def test_parameters_are_checked(data, name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of PruSCNetwork"):
        PruSCNetwork(**{name: value}).fit(data[0], data[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_about_the_same_network(data, fitted):
    X, y, _ = data
    clf = PruSCNetwork(_net(), device="cuda", **QUICK).fit(X, y)
    assert next(clf.module_.parameters()).device.type == "cuda"
    assert abs(clf.density_ - fitted.density_) < 0.2
    proba = clf.predict_proba(X)
    assert_allclose(clf.set_params(device="cpu").predict_proba(X), proba, atol=1e-5)
    assert pickle.loads(pickle.dumps(clf)).density_ == clf.density_


# --------------------------------------------------------------------------------------
# Effect

FULL = {
    "lr": 0.05,
    "max_epochs": 5,
    "batch_size": 64,
    "mask_epochs": 10,
    "mask_steps": 250,
    "fine_tune_epochs": 50,
    "fine_tune_lr": 0.01,
}


def _worst_and_mean(network, X, y, group):
    with torch.no_grad():
        predicted = network(torch.tensor(X)).argmax(1).numpy()
    return worst_group_accuracy(y, predicted, sample_group=group), np.mean(predicted == y)


def _compare(correlation, n_attributes=1, seeds=(0, 1, 2), **params):
    """Worst-group and mean accuracy of the first stage and of the pruned network."""
    results = []
    for seed in seeds:
        X, y, _ = _make(2000, correlation, seed, n_attributes)
        test = _make(2000, 0.5, 100 + seed, n_attributes)
        net = _net(seed, n_features=X.shape[1], width=32, norm=False)
        clf = PruSCNetwork(net, random_state=seed, **FULL | params).fit(X, y)
        results.append([_worst_and_mean(m, *test) for m in (clf.erm_module_, clf.module_)])
    return np.mean(results, axis=0)


@fidelity
def test_the_worst_group_gains_where_an_attribute_misleads():
    erm, prusc = _compare(0.95)
    assert erm[0] < 0.6
    assert prusc[0] > erm[0] + 0.05
    assert prusc[1] > 0.7


@fidelity
def test_two_attributes_at_once():
    erm, prusc = _compare(0.9, n_attributes=2, seeds=(0, 1))
    assert prusc[0] > erm[0] + 0.05
    assert prusc[1] > erm[1]


@fidelity
def test_little_is_lost_where_nothing_misleads():
    """The clusters are then those of the classes: the balanced set has what lies between them."""
    erm, prusc = _compare(0.5, seeds=(0, 1))
    assert prusc[1] > erm[1] - 0.1
