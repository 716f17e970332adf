"""load_model, and the reader that turns nodes and tensors into an estimator."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open

from skspurious._version import __version__
from skspurious.exceptions import UnreadableFileError
from skspurious.persistence._format import (
    FORMAT,
    GIVEN,
    HASH,
    KEY,
    content_hash,
    find_class,
    find_named,
    fresh_network,
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
    UnreadableFileError
        If the file was not written by ``save_model``, is damaged, of another version, or holds
        what this package does not read. It is a ``ValueError``.
    ValueError
        If parameters are missing or unknown, or the weights do not fit the network that is given.

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
    header, tensors = _read(path)
    _check_given(header["given"], given)
    try:
        return _Reader(tensors, given, size=os.path.getsize(path)).decode(header["estimator"])
    except (_DoesNotFit, OSError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, UnreadableFileError) else repr(error)
        raise UnreadableFileError(f"{path} cannot be read: {reason}") from error


def _read(path):
    """Header and tensors of a file, of which every byte is as it was written."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata.get(KEY)
        is_whole = text is not None and metadata.get(HASH) == content_hash(text, tensors)
        header = json.loads(text) if is_whole else {}
        version = header.get("format")
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableFileError(f"{path} is damaged, or no model file: {error}") from error
    if not is_whole:
        raise UnreadableFileError(
            f"{path} was not written by skspurious.save_model, or has been changed since."
        )
    if version != FORMAT:
        raise UnreadableFileError(
            f"{path} has format {version}, and this is skspurious {__version__}, which reads "
            f"format {FORMAT}. Read it with the version that wrote it."
        )
    if not isinstance(header.get("given"), dict) or "estimator" not in header:
        raise UnreadableFileError(f"{path} holds no estimator.")
    return header, tensors


class _DoesNotFit(ValueError):
    """The weights are those of another network than that of the parameters."""


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

    def __init__(self, tensors, given, size):
        self.tensors, self.given = tensors, given
        self.most = 100 * size + 2**26  # bytes of an array of words, which the file makes wide

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
        return self.tensors[node["tensor"]]

    def _device(self, node):
        return torch.device(node["device"])

    def _path(self, node):
        return Path(node["path"])

    def _given(self, node):
        return self.given[node[GIVEN]]

    def _array(self, node):
        array = self.tensors[node["array"]].numpy()
        array = array.view(node.get("dtype", array.dtype))
        return array[()] if "scalar" in node else array

    def _objects(self, node):
        dtype = np.dtype(node["dtype"])
        if dtype.kind not in "OU" or dtype.itemsize * len(node["objects"]) > self.most:
            raise UnreadableFileError(f"it has an array of {dtype}.")
        array = np.empty(len(node["objects"]), dtype=dtype)
        for i, item in enumerate(node["objects"]):
            array[i] = self.decode(item)
        array = array.reshape(node["shape"])
        return array[()] if "scalar" in node else array

    def _frame(self, node):
        columns = {i: self.decode(column) for i, column in enumerate(node["frame"])}
        frame = pd.DataFrame(columns, index=self.decode(node["index"]))
        for dtype in node["dtypes"]:
            if not _COLUMN.fullmatch(dtype):
                raise UnreadableFileError(f"it has a column of {dtype}.")
        frame = frame.astype(dict(enumerate(node["dtypes"])))
        of_index, of_columns = node["axes"]
        if node["series"]:
            return frame[0].rename(self.decode(node["name"])).rename_axis(of_index)
        frame = frame.set_axis(pd.Index(self.decode(node["columns"])), axis=1)
        return frame.rename_axis(index=of_index, columns=of_columns)

    def _name(self, node):
        value = find_named(node["name"])
        if value is None:
            raise UnreadableFileError(f"it names {node['name']}, which is not read from files.")
        return value

    def _object(self, node):
        cls = find_class(node["object"])
        if cls is None:
            raise UnreadableFileError(f"it has a {node['object']}, which is not read from files.")
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
        weights = {k: self.tensors[name] for k, name in node["network"].items()}
        if owner.module is None or isinstance(owner.module, str):
            with torch.device("meta"):  # of any size, without memory
                self._check_shapes(owner, fresh_network(owner), weights)
        module = fresh_network(owner)
        self._check_shapes(owner, module, weights)
        module.load_state_dict(weights, assign=True)
        return module.eval()

    def _check_shapes(self, owner, module, weights):
        """Raise where the network has other tensors than the file."""
        wanted = {k: v.shape for k, v in module.state_dict().items()}
        if wanted != {k: v.shape for k, v in weights.items()}:
            is_given = not (owner.module is None or isinstance(owner.module, str))
            error = _DoesNotFit if is_given else UnreadableFileError
            raise error(f"the weights in the file do not fit module={owner.module!r}.")


# Types of columns, none of which the file can make as wide as it likes.
_COLUMN = re.compile("bool|boolean|object|category|string|str|(u?int|float|U?Int|Float)[0-9]+")
