"""What a run is made of, as one hash: equal for two runs only if they are the same run.

Values count by their content. Of a function that is its code, its defaults, what it closes over
and the globals that it names; of another object its class and its attributes, as ``pickle`` would
take them apart. Classes and functions of installed packages count by their names.
"""

import hashlib
import sys
import types
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

# Parameters that change nothing about the result, and so do not tell two runs apart.
WITHOUT_EFFECT = ("callbacks", "checkpoint_dir", "device", "num_workers", "verbose")
# Attributes of classes that say nothing about what they do, or differ in every process.
_OF_A_CLASS = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl"),
    *("__firstlineno__", "__static_attributes__"),
}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...))
_NAMED = (types.BuiltinFunctionType, types.ModuleType, types.MethodDescriptorType,
          types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
          np.ufunc)  # fmt: skip


class NoIdentityError(ValueError):
    """A value has no content that can be compared."""


def fingerprint(*parts: Any, run_name: str | None = None) -> str:
    """Hash of parameters, arrays, networks, functions and objects; equal in every process.

    Parameters
    ----------
    *parts : object
    run_name : str or None
        Stands for what has no content of its own. None raises where there is such a thing.

    Raises
    ------
    NoIdentityError
        If a part has no content that can be compared, such as an open file, and no name is given.
    """
    return _Identity(run_name).of((run_name, *parts)).hex()[:24]


class _Identity:
    """Hashes of values by their content; each object is looked at once."""

    def __init__(self, run_name: str | None):
        self.run_name = run_name
        self.known: dict[int, tuple[Any, bytes]] = {}  # with the object, so that its id stays its
        self.depth = 0

    def of(self, part: Any) -> bytes:
        """The hash of a value."""
        if isinstance(part, np.generic):
            part = part.item()
        if type(part) in _PLAIN:
            return _hash(type(part).__name__, repr(part))
        if id(part) not in self.known:
            self.depth += 1
            self.known[id(part)] = part, _hash("around", str(self.depth))  # where it holds itself
            self.known[id(part)] = part, self._of(part)
            self.depth -= 1
        return self.known[id(part)][1]

    def all(self, kind: str, parts: Iterable[Any]) -> bytes:
        """The hash of several values in their order."""
        return _hash(kind, *(self.of(part) for part in parts))

    def _of(self, part: Any) -> bytes:
        if isinstance(part, Tensor):
            kind = f"{part.dtype} {tuple(part.shape)} {part.requires_grad}"
            return _hash("tensor", kind, bytes_of(part))
        if isinstance(part, np.ndarray):
            if part.dtype.hasobject:
                return self.all(f"objects {part.shape}", part.ravel().tolist())
            row = np.ascontiguousarray(part).reshape(-1)
            return _hash("array", f"{part.dtype} {part.shape}", row.view(np.uint8))
        if isinstance(part, list | tuple):
            return self.all(_name(type(part)), part)
        if isinstance(part, set | frozenset):
            return _hash("set", *sorted(self.of(item) for item in part))
        if isinstance(part, Mapping):
            pairs = sorted(self.all("pair", pair) for pair in part.items())
            return _hash(_name(type(part)), *pairs)
        if isinstance(part, type):
            return self._class(part)
        if isinstance(part, types.CodeType):
            return self._code(part)
        if isinstance(part, types.FunctionType):
            return self._function(part)
        if isinstance(part, types.MethodType):
            return self.all("method", [part.__func__, part.__self__])
        if isinstance(part, _NAMED):
            name = getattr(part, "__qualname__", part.__name__)
            return _hash("named", str(getattr(part, "__module__", "")), name)
        if isinstance(part, staticmethod | classmethod):
            return self.all(type(part).__name__, [part.__func__])
        if isinstance(part, property):
            return self.all("property", [part.fget, part.fset, part.fdel])
        if isinstance(part, cached_property):
            return self.all("property", [part.func])
        if isinstance(part, BaseEstimator):
            return self._estimator(part)
        if isinstance(part, nn.Module):
            return self._module(part)
        return self._object(part)

    def _class(self, cls: type) -> bytes:
        if _is_installed(cls.__module__):
            return _hash("class", _name(cls))
        own = {k: v for k, v in vars(cls).items() if k not in _OF_A_CLASS}
        return _hash("class", cls.__qualname__, self.all("bases", cls.__bases__), self.of(own))

    def _code(self, code: types.CodeType) -> bytes:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        return self.all("code", [code.co_code, code.co_consts, *names])

    def _function(self, function: types.FunctionType) -> bytes:
        if _is_installed(function.__module__) and "<" not in function.__qualname__:
            return _hash("function", _name(function))
        named = _names_in(function.__code__)
        used = {k: v for k, v in function.__globals__.items() if k in named}
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        parts = [function.__code__, function.__defaults__, function.__kwdefaults__, cells, used]
        return self.all("function", [*parts, vars(function)])

    def _estimator(self, estimator: BaseEstimator) -> bytes:
        """Parameters, and what it has learned; how long that took does not count."""
        left_out = {*WITHOUT_EFFECT, "history_"}
        state = {k: v for k, v in vars(estimator).items() if k not in left_out}
        return self.all("estimator", [type(estimator), state])

    def _module(self, module: nn.Module) -> bytes:
        """Hooks are kept under numbers that differ in every process."""
        state = {k: list(v.values()) if "_hooks" in k else v for k, v in vars(module).items()}
        return self.all("module", [type(module), state])

    def _object(self, part: Any) -> bytes:
        """Any other object, as ``pickle`` takes it apart."""
        try:
            reduced = part.__reduce_ex__(4)
        except Exception as error:
            if self.run_name is not None:
                return _hash("named by the run", _name(type(part)))
            raise NoIdentityError(
                f"a {type(part).__name__} has no content by which one run could be told from "
                f"another ({error})."
            ) from error
        if isinstance(reduced, str):
            return _hash("global", _name(type(part)), reduced)
        make, arguments, *state = reduced
        state = [list(s) if hasattr(s, "__next__") else s for s in state]
        return self.all("object", [make, arguments, *state])


def bytes_of(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor, of any type and layout."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if len(flat) < 2:  # whose stride may be anything
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy()


def _hash(kind: str, *parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    for part in (kind, *parts):
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        content = memoryview(part)
        digest.update(content.nbytes.to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _names_in(code: types.CodeType) -> set[str]:
    """Names that a function and those inside it look up."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*(_names_in(c) for c in inner))


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_installed(module: str | None) -> bool:
    """Whether a module is of Python, of an installed package or of this one."""
    top = str(module).partition(".")[0]
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == "skspurious":
        return True
    path = getattr(sys.modules.get(top), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)
