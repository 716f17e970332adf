"""Files are replaced as a whole."""

import errno
import os

import pytest

from skspurious import group_report
from skspurious.inspection import write_report
from skspurious.utils._files import replacing, sweep

REPORT = group_report([0, 1], [0, 0], sample_group=["grass", "sand"])
WRITERS = {
    "write_report": lambda path: write_report(path, title="t", sections={"a": ["b"]}),
    "to_html": lambda path: REPORT.to_html(path),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(name, error, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")

    def fails(handle):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(type(error)) as caught:
            WRITERS[name](path)
    assert caught.value is error
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)
    assert path.read_text(encoding="utf-8").startswith("<")
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_older_file(tmp_path):
    path, new = tmp_path / "old", tmp_path / "new"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    for written in (path, new):
        with replacing(written) as file:
            file.write(b"text")
    assert path.stat().st_mode & 0o777 == 0o640
    (tmp_path / "plain").touch()
    assert new.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_sweeping_leaves_other_files(tmp_path):
    kept = [tmp_path / "a", tmp_path / "b.1.part", tmp_path / "ab.1.part"]
    for path in [*kept, tmp_path / "a.1.part"]:
        path.touch()
    sweep(tmp_path / "a")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
