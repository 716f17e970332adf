"""Runs that differ in anything that counts have different fingerprints, and no others have."""

import functools
import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from skspurious import ERMClassifier
from skspurious.utils._identity import NoIdentityError, fingerprint

FACTOR = 2.0


def doubled(batch):
    return FACTOR * batch


class Hidden:
    """Its repr hides its state."""

    def __init__(self, value):
        self.value = value

    def __call__(self, batch):
        return self.value * batch

    def __repr__(self):
        return "Hidden()"


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Opaque:
    """Cannot be taken apart."""

    def __init__(self, value):
        self.value = value

    def __call__(self, batch):
        return batch

    def __reduce_ex__(self, protocol):
        raise TypeError("an open connection")


def times(value):
    return lambda batch: value * batch


def defaulting(value):
    def function(batch, by=value):
        return by * batch

    return function


def classes():
    """Two classes of one name, which do something else."""

    def first():
        class Network(nn.Module):
            def forward(self, x):
                return x + 1

        return Network

    def second():
        class Network(nn.Module):
            def forward(self, x):
                return x + 2

        return Network

    pair = first(), second()
    for cls in pair:
        cls.__qualname__ = "Network"
    return pair


PAIRS = {
    "closure": (times(2), times(3)),
    "default": (defaulting(2), defaulting(3)),
    "code": (lambda x: x + 1, lambda x: x + 2),
    "attributes": (Hidden(2), Hidden(3)),
    "slots": (Slotted(2), Slotted(3)),
    "method": (Hidden(2).__call__, Hidden(3).__call__),
    "partial": (functools.partial(doubled, 1), functools.partial(doubled, 2)),
    "nested": ([{"a": Hidden(np.zeros(3))}], [{"a": Hidden(np.ones(3))}]),
    "class": classes(),
    "frozen": (nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)),
    "generator": (np.random.default_rng(0), np.random.default_rng(1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_hidden_counts(name):
    one, other = PAIRS[name]
    if name == "frozen":
        other.load_state_dict(one.state_dict())
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


def test_equal_objects_are_the_same():
    assert fingerprint(times(2)) == fingerprint(times(2))
    assert fingerprint(Hidden([1, 2])) == fingerprint(Hidden([1, 2]))
    assert fingerprint({1, 2, 3}) == fingerprint({3, 2, 1})


def test_globals_that_a_function_names_count(monkeypatch):
    before = fingerprint(doubled)
    assert fingerprint(doubled) == before
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fingerprint(doubled) != before


def test_what_holds_itself_ends():
    loop = Hidden(None)
    loop.value = [loop]
    assert fingerprint(loop) == fingerprint(loop)


@pytest.mark.parametrize("opaque", [Opaque(1), threading.Lock(), (i for i in range(3))])
def test_what_has_no_content_needs_a_name(opaque):
    with pytest.raises(NoIdentityError, match="has no content"):
        fingerprint([opaque])
    names = {fingerprint([opaque], run_name=name) for name in ("a", "b")}
    assert len(names) == 2


# --------------------------------------------------------------------------------------
# In a fit

FAST = {"max_epochs": 1, "batch_size": 4, "random_state": 0}


def n_runs(folder):
    return len(list(folder.glob("*.pt")))


def test_a_parameter_without_content_needs_a_run_name(tmp_path):
    X, y = np.eye(4, dtype=np.float32), np.arange(4) % 2
    clf = ERMClassifier(nn.Linear(4, 2), train_transform=Opaque(1), **FAST)
    clf.set_params(checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"a Opaque has no content .*connection.* Set run_name"):
        clf.fit(X, y)
    for n, name in enumerate(["first", "second"], start=1):
        for _ in range(2):
            clf.set_params(run_name=name).fit(X, y)
        assert n_runs(tmp_path) == n


class Noisy(Dataset):
    """Samples of numbers, with noise from the generators that user code draws from."""

    def __init__(self, X, source=torch.rand):
        self.X, self.source = X, source

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i] + self.source(4)


def _numpy_noise(n):
    return torch.from_numpy(np.random.rand(n)).float()  # noqa: NPY002


@pytest.mark.parametrize("source", [torch.rand, _numpy_noise])
def test_datasets_of_other_content_are_other_runs(source, tmp_path):
    X, y = torch.eye(8)[:, :4], np.arange(8) % 2
    clf = ERMClassifier(nn.Linear(4, 2), checkpoint_dir=tmp_path, **FAST)
    for n, data in enumerate([X, X + 1, X * 2], start=1):
        for _ in range(2):
            clf.fit(Noisy(data.clone(), source), y)
        assert n_runs(tmp_path) == n


class FromFile(Dataset):
    """Has no content but what it reads."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.from_numpy(np.load(self.path)[i])


def test_rows_of_a_dataset_count(tmp_path):
    path, y = tmp_path / "data.npy", np.arange(8) % 2
    clf = ERMClassifier(nn.Linear(4, 2), checkpoint_dir=tmp_path, **FAST)
    for n in (1, 2):
        np.save(path, np.full((8, 4), n, dtype=np.float32))
        clf.fit(FromFile(path), y)
        assert n_runs(tmp_path) == n


def test_files_under_the_same_paths_count(tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]

    def write(shade):
        for i, path in enumerate(paths):
            Image.new("RGB", (4, 4), (shade, i, 0)).save(path)
            os.utime(path, ns=(shade, shade))

    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    clf = ERMClassifier(net, checkpoint_dir=tmp_path / "runs", **FAST)
    for n, shade in enumerate([100, 200], start=1):
        write(shade)
        for _ in range(2):
            clf.fit(paths, [0, 1, 0, 1])
        assert n_runs(tmp_path / "runs") == n


@pytest.mark.parametrize("source", [torch.rand, _numpy_noise])
def test_num_workers_changes_nothing(source, assert_global_rng_untouched):
    X, y = torch.eye(8)[:, :4], np.arange(8) % 2
    weights, net = [], nn.Linear(4, 2)
    for num_workers in (0, 2):
        clf = ERMClassifier(net, num_workers=num_workers, **FAST | {"max_epochs": 2})
        with assert_global_rng_untouched():
            clf.fit(Noisy(X, source), y)
        weights.append(clf.module_.weight)
    assert torch.equal(*weights)
