"""load_spurious_digits."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from skspurious.datasets import load_spurious_digits

SPLITS = ("train", "val", "test")


def _reference_image(image, colour, size):
    """One digit of 8 by 8 with 16 units of ink at most, blown up and drawn pixel by pixel."""
    scale = size // 8
    margin = (size - 8 * scale) // 2
    drawn = np.empty((3, size, size), dtype=np.uint8)
    for k in range(3):
        for i in range(size):
            for j in range(size):
                row, column = (i - margin) // scale, (j - margin) // scale
                inside = 0 <= row < 8 and 0 <= column < 8
                ink = image[row, column] / 16 if inside else 0.0
                drawn[k, i, j] = int(colour[k] * (1 - ink) + 255 * ink + 0.5)
    return drawn


# By hand


def test_load_spurious_digits_has_the_group_sizes_worked_out_by_hand():
    # 901 images of 0-4 and 896 of 5-9, less 5 * 60 of validation and test: 601 and 596.
    # Of these 570.95 and 566.2 have the colour of their class.
    assert_array_equal(np.bincount(load_spurious_digits().sample_group), [571, 30, 30, 566])
    assert_array_equal(np.bincount(load_spurious_digits(split="val").sample_group), [100] * 4)
    assert_array_equal(np.bincount(load_spurious_digits(split="test").sample_group), [200] * 4)


def test_load_spurious_digits_of_five_classes_shares_the_rest_among_four_colours():
    train = load_spurious_digits(n_classes=5)
    assert list(train.target_names) == ["0-1", "2-3", "4-5", "6-7", "8-9"]
    # 178 + 182 - 120 = 240 images of 0 and 1, 228 aligned and 12 left
    assert_array_equal(np.bincount(train.sample_group)[:5], [228, 3, 3, 3, 3])
    assert_array_equal(train.target, train.digit // 2)


@pytest.mark.parametrize(("size", "brightness"), [(8, 0.5), (16, 0.5), (19, 1.0), (28, 0.25)])
def test_load_spurious_digits_draws_the_image_of_the_reference(size, brightness):
    test = load_spurious_digits(split="test", image_size=size, background_brightness=brightness)
    source = load_digits()
    level = int(255 * brightness + 0.5)
    colours = {"red": (level, 0, 0), "cyan": (0, level, level)}
    assert test.data.shape == (800, 3, size, size)
    assert test.data.dtype == np.uint8
    for row in range(0, 800, 80):
        colour = colours[test.attribute_names[test.spurious_attribute[row]]]
        expected = _reference_image(source.images[test.source_index[row]], colour, size)
        assert_array_equal(test.data[row], expected)


def test_load_spurious_digits_has_the_labels_of_its_source():
    source = load_digits()
    for split in SPLITS:
        bunch = load_spurious_digits(split=split)
        assert_array_equal(bunch.digit, source.target[bunch.source_index])
        assert_array_equal(bunch.target, bunch.digit >= 5)
        assert_array_equal(bunch.sample_group, 2 * bunch.target + bunch.spurious_attribute)
        assert bunch.target.dtype == bunch.sample_group.dtype == np.int64


def test_load_spurious_digits_has_the_colours_of_evenly_spaced_hues():
    val = load_spurious_digits(split="val", n_classes=5, background_brightness=1.0, image_size=10)
    # hues of 0, 72, 144, 216 and 288 degrees, in the border of one pixel
    expected = [(255, 0, 0), (204, 255, 0), (0, 255, 102), (0, 102, 255), (204, 0, 255)]
    assert_array_equal(val.data[:, :, 0, 0], np.array(expected)[val.spurious_attribute])
    assert_array_equal(val.data[:, :, -1, -1], np.array(expected)[val.spurious_attribute])


# Laws


def test_load_spurious_digits_splits_share_no_image_whatever_the_seed():
    index = [
        set(load_spurious_digits(split=split, random_state=seed).source_index.tolist())
        for seed, split in enumerate(SPLITS)
    ]
    assert [len(i) for i in index] == [1197, 200, 400]
    assert set.union(*index) == set(range(1797))


def test_load_spurious_digits_splits_hold_equally_many_of_each_digit():
    for split, size in (("val", 20), ("test", 40)):
        bunch = load_spurious_digits(split=split)
        digits = bunch.digit[np.unique(bunch.source_index, return_index=True)[1]]
        assert_array_equal(np.bincount(digits), [size] * 10)


@pytest.mark.parametrize("n_classes", [2, 5, 10])
@pytest.mark.parametrize("split", ["val", "test"])
def test_load_spurious_digits_shows_every_evaluated_image_once_on_every_colour(split, n_classes):
    bunch = load_spurious_digits(split=split, n_classes=n_classes, correlation_strength=1.0)
    pairs = np.column_stack([bunch.source_index, bunch.spurious_attribute])
    assert len(np.unique(pairs, axis=0)) == len(pairs) == n_classes * len(set(pairs[:, 0]))


def test_load_spurious_digits_follows_the_strength_in_the_training_split():
    perfect = load_spurious_digits(correlation_strength=1.0)
    assert_array_equal(perfect.spurious_attribute, perfect.target)
    chance = np.bincount(load_spurious_digits(correlation_strength=0.5).sample_group)
    assert_array_equal(chance, [301, 300, 298, 298])


@pytest.mark.parametrize("n_classes", [2, 5, 10])
def test_load_spurious_digits_gives_every_attribute_a_colour_of_its_own(n_classes):
    train = load_spurious_digits(n_classes=n_classes)
    corner = train.data[:, :, 0, 0]  # without ink in all but a few digits
    colours = {
        tuple(np.median(corner[train.spurious_attribute == a], axis=0)) for a in range(n_classes)
    }
    assert len(colours) == len(set(train.attribute_names)) == n_classes
    assert all(max(colour) == 128 and min(colour) == 0 for colour in colours)


# Effect


def test_a_model_of_the_pixels_fails_on_the_minority_groups():
    train, test = load_spurious_digits(), load_spurious_digits(split="test")
    X, X_test = (b.data.reshape(len(b.data), -1) / 255 for b in (train, test))
    size = np.bincount(train.sample_group)[train.sample_group]

    def worst(**weights):
        model = LogisticRegression(C=0.01).fit(X, train.target, **weights)
        right = model.predict(X_test) == test.target
        return min(right[test.sample_group == g].mean() for g in range(4))

    plain, balanced = worst(), worst(sample_weight=1 / size * size.mean())
    assert plain < 0.3
    assert balanced > plain + 0.3


# Randomness


def test_load_spurious_digits_repeats_for_a_seed_and_differs_for_another():
    first, again, other = (load_spurious_digits(random_state=s) for s in (0, 0, 1))
    for name in ("data", "target", "spurious_attribute", "source_index"):
        assert_array_equal(first[name], again[name])
    wrong = [set(b.source_index[b.target != b.spurious_attribute].tolist()) for b in (first, other)]
    assert wrong[0] != wrong[1]
    assert not np.array_equal(first.source_index, other.source_index)


def test_load_spurious_digits_shuffles_its_rows():
    train = load_spurious_digits()
    changes = np.sum(np.diff(train.target) != 0)
    assert 500 < changes < 700  # 598 expected
    minority = np.flatnonzero(train.target != train.spurious_attribute)
    assert 300 < minority.mean() < 900


def test_load_spurious_digits_leaves_the_global_generators_alone(assert_global_rng_untouched):
    with assert_global_rng_untouched():
        load_spurious_digits(random_state=None)


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "all"}, "'split' parameter .* Got 'all' instead"),
        ({"n_classes": 3}, "'n_classes' parameter .* Got 3 instead"),
        ({"correlation_strength": 1.5}, "'correlation_strength' parameter .* Got 1.5 instead"),
        ({"correlation_strength": float("nan")}, "'correlation_strength' .* Got nan instead"),
        ({"background_brightness": 0.0}, "'background_brightness' parameter .* Got 0.0 instead"),
        ({"image_size": 7}, "'image_size' parameter .* Got 7 instead"),
        ({"random_state": "0"}, "'random_state' parameter .* Got '0' instead"),
    ],
)
def test_load_spurious_digits_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_spurious_digits(**arguments)
