"""save_model, and the writer that turns an estimator into nodes and tensors."""

import enum
import json
import math
import os
import re

import numpy as np
import pandas as pd
import sklearn
import torch
from safetensors.torch import save
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skspurious._version import __version__
from skspurious.base import BaseTorchClassifier
from skspurious.persistence._format import (
    FORMAT,
    GIVEN,
    HASH,
    KEY,
    content_hash,
    find_class,
    find_named,
    fresh_network,
    name_of,
)
from skspurious.utils._files import replacing

__all__ = ["save_model"]


def save_model(estimator, path):
    """Write a fitted estimator as a safetensors file.

    .. versionadded:: 0.1

    Parameters
    ----------
    estimator : estimator
        A fitted classifier, extractor or inferrer of this package, or a pipeline of them and of
        scikit-learn's transformers.
    path : str or path-like
        The file. An older one is replaced, and stays whole until the new one is written.

    Raises
    ------
    TypeError
        If a part of the estimator cannot be written; the message names the part.
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
    if hasattr(estimator, "best_estimator_"):
        raise TypeError(
            f"a {type(estimator).__name__} cannot be written: save its best_estimator_, "
            "save_model(search.best_estimator_, path), or use joblib or pickle."
        )
    check_is_fitted(estimator)
    writer = _Writer()
    tree = writer.attribute(estimator, type(estimator).__name__)
    header = {
        "format": FORMAT,
        "versions": {
            "skspurious": __version__,
            "scikit-learn": sklearn.__version__,
            "torch": str(torch.__version__),
        },
        "given": writer.given,
        "estimator": tree,
    }
    text = json.dumps(header)
    metadata = {KEY: text, HASH: content_hash(text, writer.tensors)}
    with replacing(path) as file:
        file.write(save(writer.tensors, metadata))


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
        if isinstance(value, slice):
            return {"slice": self.encode([value.start, value.stop, value.step], where)}
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
        named = name_of(value)
        if named is not None and find_named(named) is value:
            return {"name": named}
        cls = type(value)
        if find_class(f"{cls.__module__}:{cls.__qualname__}") is cls:
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
        return {GIVEN: self._keys[name, what]}

    def _network(self, owner, module, where):
        """The weights of a network; what it is made of is known from its owner's parameters."""
        if owner.module in ("googlenet", "inception_v3") and owner.weights is not None:
            raise TypeError(
                f"{where} is a {owner.module} that was made with weights, which is another "
                "network than without. Use joblib or pickle."
            )
        mine = module.state_dict()
        fresh = fresh_network(owner).state_dict()
        if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in fresh.items()}:
            raise TypeError(
                f"{where} has other tensors than the network that {type(owner).__name__}'s "
                "parameters make, so that it could not be made again. Use joblib or pickle."
            )
        return {"network": {k: self._add(v, f"{where}.{k}") for k, v in mine.items()}}


def _holds_estimator(value):
    if isinstance(value, list | tuple):
        return any(_holds_estimator(item) for item in value)
    return isinstance(value, BaseEstimator)
