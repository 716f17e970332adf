"""Masks on a network: which layers, what they see, what is left after baking."""

import copy
import pickle

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn.utils import parametrize

from skspurious._engine._batches import LabelledSamples
from skspurious._engine._masks import (
    add_masks,
    bake_masks,
    maskable_layers,
    one_draw,
    recalibrate_batch_norms,
)
from skspurious._engine._modules import last_linear
from skspurious._engine._runtime import Runtime
from skspurious.data import TensorSamples

fidelity = pytest.mark.fidelity


class Net(nn.Module):
    """A convolution of each kind, two linear layers, normalisation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm1d(4)
        self.blocks = nn.ModuleDict({"second": nn.Conv2d(1, 2, 3, padding=1)})
        self.up = nn.ConvTranspose1d(8, 4, 1)
        self.hidden = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = self.blocks["second"](x[:, None]).flatten(1, 2).relu()
        return self.head(self.hidden(self.up(x).mean(2)).tanh())


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(1, 2, 2)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.convolution(x).mean((2, 3, 4)))


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.two = nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.two(self.one(x)))


class TiedToEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


def _made(cls, *args):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return cls(*args).eval()


def _inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


CASES = [(Net, (5, 2, 7)), (Volume, (3, 1, 4, 4, 4))]


def _learn(masks):
    for mask in masks.values():
        mask.is_learned = True


# --------------------------------------------------------------------------------------
# Which layers


def test_every_linear_and_convolutional_layer_is_masked():
    assert list(add_masks(_made(Net))) == ["first", "blocks.second", "up", "hidden", "head"]
    assert list(add_masks(_made(Volume))) == ["convolution", "head"]
    linear = _made(nn.Linear, 2, 2)
    assert list(add_masks(linear)) == [""]


def test_excluded_submodules_and_what_is_in_them_stay_as_they_are():
    net = _made(Net)
    assert list(add_masks(net, ["blocks", "head"])) == ["first", "up", "hidden"]
    assert not parametrize.is_parametrized(net.head)
    with pytest.raises(ValueError, match=r"exclude has names .*\['block'\]"):
        maskable_layers(_made(Net), ["block"])
    with pytest.raises(ValueError, match="nothing to mask"):
        maskable_layers(_made(nn.Sequential, nn.Linear(2, 2)), ["0"])


def test_the_last_linear_layer_is_still_found():
    net = _made(Net)
    add_masks(net)
    assert last_linear(net)[0] == "head"


@fidelity
@pytest.mark.parametrize(("cls", "shape"), CASES)
def test_every_masked_layer_matters_and_every_logit_gets_a_gradient(cls, shape):
    net, x = _made(cls), _inputs(*shape)
    masks = add_masks(net)
    _learn(masks)
    before = net(x)
    for mask in masks.values():
        saved = mask.logits.detach().clone()
        with torch.no_grad():
            mask.logits.fill_(-torch.inf)
            assert not torch.allclose(net(x), before)
            mask.logits.copy_(saved)
    net.train()
    with one_draw(masks.values()):
        net(x).square().sum().backward()
    for mask in masks.values():
        assert mask.logits.grad.abs().sum() > 0


# --------------------------------------------------------------------------------------
# Modes


@fidelity
@pytest.mark.parametrize(("cls", "shape"), CASES)
def test_the_network_is_the_same_bit_for_bit_before_anything_is_pruned(cls, shape):
    net, x = _made(cls), _inputs(*shape)
    dense = copy.deepcopy(net)
    masks = add_masks(net, init_logit=1.5)
    assert torch.equal(net(x), dense(x))
    _learn(masks)
    assert torch.equal(net(x), dense(x))
    assert all(mask.hard().all() for mask in masks.values())
    for mask in masks.values():
        mask.fix()
    assert torch.equal(net(x), dense(x))
    bake_masks(net)
    assert torch.equal(net(x), dense(x))


@fidelity
def test_effective_weights_are_zero_or_the_weight_on_the_two_sides_of_zero():
    net = _made(Net)
    weight = net.hidden.weight.detach().clone()
    mask = add_masks(net)["hidden"]
    mask.is_learned = True
    with torch.no_grad():
        mask.logits.copy_(torch.linspace(-1, 1, 24).reshape(6, 4).round(decimals=1))
        mask.logits[2, 3] = 0.0  # the boundary is kept
    kept = mask.logits >= 0
    assert 0 < kept.sum() < 24
    for check in (lambda: None, mask.fix, lambda: net.train()):
        check()
        assert (net.hidden.weight[~kept] == 0).all()
        assert torch.equal(net.hidden.weight[kept], weight[kept])


@fidelity
@pytest.mark.parametrize(("gate", "p"), [("logit", 0.6225), ("double_sigmoid", 0.6508)])
def test_training_samples_masks_and_their_gradient_reaches_the_logits_alone(gate, p):
    net = _made(nn.Linear, 200, 100)
    weight = net.weight.detach().clone()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    mask = add_masks(net, init_logit=0.5, gate=gate)[""]
    mask.is_learned = True
    net.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        effective = net.weight
        other = net.weight
    assert ((effective == 0) | (effective == weight)).all()
    # sigma(0.5) = 0.6225, sigma(sigma(0.5)) = 0.6508; 20,000 draws
    assert_allclose((effective != 0).float().mean().item(), p, atol=0.014)
    assert not torch.equal(effective, other)
    effective.sum().backward()
    assert mask.logits.grad.abs().sum() > 0
    assert net.parametrizations.weight.original.grad is None
    assert torch.equal(net.eval().weight, weight)


def test_one_draw_gives_one_mask_per_forward_pass_and_a_new_one_in_the_next():
    net = _made(Tied).train()
    masks = add_masks(net)
    _learn(masks)
    seen = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(2):
            with one_draw(masks.values()):
                assert torch.equal(net.one.weight, net.one.weight)
                assert torch.equal(net.one.weight, net.two.weight)
                seen.append(net.one.weight.detach())
    assert not torch.equal(*seen)
    assert all(mask.drawn is None for mask in masks.values())


def test_min_density_keeps_a_layer_alive():
    net = _made(Net)
    masks = add_masks(net, init_logit=-1.0, min_density=0.01)
    for mask in masks.values():
        mask.fix()
        assert mask.kept.sum() == 1


def test_a_fixed_mask_does_not_follow_its_logits():
    net = _made(Net)
    masks = add_masks(net)
    mask = masks["head"]
    with torch.no_grad():
        mask.logits[0] = -1
    mask.fix()
    before = net.head.weight.detach().clone()
    with torch.no_grad():
        mask.logits.neg_()
    assert torch.equal(net.head.weight, before)
    assert not mask.logits.requires_grad


# --------------------------------------------------------------------------------------
# Shared weights


def test_layers_that_share_a_weight_share_a_mask():
    net, x = _made(Tied), _inputs(3, 4)
    masks = add_masks(net)
    assert list(masks) == ["one", "head"]
    with torch.no_grad():
        masks["one"].logits[:, :2] = -1
    masks["one"].fix()
    expected = net(x).detach()
    bake_masks(net)
    assert net.one.weight is net.two.weight
    assert (net.two.weight[:, :2] == 0).all()
    assert torch.equal(net(x), expected)


def test_a_weight_that_an_embedding_uses_too_is_masked_in_the_layer_alone():
    net, ids = _made(TiedToEmbedding), torch.arange(5)
    table = net.embedding.weight.detach().clone()
    masks = add_masks(net)
    with torch.no_grad():
        masks["head"].logits[:, 0] = -1
    masks["head"].fix()
    expected = net(ids).detach()
    bake_masks(net)
    assert torch.equal(net(ids), expected)
    assert torch.equal(net.embedding.weight, table)
    assert (net.head.weight[:, 0] == 0).all()


# --------------------------------------------------------------------------------------
# Baking


@fidelity
def test_a_baked_network_predicts_the_same_and_pickles():
    net, x = _made(Net), _inputs(5, 2, 7)
    masks = add_masks(net)
    generator = torch.Generator().manual_seed(0)
    for mask in masks.values():
        with torch.no_grad():
            mask.logits.copy_(torch.randn(mask.logits.shape, generator=generator))
        mask.fix()
    kept = {name: mask.kept.clone() for name, mask in masks.items()}
    expected = net(x).detach()
    bake_masks(net)
    assert torch.equal(net(x), expected)
    assert type(net.head) is nn.Linear
    assert set(net.state_dict()) == set(Net().state_dict())
    for name, layer in maskable_layers(net).items():
        assert torch.equal(layer.weight != 0, kept[name])
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), expected)
    fresh = Net().eval()
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), expected)


@fidelity
def test_state_dict_round_trip_of_a_masked_network():
    net, x = _made(Net), _inputs(5, 2, 7)
    masks = add_masks(net)
    with torch.no_grad():
        masks["head"].logits[0] = -1
    masks["head"].fix()
    fresh = Net().eval()
    add_masks(fresh)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x), net(x))


def test_other_parametrizations_stay():
    net = _made(nn.Sequential, nn.Linear(3, 3), nn.Linear(3, 2))
    nn.utils.parametrizations.weight_norm(net[0])
    add_masks(net, ["0"])
    bake_masks(net)
    assert parametrize.is_parametrized(net[0])
    assert not parametrize.is_parametrized(net[1])


# --------------------------------------------------------------------------------------
# Batch normalisation


class Normalised(nn.Module):
    """Two batch norms on pictures, dropout between them, one on vectors, one that is not called."""

    def __init__(self):
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.9)
        self.two_norm, self.two = nn.BatchNorm2d(3, affine=False), nn.Conv2d(4, 3, 3)
        self.vector_norm = nn.BatchNorm1d(3, momentum=None)
        self.idle_norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.dropout(self.one_norm(self.one(x)).relu())
        x = self.two_norm(input=self.two(x)).relu()
        return self.head(self.vector_norm(x.mean((2, 3))))


NORMS = ("one_norm", "two_norm", "vector_norm")


def _recalibrated(net, x, rows, batch_size, runtime=None):
    data = LabelledSamples(TensorSamples(x), torch.zeros(len(x), dtype=torch.int64))
    rows = torch.as_tensor(rows)
    recalibrate_batch_norms(net, data, rows, runtime or Runtime("cpu"), batch_size=batch_size)
    return net


def _reference_statistics(net, x):
    """Of each batch norm, by the definitions, in float64, with all samples at once."""
    net = copy.deepcopy(net).double()
    found = {}

    def normalise(name, x):
        norm = net.get_submodule(name)
        columns = x.movedim(1, -1).reshape(-1, x.shape[1])
        mean = columns.mean(0)
        squares = (columns - mean).square().sum(0)
        found[name] = mean, squares / (len(columns) - 1)
        scaled = (x.movedim(1, -1) - mean) / (found[name][1] + norm.eps).sqrt()
        if norm.affine:
            scaled = scaled * norm.weight + norm.bias
        return scaled.movedim(-1, 1)

    with torch.no_grad():
        x = normalise("one_norm", net.one(x.double())).relu()
        x = normalise("two_norm", net.two(x)).relu()
        normalise("vector_norm", x.mean((2, 3)))
    return found


def _normalised():
    """The network with scales, shifts and old statistics that matter, and inputs far from zero."""
    net = _made(Normalised)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name in ("one_norm", "vector_norm"):
            net.get_submodule(name).weight.uniform_(0.5, 2, generator=generator)
            net.get_submodule(name).bias.uniform_(-1, 1, generator=generator)
        for name in (*NORMS, "idle_norm"):
            net.get_submodule(name).running_mean.fill_(7)
            net.get_submodule(name).running_var.fill_(0.3)
    # rows differ in law, so that what is left out or weighed twice is seen
    return net, _inputs(11, 2, 8, 8) * torch.linspace(0.2, 3, 11)[:, None, None, None] + 5


@fidelity
@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_recalibration_is_exact_for_every_batch_size(batch_size):
    net, x = _normalised()
    rows = [10, 1, 2, 3, 4, 5, 6, 7, 8]
    expected = _reference_statistics(net, x[rows])
    _recalibrated(net, x, rows, batch_size)
    for name, (mean, variance) in expected.items():
        norm = net.get_submodule(name)
        # float32 convolutions of 18 and 36 products: some 1e-6 of the values, which are about 5
        assert_allclose(norm.running_mean, mean, rtol=1e-5, atol=1e-5, err_msg=name)
        assert_allclose(norm.running_var, variance, rtol=5e-5, err_msg=name)


@fidelity
def test_recalibrated_layers_give_standardised_values_in_evaluation():
    net, x = _normalised()
    rows = torch.arange(11)
    seen = {}
    for name in NORMS:
        net.get_submodule(name).register_forward_hook(
            lambda norm, _, output, name=name: seen.update({name: (norm, output)})
        )
    _recalibrated(net, x, rows, 3)
    net(x)
    for norm, output in seen.values():
        scale, shift = (norm.weight, norm.bias) if norm.affine else (1.0, 0.0)
        columns = ((output.movedim(1, -1) - shift) / scale).reshape(-1, norm.num_features)
        assert_allclose(columns.mean(0).detach(), torch.zeros(norm.num_features), atol=1e-5)
        assert_allclose(columns.var(0).detach(), torch.ones(norm.num_features), rtol=1e-3)


def test_recalibration_changes_nothing_else():
    net, x = _normalised()
    before = copy.deepcopy(net)
    _recalibrated(net.train(), x, [0, 3, 4, 8, 9], 2)
    assert not any(module.training for module in net.modules())
    assert [net.get_submodule(name).momentum for name in NORMS] == [0.1, 0.1, None]
    for name, value in before.state_dict().items():
        is_new = name.startswith(NORMS) and "running" in name
        assert torch.equal(net.state_dict()[name], value) != is_new, name
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_recalibration_takes_all_calls_of_a_layer_together():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x):
            return self.norm(x[:, :2]) - self.norm(x[:, 2:])

    x = _inputs(7, 4) + torch.tensor([0.0, 1, 5, 9])
    net = _recalibrated(Pair(), x, range(7), 3)
    both = torch.cat([x[:, :2], x[:, 2:]])
    assert_allclose(net.norm.running_mean, both.mean(0), rtol=1e-5)
    assert_allclose(net.norm.running_var, both.var(0), rtol=1e-5)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_recalibration_with_too_few_rows_for_a_variance_changes_nothing(n_rows):
    net, x = _normalised()
    before = copy.deepcopy(net.state_dict())
    _recalibrated(net, x, torch.arange(n_rows), 4)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_recalibration_without_batch_norms_reads_nothing():
    net = nn.Linear(2, 2)
    recalibrate_batch_norms(net, None, torch.arange(4), Runtime("cpu"), batch_size=2)
