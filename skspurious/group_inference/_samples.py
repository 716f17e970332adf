"""What goes into the inferrer and comes out: samples, with groups around them."""

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from skspurious.data import GroupedData, unpack_groups
from skspurious.data._grouped import carried_attribute, wrap_like
from skspurious.data._samples import input_kind
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.functional._rows import row_chunks, squared_norm
from skspurious.utils._rows import as_labels, check_is_rows, plain_objects, validate_table

# From this many numbers on, moving a class to the GPU pays for setting faiss up there.
_GPU_MIN_ELEMENTS = 2**25


class AsIs(TransformerMixin, BaseEstimator):
    """The samples as they are; scikit-learn wraps this ``transform`` to obey ``set_output``."""

    def transform(self, X):
        checked = self._check_samples(X)
        return X if hasattr(X, "shape") else checked

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        # The samples keep their dtype, but the GroupedData around them has none to compare.
        tags.transformer_tags.preserves_dtype = []
        return tags


class PassThrough(OneToOneFeatureMixin, AsIs):
    """Tables of numbers as they are, with the names of their columns."""

    def _check_samples(self, X):
        return further_rows(self, X)


class GroupCarrier:
    """Puts groups around the output; not a scikit-learn class, so its methods are not wrapped."""

    def transform(self, X):
        """Return the samples as they are.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)

        Returns
        -------
        X : the same object; groups that it carries are kept
        """
        check_is_fitted(self)
        samples = super().transform(unpack_groups(X)[0])
        carries_nothing = unpack_groups(X)[1] is None and carried_attribute(X) is None
        return samples if carries_nothing else wrap_like(samples, X)

    def fit_transform(self, X, y, **params):
        """Find the groups and attach them to the samples.

        Parameters
        ----------
        X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Class labels.
        **params : dict
            Further arguments of ``fit``.

        Returns
        -------
        X : GroupedData
            The samples, carrying ``labels_`` as their groups and this inferrer.
        """
        self.fit(X, y, **params)
        return GroupedData(
            super().transform(unpack_groups(X)[0]),
            self.labels_,
            sample_attribute=params.get("sample_attribute", carried_attribute(X)),
            group_inferrer=self,
        )


def as_array(X):
    """Samples without their groups, in a form that scikit-learn checks."""
    X, _, _ = unpack_groups(X)
    check_is_rows(X, "X")
    if torch.is_tensor(X):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    return X.astype(np.float32) if getattr(X, "dtype", None) == np.float16 else X


def table_of_numbers(X):
    """A table, checked already, as an array; None where anything in it is no number."""
    if isinstance(X, pd.DataFrame):
        X = X.to_numpy() if not X.select_dtypes(exclude="number").shape[1] else None
    is_table = isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "buif"
    return X if is_table and np.isfinite(X).all() else None


def smallest_type(X):
    """Float32 where it holds the same numbers, so that equal numbers have one type."""
    if X.dtype == np.float32:
        return X
    with np.errstate(over="ignore"):
        for part in row_chunks(*X.shape):
            if not (X[part].astype(np.float32) == X[part]).all():
                return X
    return X.astype(np.float32)


# How scikit-learn is asked to check rows: one layout, for sums depend on it in the last bits.
AS_ROWS = {"dtype": [np.float64, np.float32], "order": "C"}


def _as_rows(X):
    """Samples without their groups, which must be rows of numbers."""
    X = unpack_groups(X)[0]
    check_is_rows(X, "X")
    if getattr(X, "ndim", 2) > 2 or input_kind(X) in ("strings", "dataset", "samples"):
        raise ValueError(
            "X has no rows of numbers but pictures, texts or a dataset. Put what makes an "
            "embedding of them before the inferrer: make_pipeline(TorchFeatureExtractor(network), "
            "SpuriousGroupInferrer()) of skspurious.pipeline."
        )
    return as_array(X)


def rows_of_fit(estimator, X, y="no_validation"):
    """Checked rows, and labels where they are given; ``estimator`` remembers the type."""
    y = y if isinstance(y, str) else as_labels(y, "y")
    checked = validate_table(estimator, _as_rows(X), y, **AS_ROWS)
    has_labels = isinstance(checked, tuple)
    rows = smallest_type(not_huge(checked[0] if has_labels else checked))
    estimator._dtype = rows.dtype
    return (rows, checked[1]) if has_labels else rows


def further_rows(estimator, X):
    """Checked rows of the type that ``fit`` saw."""
    rows = validate_table(estimator, _as_rows(X), reset=False, **AS_ROWS)
    with np.errstate(over="ignore"):
        rows = rows.astype(getattr(estimator, "_dtype", np.float64), copy=False)
    return not_huge(rows)


def checked_rows(X):
    """Rows without an estimator that remembers them."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is refused
            X = check_array(plain_objects(as_array(X)), **AS_ROWS, input_name="X")
    except OverflowError as error:
        raise ValueError(f"X has a number that no float holds: {error}.") from error
    return smallest_type(not_huge(X))


def not_huge(X):
    """The rows, whose squared distances must be finite."""
    largest = max(float(X.max(initial=0.0)), -float(X.min(initial=0.0)))
    if largest > 1e100:
        raise ValueError(
            f"X has values up to {largest:g}, whose squares are too large for a float. "
            "Standardise the features."
        )
    return X


def normalize_rows(X):
    rows = np.empty_like(X)
    for part in row_chunks(*X.shape):
        length = np.sqrt(squared_norm(X[part]))
        np.divide(X[part], np.maximum(length, 1e-6)[:, None], out=rows[part])
        rows[part] += 0.0  # not -0.0
    return rows


def encode_classes(y, classes, n_samples):
    """Class codes, or None where no labels are given."""
    if y is None:
        return None
    y = column_or_1d(as_labels(y, "y"))
    if len(y) != n_samples:
        raise ValueError(f"y has {len(y)} labels for {n_samples} samples: give one for each.")
    code = pd.Index(classes).get_indexer(y)
    if (code < 0).any():
        unseen = list(dict.fromkeys(y[code < 0].tolist()))
        raise ValueError(
            f"y has classes that fit did not see: {unseen[:5]}. Known: {classes.tolist()[:20]}."
        )
    return code


def check_losses(losses, X, code, seed):
    """Losses as given, or those of a linear model that has not seen the sample."""
    if losses is None:
        logits = cross_fitted_logits(X, code, code.max() + 1, random_state=seed)
        return -log_softmax(logits, axis=1)[np.arange(len(X)), code]
    losses = check_array(losses, ensure_2d=False, dtype=np.float64, input_name="losses")
    if losses.shape != (len(X),):
        raise ValueError(
            f"losses has shape {losses.shape} for {len(X)} samples: give one for each."
        )
    return losses


def resolve_device(device):
    """Torch device of the silhouettes, and from how many numbers on faiss uses the GPUs."""
    import faiss

    is_auto = device == "auto"
    device = torch.device("cuda" if is_auto else device)
    has_cuda = torch.cuda.is_available()
    if device.type == "cuda" and not (has_cuda or is_auto):
        raise ValueError(f"device={str(device)!r}, but torch sees no GPU: use 'auto' or 'cpu'.")
    has_both = has_cuda and faiss.get_num_gpus() > 0
    if device.type != "cuda" or (is_auto and not has_both):
        return "cpu", np.inf  # silhouettes are taken in float64, which MPS has not
    if not has_both:
        return str(device), np.inf
    return str(device), _GPU_MIN_ELEMENTS if is_auto else 0
