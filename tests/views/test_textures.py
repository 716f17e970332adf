"""The parts "blocks" and "spectrum" of ImageStatistics: by loops, and on hand-made pictures."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspurious.views import ImageStatistics

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (3, 3, 24, 40), dtype=np.uint8)


def table(X, part):
    return ImageStatistics([part]).set_output(transform="pandas").fit_transform(X)


def grey_of(X):
    return 0.2989 * X[:, 0] / 255 + 0.587 * X[:, 1] / 255 + 0.114 * X[:, 2] / 255


def test_blocks_by_loops():
    columns = table(X, "blocks")
    unit = X / 255.0
    maps = {
        "brightness": grey_of(X),
        "blue": unit[:, 2],
        "red_green": unit[:, 0] - unit[:, 1],
        "yellow": (unit[:, 0] + unit[:, 1]) / 2 - unit[:, 2],
    }
    for name, values in maps.items():
        for i, picture in enumerate(values):
            # An eighth of 24 is 3 pixels, and each block is one pixel from the next.
            parts = [picture[r : r + 3, c : c + 3] for r in range(22) for c in range(38)]
            means, spreads = [p.mean() for p in parts], [p.std() for p in parts]
            found = columns.iloc[i]
            assert found[f"block_{name}_mean_min"] == pytest.approx(min(means), abs=1e-5)
            assert found[f"block_{name}_mean_max"] == pytest.approx(max(means), abs=1e-5)
            assert found[f"block_{name}_std_min"] == pytest.approx(min(spreads), abs=1e-5)
            assert found[f"block_{name}_std_max"] == pytest.approx(max(spreads), abs=1e-5)


def test_differences_of_colours_by_hand():
    pictures = np.empty((1, 3, 16, 16), dtype=np.uint8)
    pictures[:] = np.array([204, 102, 51])[:, None, None]  # 0.8, 0.4 and 0.2
    columns = table(pictures, "blocks").iloc[0]
    for name, value in {
        "red": 0.8,
        "green": 0.4,
        "blue": 0.2,
        "red_green": 0.4,
        "red_blue": 0.6,
        "green_blue": 0.2,
        "yellow": 0.4,
        "magenta": 0.1,
        "cyan": -0.5,
    }.items():
        assert columns[f"block_{name}_mean_max"] == pytest.approx(value, abs=1e-6)
        assert columns[f"block_{name}_std_max"] == pytest.approx(0.0, abs=1e-3)


def test_a_small_square_is_seen_wherever_it_stands():
    pictures = np.zeros((3, 3, 32, 32), dtype=np.uint8)
    pictures[0, :2, 3:7, 20:24] = 255
    pictures[1, :2, 27:31, 1:5] = 255
    columns = table(pictures, "blocks")
    assert columns["block_yellow_mean_max"].tolist() == [1.0, 1.0, 0.0]
    assert_allclose(columns.iloc[0], columns.iloc[1])


def test_spectrum_by_numpy():
    columns = table(X, "spectrum")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)
    maps = {"spectrum_{}_{}": grey_of(X), "yellow": (X[:, 0] / 2 + X[:, 1] / 2 - X[:, 2]) / 255}
    energy = {}
    for name, values in maps.items():
        tiles = [values[:, r : r + 16, c : c + 16] for r in (0, 8) for c in (0, 8, 16, 24)]
        tiles = [t - t.mean(axis=(1, 2), keepdims=True) for t in tiles]
        tiles = [np.fft.fft2(t * np.outer(window, window)) for t in tiles]
        energy[name] = np.mean([np.abs(t) ** 2 for t in tiles], axis=0)
    grey = energy["spectrum_{}_{}"]
    for down, across in [(0, 1), (3, 0), (-5, 2), (8, 8), (4, 7)]:
        expected = np.log(grey[:, down, across] + 1e-6)
        assert_allclose(columns[f"spectrum_{down}_{across}"], expected, rtol=1e-4)
    # A ring has the frequencies whose distance from 0 is nearest to it.
    frequency = np.fft.fftfreq(16, 1 / 16)
    half = np.abs(energy["yellow"])[:, :, :9]
    ring = np.round(np.hypot(frequency[:, None], np.arange(9))) == 3
    expected = np.log(half[:, ring].mean(axis=1) + 1e-6)
    assert_allclose(columns["spectrum_yellow_3"], expected, rtol=1e-4)


def test_every_frequency_is_there_once():
    columns = table(X[:, :1], "spectrum")  # of grey pictures nothing of colours
    assert columns.shape[1] == (16 * 16 - 4) // 2 + 3  # four are their own mirror image, one is 0
    assert table(X, "spectrum").shape[1] == columns.shape[1] + 2 * 8
    assert table(X[:, :1], "blocks").shape[1] == 4


@pytest.mark.parametrize(("sign", "loud"), [(1, "spectrum_4_4"), (-1, "spectrum_-4_4")])
def test_stripes_are_loud_at_their_frequency_and_direction(sign, loud):
    row, column = np.indices((32, 32))
    for phase in range(3):
        wave = np.cos(2 * np.pi * (row + sign * column + phase) / 4)
        pictures = np.repeat(100 + 20 * wave[None, None], 3, axis=1).astype(np.uint8)
        columns = table(pictures, "spectrum").filter(regex=r"^spectrum_-?\d")
        assert columns.iloc[0].idxmax() == loud


def test_small_pictures_are_continued():
    small = RNG.integers(0, 256, (2, 3, 9, 12), dtype=np.uint8)
    padded = np.pad(small, ((0, 0), (0, 0), (0, 7), (0, 4)), mode="edge")
    assert_allclose(table(small, "spectrum"), table(padded, "spectrum"))
