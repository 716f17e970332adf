"""The examples run, and show what they say."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NEEDS_MNIST = {"plot_from_zero_to_a_good_worst_group.py"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [p for p in sorted(EXAMPLES.rglob("plot_*.py")) if p.name not in NEEDS_MNIST],
    ids=lambda p: p.stem,
)
def test_example_raises_the_worst_group(path, capsys):
    names = runpy.run_path(str(path))
    if "reports" in names:
        before, after = names["reports"].values()
    else:
        before, after = names["before"], names["after"]
    assert after.worst_group_accuracy > before.worst_group_accuracy + 0.3
    assert "worst group" in capsys.readouterr().out


def test_example_without_its_data_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("SKSPURIOUS_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="needs MNIST"):
        runpy.run_path(str(EXAMPLES / "mitigation" / "plot_from_zero_to_a_good_worst_group.py"))


def test_every_example_has_a_title_that_asks_and_says_when_it_fails():
    for path in EXAMPLES.rglob("*.py"):
        text = path.read_text()
        title = text.strip('"\n').splitlines()[0]
        assert title.endswith("?"), path
        assert re.search(r"\*\*When it fails", text), path
