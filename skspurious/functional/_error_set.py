"""The error set of a first network: margins, and folds for out-of-fold predictions."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["class_margins", "stratified_folds"]


def class_margins(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the own class minus the largest of the others: negative where the class is missed.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
        At least two classes.
    y : tensor of shape (n_samples,), int64
        Classes 0 to n_classes-1.

    Returns
    -------
    margin : tensor of shape (n_samples,)

    Examples
    --------
    >>> import torch
    >>> class_margins(torch.tensor([[2.0, 0.5, 1.0], [2.0, 0.5, 1.0]]), torch.tensor([0, 1]))
    tensor([ 1.0000, -1.5000])
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own[:, 0] - others.amax(1)


def stratified_folds(
    strata: ArrayLike, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Fold of each sample; the folds share every stratum as evenly as they can.

    Parameters
    ----------
    strata : array-like of shape (n_samples,)
        Stratum of each sample, for instance the class. A small one misses some folds.
    n_folds : int
        Number of folds.
    rng : numpy.random.Generator
        Decides which samples of a stratum go where.

    Returns
    -------
    fold : ndarray of int64
        0 to n_folds-1; sizes of the folds differ by at most 1, also within each stratum.

    Examples
    --------
    >>> import numpy as np
    >>> fold = stratified_folds([0, 0, 0, 0, 1, 1], 2, np.random.default_rng(0))
    >>> np.bincount(fold[:4]), np.bincount(fold[4:])
    (array([2, 2]), array([1, 1]))
    """
    strata = np.asarray(strata)
    order = np.lexsort((rng.random(len(strata)), strata))
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order] = np.arange(len(strata)) % n_folds  # dealt out through the strata in turn
    return fold
