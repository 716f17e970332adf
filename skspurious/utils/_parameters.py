"""Constructor parameters: shared ones, written once; presets; and those that are modules."""

import copy
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

RESNET50 = {"module": "resnet50", "weights": "IMAGENET1K_V1"}  # for presets
_PARAMETERS, _ATTRIBUTES = "Parameters\n----------\n", "Attributes\n----------\n"


def extends(base: type, *, without: tuple[str, ...] = ()) -> Any:
    """Class decorator: the constructor takes the keyword parameters of ``base`` as well.

    The class writes ``def __init__(self, module=None, *, own=1, **shared)`` and passes
    ``**shared`` on. Its signature, which scikit-learn reads for ``get_params`` and ``clone``,
    and its docstring, at the line ``shared parameters``, then name every parameter; at the line
    ``shared attributes`` it names those of ``base``. A keyword that is not in the signature raises
    a TypeError that names the class and the nearest parameter.

    Parameters
    ----------
    base : type
        The class whose ``__init__`` names the shared parameters, documented in its docstring.
    without : tuple of str, default=()
        Parameters of ``base`` that the class does not take.

    Returns
    -------
    decorate : callable

    Examples
    --------
    >>> from skspurious.utils._parameters import extends
    >>> class Base:
    ...     def __init__(self, *, lr=0.1):
    ...         self.lr = lr
    >>> @extends(Base)
    ... class Method(Base):
    ...     def __init__(self, *, gamma=2.0, **shared):
    ...         super().__init__(**shared)
    ...         self.gamma = gamma
    >>> inspect.signature(Method)
    <Signature (*, gamma=2.0, lr=0.1)>
    """

    def decorate(cls: type) -> type:
        own = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        shared = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        names = {p.name for p in own}
        merged = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        merged += [p for p in shared if p.name not in names | set(without)]
        signature = inspect.Signature(merged)
        cls.__init__ = refuses_unknown(cls.__init__, signature)  # type: ignore[misc]
        cls.__doc__ = _merge_docs(cls.__doc__ or "", base.__doc__ or "", names, without)
        return cls

    return decorate


def refuses_unknown(init: Callable, signature: inspect.Signature | None = None) -> Any:
    """Decorator of a constructor: a misspelt keyword is told the class and the nearest name.

    :func:`extends` does it already.

    Parameters
    ----------
    init : function
        The constructor.
    signature : inspect.Signature, default=None
        What it takes; None is what it says itself.
    """
    signature = inspect.signature(init) if signature is None else signature
    known = [name for name in signature.parameters if name != "self"]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise TypeError(_no_parameter(type(self), unknown[0], known))
        init(self, *args, **kwargs)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _no_parameter(cls: type, name: str, known: Iterable[str]) -> str:
    return f"{cls.__name__} has no parameter {name!r}{nearest_names(name, known)}"


def nearest_names(name: str, known: Iterable[str], *, n: int = 1) -> str:
    """The end of an error message about a misspelt name: the names that are like it, or all.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        What may be given.
    n : int, default=1
        Most names that are proposed.

    Returns
    -------
    text : str

    Examples
    --------
    >>> "no parameter 'max_epoch'" + nearest_names("max_epoch", ["max_epochs", "lr"])
    "no parameter 'max_epoch'; did you mean 'max_epochs'?"
    >>> "no parameter 'depth'" + nearest_names("depth", ["max_epochs", "lr"])
    "no parameter 'depth'. Choose one of ['lr', 'max_epochs']."
    """
    known = sorted(known)
    close = [repr(found) for found in difflib.get_close_matches(name, known, n=n)]
    if not close:
        return f". Choose one of {known}."
    return f"; did you mean {', '.join(close[:-1]) + ' or ' if close[1:] else ''}{close[-1]}?"


def _merge_docs(doc: str, base_doc: str, own: set[str], without: tuple[str, ...] = ()) -> str:
    """Put the base's entries of parameters and attributes where the marker lines stand.

    What the class documents itself is left out. A parameter that it names, but does not
    document, comes first.
    """
    # Without indentation, which Python strips by itself from 3.13 on.
    doc, base_doc = inspect.cleandoc(doc) + "\n", inspect.cleandoc(base_doc)
    for heading, marker in ((_PARAMETERS, "parameters"), (_ATTRIBUTES, "attributes")):
        documented = {*_entries(doc, heading), *without}
        entries = {k: v for k, v in _entries(base_doc, heading).items() if k not in documented}
        first = [text for name, text in entries.items() if name in own]
        shared = [text for name, text in entries.items() if name not in own]
        doc = doc.replace(heading, heading + "".join(first), 1)
        doc = doc.replace(f"shared {marker}\n", "".join(shared), 1)
    return doc.rstrip()


def _entries(doc: str, heading: str) -> dict[str, str]:
    """A section of a class docstring: the lines of each parameter or attribute."""
    entries: dict[str, str] = {}
    name = ""
    for line in doc.partition(heading)[2].partition("\n\n")[0].splitlines():
        if not line.startswith(" "):
            name = line.split(":")[0].strip()
        entries[name] = entries.get(name, "") + line + "\n"
    return entries


def from_preset(make: Any, presets: dict, name: str, **changes: Any) -> Any:
    """Call a class or function with the parameters of a preset, changed where asked."""
    maker = make.__name__
    if name not in presets:
        known = f"it has {sorted(presets)}" if presets else "it has none"
        raise ValueError(f"{maker} has no preset {name!r}; {known}.")
    params = {**copy.deepcopy(presets[name]), **changes}
    if "module" not in params:
        raise ValueError(
            f"the preset {name!r} of {maker} is for a network that the caller loads: "
            f"{maker}.preset({name!r}, module=...)."
        )
    return make(**params)


def shallow_copy(estimator: Any) -> Any:
    """An estimator with the same attributes: ``copy.copy`` would copy a fitted network."""
    other = object.__new__(type(estimator))
    vars(other).update(vars(estimator))
    return other


class ModuleParametersMixin(BaseEstimator):
    """For estimators some of whose parameters may be torch modules.

    Several transforms of torchvision have a static method ``get_params`` that draws random
    numbers. scikit-learn takes whatever has that name for an estimator; here a torch module
    never is one.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of this estimator and, if ``deep``, of the estimators among them.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add those of the estimators among them, as ``name__parameter``.

        Returns
        -------
        params : dict
        """
        params = super().get_params(deep=False)
        if deep:
            for name, value in list(params.items()):
                if hasattr(value, "get_params") and not isinstance(value, type | nn.Module):
                    inner = value.get_params().items()
                    params.update((f"{name}__{key}", part) for key, part in inner)
        return params

    def set_params(self, **params: Any) -> Any:
        """Change parameters, of this estimator or, as ``name__parameter``, of one among them.

        Parameters
        ----------
        **params : dict
            The new values.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If there is no parameter of a name; the message proposes the nearest.
        """
        known = self.get_params(deep=False)
        for name in params:
            if name.partition("__")[0] not in known:
                raise ValueError(_no_parameter(type(self), name.partition("__")[0], known))
        return super().set_params(**params)

    def __sklearn_clone__(self) -> Any:
        modules = {k: v for k, v in self.get_params(False).items() if isinstance(v, nn.Module)}
        rest = shallow_copy(self)
        for name in modules:
            setattr(rest, name, None)
        return (
            super(ModuleParametersMixin, rest)
            .__sklearn_clone__()
            .set_params(**copy.deepcopy(modules))
        )
