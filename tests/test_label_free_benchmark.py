"""The benchmark without group labels: what it plants, that it resumes, and the page it writes."""

import argparse
import importlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark_files(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("label_free"), importlib.import_module("label_free_data")


# ---------------------------------------------------------------- planted pictures


def grey(n=400):
    return np.full((n, 3, 32, 32), 100, dtype=np.uint8)


@pytest.mark.parametrize("name", ["square", "stripes", "blur", "gradient", "jpeg", "colours"])
def test_a_shortcut_agrees_with_the_class_as_often_as_asked(benchmark_files, name):
    _, data = benchmark_files
    n_classes = len(data.PLANTED[name][1])
    y = np.repeat(np.arange(n_classes), 300)
    X = grey(len(y))

    _, group = data.plant(name, X, y, 0.9, np.random.default_rng(0))
    _, again = data.plant(name, X, y, 0.9, np.random.default_rng(0))
    _, independent = data.plant(name, X, y, 1 / n_classes, np.random.default_rng(0))

    np.testing.assert_array_equal(group, again)
    assert (X == 100).all()  # a copy is changed
    size = np.bincount(group)
    assert len(size) == n_classes**2
    # Of 300 pictures of a class 270 agree, within five standard deviations.
    of_aligned = np.sort(size)[-n_classes:]
    assert of_aligned == pytest.approx(np.full(n_classes, 270), abs=5 * 5.2)
    every = np.bincount(independent)
    assert every == pytest.approx(np.full(n_classes**2, 300 / n_classes), abs=5 * 8.7)


def planted(data, name, attribute):
    make = data.PLANTED[name][0]
    return make(grey(), np.full(400, attribute), np.random.default_rng(0))


def test_the_square_is_sixteen_pixels_in_each_of_the_corners(benchmark_files):
    _, data = benchmark_files
    for attribute in (0, 1):
        changed = (planted(data, "square", attribute) != 100).any(axis=1)
        assert (changed.sum(axis=(1, 2)) == 16).all()
        corners = {(int(r.min() > 15), int(c.min() > 15)) for r, c in map(np.nonzero, changed)}
        assert len(corners) == 4


def test_stripes_and_gradients_of_the_two_kinds_mirror_each_other(benchmark_files):
    _, data = benchmark_files
    for name in ("stripes", "gradient"):
        first, second = (planted(data, name, a).astype(int) for a in (0, 1))
        assert np.abs(first - 100).max() <= 25
        assert (first != second).any(axis=(1, 2, 3)).all()
    assert np.abs(first + second - 200).max() <= 1  # a gradient, and the opposite one
    assert (np.diff(second, axis=3) >= 0).all()


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_blurred_and_compressed_pictures_are_those_with_the_attribute(benchmark_files, name):
    _, data = benchmark_files
    X = np.random.default_rng(0).integers(0, 256, size=(20, 3, 32, 32), dtype=np.uint8)
    attribute = np.arange(20) % 2
    changed = data.PLANTED[name][0](X.copy(), attribute, np.random.default_rng(0)) != X
    np.testing.assert_array_equal(changed.any(axis=(1, 2, 3)), attribute == 1)


def test_frames_have_a_colour_for_each_of_five_classes(benchmark_files):
    _, data = benchmark_files
    attribute = np.arange(400) % 5
    X = data.PLANTED["colours"][0](grey(), attribute, np.random.default_rng(0))
    assert (X[:, :, 2:-2, 2:-2] == 100).all()
    colour = X[:, :, 0, 0].astype(int)
    nearest = np.abs(colour[:, None] - data.COLOURS).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, attribute)


# ---------------------------------------------------------------- runs


def toy(data_file, calls):
    def load(seed, data_home, packages):
        calls.append(seed)
        X, y = np.arange(8.0)[:, None], np.array([0, 0, 0, 0, 1, 1, 1, 1])
        group = np.array([0, 0, 0, 1, 2, 3, 3, 3])
        return data_file.Split(X, y, group, X, y, group)

    return load


def constant(bench):
    return DummyClassifier(strategy="constant", constant=0).fit(bench.rows("X"), bench.data.y), {}


def fails(bench):
    raise ValueError("not today")


def args_of(tmp_path, **changes):
    given = {
        "sets": ["toy"],
        "seeds": [0, 1],
        "methods": ["plain", "errors, last layer"],
        "out": tmp_path / "lines.jsonl",
        "again": False,
        "data_home": None,
        "packages": None,
    }
    return argparse.Namespace(**given | changes)


def test_runs_that_have_a_line_are_not_repeated(benchmark_files, monkeypatch, tmp_path, capsys):
    module, data_file = benchmark_files
    calls = []
    sets = {"toy": toy(data_file, calls)}
    monkeypatch.setitem(module.METHODS, "plain", constant)
    monkeypatch.setitem(module.METHODS, "errors, last layer", fails)

    module.run_all(args_of(tmp_path), sets)
    done = module.read(tmp_path / "lines.jsonl")
    assert set(done) == {("toy", "plain", 0), ("toy", "plain", 1)}  # what failed has none
    assert "not today" in capsys.readouterr().out
    row = done["toy", "plain", 0]
    assert (row["worst_group"], row["mean_of_groups"], row["accuracy"]) == (0.0, 0.5, 0.5)
    assert (row["labels"], row["n_train"]) == ("none", 8)

    monkeypatch.setitem(module.METHODS, "errors, last layer", constant)
    monkeypatch.setitem(module.METHODS, "plain", fails)
    module.run_all(args_of(tmp_path), sets)
    assert len(module.read(tmp_path / "lines.jsonl")) == 4
    module.run_all(args_of(tmp_path), sets)
    assert calls == [0, 1, 0, 1]  # nothing was left to do: the data are not even read

    monkeypatch.setitem(module.METHODS, "plain", constant)
    module.run_all(args_of(tmp_path, methods=["plain"], again=True), sets)
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 6
    assert len(module.read(tmp_path / "lines.jsonl")) == 4


def test_a_set_without_its_files_is_left_out(benchmark_files, tmp_path, capsys):
    module, _ = benchmark_files
    module.run_all(args_of(tmp_path, sets=["waterbirds"], data_home=tmp_path), module.SETS)
    assert "waterbirds left out" in capsys.readouterr().out
    assert module.read(tmp_path / "lines.jsonl") == {}


def test_what_methods_share_counts_for_each_of_them(benchmark_files):
    module, _ = benchmark_files
    bench = module.Bench(None, 0)
    bench._pieces["plain"] = "network", 40.0
    assert bench.piece("plain", lambda: "another") == "network"
    assert bench.borrowed == 40.0


def test_precision_and_recall_of_a_minority_that_was_found(benchmark_files):
    module, data_file = benchmark_files
    data = toy(data_file, [])(0, None, None)
    found = np.array([0, 0, 1, 1, 0, 0, 0, 0], dtype=bool)  # one of two true ones, and another
    assert module.minority(data, found) == {"precision": 0.5, "recall": 0.5}
    data.group = data.y  # no attribute
    assert module.minority(data, found) == {}


# ---------------------------------------------------------------- the page


def line(method, seed, worst, **more):
    row = {"set": "waterbirds", "method": method, "seed": seed, "labels": "none"}
    row |= {"worst_group": worst, "mean_of_groups": 0.8, "accuracy": 0.9, "seconds": 12.5}
    row |= {"n_train": 10, "n_test": 20, "cores": 2, "threads": 1, "machine": "x"}
    return {("waterbirds", method, seed): row | more}


def test_the_page_has_means_ranges_and_what_was_not_run(benchmark_files, tmp_path):
    module, _ = benchmark_files
    done = line("plain", 0, 0.25) | line("plain", 1, 0.5)
    done |= line("auto", 0, 0.75, effect="large", chosen="jury")
    done |= line("known groups, last layer", 0, 0.875, labels="train")
    path = tmp_path / "page.md"

    module.write_page(done, path)
    text = path.read_text()
    assert (
        "| plain | none | 0.375 (0.250 to 0.500) | 0.800 (0.800 to 0.800) | "
        "0.900 (0.900 to 0.900) | 12.5 | 2 |"
    ) in text
    assert "| known groups, last layer | train | 0.875 | 0.800 | 0.900 | 12.5 | 1 |" in text
    assert (
        "| waterbirds | 0.375 |  |  |  | 0.750 (1 of 2) |  | 0.875 (1 of 2) | large: jury |" in text
    )
    assert "- iris: nothing was run." in text
    lacking = next(row for row in text.splitlines() if row.startswith("- waterbirds: "))
    assert "JTT" in lacking
    assert "plain" not in lacking

    path.write_text(text + "\nBy hand.\n")
    module.write_page(done | line("JTT", 0, 0.625), path)
    text = path.read_text()
    assert text.count("By hand.") == text.count(module.NOTES) == 1
    assert "| JTT | none | 0.625 |" in text
