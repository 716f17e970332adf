"""The house: one truth per fact, in the files around the code."""

import importlib.metadata
import importlib.resources
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import skspurious

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def _lint_pins():
    extra = PYPROJECT["project"]["optional-dependencies"]["lint"]
    return dict(requirement.split("==") for requirement in extra if "==" in requirement)


# ---------------------------------------------------------------- version


def test_version_is_written_once():
    version = skspurious.__version__
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PYPROJECT["project"]
    assert "version" not in _read("setup.cfg")
    sources = [p for p in (ROOT / "skspurious").rglob("*.py") if p.name != "_version.py"]
    assert not [p for p in sources if re.search(rf"[\"']{re.escape(version)}[\"']", p.read_text())]


def test_version_is_that_of_the_installed_metadata():
    try:
        installed = importlib.metadata.version("skspurious")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed: run from a source tree")
    assert installed == skspurious.__version__


def test_changelog_starts_with_this_version():
    headings = re.findall(r"^## (.+)$", _read("CHANGELOG.md"), flags=re.MULTILINE)
    assert headings[0].split()[0] == skspurious.__version__


def test_changelog_entries_are_of_the_four_kinds():
    kinds = set(re.findall(r"^### (.+)$", _read("CHANGELOG.md"), flags=re.MULTILINE))
    assert kinds <= {"New", "Changed", "Fixed", "Deprecated"}


# ---------------------------------------------------------------- packaging


def test_py_typed_is_packaged():
    assert importlib.resources.files("skspurious").joinpath("py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["skspurious"]


def test_every_folder_with_code_is_a_package():
    """A folder without __init__.py would be a namespace package, open to other distributions."""
    folders = {path.parent for path in (ROOT / "skspurious").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_license_is_the_declared_one():
    text = _read("LICENSE")
    assert PYPROJECT["project"]["license"] == "BSD-3-Clause"
    assert text.startswith("BSD 3-Clause License")
    assert "Copyright (c) 2026, The skspurious developers" in text
    assert all(f"\n{clause}. " in text for clause in (1, 2, 3))


def test_test_file_names_are_unique():
    """Test folders are no packages, so two files of one name would be hard to tell apart."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


# ---------------------------------------------------------------- tools


def test_pre_commit_pins_are_those_of_the_lint_extra():
    rev = re.search(r"ruff-pre-commit\n\s+rev: v(\S+)", _read(".pre-commit-config.yaml"))
    assert rev.group(1) == _lint_pins()["ruff"]


def test_pre_commit_runs_the_mypy_of_the_lint_extra():
    assert "mypy" in _lint_pins()
    assert "mirrors-mypy" not in _read(".pre-commit-config.yaml")
    assert "entry: .venv/bin/python -m mypy" in _read(".pre-commit-config.yaml")


def test_line_length_is_the_same_everywhere():
    length = PYPROJECT["tool"]["ruff"]["line-length"]
    assert f"max-line-length = {length}" in _read("setup.cfg")


def test_ci_runs_the_documented_commands_and_tests_come_last():
    lines = [line for line in _read(".ci/run").splitlines() if line and not line.startswith("#")]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["make lint", "make test"]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


PYTEST = "-m pytest -n logical --maxprocesses 8 --dist loadscope"


def _make(*args, folder):
    command = ["make", "--no-print-directory", *args]
    # Nothing of an outer make, which exports its flags and variables.
    env = {key: os.environ[key] for key in ("HOME", "PATH") if key in os.environ}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, env=env
    )


@needs_make
def test_make_help_names_every_target():
    targets = re.search(r"^\.PHONY: (.+)$", _read("Makefile"), flags=re.MULTILINE).group(1)
    result = _make(folder=ROOT)
    assert result.returncode == 0
    assert {"demo", "test", "test-kernels", "lint", "clean"} <= set(targets.split())
    assert all(f"make {target} " in result.stdout for target in targets.split())


@pytest.fixture
def fake_house(tmp_path):
    """The Makefile with a Python that makes an environment whose pip notes its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "skspurious/_version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    inner = tmp_path / "inner"
    inner.write_text('#!/bin/sh\necho "$@" >> calls\ntest ! -e pip-fails || test "$2" != pip\n')
    outer = tmp_path / "outer"
    outer.write_text(
        '#!/bin/sh\nif [ "$1" = -m ]; then mkdir -p "$3/bin"; cp inner "$3/bin/python"; '
        f'else exec {sys.executable} "$@"; fi\n'
    )
    inner.chmod(0o755)
    outer.chmod(0o755)
    return tmp_path


@needs_make
def test_make_test_installs_once_and_passes_arguments_on(fake_house):
    for _ in range(2):
        assert _make("test", "PYTHON=./outer", "ARGS=-k one", folder=fake_house).returncode == 0
    assert (fake_house / "calls").read_text().splitlines() == [
        "-m pip install -q --disable-pip-version-check -e .[test]",
        f"{PYTEST} -k one",
        f"{PYTEST} -k one",
    ]


@needs_make
def test_make_test_kernels_runs_the_script_with_the_arguments(fake_house):
    result = _make("test-kernels", "PYTHON=./outer", "ARGS=--only seed-1 -x", folder=fake_house)
    assert result.returncode == 0
    workers = PYTEST.removeprefix("-m pytest ")
    calls = (fake_house / "calls").read_text().splitlines()
    assert calls[-1] == f"tests/kernels.py {workers} --only seed-1 -x"


def test_kernels_skips_what_the_processor_lacks_and_counts_failures(tmp_path, capsys, monkeypatch):
    kernels = runpy.run_path(str(ROOT / "tests/kernels.py"))
    assert kernels["lacks"]("AVX512", "AVX2") == "this processor lacks AVX512"
    assert kernels["lacks"]("AVX2", "AVX512") == kernels["lacks"]("", "DEFAULT") == ""
    (tmp_path / "test_seed.py").write_text(
        "import os\n\ndef test_seed():\n    assert os.environ['SKSPURIOUS_TEST_SEED'] == '1'\n"
    )
    arguments = ["kernels.py", "--only", "seed-1,seed-2", "-c", os.devnull, str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert kernels["main"]() == 1
    passed, failed, name = capsys.readouterr().out.strip().splitlines()
    assert passed.split()[:4] == ["passed", "seed-1", "1", "passed;"]
    assert failed.split()[:4] == ["FAILED", "seed-2", "1", "failed;"]
    assert name.strip().startswith("FAILED")
    assert "test_seed" in name


@needs_make
def test_make_installs_again_when_the_metadata_change(fake_house):
    _make("lint", "PYTHON=./outer", folder=fake_house)
    stamp = fake_house / ".venv/.stamp-lint"
    newer = stamp.stat().st_mtime + 10
    os.utime(fake_house / "pyproject.toml", (newer, newer))
    _make("lint", "PYTHON=./outer", folder=fake_house)
    calls = (fake_house / "calls").read_text().splitlines()
    assert sum("pip install" in call for call in calls) == 2
    assert calls[-3:] == ["-m ruff check .", "-m ruff format --check .", "-m mypy"]


@needs_make
def test_make_fails_when_pip_fails_and_tries_again(fake_house):
    (fake_house / "pip-fails").touch()
    for _ in range(2):
        assert _make("test", "PYTHON=./outer", folder=fake_house).returncode != 0
    assert "pytest" not in (fake_house / "calls").read_text()
    (fake_house / "pip-fails").unlink()
    assert _make("test", "PYTHON=./outer", folder=fake_house).returncode == 0
    assert (fake_house / "calls").read_text().splitlines()[-1] == PYTEST


@needs_make
def test_make_refuses_an_old_python(fake_house):
    old = fake_house / "old"
    old.write_text('#!/bin/sh\nif [ "$1" = -V ]; then echo Python 3.10.9; else exit 1; fi\n')
    old.chmod(0o755)
    result = _make("test", "PYTHON=./old", folder=fake_house)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer. PYTHON=./old" in result.stderr
    assert "Python 3.10.9" in result.stderr
    assert "make test PYTHON=" in result.stderr
    assert not (fake_house / ".venv").exists()
