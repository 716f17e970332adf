"""docs/fidelity.md has every method, its tests exist and are marked, and its presets are there."""

import re
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator, clone

import skspurious
import skspurious.mitigation

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _rows(text, heading):
    """Cells of the table below a heading, without its two head lines."""
    part = text.partition(heading)[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


METHODS = _rows(PAGE, "# Fidelity")
PRESETS = {row[0].strip("`"): row[1].split(", ") for row in _rows(PAGE, "## Presets")}


def methods():
    """Public names of methods: the classifiers, the pruner and the compositions."""
    return skspurious.mitigation.__all__


def test_every_method_has_a_row():
    named = {name for row in METHODS for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(methods())


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row[0])
def test_the_tests_of_a_row_exist_and_are_marked(row):
    assert len(row) == 5
    assert all(row)
    files = re.findall(r"`(tests/[\w/]+\.py)`", row[4])
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    assert files
    # Plain training has no card of properties of its own.
    assert "ERM" in row[0] or any("mark.fidelity" in text for text in texts)


def test_every_fidelity_test_is_named():
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "@pytest.mark.fidelity" in path.read_text(encoding="utf-8")
        or "pytestmark = pytest.mark.fidelity" in path.read_text(encoding="utf-8")
    }
    shared = {  # of several methods
        "tests/embedding/test_extractor.py",
        "tests/engine/test_checkpoint.py",
        "tests/functional/test_environments.py",
        "tests/group_inference/test_annotations.py",
        "tests/group_inference/test_dispersion_groups.py",
        "tests/group_inference/test_eiil_groups.py",
        "tests/group_inference/test_error_groups.py",
        "tests/group_inference/test_group_inferrer.py",
        "tests/group_inference/test_semi_supervised.py",
        "tests/metrics/test_metrics_groups.py",
        "tests/docs/test_fidelity.py",
    }
    assert marked <= shared | set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))


@pytest.mark.parametrize("name", methods())
def test_presets_are_those_of_the_page(name):
    made = getattr(skspurious, name)
    if name == "SpuriousSamplePruner":
        assert name not in PRESETS  # PrunedRetrainer has them
        return
    presets = made._presets
    assert sorted(presets) == sorted(PRESETS.get(name, []))
    for preset, params in presets.items():
        estimator = made.preset(preset, module=params.get("module", "resnet18"), random_state=3)
        assert isinstance(estimator, BaseEstimator)
        assert estimator.random_state == 3
        estimator._validate_params()
        values = clone(estimator).get_params()
        for key, value in params.items():
            if isinstance(value, BaseEstimator):
                assert repr(values[key]) == repr(value)
            else:
                assert values[key] == value


def test_presets_by_hand():
    """Some settings, typed again from the papers and repositories."""
    dro = skspurious.GroupDROClassifier.preset("waterbirds")
    assert (dro.lr, dro.weight_decay, dro.batch_size, dro.max_epochs) == (1e-5, 1.0, 128, 300)
    assert (dro.adjustment, dro.balance, dro.module) == (2.0, "sampling", "resnet50")
    jtt = skspurious.JTTClassifier.preset("celeba")
    assert (jtt.init_epochs, jtt.up_weight, jtt.max_epochs) == (1, 50, 50)
    dfr = skspurious.LastLayerRetrainer.preset("waterbirds")
    assert (dfr.lr, dfr.weight_decay, dfr.batch_size, dfr.max_epochs) == (1e-3, 1e-3, 32, 100)
    nsf = skspurious.NSFClassifier.preset("celeba")
    assert (nsf.transform_steps, nsf.head_steps, nsf.identify_on) == (350, 110, "validation")
    spare = skspurious.SPAREClassifier.preset("waterbirds")
    assert (spare.lr, spare.weight_decay, spare.max_epochs) == (1e-4, 0.1, 300)
    first = spare.first_stage
    assert (first.lr, first.weight_decay, first.max_epochs) == (1e-3, 1e-4, 1)


# Learning rate, weight decay, batch size and epochs, typed again.
NUMBERS = {
    ("GroupDROClassifier", "celeba"): (1e-5, 0.1, 128, 50),
    ("ERMClassifier", "waterbirds"): (1e-3, 1e-4, 128, 300),
    ("ERMClassifier", "celeba"): (1e-4, 1e-4, 128, 50),
    ("BalancedRetrainer", "waterbirds"): (1e-5, 1.0, 2, 360),
    ("BalancedRetrainer", "celeba"): (1e-5, 0.1, 2, 60),
    ("SPAREClassifier", "spuco_mnist"): (1e-3, 1e-2, 32, 20),
    ("SPAREClassifier", "spuco_animals"): (1e-4, 0.1, 128, 100),
    ("GEORGEClassifier", "waterbirds"): (1e-5, 1.0, 128, 300),
    ("GEORGEClassifier", "u-mnist"): (2e-3, 1e-5, 128, 100),
    ("GEORGEClassifier", "isic"): (5e-4, 1e-3, 16, 20),
    ("GEORGEClassifier", "celeba"): (1e-5, 0.1, 128, 50),
    ("JTTClassifier", "waterbirds"): (1e-5, 1.0, 64, 300),
    ("JTTClassifier", "celeba"): (1e-5, 0.1, 64, 50),
    ("JTTClassifier", "civilcomments"): (1e-5, 0.01, 16, 3),
    ("LastLayerRetrainer", "celeba"): (1e-3, 1e-4, 128, 50),
    ("AFRClassifier", "waterbirds"): (3e-3, 1e-4, 32, 40),
    ("NSFClassifier", "waterbirds"): (3e-3, 1e-4, 32, 100),
    ("NSFClassifier", "celeba"): (3e-3, 1e-4, 100, 20),
    ("NSFClassifier", "chexpert"): (3e-3, 1e-4, 100, 20),
    ("NSFClassifier", "multinli"): (1e-5, 1e-4, 16, 10),
    ("NSFClassifier", "civilcomments"): (1e-5, 1e-4, 16, 10),
    ("PrunedRetrainer", "celeba"): (1e-3, 1e-4, 64, 25),
    ("PrunedRetrainer", "cifar10s"): (0.1, 1e-4, 64, 160),
}


@pytest.mark.parametrize(("name", "preset"), NUMBERS)
def test_numbers_of_presets(name, preset):
    params = getattr(skspurious, name)._presets[preset]
    made = getattr(skspurious, name).preset(preset, module=params.get("module", "resnet18"))
    found = made.lr, made.weight_decay, made.batch_size, made.max_epochs
    assert found == NUMBERS[name, preset]


def test_numbers_of_presets_that_a_method_has_alone():
    def of(name, preset, *params):
        values = getattr(skspurious, name)._presets[preset]
        return tuple(values[param] for param in params)

    steps = {"waterbirds": (10, 500), "multinli": (1200, 1500), "civilcomments": (300, 100)}
    steps["chexpert"] = (650, 10000)
    for preset, expected in steps.items():
        assert of("NSFClassifier", preset, "transform_steps", "head_steps") == expected
    assert of("GEORGEClassifier", "waterbirds", "adjustment", "balance") == (2.0, "sampling")
    assert of("GEORGEClassifier", "celeba", "adjustment", "balance") == (3.0, "sampling")
    assert of("JTTClassifier", "waterbirds", "init_epochs", "up_weight") == (60, 100)
    assert of("PrunedRetrainer", "celeba", "score_epochs") == (10,)
    assert of("PrunedRetrainer", "cifar10s", "score_epochs") == (9,)
    assert of("PruSCNetwork", "waterbirds", "n_clusters") == (16,)
    assert of("PruSCNetwork", "isic", "n_clusters") == (8,)
    assert of("PruSCNetwork", "celeba", "sparsity_weight") == (5e-8,)
    first = skspurious.GEORGEClassifier.preset("isic").first_stage
    assert (first.lr, first.weight_decay, first.batch_size) == (1e-3, 1e-3, 16)


def test_a_preset_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"no preset 'birds'; it has .*'waterbirds'"):
        skspurious.GroupDROClassifier.preset("birds")
    with pytest.raises(ValueError, match=r"preset\('multinli', module=\.\.\.\)"):
        skspurious.GroupDROClassifier.preset("multinli")


def test_presets_do_not_share_what_they_hold():
    first = skspurious.SPAREClassifier.preset("waterbirds")
    first.first_stage.lr = 7.0
    assert skspurious.SPAREClassifier.preset("waterbirds").first_stage.lr == 1e-3


def test_the_readme_has_every_method():
    rows = [row for row in _rows(README, "## Methods") if len(row) == 6]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[2])}
    assert set(methods()) <= named
