"""What fit saw of X: any other X is read in the same way, or refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize, to_pil_image

from skspurious import ERMClassifier, GroupedData, JTTClassifier, TorchFeatureExtractor
from skspurious._engine import _modules

N = 40
Y = np.arange(N) % 2
FAST = {"max_epochs": 3, "lr": 0.05, "batch_size": 16, "random_state": 0}


@pytest.fixture(scope="module")
def pictures():
    """uint8 pictures; those of class 1 are brighter in the first channel."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (N, 3, 6, 6), dtype=np.uint8)
    pixels[Y == 1, 0] += 55
    pixels.flags.writeable = False
    return pixels


@pytest.fixture(scope="module")
def paths(pictures, tmp_path_factory):
    """The same pictures in files without loss."""
    folder = tmp_path_factory.mktemp("pictures")
    names = [str(folder / f"{i}.png") for i in range(N)]
    for pixels, name in zip(pictures, names, strict=True):
        to_pil_image(torch.tensor(pixels)).save(name)
    return names


class Net(nn.Module):
    """Sees each pixel, and remembers its smallest and largest input."""

    ranges: list = []

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 4 * 4, 2)

    def forward(self, x):
        assert x.dtype == torch.float32
        Net.ranges.append((x.min().item(), x.max().item()))
        return self.head(self.body(x).relu().flatten(1))


@pytest.fixture(autouse=True)
def _forget():
    Net.ranges = []


def as_floats(pixels):
    return pixels.astype(np.float32) / 255


KINDS = {
    "uint8": lambda pixels, paths: pixels,
    "float32": lambda pixels, paths: as_floats(pixels),
    "float64": lambda pixels, paths: pixels / 255,
    "int64": lambda pixels, paths: pixels.astype(np.int64),
    "uint16": lambda pixels, paths: pixels.astype(np.uint16),
    "uint8 tensor": lambda pixels, paths: torch.tensor(pixels),
    "int64 tensor": lambda pixels, paths: torch.tensor(pixels).long(),
    "float tensor": lambda pixels, paths: torch.tensor(pixels) / 255,
    "half tensor": lambda pixels, paths: (torch.tensor(pixels) / 255).half(),
    "floats up to 255": lambda pixels, paths: pixels.astype(np.float32),
    "int32 tensor": lambda pixels, paths: torch.tensor(pixels).int(),
    "channels last": lambda pixels, paths: np.moveaxis(pixels, 1, 3),
    "channels last, in [0, 1]": lambda pixels, paths: np.moveaxis(pixels, 1, 3) / 255,
    "channels last tensor": lambda pixels, paths: torch.tensor(pixels).permute(0, 2, 3, 1),
    "Fortran order": lambda pixels, paths: np.asfortranarray(pixels),
    "paths": lambda pixels, paths: paths,
    "pictures of Pillow": lambda pixels, paths: [to_pil_image(torch.tensor(p)) for p in pixels],
    "list of tensors": lambda pixels, paths: list(torch.tensor(pixels)),
    "list of float tensors": lambda pixels, paths: list(torch.tensor(pixels) / 255),
    "list of arrays": lambda pixels, paths: list(np.moveaxis(pixels, 1, 3)),
    "list of float64 arrays": lambda pixels, paths: list(pixels / 255),
    "dataset": lambda pixels, paths: Labelled([torch.tensor(p) for p in pixels]),
    "dataset of Pillow": lambda pixels, paths: Labelled(
        [to_pil_image(torch.tensor(p)) for p in pixels]
    ),
}
# Whichever of these was fitted on: of each way in which pictures come, one.
FITTED = ["uint8", "float32", "paths", "channels last", "pictures of Pillow", "dataset"]
FITTED += ["list of float tensors", "floats up to 255"]


class Labelled(Dataset):
    """A dataset as those of torchvision are: pairs of a picture and a label."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i], 7


# --------------------------------------------------------------------------------------
# Pictures: bytes, floats in [0, 1] and files are the same pictures


@pytest.mark.parametrize(
    ("module", "fitted_on"),
    [
        *((Net, kind) for kind in FITTED),
        *((None, kind) for kind in ("uint8", "float32", "int64 tensor")),
    ],
)
def test_the_same_pictures_have_the_same_probabilities_whatever_was_fitted(
    pictures, paths, module, fitted_on
):
    reference = ERMClassifier(module, **FAST).fit(pictures, Y).predict_proba(pictures)
    assert np.ptp(reference[:, 0]) > 0.02  # pictures are told apart
    clf = ERMClassifier(module, **FAST).fit(KINDS[fitted_on](pictures, paths), Y)
    for kind, make in KINDS.items():
        if module is None and kind == "paths":
            continue  # which have no shape to size a linear head by
        atol = 2e-3 if kind == "half tensor" else 1e-5
        X = make(pictures, paths)
        assert_allclose(clf.predict_proba(X), reference, atol=atol, err_msg=kind)
        few = GroupedData(X)[[0]].data  # of one picture the values say little about the scale
        assert_allclose(clf.predict_proba(few), reference[:1], atol=atol, err_msg=kind)


@pytest.mark.parametrize("fitted_on", ["uint8", "float32", "paths"])
@pytest.mark.parametrize("asked_about", [*FITTED, "half tensor"])
def test_validation_samples_are_read_as_the_training_samples(
    pictures, paths, fitted_on, asked_about
):
    X, X_val = (KINDS[kind](pictures, paths) for kind in (fitted_on, asked_about))
    clf = ERMClassifier(Net, **FAST).fit(X, Y, X_val=X_val, y_val=Y)
    plain = ERMClassifier(Net, **FAST).fit(X, Y, X_val=X, y_val=Y)
    tolerance = 1e-3 if asked_about == "half tensor" else 1e-5
    assert_allclose(
        clf.history_["valid_loss"], plain.history_["valid_loss"], rtol=tolerance, atol=tolerance
    )
    assert max(high for _, high in Net.ranges) <= 1.0


@pytest.mark.parametrize("fitted_on", FITTED)
def test_the_extractor_reads_pictures_as_it_was_fitted(pictures, paths, fitted_on):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    reference = TorchFeatureExtractor(net).fit_transform(pictures)
    extractor = TorchFeatureExtractor(net).fit(KINDS[fitted_on](pictures, paths))
    clf = ERMClassifier(Net, **FAST).fit(KINDS[fitted_on](pictures, paths), Y)
    of_classifier = TorchFeatureExtractor(FrozenEstimator(clf), output="proba").fit(pictures)
    for kind, make in KINDS.items():
        X, atol = make(pictures, paths), 5e-3 if kind == "half tensor" else 1e-5
        assert_allclose(extractor.transform(X), reference, atol=atol, err_msg=kind)
        proba = clf.predict_proba(pictures)
        assert_allclose(of_classifier.transform(X), proba, atol=atol, err_msg=kind)


@pytest.mark.parametrize("fitted_on", ["uint8", "int64", "float32", "paths"])
def test_floats_up_to_255_are_refused_by_name_with_the_remedy(pictures, paths, fitted_on):
    X = KINDS[fitted_on](pictures, paths)
    clf = ERMClassifier(Net, **FAST).fit(X, Y)
    wrong = 0.5 * pictures.astype(np.float32)
    wrong[0, 0, 0, :2] = 0.0, 127.5
    low, high = 0, 127.5
    message = (
        rf"X(_val)? has pictures with values from {low} to {high}, but ERMClassifier was fitted on "
        r"pictures of type uint8 or with values in \[0, 1\]\. Pass them as uint8, or divide"
    )
    for refused in (clf.predict, clf.predict_proba, clf.decision_function):
        with pytest.raises(ValueError, match=message):
            refused(wrong)
    with pytest.raises(ValueError, match=message):
        clf.predict(torch.tensor(wrong))
    with pytest.raises(ValueError, match=message):
        ERMClassifier(Net, **FAST).fit(X, Y, X_val=wrong, y_val=Y)
    standardised = 4 * as_floats(pictures) - 2
    with pytest.raises(ValueError, match="X has pictures with values from -2 to"):
        clf.predict(standardised)
    extractor = TorchFeatureExtractor(Net(), random_state=0).fit(X)
    with pytest.raises(ValueError, match="Pass them as uint8, or divide"):
        extractor.transform(wrong)
    assert_array_equal(clf.predict(as_floats(pictures)), clf.predict(X))  # the remedies
    assert_array_equal(clf.predict((2 * wrong).astype(np.uint8))[1:], clf.predict(X)[1:])


def test_a_little_overshoot_of_resampling_is_no_other_scale(pictures):
    clf = ERMClassifier(Net, **FAST).fit(pictures, Y)
    clf.predict(1.1 * as_floats(pictures) - 0.03)


@pytest.mark.parametrize("scale", ["standardised", "of twelve bits"])
def test_pictures_of_a_scale_of_their_own_are_refused_as_bytes_and_files(pictures, paths, scale):
    own = (
        4 * as_floats(pictures) - 2 if scale == "standardised" else 16 * pictures.astype(np.float32)
    )
    clf = ERMClassifier(Net, **FAST | {"lr": 1e-4}).fit(own, Y)
    low, high = own.min(), own.max()
    assert_array_equal(clf.predict(torch.tensor(own)), clf.predict(own))
    for X, what in (
        (pictures, "of type uint8"),
        (torch.tensor(pictures), "of type uint8"),
        (paths, "image files, of values 0 to 255"),
    ):
        message = (
            rf"X has pictures {what}, but ERMClassifier was fitted on pictures with values from "
            rf"{low:g} to {high:g}, a scale that is not known\. Convert X as the training"
        )
        with pytest.raises(ValueError, match=message):
            clf.predict(X)
        with pytest.raises(ValueError, match=what):
            ERMClassifier(Net, **FAST).fit(own, Y, X_val=X, y_val=Y)


def test_whole_numbers_of_a_scale_of_their_own_stay_what_they_are(pictures):
    """Of twelve bits, say: a dark picture among them is not taken for bytes."""
    deep = pictures.astype(np.int64) * 16
    clf = ERMClassifier(Net, **FAST | {"lr": 1e-6}).fit(deep, Y)
    assert clf._description.scale == "own"
    dark = deep // 64
    assert dark.max() <= 255
    assert_allclose(clf.predict_proba(dark), clf.predict_proba(dark.astype(np.float32)))


def test_int64_pictures_are_uint8_pictures_bit_for_bit(pictures):
    one, other = (
        ERMClassifier(Net, **FAST).fit(X, Y) for X in (pictures, pictures.astype(np.int64))
    )
    assert_array_equal(other.predict_proba(pictures), one.predict_proba(pictures))
    assert_array_equal(other.history_["train_loss"], one.history_["train_loss"])
    assert max(high for _, high in Net.ranges) <= 1.0


def test_reading_a_dataset_touches_no_generator(pictures, assert_global_rng_untouched):
    """Fit looks at a few samples, whose transforms may draw."""

    class Noisy(Labelled):
        def __getitem__(self, i):
            return self.pictures[i] / 255 * (0.9 + 0.1 * torch.rand(())), 7

    noisy = Noisy([torch.tensor(p) for p in pictures])
    with assert_global_rng_untouched():
        ERMClassifier(Net, **FAST).fit(noisy, Y).predict(noisy)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_pictures_of_another_shape_are_refused(pictures, make):
    clf = ERMClassifier(Net, **FAST).fit(pictures, Y)
    with pytest.raises(ValueError, match=r"shape \(3, 5, 6\), but ERMClassifier was .*\(3, 6, 6\)"):
        clf.predict(make(pictures[:, :, 1:]))
    with pytest.raises(ValueError, match=r"samples of shape \(4, 6, 6\)"):
        clf.predict(make(pictures[:, [0, 1, 2, 2]]))


# --------------------------------------------------------------------------------------
# Preprocessing: once


MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.1, 0.3]


def preprocess(X):
    """What belongs to the weights, as torchvision has it: of bytes or floats, single or many."""
    X = X.float() / 255 if X.dtype == torch.uint8 else X
    return normalize(X, MEAN, STD)


@pytest.fixture
def pretrained(monkeypatch):
    """A torchvision model with weights, without a download."""
    import torchvision

    def get_model(name, weights=None, **params):
        assert (name, weights) == ("squeezenet1_1", "DEFAULT")
        return Net()

    class Weights:
        @staticmethod
        def transforms():
            return preprocess

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: {"DEFAULT": Weights})
    assert _modules.weights_transform("squeezenet1_1", "DEFAULT") is preprocess
    return {"module": "squeezenet1_1", "weights": "DEFAULT"}


def _with_a_new_head():
    net = Net()
    net.head = nn.Linear(net.head.in_features, 2)
    return net


def normalised_once(pixels):
    X = preprocess(torch.tensor(pixels))
    return X.min().item(), X.max().item()


@pytest.mark.parametrize("fitted_on", FITTED)
def test_the_preprocessing_of_weights_acts_once(pretrained, pictures, paths, fitted_on):
    X = KINDS[fitted_on](pictures, paths)
    clf = ERMClassifier(**pretrained, **FAST).fit(X, Y, X_val=paths, y_val=Y)
    expected = normalised_once(pictures)
    reference = clf.predict_proba(pictures)
    Net.ranges = []
    for kind, make in KINDS.items():
        atol = 2e-2 if kind == "half tensor" else 1e-5
        asked = make(pictures, paths)
        assert_allclose(clf.predict_proba(asked), reference, atol=atol, err_msg=kind)
        assert_allclose(Net.ranges[-1], expected, atol=atol, err_msg=kind)
    by_hand = ERMClassifier(_with_a_new_head, eval_transform=preprocess, **FAST).fit(pictures, Y)
    assert_allclose(reference, by_hand.predict_proba(pictures), atol=1e-4)
    extractor = TorchFeatureExtractor(FrozenEstimator(clf), output="proba").fit(X)
    for asked in (pictures, as_floats(pictures), paths):
        assert_allclose(extractor.transform(asked), reference, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda X: X, torch.tensor, lambda X: list(torch.tensor(X)), lambda X: Labelled(list(X))],
)
def test_standardised_pictures_have_their_preprocessing_behind_them(pretrained, pictures, make):
    """As where a dataset has the transform of the weights."""
    ready = preprocess(torch.tensor(pictures)).numpy()
    clf = ERMClassifier(**pretrained, **FAST).fit(make(ready), Y)
    by_hand = ERMClassifier(_with_a_new_head, **FAST).fit(ready, Y)
    assert_allclose(clf.predict_proba(make(ready)), by_hand.predict_proba(ready), atol=1e-5)
    assert_allclose(Net.ranges[-1], (ready.min(), ready.max()), atol=1e-5)
    with pytest.raises(ValueError, match=r"of type uint8, but .* a scale that is not known"):
        clf.predict(pictures)


def test_weights_refuse_pictures_of_an_unknown_scale(pretrained, pictures):
    for X in (16.0 * pictures, list(torch.tensor(16.0 * pictures))):
        with pytest.raises(ValueError, match=r"from 0 to .*weights= has preprocessing for.*Divide"):
            ERMClassifier(**pretrained, **FAST).fit(X, Y)


@pytest.mark.parametrize("kind", ["uint8", "paths", "pictures of Pillow", "dataset"])
def test_augmentation_comes_after_the_preprocessing_of_weights(pretrained, pictures, paths, kind):
    """In training as in prediction, and whatever the pictures come in."""
    seen = []

    def augment(batch):
        seen.append((batch.min().item(), batch.max().item()))
        return batch

    clf = ERMClassifier(**pretrained, train_transform=augment, **FAST | {"batch_size": N})
    clf.fit(KINDS[kind](pictures, paths), Y)
    assert_allclose(seen, [normalised_once(pictures)] * 3, atol=1e-5)
    plain = ERMClassifier(**pretrained, **FAST | {"batch_size": N}).fit(pictures, Y)
    assert_allclose(clf.predict_proba(pictures), plain.predict_proba(pictures), atol=1e-5)


def test_weights_take_pictures_of_any_size(pretrained, monkeypatch, pictures, paths):
    """Their preprocessing resizes; without it, the shape is that of the training pictures."""
    import torchvision

    def resize(X):
        return preprocess(X[..., :6, :6])

    class Weights:
        transforms = staticmethod(lambda: resize)

    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: {"DEFAULT": Weights})
    clf = ERMClassifier(**pretrained, **FAST).fit(paths, Y)
    larger = np.pad(pictures, ((0, 0), (0, 0), (0, 3), (0, 2)))
    assert_allclose(clf.predict_proba(larger), clf.predict_proba(paths), atol=1e-6)


@pytest.mark.parametrize("fitted_on", FITTED)
def test_a_transform_of_the_user_takes_the_place_of_that_of_the_weights(
    pretrained, pictures, paths, fitted_on
):
    """And is given the type that it was fitted on: here it would tell bytes from floats."""
    seen = []

    def own(batch):
        seen.append(batch.dtype)
        return batch.float() / (255 if batch.dtype == torch.uint8 else 1)

    X = KINDS[fitted_on](pictures, paths)
    clf = ERMClassifier(**pretrained, eval_transform=own, **FAST).fit(X, Y)
    reference = clf.predict_proba(X)
    for kind in ("uint8", "float32", "int64 tensor", "float tensor", "paths"):
        asked = KINDS[kind](pictures, paths)
        assert_allclose(clf.predict_proba(asked), reference, atol=1e-5, err_msg=kind)
    assert set(seen) == {
        torch.float32 if "float" in fitted_on and "255" not in fitted_on else torch.uint8
    }
    assert max(high for _, high in Net.ranges) <= 1.0


def test_a_transform_of_the_extractor_takes_the_place_of_that_of_the_weights(
    pretrained, pictures, paths
):
    clf = ERMClassifier(**pretrained, **FAST).fit(pictures, Y)

    def plain(batch):
        return batch.float() / (255 if batch.dtype == torch.uint8 else 1)

    extractor = TorchFeatureExtractor(FrozenEstimator(clf), eval_transform=plain).fit(pictures)
    reference = extractor.transform(pictures)
    Net.ranges = []
    for X in (pictures, as_floats(pictures), paths):
        assert_allclose(extractor.transform(X), reference, atol=1e-5)
    assert all(low >= 0 and high <= 1 for low, high in Net.ranges)
    assert clf.eval_transform is None


# --------------------------------------------------------------------------------------
# Tables


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    X = rng.integers(0, 4, size=(60, 5))
    return X, (X[:, 0] + rng.normal(size=60) > 1.5).astype(int)


TABLES = {
    "float64": lambda X: X.astype(np.float64),
    "float16": lambda X: X.astype(np.float16),
    "int64": lambda X: X,
    "int8": lambda X: X.astype(np.int8),
    "uint8": lambda X: X.astype(np.uint8),
    "list": lambda X: X.tolist(),
    "frame": lambda X: pd.DataFrame(X).rename(columns=str).to_numpy(),
    "int64 tensor": torch.tensor,
    "int32 tensor": lambda X: torch.tensor(X).int(),
    "uint8 tensor": lambda X: torch.tensor(X).to(torch.uint8),
    "float32 tensor": lambda X: torch.tensor(X).float(),
    "float64 tensor": lambda X: torch.tensor(X).double(),
    "half tensor": lambda X: torch.tensor(X).half(),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_any_number_are_float_tables_for_a_linear_head(table, kind):
    X, y = table
    plain = ERMClassifier(**FAST).fit(X.astype(np.float32), y)
    clf = ERMClassifier(**FAST).fit(TABLES[kind](X), y)
    assert_array_equal(clf.module_.weight.detach(), plain.module_.weight.detach())
    assert_array_equal(clf.predict_proba(TABLES[kind](X)), plain.predict_proba(X))


@pytest.mark.filterwarnings("ignore:the error set is:UserWarning")
@pytest.mark.parametrize("make", [np.asarray, torch.tensor, lambda X: X.tolist()])
@pytest.mark.parametrize("method", [ERMClassifier, JTTClassifier])
def test_boolean_tables_are_float_tables_for_a_linear_head(table, method, make):
    X, y = table[0] > 1, table[1]
    plain = method(**FAST).fit(X.astype(np.float32), y)
    clf = method(**FAST).fit(make(X), y)
    assert_array_equal(clf.module_.weight.detach(), plain.module_.weight.detach())
    assert_array_equal(clf.predict_proba(make(X)), plain.predict_proba(X.astype(float)))


@pytest.mark.parametrize("module", [None, nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))])
@pytest.mark.parametrize("fitted_on", ["float64", "int64", "uint8 tensor", "float32 tensor"])
def test_predict_takes_a_table_of_any_number(table, module, fitted_on):
    X, y = table
    clf = ERMClassifier(module, **FAST).fit(TABLES[fitted_on](X), y)
    reference = clf.predict_proba(X.astype(np.float32))
    for kind, make in TABLES.items():
        assert_allclose(clf.predict_proba(make(X)), reference, rtol=1e-6, err_msg=kind)
    booleans = clf.predict_proba((X > 1).astype(np.float32))
    assert_allclose(clf.predict_proba(X > 1), booleans, rtol=1e-6)
    assert_allclose(clf.predict_proba(torch.tensor(X > 1)), booleans, rtol=1e-6)


@pytest.mark.parametrize("module", [None, nn.Sequential(nn.Linear(5, 2))])
def test_a_table_of_bytes_is_not_divided_by_255(table, module):
    X, y = table
    X = (60 * X).astype(np.uint8)
    params = FAST | {"lr": 1e-4}
    on_array, on_tensor = (
        ERMClassifier(module, **params).fit(kind, y) for kind in (X, torch.tensor(X))
    )
    parameters = [list(clf.module_.parameters()) for clf in (on_array, on_tensor)]
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))
    floats = ERMClassifier(module, **params).fit(X.astype(np.float32), y)
    assert_array_equal(on_tensor.predict_proba(torch.tensor(X)), floats.predict_proba(X))


def test_token_numbers_are_whole_numbers_whatever_they_come_in():
    """An embedding layer needs them so; a table of them becomes floats on its way."""
    rng = np.random.default_rng(0)
    tokens, y = rng.integers(0, 50, (40, 6)), np.arange(40) % 2
    net = nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(24, 2))
    clf = ERMClassifier(net, **FAST).fit(torch.tensor(tokens), y)
    reference = clf.predict_proba(torch.tensor(tokens))
    for X in (tokens, tokens.astype(np.float32), torch.tensor(tokens).int(), tokens.tolist()):
        assert_array_equal(clf.predict_proba(X), reference)
    given = ERMClassifier(net, **FAST).fit(torch.tensor(tokens), y, X_val=tokens, y_val=y)
    assert given.history_["valid_accuracy"].iloc[-1] == clf.score(tokens, y)


def test_a_table_of_other_columns_is_refused(table):
    X, y = table
    clf = ERMClassifier(**FAST).fit(X, y)
    with pytest.raises(ValueError, match="X has 4 features, but ERMClassifier is expecting 5"):
        clf.predict(X[:, 1:])
    with pytest.raises(ValueError, match=r"samples of shape \(4,\), but ERMClassifier .* \(5,\)"):
        clf.predict(torch.tensor(X[:, 1:]))


def test_a_refit_forgets_how_the_first_X_looked(table, pictures):
    X, y = table
    clf = ERMClassifier(**FAST).fit(X, y)
    clf.fit(pictures, Y)
    assert clf.predict(as_floats(pictures)).shape == (N,)
    clf.fit(X, y)
    assert clf.predict(X).shape == (60,)
