"""Views of pictures: what each of them does, by hand and by law."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.transforms.v2.functional import rgb_to_grayscale

from skspurious.views import Grayscale, KeepCenter, LowPass, MaskCenter, ShufflePatches

RNG = np.random.default_rng(0)
VIEWS = [MaskCenter(), KeepCenter(), ShufflePatches(3), LowPass(), Grayscale()]
SHAPES = [(3, 8, 8), (3, 9, 11), (1, 7, 5), (4, 16, 5)]

all_views = pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)


def pictures(shape=(3, 9, 11), n=20):
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


# --------------------------------------------------------------------------------------
# Middle and border


def test_the_middle_by_hand():
    X = np.arange(1, 36, dtype=np.uint8).reshape(1, 1, 5, 7)  # 3 of 5 rows, 4 of 7 columns
    hidden = np.zeros((5, 7), dtype=bool)
    hidden[1:4, 1:5] = True
    assert_array_equal(MaskCenter().transform(X)[0, 0], np.where(hidden, 0, X[0, 0]))
    assert_array_equal(KeepCenter().transform(X)[0, 0], np.where(hidden, X[0, 0], 0))
    assert_array_equal(MaskCenter(fill=1.0).transform(X)[0, 0][hidden], 255)
    assert_array_equal(MaskCenter(fill=0.5).transform(X / 255.0)[0, 0][hidden], 0.5)


@pytest.mark.fidelity
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.6, 0.99])
def test_what_one_hides_the_other_keeps(shape, fraction):
    X = np.maximum(pictures(shape), 1)
    masked, kept = MaskCenter(fraction).transform(X), KeepCenter(fraction).transform(X)
    assert_array_equal(masked + kept, X)
    is_hidden = (masked == 0).all(axis=(0, 1))
    assert_array_equal((masked == 0).any(axis=(0, 1)), is_hidden)  # the same in all pictures
    border = np.ones_like(is_hidden)
    border[1:-1, 1:-1] = False
    assert not is_hidden[border].any()
    for axis, size in enumerate(shape[1:]):
        n_hidden = is_hidden.any(axis=1 - axis).sum()
        assert n_hidden == min(max(round(fraction * size), 1), size - 2)


@pytest.mark.parametrize("view", [MaskCenter(), KeepCenter()])
def test_a_picture_without_a_middle_is_refused(view):
    with pytest.raises(ValueError, match=r"2 x 9 pixels; .*Center needs 3 x 3"):
        view.transform(pictures((3, 2, 9)))


# --------------------------------------------------------------------------------------
# Pieces


def _pieces(picture, n):
    """All pieces of a picture whose size divides, as tuples, sorted."""
    _, height, width = picture.shape
    h, w = height // n, width // n
    return sorted(
        tuple(picture[:, i * h : i * h + h, j * w : j * w + w].ravel())
        for i in range(n)
        for j in range(n)
    )


@pytest.mark.fidelity
def test_pieces_are_permuted_and_not_changed():
    X = pictures((3, 12, 8))
    Z = ShufflePatches(4).transform(X)
    for before, after in zip(X, Z, strict=True):
        assert _pieces(before, 4) == _pieces(after, 4)
        assert not np.array_equal(before, after)


def test_every_picture_has_an_order_of_its_own_that_the_seed_decides():
    place = np.repeat(np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4), 2, 0), 2, 1)
    X = np.stack([np.stack([place, np.full_like(place, i)]) for i in range(30)])
    X = np.concatenate([X, X[:, :1]], axis=1)  # which piece, which picture
    orders = ShufflePatches(4).transform(X)[:, 0, ::2, ::2].reshape(30, -1)
    assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(16), (30, 1)))
    assert len(np.unique(orders, axis=0)) == 30
    others = ShufflePatches(4, random_state=1).transform(X)[:, 0, ::2, ::2].reshape(30, -1)
    assert not (orders == others).all(axis=1).any()
    # each piece goes to each place about equally often: 30 pictures, 2 seeds
    drawn = np.concatenate([ShufflePatches(4, random_state=s).transform(X) for s in range(20)])
    count = np.bincount(drawn[:, 0, 0, 0], minlength=16)
    assert count.min() > 15
    assert count.max() < 65  # 37.5 expected


def test_a_margin_that_fills_no_piece_stays():
    X = pictures((1, 11, 8))
    Z = ShufflePatches(4).transform(X)  # pieces of 2 x 2: rows 1 to 8
    assert_array_equal(Z[:, :, [0, 9, 10]], X[:, :, [0, 9, 10]])
    for before, after in zip(X, Z, strict=True):
        assert _pieces(before[:, 1:9], 4) == _pieces(after[:, 1:9], 4)


def test_a_picture_smaller_than_the_pieces_is_cut_into_pixels():
    X = pictures((3, 5, 2))
    Z = ShufflePatches(8).transform(X)
    for before, after in zip(X, Z, strict=True):
        assert sorted(map(tuple, before.reshape(3, -1).T)) == sorted(
            map(tuple, after.reshape(3, -1).T)
        )


def test_equal_pictures_are_shuffled_alike():
    X = pictures()
    assert_array_equal(ShufflePatches(3).transform(X[[4, 4]])[0], ShufflePatches(3).transform(X)[4])


# --------------------------------------------------------------------------------------
# Blur and grey


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", [0.02, 0.1, 1.0])
def test_blurring_keeps_the_mean_and_the_range(shape, sigma):
    X = RNG.random((5, *shape))
    Z = LowPass(sigma).transform(X)
    assert_allclose(Z.mean(axis=(2, 3)), X.mean(axis=(2, 3)), atol=1e-12)
    assert (Z.std(axis=(2, 3)) < X.std(axis=(2, 3))).all()
    assert Z.min() >= X.min() - 1e-3
    assert Z.max() <= X.max() + 1e-3


def test_blurring_removes_a_board_and_keeps_a_wave():
    rows, columns = np.indices((32, 32))
    board = ((rows + columns) % 2 * 1.0)[None]
    inner = LowPass().transform(board)[0, 8:-8, 8:-8]
    assert_allclose(inner, 0.5, atol=1e-3)
    wave = np.cos(np.pi * (rows + 0.5) / 32)[None]  # half a period: what the basis begins with
    damping = np.exp(-0.5 * (np.pi * 0.1) ** 2)
    assert_allclose(LowPass().transform(wave), damping * wave, atol=1e-12)


@pytest.mark.fidelity
def test_blurring_is_a_gaussian():
    X = np.zeros((1, 41, 41))
    X[0, 20, 20] = 1.0
    spread = LowPass(0.05).transform(X)[0]
    distance = (np.arange(41) - 20) / (0.05 * 41)
    expected = np.exp(-0.5 * distance**2)
    assert_allclose(spread, np.outer(expected, expected) / expected.sum() ** 2, atol=1e-4)


def test_a_constant_picture_stays_as_it_is_blurred():
    X = np.full((2, 3, 5, 7), 77, dtype=np.uint8)
    assert_array_equal(LowPass().transform(X), X)
    assert_array_equal(LowPass().transform(pictures((3, 1, 1))).shape, (20, 3, 1, 1))


def test_grey_has_equal_channels_and_the_weights_of_torchvision():
    X = torch.rand(6, 3, 5, 4)
    grey = Grayscale().transform(X)
    assert_array_equal(grey[:, 0], grey[:, 1])
    assert_array_equal(grey[:, 0], grey[:, 2])
    assert_allclose(grey, rgb_to_grayscale(X, num_output_channels=3), atol=1e-6)
    X = torch.from_numpy(pictures())
    cut_off = rgb_to_grayscale(X, num_output_channels=3).int()
    assert set((Grayscale().transform(X).int() - cut_off).unique().tolist()) <= {0, 1}


def test_grey_pictures_stay_and_so_does_alpha():
    X = pictures((1, 5, 7))
    assert_array_equal(Grayscale().transform(X), X)
    assert_array_equal(Grayscale().transform(X[:, 0]), X[:, 0])
    three = np.repeat(X, 3, axis=1)
    assert_array_equal(Grayscale().transform(three), three)
    four = pictures((4, 5, 7))
    assert_array_equal(Grayscale().transform(four)[:, 3], four[:, 3])
    with pytest.raises(ValueError, match=r"5 channels; 1, 3 .* or 4"):
        Grayscale().transform(pictures((5, 7, 6)))


# --------------------------------------------------------------------------------------
# Laws of all


@all_views
@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_of_the_rows_looks_as_in_the_whole(view, shape):
    for X in (pictures(shape), RNG.normal(size=(20, *shape)).astype(np.float32)):
        whole = view.fit_transform(X)
        order = RNG.permutation(20)[:13]
        assert_array_equal(view.transform(X[order]), whole[order])
        assert_array_equal(view.transform(X[3:4]), whole[3:4])


@all_views
def test_chunks_make_no_difference(view, monkeypatch):
    X = RNG.normal(size=(9, 3, 9, 8))
    whole = view.transform(X)
    monkeypatch.setattr("skspurious.views._base._CHUNK_SIZE", 2 * 3 * 9 * 8)
    assert_array_equal(view.transform(X), whole)


@all_views
def test_bytes_and_floats_agree(view):
    X = pictures()
    as_bytes = view.transform(X)
    for dtype in (np.float32, np.float64):
        as_floats = view.transform((X / 255).astype(dtype))
        assert as_floats.dtype == dtype
        assert_allclose(as_floats * 255, as_bytes, atol=0.5001 + 255e-4)  # white is 0.9999 grey


@all_views
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float32", "float64", "bool"])
def test_type_and_layout_are_kept_and_the_input_is_not_changed(view, dtype):
    X = pictures((3, 9, 8)).astype(dtype)
    last = np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    before = X.copy()
    for array in (X, last):
        array.flags.writeable = False
        Z = view.transform(array)
        assert Z.dtype == X.dtype
        assert Z.strides == array.strides
        assert Z.flags.writeable
        assert not np.shares_memory(Z, array)
        assert_array_equal(array, before)
    tensor = torch.tensor(before).contiguous(memory_format=torch.channels_last)
    Z = view.transform(tensor)
    assert Z.dtype == tensor.dtype
    assert Z.is_contiguous(memory_format=torch.channels_last)
    assert_array_equal(tensor, before)
    assert_array_equal(Z, view.transform(before))


@all_views
def test_no_pictures_give_none(view):
    assert view.transform(pictures(n=0)).shape == (0, 3, 9, 11)


@all_views
def test_a_tensor_with_a_gradient_is_cut_off_from_it(view):
    X = torch.rand(4, 3, 9, 9, requires_grad=True)
    assert not view.transform(X).requires_grad


@all_views
def test_grey_pictures_without_a_channel_axis(view):
    X = pictures((1, 9, 8))
    assert_array_equal(view.transform(X[:, 0]), view.transform(X)[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskCenter(0.0), "'fraction' parameter of MaskCenter"),
        (lambda: MaskCenter(1.0), "'fraction' parameter of MaskCenter"),
        (lambda: KeepCenter(fill=2), "'fill' parameter of KeepCenter"),
        (lambda: ShufflePatches(1), "'n_patches' parameter of ShufflePatches"),
        (lambda: ShufflePatches(random_state=None), "'random_state' parameter of ShufflePatches"),
        (lambda: LowPass(0), "'sigma' parameter of LowPass"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match=message):
            getattr(make(), method)(pictures())


@all_views
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 3)), r"X is a table; \w+ takes pictures.*ColumnTransformer"),
        (np.zeros((4, 3, 9, 3)), r"\(4, 3, 9, 3\), in which channels may come first or last"),
        (torch.zeros(4, 3), r"X has shape \(4, 3\)"),
        (np.zeros((4, 3, 0, 5)), r"X has shape \(4, 3, 0, 5\)"),
        (np.zeros((4, 2, 3, 5, 5)), r"X has shape \(4, 2, 3, 5, 5\)"),
    ],
)
def test_what_is_no_picture_is_refused(view, X, message):
    with pytest.raises(ValueError, match=message):
        view.fit_transform(X)
