"""ImageStatistics: its columns by hand, from every kind of X."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.transforms.functional import to_pil_image

from skspurious import GroupedData
from skspurious.views import ImageStatistics, MaskCenter

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 3, 16, 24), dtype=np.uint8)


def table(X, parts=None, **params):
    return ImageStatistics(parts, **params).set_output(transform="pandas").fit_transform(X)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    names = [folder / f"{i}.png" for i in range(len(X))]
    for name, picture in zip(names, X, strict=True):
        to_pil_image(torch.from_numpy(picture)).save(name)
    return names


def test_columns_by_hand():
    columns = table(X)
    unit = X / 255.0
    grey = 0.2989 * unit[:, 0] + 0.587 * unit[:, 1] + 0.114 * unit[:, 2]
    frame = np.ones((16, 24), dtype=bool)
    frame[2:-2, 2:-2] = False  # an eighth of 16
    expected = {
        "border_red_mean": unit[:, 0][:, frame].mean(axis=1),
        "border_blue_std": unit[:, 2][:, frame].std(axis=1),
        "corner_top_right_green": unit[:, 1, :2, -2:].mean(axis=(1, 2)),
        "corner_bottom_left_red": unit[:, 0, -2:, :2].mean(axis=(1, 2)),
        "row_03_red": unit[:, 0, 3].mean(axis=1),
        "column_01_blue": unit[:, 2, :, 1:3].mean(axis=(1, 2)),  # 24 columns in 16 bands
        "colour_green_mean": unit[:, 1].mean(axis=(1, 2)),
        "colour_green_std": unit[:, 1].std(axis=(1, 2)),
        "colour_red_min": unit[:, 0].min(axis=(1, 2)),
        "colour_red_max": unit[:, 0].max(axis=(1, 2)),
        "saturation_mean": np.ptp(unit, axis=1).mean(axis=(1, 2)),
        "saturation_std": np.ptp(unit, axis=1).std(axis=(1, 2)),
        "brightness_mean": grey.mean(axis=(1, 2)),
        "brightness_std": grey.std(axis=(1, 2)),
        "brightness_min": grey.min(axis=(1, 2)),
        "brightness_max": grey.max(axis=(1, 2)),
        "sharpness_across": np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2)),
        "sharpness_down": np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)),
        "height": np.full(12, 16),
        "width": np.full(12, 24),
    }
    for name, values in expected.items():
        assert_allclose(columns[name], values, atol=1e-6, err_msg=name)
    assert "file_size" not in columns
    assert (columns.dtypes == np.float32).all()
    n_columns = 3 * (2 + 4 + 16 + 16 + 15 + 15 + 4) + 2 + 4 + 3 + 2 + 40 + 145
    assert columns.shape == (12, n_columns)
    assert columns.columns.is_unique


def test_sharpness_is_zero_where_nothing_changes():
    flat = np.full((2, 1, 1, 5), 80, dtype=np.uint8)
    assert (table(flat, ["sharpness"]) == 0).all(axis=None)
    step = torch.zeros((1, 1, 3, 4))
    step[..., 2:] = 1.0
    assert table(step, ["sharpness"]).iloc[0].tolist() == pytest.approx([1 / 3, 0, 1 / 2])


def test_a_line_is_in_one_band():
    line = np.zeros((2, 1, 32, 32))
    line[0, 0, 11] = 1.0
    columns = table(line, ["rows", "columns"], n_bands=32)
    assert columns.iloc[0]["row_11_grey"] == 1.0
    assert columns.iloc[0].filter(like="row_").sum() == 1.0
    assert_allclose(columns.iloc[0].filter(like="column_"), 1 / 32)


def test_floats_tensors_files_and_datasets_have_the_values_of_bytes(paths):
    expected = ImageStatistics().fit_transform(X)
    assert_allclose(ImageStatistics().fit_transform(X / 255.0), expected, atol=1e-6)
    assert_array_equal(ImageStatistics().fit_transform(torch.from_numpy(X)), expected)
    dataset = [(torch.from_numpy(picture), 1) for picture in X]
    assert_array_equal(ImageStatistics().fit_transform(dataset), expected)
    from_files = table([str(path) for path in paths])
    assert_array_equal(from_files.iloc[:, :-1], expected)
    assert from_files["file_size"].tolist() == [path.stat().st_size for path in paths]


def test_pictures_of_many_sizes(tmp_path):
    sizes = [(1, 1), (5, 40), (32, 32)]
    for i, (height, width) in enumerate(sizes):
        to_pil_image(torch.zeros(3, height, width)).save(tmp_path / f"{i}.png")
    columns = table([tmp_path / f"{i}.png" for i in range(3)])
    assert columns[["height", "width"]].to_numpy().tolist() == [list(size) for size in sizes]
    assert columns.notna().all(axis=None)


def test_a_part_of_the_rows_is_as_in_the_whole(monkeypatch):
    statistics = ImageStatistics().fit(X)
    whole = statistics.transform(X)
    assert_array_equal(statistics.transform(X[[7, 2]]), whole[[7, 2]])
    assert_array_equal(ImageStatistics().fit(X[:1]).transform(X), whole)
    monkeypatch.setattr("skspurious.views._base._CHUNK_SIZE", 1)
    assert_array_equal(statistics.transform(X), whole)
    assert statistics.transform(X[:0]).shape == (0, whole.shape[1])


def test_names_and_containers():
    statistics = ImageStatistics(["brightness", "border"]).fit(X[:, :1])
    names = statistics.get_feature_names_out().tolist()
    assert names[:2] == ["border_grey_mean", "border_grey_std"]  # in the order of the list above
    assert statistics.parts_ == ["border", "brightness"]
    assert statistics.n_features_in_ == 1
    four = ImageStatistics(["border"]).fit(RNG.random((2, 4, 8, 8))).get_feature_names_out()
    assert four[3] == "border_alpha_mean"
    steps = make_pipeline(MaskCenter(), ImageStatistics(["size"]), StandardScaler())
    frame = steps.set_output(transform="pandas").fit_transform(GroupedData(X, np.arange(12)).data)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame) == ["height", "width"]
    carried = ImageStatistics(["size"]).set_output(transform="pandas").fit(X)
    for Z in (carried.transform, carried.fit_transform):
        Z = Z(GroupedData(X, np.arange(12)))
        assert isinstance(Z.data, pd.DataFrame)
        assert Z.sample_group.tolist() == list(range(12))


def test_a_view_of_files_is_read_for_its_statistics(paths):
    masked = table(MaskCenter(fill=1.0).transform(paths), ["border", "brightness", "file"])
    expected = table(MaskCenter(fill=1.0).transform(X), ["border", "brightness"])
    assert_array_equal(masked.iloc[:, :-1], expected)
    assert masked["file_size"].iloc[3] == paths[3].stat().st_size


def test_errors(paths):
    with pytest.raises(ValueError, match=r"parts has 'colors'; did you mean 'colours'"):
        ImageStatistics(["colors"]).fit(X)
    with pytest.raises(ValueError, match=r"parts has 'file'.*are no paths"):
        ImageStatistics(["file"]).fit(X)
    with pytest.raises(ValueError, match=r"was fitted on paths.* but X has no paths"):
        ImageStatistics().fit(paths).transform(X)
    with pytest.raises(ValueError, match=r"1 channels, but ImageStatistics was fitted on .* of 3"):
        ImageStatistics().fit(X).transform(X[:, :1])
    with pytest.raises(ValueError, match="5 channels; 1, 3"):
        ImageStatistics().fit(np.zeros((2, 5, 9, 9)))
    with pytest.raises(ValueError, match="0 samples"):
        ImageStatistics().fit(X[:0])
    with pytest.raises(ValueError, match="X is a table; ImageStatistics takes pictures"):
        ImageStatistics().fit(X[:, 0, 0])
    with pytest.raises(NotFittedError):
        ImageStatistics().transform(X)
    with pytest.raises(TypeError, match="no parameter 'bands'"):
        ImageStatistics(bands=3)
    assert "file_size" not in ImageStatistics().fit(X).get_feature_names_out()
    assert ImageStatistics().fit(X).transform(paths).shape[0] == 12
