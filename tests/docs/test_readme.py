"""The code in the README and in the guides runs as it stands, block after block."""

import re
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/quickstart.md"]


def _python_blocks(name):
    """Source of each python block, moved down to its own line of the document."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for match in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield "\n" * text.count("\n", 0, match.start(1)) + match.group(1)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_python_blocks_run_in_order(name, monkeypatch, tmp_path):
    blocks = list(_python_blocks(name))
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks:
        exec(compile(block, str(ROOT / name), "exec"), namespace)  # the traceback names the line
    assert not list(tmp_path.iterdir())
    if "plt" in namespace or "inspection" in blocks[-1]:
        import matplotlib.pyplot as plt

        plt.close("all")


def test_readme_first_example_is_the_label_free_search(capsys):
    first = next(_python_blocks("README.md"))
    fit = first[: first.index("print(")]
    assert "GridSearchCV(" in fit
    assert "worst_group_scorer" in fit
    assert "sample_group" not in fit
    assert "spurious_attribute" not in fit
    namespace = {}
    started = time.process_time()
    exec(compile(first, "README.md", "exec"), namespace)
    assert time.process_time() - started < 30  # seconds of work, whatever else runs
    assert namespace["search"].best_estimator_.used_group_labels_ == {
        "train": False,
        "validation": False,
    }
    assert namespace["search"].cv_results_["mean_test_score"].min() >= 0  # no fold failed
    assert "worst-group accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_document_relative_links_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [t for t in targets if not ((ROOT / name).parent / t).exists()]
    assert not missing
