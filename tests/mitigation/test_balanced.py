"""BalancedRetrainer: by sampling, batches, subsets and weights."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare
from shortcut_data import accuracies_after_fit
from sklearn.base import BaseEstimator
from torch import nn
from torch.nn import functional as F

from skspurious import BalancedRetrainer, ERMClassifier, GroupedData
from skspurious._engine._batches import LabelledSamples
from skspurious._engine._runtime import Runtime
from skspurious.data import TensorSamples
from skspurious.group_inference import SpuriousGroupInferrer
from skspurious.group_inference._methods import METHODS
from skspurious.mitigation._balanced import _sampling_power, balanced_subset

fidelity = pytest.mark.fidelity

SIZES = [60, 25, 10, 5]


@pytest.fixture
def data():
    """Two classes, each with a large and a small group; the last feature holds the row."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), SIZES))
    X = np.column_stack([rng.normal(size=(100, 3)), np.arange(100)]).astype(np.float32)
    return X, group // 2, group


class _Scaled(nn.Module):
    """A linear network that does not look at the last feature."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x[:, :3])


class _Rows:
    """A batch transform that remembers the rows of each batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append(batch[:, -1].long().numpy())
        return batch


def _fit(data, sample_group="own", **params):
    """A fitted BalancedRetrainer and the rows of its training batches."""
    X, y, group = data
    rows = _Rows()
    shared = {"max_epochs": 1, "batch_size": 16, "lr": 0.1, "random_state": 0}
    clf = BalancedRetrainer(_Scaled, train_transform=rows, **shared | params)
    clf.fit(X, y, sample_group=group if isinstance(sample_group, str) else sample_group)
    return clf, rows.batches


def _parameters(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.module_.parameters()])


def _probabilities(clf, y, group, n_groups=None):
    """Sampling probability of every sample, as a fitted classifier gives it."""
    n_groups = group.max() + 1 if n_groups is None else n_groups
    samples = TensorSamples(torch.zeros(len(y), 1))
    train = LabelledSamples(
        samples, torch.as_tensor(y), torch.as_tensor(group), n_groups=int(n_groups)
    )
    return clf._probabilities(_fit_data(clf, train))


def _fit_data(clf, train):
    """What a method is given to train on, as far as this one looks at it."""
    return SimpleNamespace(
        train=train,
        classes=clf.classes_,
        groups=clf.groups_,
        group_inferrer=clf.group_inferrer_,
    )


# --------------------------------------------------------------------------------------
# RWG and RWY: sampling


@fidelity
def test_sampling_draws_all_groups_equally_often(data):
    _, _, group = data
    _, batches = _fit(data, max_epochs=20)
    drawn = np.concatenate(batches)
    assert len(drawn) == 20 * 100  # as many draws as samples in each epoch
    assert chisquare(np.bincount(group[drawn])).pvalue > 1e-3
    smallest = drawn[group[drawn] == 3]
    assert chisquare(np.unique(smallest, return_counts=True)[1]).pvalue > 1e-3
    assert len(np.unique(smallest)) == 5


@fidelity
def test_sampling_by_class_draws_all_classes_equally_often(data):
    _, y, _ = data
    _, batches = _fit(data, None, by="class", max_epochs=20)
    assert chisquare(np.bincount(y[np.concatenate(batches)])).pvalue > 1e-3


@fidelity
def test_sampling_probabilities_by_hand(data):
    _, y, group = data
    clf, _ = _fit(data)
    p = _probabilities(clf, y, group)
    # The weights are N / n_g: each group has the same total.
    assert_allclose(p, 1 / (4 * np.array(SIZES)[group]), rtol=1e-12)
    clf, _ = _fit(data, by="class")
    assert_allclose(_probabilities(clf, y, group), 1 / (2 * np.array([85, 15])[y]), rtol=1e-12)
    clf, _ = _fit(data, sampling_power=2.0)
    of_group = np.bincount(group, weights=_probabilities(clf, y, group))
    assert_allclose(of_group, 1 / np.array(SIZES) / sum(1 / np.array(SIZES)), rtol=1e-12)


@fidelity
def test_sampling_of_balanced_data_is_uniform():
    group = np.repeat(np.arange(4), 25)
    clf = BalancedRetrainer(max_epochs=1, random_state=0)
    clf.fit(np.zeros((100, 2)), group // 2, sample_group=group)
    assert_allclose(_probabilities(clf, group // 2, group), 1 / 100, rtol=1e-12)


@fidelity
@pytest.mark.parametrize("balance", ["sampling", "batches", "subsampling", "weights"])
def test_by_group_with_a_constant_attribute_is_by_class(data, balance):
    _, y, _ = data
    by_group, first = _fit(data, y, balance=balance)
    by_class, second = _fit(data, None, balance=balance, by="class")
    assert_array_equal(np.concatenate(first), np.concatenate(second))
    assert_array_equal(_parameters(by_group), _parameters(by_class))


@fidelity
def test_power_zero_is_erm(data):
    X, y, group = data
    balanced, _ = _fit(data, balance="weights", sampling_power=0.0, max_epochs=3)
    erm = ERMClassifier(_Scaled, max_epochs=3, batch_size=16, lr=0.1, random_state=0).fit(X, y)
    assert_array_equal(_parameters(balanced), _parameters(erm))
    clf, _ = _fit(data, sampling_power=0.0)
    assert_allclose(_probabilities(clf, y, group), 1 / 100, rtol=1e-12)


# --------------------------------------------------------------------------------------
# SUBG and SUBY: subsampling


@fidelity
def test_subsampling_keeps_as_many_of_each_group_as_the_smallest_has(data):
    _, _, group = data
    clf, batches = _fit(data, balance="subsampling", max_epochs=3)
    assert_array_equal(np.bincount(group[clf.subset_]), [5, 5, 5, 5])
    assert len(np.unique(clf.subset_)) == 20
    drawn = np.concatenate(batches).reshape(3, 20)  # an epoch is a pass over the subset
    for epoch in drawn:
        assert_array_equal(np.sort(epoch), clf.subset_)
    assert not np.array_equal(drawn[0], drawn[1])


@fidelity
def test_subsampling_by_class(data):
    _, y, _ = data
    clf, _ = _fit(data, None, balance="subsampling", by="class")
    assert_array_equal(np.bincount(y[clf.subset_]), [15, 15])


def test_a_subset_can_be_drawn_anew_for_every_epoch(data):
    *_, group = data
    epochs = [
        _fit(data, balance="subsampling", resample_each_epoch=True, max_epochs=n)[1]
        for n in (1, 150)
    ]
    one, many = [np.concatenate(batches).reshape(-1, 20) for batches in epochs]
    assert_array_equal(many[0], one[0])
    for rows in many:
        assert len(np.unique(rows)) == 20
        assert_array_equal(np.bincount(group[rows]), [5, 5, 5, 5])
    assert_array_equal(np.unique(many), np.arange(100))  # every sample has its turn
    clf, _ = _fit(data, balance="subsampling", resample_each_epoch=True)
    assert clf.subset_ is None


@fidelity
def test_subset_follows_the_seeds(data):
    def subset(**params):
        return _fit(data, balance="subsampling", **params)[0].subset_.tolist()

    assert subset() == subset()
    assert subset() != subset(random_state=1)
    assert subset(subset_seed=3) == subset(subset_seed=3, random_state=1)
    assert subset(subset_seed=3) != subset(subset_seed=4)


@fidelity
@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 2, 5]])
def test_balanced_subset_with_gaps_and_single_samples(ids):
    group = np.repeat(ids, [7, 3, 1])
    subset = balanced_subset(group, np.random.default_rng(0))
    assert_array_equal(group[subset], ids)
    # Each sample of a group is as likely as any other.
    draws = [balanced_subset(group, np.random.default_rng(i))[0] for i in range(350)]
    assert chisquare(np.bincount(draws, minlength=7)).pvalue > 1e-3


@fidelity
def test_balanced_subset_of_balanced_data_keeps_everything():
    group = np.tile([0, 1, 2], 4)
    assert_array_equal(balanced_subset(group, np.random.default_rng(0)), np.arange(12))


def test_other_ways_of_balancing_have_no_subset(data):
    assert _fit(data)[0].subset_ is None


# --------------------------------------------------------------------------------------
# Batches


@fidelity
@pytest.mark.parametrize("batch_size", [4, 10, 16])
def test_batches_hold_equally_many_of_each_group(data, batch_size):
    _, _, group = data
    _, batches = _fit(data, balance="batches", batch_size=batch_size, max_epochs=3)
    counts = np.array([np.bincount(group[batch], minlength=4) for batch in batches])
    assert (np.ptp(counts, axis=1) <= 1).all()
    drawn = np.concatenate(batches)
    for g, size in enumerate(SIZES):
        walk = drawn[group[drawn] == g]
        for start in range(0, len(walk), size):  # nothing twice before a full pass
            one_pass = walk[start : start + size]
            assert len(np.unique(one_pass)) == len(one_pass)


def test_batches_by_class(data):
    _, y, _ = data
    _, batches = _fit(data, None, balance="batches", by="class", batch_size=10)
    assert {tuple(np.bincount(y[batch])) for batch in batches} == {(5, 5)}


# --------------------------------------------------------------------------------------
# Weights


@fidelity
def test_weights_by_hand():
    # Groups of 6 and 2 of 8 samples: weights 8 / (2 * 6) and 8 / (2 * 2), of mean 1.
    group = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    X = np.random.default_rng(0).normal(size=(8, 3))
    y = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    shared = {"max_epochs": 5, "batch_size": 8, "lr": 0.3, "random_state": 0}
    clf = BalancedRetrainer(balance="weights", **shared).fit(X, y, sample_group=group)
    weight = np.where(group == 0, 8 / 12, 8 / 4)
    erm = ERMClassifier(**shared).fit(X, y, sample_weight=weight)
    assert_allclose(_parameters(clf), _parameters(erm), rtol=1e-5)


@fidelity
def test_weighted_loss_and_weighted_sampler_have_the_same_expected_gradient(data):
    X, y, group = data
    X, y = torch.from_numpy(X[:, :3]), torch.from_numpy(y)
    with torch.random.fork_rng():
        network = nn.Linear(3, 2)

    def gradient(loss):
        network.zero_grad()
        loss.backward()
        return torch.cat([p.grad.ravel() for p in network.parameters()]).numpy()

    clf, _ = _fit(data, balance="weights")
    train = LabelledSamples(TensorSamples(X), y, torch.from_numpy(group), n_groups=4)
    batch = {"X": X, "y": y, "group": train.group, "weight": None}
    loss, *_ = clf._make_objective(_fit_data(clf, train))(network, batch, Runtime("cpu"))
    expected = gradient(loss)

    clf, _ = _fit(data, balance="sampling")
    sampler = clf._make_sampler(_fit_data(clf, train), seed=0)
    draws = [gradient(F.cross_entropy(network(X[r]), y[r])) for r in map(sampler, range(400))]
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - expected) < 4.5 * error).all()
    plain = gradient(F.cross_entropy(network(X), y))
    assert (np.abs(plain - expected) > 10 * error).any()  # the test can tell them apart


def test_weights_multiply_sample_weights(data):
    X, y, group = data
    weight = np.random.default_rng(0).uniform(0.5, 2, size=100)
    shared = {"max_epochs": 3, "batch_size": 100, "lr": 0.1, "random_state": 0}
    clf = BalancedRetrainer(_Scaled, balance="weights", **shared)
    clf.fit(X, y, sample_group=group, sample_weight=weight)
    of_group = 25 / np.array(SIZES)[group]
    # The loss is sum(weight * of_group * loss) / sum(weight): a constant rate times the mean
    # weighted by the product.
    product = weight * of_group
    shared["lr"] *= product.sum() / weight.sum()
    erm = ERMClassifier(_Scaled, **shared).fit(X, y, sample_weight=product)
    assert_allclose(_parameters(clf), _parameters(erm), rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------
# Inferred groups


class _Inferrer(BaseEstimator):
    """Groups that a test chooses, with a silhouette for each class."""

    def __init__(self, labels=None, silhouette=(0.95, 0.95), classes=(0, 1), method="spare"):
        self.labels = labels
        self.silhouette = silhouette
        self.classes = classes
        self.method = method

    def fit(self, X, y):
        self.labels_ = np.asarray(self.labels)
        self.classes_ = np.asarray(self.classes)
        self.silhouette_ = np.asarray(self.silhouette)
        self.method_ = METHODS[self.method]()
        return self

    def infer_groups(self, X, y):
        return np.asarray(y) * 2


def _inferred(data, silhouette, method="spare", **params):
    X, y, group = data
    inferrer = _Inferrer(group, silhouette, method=method)
    clf = BalancedRetrainer(group_inferrer=inferrer, max_epochs=1, random_state=0, **params)
    return _probabilities(clf.fit(X, y), y, group)


@fidelity
def test_a_class_of_spare_groups_that_are_not_separated_has_the_high_power(data):
    _, y, group = data
    p = _inferred(data, [0.89, 0.9], high_power=2.0)
    # Each class has half the mass; in class 0 groups of 60 and 25 share it as 1/60 to 1/25, in
    # class 1 groups of 10 and 5 as 1 to 1.
    of_group = np.bincount(group, weights=p)
    first = 25 / 85 / 2
    assert_allclose(of_group, [first, 0.5 - first, 0.25, 0.25], rtol=1e-12)
    assert_allclose(np.bincount(y, weights=p), [0.5, 0.5])
    # with power 0 in class 1, as 10 to 5; the threshold is then above its silhouette alone
    p = _inferred(data, [0.9, 0.8], silhouette_threshold=0.85, high_power=0.0)
    assert_allclose(np.bincount(group, weights=p), [0.25, 0.25, 1 / 3, 1 / 6], rtol=1e-12)
    # a head has power 1 by default
    assert_allclose(np.bincount(group, weights=_inferred(data, [0.89, 0.9])), 0.25, rtol=1e-12)
    # a class that is one group has power 1, and so have the groups of all other methods
    p = _inferred(data, [np.nan, 0.8], high_power=0.0)
    assert_allclose(np.bincount(group, weights=p), [0.25, 0.25, 1 / 3, 1 / 6], rtol=1e-12)
    for method in ("kmeans", "gmm", "dispersion", "error"):
        p = _inferred(data, [0.1, 0.1], method)
        assert_allclose(np.bincount(group, weights=p), 0.25)


@fidelity
def test_spare_groups_of_early_outputs_give_the_sampling_probabilities():
    rng = np.random.default_rng(0)
    attribute = np.repeat(np.arange(5), (900, 30, 20, 10, 10))

    def outputs(peak):
        logits = peak * np.eye(5)[attribute] + rng.normal(size=(970, 5))
        return torch.from_numpy(logits).softmax(1).numpy().astype(np.float32)

    Z, y = np.concatenate([outputs(3.0), outputs(7.0)]), np.repeat(["b", "a"], 970)
    inferrer = SpuriousGroupInferrer("spare", random_state=0).fit(Z, y)
    assert inferrer.silhouette_[1] < 0.9 <= inferrer.silhouette_[0]
    data = GroupedData(Z, inferrer.labels_, group_inferrer=inferrer)
    clf = BalancedRetrainer(max_epochs=1, high_power=2.0, random_state=0).fit(data, y)
    p = _probabilities(clf, np.searchsorted(clf.classes_, y), inferrer.labels_)
    mass = np.bincount(inferrer.labels_, weights=p)
    n_good = inferrer.n_clusters_[0]
    assert_allclose(mass[:n_good], 0.5 / n_good)  # class "a", power 1: equal mass
    inverse = 1.0 / inferrer.cluster_sizes_[n_good:]
    assert_allclose(mass[n_good:], 0.5 * inverse / inverse.sum())  # class "b", power 2


def test_sampling_power_by_hand():
    silhouette = np.array([0.95, 0.9, 0.89, np.nan])
    power = _sampling_power(silhouette, threshold=0.9, high_power=2.0)
    assert_array_equal(power, [1.0, 1.0, 2.0, 1.0])


@fidelity
def test_class_balance_of_inferred_groups_is_on_unless_it_is_turned_off(data):
    _, _, group = data
    of_group = np.bincount(
        group, weights=_inferred(data, [0.5, 0.95], class_balanced=False, high_power=2.0)
    )
    by_hand = np.array([1 / 60, 1 / 25, 1, 1])
    assert_allclose(of_group, by_hand / by_hand.sum(), rtol=1e-12)
    # A power of one's own wins.
    of_group = np.bincount(group, weights=_inferred(data, [0.5, 0.5], sampling_power=0.0))
    assert_allclose(of_group, [60 / 170, 25 / 170, 10 / 30, 5 / 30], rtol=1e-12)


@fidelity
def test_power_zero_inside_balanced_classes_is_class_balanced_erm(data):
    _, y, group = data
    clf, _ = _fit(data, sampling_power=0.0, class_balanced=True)
    assert_allclose(_probabilities(clf, y, group), 1 / (2 * np.array([85, 15])[y]), rtol=1e-12)


def test_powers_belong_to_the_classes_of_the_inferrer(data):
    X, y, group = data
    # The inferrer saw a third class, before those of the training samples.
    inferrer = _Inferrer(group, [0.95, 0.5, 0.95], classes=[-1, 0, 1]).fit(X, y)
    clf = BalancedRetrainer(max_epochs=1, random_state=0)
    clf.fit(GroupedData(X, group, group_inferrer=inferrer), y)
    assert_allclose(_probabilities(clf, y, group), _inferred(data, [0.5, 0.95]), rtol=1e-12)


def test_inferred_groups_in_batches_and_subsets_are_equally_many(data):
    X, y, group = data
    inferrer = _Inferrer(group, [0.5, 0.95])
    shared = {"group_inferrer": inferrer, "max_epochs": 1, "random_state": 0}
    clf = BalancedRetrainer(balance="subsampling", **shared).fit(X, y)
    assert_array_equal(np.bincount(group[clf.subset_]), [5, 5, 5, 5])


# --------------------------------------------------------------------------------------
# Effect


EFFECT = {"max_epochs": 15, "lr": 0.05, "weight_decay": 1e-2}


@fidelity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_worst_group_is_far_above_that_of_erm(seed):
    # Best possible in every group: 0.894.
    erm, _ = accuracies_after_fit(ERMClassifier(random_state=seed, **EFFECT), 0.95, seed)
    for balance in ("sampling", "batches", "subsampling", "weights"):
        clf = BalancedRetrainer(balance=balance, random_state=seed, **EFFECT)
        worst, _ = accuracies_after_fit(clf, 0.95, seed)
        assert worst > erm + 0.2, balance
        assert worst > 0.8, balance


def test_without_a_shortcut_little_is_lost():
    erm = accuracies_after_fit(ERMClassifier(random_state=0, **EFFECT), 0.5, 0)
    for balance in ("sampling", "batches", "subsampling", "weights"):
        clf = BalancedRetrainer(balance=balance, random_state=0, **EFFECT)
        assert_allclose(accuracies_after_fit(clf, 0.5, 0), erm, atol=0.05)


# --------------------------------------------------------------------------------------
# Edges and errors


@fidelity
@pytest.mark.parametrize("balance", ["sampling", "batches", "subsampling", "weights"])
def test_group_without_training_samples_warns_and_the_others_are_balanced(data, balance):
    X, y, group = data
    valid = {"X_val": X, "y_val": y, "sample_group_val": np.where(np.arange(100) < 9, 7, group)}
    rows = _Rows()
    clf = BalancedRetrainer(
        _Scaled, balance=balance, train_transform=rows, max_epochs=1, batch_size=16, random_state=0
    )
    with pytest.warns(UserWarning, match=r"1 groups have no training sample, among them \[7\]"):
        clf.fit(X, y, sample_group=group, **valid)
    assert np.isfinite(_parameters(clf)).all()
    assert_allclose(
        _probabilities(clf, y, group, n_groups=5), 1 / (4 * np.array(SIZES)[group]), rtol=1e-12
    )
    drawn = np.concatenate(rows.batches)
    if balance != "weights":
        share = np.bincount(group[drawn], minlength=4) / len(drawn)
        assert_allclose(share, 0.25, atol=0.15)


def test_balancing_inside_classes_needs_nested_groups(data):
    X, y, group = data
    crossing = group % 2
    with pytest.raises(ValueError, match=r"needs groups nested in them.*make_sample_group"):
        _fit(data, crossing, class_balanced=True)
    clf = BalancedRetrainer(group_inferrer=_Inferrer(crossing, [0.95, 0.5]), class_balanced=False)
    with pytest.raises(ValueError, match=r"needs groups nested in them.*sampling_power"):
        clf.fit(X, y)


def test_groups_are_needed_by_group_and_not_by_class(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="needs the group of every training sample"):
        BalancedRetrainer(max_epochs=1).fit(X, y)
    clf = BalancedRetrainer(by="class", max_epochs=1, random_state=0).fit(X, y)
    assert clf.used_group_labels_ == {"train": False, "validation": False}


@fidelity
def test_used_group_labels_tells_which_group_labels_were_used(data):
    X, y, group = data

    def used(group_inferrer=None, early_stopping=False, **fit):
        clf = BalancedRetrainer(
            group_inferrer=group_inferrer,
            early_stopping=early_stopping,
            max_epochs=1,
            random_state=0,
        )
        return clf.fit(X, y, **fit).used_group_labels_

    inferrer = _Inferrer(group)
    assert used(sample_group=group) == {"train": True, "validation": False}
    assert used(sample_group=group, early_stopping=True) == {"train": True, "validation": True}
    assert used(inferrer, early_stopping=True) == {"train": False, "validation": False}
    valid = {"X_val": X, "y_val": y}
    assert used(inferrer, sample_group_val=group, **valid) == {"train": False, "validation": True}
    assert used(inferrer, **valid) == {"train": False, "validation": False}
    carried = GroupedData(X, group)  # for the score; the inferrer's are for the fit
    assert used(inferrer, X_val=carried, y_val=y) == {"train": False, "validation": False}
    assert used(X_val=carried, y_val=y, sample_group=group) == {"train": True, "validation": True}
