"""Warnings that point at the user's line."""

import contextlib
import functools
import os
import sys
import warnings
from types import FrameType, ModuleType

import joblib
import sklearn
import torch

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _folder(package: ModuleType) -> str:
    return os.path.dirname(os.path.abspath(package.__file__ or ""))


# Between the user's line and ours may be a search, a Pipeline, a parallel job, or a decorator.
_FOLDERS = tuple(
    folder + os.sep for folder in (_PACKAGE, _folder(sklearn), _folder(joblib), _folder(torch))
)
_FILES = {contextlib.__file__, functools.__file__}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside the package that led here.

    A number for ``stacklevel`` would depend on how many functions are between, and on whether
    the estimator is inside a Pipeline or a search.

    Parameters
    ----------
    message : str
        What is the matter, and the remedy.
    category : type of Warning, default=UserWarning
        Class of the warning.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("group 3 has one sample")
    >>> str(caught[0].message)
    'group 3 has one sample'
    """
    frame = _user_frame(sys._getframe(1))
    warnings.warn_explicit(
        message,
        category,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _user_frame(frame: FrameType) -> FrameType:
    """The innermost frame outside the libraries; the outermost of all where there is none."""
    while _is_internal(frame) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_internal(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    return filename in _FILES or filename.startswith(_FOLDERS)
