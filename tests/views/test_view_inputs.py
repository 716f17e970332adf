"""Views take every kind of X, read files only when a batch needs them, and go into searches."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import SMALL, VIEWS
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline as plain_pipeline
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image

from skspurious import (
    ERMClassifier,
    GroupedData,
    TorchFeatureExtractor,
    load_model,
    save_model,
    worst_group_scorer,
)
from skspurious.data import DatasetSamples, ImagePaths, as_samples
from skspurious.pipeline import make_pipeline
from skspurious.views import (
    Grayscale,
    KeepCenter,
    LowPass,
    MaskCenter,
    ShufflePatches,
    ShuffleWords,
)

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (24, 3, 9, 11), dtype=np.uint8)
Y = np.arange(24) % 2
PICTURE_VIEWS = [MaskCenter(), KeepCenter(), ShufflePatches(3), LowPass(), Grayscale()]

all_views = pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
picture_views = pytest.mark.parametrize("view", PICTURE_VIEWS, ids=lambda v: type(v).__name__)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    names = [str(folder / f"{i}.png") for i in range(len(X))]
    for name, picture in zip(names, X, strict=True):
        to_pil_image(torch.from_numpy(picture)).save(name)
    return names


@pytest.fixture
def reads(monkeypatch):
    """How often files were opened."""
    from PIL import Image

    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
    return opened


class Pictures(Dataset):
    """A map-style dataset of (picture, label) that counts its reads."""

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        self.reads += 1
        return torch.from_numpy(X[i].copy()), int(Y[i])


# --------------------------------------------------------------------------------------
# Every view


def _content(Z):
    return Z.data if isinstance(Z, GroupedData) else Z


@all_views
def test_clone_pickle_and_fit_leave_everything_as_it_was(entry):
    samples, y, _ = SMALL[entry.samples]()
    view = entry()
    params = view.get_params()
    expected = view.fit_transform(samples, y)
    assert view.get_params() == params
    for other in (clone(view), pickle.loads(pickle.dumps(view)), view):
        assert_array_equal(other.fit_transform(samples, y), expected)
    assert_array_equal(view.transform(samples), pickle.loads(pickle.dumps(view)).transform(samples))
    if entry.is_stateless:
        assert_array_equal(entry().transform(samples), expected)
        assert vars(view) == params


@all_views
def test_groups_travel_along(entry):
    samples, y, _ = SMALL[entry.samples]()
    inferrer = object()
    carried = GroupedData(samples, np.arange(24), group_inferrer=inferrer)
    view = entry()
    expected = entry().fit_transform(samples, y)
    for Z in (view.fit_transform(carried, y), view.fit(carried, y).transform(carried)):
        assert Z.sample_group.tolist() == list(range(24))
        assert Z.group_inferrer is inferrer
    assert_array_equal(view.fit_transform(carried, y).data, expected)
    assert carried.data is samples
    for pipeline in (make_pipeline, plain_pipeline):
        Z = pipeline(entry()).fit_transform(carried, y)
        assert Z.sample_group.tolist() == list(range(24))
        assert_array_equal(Z.data, expected)


@all_views
def test_a_pipeline_may_set_the_output_of_its_last_step(entry):
    assert hasattr(entry().set_output(transform="pandas"), "transform")


# --------------------------------------------------------------------------------------
# Files and datasets


@picture_views
def test_files_are_read_when_a_batch_needs_them(view, paths, reads):
    expected = view.transform(X)
    reads.clear()
    Z = view.fit_transform(paths)
    samples = as_samples(Z).take([3, 5])
    assert len(Z) == 24
    assert len(samples) == 2
    assert reads == []
    assert_array_equal(samples[1], expected[5])
    assert reads == [paths[5]]
    assert_array_equal(torch.stack([Z[i] for i in range(24)]), expected)


@picture_views
def test_datasets_are_read_when_a_batch_needs_them(view):
    dataset = Pictures()
    expected = view.transform(X)
    Z = view.fit_transform(dataset)
    assert len(Z) == 24
    assert dataset.reads == 0
    picture, label = Z[7]
    assert_array_equal(picture, expected[7])
    assert label == Y[7]
    assert dataset.reads == 1
    taken = view.transform(GroupedData(dataset, Y)[[2, 7]])
    assert isinstance(taken.data, DatasetSamples)
    assert_array_equal(taken.data[1][0], expected[7])
    arrays = view.transform([(X[i], 0) for i in range(3)])
    assert_array_equal(arrays[1][0], expected[1])
    files = view.transform(as_samples(torch.from_numpy(X)))
    assert_array_equal(files.tensor, expected)


def test_what_is_read_later_keeps_its_parameters(paths):
    view = MaskCenter(0.3)
    of_files, of_dataset = view.transform(paths), view.transform(Pictures())
    view.set_params(fraction=0.9)
    expected = MaskCenter(0.3).transform(X)
    assert_array_equal(of_files[2], expected[2])
    assert_array_equal(of_dataset[2][0], expected[2])


def test_views_of_views(paths):
    expected = LowPass().transform(MaskCenter().transform(X))
    steps = make_pipeline(MaskCenter(), LowPass())
    assert_array_equal(steps.fit_transform(X), expected)
    of_files = steps.fit_transform(np.array(paths, dtype=object))
    assert_array_equal(of_files[4], expected[4])
    assert_array_equal(of_files.take([4, 2])[1], expected[2])
    assert_array_equal(steps.fit_transform(Pictures())[4][0], expected[4])
    resized = MaskCenter().transform(ImagePaths(paths, transform=lambda picture: picture[:, :5]))
    assert resized[0].shape == (3, 5, 11)


def test_what_is_done_to_files_comes_after_the_view(paths, reads):
    """The preprocessing of weights, or bytes as floats: what is done to plain paths."""
    view = MaskCenter()
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 11, 4))
    masked = view.transform(X)
    floats = TorchFeatureExtractor(net, layer="1").fit(X / 255.0)
    expected = floats.transform(masked / 255.0)
    for fitted in (floats, TorchFeatureExtractor(net, layer="1").fit(view.transform(paths))):
        np.testing.assert_allclose(fitted.transform(view.transform(paths)), expected, atol=1e-5)
    samples = as_samples(view.transform(paths), image_transform=lambda picture: picture[:, :4])
    assert samples.are_image_files
    assert_array_equal(samples[0], masked[0][:, :4])
    grouped = GroupedData(view.transform(paths), Y)[[1, 2]]
    assert as_samples(grouped.data, image_transform=torch.sum)[1] == masked[2].sum()


def test_a_checkpoint_knows_the_view(paths):
    identities = {
        str(as_samples(view.transform(files)).identity())
        for view in PICTURE_VIEWS
        for files in (paths, paths[::-1])
    }
    assert len(identities) == 2 * len(PICTURE_VIEWS)
    dataset = Pictures()
    of_datasets = {str(as_samples(v.transform(dataset)).identity()) for v in PICTURE_VIEWS}
    assert len(of_datasets) == len(PICTURE_VIEWS)


def test_a_dataset_of_pillow_is_a_dataset_of_pictures():
    images = [(to_pil_image(torch.from_numpy(picture)), 0) for picture in X]
    expected = MaskCenter().transform(X)
    seen = MaskCenter().transform(images)
    assert_array_equal(np.stack([seen[i][0] for i in range(len(X))]), expected)
    with pytest.raises(TypeError, match=r"a sample is a str; MaskCenter takes .*of Pillow"):
        MaskCenter().apply("picture.png")


def test_loaders_with_processes_read_views(paths):
    clf = ERMClassifier(Net, max_epochs=1, num_workers=1, random_state=0, optimizer="adam", lr=0.01)
    view = ShufflePatches(3)
    of_files = clf.fit(view.transform(paths), Y).predict_proba(view.transform(paths))
    clf.num_workers = 0
    np.testing.assert_allclose(clf.predict_proba(view.transform(X)), of_files, atol=1e-5)


class Net(nn.Module):
    """One layer; reads bytes too."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 9 * 11, 2)

    def forward(self, x):
        return self.head(x.float().flatten(1))


# --------------------------------------------------------------------------------------
# Searches, persistence


def test_a_search_over_views(paths):
    """Over kinds of views and their parameters, with groups, on arrays and on paths."""
    clf = ERMClassifier(Net, max_epochs=1, batch_size=8, random_state=0)
    grid = [
        {"view": [MaskCenter(), KeepCenter()], "view__fraction": [0.3, 0.6]},
        {"view": [ShufflePatches()], "view__n_patches": [2, 3]},
        {"view": ["passthrough"]},
    ]
    scores = []
    for samples in (X, paths):
        pipeline = make_pipeline(MaskCenter(), clf)
        pipeline.steps[0] = ("view", pipeline.steps[0][1])
        search = GridSearchCV(
            pipeline, grid, cv=2, scoring=worst_group_scorer, error_score="raise", refit=False
        )
        search.fit(GroupedData(samples, Y), Y)
        assert len(search.cv_results_["params"]) == 7
        scores.append(search.cv_results_["mean_test_score"])
    assert_array_equal(scores[0], scores[1])


def test_a_saved_pipeline_has_its_views(tmp_path):
    model = make_pipeline(MaskCenter(0.3), ShufflePatches(2, random_state=5), ERMClassifier(Net))
    model.set_params(ermclassifier__max_epochs=1, ermclassifier__random_state=0).fit(X, Y)
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors", module=Net)
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again[0].fraction == 0.3


def test_texts_through_a_network():
    texts = [f"word{k} and some more words" for k in Y]

    def read(batch):
        return torch.tensor([[float("word1" in text.split()), 1.0] for text in batch])

    clf = ERMClassifier(nn.Linear(2, 2), collate_fn=read, lr=0.5, max_epochs=20, random_state=0)
    model = make_pipeline(ShuffleWords(), clf).fit(GroupedData(texts, Y), Y)
    assert model.score(texts, Y) == 1.0
