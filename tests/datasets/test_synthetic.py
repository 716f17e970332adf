"""make_spurious_classification and make_spurious_images."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from skspurious.datasets import _images, make_spurious_classification, make_spurious_images
from skspurious.datasets._classification import _simplex, _simplex_accuracy

GENERATORS = [make_spurious_classification, make_spurious_images]


def _worst_group_accuracy(model, bunch):
    right = model.predict(bunch.data) == bunch.target
    return min(right[bunch.sample_group == g].mean() for g in np.unique(bunch.sample_group))


# By hand


@pytest.mark.parametrize("make", GENERATORS)
def test_group_sizes_are_those_worked_out_by_hand(make):
    # 34, 33 and 33 of each class; 27.2, 26.4 and 26.4 aligned; 7 left, 4 and 3 in turn
    bunch = make(100, n_classes=3, correlation_strength=0.8, random_state=0)
    sizes = np.bincount(bunch.sample_group).reshape(3, 3)
    assert_array_equal(sizes, [[27, 4, 3], [3, 26, 4], [4, 3, 26]])


@pytest.mark.parametrize("make", GENERATORS)
def test_bunch_has_the_fields_that_it_promises(make):
    bunch = make(60, n_classes=3, n_attributes=2, random_state=0)
    assert len(bunch.data) == len(bunch.target) == 60
    assert list(bunch.target_names) == ["class 0", "class 1", "class 2"]
    assert list(bunch.attribute_names) == ["attribute 0", "attribute 1"]
    assert_array_equal(bunch.sample_group, 2 * bunch.target + bunch.spurious_attribute)
    for name in ("target", "clean_target", "spurious_attribute", "sample_group"):
        assert bunch[name].dtype == np.int64
    assert "Correlation strength 0.95" in bunch.DESCR


@pytest.mark.parametrize(("n_centres", "n_features"), [(2, 1), (2, 5), (3, 2), (5, 4), (4, 9)])
def test_simplex_has_all_centres_the_separation_apart(n_centres, n_features):
    centres = _simplex(n_centres, n_features, 3.0)
    distance = np.linalg.norm(centres[:, None] - centres, axis=2)
    assert_allclose(distance, 3.0 * (1 - np.eye(n_centres)), atol=1e-12)
    assert_allclose(centres.sum(axis=0), 0, atol=1e-12)


def test_simplex_of_two_spreads_the_separation_evenly_over_the_features():
    assert_allclose(np.abs(_simplex(2, 4, 3.0)), 0.75)  # 4 features, 1.5 apart: sqrt(4) * 1.5 = 3


def test_simplex_accuracy_is_that_of_one_threshold_for_two_and_chance_for_none():
    for separation in (0.0, 1.0, 2.5, 8.0):
        assert_allclose(_simplex_accuracy(2, separation), norm.cdf(separation / 2), atol=1e-9)
    assert_allclose(_simplex_accuracy(5, 0.0), 0.2, atol=1e-9)


# Tables


def test_classification_columns_are_core_then_spurious_then_noise():
    bunch = make_spurious_classification(
        50, n_core_features=3, n_spurious_features=2, n_noise_features=1, random_state=0
    )
    assert bunch.data.shape == (50, 6)
    assert_array_equal(bunch.core_features, [0, 1, 2])
    assert_array_equal(bunch.spurious_features, [3, 4])
    assert_array_equal(bunch.noise_features, [5])
    names = ["core0", "core1", "core2", "spurious0", "spurious1", "noise0"]
    assert list(bunch.feature_names) == names


def test_classification_defaults_take_as_many_features_as_the_centres_need():
    bunch = make_spurious_classification(60, n_classes=5, n_attributes=2, n_noise_features=0)
    assert (len(bunch.core_features), len(bunch.spurious_features)) == (4, 2)


def test_classification_features_are_centres_and_standard_normal_noise():
    bunch = make_spurious_classification(
        40_000, n_classes=3, n_attributes=2, correlation_strength=0.7, random_state=0
    )
    core = bunch.data[:, bunch.core_features] - _simplex(3, 2, 2.5)[bunch.target]
    spurious = (
        bunch.data[:, bunch.spurious_features] - _simplex(2, 2, 5.0)[bunch.spurious_attribute]
    )
    noise = np.hstack([core, spurious, bunch.data[:, bunch.noise_features]])
    # 5 standard errors of a mean are 0.025, those of a covariance about as much
    assert_allclose(noise.mean(axis=0), 0, atol=0.025)
    assert_allclose(np.cov(noise.T), np.eye(noise.shape[1]), atol=0.04)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_core_accuracy_is_reached_by_the_nearest_centre(n_classes):
    bunch = make_spurious_classification(20_000, n_classes=n_classes, random_state=0)
    for columns, truth, separation, accuracy in (
        (bunch.core_features, bunch.target, 2.5, bunch.core_accuracy),
        (bunch.spurious_features, bunch.spurious_attribute, 5.0, bunch.spurious_accuracy),
    ):
        centres = _simplex(n_classes, len(columns), separation)
        distance = np.linalg.norm(bunch.data[:, None, columns] - centres, axis=2)
        assert_allclose(np.mean(distance.argmin(axis=1) == truth), accuracy, atol=0.012)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_plain_training_fails_on_a_group_and_balanced_training_does_not(seed):
    train = make_spurious_classification(1000, random_state=seed)
    test = make_spurious_classification(4000, correlation_strength=0.5, random_state=seed + 100)
    size = np.bincount(train.sample_group)[train.sample_group]
    plain = LogisticRegression().fit(train.data, train.target)
    balanced = LogisticRegression().fit(train.data, train.target, sample_weight=1 / size)
    assert plain.score(train.data, train.target) > 0.94
    assert _worst_group_accuracy(plain, test) < 0.65
    assert _worst_group_accuracy(balanced, test) > 0.8


def test_without_a_shortcut_plain_training_reaches_the_core_accuracy_in_every_group():
    train, test = (
        make_spurious_classification(4000, correlation_strength=0.5, random_state=s) for s in (0, 1)
    )
    worst = _worst_group_accuracy(LogisticRegression().fit(train.data, train.target), test)
    assert worst > train.core_accuracy - 0.03


# Images


def test_images_have_stripes_turned_by_the_class():
    bunch = make_spurious_images(
        40, image_size=12, spurious_contrast=0.0, core_contrast=1.0, noise=0.0, random_state=0
    )
    assert bunch.data.shape == (40, 3, 12, 12)
    assert bunch.data.dtype == np.uint8
    upright, lying = (bunch.data[bunch.target == c].astype(int) for c in (0, 1))
    # three stripes over 12 pixels: a period of 4, in one direction only
    assert_array_equal(upright, np.broadcast_to(upright[:, :, :1], upright.shape))
    assert_array_equal(lying, np.broadcast_to(lying[..., :1], lying.shape))
    assert np.abs(upright[..., 4:] - upright[..., :-4]).max() <= 1
    assert np.abs(lying[:, :, 4:] - lying[:, :, :-4]).max() <= 1
    # half a period on, the opposite about the mean of 127.5; an amplitude of 63.75 at most
    assert np.abs(upright[..., 2:] + upright[..., :-2] - 255).max() <= 1
    # the variance of four equally spaced samples of a sine wave is that of the wave
    assert_allclose(upright.std(axis=-1), 63.75 / np.sqrt(2), atol=0.5)


def test_images_of_every_class_match_the_formula():
    bunch = make_spurious_images(
        30, n_classes=3, image_size=16, spurious_contrast=0.0, core_contrast=1.0, noise=0.0,
        random_state=0,
    )  # fmt: skip
    i, j = np.mgrid[:16, :16]
    for image, label in zip(bunch.data, bunch.target):
        t = np.pi * label / 3
        wave = 6 * np.pi * (j * np.cos(t) + i * np.sin(t)) / 16
        basis = np.column_stack([np.sin(wave).ravel(), np.cos(wave).ravel()])
        centred = image[0].ravel() - 127.5
        fitted, *_ = np.linalg.lstsq(basis, centred, rcond=None)
        assert np.abs(basis @ fitted - centred).max() < 0.75  # rounding, and what it moves the fit
        assert_allclose(np.hypot(*fitted), 63.75, atol=0.5)


def test_images_have_the_colour_of_the_attribute():
    bunch = make_spurious_images(
        30, n_attributes=3, correlation_strength=0.4, core_contrast=0.0, spurious_contrast=1.0,
        noise=0.0, random_state=0,
    )  # fmt: skip
    # cos(2 pi (a / 3 + k / 3)) is 1 where a + k is 0 or 3, else -1/2
    expected = {0: (191, 96, 96), 1: (96, 96, 191), 2: (96, 191, 96)}
    for image, attribute in zip(bunch.data, bunch.spurious_attribute):
        assert_array_equal(
            image, np.broadcast_to(np.reshape(expected[attribute], (3, 1, 1)), image.shape)
        )


def test_images_colour_only_the_square_that_they_are_told_to():
    bunch = make_spurious_images(20, spurious_size=3, noise=0.0, random_state=0)
    gray = (bunch.data == bunch.data[:, :1]).all(axis=1)
    assert not gray[:, :3, :3].any()
    assert gray[:, 3:].all()
    assert gray[:, :, 3:].all()


def test_images_keep_core_and_colour_apart():
    plain, coloured = (
        make_spurious_images(50, spurious_contrast=c, noise=0.0, random_state=0).data.astype(float)
        for c in (0.0, 1.0)
    )
    # the mean of the channels knows nothing of the colour (rounding: 0.5 in each)
    assert np.abs(plain.mean(axis=1) - coloured.mean(axis=1)).max() <= 1
    # and the differences of the channels nothing of the stripes
    difference = coloured[:, 0] - coloured[:, 1]
    assert np.ptp(difference, axis=(1, 2)).max() <= 2


def test_images_have_the_noise_that_they_are_told_to():
    data = make_spurious_images(
        100, core_contrast=0.0, spurious_contrast=0.0, noise=0.1, random_state=0
    ).data.astype(float)
    assert_allclose(data.mean(), 127.5, atol=0.5)
    assert_allclose(data.std(), 25.5, rtol=0.02)
    assert_allclose(np.corrcoef(data[:, 0].ravel(), data[:, 1].ravel())[0, 1], 0, atol=0.03)


def test_images_are_clipped_and_do_not_wrap():
    data = make_spurious_images(20, noise=1.0, random_state=0).data
    assert np.mean(data == 0) > 0.2
    assert np.mean(data == 255) > 0.2


def test_images_say_nothing_about_the_class_in_a_single_pixel():
    bunch = make_spurious_images(
        4000, image_size=8, core_contrast=1.0, spurious_contrast=0.0, noise=0.0, random_state=0
    )
    means = [bunch.data[bunch.target == c].mean(axis=0) for c in (0, 1)]
    assert_allclose(means, 127.5, atol=5.5)  # 5 standard errors of 45 / sqrt(2000)


def test_images_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    whole = make_spurious_images(50, random_state=0).data
    monkeypatch.setattr(_images, "_CHUNK", 7)
    assert_array_equal(make_spurious_images(50, random_state=0).data, whole)


def test_images_of_other_difficulty_keep_labels_and_stripes():
    easy = make_spurious_images(50, noise=0.0, random_state=0)
    hard = make_spurious_images(50, noise=0.02, spurious_size=4, core_contrast=0.25, random_state=0)
    assert_array_equal(easy.target, hard.target)
    assert_array_equal(easy.spurious_attribute, hard.spurious_attribute)
    for a, b in zip(easy.data, hard.data):  # the part without colour shows the same stripes
        assert np.corrcoef(a.mean(axis=0)[4:].ravel(), b.mean(axis=0)[4:].ravel())[0, 1] > 0.8


# Laws of both


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("n_attributes", [2, 3])
def test_strength_of_chance_makes_balanced_groups(make, n_attributes):
    bunch = make(120, n_attributes=n_attributes, correlation_strength=1 / n_attributes)
    assert_array_equal(np.bincount(bunch.sample_group), [60 // n_attributes] * 2 * n_attributes)


@pytest.mark.parametrize("make", GENERATORS)
def test_strength_of_one_leaves_no_conflicting_sample(make):
    bunch = make(50, n_classes=3, correlation_strength=1.0)
    assert_array_equal(bunch.spurious_attribute, bunch.target)


@pytest.mark.parametrize("make", GENERATORS)
def test_label_noise_flips_labels_and_nothing_else(make):
    clean, noisy = (make(200, n_classes=3, label_noise=p, random_state=0) for p in (0.0, 0.1))
    assert_array_equal(clean.target, clean.clean_target)
    assert_array_equal(noisy.clean_target, clean.target)
    assert_array_equal(noisy.spurious_attribute, clean.spurious_attribute)
    assert_array_equal(noisy.data, clean.data)
    assert np.sum(noisy.target != noisy.clean_target) == 20
    assert_array_equal(noisy.sample_group, 3 * noisy.target + noisy.spurious_attribute)


@pytest.mark.parametrize("make", GENERATORS)
def test_one_sample_is_enough(make):
    bunch = make(1, random_state=0)
    assert_array_equal(bunch.sample_group, [0])


# Randomness


@pytest.mark.parametrize("make", GENERATORS)
def test_same_seed_same_data_and_another_seed_other_data(make):
    first, again, other = (make(100, random_state=s) for s in (0, 0, 1))
    assert_array_equal(first.data, again.data)
    assert_array_equal(first.sample_group, again.sample_group)
    assert not np.array_equal(first.data, other.data)
    assert not np.array_equal(first.target, other.target)


@pytest.mark.parametrize("make", GENERATORS)
def test_rows_are_in_random_order(make):
    bunch = make(1000, random_state=0)
    assert 430 < np.sum(np.diff(bunch.target) != 0) < 570  # 500 expected
    assert 300 < np.flatnonzero(bunch.target != bunch.spurious_attribute).mean() < 700


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("random_state", [None, 0])
def test_global_generators_are_left_alone(make, random_state, assert_global_rng_untouched):
    with assert_global_rng_untouched():
        make(20, random_state=random_state)


# Errors


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_samples", 0),
        ("n_samples", 10.5),
        ("n_classes", 1),
        ("n_attributes", 1),
        ("correlation_strength", -0.1),
        ("correlation_strength", float("nan")),
        ("label_noise", 1.1),
        ("random_state", "seed"),
    ],
)
def test_generators_refuse_what_they_cannot_do(make, name, value):
    with pytest.raises(
        ValueError, match=f"'{name}' parameter of {make.__name__} .* Got .* instead"
    ):
        make(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"n_classes": 4, "n_core_features": 2},
            "n_core_features=2 is too few for n_classes=4 .* Use n_core_features >= 3, or None",
        ),
        (
            {"n_attributes": 3, "n_spurious_features": 1},
            "n_spurious_features=1 is too few for n_attributes=3 .* >= 2, or None",
        ),
        ({"core_separation": -1.0}, "'core_separation' parameter .* Got -1.0 instead"),
        ({"n_noise_features": -1}, "'n_noise_features' parameter .* Got -1 instead"),
    ],
)
def test_classification_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_spurious_classification(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spurious_size": 17}, "spurious_size=17 does not fit into image_size=16. Use .* <= 16"),
        ({"image_size": 4}, "'image_size' parameter .* Got 4 instead"),
        ({"core_contrast": 1.5}, "'core_contrast' parameter .* Got 1.5 instead"),
        ({"noise": -0.1}, "'noise' parameter .* Got -0.1 instead"),
    ],
)
def test_images_refuse_what_they_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_spurious_images(**arguments)
