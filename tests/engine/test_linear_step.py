"""The step of a linear layer equals the step by autograd, whatever the method does to losses."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from torch import nn

from skspurious import BalancedRetrainer, ERMClassifier, GroupDROClassifier
from skspurious._engine import _linear_step
from skspurious._engine._batches import iterate_batches
from skspurious._engine._callbacks import Callback
from skspurious._engine._config import LoopConfig
from skspurious._engine._linear_step import LinearStep, make_step
from skspurious._engine._objective import Objective
from skspurious._engine._runtime import Runtime
from skspurious._engine._steps import TrainStep
from skspurious.data import TensorSamples


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70, 5)).astype(np.float32)
    y = rng.integers(0, 3, size=70)
    return X, y, 2 * y + rng.integers(0, 2, size=70)


def _step(network, objective=None, precision="float32", *, is_clipped=False):
    runtime = Runtime("cpu", precision)
    config = LoopConfig(max_epochs=1, batch_size=8, lr=0.1, max_grad_norm=9 if is_clipped else None)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return make_step(network, objective or Objective(), optimizer, None, runtime, config)


def _gradient(step):
    """Where SGD written out adds its gradients (momentum is 0), or torch's optimizer reads them."""
    gradient = [p.grad for p in step.parameters]
    return step.sums if gradient[0] is None else gradient


METHODS = {
    "erm": (ERMClassifier, {}),
    "group_dro": (GroupDROClassifier, {"adjustment": 0.5}),
    "balanced weights": (BalancedRetrainer, {"balance": "weights"}),
}
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "no momentum": {"optimizer_params": {"momentum": 0.0}},
    "nesterov": {"optimizer_params": {"momentum": 0.9, "nesterov": True}},
    "schedule": {"lr_schedule": "linear"},
    "adam": {"optimizer": "adam"},
    "clipped": {"max_grad_norm": 0.05},
    "accumulated": {"gradient_accumulation": 3},
    "transform": {"train_transform": lambda X: 2 * X},
}


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("method", "params"), METHODS.values(), ids=METHODS)
def test_linear_step_equals_autograd(table, monkeypatch, method, params, options, is_weighted):
    X, y, group = table
    weight = np.random.default_rng(1).random(len(y)) if is_weighted else None
    fitted = []
    for linear in (LinearStep, TrainStep):
        monkeypatch.setattr(_linear_step, "LinearStep", linear)
        clf = method(max_epochs=4, batch_size=16, random_state=0, **params, **options)
        fitted.append(clf.fit(X, y, sample_group=group, sample_weight=weight))
    ours, autograd = fitted
    assert_allclose(
        ours.module_.weight.detach(), autograd.module_.weight.detach(), rtol=1e-4, atol=1e-6
    )
    assert_allclose(
        ours.module_.bias.detach(), autograd.module_.bias.detach(), rtol=1e-4, atol=1e-6
    )
    columns = [c for c in ours.history_ if c != "seconds"]
    assert_allclose(ours.history_[columns], autograd.history_[columns], rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("is_clipped", [False, True])
def test_gradient_by_hand(is_clipped):
    """Two classes with equal probabilities: the gradient is (1/2 - onehot) x / n."""
    head = nn.Linear(2, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    X, y = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    step = _step(head, is_clipped=is_clipped)
    step.backward({"X": X, "y": y, "weight": None}, factor=3.0)
    weight, bias = _gradient(step)
    assert_allclose(weight, 3 * np.array([[-0.5, 1.0], [0.5, -1.0]]))
    assert_allclose(bias, [0.0, 0.0])
    losses, _ = step.record()
    assert_allclose(losses, np.log([2, 2]), rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("is_clipped", [False, True])
def test_gradients_add_up_until_the_step_ends(is_clipped):
    step = _step(nn.Linear(2, 2), is_clipped=is_clipped)
    batch = {"X": torch.eye(2), "y": torch.tensor([0, 1]), "weight": None}
    step.backward(batch, factor=1.0)
    once = _gradient(step)[0].clone()
    step.backward(batch, factor=1.0)
    assert_allclose(_gradient(step)[0], 2 * once)
    step.clear()
    step.backward(batch, factor=1.0)
    assert_allclose(_gradient(step)[0], once)


@torch.no_grad()
@pytest.mark.parametrize("n_batches", [1, LinearStep.n_kept, LinearStep.n_kept + 3])
def test_losses_and_hits_are_of_the_network_that_saw_the_batch(n_batches):
    """Every batch changes the network; the record is in the order of the batches."""
    head = nn.Linear(3, 2)
    step = _step(head)
    generator = torch.Generator().manual_seed(0)
    expected = [], []
    for i in range(n_batches):
        X = torch.randn(2 + i % 2, 3, generator=generator)
        y = torch.randint(0, 2, (len(X),), generator=generator)
        logits = head(X)
        expected[0].append(nn.functional.cross_entropy(logits, y, reduction="none"))
        expected[1].append(logits.argmax(1) == y)
        step({"X": X, "y": y, "weight": None}, share=1.0, ends_step=True)
    losses, hits = step.record()
    assert_allclose(losses, torch.cat(expected[0]), rtol=1e-4, atol=1e-6)
    assert torch.equal(hits, torch.cat(expected[1]))


@pytest.mark.parametrize("name", ["plain", "decay", "no momentum", "schedule", "adam"])
def test_a_head_resumes_with_the_same_bits(table, tmp_path, interrupt_after, name):
    X, y, _ = table
    clf = ERMClassifier(max_epochs=4, batch_size=16, random_state=0, **OPTIONS[name])
    whole = clone(clf).fit(X, y)
    clf.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        clone(clf).set_params(callbacks=[interrupt_after(2)]).fit(X, y)
    resumed = clf.fit(X, y)
    assert torch.equal(resumed.module_.weight, whole.module_.weight)
    assert torch.equal(resumed.module_.bias, whole.module_.bias)


class _Clip(Callback):
    def on_epoch_end(self, *, module, **kwargs):
        module.weight.data = module.weight.data.clamp(-0.01, 0.01)  # other memory


def test_weights_that_a_callback_sets_are_trained_on(table, monkeypatch):
    X, y, _ = table
    fitted = []
    for linear in (LinearStep, TrainStep):
        monkeypatch.setattr(_linear_step, "LinearStep", linear)
        clf = ERMClassifier(max_epochs=3, random_state=0, callbacks=[_Clip()])
        fitted.append(clf.fit(X, y).module_)
    ours, autograd = fitted
    assert ours.weight.abs().max() <= 0.01
    assert_allclose(ours.weight.detach(), autograd.weight.detach(), rtol=1e-4, atol=1e-6)
    assert_allclose(ours.bias.detach(), autograd.bias.detach(), rtol=1e-4, atol=1e-6)


def test_no_gradient_is_left_for_those_who_train_on(table):
    X, y, _ = table
    for module in (None, nn.Sequential(nn.Linear(5, 3))):
        clf = ERMClassifier(module, max_epochs=1, random_state=0).fit(X, y)
        assert all(p.grad is None for p in clf.module_.parameters())


def test_momentum_is_kept_where_torch_keeps_it():
    """Two steps of ours, then one of torch's optimizer, equal three of torch's."""
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    config = LoopConfig(max_epochs=1, batch_size=6, lr=0.1)
    optimizers = [torch.optim.SGD(head.parameters(), **options) for head in (ours, theirs)]
    step = make_step(ours, Objective(), optimizers[0], None, Runtime("cpu"), config)
    X, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    for i in range(3):
        if i < 2:
            with torch.no_grad():
                step({"X": X, "y": y, "weight": None}, share=1.0, ends_step=True)
        else:
            nn.functional.cross_entropy(ours(X), y).backward()
            optimizers[0].step()
        theirs.zero_grad()
        nn.functional.cross_entropy(theirs(X), y).backward()
        optimizers[1].step()
    assert_allclose(ours.weight.detach(), theirs.weight.detach(), rtol=1e-5, atol=1e-7)


def test_a_head_without_bias():
    head = nn.Linear(3, 2, bias=False)
    reference = nn.Linear(3, 2, bias=False)
    reference.load_state_dict(head.state_dict())
    X, y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    step = _step(head)
    with torch.no_grad():
        step.backward({"X": X, "y": y, "weight": None}, factor=1.0)
    nn.functional.cross_entropy(reference(X), y).backward()
    assert_allclose(_gradient(step)[0], reference.weight.grad, rtol=1e-5, atol=1e-7)


class _OwnForward(Objective):
    def forward(self, module, batch, runtime):
        return super().forward(module, batch, runtime)


def test_only_a_plain_linear_layer_takes_it():
    assert type(_step(nn.Linear(3, 2))) is LinearStep
    assert type(_step(nn.Sequential(nn.Linear(3, 2)))) is TrainStep
    assert type(_step(nn.Linear(3, 2), precision="bf16")) is TrainStep
    assert type(_step(nn.Linear(3, 2), _OwnForward())) is TrainStep
    hooked = nn.Linear(3, 2)
    hooked.register_forward_hook(lambda *_: None)
    assert type(_step(hooked)) is TrainStep
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    assert type(_step(parametrized)) is TrainStep
    frozen = nn.Linear(3, 2)
    frozen.bias.requires_grad_(False)
    assert type(_step(frozen)) is TrainStep


@pytest.mark.parametrize("reuse_memory", [False, True])
def test_batches_have_the_rows_of_the_plan(reuse_memory):
    from skspurious._engine._batches import LabelledSamples

    X = torch.arange(20.0).reshape(10, 2)
    data = LabelledSamples(TensorSamples(X), torch.arange(10), torch.arange(10) % 3, n_groups=3)
    plan = torch.tensor([7, 1, 1, 9, 0])
    batches = iterate_batches(
        data, plan, Runtime("cpu"), batch_size=2, transform=None, reuse_memory=reuse_memory
    )
    places = set()
    for batch, rows in zip(batches, plan.split(2), strict=True):
        assert_allclose(batch["X"], X[rows])
        assert batch["y"].tolist() == batch["position"].tolist() == rows.tolist()
        assert batch["group"].tolist() == (rows % 3).tolist()
        places.add(batch["X"].data_ptr())
    assert (len(places) == 1) or not reuse_memory
