"""PatchFeatures: what the features are, and that neither order nor company has an influence."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_pil_image

from skspurious import GroupedData
from skspurious.views import PatchFeatures

ROUNDING = 0.01  # of the distance of a patch that is a center, the root of nearly 0


def pictures(n=30, channels=3, size=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def plain_features(picture, patches):
    """One picture, patch by patch, in float64."""
    p, s = patches.patch_size, patches.stride
    mean, whitening = patches.mean_.double().numpy(), patches.whitening_.double().numpy()
    n_places = (picture.shape[1] - p) // s + 1
    near = np.empty((n_places, n_places, len(patches.centers_)))
    for i in range(n_places):
        for j in range(n_places):
            patch = picture[:, i * s : i * s + p, j * s : j * s + p].ravel() / 255.0
            patch = patch - patch.mean()
            patch /= np.sqrt(np.mean(patch**2) + 10 / 255**2)
            distance = np.linalg.norm((patch - mean) @ whitening - patches.centers_, axis=1)
            near[i, j] = np.maximum(distance.mean() - distance, 0.0)
    half = n_places // 2
    cells = [near[a, b].mean(axis=(0, 1)) for a in (slice(half), slice(half, None))
             for b in (slice(half), slice(half, None))]  # fmt: skip
    return np.stack(cells, axis=1).ravel()  # patch by patch, and within it cell by cell


def test_features_by_a_plain_loop():
    X = pictures(10)
    patches = PatchFeatures(5, patch_size=6, stride=2).fit(X)
    expected = np.stack([plain_features(picture, patches) for picture in X])
    assert_allclose(patches.transform(X), expected, atol=ROUNDING)
    assert np.median(np.abs(patches.transform(X) - expected)) < 1e-5
    assert patches.n_features_in_ == 3


def test_centers_are_those_of_whitened_patches():
    patches = PatchFeatures(8).fit(pictures(200))
    assert patches.centers_.shape == (8, 108)
    assert_allclose(patches.whitening_, patches.whitening_.T, atol=ROUNDING)


def test_neither_order_nor_company_has_an_influence():
    X = pictures(40)
    order = np.random.default_rng(1).permutation(40)
    Z = PatchFeatures(8).fit_transform(X)
    assert_allclose(PatchFeatures(8).fit_transform(X[order]), Z[order], atol=ROUNDING)
    patches = PatchFeatures(8).fit(X)
    assert_allclose(patches.transform(X[7:9]), Z[7:9], atol=ROUNDING)


def test_many_pictures_are_drawn_by_their_content(monkeypatch):
    monkeypatch.setattr("skspurious.views._patches._N_PICTURES", 10)
    X = pictures(60)
    order = np.random.default_rng(1).permutation(60)
    Z = PatchFeatures(4).fit_transform(X)
    assert_allclose(PatchFeatures(4).fit_transform(X[order]), Z[order], atol=ROUNDING)
    same = np.repeat(X[:1], 60, axis=0)  # of which all or none are drawn
    assert np.isfinite(PatchFeatures(4).fit_transform(same)).all()


def test_names_say_patch_and_cell():
    patches = PatchFeatures(4).set_output(transform="pandas").fit(pictures())
    X = pictures(1)
    table = patches.transform(X)
    assert list(table.columns[3:6]) == ["patch0_cell_1_1", "patch1_cell_0_0", "patch1_cell_0_1"]
    carried = patches.transform(GroupedData(X, [1]))
    assert_array_equal(carried.data, table)


def test_seed():
    X = pictures(40)
    assert_array_equal(PatchFeatures(4).fit(X).centers_, PatchFeatures(4).fit(X).centers_)
    other = PatchFeatures(4, random_state=1).fit(X)
    assert not np.allclose(other.centers_, PatchFeatures(4).fit(X).centers_)


def test_global_generators_are_untouched(assert_global_rng_untouched):
    with assert_global_rng_untouched():
        PatchFeatures(4).fit_transform(pictures())


def test_every_kind_of_pictures_has_the_same_features(tmp_path):
    X = pictures(20)
    Z = PatchFeatures(4).fit_transform(X)
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path, picture in zip(paths, X, strict=True):
        to_pil_image(torch.from_numpy(picture)).save(path)
    tensor = torch.from_numpy(X)
    for same in (tensor, paths, TensorDataset(tensor, torch.arange(20)), X / 255.0):
        assert_allclose(PatchFeatures(4).fit_transform(same), Z, atol=ROUNDING)
    carried = PatchFeatures(4).fit_transform(GroupedData(X, np.arange(20) % 2))
    assert_allclose(carried.data, Z, atol=ROUNDING)
    assert carried.sample_group.tolist() == (np.arange(20) % 2).tolist()


def test_files_of_several_sizes(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        to_pil_image(torch.from_numpy(pictures(1, size=8 + 10 * i)[0])).save(path)
    Z = PatchFeatures(4).fit_transform(paths)
    assert Z.shape == (6, 16)
    assert np.isfinite(Z).all()


def test_flat_pictures_have_features():
    Z = PatchFeatures(4).fit_transform(np.full((8, 1, 8, 8), 0.5))
    assert np.isfinite(Z).all()


def test_a_linear_model_knows_the_digits():
    digits = load_digits()
    Z = PatchFeatures(64, stride=1).fit_transform(digits.images[:600] / 16)
    accuracy = cross_val_score(LogisticRegression(max_iter=1000), Z, digits.target[:600], cv=3)
    assert accuracy.mean() > 0.8


def test_errors():
    with pytest.raises(ValueError, match="4 x 4 pixels, less than patch_size=6"):
        PatchFeatures().fit(pictures(size=4))
    with pytest.raises(ValueError, match="X has pictures of 1 channels"):
        PatchFeatures(4).fit(pictures()).transform(pictures(channels=1))
    with pytest.raises(ValueError, match="0 samples"):
        PatchFeatures().fit(pictures()[:0])
    with pytest.raises(ValueError, match="X is a table"):
        PatchFeatures().fit(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="n_patches"):
        PatchFeatures(0).fit(pictures())
