"""How AutoRetrainer compares its ways of retraining, and what it calls a large effect."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skspurious.base import BaseTorchClassifier
from skspurious.functional._recovery import Recovery
from skspurious.group_inference import _effect
from skspurious.mitigation import _auto_choice, _auto_ways
from skspurious.mitigation._auto_ways import Ways

pytestmark = pytest.mark.fidelity


@dataclass
class Rows:
    """Training samples that are their numbers."""

    rows: np.ndarray
    group: torch.Tensor
    n_groups: int = 3

    def take(self, at):
        return Rows(self.rows[at], self.group[at])


@dataclass
class Data:
    train: Rows
    valid: object = "validation samples"


SIZES = (60, 30, 10)
RIGHT = {"head": (48, 15, 4), "network": (54, 24, 2)}  # of each group


class Fake(Ways):
    """Ways that are right about given rows, and remember what they were trained and judged on."""

    def __init__(self, data):
        self.data, self.seeds, self.seen = data, (0, 1), []

    def train(self, way, module, data):
        assert data.valid is None
        with torch.no_grad():
            module.weight.add_(1.0)
        module.way = way
        self.seen.append((way, set(data.train.rows.tolist())))
        return SimpleNamespace(module=module)

    def _hits(self, module, samples):
        assert not module.training
        way, trained_on = self.seen[-1]
        assert not trained_on & set(samples.rows.tolist())
        self.seen[-1] = (way, trained_on, set(samples.rows.tolist()))
        start = np.cumsum((0, *SIZES))[samples.group.numpy()]
        return samples.rows - start < np.array(RIGHT[module.way])[samples.group.numpy()]


def test_ways_are_compared_on_the_halves_that_they_were_not_trained_on():
    group = torch.from_numpy(np.repeat([0, 1, 2], SIZES))
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    ways = Fake(Data(Rows(np.arange(100), group)))
    table = ways.compare(module, ["head", "network"])
    assert torch.equal(module.weight, before)
    assert [way for way, *_ in ways.seen] == ["head", "head", "network", "network"]
    for _, trained_on, judged in ways.seen:
        assert trained_on | judged == set(range(100))
        assert np.bincount(group[sorted(judged)]).tolist() == [30, 15, 5]
    for first, second in (ways.seen[:2], ways.seen[2:]):
        assert first[1:] == second[:0:-1]  # each half once
    for way, right in RIGHT.items():
        accuracy = np.array(right) / SIZES
        assert table.loc[way, "worst_group"] == pytest.approx(accuracy.min())
        assert table.loc[way, "mean"] == pytest.approx(accuracy.mean())
        variance = accuracy * (1 - accuracy) / SIZES
        assert table.loc[way, "standard_error"] == pytest.approx(np.sqrt(variance.sum()) / 3)


def test_the_best_way_is_that_of_the_mean_and_not_of_the_worst_group():
    table = pd.DataFrame(
        {"worst_group": [0.7, 0.3], "mean": [0.8, 0.9], "standard_error": [0.03, 0.03]},
        index=["last layer", "network"],
    )
    assert Ways.best(None, table) == "network"
    table["mean"] = [0.9, 0.8]
    assert Ways.best(None, table) == "last layer"


class Head:
    """A LastLayerRetrainer that notes what it is made with and trained on."""

    made: ClassVar = []

    def __init__(self, **params):
        self.params = params
        self.made.append(self)

    def _train_network(self, module, data, runtime, seeds):
        return [], None

    def _train(self, module, data, runtime, seeds):
        self.rows = data.train.rows
        return SimpleNamespace(module=module)


@pytest.mark.parametrize(
    ("chosen", "way", "level", "is_weighted", "is_gentle"),
    [
        ("classes", "head", "large", True, False),
        ("classes", "last layer", "small", True, False),
        ("views", "last layer", "small", True, True),  # little to recover from a fitted network
        ("views", "last layer", "large", False, False),
        ("views", "head", "small", False, False),  # was not fitted to these samples
    ],
)
def test_heads_of_the_ways(monkeypatch, chosen, way, level, is_weighted, is_gentle):
    """Weighted heads are trained on all samples, balanced draws are of the sure ones."""
    monkeypatch.setattr(_auto_ways, "LastLayerRetrainer", Head)
    data = Data(Rows(np.arange(6), torch.tensor([0, 1, 2] * 2)))
    sure = np.array([0, 2, 5])
    ways = Ways(BaseTorchClassifier(), chosen, level, data, None, (0, 1), sure_rows=sure)
    ways.train(way, nn.Linear(1, 2), data)
    head = Head.made[-1]
    assert head.params["retrain_on"] == "train"
    assert (head.params.get("balance"), head.params.get("penalty")) == (
        ("weights", "l2") if is_weighted else (None, None)
    )
    assert (max(head.params.get("Cs", [1.0])) < 0.1) == is_gentle  # the usual ones reach 1
    assert head.rows.tolist() == (list(range(6)) if is_weighted else sure.tolist())


@pytest.mark.parametrize(
    ("recovered", "standard_error", "gap", "level"),
    [
        (0.019, 0.0, 0.3, "none"),
        (0.021, 0.0, 0.3, "small"),
        (0.05, 0.026, 0.3, "none"),
        (0.05, 0.024, 0.3, "small"),
        (0.24, 0.01, 0.58, "small"),
        (0.26, 0.01, 0.3, "large"),
        (0.05, 0.01, 0.62, "large"),
        (0.01, 0.0, 0.9, "none"),
    ],
)
def test_levels_by_hand(monkeypatch, recovered, standard_error, gap, level):
    """Two classes of 100 samples, of each of which the nuisance is wrong about the second half."""
    code, is_wrong = np.repeat([0, 1], 100), np.tile(np.repeat([False, True], 50), 2)
    is_hit = np.ones(200, dtype=bool)
    is_hit[50 : 50 + round(50 * gap)] = is_hit[150 : 150 + round(50 * gap)] = False
    none = np.zeros(2)
    found = Recovery(is_wrong, is_hit, none, none, recovered, 0.0, standard_error, 1.0)
    monkeypatch.setattr(_effect, "recovery_tests", lambda *args, **named: [found])
    effect = _effect.effect_of(np.zeros((200, 1)), code, np.eye(2)[code])
    assert effect.level == level
    assert effect.accuracy_right == 1.0
    assert effect.accuracy_wrong == pytest.approx(1.0 - gap)
    assert effect.wrong_share == 0.5


def test_a_way_must_be_better_than_plain_training_by_its_standard_error():
    def table(last, network, plain):
        rows = {"last layer": last, "network": network, "plain": plain}
        columns = {"mean": rows, "standard_error": dict.fromkeys(rows, 0.03)}
        return pd.DataFrame(columns)

    assert Ways.best(None, table(0.90, 0.91, 0.88)) == "plain"
    assert Ways.best(None, table(0.90, 0.95, 0.88)) == "network"  # the other is in doubt
    assert Ways.best(None, table(0.94, 0.95, 0.88)) == "last layer"
    assert Ways.best(None, table(0.92, 0.80, 0.88)) == "last layer"


def test_views_that_say_nothing_have_no_effect():
    code = np.repeat([0, 1], 100)
    Z = np.random.default_rng(0).normal(size=(200, 2)) + code[:, None]
    effect = _effect.effect_of(Z, code, np.full((200, 2), 0.5))
    assert effect.level == "none"
    assert (effect.recovered, effect.lost, effect.wrong_share) == (0.0, 0.0, 0.0)
    assert np.isnan([effect.accuracy_right, effect.accuracy_wrong]).all()


@pytest.mark.parametrize("chosen", ["plain", "classes", "jury"])
def test_labels_are_those_of_the_chosen_groups(monkeypatch, chosen):
    """Of the jury where nothing is balanced; it alone is unsure of some samples."""
    monkeypatch.setattr(
        _auto_choice, "effect_of", lambda *args, **named: SimpleNamespace(level="large")
    )
    monkeypatch.setattr(_auto_choice, "best_candidate", lambda *args: chosen)
    rng = np.random.default_rng(0)
    y, place = rng.integers(2, size=(2, 600))
    X, jury = rng.normal(size=(600, 3)) + np.stack([y, place, y], axis=1), 2 * y + place
    margin = np.where(np.arange(600) % 2, 1.0, 1e-3)
    said = np.eye(2)[place]
    choice = _auto_choice.choose(X, y, jury, margin, said, seed=0, names=["classes", "jury"])
    assert choice.chosen == chosen
    assert np.array_equal(choice.labels, y if chosen == "classes" else jury)
    assert choice.is_sure.all() == (chosen != "jury")
    assert choice.table.index.tolist() == ["plain", "classes", "jury"]
