"""Heads on real Waterbirds embeddings: what the benchmark of that name chose on validation.

The bounds leave room for other seeds and versions; the figures are in benchmarks/README.md.
"""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    worst_group_accuracy,
)
from skspurious.data import make_sample_group

FULL_BATCH = {"lr": 0.01, "batch_size": 8192, "device": "cpu", "random_state": 0}


@pytest.fixture(scope="module")
def waterbirds(real_data):
    """Standardised embeddings, labels and groups of the three splits."""
    path = real_data / "waterbirds" / "waterbirds_efficientnet_lite0.npz"
    if not path.is_file():
        pytest.skip(f"no Waterbirds embeddings at {path}")
    with np.load(path) as file:
        Z = file["q"].astype(np.float32) * file["scale"]
        y, place, split = file["y"], file["place"], file["split"]
    scaler = StandardScaler().fit(Z[split == 0])
    group = make_sample_group(y, place)
    return [(scaler.transform(Z[split == i]), y[split == i], group[split == i]) for i in range(3)]


def _worst(clf, waterbirds):
    Z, y, group = waterbirds[2]
    return worst_group_accuracy(y, clf.predict(Z), sample_group=group)


def test_plain_training_fails_on_a_group(waterbirds):
    Z, y, _ = waterbirds[0]
    clf = ERMClassifier(weight_decay=0.3, max_epochs=100, **FULL_BATCH).fit(Z, y)
    assert _worst(clf, waterbirds) < 0.6


@pytest.mark.parametrize(
    "clf",
    [
        GroupDROClassifier(
            balance=None, step_size=0.3, weight_decay=1.0, max_epochs=10, **FULL_BATCH
        ),
        BalancedRetrainer(weight_decay=4.0, max_epochs=10, **FULL_BATCH),
    ],
    ids=["GroupDRO", "balanced"],
)
def test_known_groups(waterbirds, clf):
    Z, y, group = waterbirds[0]
    assert _worst(clf.fit(Z, y, sample_group=group), waterbirds) > 0.79


def test_dfr_on_validation_samples(waterbirds):
    Z, y, group = waterbirds[1]
    grid = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
    clf = LastLayerRetrainer(random_state=0, device="cpu", penalty="l2", Cs=grid)
    assert _worst(clf.fit(Z, y, sample_group=group), waterbirds) > 0.86


def test_nsf_on_validation_samples_needs_no_group_label(waterbirds):
    Z, y, _ = waterbirds[1]
    clf = NSFClassifier(transform_steps=10, random_state=0, device="cpu").fit(Z, y)
    assert clf.used_group_labels_ == {"train": False, "validation": False}
    assert _worst(clf, waterbirds) > 0.78
