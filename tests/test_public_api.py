"""What is public: names that import, in one order, and an import without side effects."""

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys

import pytest
from registry import ENTRIES

import skspurious

FAMILIES = [
    "skspurious.datasets",
    "skspurious.embedding",
    "skspurious.functional",
    "skspurious.group_inference",
    "skspurious.inspection",
    "skspurious.metrics",
    "skspurious.mitigation",
    "skspurious.model_selection",
    "skspurious.views",
]


def modules_with_all():
    names = ["skspurious"]
    names += [m.name for m in pkgutil.walk_packages(skspurious.__path__, "skspurious.")]
    return [n for n in names if hasattr(importlib.import_module(n), "__all__")]


def _reference_sort(names):
    """CONSTANTS, then Classes, then the rest; numbers inside names by their value."""

    def key(name):
        if re.fullmatch(r"[A-Z0-9_]*[A-Z][A-Z0-9_]+", name):
            rank = 0
        else:
            rank = 1 if name[0].isupper() else 2
        return rank, [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]

    return sorted(names, key=key)


@pytest.mark.parametrize("name", modules_with_all())
def test_all_is_sorted_without_duplicates_and_importable(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == _reference_sort(set(module.__all__))
    namespace = {}
    exec(f"from {name} import *", namespace)
    assert set(module.__all__) <= set(namespace)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_all_and_a_docstring(name):
    family = importlib.import_module(name)
    assert family.__all__
    summary, *more = family.__doc__.splitlines()
    assert summary.endswith(".")
    assert not more or more[0] == "", "one line, then perhaps a paragraph"


def test_functional_has_what_others_can_use_and_no_more():
    """Each name is a promise: the steps of an algorithm stay in their private modules."""
    assert 15 <= len(skspurious.functional.__all__) <= 25


def test_names_of_the_top_level():
    """The estimators are in the registry; what else is there is a promise too."""
    others = {
        "GroupedData",
        "__version__",
        "group_report",
        "load_model",
        "make_sample_group",
        "save_model",
        "worst_group_accuracy",
        "worst_group_scorer",
    }
    assert set(skspurious.__all__) - {entry.name for entry in ENTRIES} == others


def test_names_of_the_top_level_are_the_objects_of_their_families():
    homes = [
        importlib.import_module(n) for n in [*FAMILIES, "skspurious.data", "skspurious.persistence"]
    ]
    for name in skspurious.__all__:
        if name == "__version__":
            continue
        found = [getattr(home, name) for home in homes if name in home.__all__]
        assert found, f"{name} is in no family"
        assert all(value is getattr(skspurious, name) for value in found)


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?([ab]\d+|rc\d+|\.dev\d+)?", skspurious.__version__)


@pytest.mark.parametrize("name", modules_with_all())
def test_public_functions_and_classes_have_docstrings(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public}"


def test_import_has_no_side_effects():
    """Nothing printed, seeded or configured; plotting and texts load only when they are used."""
    script = """
import json, sys, warnings
import numpy, sklearn, torch
numpy.random.seed(0); torch.manual_seed(0)
before = (sklearn.get_config(), torch.get_num_threads(), torch.get_default_dtype(),
          torch.are_deterministic_algorithms_enabled(), warnings.filters[:])
numpy_before, torch_before = numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
import skspurious
after = (sklearn.get_config(), torch.get_num_threads(), torch.get_default_dtype(),
         torch.are_deterministic_algorithms_enabled(), warnings.filters[:])
print(json.dumps({
    "unchanged": [a == b for a, b in zip(before, after)],
    "numpy": numpy.random.get_state()[1].tolist() == numpy_before,
    "torch": torch.get_rng_state().tolist() == torch_before,
    "heavy": sorted({"matplotlib", "transformers", "umap", "faiss"} & set(sys.modules)),
}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    report = json.loads(result.stdout)  # one line: nothing else was printed
    assert result.stderr == ""
    assert report["unchanged"][:4] == [True] * 4
    assert report["numpy"]
    assert report["torch"]
    assert report["heavy"] == []
