"""GroupDROClassifier against the published algorithm; each item of its acceptance list."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare
from shortcut_data import accuracies_after_fit
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import nn
from torch.nn import functional as F

from skspurious import ERMClassifier, GroupDROClassifier, SpuriousGroupInferrer
from skspurious._engine._runtime import Runtime
from skspurious._engine._samplers import BalancedBatchSampler, UniformSampler, WeightedSampler
from skspurious.group_inference import KMeansGroups
from skspurious.mitigation._group_dro import _GroupDROLoss

fidelity = pytest.mark.fidelity

RUNTIME = Runtime("cpu")
SIZES = [60, 25, 10, 5]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), SIZES))
    X = rng.normal(size=(100, 5)).astype(np.float32)
    y = (X[:, 0] + 0.7 * rng.normal(size=100) > 0).astype(int)
    return X, y, group


@pytest.fixture
def network():
    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))

    return make


def _loss(sizes=(60, 25, 10, 5), adjustment=0.0, step_size=0.1, absent="zero", **options):
    adjustment = np.broadcast_to(adjustment, len(sizes)).copy()
    options |= {"step_size": step_size, "absent_group": absent}
    return _GroupDROLoss(np.array(sizes), adjustment, **options)


def _reduce(objective, losses, group, weight=None):
    losses = torch.as_tensor(losses, dtype=torch.float32)
    batch = {"group": torch.as_tensor(group), "weight": weight}
    return objective.reduce(losses, batch, RUNTIME)


def _q(objective):
    return objective.log_q.exp().numpy()


def _parameters(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.module_.parameters()])


# --------------------------------------------------------------------------------------
# By hand


@fidelity
def test_one_step_by_hand():
    # Groups 0 and 1 have mean losses 2 and 1, groups 2 and 3 no sample: loss 0. With eta = ln 2
    # the weights become 4 : 2 : 1 : 1, and these, not the old ones, weigh the losses.
    objective = _loss(step_size=math.log(2))
    loss = _reduce(objective, [1.0, 3.0, 1.0], [0, 0, 1])
    assert_allclose(_q(objective), np.array([4, 2, 1, 1]) / 8, rtol=1e-6)
    assert_allclose(loss, 4 / 8 * 2 + 2 / 8 * 1, rtol=1e-6)
    # log q = ln(1/4) + ln 2 * 2 - ln 2; q persists: the next step starts there.
    _reduce(objective, [1.0], [3])
    assert_allclose(_q(objective), np.array([4, 2, 1, 2]) / 9, rtol=1e-6)


@fidelity
def test_adjustment_by_hand():
    # C / sqrt(n) = 6 / sqrt(4) = 3 and 6 / sqrt(9) = 2; exp(eta * (1 + 3 - 1 - 2)) = e.
    objective = _loss(sizes=(4, 9), adjustment=6.0, step_size=1.0)
    loss = _reduce(objective, [1.0, 1.0], [0, 1])
    assert_allclose(_q(objective), np.array([math.e, 1]) / (math.e + 1), rtol=1e-6)
    assert_allclose(loss, 1.0, rtol=1e-6)  # sum_g q_g L_g, without the adjustment


@fidelity
def test_absent_group_policies_by_hand():
    # Adjustment 2 for all; sizes 4 and 1: the adjustments are 1 and 2. First both groups with
    # losses 1 and 5, then only group 0, with a loss of 3. eta = 0.5.
    def run(absent):
        objective = _loss(sizes=(4, 1), adjustment=2.0, step_size=0.5, absent=absent)
        _reduce(objective, [1.0, 5.0], [0, 1])
        _reduce(objective, [3.0], [0])
        return math.log(_q(objective)[1] / _q(objective)[0]) / 0.5

    first = (5 + 2) - (1 + 1)
    assert_allclose(run("zero"), first + (0 + 2) - (3 + 1), rtol=1e-5)
    assert_allclose(run("skip"), first + 0 - (3 + 1), rtol=1e-5)
    assert_allclose(run("ema"), first + (5 + 2) - (3 + 1), rtol=1e-5)


def test_ema_of_an_absent_group_is_its_running_mean():
    objective = _loss(sizes=(5, 5), step_size=1.0, absent="ema")
    _reduce(objective, [1.0, 2.0], [0, 1])
    _reduce(objective, [0.0, 4.0], [0, 1])  # running mean of group 1: 0.9 * 2 + 0.1 * 4 = 2.2
    before = math.log(_q(objective)[1] / _q(objective)[0])
    _reduce(objective, [0.0], [0])
    assert_allclose(math.log(_q(objective)[1] / _q(objective)[0]) - before, 2.2, rtol=1e-5)


def test_cvar_weights_follow_running_means_by_hand():
    # Shares 1/2, 1/4, 1/4 and alpha 1/2: the worst group takes 1/2, the next 1/2.
    objective = _loss(sizes=(4, 2, 2), cvar_alpha=0.5)
    loss = _reduce(objective, [1.0, 3.0, 2.0], [0, 1, 2])
    assert_allclose(_q(objective), [0, 0.5, 0.5])
    assert_allclose(loss, 0.5 * 3 + 0.5 * 2)
    # One batch with a loss of 4 moves group 0 to 0.9 * 1 + 0.1 * 4 = 1.3; the others stay.
    _reduce(objective, [4.0], [0])
    assert_allclose(objective.running_loss, [1.3, 3.0, 2.0])
    assert_allclose(_q(objective), [0, 0.5, 0.5])
    # An adjustment of 2 * 2 / sqrt(4) lifts it over both: it may take all of the weight.
    objective.adjustment[0] = 4.0
    _reduce(objective, [1.3], [0])
    assert_allclose(_q(objective), [1, 0, 0])


@fidelity
def test_automatic_adjustment_is_the_gap_of_validation_and_training_by_hand():
    objective = _loss(sizes=(4, 25), adjusts_itself=True)
    _reduce(objective, [1.0, 2.0], [0, 1])
    objective.end_epoch({"valid_loss_group_0": 1.5, "valid_loss_group_1": 1.0})
    assert_allclose(objective.adjustment, [0.5 * 2, -1.0 * 5])
    _reduce(objective, [2.0], [0])  # running mean 0.9 * 1 + 0.1 * 2
    objective.end_epoch({"valid_loss_group_0": 1.5, "valid_loss_group_1": np.nan})
    assert_allclose(objective.adjustment, [0.4 * 2, -1.0 * 5], rtol=1e-6)  # nothing known: kept


# --------------------------------------------------------------------------------------
# Reference: the published algorithm, in probability space, group by group


def _reference_group_dro(network, X, y, group, plans, batch_size, *, sizes, C, eta, lr):
    """The algorithm of the paper's code: a group absent from a batch has a loss of 0."""
    X, y, group = torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(group)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    q = [1 / len(sizes)] * len(sizes)
    for plan in plans:
        for rows in plan.split(batch_size):
            losses = F.cross_entropy(network(X[rows]), y[rows], reduction="none")
            group_loss = [
                losses[group[rows] == g].mean() if (group[rows] == g).any() else torch.tensor(0.0)
                for g in range(len(sizes))
            ]
            q = [
                p * math.exp(eta * (loss.item() + C / math.sqrt(n)))
                for p, loss, n in zip(q, group_loss, sizes)
            ]
            q = [p / sum(q) for p in q]
            optimizer.zero_grad()
            sum(p * loss for p, loss in zip(q, group_loss)).backward()
            optimizer.step()
    return q


@fidelity
@pytest.mark.parametrize("adjustment", [0.0, 3.0, -2.0])
@pytest.mark.parametrize("balance", [None, "sampling", "batches"])
def test_policy_zero_reproduces_the_published_algorithm(data, network, balance, adjustment):
    X, y, group = data
    clf = GroupDROClassifier(
        network(),
        step_size=0.2,
        adjustment=adjustment,
        balance=balance,
        lr=0.1,
        max_epochs=5,
        batch_size=8,  # the smallest groups are absent from many batches
        random_state=0,
    ).fit(X, y, sample_group=group)
    seed = int(check_random_state(0).randint(2**31 - 1, size=5)[3])
    sampler = {
        None: UniformSampler(100, seed=seed),
        "sampling": WeightedSampler(1 / np.array(SIZES)[group], seed=seed),
        "batches": BalancedBatchSampler(group, batch_size=8, seed=seed),
    }[balance]
    by_hand, plans = network(), [sampler(epoch) for epoch in range(5)]
    q = _reference_group_dro(
        by_hand, X, y, group, plans, 8, sizes=SIZES, C=adjustment, eta=0.2, lr=0.1
    )
    assert_allclose(clf.group_weights_, q, rtol=1e-4)
    expected = np.concatenate([p.detach().numpy().ravel() for p in by_hand.parameters()])
    assert_allclose(_parameters(clf), expected, rtol=1e-3, atol=1e-5)
    columns = [f"group_weight[{g}]" for g in range(4)]
    assert_allclose(clf.history_[columns].iloc[-1].astype(float), q, rtol=1e-4)


# --------------------------------------------------------------------------------------
# Laws


@fidelity
def test_step_size_zero_descends_the_mean_of_group_losses(data):
    X, y, group = data
    objective = _loss(step_size=0.0, adjustment=5.0)
    losses = np.random.default_rng(0).exponential(size=100)
    loss = _reduce(objective, losses, group)
    assert_allclose(loss, np.mean([losses[group == g].mean() for g in range(4)]), rtol=1e-5)
    assert_allclose(_q(objective), 0.25)
    clf = GroupDROClassifier(step_size=0.0, adjustment=5.0, random_state=0)
    assert_allclose(clf.fit(X, y, sample_group=group).group_weights_, 0.25, rtol=1e-6)


@fidelity
def test_one_group_is_erm(data, network):
    X, y, _ = data
    shared = {"max_epochs": 4, "batch_size": 16, "lr": 0.1, "random_state": 0}
    erm = ERMClassifier(network(), **shared).fit(X, y)
    dro = GroupDROClassifier(network(), balance=None, step_size=1.0, adjustment=3.0, **shared)
    dro.fit(X, y, sample_group=np.zeros(100))
    assert_allclose(_parameters(dro), _parameters(erm), rtol=1e-4, atol=1e-6)
    assert dro.group_weights_.tolist() == [1.0]


@fidelity
def test_derivative_of_the_loss_is_q_over_count():
    rng = np.random.default_rng(0)
    group = torch.as_tensor(rng.integers(0, 3, size=30))  # group 3 is absent
    gradients = []
    for adjustment in (0.0, 7.0):
        objective = _loss(adjustment=adjustment, step_size=0.0)
        objective.log_q.copy_(torch.tensor([0.1, 0.4, 0.3, 0.2]).log())
        losses = torch.as_tensor(rng.exponential(size=30), dtype=torch.float32).requires_grad_()
        _reduce(objective, losses, group).backward()
        counts = torch.bincount(group, minlength=4)
        assert_allclose(losses.grad, (objective.log_q.exp() / counts)[group], rtol=1e-5)
        assert not objective.log_q.requires_grad
        gradients.append(losses.grad)
    assert_allclose(gradients[0], gradients[1], rtol=1e-6)  # for a fixed q, whatever C


@pytest.mark.parametrize("cvar_alpha", [None, 0.6])
def test_derivative_of_the_value_of_a_head(cvar_alpha):
    """The update of q that a fit of the head goes through has the gradient that it is told."""

    class Head:
        calls = ()

        def minimise(self, reduce, tolerance):
            up, down = (torch.stack([reduce(losses + h)[0] for h in s * steps]) for s in (1, -1))
            self.calls = (*self.calls, ((up - down) / 2e-6, reduce(losses)[1]))
            return losses

    batch = {"group": torch.tensor([0, 1, 1, 2]), "weight": torch.tensor([1.0, 1, 3, 2]).double()}
    losses = torch.tensor([0.9, 0.902, 0.91, 0.905]).double()
    steps = 1e-6 * torch.eye(4).double()
    head = Head()
    _loss((40, 60, 80), 0.1, cvar_alpha=cvar_alpha).fit_head(head, batch, None)
    for slope, coefficients in head.calls[:2]:  # q starts uniform, and then is not
        assert_allclose(slope, coefficients, atol=1e-6)
        assert coefficients.sum() == pytest.approx(1.0)  # a mean of the groups' means
        assert (coefficients > 0.01).all()
    assert len(head.calls) > 1


@fidelity
def test_adjustment_enters_neither_gradient_nor_logged_losses(data, network):
    X, y, group = data
    shared = {"step_size": 0.0, "max_epochs": 3, "lr": 0.1, "random_state": 0}
    plain = GroupDROClassifier(network(), **shared).fit(X, y, sample_group=group)
    adjusted = GroupDROClassifier(network(), adjustment=50.0, **shared)
    adjusted.fit(X, y, sample_group=group)
    assert_array_equal(_parameters(adjusted), _parameters(plain))
    assert_array_equal(adjusted.history_["train_loss"], plain.history_["train_loss"])


@fidelity
@pytest.mark.parametrize("C", [4.0, 0.0, -4.0])
def test_equal_losses_give_the_smallest_group_the_largest_weight_iff_C_is_positive(C):
    objective = _loss(adjustment=C)
    for _ in range(10):
        _reduce(objective, np.ones(8), np.arange(8) % 4)
    q = _q(objective)
    if C == 0:
        assert_allclose(q, 0.25, rtol=1e-5)
    else:
        assert q.argmax() == (3 if C > 0 else 0)  # SIZES fall with the id
        assert (np.diff(q) * C > 0).all()


@fidelity
def test_one_negative_adjustment_does_not_disable_the_others():
    objective = _loss(sizes=(4, 4, 4), adjustment=[2.0, 0.0, -2.0], step_size=1.0)
    _reduce(objective, np.ones(3), np.arange(3))
    assert_allclose(np.log(_q(objective) / _q(objective)[1]), [1.0, 0.0, -1.0], atol=1e-5)


@fidelity
@pytest.mark.parametrize("absent", ["zero", "skip", "ema"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_weights_stay_a_distribution(absent, scale):
    rng = np.random.default_rng(0)
    objective = _loss(sizes=(60, 25, 10, 5, 0), adjustment=1.0, absent=absent)
    for _ in range(100):
        loss = _reduce(objective, scale * rng.exponential(size=3), rng.integers(0, 4, size=3))
        assert torch.isfinite(loss)
        q = _q(objective)
        assert (q >= 0).all()
        assert_allclose(q.sum(), 1.0, rtol=1e-5)
        assert q[4] == 0  # never occurs in training


@fidelity
def test_skip_keeps_the_ratios_among_absent_groups():
    objective = _loss(absent="skip", adjustment=3.0)
    objective.log_q.copy_(torch.tensor([0.1, 0.4, 0.3, 0.2]).log())
    _reduce(objective, [5.0, 1.0], [0, 0])
    q = _q(objective)
    assert_allclose(q[1:] / q[1], [1.0, 0.75, 0.5], rtol=1e-5)
    assert q[0] > 0.1


@fidelity
def test_group_that_occurs_only_in_validation_has_weight_zero(data):
    X, y, group = data
    clf = GroupDROClassifier(max_epochs=2, adjustment=3.0, random_state=0)
    clf.fit(
        X,
        y,
        sample_group=group,
        X_val=X,
        y_val=y,
        sample_group_val=np.where(np.arange(100) < 9, 7, group),
    )
    assert clf.groups_.tolist() == [0, 1, 2, 3, 7]
    assert clf.group_weights_[4] == 0
    assert_allclose(clf.group_weights_.sum(), 1.0, rtol=1e-6)
    assert np.isfinite(_parameters(clf)).all()
    assert not np.isnan(clf.history_["valid_accuracy[7]"]).any()


@fidelity
def test_evaluation_does_not_move_the_weights(data, network):
    X, y, group = data
    shared = {"step_size": 0.5, "max_epochs": 3, "monitor": None, "random_state": 0}
    without = GroupDROClassifier(network(), **shared).fit(X, y, sample_group=group)
    looking = GroupDROClassifier(network(), **shared)
    looking.fit(X, y, sample_group=group, X_val=X[::2], y_val=y[::2], sample_group_val=group[::2])
    assert_array_equal(looking.group_weights_, without.group_weights_)
    assert_array_equal(_parameters(looking), _parameters(without))
    looking.predict(X)
    looking.score(X, y, sample_group=group)
    assert_array_equal(looking.group_weights_, without.group_weights_)


@fidelity
def test_weights_are_saved_and_restored():
    objective, restored = _loss(absent="ema"), _loss(absent="ema")
    _reduce(objective, [1.0, 3.0], [0, 1])
    restored.load_state_dict(objective.state_dict())
    for one in (objective, restored):
        _reduce(one, [2.0], [2])
    assert_array_equal(_q(restored), _q(objective))


@fidelity
def test_minimax_point_of_two_quadratics():
    # Losses (t - 1)^2 and (t + 1)^2 + 1 are equal where -4 t = 1: the minimax point is t = -1/4.
    # Group 0 has 95 of 100 samples; the mean loss is least at t = 0.9.
    group = torch.arange(100).ge(95).long()

    def losses(t):
        return torch.where(group == 0, (t - 1) ** 2, (t + 1) ** 2 + 1)

    def descend(reduce):
        t = nn.Parameter(torch.tensor(0.0))
        optimizer, total = torch.optim.SGD([t], lr=0.02), 0.0
        for step in range(700):
            optimizer.zero_grad()
            reduce(losses(t)).backward()
            optimizer.step()
            total += t.item() if step >= 200 else 0.0
        return total / 500

    objective = _loss(sizes=(95, 5), step_size=0.05)
    t = descend(lambda values: _reduce(objective, values, group))
    assert_allclose(t, -0.25, atol=0.02)
    of_group = losses(torch.tensor(t))
    assert_allclose(of_group[0], of_group[-1], rtol=0.03)
    assert_allclose(descend(torch.mean), 0.9, atol=0.01)


def test_weights_of_samples_act_inside_their_group():
    objective = _loss(sizes=(5, 5), step_size=0.0)
    # Mean of group 0 with weights 3 and 1: (3 * 1 + 1 * 5) / 4 = 2; group 1: 4.
    loss = _reduce(objective, [1.0, 5.0, 4.0], [0, 0, 1], torch.tensor([3.0, 1.0, 0.5]))
    assert_allclose(loss, 0.5 * 2 + 0.5 * 4, rtol=1e-6)


def test_renaming_the_groups_changes_nothing(data, network):
    X, y, group = data
    names = np.array(["w", "z", "a", "m"])
    shared = {"balance": None, "step_size": 0.5, "max_epochs": 3, "random_state": 0}
    numbered = GroupDROClassifier(network(), **shared).fit(X, y, sample_group=group)
    named = GroupDROClassifier(network(), **shared).fit(X, y, sample_group=names[group])
    assert named.groups_.tolist() == sorted(names)
    order = np.argsort(names)
    assert_allclose(named.group_weights_, numbered.group_weights_[order], rtol=1e-5)
    assert_allclose(_parameters(named), _parameters(numbered), rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------
# Batches


class _Recorder:
    """A batch transform that remembers the last feature: there the data hold the group."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch):
        self.batches.append(batch[:, -1].long())
        return batch


def _recorded(balance, **params):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), SIZES)
    X = np.column_stack([rng.normal(size=(100, 2)), group]).astype(np.float32)
    recorder = _Recorder()
    clf = GroupDROClassifier(
        balance=balance, train_transform=recorder, batch_size=10, lr=1e-3, **params
    )
    clf.fit(X, np.arange(100) % 2, sample_group=group)
    return recorder.batches


@fidelity
def test_balanced_sampling_draws_all_groups_equally_often():
    batches = _recorded("sampling", max_epochs=20, random_state=0)
    drawn = torch.cat(batches)
    assert len(drawn) == 20 * 100
    assert chisquare(torch.bincount(drawn)).pvalue > 1e-3
    # As many draws as samples, the same for a seed, others in each epoch.
    again = torch.cat(_recorded("sampling", max_epochs=2, random_state=0))
    assert torch.equal(again, drawn[:200])
    assert not torch.equal(again[:100], again[100:])
    assert not torch.equal(torch.cat(_recorded("sampling", max_epochs=2, random_state=1)), again)


def test_balanced_batches_hold_all_groups():
    for batch in _recorded("batches", max_epochs=3, random_state=0):
        counts = torch.bincount(batch, minlength=4)
        assert counts.max() - counts.min() <= 1


def test_unbalanced_batches_take_every_sample_once():
    drawn = torch.cat(_recorded(None, max_epochs=1, random_state=0))
    assert torch.bincount(drawn).tolist() == SIZES


# --------------------------------------------------------------------------------------
# Effect


EFFECT = {"max_epochs": 15, "lr": 0.05, "weight_decay": 1e-2}


@pytest.mark.parametrize("balance", ["sampling", "batches", None])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_worst_group_is_far_above_that_of_erm(seed, balance):
    # Best possible in every group: 0.894. The step size makes up for the small groups' share.
    erm, _ = accuracies_after_fit(ERMClassifier(random_state=seed, **EFFECT), 0.95, seed)
    dro = GroupDROClassifier(balance=balance, step_size=0.1, random_state=seed, **EFFECT)
    worst, _ = accuracies_after_fit(dro, 0.95, seed)
    assert worst > erm + 0.15
    assert worst > 0.65


def test_without_a_shortcut_little_is_lost():
    for seed in (0, 1):
        erm = accuracies_after_fit(ERMClassifier(random_state=seed, **EFFECT), 0.5, seed)
        dro = GroupDROClassifier(step_size=0.1, random_state=seed, **EFFECT)
        assert_allclose(accuracies_after_fit(dro, 0.5, seed), erm, atol=0.04)


# --------------------------------------------------------------------------------------
# Parameters and errors


def test_adjustment_can_be_given_by_group(data):
    X, y, group = data
    names = np.array(["a", "b", "c", "d"])[group]

    def weights(adjustment):
        clf = GroupDROClassifier(adjustment=adjustment, max_epochs=2, random_state=0)
        return clf.fit(X, y, sample_group=names).group_weights_

    by_name = weights({"d": 40.0, "a": 0.0, "b": -1.0, "c": 2.5})
    assert_array_equal(by_name, weights([0.0, -1.0, 2.5, 40.0]))
    assert by_name.argmax() == 3
    with pytest.raises(ValueError, match=r"adjustment has no value for the groups \['b', 'c'\]"):
        weights({"a": 1.0, "d": 1.0})
    with pytest.raises(ValueError, match=r"adjustment has shape \(3,\).* the 4 groups"):
        weights([1.0, 2.0, 3.0])


@fidelity
@pytest.mark.parametrize("source", ["X_val", "early_stopping", "inferred"])
def test_automatic_adjustment_with_each_source_of_validation_groups(data, source):
    X, y, group = data
    params = {"max_epochs": 3, "adjustment": "auto", "random_state": 0, "monitor": None}
    if source == "X_val":
        clf = GroupDROClassifier(**params)
        clf.fit(X, y, sample_group=group, X_val=X[:60], y_val=y[:60], sample_group_val=group[:60])
    elif source == "early_stopping":
        clf = GroupDROClassifier(early_stopping=True, validation_fraction=0.3, **params)
        clf.fit(X, y, sample_group=group)
    else:
        inferrer = SpuriousGroupInferrer(KMeansGroups(n_clusters=2), random_state=0)
        clf = GroupDROClassifier(group_inferrer=inferrer, **params)
        clf.fit(X, y, X_val=X[:60], y_val=y[:60])
    assert clf.adjustment_.shape == clf.groups_.shape
    assert np.isfinite(clf.adjustment_).all()
    assert (clf.adjustment_ != 0).any()
    fixed = clone(clf).set_params(adjustment=0.0)
    assert (fixed.fit(X, y, sample_group=group).adjustment_ == 0).all()


@fidelity
def test_automatic_adjustment_after_an_epoch_of_one_batch(data, network):
    """The running means are the losses of the initial network, then validation sees the next."""
    X, y, group = data
    rows = np.arange(0, 100, 2)

    def group_losses(module, rows):
        with torch.no_grad():
            logits = module(torch.from_numpy(X[rows]))
        losses = F.cross_entropy(logits, torch.from_numpy(y[rows]), reduction="none").numpy()
        return np.array([losses[group[rows] == g].mean() for g in range(4)])

    clf = GroupDROClassifier(
        network, adjustment="auto", balance=None, batch_size=100, max_epochs=1, lr=0.5
    ).fit(X, y, sample_group=group, X_val=X[rows], y_val=y[rows], sample_group_val=group[rows])
    before, after = group_losses(network(), np.arange(100)), group_losses(clf.module_, rows)
    assert_allclose(clf.history_[[f"valid_loss[{g}]" for g in range(4)]].iloc[0], after, rtol=1e-5)
    assert_allclose(clf.adjustment_, (after - before) * np.sqrt(SIZES), rtol=1e-4)


@pytest.mark.parametrize("params", [{"adjustment": "auto"}, {"update": "cvar"}])
def test_a_resumed_run_has_its_adjustment_and_its_running_means(
    data, tmp_path, interrupt_after, params
):
    X, y, group = data
    clf = GroupDROClassifier(max_epochs=4, batch_size=20, random_state=0, **params)
    fit = {"sample_group": group, "X_val": X[::2], "y_val": y[::2], "sample_group_val": group[::2]}
    whole = clone(clf).fit(X, y, **fit)
    clf.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        clone(clf).set_params(callbacks=[interrupt_after(2)]).fit(X, y, **fit)
    resumed = clf.fit(X, y, **fit)
    assert_array_equal(resumed.adjustment_, whole.adjustment_)
    assert_array_equal(resumed.group_weights_, whole.group_weights_)
    assert_array_equal(_parameters(resumed), _parameters(whole))


def test_automatic_adjustment_needs_validation_groups(data):
    X, y, group = data
    clf = GroupDROClassifier(adjustment="auto", max_epochs=1)
    with pytest.raises(ValueError, match="needs the losses of validation groups"):
        clf.fit(X, y, sample_group=group)
    with pytest.raises(ValueError, match="needs the losses of validation groups"):
        clf.fit(X, y, sample_group=group, X_val=X, y_val=y)
    clf.set_params(group_inferrer=SpuriousGroupInferrer(KMeansGroups(n_clusters=2)))
    with pytest.raises(ValueError, match="one side has given groups"):
        clf.fit(X, y, X_val=X, y_val=y, sample_group_val=group)


@fidelity
def test_cvar_of_all_samples_is_erm(data, network):
    """With alpha 1 a group's weight is its share; batches of all samples make it exact."""
    X, y, group = data
    params = {"max_epochs": 3, "batch_size": 100, "lr": 0.1, "random_state": 0}
    clf = GroupDROClassifier(network, update="cvar", cvar_alpha=1.0, balance=None, **params)
    clf.fit(X, y, sample_group=group)
    assert_allclose(clf.group_weights_, np.bincount(group) / len(group), rtol=1e-6)
    erm = ERMClassifier(network, **params).fit(X, y)
    assert_allclose(_parameters(clf), _parameters(erm), rtol=1e-4, atol=1e-6)


def test_groups_are_needed(data):
    X, y, _ = data
    with pytest.raises(ValueError, match="needs the group of every training sample") as raised:
        GroupDROClassifier().fit(X, y)
    for way in ("sample_group=g", "GroupedData(X, g)", "group_inferrer="):
        assert way in str(raised.value)


def test_balanced_batches_need_room_for_every_group(data):
    X, y, group = data
    with pytest.raises(ValueError, match="batch_size=3 cannot hold one sample of each of 4"):
        GroupDROClassifier(balance="batches", batch_size=3).fit(X, y, sample_group=group)
