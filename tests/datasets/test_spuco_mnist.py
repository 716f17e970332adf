"""fetch_spuco_mnist."""

import gzip
import hashlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspurious.datasets import _spuco_mnist, fetch_spuco_mnist

# Hues 0, 1/5, .. of matplotlib's "hsv" colour map, as matplotlib 3.10 gives them.
HSV = [
    (1.0, 0.0, 0.0),
    (0.8187488187488188, 1.0, 0.0),
    (0.0, 1.0, 0.3625004724974957),
    (0.0, 0.4562523625023627, 1.0),
    (0.724998818748819, 0.0, 1.0),
]
SPLITS = ("train", "val", "test")


def _idx(array):
    """The bytes of an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def tiny_mnist():
    """Images and digits of a small stand-in for MNIST, and its four files by name."""
    rng = np.random.default_rng(0)
    content, arrays = {}, {}
    for prefix, n in (("train", 700), ("t10k", 201)):
        digits = rng.integers(0, 10, size=n)
        images = rng.integers(1, 256, size=(n, 28, 28)) * (rng.random((n, 28, 28)) < 0.2)
        content[f"{prefix}-images-idx3-ubyte"] = _idx(images)
        content[f"{prefix}-labels-idx1-ubyte"] = _idx(digits)
        arrays[prefix] = images.astype(np.uint8), digits
    return arrays, content


@pytest.fixture
def home(tiny_mnist, tmp_path, monkeypatch):
    """A data_home that holds the stand-in, decompressed, with checksums to match."""
    _, content = tiny_mnist
    checksums = {name: hashlib.sha256(blob).hexdigest() for name, blob in content.items()}
    monkeypatch.setattr(_spuco_mnist, "_SHA256", checksums)
    _write(tmp_path / "MNIST" / "raw", content)
    return tmp_path


def _write(folder, content, suffix=""):
    folder.mkdir(parents=True)
    for name, blob in content.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(blob, 1) if suffix else blob)


def _reference_image(ink, colour, size):
    """One image, pixel by pixel, as SpuCo describes it: in [0, 1], a background under the ink."""
    image = np.empty((3, 28, 28))
    for k in range(3):
        for i in range(28):
            for j in range(28):
                background = colour[k] if i < size and j < size else 0.0
                image[k, i, j] = background if ink[i, j] == 0 else ink[i, j] / 255
    return image


# By hand and reference


@pytest.mark.parametrize(("magnitude", "size"), [("large", 28), ("medium", 4), ("small", 2)])
@pytest.mark.parametrize("split", SPLITS)
def test_images_are_those_of_the_reference(home, tiny_mnist, split, magnitude, size):
    bunch = fetch_spuco_mnist(home, split=split, magnitude=magnitude)
    images, digits = tiny_mnist[0]["t10k" if split == "test" else "train"]
    assert bunch.data.shape == (len(bunch.target), 3, 28, 28)
    assert bunch.data.dtype == np.uint8
    for row in range(0, len(bunch.data), 10):
        ink = images[bunch.source_index[row]]
        image = _reference_image(ink, HSV[bunch.spurious_attribute[row]], size)
        assert_array_equal(bunch.data[row], np.rint(255 * image))
        assert bunch.digit[row] == digits[bunch.source_index[row]]


def test_background_pixels_have_the_colours_worked_out_by_hand(home):
    bunch = fetch_spuco_mnist(home, split="test")
    # 255 times HSV, to the nearest integer
    colours = [(255, 0, 0), (209, 255, 0), (0, 255, 92), (0, 116, 255), (185, 0, 255)]
    for image, attribute in zip(bunch.data, bunch.spurious_attribute):
        coloured = (image != image[:1]).any(axis=0)  # ink is grey, no colour is
        assert coloured.sum() > 500
        expected = np.reshape(colours[attribute], (3, 1))
        assert (image[:, coloured] == expected).all()


def test_ink_is_untouched(home, tiny_mnist):
    bunch = fetch_spuco_mnist(home)
    ink = tiny_mnist[0]["train"][0][bunch.source_index]
    for channel in range(3):
        assert_array_equal(bunch.data[:, channel][ink > 0], ink[ink > 0])


def test_classes_are_pairs_of_digits(home):
    bunch = fetch_spuco_mnist(home)
    assert list(bunch.target_names) == ["0-1", "2-3", "4-5", "6-7", "8-9"]
    assert set(zip(bunch.digit.tolist(), bunch.target.tolist())) == {(d, d // 2) for d in range(10)}
    assert_array_equal(bunch.sample_group, 5 * bunch.target + bunch.spurious_attribute)
    for name in ("target", "clean_target", "spurious_attribute", "sample_group", "digit"):
        assert bunch[name].dtype == np.int64


def test_validation_split_takes_the_share_of_each_digit_rounded_down(home, tiny_mnist):
    digits = tiny_mnist[0]["train"][1]
    for fraction in (0.2, 0.35):
        val = fetch_spuco_mnist(home, split="val", validation_fraction=fraction)
        expected = [int(fraction * np.sum(digits == d)) for d in range(10)]
        assert_array_equal(np.bincount(val.digit), expected)


@pytest.mark.parametrize("strength", [0.0, 0.2, 0.9, 0.995])
def test_aligned_images_of_each_class_are_the_strength_rounded_down(home, strength):
    train = fetch_spuco_mnist(home, correlation_strength=strength)
    for c in range(5):
        colour = train.spurious_attribute[train.target == c]
        assert np.sum(colour == c) == int(strength * len(colour))


def test_other_colours_of_the_training_split_are_dealt_evenly_over_seeds(home):
    sizes = sum(
        np.bincount(
            fetch_spuco_mnist(home, correlation_strength=0.9, random_state=s).sample_group,
            minlength=25,
        )
        for s in range(20)
    ).reshape(5, 5)
    for c in range(5):
        others = np.delete(sizes[c], c)
        # about 20 seeds times 12 images, a quarter each: 60 with a standard deviation of 6.7
        assert np.abs(others - others.sum() / 4).max() < 30
        assert np.ptp(others) > 0  # at random, not in equal parts


@pytest.mark.parametrize("split", ["val", "test"])
def test_validation_and_test_split_have_balanced_colours_and_clean_labels(home, split):
    bunch = fetch_spuco_mnist(home, split=split, correlation_strength=1.0, label_noise=0.5)
    for c in range(5):
        colour = bunch.spurious_attribute[bunch.target == c]
        counts = [len(colour) // 5 + (a < len(colour) % 5) for a in range(5)]
        assert_array_equal(np.bincount(colour), counts)
    assert_array_equal(bunch.target, bunch.digit // 2)
    assert_array_equal(bunch.target, bunch.clean_target)


def test_label_noise_flips_its_share_rounded_down_after_the_colours_are_drawn(home):
    clean, noisy = (
        fetch_spuco_mnist(home, label_noise=p, correlation_strength=1.0) for p in (0.0, 0.1)
    )
    assert_array_equal(clean.target, clean.clean_target)
    assert np.sum(noisy.target != noisy.clean_target) == int(0.1 * len(noisy.target))
    assert_array_equal(noisy.clean_target, noisy.digit // 2)
    assert_array_equal(noisy.spurious_attribute, noisy.clean_target)
    assert_array_equal(noisy.data, clean.data)
    assert_array_equal(noisy.sample_group, 5 * noisy.target + noisy.spurious_attribute)


# Laws


def test_splits_share_no_image_whatever_the_seed(home):
    train = fetch_spuco_mnist(home, random_state=0).source_index
    val = fetch_spuco_mnist(home, split="val", random_state=1).source_index
    assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(700))
    test = fetch_spuco_mnist(home, split="test").source_index
    assert_array_equal(np.sort(test), np.arange(201))


def test_strength_of_one_leaves_no_conflicting_image(home):
    train = fetch_spuco_mnist(home, correlation_strength=1.0)
    assert_array_equal(train.spurious_attribute, train.target)


def test_strength_of_chance_makes_nearly_balanced_groups(home):
    sizes = np.bincount(fetch_spuco_mnist(home, correlation_strength=0.2).sample_group)
    assert len(sizes) == 25
    assert sizes.min() > 9  # 112 images of a class, or so: 22 each
    assert sizes.max() < 40


def test_no_validation_leaves_everything_to_training(home):
    assert len(fetch_spuco_mnist(home, validation_fraction=0.0).target) == 700


def test_painting_does_not_depend_on_how_many_are_painted_at_a_time(home, monkeypatch):
    whole = fetch_spuco_mnist(home, magnitude="medium").data
    monkeypatch.setattr(_spuco_mnist, "_CHUNK", 9)
    assert_array_equal(fetch_spuco_mnist(home, magnitude="medium").data, whole)


# Randomness


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_data_and_another_seed_other_data(home, split):
    first, again, other = (fetch_spuco_mnist(home, split=split, random_state=s) for s in (0, 0, 1))
    assert_array_equal(first.data, again.data)
    assert_array_equal(first.sample_group, again.sample_group)
    assert not np.array_equal(first.source_index, other.source_index)
    of_image = [b.spurious_attribute[np.argsort(b.source_index)] for b in (first, other)]
    assert not np.array_equal(*of_image)


def test_rows_are_in_random_order(home):
    train = fetch_spuco_mnist(home, correlation_strength=0.9)
    rank = np.corrcoef(np.arange(len(train.target)), train.source_index)[0, 1]
    assert abs(rank) < 0.2
    minority = np.flatnonzero(train.target != train.spurious_attribute)
    assert 180 < minority.mean() < 380  # of 563 rows


def test_global_generators_are_left_alone(home, assert_global_rng_untouched):
    with assert_global_rng_untouched():
        fetch_spuco_mnist(home, random_state=None, label_noise=0.1)


# Files


@pytest.mark.parametrize("folder", ["MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_found_in_both_folders_and_forms(home, tiny_mnist, tmp_path, folder, suffix):
    other = tmp_path / "other"
    _write(other / folder, tiny_mnist[1], suffix)
    for split in SPLITS:
        found, expected = (fetch_spuco_mnist(h, split=split) for h in (str(other), home))
        assert_array_equal(found.data, expected.data)


def test_default_home_is_that_of_scikit_learn(home, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(home))
    assert len(fetch_spuco_mnist(split="test").target) == 201


def test_missing_files_are_named_with_the_folder_and_the_remedy(home, tmp_path):
    (home / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    message = (
        r"data_home='.*': no train-labels-idx1-ubyte \(nor .gz\) in .*MNIST.raw or "
        ".*mnist.MNIST.raw.*download_if_missing=True"
    )
    with pytest.raises(FileNotFoundError, match=message):
        fetch_spuco_mnist(home)
    assert len(fetch_spuco_mnist(home, split="test").target) == 201  # does not need it
    with pytest.raises(FileNotFoundError, match=r"no train-images.* and no train-labels"):
        fetch_spuco_mnist(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_tampered_file_is_refused(home, tiny_mnist, tmp_path, suffix):
    content = dict(tiny_mnist[1])
    name = "train-labels-idx1-ubyte"
    content[name] = content[name][:-1] + bytes([content[name][-1] ^ 1])  # one bit
    _write(tmp_path / "bad" / "MNIST" / "raw", content, suffix)
    with pytest.raises(OSError, match=f"{name}.* is not the file of MNIST.*sha256.*Delete it"):
        fetch_spuco_mnist(tmp_path / "bad")


def test_a_truncated_archive_is_refused(home, tiny_mnist, tmp_path):
    folder = tmp_path / "bad" / "MNIST" / "raw"
    _write(folder, tiny_mnist[1], ".gz")
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"t10k-images-idx3-ubyte.gz is damaged.*Delete it"):
        fetch_spuco_mnist(tmp_path / "bad", split="test")


def test_download_happens_only_if_asked_and_only_if_missing(
    home, tiny_mnist, tmp_path, monkeypatch
):
    calls = []

    def download(root, *, train, download):
        calls.append((root, train, download))
        _write(tmp_path / "new" / "MNIST" / "raw", tiny_mnist[1])

    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    with pytest.raises(FileNotFoundError, match="download_if_missing=True"):
        fetch_spuco_mnist(tmp_path / "new")
    assert calls == []
    first = fetch_spuco_mnist(tmp_path / "new", download_if_missing=True)
    assert calls == [(str(tmp_path / "new"), True, True)]
    again = fetch_spuco_mnist(tmp_path / "new", download_if_missing=True)
    assert len(calls) == 1
    assert_array_equal(first.data, again.data)


# Errors


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_home", 3),
        ("split", "validation"),
        ("correlation_strength", 1.01),
        ("correlation_strength", float("nan")),
        ("magnitude", "huge"),
        ("label_noise", -0.1),
        ("download_if_missing", "yes"),
        ("validation_fraction", 1.0),
        ("random_state", "0"),
    ],
)
def test_arguments_out_of_range_are_refused(name, value):
    with pytest.raises(
        ValueError, match=f"'{name}' parameter of fetch_spuco_mnist .* Got .* instead"
    ):
        fetch_spuco_mnist(**{name: value})


def test_an_empty_validation_split_is_refused(home):
    with pytest.raises(ValueError, match=r"validation_fraction=0.0 leaves no image.*Use a larger"):
        fetch_spuco_mnist(home, split="val", validation_fraction=0.0)


# The real thing


def test_real_mnist_has_the_counts_of_spuco(real_data):
    # class sizes as SpuCo 2.0.3 has them, counted on its own splits
    train = fetch_spuco_mnist(real_data)
    assert train.data.shape == (48_004, 3, 28, 28)
    assert_array_equal(np.bincount(train.target), [10_133, 9_672, 9_011, 9_747, 9_441])
    sizes = np.bincount(train.sample_group).reshape(5, 5)
    assert_array_equal(np.diag(sizes), [10_082, 9_623, 8_965, 9_698, 9_393])
    assert sizes.min() > 0
    val = fetch_spuco_mnist(real_data / "mnist", split="val")
    test = fetch_spuco_mnist(real_data / "mnist", split="test")
    assert_array_equal(np.bincount(val.target), [2_532, 2_417, 2_252, 2_436, 2_359])
    assert_array_equal(np.bincount(test.target), [2_115, 2_042, 1_874, 1_986, 1_983])
    for bunch, low, high in ((val, 450, 507), (test, 374, 423)):
        sizes = np.bincount(bunch.sample_group)
        assert (sizes.min(), sizes.max()) == (low, high)
    assert len(np.intersect1d(train.source_index, val.source_index)) == 0
