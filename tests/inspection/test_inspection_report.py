"""The HTML report: one file, complete, escaped."""

import base64
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from skspurious.inspection import GroupAccuracyDisplay, write_report
from skspurious.metrics import group_report

Y_TRUE, Y_PRED, GROUP = [0, 0, 1, 1], [0, 0, 1, 0], ["grass", "grass", "sand", "sand"]


class _Balanced(HTMLParser):
    """Checks that every tag is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _parse(path):
    parser = _Balanced()
    parser.feed(path.read_text(encoding="utf-8"))
    assert not parser.open
    return parser.seen


def _figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure


def test_write_report_keeps_order_and_content(tmp_path):
    report = group_report(Y_TRUE, Y_PRED, sample_group=GROUP)
    display = GroupAccuracyDisplay(report).plot()
    path = write_report(
        tmp_path / "new" / "report.html",
        title="Cows",
        sections={
            "Before": ["First words.", report, display],
            "Empty": [],
            "After": [[_figure(), _figure()], pd.DataFrame({"x": [12345]})],
        },
    )
    plt.close(display.figure_)
    assert path == tmp_path / "new" / "report.html"
    text = path.read_text(encoding="utf-8")
    places = [
        text.index(part)
        for part in ("<h1>Cows", "<h2>Before", "First words.", "<h2>Empty", "<h2>After", "12345")
    ]
    assert places == sorted(places)
    assert report.to_html() in text
    tags = [tag for tag, _ in _parse(path)]
    assert tags.count("img") == 3
    assert tags.count("table") == 2


def test_write_report_needs_no_other_file(tmp_path):
    path = write_report(tmp_path / "r.html", title="t", sections={"s": [_figure()]})
    seen = _parse(path)
    assert not {"link", "script", "iframe"} & {tag for tag, _ in seen}
    (image,) = [attrs for tag, attrs in seen if tag == "img"]
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True).startswith(b"\x89PNG\r\n")
    assert image["alt"] == "s"
    assert not re.search(r"""(src|href)=["'](?!data:)""", path.read_text(encoding="utf-8"))


def test_write_report_escapes_text(tmp_path):
    path = write_report(
        tmp_path / "r.html",
        title="<b>1 & 2</b>",
        sections={"<i>": ["{braces} <script>alert(1)</script>", _figure()]},
    )
    text = path.read_text(encoding="utf-8")
    assert "&lt;b&gt;1 &amp; 2&lt;/b&gt;" in text
    assert "{braces} &lt;script&gt;" in text
    assert "<script" not in text
    _parse(path)


def test_write_report_replaces_an_existing_file(tmp_path):
    path = tmp_path / "r.html"
    write_report(path, title="first", sections={"a": ["long text " * 100]})
    write_report(str(path), title="second", sections={})
    text = path.read_text(encoding="utf-8")
    assert "second" in text
    assert "long text" not in text


def test_write_report_refuses_other_items(tmp_path):
    with pytest.raises(TypeError, match=r"section 'a' holds a int.*Display that has been plotted"):
        write_report(tmp_path / "r.html", title="t", sections={"a": [1]})
    assert not (tmp_path / "r.html").exists()


def test_write_report_does_not_close_the_users_figures(tmp_path):
    figure, _ = plt.subplots()
    write_report(tmp_path / "r.html", title="t", sections={"a": [figure]})
    assert plt.fignum_exists(figure.number)
    plt.close(figure)
