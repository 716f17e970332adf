"""Random transforms that draw anew for every image of a batch."""

import pytest
import torch
from numpy.testing import assert_allclose
from torchvision.transforms.v2 import functional as reference

from skspurious.transforms import (
    ColorJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomWarp,
)

ALL = [
    RandomHorizontalFlip(),
    RandomCrop(),
    RandomResizedCrop(),
    ColorJitter(),
    RandomWarp(),
]


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


# --------------------------------------------------------------------------------------
# All of them


@pytest.fixture
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_copies_of_one_image_come_out_different(seed, transform, channels):
    """A transform of torchvision's v2 would change them alike."""
    one = torch.randint(0, 256, (1, channels, 12, 10), dtype=torch.uint8)
    images = one.expand(16, -1, -1, -1)
    changed = transform(images)
    assert changed.shape == images.shape
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 1
    assert torch.equal(images[3], one[0])
    floats = changed if changed.is_floating_point() else changed.float() / 255
    assert floats.min() >= 0
    assert floats.max() <= 1


# --------------------------------------------------------------------------------------
# Flips, crops, jitter


def test_a_flip_mirrors_its_share_of_the_images(seed):
    images = _images(400, size=4)
    flipped = RandomHorizontalFlip(p=0.3)(images)
    is_flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, images)])
    is_same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, images)])
    assert (is_flipped | is_same).all()
    assert 80 < is_flipped.sum() < 160
    assert flipped.dtype == torch.uint8


def test_a_crop_is_a_part_of_the_padded_image(seed):
    images = _images(50, size=6)
    cropped = RandomCrop(padding=2)(images)
    padded = torch.nn.functional.pad(images, [2] * 4)
    corners = set()
    for image, part in zip(padded, cropped):
        found = {
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(image[:, i : i + 6, j : j + 6], part)
        }
        assert len(found) == 1
        corners |= found
    assert len(corners) > 15
    assert torch.equal(RandomCrop(padding=0)(images), images)


def test_a_resized_crop_by_hand(monkeypatch):
    """A quarter of the area in the lower right corner: every pixel comes twice as large."""
    monkeypatch.setattr(torch, "rand", lambda n, device=None: torch.ones(n))
    image = torch.zeros(1, 1, 8, 8)
    image[..., 6:, 6:] = 1.0
    crop = RandomResizedCrop(scale=(0.25, 0.25), ratio=(1, 1))(image)
    assert crop[0, 0, 5:, 5:].min() == 1
    assert crop[0, 0, :3].max() == 0
    assert_allclose(crop[0, 0, 3:5, 7], [0.25, 0.75], atol=1e-5)
    whole = RandomResizedCrop(scale=(1, 1), ratio=(1, 1))(_images())
    assert_allclose(whole, _images().float() / 255, atol=1e-5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_jitter_is_that_of_torchvision(monkeypatch, name, drawn):
    monkeypatch.setattr(torch, "rand", lambda n, device=None: torch.full((n,), drawn))
    images = _images()
    others = dict.fromkeys(["brightness", "contrast", "saturation"], 0.0)
    changed = ColorJitter(**others | {name: 0.4})(images)
    expected = getattr(reference, f"adjust_{name}")(images.float() / 255, 0.6 + 0.8 * drawn)
    assert_allclose(changed, expected, atol=1e-3)  # torchvision's weights of grey have 3 digits


def test_jitter_keeps_standardised_images_in_their_range(seed):
    images = _images().float() / 51 - 2
    changed = ColorJitter(0.5, 0.5, 0.5)(images)
    assert changed.min() < -1
    assert (changed.amin((1, 2, 3)) >= images.amin((1, 2, 3))).all()
    assert (changed.amax((1, 2, 3)) <= images.amax((1, 2, 3))).all()
    assert_allclose(ColorJitter(0, 0, 0)(images), images, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RandomHorizontalFlip(1.5), "p must be"),
        (lambda: RandomCrop(-1), "padding must be"),
        (lambda: RandomCrop(1.5), "padding must be"),
        (lambda: RandomResizedCrop((0, 1)), "scale must be"),
        (lambda: RandomResizedCrop((0.5, 2)), "scale must be"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "ratio must be"),
        (lambda: ColorJitter(contrast=-0.1), "contrast must be"),
    ],
)
def test_bad_parameters_of_the_others_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


@pytest.mark.parametrize(
    ("params", "name"),
    [({"degrees": -1}, "degrees"), ({"bend": "much"}, "bend"), ({"shear": 90}, "shear")],
)
def test_bad_parameters_are_named(params, name):
    with pytest.raises(ValueError, match=name):
        RandomWarp(**params)
