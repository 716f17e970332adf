"""save_model and load_model: a fitted estimator as one safetensors file that runs no code.

The tensors of the file are all arrays and weights; its header has a JSON text, a tree of nodes,
which says what they belong to. Reading it calls no function that the file names: classes come
from this package and from scikit-learn, and what is code (a network of the user's own, a
transform) is not written but given again by the caller.
"""

import enum
import importlib
import json
import math
import os
import re
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skspurious._engine._modules import build_module
from skspurious._version import __version__
from skspurious.base import BaseTorchClassifier

__all__ = ["load_model", "save_model"]

_FORMAT = 1
_KEY = "skspurious"  # of the header
_PACKAGES = ("skspurious", "sklearn")  # whose classes are made again
_NAMED = ("skspurious.", "torch.optim.", "numpy.")  # whose classes can be parameters
_GIVEN = "given"  # node of a parameter that is not in the file


def save_model(estimator, path):
    """Write a fitted estimator as a safetensors file.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimator : estimator
        A fitted classifier, extractor or inferrer of this package, or a pipeline of them and of
        scikit-learn's transformers.
    path : path
        The file; an older one is replaced, and stays whole until the new one is written.

    Raises
    ------
    TypeError
        If a part of it cannot be written; the message names it.
    NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    load_model : Reads it.

    Notes
    -----
    Parameters that are code are not written: a network given as an object or as a class of your
    own, transforms, collate functions, callbacks. ``load_model`` asks for them. ``pickle`` and
    ``joblib`` write everything, but a file of theirs can run any code when it is opened.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from skspurious import ERMClassifier, load_model, save_model
    >>> clf = ERMClassifier(max_epochs=1, random_state=0).fit([[0.0], [1.0]], ["cat", "dog"])
    >>> path = pathlib.Path(tempfile.mkdtemp(), "pets.safetensors")
    >>> save_model(clf, path)
    >>> load_model(path).predict([[3.0]]) == clf.predict([[3.0]])
    array([ True])
    """
    check_is_fitted(estimator)
    writer = _Writer()
    tree = writer.attribute(estimator, type(estimator).__name__)
    header = {
        "format": _FORMAT,
        "versions": {
            "skspurious": __version__,
            "scikit-learn": sklearn.__version__,
            "torch": str(torch.__version__),
        },
        "given": writer.given,
        "estimator": tree,
    }
    part = Path(f"{os.fspath(path)}.{uuid.uuid4().hex}.part")
    try:
        save_file(writer.tensors, part, metadata={_KEY: json.dumps(header)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_model(path, **given):
    """Read an estimator that ``save_model`` wrote.

    No code of the file is run, so that a file of somebody else's can be opened.

    .. versionadded:: 0.1

    Parameters
    ----------
    path : path
        The file.
    **given
        Parameters that the file does not have, by their names: ``module=`` for a network of your
        own, such as ``module=MyNetwork`` or an object of it, with any weights;
        ``eval_transform=`` and so on. The error says which are missing.

    Returns
    -------
    estimator : fitted estimator
        On the CPU; it predicts on the device of its ``device`` parameter.

    Raises
    ------
    ValueError
        If the file is not one of ``save_model``, parameters are missing or unknown, or the
        weights do not fit the network.

    See Also
    --------
    save_model : Writes the file.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from torch import nn
    >>> from skspurious import ERMClassifier, load_model, save_model
    >>> clf = ERMClassifier(nn.Linear(1, 2), max_epochs=1, random_state=0)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "numbers.safetensors")
    >>> save_model(clf.fit([[0.0], [1.0]], [0, 1]), path)
    >>> load_model(path, module=nn.Linear(1, 2)).classes_
    array([0, 1])
    """
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(_KEY)
        if text is None:
            raise ValueError(f"{path} was not written by skspurious.save_model.")
        header = json.loads(text)
        if header["format"] != _FORMAT:
            raise ValueError(
                f"{path} has format {header['format']}, written by skspurious "
                f"{header['versions']['skspurious']}; this is {__version__}. Update it."
            )
        _check_given(header["given"], given)
        return _Reader(file, given).decode(header["estimator"])


def _check_given(wanted, given):
    missing = [f"{name}=... (it was {what})" for name, what in wanted.items() if name not in given]
    if missing:
        raise ValueError(
            "the file has no code, so pass these parameters to load_model: " + ", ".join(missing)
        )
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise ValueError(f"the file has all but {list(wanted)}; it does not need {unknown}.")


class _CannotBeWritten(Exception):
    """A value has no node: if it is a parameter, the reader must be given it."""


class _Writer:
    """Turns values into nodes, and collects their tensors."""

    def __init__(self):
        self.tensors, self.given = {}, {}
        self._keys = {}  # of the parameters that are given again

    def encode(self, value, where):
        """The node of a value; ``where`` it is, for messages and as a name of tensors."""
        if value is None or isinstance(value, bool | str):
            return value
        if type(value) is int or (type(value) is float and math.isfinite(value)):
            return value
        if type(value) is float:
            return {"float": str(value)}
        if isinstance(value, list | tuple):
            items = [self.encode(v, f"{where}.{i}") for i, v in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, dict):
            pairs = [
                [self.encode(k, where), self.encode(v, f"{where}.{k}")] for k, v in value.items()
            ]
            return {"dict": pairs}
        if isinstance(value, np.dtype):
            return {"dtype": value.str}
        if isinstance(value, np.generic) or type(value) in (np.ndarray, np.memmap):
            return self._array(value, where)
        if isinstance(value, torch.Tensor):
            return {"tensor": self._add(value, where)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, os.PathLike):
            return {"path": os.fspath(value)}
        if isinstance(value, pd.DataFrame | pd.Series):
            return self._frame(value, where)
        package = type(value).__module__.partition(".")[0]
        if package == "torchvision" and isinstance(value, enum.Enum):
            return f"{type(value).__name__}.{value.name}"  # weights, by the name they go by too
        if _is_named(value):
            return {"name": f"{value.__module__}:{value.__qualname__}"}
        if package in _PACKAGES and not isinstance(value, nn.Module):
            return self._object(value, where)
        raise _CannotBeWritten(
            f"{where} is a {type(value).__name__}, which save_model cannot write."
        )

    def _add(self, tensor, where):
        while where in self.tensors:
            where += "'"
        self.tensors[where] = tensor.detach().cpu().clone().contiguous()
        return where

    def _array(self, value, where):
        array = np.asarray(value)
        node = {"scalar": True} if isinstance(value, np.generic) else {}
        if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
            if array.dtype.kind == "u":  # of which older versions of safetensors know uint8 alone
                node["dtype"] = array.dtype.str
                array = array.view(f"i{array.dtype.itemsize}")
            return node | {"array": self._add(torch.tensor(array), where)}
        if array.dtype.kind in "OU":
            items = [self.encode(v, f"{where}.{i}") for i, v in enumerate(array.ravel().tolist())]
            return node | {"objects": items, "shape": array.shape, "dtype": array.dtype.str}
        raise _CannotBeWritten(f"{where} is an array of {array.dtype}, which cannot be written.")

    def _frame(self, value, where):
        if isinstance(value.index, pd.MultiIndex):
            raise _CannotBeWritten(f"{where} has an index of several levels.")
        is_series = isinstance(value, pd.Series)
        columns = [value] if is_series else [column for _, column in value.items()]
        return {
            "frame": [self._array(c.to_numpy(), f"{where}.{c.name}") for c in columns],
            "name": self.encode(value.name, where) if is_series else None,
            "columns": None
            if is_series
            else self._array(value.columns.to_numpy(), f"{where}.columns"),
            "dtypes": [str(c.dtype) for c in columns],
            "index": self._array(value.index.to_numpy(), f"{where}.index"),
            "axes": [value.index.name, None if is_series else value.columns.name],
            "series": is_series,
        }

    def _object(self, value, where):
        """An estimator or another object: its class, and its attributes with networks last."""
        state = vars(value) if isinstance(value, BaseTorchClassifier) else value.__getstate__()
        is_estimator = isinstance(value, BaseEstimator)
        params = set(value.get_params(deep=False)) if is_estimator else set()
        nodes, networks = [], []
        for name, attribute in state.items():
            place = f"{where}.{name}"
            if name in params:
                nodes.append([name, self._parameter(name, attribute, place)])
            elif isinstance(attribute, nn.Module):
                networks.append([name, self._network(value, attribute, place)])
            elif isinstance(attribute, dict) and any(
                isinstance(v, nn.Module) for v in attribute.values()
            ):
                pairs = [[k, self._network(value, v, f"{place}.{k}")] for k, v in attribute.items()]
                networks.append([name, {"dict": pairs}])
            else:
                nodes.append([name, self.attribute(attribute, place)])
        cls = type(value)
        return {"object": f"{cls.__module__}:{cls.__qualname__}", "state": nodes + networks}

    def attribute(self, value, where):
        """What was learned: it cannot be given again."""
        try:
            return self.encode(value, where)
        except _CannotBeWritten as error:
            raise TypeError(
                f"{error} Use joblib or pickle, and open their files only if you trust who made "
                "them."
            ) from error

    def _parameter(self, name, value, where):
        """A parameter, or a note that the reader has to be given it."""
        if _holds_estimator(value):  # which may be fitted
            return self.attribute(value, where)
        try:
            return self.encode(value, where)
        except _CannotBeWritten:
            for tensor in [t for t in self.tensors if t.startswith(f"{where}.")]:
                del self.tensors[tensor]
        what = re.sub(r" at 0x\w+", "", repr(value))
        what = " ".join(what.split())
        if (name, what) not in self._keys:
            n_same = sum(known == name for known, _ in self._keys)
            key = name if n_same == 0 else f"{name}_{n_same + 1}"
            self._keys[name, what] = key
            self.given[key] = what if len(what) <= 80 else what[:77] + "..."
        return {_GIVEN: self._keys[name, what]}

    def _network(self, owner, module, where):
        """The weights of a network; what it is made of is known from its owner's parameters."""
        if owner.module in ("googlenet", "inception_v3") and owner.weights is not None:
            raise TypeError(
                f"{where} is a {owner.module} that was made with weights, which is another "
                "network than without. Use joblib or pickle."
            )
        mine = module.state_dict()
        fresh = _fresh_network(owner).state_dict()
        if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in fresh.items()}:
            raise TypeError(
                f"{where} has other tensors than the network that {type(owner).__name__}'s "
                "parameters make, so that it could not be made again. Use joblib or pickle."
            )
        return {"network": {k: self._add(v, f"{where}.{k}") for k, v in mine.items()}}


class _Reader:
    """Turns nodes into values."""

    _KINDS = (
        *("array", "objects", "dict", "tuple", "float", "dtype", "tensor"),
        *("device", "path", "frame", "name", "object", _GIVEN),
    )

    def __init__(self, file, given):
        self.file, self.given = file, given

    def decode(self, node):
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        kind = next(k for k in self._KINDS if k in node)
        return getattr(self, f"_{kind}")(node)

    def _float(self, node):
        return float(node["float"])

    def _tuple(self, node):
        return tuple(self.decode(node["tuple"]))

    def _dict(self, node):
        return {self.decode(k): self.decode(v) for k, v in node["dict"]}

    def _dtype(self, node):
        return np.dtype(node["dtype"])

    def _tensor(self, node):
        return self.file.get_tensor(node["tensor"])

    def _device(self, node):
        return torch.device(node["device"])

    def _path(self, node):
        return Path(node["path"])

    def _given(self, node):
        return self.given[node[_GIVEN]]

    def _array(self, node):
        array = self.file.get_tensor(node["array"]).numpy()
        array = array.view(node.get("dtype", array.dtype))
        return array[()] if "scalar" in node else array

    def _objects(self, node):
        array = np.empty(len(node["objects"]), dtype=np.dtype(node["dtype"]))
        for i, item in enumerate(node["objects"]):
            array[i] = self.decode(item)
        array = array.reshape(node["shape"])
        return array[()] if "scalar" in node else array

    def _frame(self, node):
        columns = {i: self.decode(column) for i, column in enumerate(node["frame"])}
        frame = pd.DataFrame(columns, index=self.decode(node["index"]))
        frame = frame.astype(dict(enumerate(node["dtypes"])))
        of_index, of_columns = node["axes"]
        if node["series"]:
            return frame[0].rename(self.decode(node["name"])).rename_axis(of_index)
        frame = frame.set_axis(pd.Index(self.decode(node["columns"])), axis=1)
        return frame.rename_axis(index=of_index, columns=of_columns)

    def _name(self, node):
        module, _, name = node["name"].partition(":")
        if f"{module}.".startswith(_NAMED):
            value = getattr(importlib.import_module(module), name, None)
            if _is_named(value):
                return value
        raise ValueError(f"the file names {node['name']}, which is not read from files.")

    def _object(self, node):
        cls = _find_class(node["object"])
        value, state = cls.__new__(cls), {}
        for name, attribute in node["state"]:
            state[name] = self._with_networks(value, state, attribute)
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            vars(value).update(state)
        return value

    def _with_networks(self, owner, state, node):
        """A value of the state; a network is made from what the state has so far."""
        if isinstance(node, dict) and "dict" in node:
            return {self.decode(k): self._with_networks(owner, state, v) for k, v in node["dict"]}
        if not isinstance(node, dict) or "network" not in node:
            return self.decode(node)
        vars(owner).update(state)
        module = _fresh_network(owner)
        weights = {k: self.file.get_tensor(name) for k, name in node["network"].items()}
        try:
            module.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in the file do not fit module={owner.module!r}: {error}"
            ) from error
        return module.eval()


def _fresh_network(owner):
    """A network as the owner's ``module`` makes it, with any weights."""
    return build_module(
        owner.module,
        module_params=owner.module_params,
        sample_shape=owner._sample_shape,
        n_classes=len(owner.classes_) if hasattr(owner, "classes_") else None,
        seed=0,
    )


def _holds_estimator(value):
    if isinstance(value, list | tuple):
        return any(_holds_estimator(item) for item in value)
    return isinstance(value, BaseEstimator)


def _is_named(value):
    """Whether a value is a class that is written by its name."""
    return (
        isinstance(value, type)
        and f"{value.__module__}.".startswith(_NAMED)
        and "." not in value.__qualname__
        and issubclass(value, nn.Module | torch.optim.Optimizer | np.generic)
    )


def _find_class(name):
    """A class of this package or an estimator of scikit-learn."""
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] in _PACKAGES:
        cls = getattr(importlib.import_module(module), qualname, None)
        is_defined_there = isinstance(cls, type) and cls.__module__ == module
        if is_defined_there and (
            module.startswith("skspurious.") or issubclass(cls, BaseEstimator)
        ):
            return cls
    raise ValueError(f"the file has a {name}, which is not read from files.")
