"""The examples run, and show what they say."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TOO_LONG = {"plot_from_zero_to_a_good_worst_group"}  # minutes: run by hand

# By how much an example raises the worst group, where that is not 0.3; and what it needs.
GAIN = {"plot_income": 0.1, "plot_reviews": 0.05}
NEEDS = {
    "plot_from_zero_to_a_good_worst_group": "MNIST",
    "plot_income": "adult.csv.gz",
    "plot_reviews": "(package|reviews)",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [p for p in sorted(EXAMPLES.rglob("plot_*.py")) if p.stem not in TOO_LONG],
    ids=lambda p: p.stem,
)
def test_example_raises_the_worst_group(path, capsys, request, monkeypatch):
    if path.stem in NEEDS:
        monkeypatch.setenv("SKSPURIOUS_DATA", str(request.getfixturevalue("real_data")))
    try:
        names = runpy.run_path(str(path))
    except SystemExit as reason:
        pytest.skip(str(reason))
    if "reports" in names:
        before, *_, after = names["reports"].values()
    else:
        before, after = names["before"], names["after"]
    gain = after.worst_group_accuracy - before.worst_group_accuracy
    assert gain > GAIN.get(path.stem, 0.3)
    assert re.search("worst[ -]group", capsys.readouterr().out)


@pytest.mark.parametrize("name", NEEDS)
def test_example_without_its_data_says_what_it_needs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SKSPURIOUS_DATA", str(tmp_path))
    (path,) = EXAMPLES.rglob(f"{name}.py")
    with pytest.raises(SystemExit, match=f"needs .*{NEEDS[name]}"):
        runpy.run_path(str(path))


def test_every_example_has_a_title_that_asks_and_says_when_it_fails():
    for path in EXAMPLES.rglob("*.py"):
        text = path.read_text()
        title = text.strip('"\n').splitlines()[0]
        assert title.endswith("?"), path
        assert re.search(r"\*\*When it fails", text), path
