"""Keys of samples of any kind, by which those of training are known again."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from skspurious.data._pictures import is_pillow, pillow_pixels
from skspurious.data._samples import ImagePaths, TensorSamples, input_kind, n_rows
from skspurious.functional._rows import row_keys


def sample_keys(X, code):
    """64-bit keys that are equal for equal samples of a class, and else as good as never.

    Parameters
    ----------
    X : samples of any kind, without groups
        Tables by their values, pictures by their pixels, files by their bytes, texts by their
        letters.
    code : ndarray of shape (n_samples,)
        Class codes.

    Returns
    -------
    key : ndarray of shape (n_samples,), uint64
    """
    if isinstance(X, pd.DataFrame) and all(map(pd.api.types.is_numeric_dtype, X.dtypes)):
        X = X.to_numpy(dtype=np.float64)
    if isinstance(X, pd.DataFrame):
        key = pd.util.hash_pandas_object(X, index=False).to_numpy(copy=True)
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype in (np.float32, np.float64):
        return row_keys(X, code)
    else:
        key = np.fromiter(map(_digest, _contents(X)), dtype=np.uint64, count=n_rows(X))
    return key * np.uint64(2**32 - 5) + code.astype(np.uint64)


def _contents(X):
    """What tells the samples apart, one after the other."""
    X = getattr(X, "paths", X) if isinstance(X, ImagePaths) else X
    X = X.tensor if isinstance(X, TensorSamples) else X
    X = X.to_numpy() if isinstance(X, pd.Series) else X
    if input_kind(X) == "strings" and all(map(_is_file, X)):
        return (Path(path).read_bytes() for path in X)
    return (X[i] for i in range(n_rows(X)))


def _is_file(text):
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a text that is too long for a path
        return False


def _digest(sample):
    is_pair = isinstance(sample, tuple | list) and len(sample)
    if is_pair and (hasattr(sample[0], "shape") or is_pillow(sample[0])):
        sample = sample[0]  # of a dataset: the picture, without its label
    if is_pillow(sample):
        sample = pillow_pixels(sample)
    if torch.is_tensor(sample):
        sample = sample.detach().cpu().numpy()
    if isinstance(sample, np.ndarray) and sample.dtype != object:
        sample = np.ascontiguousarray(sample).tobytes()
    if isinstance(sample, str):
        sample = str(sample).encode("utf-8", "surrogatepass")  # np.str_ has another repr
    content = sample if isinstance(sample, bytes) else repr(sample).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
