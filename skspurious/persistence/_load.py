"""load_model, and the reader that turns nodes and tensors into an estimator."""

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from sklearn.base import BaseEstimator

from skspurious._version import __version__
from skspurious.persistence._format import (
    FORMAT,
    GIVEN,
    KEY,
    NAMED,
    PACKAGES,
    fresh_network,
    is_named,
)

__all__ = ["load_model"]


def load_model(path, **given):
    """Read an estimator that ``save_model`` wrote.

    No code of the file is run, so that the file of a stranger can be opened.

    .. versionadded:: 0.1

    Parameters
    ----------
    path : str or path-like
        The file.
    **given : dict
        Parameters that the file does not hold, by name: for a network of your own
        ``module=MyNetwork``, or an instance of it, whose weights are replaced;
        ``eval_transform=`` and so on. An error names those that are missing.

    Returns
    -------
    estimator : fitted estimator
        On the CPU; it predicts on the device of its ``device`` parameter.

    Raises
    ------
    ValueError
        If the file was not written by ``save_model``, parameters are missing or unknown, or the
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
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            raise ValueError(f"{path} was not written by skspurious.save_model.")
        header = json.loads(text)
        if header["format"] != FORMAT:
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


class _Reader:
    """Turns nodes into values."""

    _KINDS = (
        *("array", "objects", "dict", "tuple", "float", "dtype", "tensor"),
        *("device", "path", "frame", "name", "slice", "object", GIVEN),
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

    def _slice(self, node):
        return slice(*self.decode(node["slice"]))

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
        return self.given[node[GIVEN]]

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
        if f"{module}.".startswith(NAMED):
            value = getattr(importlib.import_module(module), name, None)
            if is_named(value):
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
        module = fresh_network(owner)
        weights = {k: self.file.get_tensor(name) for k, name in node["network"].items()}
        try:
            module.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in the file do not fit module={owner.module!r}: {error}"
            ) from error
        return module.eval()


def _find_class(name):
    """A class of this package or an estimator of scikit-learn."""
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] in PACKAGES:
        cls = getattr(importlib.import_module(module), qualname, None)
        is_defined_there = isinstance(cls, type) and cls.__module__ == module
        if is_defined_there and (
            module.startswith("skspurious.") or issubclass(cls, BaseEstimator)
        ):
            return cls
    raise ValueError(f"the file has a {name}, which is not read from files.")
