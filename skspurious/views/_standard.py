"""The views that are tried where the user names none, for each kind of samples."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious.data import unpack_groups
from skspurious.data._samples import ImagePaths, input_kind, n_rows
from skspurious.views._base import picture_kind
from skspurious.views._images import MaskCenter, ShufflePatches
from skspurious.views._patches import PatchFeatures
from skspurious.views._statistics import ImageStatistics
from skspurious.views._text_statistics import TextStatistics
from skspurious.views._texts import KeepWords, SelectFields

_MOST_COLUMNS = 64  # of a table; with more numbers a row is taken for an embedding
_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def standard_views(X, *, extractor=None):
    """The standard set of views for a kind of samples, and what looks at the samples themselves.

    A view says something of a sample without its object. Whoever knows nothing of the shortcut
    tries them all; :class:`~skspurious.group_inference.ViewJury` weighs them.

    - **Pictures** (arrays and tensors of three or four dimensions, files, datasets): "border",
      "colours", "edges" (means of rows and columns and their differences), "sharpness", "blocks"
      and "spectrum", which are tables of statistics, and "mask" and "shuffle", which are pictures.
      Small models judge them: what needs many questions about numbers may be the object.
    - **Texts**: "words", the twenty most tied to the label, and "style". Of texts with several
      fields (tuples, mappings, a DataFrame of texts) each field is a view.
    - **Tables**, of up to 64 columns or with columns that are no numbers: each column.
    - **Embeddings**, of more: the first 2, 8 and 32 principal components.

    .. versionadded:: 0.1

    Parameters
    ----------
    X : samples of any kind, or GroupedData
        Only their kind is looked at.
    extractor : transformer, default=None
        What makes numbers of pictures and texts, such as a ``TorchFeatureExtractor``; the same
        for the views and the samples. None takes :class:`PatchFeatures` for pictures, and for
        texts the TF-IDF of their 2,000 most frequent words.

    Returns
    -------
    views : dict of str to transformer, classifier or columns
        As ``ViewJury`` takes them.
    clean : transformer, classifier or columns
        What looks at the samples themselves.

    Raises
    ------
    ValueError
        If X is of a kind that has no standard set.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.views import standard_views
    >>> list(standard_views(np.zeros((10, 3, 8, 8)))[0])
    ['border', 'colours', 'edges', 'sharpness', 'blocks', 'spectrum', 'mask', 'shuffle']
    >>> list(standard_views(np.zeros((10, 3)))[0])
    ['column 0', 'column 1', 'column 2']
    """
    X = unpack_groups(X)[0]
    kind = kind_of(X)
    if kind == "pictures":
        return _of_pictures(extractor)
    if kind == "texts":
        look = _of_texts if extractor is None else lambda: clone(extractor)
        views = {
            "words": make_pipeline(
                KeepWords(20), CountVectorizer(binary=True, token_pattern=r"\w+"), _linear(0.1)
            ),
            "style": make_pipeline(TextStatistics(), _trees()),
        }
        return views, look()
    if kind == "fields":
        look = _of_texts if extractor is None else lambda: clone(extractor)
        fields = _fields(X)
        views = {f"field {field}": make_pipeline(SelectFields(field), look()) for field in fields}
        return views, make_pipeline(SelectFields(fields), look())
    if kind == "embedding":
        sizes = [k for k in (2, 8, 32) if k < min(np.shape(X))]
        views = {
            f"{k} components": make_pipeline(StandardScaler(), PCA(k, random_state=0))
            for k in sizes
        }
        return views, "passthrough"
    names = list(X.columns) if hasattr(X, "columns") else list(range(np.shape(X)[1]))
    return {f"column {name}": [name] for name in names}, names


def kind_of(X):
    """What samples are: "pictures", "texts", "fields", "table" or "embedding".

    Raises
    ------
    ValueError
        If they are of another kind.
    """
    kind = input_kind(X)
    if isinstance(X, pd.DataFrame):
        return "fields" if _are_fields(X) else _kind_of_table(X)
    if is_table(X):
        return _kind_of_table(X)
    if n_rows(X) == 0:
        raise ValueError("X has 0 samples; there are no standard views of none.")
    first = X.iloc[0] if hasattr(X, "iloc") else X[0]
    if kind == "strings":
        is_file = Path(str(first)).suffix.lower() in _PICTURE_SUFFIXES
        return "pictures" if is_file or isinstance(first, Path) else "texts"
    if isinstance(first, str):
        return "texts"
    if isinstance(first, Mapping | tuple | list) and _has_texts(first):
        return "fields"
    if isinstance(X, ImagePaths) or kind in ("array", "tensor", "dataset", "samples"):
        picture_kind(X, "standard_views")
        return "pictures"
    raise ValueError(
        f"X is a {type(X).__name__}, for which there are no standard views: name them, as a dict "
        "of transformers or columns."
    )


def is_table(X):
    """Whether samples are rows of numbers: neither pictures nor texts nor a DataFrame."""
    if torch.is_tensor(X):
        return X.ndim <= 2
    if isinstance(X, pd.DataFrame) or input_kind(X) != "table":
        return False
    first = X[0] if isinstance(X, list | tuple) and len(X) else None
    return not (isinstance(first, tuple | list) and _has_texts(first))


def _kind_of_table(X):
    shape = X.shape if hasattr(X, "shape") else np.shape(np.asarray(X))
    if len(shape) != 2:
        raise ValueError(
            f"X has shape {tuple(shape)}: standard views are of pictures, texts, or tables of two "
            "dimensions. Name the views."
        )
    if isinstance(X, pd.DataFrame):
        are_numbers = all(pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes)
        if not are_numbers or X.isna().to_numpy().any():
            return "table"
    return "embedding" if shape[1] > _MOST_COLUMNS else "table"


def _are_fields(X):
    """Whether every column of a DataFrame has texts of several words."""
    some = X.iloc[:100]
    return X.shape[1] > 1 and all(
        np.mean([isinstance(value, str) and " " in value for value in some.iloc[:, k]] or [0]) > 0.5
        for k in range(X.shape[1])
    )


def _has_texts(sample):
    values = sample.values() if isinstance(sample, Mapping) else sample
    return len(values) > 1 and all(isinstance(v, str) for v in values)


def _fields(X):
    if isinstance(X, pd.DataFrame):
        return list(X.columns)
    if n_rows(X) == 0:
        raise ValueError("X has 0 samples; there are no standard views of none.")
    first = X.iloc[0] if hasattr(X, "iloc") else X[0]
    return list(first) if isinstance(first, Mapping) else list(range(len(first)))


def _of_pictures(extractor):
    def look(*steps):
        return make_pipeline(*steps, PatchFeatures() if extractor is None else clone(extractor))

    def judged(view):
        if extractor is not None:
            return look(view)
        # Of patches a few questions are asked, as of the statistics: what needs more of them may be
        # the object.
        return make_pipeline(view, PatchFeatures(), _few_trees())

    bands = ImageStatistics(["rows", "columns", "edges"], n_bands=32)
    views = {
        "border": make_pipeline(ImageStatistics(["border", "corners"]), _trees()),
        "colours": make_pipeline(ImageStatistics(["colours", "brightness"]), _trees()),
        "edges": make_pipeline(bands, _few_trees()),
        "sharpness": make_pipeline(ImageStatistics(["sharpness"]), _trees()),
        "blocks": make_pipeline(ImageStatistics(["blocks"]), _few_trees()),
        "spectrum": make_pipeline(ImageStatistics(["spectrum"]), _few_trees()),
        "mask": judged(MaskCenter()),
        "shuffle": judged(ShufflePatches()),
    }
    return views, look()


def _of_texts():
    return TfidfVectorizer(sublinear_tf=True, max_features=2000, dtype=np.float32)


def _trees():
    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, early_stopping=False, random_state=0
    )


def _few_trees():
    """Ten trees of two questions each."""
    return HistGradientBoostingClassifier(
        max_iter=10, max_leaf_nodes=3, learning_rate=0.3, early_stopping=False, random_state=0
    )


def _linear(C):
    return LogisticRegression(C=C, max_iter=1000)
