"""One call with spoiled arguments: what must come of it, and whether it does.

``check("metrics.group_accuracy", {"sample_group": "masked"}, row=3)`` is one case; a failure prints
it so.
"""

import re
import traceback
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from calls import CALLS
from hypothesis import strategies as st
from registry import ENTRIES
from sklearn.exceptions import NotFittedError
from spoilers import good, spoil, spoilers_of

import skspurious

OURS = str(Path(skspurious.__file__).parent)
SKLEARN = str(Path(sklearn.__file__).parent)
EXPECTED = "|".join(
    [
        "X does not have valid feature names|X has feature names, but",
        *(w for entry in ENTRIES for w in entry.warnings),
    ]
)


@st.composite
def cases(draw):
    """A call, one or two of its arguments, a spoiler for each, and a row."""
    name = draw(st.sampled_from([name for name, call in CALLS.items() for _ in range(call.weight)]))
    arguments = CALLS[name].arguments
    chosen = draw(st.lists(st.sampled_from(list(arguments)), min_size=1, max_size=2, unique=True))
    spoilers = {a: draw(st.sampled_from(spoilers_for(name, a))) for a in chosen}
    return name, spoilers, draw(st.integers(0, 39))


def spoilers_for(name, argument):
    """Names of the spoilers of an argument of a call."""
    call = CALLS[name]
    names = spoilers_of(call.arguments[argument][0])
    return [spoiler for spoiler in names if spoiler not in call.without]


def check(name, spoilers, row=0):
    """Make the call, and raise AssertionError for what is neither a right answer nor an error.

    Parameters
    ----------
    name : str
        Of the call.
    spoilers : dict from argument to str
    row : int, default=0
        Row at which a value is spoiled, where it is a row.
    """
    call = CALLS[name]
    given = {a: good(*of) for a, of in call.arguments.items()}
    verdicts = []
    for argument, spoiler in spoilers.items():
        given[argument], verdict = spoil(*call.arguments[argument], spoiler, row)
        if spoiler in ("longer", "shorter") and (
            _n_with_rows(call) == 1 or argument == "train_group"
        ):
            verdict = "either"  # there is nothing to compare the length with
        if spoiler == "none" and argument in call.optional:
            verdict = "either"
        verdicts.append(verdict)
    if "frame_of_other_index" in spoilers.values() and len(spoilers) > 1:
        verdicts = ["either"]  # an index of its own that contradicts another is refused
    case = f"check({name!r}, {spoilers!r}, row={row})"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = call.function(**given, **call.fixed)
        except Exception as error:
            _check_error(error, call, case, verdicts)
            answer = None
    _check_warnings(caught, case)
    if answer is None:
        return
    assert verdicts.count("error") != 1 or "either" in verdicts, f"{case}: no error"
    if all(verdict == "same" for verdict in verdicts):
        _check_equal(answer, _right_answer(name), case, call.tolerance)
    elif not call.gives_nan:
        for values in _arrays(answer):
            is_float = values.dtype.kind == "f"
            assert not is_float or np.isfinite(values).all(), f"{case}: the answer is not finite"


def _n_with_rows(call):
    return sum(kind not in ("number", "count") for kind, _ in call.arguments.values())


def _check_error(error, call, case, verdicts):
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{case}: {type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
    assert isinstance(error, ValueError | TypeError | NotFittedError | OSError), text
    of_sklearn = where.filename.startswith(SKLEARN) or "could not convert string" in str(error)
    of_ours = where.filename.startswith(OURS) and where.line.startswith("raise ")
    of_ours |= isinstance(error, OSError)  # of a file, with its path
    assert of_sklearn or of_ours, f"an accident: {text}"
    if call.is_strict:
        assert not all(verdict == "same" for verdict in verdicts), f"refused: {text}"
    words = [*call.arguments, *call.words, *SAID[of_sklearn]]
    words += [str(error.filename)] if isinstance(error, OSError) and error.filename else []
    pattern = r"(?<![A-Za-z])(" + "|".join(map(re.escape, words)) + r")(?![A-Za-z])"
    assert re.search(pattern, str(error)), f"no argument is named: {text}"


# What stands for an argument: scikit-learn names X and y by these.
SAID = {
    False: (
        *("X", "y", "mask", "masks", "features", "n_splits", "target", "class", "classes"),
        *("group", "groups", "sample", "samples", "picture", "pictures"),
    ),
    True: (
        "Complex",
        "Sample weights",
        "sparse",
        "n_splits",
        "x",
        "X",
        "y",
        "array",
        "arrays",
        "classes",
        "features",
        "input",
        "inputs",
        "label",
        "labels",
        "samples",
        "sample_weight",
        "target",
        "targets",
        "Sparse",
        "sequence",
        "float",  # "could not convert string to float"
    ),
}


def _check_warnings(caught, case):
    for warning in caught:
        text = str(warning.message)
        known = re.match(EXPECTED, text)
        foreign = not issubclass(warning.category, UserWarning) or any(
            f"/{library}/" in warning.filename for library in ("torch", "numpy", "pandas", "scipy")
        )
        assert known or not foreign, (
            f"{case}: {warning.category.__name__}: {text[:200]} "
            f"({warning.filename}:{warning.lineno})"
        )


@cache
def _right_answer(name):
    call = CALLS[name]
    given = {argument: good(*of) for argument, of in call.arguments.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call.function(**given, **call.fixed)


def _arrays(answer):
    """Everything in an answer, as arrays."""
    if torch.is_tensor(answer):
        return [answer.detach().float().numpy()]
    if hasattr(answer, "macro"):  # a silhouette
        return [np.array([answer.mean, answer.macro])]
    if isinstance(answer, pd.DataFrame):
        return [answer[c].to_numpy() for c in answer.columns]
    if hasattr(answer, "tensor"):
        return _arrays(answer.tensor)
    if isinstance(answer, pd.Series):
        return [answer.to_numpy()]
    if isinstance(answer, tuple | list) and len(answer) and isinstance(answer[0], str):
        return [np.array(answer, dtype=object)]
    if isinstance(answer, tuple | list):
        return [array for part in answer for array in _arrays(part)]
    return [np.asarray(answer)]


def _check_equal(answer, right, case, tolerance):
    answer, right = _arrays(answer), _arrays(right)
    assert len(answer) == len(right), f"{case}: {len(answer)} parts, not {len(right)}"
    for a, b in zip(answer, right):
        assert a.shape == b.shape, f"{case}: shape {a.shape}, not {b.shape}"
        if b.dtype.kind in "biuf":
            a = a.astype(float)
            equal = np.allclose(a, b, rtol=tolerance, atol=tolerance / 100, equal_nan=True)
        else:
            equal = a.tolist() == b.tolist()
        assert equal, f"{case}: another answer: {a.ravel()[:4]}, not {b.ravel()[:4]}"
