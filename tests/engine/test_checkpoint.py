"""A run killed at any moment and started again ends with the same bits as an unbroken one."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

import skspurious
from skspurious import BalancedRetrainer, ERMClassifier, GroupDROClassifier
from skspurious._engine import _checkpoint
from skspurious._engine._callbacks import Callback
from skspurious._engine._checkpoint import CheckpointFolder
from skspurious._engine._runtime import Runtime
from skspurious._engine._steps import TrainStep
from skspurious.exceptions import UnreadableFileError
from skspurious.utils._identity import fingerprint


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 5)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=90) > 0).astype(int)
    return X, y, rng.choice(3, p=[0.7, 0.2, 0.1], size=90)


class Network(nn.Module):
    """With everything that a checkpoint must hold: dropout, batch statistics, weights."""

    def __init__(self, activation=nn.ReLU, dropout=0.5):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), activation(), nn.Dropout(dropout), nn.Linear(6, 2)
        )

    def forward(self, x):
        return self.layers(x)


class CountEpochs(Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, *, row, **kwargs):
        self.epochs.append(row["epoch"])


def _add_noise(batch):
    return batch + 0.1 * torch.randn_like(batch)


SHARED = {
    "module": Network,
    "train_transform": _add_noise,
    "max_epochs": 6,
    "batch_size": 16,
    "lr": 0.05,
    "random_state": 0,
}
RUNS = {
    "erm-momentum-cosine": partial(ERMClassifier, lr_schedule="cosine"),
    "erm-adamw-onecycle": partial(
        ERMClassifier, optimizer="adamw", lr_schedule="onecycle", gradient_accumulation=2
    ),
    "erm-class-linear": partial(
        ERMClassifier, optimizer=torch.optim.RMSprop, lr_schedule="linear", max_grad_norm=0.5
    ),
    "erm-fp16": partial(ERMClassifier, precision="fp16", device="cpu"),
    "erm-early-stopping": partial(
        ERMClassifier, early_stopping=True, n_epochs_no_change=3, validation_fraction=0.2
    ),
    "erm-plateau-criterion": partial(
        ERMClassifier,
        lr_schedule=partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0),
        criterion=nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"),
        early_stopping=True,
    ),
    "dro-sampling": partial(GroupDROClassifier, step_size=0.5, adjustment=[2.0, 0.0, -1.0]),
    "dro-batches-ema": partial(
        GroupDROClassifier, step_size=0.5, balance="batches", absent_group="ema"
    ),
    "balanced-batches": partial(BalancedRetrainer, balance="batches"),
    "balanced-subsampling": partial(BalancedRetrainer, balance="subsampling"),
}


def _fit(make, data, **params):
    X, y, group = data
    return make(**SHARED | params).fit(X, y, sample_group=group)


def _assert_same_run(resumed, unbroken):
    expected = unbroken.module_.state_dict()
    for name, value in resumed.module_.state_dict().items():
        assert torch.equal(value, expected[name]), name
    pd.testing.assert_frame_equal(
        resumed.history_.drop(columns="seconds"),
        unbroken.history_.drop(columns="seconds"),
        check_exact=True,
    )
    assert resumed.best_epoch_ == unbroken.best_epoch_
    if hasattr(unbroken, "group_weights_"):
        np.testing.assert_array_equal(resumed.group_weights_, unbroken.group_weights_)


# --------------------------------------------------------------------------------------
# Resuming


@pytest.mark.fidelity
@pytest.mark.parametrize("epoch", [1, 4])
@pytest.mark.parametrize("name", RUNS)
def test_interrupted_run_resumes_with_the_same_bits(name, epoch, data, tmp_path, interrupt_after):
    make = RUNS[name]
    unbroken = _fit(make, data)
    with pytest.raises(KeyboardInterrupt):
        _fit(make, data, checkpoint_dir=tmp_path, callbacks=[interrupt_after(epoch)])
    count = CountEpochs()
    resumed = _fit(make, data, checkpoint_dir=tmp_path, callbacks=[count])
    assert count.epochs == list(range(epoch + 1, len(unbroken.history_) + 1))
    _assert_same_run(resumed, unbroken)


def test_run_interrupted_inside_an_epoch_resumes_at_its_start(data, tmp_path, monkeypatch):
    unbroken = _fit(GroupDROClassifier, data)
    for n_batches in (3, 9, 14):  # 6 batches an epoch: in the first, then in the second and third
        left, step = iter(range(n_batches - 1)), TrainStep.__call__

        def interrupted(self, *args, left=left, step=step, **kwargs):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(TrainStep, "__call__", interrupted)
            with pytest.raises(KeyboardInterrupt):
                _fit(GroupDROClassifier, data, checkpoint_dir=tmp_path)
    count = CountEpochs()
    resumed = _fit(GroupDROClassifier, data, checkpoint_dir=tmp_path, callbacks=[count])
    assert count.epochs[-1] == 6
    assert len(count.epochs) < 6
    _assert_same_run(resumed, unbroken)


def test_early_stopping_and_best_epoch_survive(data, tmp_path, interrupt_after):
    X, y, group = data
    # Wrong labels in validation: the first epochs are the best.
    valid = {"X_val": X[:40], "y_val": 1 - y[:40], "sample_group_val": group[:40]}
    make = partial(ERMClassifier, **SHARED | {"max_epochs": 30, "lr": 0.2}, early_stopping=True)
    unbroken = make().fit(X, y, sample_group=group, **valid)
    n_epochs = len(unbroken.history_)
    assert unbroken.best_epoch_ < n_epochs < 30
    for epoch in (unbroken.best_epoch_, n_epochs):
        folder = tmp_path / str(epoch)
        clf = make(checkpoint_dir=folder, callbacks=[interrupt_after(epoch)])
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y, sample_group=group, **valid)
        resumed = make(checkpoint_dir=folder).fit(X, y, sample_group=group, **valid)
        _assert_same_run(resumed, unbroken)


def test_finished_run_returns_at_once(data, tmp_path):
    first = _fit(GroupDROClassifier, data, checkpoint_dir=tmp_path)
    count = CountEpochs()
    again = _fit(GroupDROClassifier, data, checkpoint_dir=tmp_path, callbacks=[count])
    assert count.epochs == []
    _assert_same_run(again, first)
    assert again.history_["seconds"].equals(first.history_["seconds"])


class WaitToBeKilled(Callback):
    def on_epoch_end(self, *, row, **kwargs):
        time.sleep(60 if row["epoch"] == 30 else 0.005)


def _fit_killed_run(folder, callbacks=None):
    """The run that is killed; the same in every process."""
    torch.set_num_threads(1)
    rng = np.random.Generator(np.random.PCG64(0))  # not default_rng, which conftest.py shifts here
    X, y = rng.normal(size=(90, 5)).astype(np.float32), np.arange(90) % 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network()
    params = SHARED | {"module": network, "max_epochs": 40}
    clf = GroupDROClassifier(**params, checkpoint_dir=folder, callbacks=callbacks)
    return clf.fit(X, y, sample_group=rng.integers(0, 3, size=90))


def _train_until_killed(folder):
    _fit_killed_run(folder, [WaitToBeKilled()])


@pytest.mark.fidelity
def test_killed_process_leaves_a_run_that_resumes_with_the_same_bits(tmp_path):
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['_train_until_killed'](sys.argv[2])"
    root = str(Path(skspurious.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", code, __file__, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": root},
    )
    try:
        while not list(tmp_path.glob("*.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(random.Random().uniform(0.0, 0.4))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL

    (path,) = tmp_path.glob("*.pt")
    saved = _content(path)["progress"]["history"]
    count = CountEpochs()
    resumed = _fit_killed_run(tmp_path, [count])
    assert count.epochs == list(range(len(saved) + 1, 41))
    assert resumed.history_["seconds"].tolist()[: len(saved)] == [r["seconds"] for r in saved]
    _assert_same_run(resumed, _fit_killed_run(None))


# --------------------------------------------------------------------------------------
# Files


def _content(path):
    """What a file holds behind its two lines."""
    content = Path(path).read_bytes().split(b"\n", 2)[2]
    return torch.load(io.BytesIO(content), weights_only=True)


def _state():
    return {"module": nn.Linear(2, 2), "schedule": None}


def test_save_and_load(tmp_path):
    runtime, state, other = Runtime("cpu"), _state(), _state()
    folder = CheckpointFolder(tmp_path / "new" / "folder", "run")
    assert folder.load(other, runtime) is None
    folder.save(state, {"history": [1]}, runtime)
    assert folder.load(other, runtime) == {"history": [1]}
    assert torch.equal(other["module"].weight, state["module"].weight)
    assert CheckpointFolder(tmp_path, "other").load(other, runtime) is None


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_save_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch, error):
    runtime, folder = Runtime("cpu"), CheckpointFolder(tmp_path, "run")
    folder.save(_state(), {"history": [1]}, runtime)
    whole = folder.path.read_bytes()

    def half_a_save(handle):
        raise error

    monkeypatch.setattr(os, "fsync", half_a_save)
    with pytest.raises(type(error)) as caught:
        folder.save(_state(), {"history": [1, 2]}, runtime)
    assert caught.value is error
    assert folder.path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["run.pt"]


def test_save_writes_beside_the_file_and_moves(tmp_path, monkeypatch):
    # A kill at any moment before the move leaves the old file.
    runtime, folder = Runtime("cpu"), CheckpointFolder(tmp_path, "run")
    folder.save(_state(), {"history": [1]}, runtime)
    whole = folder.path.read_bytes()
    moves = []

    def look(source, target):
        assert folder.path.read_bytes() == whole
        assert _content(source)["progress"] == {"history": [1, 2]}
        moves.append(Path(target))

    monkeypatch.setattr(os, "replace", look)
    folder.save(_state(), {"history": [1, 2]}, runtime)
    assert moves == [folder.path]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_unreadable_checkpoint_raises_with_file_and_remedy(content, data, tmp_path):
    _fit(ERMClassifier, data, checkpoint_dir=tmp_path, max_epochs=1)
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(UnreadableFileError, match=rf"{path.name} cannot .* Delete it to start"):
        _fit(ERMClassifier, data, checkpoint_dir=tmp_path, max_epochs=1)


def _saved(tmp_path, fingerprint="run", state=None):
    folder = CheckpointFolder(tmp_path, fingerprint)
    folder.save(_state() if state is None else state, {"history": [1]}, Runtime("cpu"))
    return folder


def test_no_flipped_bit_is_read(tmp_path):
    folder = _saved(tmp_path)
    content = folder.path.read_bytes()
    for bit in range(0, 8 * len(content), 37):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        folder.path.write_bytes(flipped)
        state = _state()
        before = state["module"].weight.clone()
        with pytest.raises(UnreadableFileError):
            folder.load(state, Runtime("cpu"))
        assert torch.equal(state["module"].weight, before)


def test_no_part_of_a_file_is_read(tmp_path):
    folder = _saved(tmp_path)
    content = folder.path.read_bytes()
    for size in [*range(0, len(content), 101), len(content) - 1]:
        folder.path.write_bytes(content[:size])
        with pytest.raises(UnreadableFileError, match="damaged"):
            folder.load(_state(), Runtime("cpu"))


def test_a_file_of_another_run_or_version_is_refused(tmp_path, monkeypatch):
    other = _saved(tmp_path, "other")
    folder = CheckpointFolder(tmp_path, "run")
    other.path.rename(folder.path)
    with pytest.raises(UnreadableFileError, match="of another run"):
        folder.load(_state(), Runtime("cpu"))
    monkeypatch.setattr(_checkpoint, "FORMAT", 99)
    _saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UnreadableFileError, match="has format 99; this version has"):
        folder.load(_state(), Runtime("cpu"))


def test_a_state_of_another_network_is_refused(tmp_path):
    folder = _saved(tmp_path)
    for module in (nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 2))):
        with pytest.raises(UnreadableFileError, match="does not fit"):
            folder.load({"module": module}, Runtime("cpu"))
    with pytest.raises(UnreadableFileError, match="does not fit"):
        folder.load(_state() | {"objective": nn.Linear(2, 2)}, Runtime("cpu"))


def test_leftovers_of_killed_writes_are_swept(tmp_path):
    folder = _saved(tmp_path)
    others = tmp_path / "other.pt.1.part"
    for path in (tmp_path / "run.pt.abc.part", others):
        path.write_bytes(b"half")
    folder.load(_state(), Runtime("cpu"))
    assert sorted(tmp_path.iterdir()) == sorted([folder.path, others])


def test_checkpoint_is_read_without_unpickling(tmp_path, monkeypatch):
    folder = _saved(tmp_path)
    monkeypatch.setattr(torch, "save", partial(_save_with, CountEpochs()))
    _saved(tmp_path)
    with pytest.raises(UnreadableFileError, match=r"UnpicklingError"):
        folder.load(_state(), Runtime("cpu"))


def _save_with(value, content, file, save=torch.save):
    save(content | {"progress": value}, file)


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_checkpoints_need_an_integer_random_state(random_state, data, tmp_path):
    with pytest.raises(ValueError, match="checkpoint_dir needs an integer random_state"):
        _fit(ERMClassifier, data, checkpoint_dir=tmp_path, random_state=random_state)


# --------------------------------------------------------------------------------------
# Which runs are the same run


def _double(batch):
    return 2 * batch


def _change(array, row):
    array = array.copy()
    array[row] = 1 - array[row]
    return array


def _other_runs(X, y, group):
    """Fits that differ in one thing from ``GroupDROClassifier(...).fit(X, y, group)``."""
    dro = partial(GroupDROClassifier, **SHARED | {"max_epochs": 1, "adjustment": np.zeros(3)})
    weight = np.ones(90)
    yield "itself", dro(), (X, y), {}
    for params in [
        {"lr": 0.06},
        {"max_epochs": 2},
        {"optimizer": torch.optim.SGD},
        {"optimizer": torch.optim.RMSprop},
        {"optimizer_params": {"momentum": 0.5}},
        {"module": Network(nn.ReLU)},
        {"module": Network(nn.Tanh)},
        {"module_params": {"dropout": 0.1}},
        {"train_transform": _double},
        {"train_transform": partial(torch.mul, other=2)},
        {"train_transform": partial(torch.mul, other=3)},
        {"adjustment": np.array([0.0, 0.0, 1e-3])},
        {"step_size": 0.5},
        {"balance": "batches"},
        {"precision": "bf16"},
        {"random_state": 1},
    ]:
        yield params, dro(**params), (X, y), {}
    yield "X", dro(), (_change(X, 7), y), {}
    yield "y", dro(), (X, _change(y, 7)), {}
    yield "weight", dro(), (X, y), {"sample_weight": weight}
    yield "other weight", dro(), (X, y), {"sample_weight": _change(weight, 7)}
    yield "group", dro(), (X, y), {"sample_group": _change(group, np.flatnonzero(group == 1)[0])}
    for n_valid in (30, 40):
        valid = {"X_val": X[:n_valid], "y_val": y[:n_valid], "sample_group_val": group[:n_valid]}
        yield "validation", dro(), (X, y), valid
    yield "method", ERMClassifier(**SHARED | {"max_epochs": 1}), (X, y), {}


def test_other_parameters_or_data_are_another_run(data, tmp_path):
    X, y, group = data
    for n_runs, (what, clf, Xy, kwargs) in enumerate(_other_runs(X, y, group), start=1):
        clf.set_params(checkpoint_dir=tmp_path).fit(*Xy, **{"sample_group": group} | kwargs)
        assert len(list(tmp_path.glob("*.pt"))) == n_runs, what


def test_what_changes_nothing_about_the_result_is_the_same_run(data, tmp_path):
    for params in [
        {},
        {"random_state": np.int64(0)},
        {"callbacks": [CountEpochs()]},
        {"checkpoint_dir": str(tmp_path)},
        {"device": "cpu"},
        {"num_workers": 1},
    ]:
        _fit(ERMClassifier, data, **{"checkpoint_dir": tmp_path, "max_epochs": 1} | params)
    assert len(list(tmp_path.glob("*.pt"))) == 1


class _Stage(BaseEstimator):
    def __init__(self, size=None):
        self.size = size


def test_fingerprint_looks_into_estimators_arrays_and_containers():
    long = np.zeros(5000)  # longer than NumPy shows, and scikit-learn too
    parts = [
        _Stage(),
        _Stage(1),
        _Stage(long),
        _Stage(_change(long, 2500)),
        [long],
        [long, 0],
        np.array(["a", "b"]),
        np.array(["a", "c"]),
        np.array(["a", None]),
        np.array("2026-01-01", dtype="datetime64[D]"),
        np.zeros(0),
        (1, 23),
        (12, 3),
        {"a": 1, "b": 2},
        {"a": 2, "b": 1},
        torch.zeros(6),
        torch.zeros(2, 3),
        torch.zeros(3, dtype=torch.float64),
        1,
        1.0,
        "1",
        None,
        [None],
    ]
    assert len({fingerprint(part) for part in parts}) == len(parts)
    assert fingerprint({"b": 2, "a": 1}) == fingerprint({"a": 1, "b": 2})
    assert fingerprint(_Stage(long)) == fingerprint(_Stage(long.copy()))
    assert fingerprint(object()) == fingerprint(object())  # addresses do not count


def test_datasets_of_paths_or_texts_are_told_apart(tmp_path):
    def length(texts):
        return torch.tensor([[len(t), 1.0] for t in texts])

    y = np.arange(8) % 2
    clf = ERMClassifier(
        nn.Linear(2, 2), collate_fn=length, max_epochs=1, random_state=0, checkpoint_dir=tmp_path
    )
    for n_runs, texts in enumerate([list("abcdefgh"), list("abcdefgx")], start=1):
        clf.fit(texts, y)
        clf.fit(texts, y)
        assert len(list(tmp_path.glob("*.pt"))) == n_runs
