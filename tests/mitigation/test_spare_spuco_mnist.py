"""The main job on real digits, shortened; benchmarks/spare_spuco_mnist.py is the full run."""

import importlib.util
from pathlib import Path

import pytest
from sklearn.metrics import adjusted_rand_score

from skspurious import group_report
from skspurious.datasets import fetch_spuco_mnist


@pytest.mark.slow
def test_spare_finds_the_colours_and_lifts_the_worst_group_without_group_labels(real_data):
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "spare_spuco_mnist.py"
    spec = importlib.util.spec_from_file_location("spare_spuco_mnist", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    train, val = (fetch_spuco_mnist(real_data / "mnist", split=s) for s in ("train", "val"))

    spare = benchmark.spare(seed=0).set_params(max_epochs=1)
    spare.fit(train.data, train.target)

    inferrer = spare.group_inferrer_[-1]
    assert inferrer.n_clusters_.tolist() == [5] * 5
    assert adjusted_rand_score(train.sample_group, inferrer.labels_) == pytest.approx(1, abs=1e-3)
    assert spare.used_group_labels_ == {"train": False, "validation": False}
    report = group_report(val.target, spare.predict(val.data), sample_group=val.sample_group)
    assert report.worst_group_accuracy > 0.3  # plain training: 0
