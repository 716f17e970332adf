"""What the public functions take: other things are refused by the name of the argument.

No check waits for the device: values of a tensor are looked at on the CPU alone.
"""

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch

F = TypeVar("F", bound=Callable)
Check = Callable[[Any, str], Any]


def takes(*, rows: tuple[str, ...] = (), **checks: Check) -> Callable[[F], F]:
    """Decorate a function with a check for each of some of its arguments.

    Parameters
    ----------
    rows : tuple of str, default=()
        Arguments that must have the same length.
    **checks : callables
        By the name of the argument: called with the value and the name, each returns the value
        to use. None is not checked where it is the default.

    Returns
    -------
    decorate : callable
    """

    def decorate(function: F) -> F:
        parameters = inspect.signature(function).parameters

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(parameters, args), **kwargs)
            if len(given) < len(args) + len(kwargs):
                return function(*args, **kwargs)  # Python says what is wrong
            for name, check in checks.items():
                if name in given and not (given[name] is None and parameters[name].default is None):
                    given[name] = check(given[name], name)
            lengths = {
                name: len(given[name]) for name in rows if getattr(given.get(name), "ndim", 0)
            }
            if len(set(lengths.values())) > 1:
                raise ValueError(f"arguments differ in length: {lengths}.")
            return function(**given)

        return checked  # type: ignore[return-value]

    return decorate


def tensor(ndim: int | None = None) -> Check:
    """A tensor of real numbers, of floats unless it is counts."""

    def check(value: Any, name: str) -> Any:
        if not torch.is_tensor(value):
            raise TypeError(f"{name} must be a tensor; got {type(value).__name__}.")
        if value.is_complex() or value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor of real numbers; got {value.dtype}.")
        if ndim is not None and value.ndim != ndim:
            shape = tuple(value.shape)
            raise ValueError(f"{name} must have {ndim} dimension(s); got shape {shape}.")
        return value if value.is_floating_point() else value.float()

    return check


def code_tensor(value: Any, name: str) -> Any:
    """A tensor of classes or groups, numbered from 0, as int64."""
    if not torch.is_tensor(value) or value.is_floating_point() or value.is_complex():
        what = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of integers; got {what}.")
    if value.ndim != 1:
        raise ValueError(f"{name} must have shape (n_samples,); got {tuple(value.shape)}.")
    if value.device.type == "cpu" and value.numel() and value.min() < 0:
        raise ValueError(f"{name} must be numbered from 0; got {value.min()}.")
    return value.long()


def array(ndim: int | None = None, *, lowest: float | None = None) -> Check:
    """An array of finite numbers, none of them below the lowest."""

    def check(value: Any, name: str) -> Any:
        values = _as_array(value, name)
        if values.dtype.kind not in "buif":
            raise TypeError(f"{name} must hold real numbers; got {values.dtype}.")
        if ndim is not None and values.ndim != ndim:
            raise ValueError(f"{name} must have {ndim} dimension(s); got shape {values.shape}.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite; it has NaN or infinity.")
        if 0 in values.shape[1:]:
            raise ValueError(f"{name} has no columns; got shape {values.shape}.")
        if values.size and max(abs(float(values.max())), abs(float(values.min()))) > 1e100:
            raise ValueError(f"{name} has values above 1e100, whose squares no float holds.")
        if lowest is not None and values.size and values.min() < lowest:
            raise ValueError(f"{name} must be at least {lowest:g}; got {values.min():g}.")
        return values if ndim != 2 or values.dtype.kind == "f" else values.astype(np.float64)

    return check


def codes(lowest: int | None = 0) -> Check:
    """An array of classes or groups, numbered from the lowest, as int64."""

    def check(value: Any, name: str) -> Any:
        values = _as_array(value, name)
        if values.ndim != 1:
            raise ValueError(f"{name} must have shape (n_samples,); got {values.shape}.")
        if values.dtype.kind not in "bui":
            is_number = values.dtype.kind == "f" and np.isfinite(values).all()
            if not is_number or np.any(values != np.floor(values)):
                raise TypeError(f"{name} must hold integers; got {values.dtype}.")
        if 0 in values.shape[1:]:
            raise ValueError(f"{name} has no columns; got shape {values.shape}.")
        if values.size and max(abs(float(values.max())), abs(float(values.min()))) > 1e100:
            raise ValueError(f"{name} has values above 1e100, whose squares no float holds.")
        if lowest is not None and values.size and values.min() < lowest:
            raise ValueError(f"{name} must be at least {lowest}; got {values.min()}.")
        return values.astype(np.int64)

    return check


def partitions(value: Any, name: str) -> Any:
    """A list of arrays of clusters, numbered from 0."""
    if not isinstance(value, list | tuple | np.ndarray):
        raise TypeError(f"{name} must be a list of arrays; got {type(value).__name__}.")
    check = codes()
    return [check(part, f"{name}[{i}]") for i, part in enumerate(value)]


def number(value: Any, name: str) -> Any:
    """A finite number, or a tensor of them."""
    if torch.is_tensor(value):
        return value
    try:
        is_number = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # of an integer that no float holds
        is_number = False
    if not is_number:
        raise TypeError(f"{name} must be a finite number; got {value!r:.60}.")
    return value


def count(value: Any, name: str) -> int:
    """A positive whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number; got {value!r:.60}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value}.")
    return int(value)


def check_map(**given: Any) -> None:
    """Features and the numbers of a map on them: all tensors or all arrays, of shapes that fit."""
    names, values = ", ".join(given), list(given.values())
    are_tensors = [torch.is_tensor(value) for value in values]
    if any(are_tensors) and not all(are_tensors):
        raise TypeError(f"{names} must all be tensors, or none of them.")
    for name, value in given.items():
        is_number = isinstance(value, Real | np.ndarray) and np.asarray(value).dtype.kind in "buif"
        is_float = torch.is_tensor(value) and value.is_floating_point()
        if not (is_number or is_float):
            raise TypeError(f"{name} must hold real numbers; got {type(value).__name__}.")
    shapes = [tuple(np.shape(value)) for value in values]
    try:
        fits = np.broadcast_shapes(*shapes) == shapes[0]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"the shapes of {names} do not fit: {shapes}.")


def _as_array(value: Any, name: str) -> Any:
    """Anything that has rows, as an array of a plain type."""
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        raise ValueError(f"{name} has masked values.")
    try:
        if torch.is_tensor(value):
            value = value.detach().cpu()
            value = value.float() if value.dtype == torch.bfloat16 else value
        values = np.asarray(value)
        if values.dtype == object and values.size:
            values = np.array(values.tolist())
    except (TypeError, ValueError, RuntimeError, NotImplementedError, OverflowError) as error:
        raise TypeError(f"{name} must be an array of numbers: {error}.") from error
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))
