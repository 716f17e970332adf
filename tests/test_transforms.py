"""RandomWarp: geometry alone, per image."""

import pytest
import torch
from numpy.testing import assert_allclose

from skspurious.transforms import RandomWarp


def _images(n=6, size=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def test_no_warp_is_the_image_in_zero_to_one():
    images = _images()
    assert_allclose(RandomWarp(0, 0, 0, 0)(images), images.float() / 255, atol=1e-5)


def test_every_image_is_warped_by_its_own_amounts():
    images = _images(1).expand(5, -1, -1, -1)
    warped = RandomWarp(bend=0.05)(images)
    assert all((warped[i] - warped[0]).abs().max() > 0.01 for i in range(1, 5))


def test_shift_by_whole_pixels_moves_the_pixels_and_repeats_the_border(monkeypatch):
    # 8 pixels, shift of a quarter: 2 pixels. rand = 1 draws the largest shift along both axes.
    monkeypatch.setattr(torch, "rand", lambda n, device=None: torch.ones(n))
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    warped = RandomWarp(0, 0.25, 0, 0)(image)
    assert_allclose(warped[0, 0, :6, :6], image[0, 0, 2:, 2:], atol=1e-4)
    assert_allclose(warped[0, 0, 6:, 6:], torch.full((2, 2), 63.0), atol=1e-4)


def test_quarter_turn_by_hand(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, device=None: torch.ones(n))
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    warped = RandomWarp(90, 0, 0, 0)(image)
    assert_allclose(warped[0, 0], torch.rot90(image[0, 0], 1), atol=1e-4)


def test_a_plain_colour_stays_that_colour():
    colour = torch.tensor([10, 200, 77], dtype=torch.uint8)
    images = colour[None, :, None, None].expand(4, 3, 16, 16)
    warped = RandomWarp(45, 0.3, 0.5, 30, bend=0.2)(images)
    assert_allclose(warped, images.float() / 255, atol=1e-5)


def test_float_images_stay_in_their_range_and_the_input_is_untouched():
    images = _images().float() / 51 - 2
    copy = images.clone()
    warped = RandomWarp(bend=0.1)(images)
    assert torch.equal(images, copy)
    assert warped.min() >= images.min() - 1e-4
    assert warped.max() <= images.max() + 1e-4


def test_torch_seed_decides():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = RandomWarp(bend=0.1)(_images())
        torch.manual_seed(3)
        again = RandomWarp(bend=0.1)(_images())
        other = RandomWarp(bend=0.1)(_images())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("params", "name"),
    [({"degrees": -1}, "degrees"), ({"bend": "much"}, "bend"), ({"shear": 90}, "shear")],
)
def test_bad_parameters_are_named(params, name):
    with pytest.raises(ValueError, match=name):
        RandomWarp(**params)
