"""save_model and load_model: the same estimator, from a file that runs no code."""

import json
import os
import pickle
import struct
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import ENTRIES, by_name, ignored_warnings
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, get_weight

import skspurious
from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SPAREClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    XRMClassifier,
    load_model,
    save_model,
)
from skspurious.datasets import make_spurious_classification, make_spurious_images
from skspurious.exceptions import UnreadableFileError
from skspurious.group_inference._methods import METHODS
from skspurious.networks import LeNet
from skspurious.persistence._format import HASH, KEY, content_hash

FAST = {"max_epochs": 2, "lr": 0.1, "random_state": 0}

pytestmark = ignored_warnings()


def inferrer(method="kmeans", **params):
    inferrer = SpuriousGroupInferrer(METHODS[method](), store_index=True, random_state=0)
    own = inferrer.method.get_params()
    return inferrer.set_params(**{f"method__{k}" if k in own else k: v for k, v in params.items()})


ON_TABLES = {
    **{entry.name: entry.to_check() for entry in by_name(ENTRIES).values()},
    "erm": ERMClassifier(**FAST, optimizer=torch.optim.RMSprop, optimizer_params={"alpha": 0.9}),
    "balanced": BalancedRetrainer(**FAST, group_inferrer=inferrer("spare"), early_stopping=True),
    "jtt": JTTClassifier(**FAST, init_epochs=3, cross_fit=2),
    "dfr": LastLayerRetrainer(**FAST, group_inferrer=inferrer("error"), n_draws=2),
    "nsf": NSFClassifier(**FAST, group_inferrer=inferrer("dispersion"), head_steps=5),
    "prusc": PruSCNetwork(**FAST, mask_steps=5),
    "extractor": TorchFeatureExtractor(ERMClassifier(**FAST), output="proba"),
    "kmeans": inferrer(reduction="pca", n_components=2, overclustering=5),
    "kmeans-global": inferrer(scope="global", n_clusters=3),
    "gmm": inferrer("gmm", n_clusters=2),
    "spare": inferrer("spare"),
    "dispersion": inferrer("dispersion"),
    "error": inferrer("error"),
    "xrm": inferrer("xrm", n_steps=20),
    "eiil": inferrer("eiil"),
    "SPAREClassifier": SPAREClassifier(**FAST, init_epochs=2, epoch_selector="silhouette"),
    "GEORGEClassifier": GEORGEClassifier(**FAST, representation="hardness", group_method="gmm"),
    "pipeline": make_pipeline(StandardScaler(), ERMClassifier(**FAST)),
}

NET = {"module": LeNet, "module_params": {"n_classes": 2, "image_size": 8}}
ON_IMAGES = {
    "SPAREClassifier": SPAREClassifier(**NET, **FAST, warm_start=True),
    "GEORGEClassifier": GEORGEClassifier(**NET, **FAST),
    "XRMClassifier": XRMClassifier(**NET, **FAST),
    "nsf": NSFClassifier(**NET, **FAST, head_steps=5),
    "prusc": PruSCNetwork(**NET, **FAST, mask_steps=5),
    "pruned": PrunedRetrainer(**NET, **FAST, score_epochs=2),
}


@pytest.fixture(scope="module")
def table():
    bunch = make_spurious_classification(200, random_state=0)
    return bunch.data.astype(np.float32), np.array(["cat", "dog"])[bunch.target]


@pytest.fixture(scope="module")
def images():
    bunch = make_spurious_images(100, image_size=8, random_state=0)
    return bunch.data, bunch.target


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def saved_and_loaded(estimator, path, **given):
    save_model(estimator, path)
    return load_model(path, **given)


def assert_same(one, other, where=""):
    """Equal in value and type, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other)
    elif isinstance(one, nn.Module):
        assert not other.training
        states = [dict(sorted(module.state_dict().items())) for module in (one, other)]
        assert_same(*states, where)
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif type(one).__module__.startswith(("skspurious", "sklearn")) and not isinstance(one, type):
        state, again = (vars(x) if hasattr(x, "get_params") else x.__getstate__()
                        for x in (one, other))  # fmt: skip
        assert set(state) == set(again), where
        for key in state:
            assert_same(state[key], again[key], f"{where}.{key}")
    else:
        assert one == other or (one != one and other != other), where


def assert_does_the_same(one, other, X, y):
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        if hasattr(one, method):
            assert_array_equal(getattr(one, method)(X), getattr(other, method)(X))
    if isinstance(one, SpuriousGroupInferrer):
        assert_array_equal(one.predict(X, y), other.predict(X, y))
        if one.store_index:
            found = zip(one.kneighbors(X, 3), other.kneighbors(X, 3), strict=True)
            assert all(np.array_equal(a, b) for a, b in found)
    if getattr(one, "group_inferrer_", None) is not None:
        assert_array_equal(one.infer_groups(X, y), other.infer_groups(X, y))


# --------------------------------------------------------------------------------------
# What is written comes back


@pytest.mark.parametrize("name", ON_TABLES)
def test_everything_comes_back(name, table, path):
    estimator = clone(ON_TABLES[name]).fit(*table)
    loaded = saved_and_loaded(estimator, path)
    assert_same(estimator, loaded, name)
    assert_does_the_same(estimator, loaded, *table)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_networks_come_back(name, images, path):
    estimator = clone(ON_IMAGES[name]).fit(*images)
    loaded = saved_and_loaded(estimator, path)
    assert_same(estimator, loaded, name)
    assert_does_the_same(estimator, loaded, *images)


def test_a_loaded_estimator_fits_as_the_first_did(table, path):
    clf = clone(ON_TABLES["SPAREClassifier"]).fit(*table)
    again = clone(saved_and_loaded(clf, path)).fit(*table)
    assert_array_equal(again.predict_proba(table[0]), clf.predict_proba(table[0]))


def test_groups_of_any_kind_come_back(table, path):
    X, y = table
    for values in (["é", "b"], [("a", 1), ("b", 2)], [1.5, float("inf")], [True, False]):
        group = np.empty(len(y), dtype=object)
        group[:] = [values[i % 2] for i in range(len(y))]
        clf = BalancedRetrainer(**FAST).fit(X, y, sample_group=group)
        loaded = saved_and_loaded(clf, path)
        assert_same(clf.groups_, loaded.groups_)
        assert_same(clf.history_, loaded.history_)


def test_feature_names_and_a_table_with_categories_come_back(path):
    X = pd.DataFrame({"size": ["s", "m", "l"] * 10})
    y = np.arange(30) % 2
    clf = make_pipeline(OneHotEncoder(sparse_output=False), ERMClassifier(**FAST)).fit(X, y)
    loaded = saved_and_loaded(clf, path)
    assert_same(clf[0].categories_, loaded[0].categories_)
    assert_array_equal(loaded.feature_names_in_, ["size"])
    assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_a_frozen_network_comes_back(table, path):
    X, y = table
    erm = ERMClassifier(**FAST).fit(X, y)
    dfr = LastLayerRetrainer(FrozenEstimator(erm), max_epochs=0, n_draws=2, random_state=0)
    dfr.fit(X, y, sample_group=y)
    assert_same(dfr, saved_and_loaded(dfr, path))


WEIGHTS = SqueezeNet1_1_Weights.IMAGENET1K_V1


@pytest.mark.parametrize("weights", [WEIGHTS, "DEFAULT", None])
def test_a_torchvision_network_comes_back_without_its_weights(weights, path, monkeypatch):
    """The weights are in the file; those of the name are neither read nor downloaded."""
    X = np.zeros((2, 3, 64, 64), dtype=np.uint8)
    extractor = TorchFeatureExtractor("squeezenet1_1", layer="features.2", random_state=0).fit(X)
    extractor.estimator_.weights = weights
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    loaded = saved_and_loaded(extractor, path)
    if weights is WEIGHTS:
        assert get_weight(loaded.estimator_.weights) is WEIGHTS
        loaded.estimator_.weights = WEIGHTS
    assert_same(extractor, loaded)


def test_a_network_that_its_weights_change_is_refused(table, path):
    """torchvision's Inception turns its input around if it is made with weights."""
    clf = ERMClassifier(**FAST).fit(*table)
    clf.module, clf.weights = "inception_v3", "DEFAULT"
    with pytest.raises(TypeError, match="another network than without"):
        save_model(clf, path)


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_type_come_back(table, path):
    clf = ERMClassifier(**FAST).fit(*table)
    read_only = np.arange(3)
    read_only.flags.writeable = False
    clf.things_ = {
        "read-only": read_only,
        "half": np.float16([1, 2]),
        "unsigned": np.arange(3, dtype=np.uint16),
        "empty": np.empty((0, 3)),
        "zero-dimensional": np.array(2.5),
        "transposed": np.arange(6).reshape(2, 3).T,
        "scalar": np.float32(3),
        "truth": np.array([[True], [False]]),
        "words": np.array([["a", "bc"]]),
        "mixed": np.array([1, "a", None, (2, 3)], dtype=object),
        "nan": [float("nan"), -float("inf")],
        "tensor": torch.arange(4, dtype=torch.bfloat16),
        "series": pd.Series([1, 2], index=["a", "b"], name="n"),
        "frame": pd.DataFrame({"x": [1, 2], 3: ["a", None]}, index=pd.Index([5, 6], name="i")),
        "objects": pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}, dtype=object),
        "type": np.dtype("float32"),
        "device": torch.device("cpu"),
        "folder": path.parent,
    }
    assert_same(clf, saved_and_loaded(clf, path))
    for bad in (np.longdouble([1]), np.array(["2020-01-01"], dtype="datetime64[D]"), {1, 2}, 1j):
        clf.things_ = bad
        with pytest.raises(TypeError, match=r"ERMClassifier\.things_ is a"):
            save_model(clf, path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_keep_their_type(dtype, path):
    clf = ERMClassifier(nn.Linear(3, 2), **FAST).fit(np.eye(3, dtype=np.float32), [0, 1, 1])
    clf.module_.to(dtype)
    loaded = saved_and_loaded(clf, path, module=nn.Linear(3, 2))
    assert_same(clf.module_, loaded.module_)


def test_nothing_global_is_touched(table, path, assert_global_rng_untouched):
    clf = clone(ON_TABLES["balanced"]).fit(*table)
    before = pickle.dumps(clf.get_params()["group_inferrer"])
    with assert_global_rng_untouched():
        saved_and_loaded(clf, path)
    assert pickle.dumps(clf.get_params()["group_inferrer"]) == before


# --------------------------------------------------------------------------------------
# What is code is given again


class Net(nn.Module):
    def __init__(self, n_hidden=4):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.hidden, self.head = nn.Linear(8, n_hidden), nn.Linear(n_hidden, 2)

    def forward(self, x):
        return self.head(self.hidden(self.norm(x)).relu())


def double(batch):
    return 2 * batch


@pytest.mark.parametrize("module", [Net, Net(), lambda: Net(4)], ids=["class", "object", "lambda"])
def test_a_network_of_ones_own_is_given_again(module, table, path):
    X, y = table
    clf = SPAREClassifier(module, **FAST, eval_transform=double).fit(X, y)
    save_model(clf, path)
    with pytest.raises(ValueError, match=r"pass these parameters .*module=.*eval_transform="):
        load_model(path)
    with pytest.raises(ValueError, match=r"it does not need \['colour'\]"):
        load_model(path, module=Net, eval_transform=double, colour="red")
    loaded = load_model(path, module=Net, eval_transform=double)
    assert loaded.module is Net
    assert loaded.group_inferrer_[0].module.eval_transform is double
    assert_same(clf.module_, loaded.module_)
    assert_does_the_same(clf, loaded, X, y)
    with pytest.raises(ValueError, match="do not fit"):
        load_model(path, module=Net(n_hidden=5), eval_transform=double)


def test_different_values_of_a_parameter_are_given_by_number(table, path):
    X, y = table
    first = ERMClassifier(eval_transform=torch.neg)
    clf = SPAREClassifier(**FAST, eval_transform=double, first_stage=first)
    clf.fit(X, y)
    save_model(clf, path)
    with pytest.raises(ValueError, match=r"eval_transform=.*eval_transform_2="):
        load_model(path)
    given = {"eval_transform": double, "eval_transform_2": torch.neg}
    pair = [load_model(path, **given), load_model(path, **dict(zip(given, [torch.neg, double])))]
    assert {m.eval_transform for m in pair} == {double, torch.neg}
    right = pair[0] if pair[0].eval_transform is double else pair[1]
    assert_does_the_same(clf, right, X, y)


def test_what_cannot_be_written_is_named(table, path):
    X, y = table
    clf = ERMClassifier(**FAST).fit(X, y)
    clf.note_ = object()
    with pytest.raises(TypeError, match=r"ERMClassifier\.note_ is a object"):
        save_model(clf, path)
    ours_in_theirs = make_pipeline(FunctionTransformer(), clf)
    with pytest.raises(TypeError, match=r"Pipeline\.steps\.1\.1\.note_ is a object"):
        save_model(ours_in_theirs, path)
    search = GridSearchCV(ERMClassifier(**FAST), {"lr": [0.1]}, cv=2).fit(X, y)
    with pytest.raises(TypeError, match=r"save_model\(search\.best_estimator_, path\)"):
        save_model(search, path)
    own_step = make_pipeline(Centre(), ERMClassifier(**FAST)).fit(X, y)
    with pytest.raises(TypeError, match=r"Pipeline\.steps\.0\.1 is a Centre"):
        save_model(own_step, path)
    assert not path.exists()


class Centre(TransformerMixin, BaseEstimator):
    """A transformer of one's own: its fitted state must not be lost."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        return X - self.mean_


def test_a_network_that_was_changed_after_the_fit_cannot_be_written(table, path):
    clf = ERMClassifier(**FAST).fit(*table)
    clf.module_ = nn.Linear(8, 3)
    with pytest.raises(TypeError, match="has other tensors than the network"):
        save_model(clf, path)


def test_an_unfitted_estimator_is_refused(path):
    with pytest.raises(NotFittedError):
        save_model(ERMClassifier(), path)


# --------------------------------------------------------------------------------------
# The file


def test_a_failed_write_leaves_the_old_file_and_nothing_else(table, path, monkeypatch):
    clf = ERMClassifier(**FAST).fit(*table)
    save_model(clf, path)
    before = path.read_bytes()
    clf.note_ = object()
    with pytest.raises(TypeError):
        save_model(clf, path)
    del clf.note_

    def fills_the_disk(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fills_the_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(clf, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_reading_unpickles_nothing(table, path, monkeypatch):
    clf = clone(ON_TABLES["SPAREClassifier"]).fit(*table)
    save_model(clf, path)

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for owner, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"),
                        (torch, "load"), (np, "load")]:  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)
    assert_array_equal(load_model(path).predict(table[0]), clf.predict(table[0]))


def rewritten(path, change):
    """The file with another tree in its header."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["skspurious"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    change(header)
    text = json.dumps(header)
    save_file(tensors, path, metadata={KEY: text, HASH: content_hash(text, tensors)})


@pytest.mark.parametrize(
    "node",
    [
        {"object": "os:system", "state": []},
        {"object": "builtins:eval", "state": []},
        {"object": "skspurious.cli:main", "state": []},
        {"object": "skspurious.persistence._load:Path", "state": []},  # only imported there
        {"object": "skspurious.mitigation._spare:partial", "state": []},
        {"object": "sklearn.externals._packaging.version:Version", "state": []},
        {"object": "sklearnish.evil:Thing", "state": []},
        {"object": "skspurious.base:BaseTorchClassifier", "state": []},
        {"object": "skspurious.group_inference.__main__:Thing", "state": []},
        {"object": "skspurious.mitigation._nothing:ERMClassifier", "state": []},
        {"object": "sklearn.conftest:Thing", "state": []},
        {"name": "numpy.f2py.__main__:main"},
        {"name": "torch.optim.lr_scheduler:StepLR"},
        {"name": "os:system"},
        {"name": "skspurious.cli:main"},
        {"name": "torch.optim.adam:_use_grad_for_differentiable"},
        {"name": "numpy:save"},
        {"name": "subprocess:Popen"},
    ],
)
def test_a_file_cannot_name_what_is_run(node, table, path):
    save_model(ERMClassifier(**FAST).fit(*table), path)
    rewritten(path, lambda header: header["estimator"]["state"].append(["module_", node]))
    before = set(sys.modules)
    with pytest.raises(UnreadableFileError, match="not read from files"):
        load_model(path)
    assert not {name for name in set(sys.modules) - before if name.startswith("numpy.f2py")}


def flipped(content, bit):
    content = bytearray(content)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


def test_no_flipped_bit_and_no_part_of_a_file_is_read(table, path):
    save_model(ERMClassifier(**FAST).fit(*table), path)
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 211):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(UnreadableFileError):
            load_model(path)
    for size in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:size])
        with pytest.raises(UnreadableFileError):
            load_model(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04K\x01.", b"PK\x03\x04", bytes(100)])
def test_any_other_file_is_refused_by_one_error(content, path):
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"model\.safetensors"):
        load_model(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_model(path)


def set_node(header, name, node):
    state = header["estimator"]["state"]
    state[[key for key, _ in state].index(name)][1] = node


HUGE = 10**13  # of rows or letters, which no machine has room for


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["estimator"]["state"].append(["x_", {"nothing": 1}]),
        lambda header: header["estimator"]["state"].append(["x_", {"tensor": "no such"}]),
        lambda header: header["estimator"].update(state=[["classes_"]]),
        lambda header: header.pop("given"),
        lambda header: header.update(estimator={"object": 3}),
        lambda header: set_node(header, "classes_", {"objects": [], "shape": [2], "dtype": "O"}),
        lambda header: set_node(
            header, "classes_", {"objects": ["a"], "shape": [1], "dtype": "<U500000000"}
        ),
        lambda header: _describe(header, "sample_shape", {"tuple": [HUGE]}),
    ],
)
def test_a_tree_that_does_not_fit_is_refused_by_one_error(change, table, path):
    save_model(ERMClassifier(**FAST).fit(*table), path)
    rewritten(path, change)
    with pytest.raises(UnreadableFileError, match=r"cannot be read|holds no estimator"):
        load_model(path)


def _describe(header, name, node):
    """Change an attribute of the description of the input."""
    (described,) = [v for k, v in header["estimator"]["state"] if k == "_description"]
    (pair,) = [pair for pair in described["state"] if pair[0] == name]
    pair[1] = node


def test_files_of_others_and_of_later_versions_are_refused(table, path):
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"was not written by skspurious\.save_model"):
        load_model(path)
    save_model(ERMClassifier(**FAST).fit(*table), path)
    rewritten(path, lambda header: header.update(format=99))
    with pytest.raises(ValueError, match="has format 99"):
        load_model(path)


def test_the_header_is_json_that_other_programs_can_read(table, path):
    save_model(ERMClassifier(**FAST).fit(*table), path)
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["skspurious"])
    assert header["estimator"]["object"] == "skspurious.mitigation._erm:ERMClassifier"
    assert header["versions"]["skspurious"] == skspurious.__version__
