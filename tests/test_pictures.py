"""Pictures as people have them: layouts, types, sizes, and files of every kind."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_pil_image

from skspurious import ERMClassifier, TorchFeatureExtractor
from skspurious.views import ImageStatistics, MaskCenter

N = 12
Y = np.arange(N) % 2
FAST = {"max_epochs": 1, "batch_size": 4, "random_state": 0}


class Pixels(nn.Module):
    """Gives the pixels back, in [0, 1], with a linear layer after them."""

    def __init__(self, size=(3, 6, 5)):
        super().__init__()
        self.flat = nn.Flatten()
        self.head = nn.Linear(int(np.prod(size)), 2)

    def forward(self, x):
        assert x.dtype == torch.float32
        return self.head(self.flat(x))


def pixels_of(X, size=(3, 6, 5), **params):
    """What a network is given of X, in units of a byte."""
    extractor = TorchFeatureExtractor(Pixels(size), random_state=0, **params)
    return 255 * extractor.fit_transform(X).reshape(len(X), *size)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, 3, 6, 5), dtype=np.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 255  # every picture has the whole range
    return pixels


def save(image, path, **options):
    image.save(path, **options)
    return str(path)


@pytest.fixture(scope="module")
def paths(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return [
        save(to_pil_image(torch.tensor(p)), folder / f"{i}.png") for i, p in enumerate(pictures)
    ]


# --------------------------------------------------------------------------------------
# Layouts and types of arrays


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.transpose(0, 2, 3, 1),
        lambda X: np.ascontiguousarray(X.transpose(0, 2, 3, 1)).astype(np.int64),
        lambda X: torch.tensor(X).permute(0, 2, 3, 1) / 255,
        lambda X: X.astype(np.uint16),
        lambda X: X.astype(np.uint16) * 257,  # 16 bits
        lambda X: torch.tensor(X).to(torch.uint16),
        lambda X: list(X.astype(np.uint16) * 257),
        lambda X: [Image.fromarray(p.transpose(1, 2, 0)) for p in X],
        lambda X: [p.transpose(1, 2, 0).astype(np.int32) for p in X],
        lambda X: [(torch.tensor(p).float(), 1) for p in X],
    ],
)
def test_layouts_and_types_of_the_same_pictures(pictures, change):
    assert_allclose(pixels_of(change(pictures)), pictures, atol=1e-4)


def test_a_layout_that_is_not_clear_says_how_to_transpose(pictures):
    narrow = pictures[:, :, :, :3]  # (n, 3, 6, 3): three channels first or last
    with pytest.raises(ValueError, match=r"may? ?.*X\.transpose\(0, 3, 1, 2\).*torch\.from_numpy"):
        pixels_of(narrow, (3, 6, 3))
    assert_allclose(pixels_of(torch.tensor(narrow), (3, 6, 3)), narrow, atol=1e-4)
    last = narrow.transpose(0, 3, 1, 2)
    with pytest.raises(ValueError, match="channels may come first or last"):
        ERMClassifier(Pixels((3, 6, 5)), **FAST).fit(
            pictures, Y, X_val=narrow, y_val=Y
        )  # no help from the shape that was fitted on
    assert_allclose(pixels_of(torch.tensor(last), (3, 3, 6)), last, atol=1e-4)


@pytest.mark.parametrize("change", [lambda X: X, torch.tensor, lambda X: X.astype(np.int64)])
def test_grey_pictures_have_one_channel(pictures, change):
    grey = pictures[:, 0]
    assert_allclose(pixels_of(change(grey), (1, 6, 5)), grey[:, None], atol=1e-4)


def test_grey_pictures_are_the_same_in_files_arrays_and_lists(pictures, tmp_path):
    grey = pictures[:, 0]
    files = [save(Image.fromarray(p), tmp_path / f"{i}.png") for i, p in enumerate(grey)]
    kinds = [grey, grey / 255, grey[:, None], grey[:, :, :, None], torch.tensor(grey), files]
    kinds += [[Image.fromarray(p) for p in grey], list(grey)]
    for fitted, size in ((grey, (1, 6, 5)), (files, (3, 6, 5))):
        extractor = TorchFeatureExtractor(Pixels(size), random_state=0).fit(fitted)
        reference = extractor.transform(fitted)
        for X in kinds:
            assert_allclose(extractor.transform(X), reference, atol=1e-6)


def test_pictures_in_colour_are_refused_where_grey_ones_were_fitted(pictures, paths):
    clf = ERMClassifier(Pixels((1, 6, 5)), **FAST).fit(pictures[:, 0], Y)
    for X in (pictures, paths):
        with pytest.raises(ValueError, match="in colour, but ERMClassifier was fitted on grey"):
            clf.predict(X)


def test_floats_without_channels_may_be_sequences(pictures):
    """They stay what they are, and bytes of the same shape are the same pictures."""
    grey = pictures[:, 0]
    extractor = TorchFeatureExtractor(Pixels((6, 5)), random_state=0).fit(grey / 255)
    assert extractor.estimator_._description.sample_shape == (6, 5)
    reference = extractor.transform(grey / 255)
    assert_allclose(extractor.transform(grey), reference, atol=1e-6)
    standardised = grey / 64 - 2
    extractor = TorchFeatureExtractor(Pixels((6, 5)), random_state=0).fit(standardised)
    with pytest.raises(ValueError, match="of type uint8, but FrozenNetwork was fitted on"):
        extractor.transform(grey)


def test_a_torchvision_network_takes_grey_pictures(pictures):
    grey = np.repeat(np.repeat(pictures[:4, 0], 8, axis=1), 8, axis=2)
    extractor = TorchFeatureExtractor("squeezenet1_1", layer="features.0", random_state=0)
    in_colour = np.repeat(grey[:, None], 3, axis=1)
    reference = extractor.fit_transform(in_colour)
    for X in (grey, grey / 255, grey[..., None]):
        assert_allclose(extractor.fit_transform(X), reference, atol=1e-6)


def test_sixteen_bits_stay_sixteen_bits(pictures):
    """A dark part of pictures with 16 bits is not taken for bytes."""
    deep = pictures.astype(np.uint16) * 257
    extractor = TorchFeatureExtractor(Pixels(), random_state=0).fit(deep)
    dark = np.minimum(deep, 200)
    assert_allclose(255 * extractor.transform(dark), dark.reshape(N, -1) / 257, atol=1e-4)


def test_a_dataset_of_two_scales_is_refused(pictures):
    mixed = [torch.tensor(p).int() for p in pictures]
    mixed[3] = mixed[3] * 257
    with pytest.raises(ValueError, match="values from 0 to 65535, where those that were looked"):
        pixels_of(mixed)


# --------------------------------------------------------------------------------------
# Files


def test_files_of_every_mode(pictures, tmp_path):
    picture = pictures[0]
    grey = picture[0]
    colour = Image.fromarray(picture.transpose(1, 2, 0))
    palette = colour.quantize(30)
    see_through = colour.copy()
    see_through.putalpha(200)
    inverted = Image.merge("CMYK", [*(Image.fromarray(255 - p) for p in picture),
                                    Image.new("L", (5, 6))])  # fmt: skip
    deep = (grey.astype(np.uint16) * 257)[None]
    cases = {
        "alpha.png": (see_through, picture),
        "palette.png": (palette, np.asarray(palette.convert("RGB")).transpose(2, 0, 1)),
        "cmyk.tiff": (inverted, picture),
        "grey.png": (Image.fromarray(grey), np.repeat(grey[None], 3, axis=0)),
        "deep.png": (Image.fromarray(deep[0]), np.repeat(grey[None], 3, axis=0)),
        "deep.tiff": (Image.fromarray(deep[0]), np.repeat(grey[None], 3, axis=0)),
        "int.tiff": (Image.fromarray(deep[0].astype(np.int32)), np.repeat(grey[None], 3, axis=0)),
        "float.tiff": (
            Image.fromarray((grey / 255).astype(np.float32)),
            np.repeat(grey[None], 3, axis=0),
        ),
        "two.png": (Image.fromarray(grey > 127), np.repeat(255 * (grey > 127)[None], 3, axis=0)),
    }
    for name, (image, expected) in cases.items():
        path = save(image, tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_allclose(pixels_of([path])[0], expected, atol=1e-4, err_msg=name)
            with Image.open(path) as opened:  # the same in a list of Pillow
                assert_allclose(pixels_of([opened])[0], expected, atol=1e-4, err_msg=name)


def test_a_palette_with_a_table_of_transparency(pictures, tmp_path):
    palette = Image.fromarray(pictures[0].transpose(1, 2, 0)).quantize(8)
    path = save(palette, tmp_path / "p.png", transparency=bytes([0, 128, 255]))
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert_allclose(pixels_of([path])[0], expected, atol=1e-4)  # warnings are errors


def test_pictures_are_turned_as_their_exif_says(pictures, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned clockwise
    lying = Image.fromarray(np.rot90(pictures[0].transpose(1, 2, 0)).copy())
    path = save(lying, tmp_path / "turned.png", exif=exif)
    assert_allclose(pixels_of([path])[0], pictures[0], atol=1e-4)


def test_floats_of_an_unknown_scale_are_refused_by_row(pictures, paths, tmp_path):
    path = save(Image.fromarray(pictures[0, 0].astype(np.float32)), tmp_path / "f.tiff")
    with pytest.raises(ValueError, match=r"X\[2\] = .*f\.tiff.* values go from 0 to 255, where 0"):
        pixels_of([*paths[:2], path])


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
def test_a_broken_file_is_named_with_its_row(paths, tmp_path, content):
    broken = tmp_path / "broken.png"
    with open(paths[0], "rb") as file:
        whole = file.read()
    broken.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    X = [*paths[:5], str(broken), *paths[6:]]
    with pytest.raises(ValueError, match=r"X\[5\] = .*broken\.png.*cannot be read"):
        ERMClassifier(Pixels, **FAST).fit(X, Y)


def test_every_path_is_checked_before_anything_is_trained(paths):
    seen = []

    def transform(batch):
        seen.append(batch)
        return batch.float() / 255

    clf = ERMClassifier(Pixels, eval_transform=transform, **FAST)
    wrong = [*paths[:-1], "nowhere.png"]
    with pytest.raises(ValueError, match=r"X\[11\] = 'nowhere\.png' is not a file"):
        clf.fit(wrong, Y)
    with pytest.raises(ValueError, match=r"X_val\[11\] = 'nowhere\.png' is not a file"):
        clf.fit(paths, Y, X_val=wrong, y_val=Y)
    with pytest.raises(ValueError, match=r"X\[11\] = 'nowhere\.png'"):
        clf.fit(MaskCenter().transform(wrong), Y)
    assert seen == []
    clf.fit(paths, Y)
    with pytest.raises(ValueError, match=r"X\[11\] = 'nowhere\.png'"):
        clf.predict(wrong)


def test_torchvision_image_folder(pictures, tmp_path):
    for i, picture in enumerate(pictures):
        folder = tmp_path / f"class_{Y[i]}"
        folder.mkdir(exist_ok=True)
        to_pil_image(torch.tensor(picture)).save(folder / f"{i:02}.png")
    folder = ImageFolder(tmp_path)
    order = np.argsort(Y, kind="stable")
    clf = ERMClassifier(Pixels, **FAST).fit(folder, folder.targets)
    plain = ERMClassifier(Pixels, **FAST).fit(pictures[order], Y[order])
    assert_allclose(clf.predict_proba(pictures), plain.predict_proba(pictures), atol=1e-6)
    assert_allclose(clf.predict_proba(folder)[:2], clf.predict_proba(pictures[order])[:2])
    masked = MaskCenter().transform(folder)
    assert_array_equal(masked[0][0], MaskCenter().transform(pictures[order])[0])
    statistics = ImageStatistics().fit_transform(pictures[order])
    assert_allclose(ImageStatistics().fit_transform(folder), statistics, atol=1e-6)


# --------------------------------------------------------------------------------------
# Sizes


@pytest.mark.parametrize("size", [7, (7, 9)])
def test_pictures_of_many_sizes(tmp_path, size):
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 256, (3, 5 + i, 9), dtype=np.uint8) for i in range(4)]
    many[2] = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
    images = [to_pil_image(torch.tensor(p)) for p in many]
    files = [save(image, tmp_path / f"{i}.png") for i, image in enumerate(images)]
    kinds = [files, images, [torch.tensor(p) for p in many], [p.transpose(1, 2, 0) for p in many]]
    reference = pixels_of(files, (3, height, width), image_size=size)
    for X in kinds[1:]:
        assert_allclose(pixels_of(X, (3, height, width), image_size=size), reference, atol=1e-4)
    assert_allclose(reference[2], many[2], atol=1e-4)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"differ in shape.*image_size="):
        TorchFeatureExtractor(pooled).fit_transform(files)


def test_image_size_is_for_arrays_and_predict_too(pictures, paths):
    clf = ERMClassifier(Pixels, image_size=(6, 5), **FAST).fit(pictures, Y)
    larger = np.repeat(np.repeat(pictures, 2, axis=2), 2, axis=3)
    assert_allclose(clf.predict_proba(larger), clf.predict_proba(list(larger)), atol=1e-6)
    assert_allclose(clf.predict_proba(pictures), clf.predict_proba(paths), atol=1e-6)
    with pytest.raises(ValueError, match="'image_size' parameter of ERMClassifier"):
        ERMClassifier(Pixels, image_size=0, **FAST).fit(pictures, Y)
    for size in ((6,), (6, 5, 3), (6, 0), (6.0, 5)):
        with pytest.raises(ValueError, match="image_size must be an integer, or a height and a"):
            ERMClassifier(Pixels, image_size=size, **FAST).fit(pictures, Y)


# --------------------------------------------------------------------------------------
# Views


def test_views_take_channels_last_and_lists_of_pillow(pictures):
    expected = MaskCenter().transform(pictures)
    last = np.moveaxis(pictures, 1, 3)
    assert_array_equal(MaskCenter().transform(last), expected)
    assert_array_equal(MaskCenter().transform(torch.tensor(last)), expected)
    images = [Image.fromarray(p) for p in last]
    assert_array_equal(MaskCenter().transform(images)[3], expected[3])
    statistics = ImageStatistics().fit_transform(pictures)
    for X in (last, images, pictures.astype(np.int64), pictures / 255, torch.tensor(last)):
        assert_allclose(ImageStatistics().fit_transform(X), statistics, atol=1e-6)
