"""Shared constructor parameters, written once."""

import functools
import inspect
from typing import Any

MARKER = "shared parameters"
_HEADING = "Parameters\n----------\n"


def extends(base: type) -> Any:
    """Class decorator: the constructor takes the keyword parameters of ``base`` as well.

    The class writes ``def __init__(self, module=None, *, own=1, **shared)`` and passes
    ``**shared`` on. Its signature, which scikit-learn reads for ``get_params`` and ``clone``,
    and its docstring, at the line ``shared parameters``, then name every parameter.

    Parameters
    ----------
    base : type
        The class whose ``__init__`` names the shared parameters, documented in its docstring.
    """

    def decorate(cls: type) -> type:
        own = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        shared = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names = {p.name for p in own}
        merged = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        merged += [p for p in shared if p.name not in names]
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)

        __init__.__signature__ = inspect.Signature(merged)  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[misc]
        cls.__doc__ = _merge_docs(cls.__doc__ or "", base.__doc__ or "", names)
        return cls

    return decorate


def _merge_docs(doc: str, base_doc: str, own: set[str]) -> str:
    """Put the base's parameter entries where the marker line stands.

    A parameter that the class names itself, but does not document, comes first.
    """
    # Without indentation, which Python strips by itself from 3.13 on.
    doc, base_doc = inspect.cleandoc(doc), inspect.cleandoc(base_doc)
    documented = _entries(doc)
    entries = {name: text for name, text in _entries(base_doc).items() if name not in documented}
    first = "".join(text for name, text in entries.items() if name in own)
    shared = "".join(text for name, text in entries.items() if name not in own)
    doc = doc.replace(_HEADING, _HEADING + first, 1)
    return doc.replace(f"{MARKER}\n", shared)


def _entries(doc: str) -> dict[str, str]:
    """Parameters section of a class docstring: the lines of each parameter."""
    entries: dict[str, str] = {}
    name = ""
    for line in doc.partition(_HEADING)[2].partition("\n\n")[0].splitlines():
        if not line.startswith(" "):
            name = line.split(":")[0].strip()
        entries[name] = entries.get(name, "") + line + "\n"
    return entries
