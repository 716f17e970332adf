"""The command line, called in this process."""

import re

import matplotlib.pyplot as plt
import pytest

import skspurious
from skspurious.cli import main


def test_cli_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"skspurious {skspurious.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["unknown"], ["demo", "--seed", "x"]])
def test_cli_refuses_bad_arguments(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: skspurious" in capsys.readouterr().err


def test_cli_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "demo" in capsys.readouterr().out


def test_cli_demo_says_how_to_install_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"skspurious\[plot\]"):
        main(["demo", "--output", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_cli_demo_prints_tables_and_writes_the_report(
    capsys, tmp_path, monkeypatch, assert_global_rng_untouched
):
    monkeypatch.chdir(tmp_path)
    with assert_global_rng_untouched():
        assert main(["demo", "--quick", "--output", "out/new"]) == 0
    out = capsys.readouterr().out
    before, after = out.index("Before: accuracy of each group"), out.index("After: no group label")
    assert before < out.index("worst-group accuracy") < after
    path = tmp_path / "out/new/report.html"
    assert f"Report: {path}" in out.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

    page = path.read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert page.count("skspurious-group-report") == 2
    # the numbers printed are the numbers written
    for worst in re.findall(
        r"^worst-group accuracy +(0\.\d{4}|1\.0000) \[", out, flags=re.MULTILINE
    ):
        assert worst in page
    assert not plt.get_fignums()


def test_cli_demo_is_reproducible_by_its_seed(capsys, tmp_path):
    tables = []
    for seed in ("1", "1", "2"):
        main(["demo", "--quick", "--seed", seed, "--output", str(tmp_path)])
        tables.append(capsys.readouterr().out.partition("Report:")[0])
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


@pytest.mark.slow
def test_cli_demo_improves_the_worst_group(capsys, tmp_path):
    assert main(["demo", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    old, new = re.search(
        r"^worst-group accuracy +(\S+) -> (\S+)$", out, flags=re.MULTILINE
    ).groups()
    assert float(old) < 0.1
    assert float(new) > 0.8
