"""What a user may give of each sample in ``fit``, in place of what a method finds by itself."""

import numpy as np
import torch
from sklearn.utils.validation import column_or_1d


def check_mask(mask, n_samples, name):
    """A bool for each row of X, as an array."""
    mask = _column(mask, name)
    if mask.dtype != bool or len(mask) != n_samples:
        raise ValueError(
            f"{name} must be one bool per sample: {n_samples} of them; got {len(mask)} of type "
            f"{mask.dtype}."
        )
    return mask


def check_scores(scores, n_samples, rows, name):
    """A number for each row of X, finite in ``rows``, as an array of float64."""
    scores = _column(scores, name)
    if scores.dtype.kind not in "iuf" or len(scores) != n_samples:
        raise ValueError(
            f"{name} must be one number per sample: {n_samples} of them; got {len(scores)} of "
            f"type {scores.dtype}."
        )
    scores = scores.astype(np.float64)
    lacking = rows[~np.isfinite(scores[rows])]
    if len(lacking):
        raise ValueError(
            f"{name} has NaN or infinity at rows {lacking[:5].tolist()}, which are trained on. "
            "Give a finite number for each of them."
        )
    return scores


def _column(values, name):
    values = values.cpu().numpy() if torch.is_tensor(values) else values
    try:
        return column_or_1d(values)
    except ValueError as error:
        raise ValueError(f"{name} must have one value per sample: {error}") from None
