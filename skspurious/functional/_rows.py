"""Rows of a large array: in chunks, in an order of their own, distinct, on a line."""

import sys
from collections.abc import Iterator

import numpy as np

__all__ = ["find_line", "row_ids", "row_order", "unique_rows"]

_CHUNK_SIZE = 2**20  # numbers converted to float64 at a time


def row_chunks(n_rows: int, n_features: int) -> Iterator[slice]:
    """Slices of rows, of about a million numbers each; at least one, which may be empty."""
    step = max(1, _CHUNK_SIZE // max(1, n_features))
    for start in range(0, max(1, n_rows), step):
        yield slice(start, min(start + step, n_rows))


def squared_norm(rows: np.ndarray) -> np.ndarray:
    """Squared length of every row; how the rows lie in memory changes nothing."""
    rows = np.ascontiguousarray(rows)
    return np.einsum("ij,ij->i", rows, rows)


def squared_to_own_center(X: np.ndarray, centers: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Squared distance of every row to the center that its label names, shape (n_samples,)."""
    parts = [squared_norm(X[p] - centers[label[p]]) for p in row_chunks(*X.shape)]
    return np.concatenate(parts)


def column_means(X: np.ndarray, sample_count: np.ndarray) -> np.ndarray:
    """Mean of every column in float64, with rows that count several times."""
    total = np.zeros(X.shape[1])
    for part in row_chunks(*X.shape):
        total = total + np.multiply(X[part], sample_count[part, None], dtype=np.float64).sum(0)
    return total / sample_count.sum(dtype=np.float64)


def row_order(X: np.ndarray) -> np.ndarray:
    """Permutation that sorts the rows by their first number, then the second, and so on.

    Rows that change in the last bits, as they do from one processor to another, keep their
    places. Equal rows stay as they come.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    order : ndarray of shape (n_samples,), int64

    Examples
    --------
    >>> row_order(np.array([[1.0], [0.0], [1.0]]))
    array([1, 0, 2])
    """
    key = _sort_keys(X)
    return np.argsort(key.view(np.dtype((np.void, key[:1].nbytes))).ravel(), kind="stable")


def distinct_rows(X: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are distinct, among those that an order lists.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    order : ndarray of shape (n_listed,), int64
        Positions of rows, equal ones next to each other: a part of what `row_order` gives.

    Returns
    -------
    index : ndarray of shape (n_distinct,), int64
        Where each distinct row occurs first.
    count : ndarray of shape (n_distinct,), int64
        How often each occurs: ``order`` lists so many of the first, then of the second.
    """
    is_new = np.ones(len(order), dtype=bool)
    for part in row_chunks(len(order) - 1, X.shape[1]):
        rows = X[order[part.start : part.stop + 1]]
        is_new[part.start + 1 : part.stop + 1] = (rows[1:] != rows[:-1]).any(axis=1)
    first = np.flatnonzero(is_new)
    return order[first], np.diff(first, append=len(order))


def unique_rows(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct rows in an order that does not depend on the order of the input.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    rows : ndarray of shape (n_distinct, n_features)
        The distinct rows, in the order of :func:`row_order`.
    index : ndarray of shape (n_distinct,), int64
        Where each occurs first: ``rows`` equals ``X[index]``.
    count : ndarray of shape (n_distinct,), int64
        How often each occurs.

    Examples
    --------
    >>> rows, index, count = unique_rows(np.array([[1.0], [0.0], [1.0]]))
    >>> rows.ravel(), index, count
    (array([0., 1.]), array([1, 0]), array([1, 2]))
    """
    index, count = distinct_rows(X, row_order(X))
    rows = X[index]
    rows += 0.0  # not -0.0
    return rows, index, count


def row_ids(X: np.ndarray) -> np.ndarray:
    """Number of every row among the distinct rows, which have an order of their own.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    row_id : ndarray of shape (n_samples,), int64
        Position of the row in ``unique_rows(X)[0]``: the same for equal rows.

    Examples
    --------
    >>> row_ids(np.array([[1.0], [0.0], [1.0]]))
    array([1, 0, 1])
    """
    order = row_order(X)
    result = np.empty(len(X), dtype=np.int64)
    _, count = distinct_rows(X, order)
    result[order] = np.repeat(np.arange(len(count)), count)
    return result


def find_line(X: np.ndarray) -> np.ndarray | None:
    """Coordinates along the line on which all rows lie, or None if there is no such line.

    The outputs of a softmax over two classes, and every single feature, lie on a line;
    distances between rows are then differences of the returned coordinates.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    position : ndarray of shape (n_samples,), float64, or None
        Signed distance from the mean along the line.

    Examples
    --------
    >>> find_line(np.array([[0.0, 1.0], [0.6, 0.4], [1.0, 0.0]])).round(3)
    array([-0.754,  0.094,  0.66 ])
    >>> find_line(np.eye(3)) is None
    True
    """
    rounding = 4.0 * np.finfo(X.dtype).eps * float(max(X.max(initial=0.0), -X.min(initial=0.0)))
    chunks = list(row_chunks(*X.shape))
    mean = np.zeros(X.shape[1])
    for part in chunks:
        mean = mean + X[part].astype(np.float64).sum(axis=0)
    mean /= len(X)
    length = np.concatenate([np.linalg.norm(X[part] - mean, axis=1) for part in chunks])
    farthest = int(np.argmax(length))
    if length[farthest] == 0.0:
        return np.zeros(len(X))
    direction = (X[farthest] - mean) / length[farthest]
    direction *= np.sign(direction[np.argmax(np.abs(direction) > 0.0)])  # same sign for any order
    tolerance = 1e-7 * length[farthest] + rounding
    position = np.empty(len(X))
    for part in chunks:
        rows = X[part] - mean
        position[part] = rows @ direction
        rows -= position[part, None] * direction
        if float(np.sqrt(squared_norm(rows).max())) > tolerance:
            return None
    return position


def _sort_keys(X: np.ndarray) -> np.ndarray:
    """Integers whose bytes are ordered as the numbers are."""
    key = np.ascontiguousarray(X) + 0.0  # -0.0 and 0.0 are equal but differ in their bytes
    bits = key.view(f"i{key.itemsize}")
    highest = np.array(np.iinfo(bits.dtype).max, dtype=bits.dtype)
    for part in row_chunks(*X.shape):
        sign = bits[part] >> (8 * key.itemsize - 1)  # 0, or all ones for negative numbers
        bits[part] ^= sign & highest  # larger numbers are larger integers ...
    bits ^= ~highest  # ... without sign
    return bits.byteswap(inplace=True) if sys.byteorder == "little" else bits


def row_keys(X: np.ndarray, code: np.ndarray) -> np.ndarray:
    """64-bit keys that are equal for equal rows of a class, and else as good as never."""
    n_words = X.shape[1] * X.dtype.itemsize // 4
    rng = np.random.default_rng(0)
    factor = rng.integers(2**64, size=n_words + 1, dtype=np.uint64, endpoint=False) | 1
    key = code.astype(np.uint64) * factor[-1]
    for part in row_chunks(len(X), n_words):
        words = (np.ascontiguousarray(X[part]) + 0.0).view(np.uint32)
        key[part] += words.astype(np.uint64) @ factor[:-1]
    return key
