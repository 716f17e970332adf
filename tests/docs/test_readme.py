"""The code in the README and in the guides runs as it stands, block after block."""

import contextlib
import functools
import io
import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/quickstart.md"]


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def _table(text):
    """Accuracies of the groups, the worst group and the average, from a printed group report."""
    rows = re.findall(r"^\d+ +\d+ +(\d\.\d{4})", text, flags=re.MULTILINE)
    summary = re.findall(r"^(?:worst-group|average) accuracy +(\d\.\d{4})", text, re.MULTILINE)
    assert len(rows) == 4
    assert len(summary) == 2
    return [float(number) for number in rows + summary]


def _python_blocks(name):
    """Source of each python block, moved down to its own line of the document."""
    text = _read(name)
    for match in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield "\n" * text.count("\n", 0, match.start(1)) + match.group(1)


@functools.cache
def _run(name):
    """Run a document once: its namespace, and what each block printed and took."""
    namespace, printed, seconds = {}, [], []
    for block in _python_blocks(name):
        started = time.process_time()  # other processes do not count
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block, str(ROOT / name), "exec"), namespace)  # tracebacks name the line
        printed.append(out.getvalue())
        seconds.append(time.process_time() - started)
    return namespace, printed, seconds


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_python_blocks_run_in_order(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, printed, _ = _run(name)
    assert len(printed) >= 2
    saved = re.findall(r'save_model\(\w+, "(.+)"\)', _read(name))
    # nothing else is left in the user's folder
    assert [path.name for path in tmp_path.iterdir()] == saved


def test_readme_first_example_is_told_nothing():
    first = next(_python_blocks("README.md"))
    fit = first[: first.index("print(")]
    assert "AutoRetrainer(" in fit
    assert "sample_group" not in fit
    assert "spurious_attribute" not in fit

    namespace, printed, seconds = _run("README.md")
    auto = namespace["auto"]
    assert auto.used_group_labels_ == {"train": False, "validation": False}
    assert auto.effect_.level == "large"
    assert auto.way_ == "network"
    assert seconds[0] < 100  # on an idle core 20
    # What it prints is what the README says, up to what rounding on another CPU can change.
    assert _table(printed[0]) == pytest.approx(_table(_read("README.md")), abs=0.1)


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_document_relative_links_exist(name):
    text = _read(name)
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [t for t in targets if not ((ROOT / name).parent / t).exists()]
    assert not missing
