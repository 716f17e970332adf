"""The training loop, seen from the outside and against loops written by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.utils import check_random_state
from torch import nn
from torch.nn import functional as F

from skspurious import ERMClassifier
from skspurious._engine._callbacks import Callback
from skspurious._engine._config import LoopConfig
from skspurious._engine._loop import _is_stopped, _keep_best
from skspurious._engine._samplers import UniformSampler
from skspurious.networks import LeNet


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(77, 4)).astype(np.float32)
    y = (X[:, 0] + 0.5 * rng.normal(size=77) > 0).astype(int)
    return X, y, rng.integers(0, 3, size=77)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(40, 1, 3, 3), dtype=np.uint8)
    return X, np.arange(40) % 2


def _network(dropout=0.0, n_features=4):
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n_features, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2)
    )


@pytest.fixture
def network():
    with torch.random.fork_rng():
        yield _network


def _parameters(clf):
    return np.concatenate([p.detach().numpy().ravel() for p in clf.module_.parameters()])


def _plans(n_samples, n_epochs, random_state=0):
    """The order of the samples in every epoch."""
    seed = check_random_state(random_state).randint(2**31 - 1, size=5)[3]
    sampler = UniformSampler(n_samples, seed=int(seed))
    return [sampler(epoch) for epoch in range(n_epochs)]


# --------------------------------------------------------------------------------------
# Against loops written by hand


def test_a_compiled_network_learns_the_same_and_is_given_back_as_it_was(table, monkeypatch):
    X, y, _ = table
    params = {"module": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))}
    params |= {"max_epochs": 3, "batch_size": 32, "random_state": 0}
    compiled, compile_ = [], torch.compile

    def compile_without_c(module):  # the tracing, and not the compiler, which takes a minute
        compiled.append(module)
        return compile_(module, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_without_c)
    plain = ERMClassifier(**params).fit(X, y)
    assert not compiled
    fast = ERMClassifier(**params, compile=True).fit(X, y)
    assert len(compiled) == 1
    assert type(fast.module_) is nn.Sequential
    assert list(fast.module_.state_dict()) == list(plain.module_.state_dict())
    assert_allclose(_parameters(fast), _parameters(plain), rtol=1e-5, atol=1e-7)


def _reference_loop(network, X, y, plans, batch_size, optimizer, weight=None):
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    weight = torch.ones(len(y)) if weight is None else torch.from_numpy(weight).float()
    history = []
    for plan in plans:
        total = right = 0.0
        for rows in plan.split(batch_size):
            logits = network(X[rows])
            if (weight == 1).all():
                loss = F.cross_entropy(logits, y[rows])
            else:
                losses = F.cross_entropy(logits, y[rows], reduction="none")
                loss = (weight[rows] * losses).sum() / weight[rows].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += F.cross_entropy(logits.double(), y[rows], reduction="sum").item()
            right += (logits.argmax(1) == y[rows]).sum().item()
        history.append((total / len(plan), right / len(plan)))
    return np.array(history)


def test_a_network_in_channels_last_stays_so_and_learns_the_same():
    X = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    y = np.arange(20) % 2

    def make(memory_format):
        return LeNet(n_classes=2, image_size=16).to(memory_format=memory_format)

    fitted = [
        ERMClassifier(
            make, module_params={"memory_format": order}, max_epochs=2, random_state=0
        ).fit(X, y)
        for order in (torch.channels_last, torch.contiguous_format)
    ]
    for clf, order in zip(fitted, (torch.channels_last, torch.contiguous_format), strict=True):
        weight = next(p for p in clf.module_.parameters() if p.ndim == 4)
        assert weight.is_contiguous(memory_format=order)
    last, first = [clf.predict_proba(X) for clf in fitted]
    assert_allclose(last, first, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [77, 10])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_erm_equals_a_plain_torch_loop_bit_for_bit(table, network, name, batch_size):
    X, y, _ = table
    start, by_hand = network(), network()
    clf = ERMClassifier(
        start,
        optimizer=name,
        lr=0.05,
        weight_decay=0.01,
        max_epochs=4,
        batch_size=batch_size,
        random_state=0,
    ).fit(X, y)
    optimizer = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01, momentum=0.9, fused=True),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.01, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.01, fused=True),
    }[name](by_hand.parameters())
    history = _reference_loop(by_hand, X, y, _plans(77, 4), batch_size, optimizer)
    for trained, expected in zip(clf.module_.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(trained, expected)
    assert_allclose(clf.history_[["train_loss", "train_accuracy"]], history, rtol=1e-6)


def test_sample_weights_equal_a_plain_loop_with_weighted_means(table, network):
    X, y, _ = table
    weight = np.random.default_rng(1).uniform(0, 3, size=77)
    clf = ERMClassifier(
        network(), optimizer=torch.optim.SGD, lr=0.3, max_epochs=3, batch_size=10, random_state=0
    ).fit(X, y, sample_weight=weight)
    by_hand = network()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.3)
    _reference_loop(by_hand, X, y, _plans(77, 3), 10, optimizer, weight)
    expected = np.concatenate([p.detach().numpy().ravel() for p in by_hand.parameters()])
    assert_allclose(_parameters(clf), expected, rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------
# Laws


FULL_BATCH = {"batch_size": 1000, "lr": 0.3, "max_epochs": 5, "random_state": 0}


def test_weight_two_equals_two_copies(table, network):
    X, y, _ = table
    weight = np.where(np.arange(77) < 20, 2.0, 1.0)
    weighted = ERMClassifier(network(), **FULL_BATCH).fit(X, y, sample_weight=weight)
    twice = np.r_[np.arange(77), np.arange(20)]
    copied = ERMClassifier(network(), **FULL_BATCH).fit(X[twice], y[twice])
    assert_allclose(_parameters(weighted), _parameters(copied), rtol=1e-4, atol=1e-6)


def test_weight_zero_equals_removal(table, network):
    X, y, _ = table
    weight = np.where(np.arange(77) < 20, 0.0, 1.0)
    weighted = ERMClassifier(network(), **FULL_BATCH).fit(X, y, sample_weight=weight)
    removed = ERMClassifier(network(), **FULL_BATCH).fit(X[20:], y[20:])
    assert_allclose(_parameters(weighted), _parameters(removed), rtol=1e-4, atol=1e-6)


def test_scaling_all_weights_changes_nothing(table, network):
    X, y, _ = table
    shared = {"batch_size": 16, "max_epochs": 3, "random_state": 0}
    plain = ERMClassifier(network(), **shared).fit(X, y)
    scaled = ERMClassifier(network(), **shared).fit(X, y, sample_weight=np.full(77, 40.0))
    assert_allclose(_parameters(scaled), _parameters(plain), rtol=1e-4, atol=1e-6)


def test_gradient_accumulation_equals_the_large_batch(table, network):
    X, y, _ = table
    # 77 = 2 * 32 + 13: the last step has one whole batch and one of 5, which counts as 5/13.
    shared = {"lr": 0.2, "max_epochs": 3, "random_state": 0}
    large = ERMClassifier(network(), batch_size=32, **shared).fit(X, y)
    parts = ERMClassifier(network(), batch_size=8, gradient_accumulation=4, **shared).fit(X, y)
    assert_allclose(_parameters(parts), _parameters(large), rtol=1e-4, atol=1e-6)
    assert_allclose(parts.history_["train_loss"], large.history_["train_loss"], rtol=1e-5)


def test_max_grad_norm_clips(table, network):
    X, y, _ = table
    shared = {"optimizer": torch.optim.SGD, "lr": 0.5, "max_epochs": 1, "batch_size": 77}
    start = np.concatenate([p.detach().numpy().ravel() for p in network().parameters()])

    def step(max_grad_norm):
        clf = ERMClassifier(network(), max_grad_norm=max_grad_norm, random_state=0, **shared)
        return (start - _parameters(clf.fit(X, y))) / 0.5

    gradient = step(None)
    norm = np.linalg.norm(gradient)
    assert_allclose(step(norm / 10), gradient / 10, rtol=1e-3, atol=1e-6)
    assert_allclose(step(norm * 10), gradient, rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_mixed_precision_stays_close_to_float32(table, precision, dtype):
    X, y, _ = table
    seen = set()

    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            output = self.layer(x)
            seen.add(output.dtype)
            return output

    shared = {"max_epochs": 5, "batch_size": 16, "random_state": 0, "device": "cpu"}
    reference = ERMClassifier(
        nn.Linear, module_params={"in_features": 4, "out_features": 2}, **shared
    )
    reference.fit(X, y)
    clf = ERMClassifier(Recorder, precision=precision, **shared).fit(X, y)
    assert seen == {torch.float32, dtype}  # float32: the check of the output before training
    assert {p.dtype for p in clf.module_.parameters()} == {torch.float32}
    assert_allclose(_parameters(clf), _parameters(reference), atol=0.02)
    assert_allclose(clf.predict_proba(X), reference.predict_proba(X), atol=0.02)
    assert not np.array_equal(_parameters(clf), _parameters(reference))


# --------------------------------------------------------------------------------------
# Transforms


class _Recorder:
    """A batch transform that remembers what it was given."""

    def __init__(self, change=lambda batch: batch):
        self.seen, self.change = [], change

    def __call__(self, batch):
        self.seen.append(batch)
        return self.change(batch)


class _SeesInputs(nn.Module):
    """A linear network that remembers its inputs while it trains."""

    seen: list

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(9, 2)
        type(self).seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x.detach())
        return self.layer(x.flatten(1))


def test_transforms_act_on_batch_tensors_and_uint8_stays_uint8_until_then(images):
    X, y = images
    train, evaluation = _Recorder(), _Recorder()
    clf = ERMClassifier(
        _SeesInputs,
        train_transform=train,
        eval_transform=evaluation,
        max_epochs=2,
        batch_size=16,
        random_state=0,
    ).fit(X, y, X_val=X[:10], y_val=y[:10])
    assert [tuple(b.shape) for b in train.seen] == [(16, 1, 3, 3), (16, 1, 3, 3), (8, 1, 3, 3)] * 2
    assert {b.dtype for b in train.seen} == {torch.uint8}
    # The first: two samples, to check the network before training.
    assert [len(b) for b in evaluation.seen] == [2, 10, 10]
    assert {b.dtype for b in evaluation.seen} == {torch.uint8}
    clf.predict(X)
    assert len(evaluation.seen[-1]) == 40
    assert len(train.seen) == 6
    for batch, seen in zip(train.seen, clf.module_.seen, strict=True):
        assert torch.equal(seen, batch.float() / 255)


def test_transform_that_returns_float_is_not_scaled_again(images):
    X, y = images
    double = _Recorder(lambda batch: batch.double() - 100)
    clf = ERMClassifier(
        _SeesInputs, train_transform=double, max_epochs=1, batch_size=40, lr=1e-6, random_state=0
    ).fit(X, y)
    (seen,) = clf.module_.seen
    assert seen.dtype == torch.float32
    assert torch.equal(seen, double.seen[0].float() - 100)


def _noise(batch):
    return batch.float() / 255 + torch.rand_like(batch, dtype=torch.float32)


def test_transforms_and_dropout_are_reproducible(images, network, assert_global_rng_untouched):
    X, y = images

    start = network(dropout=0.5, n_features=9)

    def fit(random_state):
        clf = ERMClassifier(
            start,
            train_transform=_noise,
            max_epochs=3,
            batch_size=16,
            random_state=random_state,
        )
        return _parameters(clf.fit(X, y))

    first = fit(0)
    torch.rand(7)  # the state of the global generator does not matter
    with assert_global_rng_untouched():
        again = fit(0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, fit(1))


class _NoisyDataset(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.full((9,), float(i)) + torch.rand(9) / 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_random_samples_differ_between_epochs_and_follow_the_seed(num_workers):
    y = np.arange(8) % 2

    def noise(random_state):
        clf = ERMClassifier(
            _SeesInputs,
            max_epochs=2,
            batch_size=8,
            num_workers=num_workers,
            random_state=random_state,
        ).fit(_NoisyDataset(), y)
        return [x.frac().numpy() for x in clf.module_.seen]  # in the order of drawing

    first, again, other = noise(0), noise(0), noise(1)
    assert not np.allclose(first[0], first[1])
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.allclose(first[0], other[0])


# --------------------------------------------------------------------------------------
# History, callbacks, output


class _Counter(Callback):
    def __init__(self):
        self.calls, self.rows = [], []

    def on_train_begin(self, **kwargs):
        self.calls.append(("begin", sorted(kwargs)))

    def on_epoch_end(self, *, module, row, **kwargs):
        assert isinstance(module, nn.Module)
        self.calls.append(("epoch", row["epoch"]))
        self.rows.append(dict(row))

    def on_train_end(self, *, history, **kwargs):
        self.calls.append(("end", len(history)))


def test_callbacks_are_called_with_the_rows_of_the_history(table):
    X, y, _ = table
    counter = _Counter()
    clf = ERMClassifier(max_epochs=3, callbacks=[counter], random_state=0).fit(X, y)
    assert counter.calls == [
        ("begin", ["epoch", "is_main", "max_epochs", "module"]),
        ("epoch", 1),
        ("epoch", 2),
        ("epoch", 3),
        ("end", 3),
    ]
    pd.testing.assert_frame_equal(pd.DataFrame(counter.rows), clf.history_)


def test_callbacks_must_be_callbacks(table):
    X, y, _ = table
    clf = ERMClassifier(callbacks=[print])
    with pytest.raises(TypeError, match="expected instances of Callback"):
        clf.fit(X, y)


def test_history_has_a_column_for_each_group(table):
    X, y, _ = table
    group = np.array(["a", "b", "c"])[np.arange(77) % 3]
    clf = ERMClassifier(max_epochs=2, random_state=0)
    clf.fit(X, y, sample_group=group, X_val=X[:9], y_val=y[:9], sample_group_val=group[:9])
    of_split = [
        [f"{split}_loss", f"{split}_accuracy", f"{split}_worst_group_accuracy"]
        + [f"{split}_{what}[{g}]" for what in ("accuracy", "loss") for g in "abc"]
        for split in ("train", "valid")
    ]
    assert clf.history_.columns.tolist() == ["epoch", "lr", *of_split[0], *of_split[1], "seconds"]
    assert clf.history_["epoch"].tolist() == [1, 2]
    without = ERMClassifier(max_epochs=2, random_state=0).fit(X, y).history_
    assert without.columns.tolist() == ["epoch", "lr", "train_loss", "train_accuracy", "seconds"]


def test_validation_columns_are_those_of_the_network_after_the_epoch(table, network):
    X, y, group = table
    group = np.where(group == 2, 5, group)  # no sample of group 5 in validation: nan, not 0
    valid = np.flatnonzero(group < 2)
    clf = ERMClassifier(network(dropout=0.5), max_epochs=3, monitor=None, random_state=0)
    clf.fit(X, y, sample_group=group, X_val=X[valid], y_val=y[valid], sample_group_val=group[valid])
    last = clf.history_.iloc[-1]
    hit = clf.predict(X[valid]) == y[valid]
    proba = clf.predict_proba(X[valid])[np.arange(len(valid)), y[valid]]
    assert_allclose(last["valid_loss"], -np.log(proba).mean(), rtol=1e-5)
    assert_allclose(last["valid_accuracy"], hit.mean())
    of_group = [hit[group[valid] == g].mean() for g in (0, 1)]
    assert_allclose(last[["valid_accuracy[0]", "valid_accuracy[1]"]].astype(float), of_group)
    assert_allclose(last["valid_worst_group_accuracy"], min(of_group))
    assert np.isnan(last["valid_accuracy[5]"])


def test_training_prints_nothing_at_verbose_0_and_one_bar_at_1(table, capfd):
    X, y, _ = table
    ERMClassifier(max_epochs=2, random_state=0).fit(X, y).predict(X)
    assert capfd.readouterr() == ("", "")
    ERMClassifier(max_epochs=2, random_state=0, verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "train_accuracy" in err


def test_diverged_training_raises_with_epoch_and_learning_rate(table):
    X, y, _ = table
    clf = ERMClassifier(lr=1e30, optimizer_params={"momentum": 0.99}, max_epochs=50, random_state=0)
    with pytest.raises(ValueError, match=r"Training diverged.* in epoch \d+ at lr=1e\+30"):
        clf.fit(X * 1e8, y)


# --------------------------------------------------------------------------------------
# Best epoch and early stopping


def _run(scores, *, monitor="valid_worst_group_accuracy", patience=None):
    """Feed (monitored, accuracy) of each epoch; the progress, and the epochs that were run."""
    config = LoopConfig(max_epochs=9, batch_size=1, lr=1, monitor=monitor, patience=patience)
    module, progress = nn.Linear(1, 1), {"history": [], "best": None}
    for epoch, (value, accuracy) in enumerate(scores, start=1):
        if _is_stopped(progress, config):
            break
        nn.init.constant_(module.weight, epoch)
        row = {"epoch": epoch, monitor: value, "valid_accuracy": accuracy}
        progress["history"].append(row)
        _keep_best(progress, row, module, "valid", config)
    return progress["best"], len(progress["history"])


@pytest.mark.parametrize(
    ("scores", "best_epoch"),
    [
        ([(0.1, 0.5), (0.4, 0.9), (0.3, 1.0)], 2),
        ([(0.0, 0.5), (0.0, 0.9), (0.0, 0.7)], 2),  # a worst group of 0: by the accuracy
        ([(0.5, 0.9), (0.5, 0.9), (0.5, 0.8)], 2),  # all equal: the later epoch
    ],
)
def test_best_epoch(scores, best_epoch):
    best, _ = _run(scores)
    assert best["epoch"] == best_epoch
    assert best["state"]["weight"].item() == best_epoch


def test_best_epoch_in_loss_is_the_lowest():
    scores = [(0.9, 0.5), (0.2, 0.6), (0.4, 0.9)]
    assert _run(scores, monitor="valid_loss")[0]["epoch"] == 2


def test_early_stopping_counts_epochs_without_a_better_score():
    falling = [(0.5, 0.9), (0.6, 0.9), (0.4, 0.9), (0.6, 0.8), (0.5, 0.9), (0.9, 0.9)]
    best, n_epochs = _run(falling, patience=3)
    assert (best["epoch"], n_epochs) == (2, 5)
    # A tie moves the best epoch and does not renew the patience.
    best, n_epochs = _run([(0.5, 0.9)] * 9, patience=3)
    assert (best["epoch"], n_epochs) == (4, 4)
    assert _run(falling, patience=None)[1] == 6


def test_classifier_keeps_the_network_of_the_best_epoch(table, network):
    X, y, group = table
    shared = {"lr": 0.5, "batch_size": 8, "random_state": 3}
    clf = ERMClassifier(network(), max_epochs=8, **shared)
    clf.fit(
        X, y, X_val=X[:30], y_val=1 - y[:30], sample_group_val=group[:30]
    )  # gets worse while it trains
    assert clf.best_epoch_ < 8
    stopped_there = ERMClassifier(network(), max_epochs=clf.best_epoch_, monitor=None, **shared)
    assert np.array_equal(_parameters(clf), _parameters(stopped_there.fit(X, y)))


def test_batch_normalisation_never_sees_a_single_sample():
    X = np.random.default_rng(0).normal(size=(33, 3)).astype(np.float32)
    y = np.arange(33) % 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    clf = ERMClassifier(
        network, batch_size=16, max_epochs=3, lr_schedule="onecycle", random_state=0
    ).fit(X, y)
    assert clf.module_[1].num_batches_tracked == 3 * 2  # not 3 * 3
    assert np.isfinite(clf.predict_proba(X)).all()


@pytest.mark.parametrize(("n_samples", "n_batches"), [(34, 3), (32, 2), (10, 1)])
def test_only_a_last_batch_of_one_is_left_out(n_samples, n_batches):
    X = np.random.default_rng(0).normal(size=(n_samples, 3)).astype(np.float32)
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    clf = ERMClassifier(network, batch_size=16, max_epochs=1, random_state=0)
    clf.fit(X, np.arange(n_samples) % 2)
    assert clf.module_[0].num_batches_tracked == n_batches


def test_without_batch_normalisation_every_sample_is_seen(network):
    X = np.random.default_rng(0).normal(size=(33, 4)).astype(np.float32)
    y, seen = np.arange(33) % 2, []
    clf = ERMClassifier(
        network(),
        batch_size=16,
        max_epochs=1,
        train_transform=lambda batch: seen.append(len(batch)) or batch,
        random_state=0,
    )
    clf.fit(X, y)
    assert seen[-3:] == [16, 16, 1]
