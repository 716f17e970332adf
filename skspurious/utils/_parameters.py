"""Shared constructor parameters, written once."""

import functools
import inspect
from typing import Any

MARKER = "shared parameters"


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
    """Put the base's parameter entries where the marker line stands."""
    section = base_doc.split("Parameters\n    ----------\n")[1].split("\n\n    Attributes")[0]
    entries: list[list[str]] = []
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            entries.append([])
        if entries:
            entries[-1].append(line)
    kept = [e for e in entries if e[0].split(":")[0].strip() not in own]
    return doc.replace(f"    {MARKER}", "\n".join(line for e in kept for line in e).rstrip())
