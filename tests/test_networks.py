"""LeNet: shapes, the last layer, pickling."""

import pickle

import pytest
import torch
from torch import nn

from skspurious.networks import LeNet


@pytest.mark.parametrize("image_size", [4, 7, 8, 16, 27, 28, 33, 64, (12, 40)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_lenet_output_shape_follows_input_size(image_size, in_channels):
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    module = LeNet(n_classes=7, in_channels=in_channels, image_size=image_size)
    assert module(torch.zeros(3, in_channels, height, width)).shape == (3, 7)


def test_lenet_defaults_fit_spuco_mnist():
    assert LeNet()(torch.zeros(2, 3, 28, 28)).shape == (2, 5)


def test_lenet_number_of_parameters_by_hand():
    # conv 3*6*25+6, conv 6*16*25+16, linear 16*4*4*120+120, 120*84+84, 84*5+5
    expected = 456 + 2416 + 30840 + 10164 + 425
    assert sum(parameter.numel() for parameter in LeNet().parameters()) == expected


def test_lenet_ends_in_a_linear_layer():
    last = list(LeNet(n_classes=4).modules())[-1]
    assert isinstance(last, nn.Linear)
    assert last.out_features == 4


def test_lenet_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    module = LeNet(image_size=8)
    module(torch.randn(16, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_lenet_pickles():
    module = LeNet(image_size=8).eval()
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))


def test_lenet_refuses_images_that_vanish():
    with pytest.raises(ValueError, match=r"image_size=3 with padding=2 is too small.*4 by 4"):
        LeNet(image_size=3)


def test_lenet_padding_is_settable():
    assert LeNet(padding=2)(torch.zeros(1, 3, 28, 28)).shape == (1, 5)
    with pytest.raises(ValueError, match="image_size=12 with padding=0"):
        LeNet(image_size=12, padding=0)
