"""The page about methods of one's own: its code runs, and its method keeps what all must keep."""

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from skspurious.datasets import make_spurious_classification
from skspurious.extend import check_method

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
FILES = {
    match[1]: block
    for block in BLOCKS
    if (match := re.match(r"# ((?:tests|skspurious)/\S+\.py)\n", block))
}
METHOD, TEST = "skspurious/mitigation/_focal.py", "tests/mitigation/test_focal.py"
REGISTRY, FAMILY = "tests/common/registry.py", "skspurious/mitigation/__init__.py"
FAST = {"lr": 0.1, "max_epochs": 10, "batch_size": 16, "random_state": 0}
SPLIT = {"check_sample_weight_equivalence_on_dense_data": "copies fall into different batches"}


@pytest.fixture(scope="module")
def page():
    """The page as a module, so that what it defines can be pickled."""
    module = types.ModuleType("page_about_extending")
    sys.modules[module.__name__] = module
    for block in BLOCKS:
        if block not in (FILES[TEST], FILES[REGISTRY]):
            exec(compile(block, "docs/extending.md", "exec"), vars(module))
    yield module
    del sys.modules[module.__name__]


def test_the_search_of_the_page_is_the_one_it_describes(page):
    assert page.search.best_params_["gamma"] in (0, 2)
    assert page.search.best_estimator_.groups_.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["ClassBalancedClassifier", "SecondLookClassifier"])
def test_the_other_methods_of_the_page_keep_what_is_promised(page, name):
    check_method(getattr(page, name)(**FAST), expected_failed_checks=SPLIT)


def test_a_larger_gamma_leaves_sure_samples_out(page):
    data = make_spurious_classification(300, random_state=0)
    plain, focal = (
        page.FocalClassifier(gamma=gamma, **FAST)
        .fit(data.data, data.target)
        .predict_proba(data.data)
        for gamma in (0, 4)
    )
    assert np.abs(focal - 0.5).mean() < np.abs(plain - 0.5).mean() - 0.02


def test_the_method_has_about_thirty_lines_of_code():
    code = re.sub(r'"""(.|\n)*?"""', "", FILES[METHOD])
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 30


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository into which the method was brought, at the places that are named."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("skspurious", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    for name in (METHOD, TEST):
        (folder / name).write_text(FILES[name], encoding="utf-8")
    family = (folder / FAMILY).read_text(encoding="utf-8")
    line = "from skspurious.mitigation._focal import FocalClassifier\n"
    family = family.replace(
        "from skspurious.mitigation._geo", line + "from skspurious.mitigation._geo"
    )
    after = '    "ERMClassifier",\n'
    family = family.replace(after, f'{after}    "FocalClassifier",\n')
    assert family.count("FocalClassifier") == 2
    (folder / FAMILY).write_text(family, encoding="utf-8")
    registry = (folder / REGISTRY).read_text(encoding="utf-8")
    entry = FILES[REGISTRY].partition("\n")[2].strip()
    head = "ENTRIES = [\n"
    assert head in registry
    source = "from skspurious.mitigation import FocalClassifier\n\n" + head + entry + ",\n"
    (folder / REGISTRY).write_text(registry.replace(head, source), encoding="utf-8")
    return folder


def run_pytest(folder, *args):
    """The last lines of a run of the copy's tests."""
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    result = subprocess.run(
        [*command, *args], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout[-4000:]


@pytest.mark.slow  # another run of pytest
def test_four_places_suffice_for_all_common_suites(checkout):
    suites = ["common", "contract", "docs", "persistence", "text_and_tables", "public_api"]
    files = [f"tests/test_{name}.py" for name in suites]
    names = "FocalClassifier or focal or registry or top_level or sorted"
    status, output = run_pytest(checkout, *files, TEST, "-k", names)
    assert status == 0, output
    n_passed = int(re.search(r"(\d+) passed", output)[1])
    assert n_passed > 150


@pytest.mark.slow
def test_a_method_that_is_not_in_the_registry_is_missed(checkout):
    registry = checkout / REGISTRY
    complete = registry.read_text(encoding="utf-8")
    entry = FILES[REGISTRY].partition("\n")[2].strip()
    registry.write_text(complete.replace(entry + ",\n", ""), encoding="utf-8")
    status, output = run_pytest(checkout, "tests/test_common.py", "-k", "in_the_registry")
    registry.write_text(complete, encoding="utf-8")
    assert status == 1
    assert "FocalClassifier" in output
