"""Out-of-fold outputs: every sample is seen by a network that was trained without it."""

from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

from skspurious.data._grouped import take_rows
from skspurious.data._samples import input_kind
from skspurious.functional._error_set import stratified_folds
from skspurious.utils._parameters import shallow_copy
from skspurious.utils._random import seed_nested

# Of several networks: each has axes of its own in its embedding, and an offset in its hardness.
COMPARABLE = ("logits", "proba")


def check_cross_fit(extractor, is_trained):
    """Raise where there is nothing to cross-fit, or the outputs of networks do not compare."""
    n_folds, output = extractor.cross_fit, extractor.output
    if not is_trained:
        raise ValueError(
            f"cross_fit={n_folds} trains networks, but nothing is trained here: pass an unfitted "
            "classifier as module, or leave cross_fit out; a network that has not seen the "
            "samples needs none."
        )
    if extractor.epoch_selector is not None:
        raise ValueError(
            f"cross_fit={n_folds} does not go with epoch_selector, which would choose another "
            "epoch in every fold: set max_epochs of the classifier, or leave one of them out."
        )
    if output not in COMPARABLE:
        raise ValueError(
            f"cross_fit={n_folds} does not go with output={output!r}: every network has axes and "
            "offsets of its own. Use output='logits' or output='proba'."
        )


def cross_fitted_outputs(extractor, X, y, seed):
    """Outputs for every sample of a network that was trained on the other folds.

    Parameters
    ----------
    extractor : TorchFeatureExtractor
        A fitted one; it is not changed.
    X : any kind of samples, without groups
    y : array-like of shape (n_samples,)
    seed : int
        Of the folds, and of networks without a ``random_state`` of their own.

    Returns
    -------
    Z : ndarray of shape (n_samples, n_features_out)
    """
    if input_kind(X) == "table" and not hasattr(X, "iloc"):
        X = np.asarray(X)
    y = y.cpu().numpy() if torch.is_tensor(y) else np.asarray(y)
    _, code, count = np.unique(y, return_inverse=True, return_counts=True)
    if count.min() < 2:
        raise ValueError(
            f"cross_fit={extractor.cross_fit}, but a class has one sample: no other fold would "
            "have the class. Leave the class out, or cross_fit."
        )
    fold = stratified_folds(code, extractor.cross_fit, np.random.default_rng(seed))
    result = extractor._allocate((len(y), extractor._n_features_out), is_probe=False)
    for k in np.unique(fold):
        part = shallow_copy(extractor)
        part.memmap_dir = None
        part.estimator_ = seed_nested(clone(extractor.module), seed + k + 1)
        folder = part.estimator_.checkpoint_dir
        if folder is not None:  # a run of its own
            part.estimator_.set_params(checkpoint_dir=Path(folder) / f"fold-{k}")
        rows, held_out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        part.estimator_.fit(take_rows(X, rows), y[rows])
        result[held_out] = part._extract(take_rows(X, held_out))
    return result
