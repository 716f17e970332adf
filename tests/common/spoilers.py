"""What the generated tests do to an argument: other containers, and everything that is wrong.

A spoiler makes of a good value (an array or a list) another one, at a row where it needs one.
``KEEP`` holds the same values, and the call must give the same answer; ``BREAK`` does not, and the
call must raise; of ``CHANGE`` either a finite answer or an error is right.
"""

import collections

import numpy as np
import pandas as pd
import polars
import pyarrow
import scipy.sparse
import torch
from torch.utils.data import DataLoader

HUGE = 10**400  # a Python integer that no float holds

# ------------------------------------------------------------------------ the same values


def _frame(X):
    return pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])


def _read_only(a):
    a = np.array(a)
    a.flags.writeable = False
    return a


def _strided(a):
    twice = np.zeros((2 * len(a), *a.shape[1:]), a.dtype)
    twice[::2] = a
    return twice[::2]


def _backwards(a):
    """A view of negative strides."""
    return np.array(a[::-1])[::-1]


def _nullable(column):
    return pd.array(column.tolist(), dtype="Int64" if column.dtype.kind in "iu" else "Float64")


ANY_ARRAY = {
    "list": lambda a: a.tolist(),
    "read_only": _read_only,
    "strided": _strided,
    "backwards": _backwards,
    "nothing_masked": np.ma.masked_array,
    "swapped_bytes": lambda a: a.astype(a.dtype.newbyteorder()),
}
KEEP = {
    "table": ANY_ARRAY
    | {
        "rows_of_tuples": lambda X: [tuple(row) for row in X.tolist()],
        "list_of_arrays": list,
        "frame": _frame,
        "frame_of_other_index": lambda X: _frame(X).set_index(np.arange(len(X))[::-1]),
        "object": lambda X: X.astype(object),
        "object_frame": lambda X: _frame(X).astype(object),
        "nullable_frame": lambda X: _frame(X).astype("Float64"),
        "tensor": torch.tensor,
        "float64_tensor": lambda X: torch.tensor(X).double(),
        "half_tensor": lambda X: torch.tensor(X).half(),
        "bfloat16_tensor": lambda X: torch.tensor(X).bfloat16(),
        "grad_tensor": lambda X: torch.tensor(X).requires_grad_(),
        "float16": lambda X: X.astype(np.float16),
        "float64": lambda X: X.astype(np.float64),
        "fortran": np.asfortranarray,
        "transposed": lambda X: X.T.copy().T,
        "polars": lambda X: polars.DataFrame(_frame(X)),
        "arrow": lambda X: pyarrow.Table.from_pandas(_frame(X)),
    },
    "column": ANY_ARRAY
    | {
        "tuple": lambda a: tuple(a.tolist()),
        "list_of_scalars": list,
        "series": pd.Series,
        "index": pd.Index,
        "series_of_strange_index": lambda a: pd.Series(a, index=[f"r{i}" for i in range(len(a))]),
        "object": lambda a: a.astype(object),
        "nullable": _nullable,
        "tensor": torch.tensor,
        "polars": lambda a: polars.Series("v", a),
        "arrow": pyarrow.array,
        "chunked": lambda a: pyarrow.chunked_array([a[:5], a[5:]]),
    },
    "whole": {
        "int32": lambda a: a.astype(np.int32),
        "uint8": lambda a: a.astype(np.uint8),
        "float": lambda a: a.astype(float),
        "categorical": pd.Categorical,
        "categorical_series": lambda a: pd.Series(pd.Categorical(a)),
    },
    "pictures": ANY_ARRAY
    | {
        "tensor": torch.tensor,
        "list_of_tensors": lambda X: list(torch.tensor(X)),
        "fortran": np.asfortranarray,
        "int64": lambda X: X.astype(np.int64),
    },
    "texts": {
        "tuple": tuple,
        "series": pd.Series,
        "objects": lambda x: np.array(x, dtype=object),
        "strings": np.array,
        "polars": lambda x: polars.Series("v", x),
        "arrow": pyarrow.array,
    },
}
del KEEP["pictures"]["list"]  # no one writes pictures as lists

# ------------------------------------------------------------------------ what is wrong


def _with(value):
    """One entry is this value."""

    def spoil(a, row):
        if isinstance(a, list):
            return [*a[:row], value, *a[row + 1 :]]
        a = a.astype(object if not isinstance(value, float) else np.result_type(a, np.float64))
        a[(row, *[0] * (a.ndim - 1))] = value
        return a

    return spoil


def _always(value):
    return lambda a, row: value


def _masked(a, row):
    mask = np.zeros(a.shape, bool)
    mask[row] = True
    return np.ma.masked_array(a, mask)


def _ragged(a, row):
    rows = np.asarray(a).reshape(len(a), -1).tolist()
    rows[row] = [*rows[row], rows[row][0]]
    return rows


def _sparse(a, row):
    return scipy.sparse.csr_matrix(np.asarray(a).reshape(len(a), -1).astype(float))


def _frame_with_na(X, row):
    X = _frame(X).astype("Float64")
    X.iloc[row, 0] = pd.NA
    return X


def _column_of(a, row):
    return a[:, 0]


def _polars_null(a, row):
    values = a.tolist()
    values[row] = None
    return polars.Series("v", values)


# No samples at all, whatever the argument is.
NO_SAMPLES = {
    "generator": lambda a, row: (value for value in a),
    "map": lambda a, row: map(np.asarray, a),
    "set": lambda a, row: {1, 2, 3},
    "loader": lambda a, row: DataLoader(torch.zeros(len(a), 2), batch_size=4),
    "dict": lambda a, row: {"input_ids": torch.zeros(len(a), 2)},
    "user_dict": lambda a, row: collections.UserDict(input_ids=torch.zeros(len(a), 2)),
    "str": _always("a bare text"),
    "bytes": _always(b"bytes"),
    "int": _always(3),
    "float": _always(0.5),
    "bool": _always(True),
    "object": _always(object()),
    "type": _always(np.ndarray),
    "function": _always(len),
    "array_of_no_dimension": lambda a, row: np.array(1.0),
    "tensor_of_no_dimension": lambda a, row: torch.tensor(1.0),
}
LENGTHS = {
    "longer": lambda a, row: [*a, a[0]] if isinstance(a, list) else np.concatenate([a, a[:1]]),
    "shorter": lambda a, row: a[:-1],
    "empty": lambda a, row: a[:0],
    "empty_list": _always([]),
}
MISSING = {
    "nan": _with(np.nan),
    "none_in_it": _with(None),
    "na": _with(pd.NA),
    "nat": _with(np.datetime64("NaT")),
    "masked": _masked,
}
NO_NUMBERS = {
    "inf": _with(np.inf),
    "minus_inf": _with(-np.inf),
    "huge": _with(HUGE),
    "text_in_it": _with("text"),
    "bytes_in_it": _with(b"\xff"),
    "dict_in_it": _with({}),
    "complex": lambda a, row: a.astype(complex) + 1j,
    "texts": lambda a, row: np.full(a.shape, "text"),
    "dates": lambda a, row: np.full(a.shape, "2020-01-01", dtype="datetime64[D]"),
    "structured": lambda a, row: np.zeros(len(a), dtype=[("a", float), ("b", int)]),
}
BREAK = {
    "table": NO_SAMPLES
    | LENGTHS
    | MISSING
    | NO_NUMBERS
    | {
        "none": _always(None),
        "sparse": _sparse,
        "ragged": _ragged,
        "column": lambda a, row: a[:, 0],
        "frame_with_na": _frame_with_na,
        "frame_with_texts": lambda a, row: _frame(a).assign(c0="text"),
        "no_columns": lambda a, row: a[:, :0],
        "nan_tensor": lambda a, row: torch.tensor(_with(np.nan)(a, row)),
        "sparse_tensor": lambda a, row: torch.tensor(a).to_sparse(),
        "complex_tensor": lambda a, row: torch.tensor(a).to(torch.complex64),
        "meta_tensor": lambda a, row: torch.tensor(a).to("meta"),
    },
    "labels": NO_SAMPLES
    | LENGTHS
    | MISSING
    | {
        "none": _always(None),
        "dict_in_it": _with({}),
        "list_in_it": _ragged,
        "two_columns": lambda a, row: np.stack([a, a], 1),
        "complex": NO_NUMBERS["complex"],
        "structured": NO_NUMBERS["structured"],
        "sparse": _sparse,
        "polars_null": _polars_null,
    },
    "groups": NO_SAMPLES
    | LENGTHS
    | MISSING
    | {
        "dict_in_it": _with({}),
        "three_dimensions": lambda a, row: np.zeros((len(a), 2, 2)),
        "sparse": _sparse,
        "ragged": _ragged,
        "polars_null": _polars_null,
    },
    "weights": NO_SAMPLES
    | LENGTHS
    | MISSING
    | NO_NUMBERS
    | {
        "negative": _with(-1.0),
        "two_columns": lambda a, row: np.stack([a, a], 1),
        "list_in_it": _ragged,
        "sparse": _sparse,
        "polars_null": _polars_null,
    },
    "pictures": NO_SAMPLES
    | {
        "column": lambda a, row: a[:, 0, 0, 0],
        "table": lambda a, row: a[:, :, 0, 0].astype(float),
        "five_dimensions": lambda a, row: a[:, None],
        "text_in_it": _with("text"),
        "complex": NO_NUMBERS["complex"],
        "none": _always(None),
    },
    "texts": NO_SAMPLES
    | {
        "none": _always(None),
        "none_in_it": _with(None),
        "nan": _with(np.nan),
        "number_in_it": _with(3),
        "bytes_in_it": _with(b"\xff"),
        "list_in_it": _with(["text"]),
        "table": lambda a, row: np.zeros((len(a), 2)),
    },
    "number": {
        "text": _always("text"),
        "none": _always(None),
        "nan": _always(np.nan),
        "complex": _always(1j),
        "list": _always([1]),
        "array": lambda a, row: np.array([a, a]),
        "dict": _always({}),
    },
    "count": {
        "fraction": lambda a, row: a + 0.5,
        "zero": _always(0),
        "negative": _always(-1),
        "inf": _always(np.inf),
    },
}
# ------------------------------------------------------------------------ what may go or not

CHANGE = {
    "table": {
        "constant": lambda a, row: np.ones_like(a),
        "zeros": lambda a, row: np.zeros_like(a),
        "equal_rows": lambda a, row: np.repeat(a[:1], len(a), 0),
        "large": lambda a, row: a * 1e30,
        "large_doubles": lambda a, row: a.astype(float) * 1e200,
        "tiny": lambda a, row: a * 1e-30,
        "outlier": lambda a, row: _with(1e30)(a, row).astype(float),
        "bools": lambda a, row: a > 0,
        "three_dimensions": lambda a, row: a[:, :, None],
        "other_columns": lambda a, row: np.hstack([a, a]),
        "one_column": lambda a, row: a[:, :1],
        "equal_names": lambda a, row: pd.DataFrame(a, columns=["c"] * a.shape[1]),
        "numbered_names": lambda a, row: pd.DataFrame(a),
        "decimal_texts": lambda a, row: a.astype(str),
        "whole": lambda a, row: a.round().astype(int),
        "longdouble": lambda a, row: a.astype(np.longdouble),
        "matrix_of_strides_zero": lambda a, row: np.broadcast_to(a[:1], a.shape),
    },
    "labels": {
        "one_class": lambda a, row: np.zeros_like(a),
        "a_class_each": lambda a, row: np.arange(len(a)),
        "a_rare_class": _with(7),
        "scores": lambda a, row: a + np.linspace(0, 0.5, len(a)),
        "bools": lambda a, row: a.astype(bool),
        "texts": lambda a, row: a.astype(str),
        "objects_of_texts": lambda a, row: a.astype(str).astype(object),
        "negative": lambda a, row: 2 * a - 1,
        "inf": _with(np.inf),
        "huge": _with(HUGE),
        "text_in_it": _with("text"),
        "bytes": lambda a, row: a.astype("S"),
        "dates": lambda a, row: np.array(["2020-01-01", "2021-01-01"], "datetime64[D]")[a % 2],
        "a_column": lambda a, row: a[:, None],
        "one_hot": lambda a, row: np.eye(2)[a % 2],
        "backwards": lambda a, row: a[::-1],
    },
    "groups": {
        "none": _always(None),
        "one_group": lambda a, row: np.zeros_like(a),
        "a_group_each": lambda a, row: np.arange(len(a)),
        "scores": lambda a, row: a + np.linspace(0, 0.5, len(a)),
        "a_rare_group": _with(77),
        "bools": lambda a, row: a > 1,
        "texts": lambda a, row: a.astype(str),
        "tuples": lambda a, row: [(value, "t") for value in a.tolist()],
        "two_columns": lambda a, row: np.stack([a, a % 2], 1),
        "frame": lambda a, row: pd.DataFrame({"a": a, "b": a % 2}),
        "text_in_it": _with("text"),
        "inf": _with(np.inf),
        "huge": _with(HUGE),
        "complex": NO_NUMBERS["complex"],
        "dates": lambda a, row: np.full(a.shape, "2020-01-01", dtype="datetime64[D]"),
        "no_columns": lambda a, row: np.zeros((len(a), 0)),
        "masks": lambda a, row: {int(g): a == g for g in np.unique(a)},
        "strange": lambda a, row: np.array(["$a_1$", "\\", "<b>", "%s {}"])[a % 4],
    },
    "weights": {
        "none": _always(None),
        "zeros": lambda a, row: np.zeros_like(a),
        "large": lambda a, row: a * 1e300,
        "tiny": lambda a, row: a * 1e-300,
        "one_zero": _with(0.0),
        "bools": lambda a, row: a > 0,
        "decimal_texts": lambda a, row: a.astype(str),
        "a_column": lambda a, row: a[:, None],
    },
    "pictures": {
        "empty": LENGTHS["empty"],
        "nan": _with(np.nan),
        "grey": lambda a, row: a[:, 0],
        "unit": lambda a, row: a / np.float32(255),
        "no_pixels": lambda a, row: a[..., :0],
        "zeros": lambda a, row: np.zeros_like(a),
        "bools": lambda a, row: a > 100,
        "floats": lambda a, row: a.astype(np.float64),
        "last_channels": lambda a, row: a.transpose(0, 2, 3, 1),
        "negative": lambda a, row: a.astype(np.int64) - 128,
        "five_channels": lambda a, row: np.concatenate([a, a[:, :2]], 1),
    },
    "texts": {
        "empty": lambda a, row: [],
        "empty_texts": lambda a, row: [""] * len(a),
        "one_empty": _with(""),
        "no_words": _with("... !!!"),
        "zeros": _with("\0"),
        "letters": _with("ελλην 中文 \U0001f600 \ud800"),
        "equal": lambda a, row: [a[0]] * len(a),
    },
    "number": {
        "inf": _always(np.inf),
        "huge": _always(HUGE),
        "bool": _always(True),
        "negative": lambda a, row: -a,
        "zero": _always(0),
    },
    "count": {"bool": _always(True)},
}


_TENSOR = {
    "array": np.array,
    "list": lambda a: a.tolist(),
    "float64": lambda a: torch.tensor(a).double(),
    "half": lambda a: torch.tensor(a).half(),
    "with_gradient": lambda a: torch.tensor(a).requires_grad_(),
    "strided": lambda a: torch.tensor(_strided(a)),
    "series": lambda a: pd.Series(list(a)),
}
_CODE_TENSOR = {
    "array": np.array,
    "list": lambda a: a.tolist(),
    "int32": lambda a: torch.tensor(a).int(),
    "uint8": lambda a: torch.tensor(a).to(torch.uint8),
    "floats": lambda a: torch.tensor(a).float(),
    "strided": lambda a: torch.tensor(_strided(a)),
}
_no_lengths = {"empty": LENGTHS["empty"], "empty_list": LENGTHS["empty_list"]}
_codes = {
    "negative": _with(-1),
    "beyond": _with(10**6),
    "scores": CHANGE["labels"]["scores"],
    "texts": CHANGE["labels"]["texts"],
}
_either = {name: NO_NUMBERS[name] for name in ("inf", "minus_inf")}
_SCALARS = {name: NO_SAMPLES[name] for name in ("int", "float", "bool", "array_of_no_dimension")}
_NOT_ANY = {k: v for k, v in NO_SAMPLES.items() if k not in (*_SCALARS, "tensor_of_no_dimension")}
_ITERABLE = {k: NO_SAMPLES[k] for k in ("generator", "map")}

# Of every kind: what keeps the values, what breaks them, what may go or not.
KINDS = {
    "table": (KEEP["table"], BREAK["table"], CHANGE["table"]),
    "labels": (KEEP["column"] | KEEP["whole"], BREAK["labels"], CHANGE["labels"]),
    "codes": (
        KEEP["column"] | KEEP["whole"],
        BREAK["labels"] | {k: v for k, v in _codes.items() if k != "beyond"},
        {k: v for k, v in CHANGE["labels"].items() if k not in _codes} | {"beyond": _with(10**6)},
    ),
    "groups": (
        KEEP["column"] | KEEP["whole"],
        {k: v for k, v in BREAK["groups"].items() if k not in _ITERABLE},
        CHANGE["groups"] | _ITERABLE,
    ),
    "attribute": (
        {k: v for k, v in KEEP["column"].items() if k not in ("nothing_masked",)},
        NO_SAMPLES | {"longer": LENGTHS["longer"], "shorter": LENGTHS["shorter"]},
        {
            "none": _always(None),
            "ragged": _ragged,
            "minus_one": _with(-1.0),
            "one": lambda a, row: a * 0 + 1,
        },
    ),
    "weights": (KEEP["column"], BREAK["weights"], CHANGE["weights"]),
    "values": (
        KEEP["column"],
        {k: v for k, v in BREAK["weights"].items() if k != "negative"},
        CHANGE["weights"],
    ),
    "strata": (
        KEEP["column"] | KEEP["whole"],
        {k: v for k, v in BREAK["labels"].items() if k not in ("empty", "empty_list")},
        {k: v for k, v in CHANGE["labels"].items() if k not in _codes} | _no_lengths,
    ),
    "pictures": (KEEP["pictures"], BREAK["pictures"], CHANGE["pictures"]),
    "texts": (KEEP["texts"], BREAK["texts"], CHANGE["texts"]),
    "pairs": ({"tuple": tuple}, NO_SAMPLES | {"none": _always(None)}, {"empty": _always([])}),
    "samples": (
        {k: v for k, v in KEEP["table"].items() if k != "list_of_arrays"},
        {k: v for k, v in NO_SAMPLES.items() if k not in ("dict", "user_dict")} | LENGTHS,
        CHANGE["table"] | MISSING,
    ),
    "masks": (
        {
            "bools": lambda a: a.astype(bool),
            "list": lambda a: a.tolist(),
            "frame": _frame,
            "dict": lambda a: dict(enumerate(a.T)),
            "polars": lambda a: polars.DataFrame(_frame(a)),
            "tensor": torch.tensor,
        },
        {k: v for k, v in NO_SAMPLES.items() if k not in ("dict", "user_dict")}
        | MISSING
        | {"two": _with(2), "half": _with(0.5), "text": _with("text"), "column": _column_of},
        {"empty": LENGTHS["empty"], "no_columns": lambda a, row: a[:, :0]},
    ),
    "tensor": (
        _TENSOR,
        _NOT_ANY | {"none": _always(None), "texts": NO_NUMBERS["texts"], "ragged": _ragged},
        _either | LENGTHS | {"nan": MISSING["nan"], "whole": CHANGE["table"]["whole"]} | _SCALARS,
    ),
    "code_tensor": (
        _CODE_TENSOR,
        NO_SAMPLES
        | _codes
        | {"none": _always(None), "longer": LENGTHS["longer"]}
        | {"shorter": LENGTHS["shorter"], "nan": MISSING["nan"]},
        {"one_class": CHANGE["labels"]["one_class"], "bools": CHANGE["labels"]["bools"]},
    ),
    "flags": (
        {"list": lambda a: a.tolist(), "numbers": lambda a: a.astype(int)},
        _NOT_ANY | {"none": _always(None), "texts": NO_NUMBERS["texts"]},
        _no_lengths | _SCALARS,
    ),
    "partitions": (
        {"list": lambda a: list(a), "nested": lambda a: a.tolist()},
        _NOT_ANY
        | {"none": _always(None), "texts": NO_NUMBERS["texts"], "codes": lambda a, row: a[0]},
        _no_lengths,
    ),
    "counts": (
        {"list": lambda a: a.tolist(), "floats": lambda a: a.astype(float), "series": pd.Series},
        _NOT_ANY
        | LENGTHS
        | {"none": _always(None), "negative": lambda a, row: -a}
        | {"text_in_it": NO_NUMBERS["text_in_it"], "nan": MISSING["nan"]},
        _SCALARS,
    ),
    "number": ({}, BREAK["number"], CHANGE["number"]),
    "count": (
        {"numpy": np.int64, "unsigned": np.uint8},
        BREAK["number"] | BREAK["count"] | {"text": _always("text")},
        {"bool": _always(True)},
    ),
    "path": (
        {},
        {
            "none": _always(None),
            "int": _always(-3),
            "missing": _always("no/such/file"),
            "list": _always([]),
        }
        | {"bytes": _always(b"no file"), "empty": _always("")},
        {},
    ),
    "estimator": (
        {},
        {
            "none": _always(None),
            "class": _always(dict),
            "text": _always("text"),
            "array": _always(np.zeros(3)),
        },
        {},
    ),
}


def spoilers_of(kind):
    """Spoilers of a kind of argument: by name what must come of it, and a function."""
    keep, wrong, other = KINDS[kind]
    result = {name: ("same", lambda a, row, f=f: f(a)) for name, f in keep.items()}
    for verdict, spoilers in (("error", wrong), ("either", other)):
        for name, function in spoilers.items():
            result.setdefault(name, (verdict, function))
    return result


def good(kind, value):
    """The value as it is passed where it is not spoiled."""
    return torch.tensor(value) if kind in ("tensor", "code_tensor") else value


def spoil(kind, value, name, row):
    """A spoiled value, and what must come of it."""
    verdict, function = spoilers_of(kind)[name]
    spoiled = function(value, row % max(1, np.shape(value)[0] if np.ndim(value) else 1))
    if kind in ("tensor", "code_tensor") and isinstance(spoiled, np.ndarray) and verdict != "same":
        numbers = spoiled.dtype.kind in "biuf" and spoiled.ndim
        spoiled = torch.tensor(spoiled.copy()) if numbers else spoiled
        if numbers and kind == "tensor" and name != "whole":
            spoiled = spoiled.to(torch.float32)
    return spoiled, verdict
