"""Two processes equal one, to floating-point reordering."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from numpy.testing import assert_allclose

import skspurious

SCRIPT = Path(__file__).with_name("two_processes.py")
CASES = runpy.run_path(str(SCRIPT))  # its functions, for the one process

pytestmark = [
    pytest.mark.fidelity,
    pytest.mark.skipif(
        not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
        reason="torch was built without gloo",
    ),
]


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Results of both processes by case, and what they printed: one launch for all tests."""
    folder = tmp_path_factory.mktemp("two_processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(SCRIPT), str(folder)]
    root = str(Path(skspurious.__file__).parents[1])
    env = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    return *ranks, done.stderr


def _assert_same(two, one, **tolerance):
    for name, value in one["module"].items():
        assert_allclose(two["module"][name], value, err_msg=name, **tolerance)
    assert list(two["history"]) == list(one["history"])
    for name, column in one["history"].items():
        assert_allclose(two["history"][name], column, err_msg=name, **tolerance)
    assert_allclose(two["group_weights"], one["group_weights"], **tolerance)
    assert two["best_epoch"] == one["best_epoch"]
    assert_allclose(two["predict_proba"], one["predict_proba"], **tolerance)


@pytest.mark.parametrize("name", CASES["FITS"])
def test_two_processes_equal_one(name, launch):
    first, second, _ = launch
    one = CASES["learned"](CASES["fit"](name))
    _assert_same(first[name], one, rtol=1e-4, atol=1e-6)
    _assert_same(second[name], first[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES["STAGED"])
def test_two_processes_equal_one_through_all_stages(name, launch):
    first, second, _ = launch
    _assert_same(second[name], first[name], rtol=0, atol=0)
    if name == "prusc":  # each process draws its own masks, as it does its own augmentation
        return
    one = CASES["learned"](CASES["fit_staged"](name))
    _assert_same(first[name], one, rtol=1e-4, atol=1e-6)


def test_early_stopping_stops_both_processes_before_the_end(launch):
    first, second, _ = launch
    epochs = first["erm-early-stopping"]["history"]["epoch"]
    assert epochs == second["erm-early-stopping"]["history"]["epoch"]
    assert 2 < len(epochs) < 20


def test_two_processes_resume_with_the_same_bits(launch):
    for results in launch[:2]:
        _assert_same(results["resumed"], results["dro-sampling"], rtol=0, atol=0)


def test_two_processes_share_the_rows_also_without_a_seed(launch):
    first, second, _ = launch
    rows = first["rows-without-a-seed"] + second["rows-without-a-seed"]
    assert sorted(rows) == list(range(100))


def test_two_processes_end_with_the_same_batch_statistics(launch):
    first, second, _ = launch
    _assert_same(second["batch-norm"], first["batch-norm"], rtol=0, atol=0)


def test_two_processes_share_the_rows_of_recalibration(launch):
    first, second, _ = launch
    one = CASES["recalibrated"]()
    assert len(one) == 4
    for name, value in one.items():
        assert torch.equal(first["recalibrated"][name], second["recalibrated"][name])
        # float32 inputs of the norms, in batches of other rows; the sums are in float64
        assert_allclose(first["recalibrated"][name], value, rtol=1e-5, atol=1e-6)


def test_fewer_validation_rows_than_processes(launch):
    one = CASES["learned"](CASES["_one_validation_row"]())
    for results in launch[:2]:
        _assert_same(results["one-validation-row"], one, rtol=1e-4, atol=1e-6)


def test_fits_of_a_parallel_search_are_each_of_one_process(launch):
    """They run side by side, in an order of their own, so they must not wait for each other."""
    one = CASES["searched"](n_jobs=1)
    for results in launch[:2]:
        found = results["parallel-search"]
        assert_allclose(found["scores"], one["scores"], rtol=0, atol=0)
        _assert_same(found, one, rtol=1e-4, atol=1e-6)


def test_processes_draw_their_own_augmentation(launch):
    first, second, _ = launch
    assert not torch.equal(first["noise"], second["noise"])


def test_one_progress_bar_for_all_processes(launch):
    *_, printed = launch
    assert printed.count("| 0/4 [") == 1
