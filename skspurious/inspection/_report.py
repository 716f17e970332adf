"""One self-contained HTML file of text, tables and plots."""

import base64
import io
from html import escape
from pathlib import Path

import pandas as pd

from skspurious.utils._files import replace_text

__all__ = ["write_report"]

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem;
        margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }}
h2 {{ font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }}
.row {{ display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }}
.row > * {{ flex: 1 1 24rem; min-width: 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }}
th, td {{ border: 1px solid #ddd; padding: 0.15rem 0.5rem; text-align: right; }}
thead th {{ background: #f3f3f3; }}
img {{ max-width: 100%; height: auto; }}
pre {{ background: #f6f6f6; padding: 0.8rem; overflow-x: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def write_report(path, *, title, sections):
    """Write text, tables and plots to one HTML file that needs no other file.

    .. versionadded:: 0.1

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made if it is missing. An existing file is replaced.

    title : str
        Title of the page.

    sections : dict of str to list
        Heading of each section and its contents, in order. A str is a paragraph, a DataFrame
        (a group report, too) is a table, a matplotlib Figure or a Display is a picture, embedded
        as PNG. A list inside the list is put side by side where the window is wide enough.

    Returns
    -------
    path : Path
        The file.

    Raises
    ------
    TypeError
        If an item of a section is of another kind.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skspurious import group_report
    >>> from skspurious.inspection import write_report
    >>> table = group_report([0, 1], [0, 0], sample_group=["grass", "sand"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_report(
    ...         Path(folder) / "report.html",
    ...         title="Cows",
    ...         sections={"Before": ["On sand it fails.", table]},
    ...     )
    ...     "On sand it fails." in path.read_text(encoding="utf-8")
    True
    """
    body = []
    for heading, items in sections.items():
        body.append(f"<h2>{escape(heading)}</h2>")
        body.extend(_render(item, heading) for item in items)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(title=escape(title), body="\n".join(body))
    replace_text(path, page)
    return path


def _render(item, heading):
    """HTML of one item of a section."""
    if isinstance(item, str):
        return f"<p>{escape(item)}</p>"
    if isinstance(item, list | tuple):
        return f'<div class="row">{"".join(_render(part, heading) for part in item)}</div>'
    if isinstance(item, pd.DataFrame):
        return f'<div class="scroll">{item.to_html()}</div>'
    figure = getattr(item, "figure_", item)
    if hasattr(figure, "savefig"):
        return f'<div><img alt="{escape(heading)}" src="{_png(figure)}"></div>'
    raise TypeError(
        f"section {heading!r} holds a {type(item).__name__}. Use a str, a DataFrame, a matplotlib "
        "Figure, a Display that has been plotted, or a list of these."
    )


def _png(figure):
    """The figure as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
