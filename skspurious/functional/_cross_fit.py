"""A linear first model that sees every sample as if it were new: cross-fitted logits."""

import warnings

import numpy as np

from skspurious.functional._error_set import stratified_folds
from skspurious.functional._rows import distinct_rows, row_chunks, row_order

__all__ = ["cross_fitted_logits", "fit_balanced_logistic"]

_ABSENT = -30.0  # logit of a class without samples: all but impossible


def fit_balanced_logistic(
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    C: float = 1e-3,
    strata: np.ndarray | None = None,
    scale: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression on standardised features in which every class counts the same.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    y : ndarray of shape (n_samples,), int64
        Classes 0 to n_classes-1, some of which may be absent.
    n_classes : int
        Number of classes.
    C : float, default=1e-3
        Inverse strength of the L2 regularisation, as in scikit-learn: the penalty is
        ||w||² / 2, the losses are summed and multiplied by C.
    strata : ndarray of shape (n_samples,), default=None
        Parts that a class is made of, such as those by sides: each counts the same in its class.
    scale : ndarray of shape (n_features,), default=None
        What the standardised features are multiplied by; the larger, the less the penalty keeps
        their coefficients small. 1 by default.

    Returns
    -------
    coef : ndarray of shape (n_features, n_classes), float64
    intercept : ndarray of shape (n_classes,), float64
        Logits are ``X @ coef + intercept``, for rows that are not standardised.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [4.0], [5.0]])
    >>> coef, intercept = fit_balanced_logistic(X, np.array([0, 0, 1, 1]), 2, C=1.0)
    >>> (X @ coef + intercept).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils.class_weight import compute_sample_weight

    coef, intercept = np.zeros((X.shape[1], n_classes)), np.full(n_classes, _ABSENT)
    present = np.unique(y)
    intercept[present] = 0.0
    if len(present) < 2:
        return coef, intercept
    mean, std = _mean_and_std(X)  # as StandardScaler, in pieces and of the rows' own type
    std[std <= 1e-12 * np.abs(mean)] = 1.0
    if scale is not None:
        std = std / scale
    rows = np.empty_like(X)
    for part in row_chunks(*X.shape):
        rows[part] = (X[part] - mean) / std
    class_weight = "balanced" if strata is None else None
    weight = None
    if strata is not None:
        weight = compute_sample_weight("balanced", strata)
        of_class = np.bincount(y, weights=weight)[y]
        weight *= len(y) / (len(present) * of_class)
    model = LogisticRegression(C=C, class_weight=class_weight, max_iter=1000)
    with warnings.catch_warnings():  # what 1000 iterations give will do
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, y, sample_weight=weight)
    if len(present) == 2:  # one column for the log odds
        coef[:, present[1]], intercept[present[1]] = model.coef_[0], model.intercept_[0]
    else:
        coef[:, present], intercept[present] = model.coef_.T, model.intercept_
    coef /= std[:, None]
    intercept -= mean @ coef
    return coef, intercept


def cross_fitted_logits(
    X: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    *,
    n_folds: int = 5,
    C: float = 1e-3,
    random_state: int = 0,
) -> np.ndarray:
    """Logits of every sample from a model that was fitted without it.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        The rows.
    y : ndarray of shape (n_samples,), int64
        Classes 0 to n_classes-1.
    n_classes : int
        Number of classes.
    n_folds : int, default=5
        Folds, stratified by class. Copies of a row are in one fold, for they may be one sample;
        of a row with ``2 * n_folds`` copies or more, as categories have them, they are dealt out.
    C : float, default=1e-3
        Inverse strength of the regularisation, see :func:`fit_balanced_logistic`.
    random_state : int, default=0
        Seed of the folds.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_classes), float64
        The order of the samples has no influence: folds are dealt to the distinct rows in an
        order of their own. Copies that are dealt out have logits of their own.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [5.0], [6.0], [7.0], [6.5]])
    >>> y = np.array([0, 0, 0, 1, 1, 1, 0])  # the last one is not where its class is
    >>> logits = cross_fitted_logits(X, y, 2, n_folds=3, C=1.0)
    >>> logits.argmax(axis=1) == y
    array([ True,  True,  True,  True,  True,  True, False])
    """
    order, fold = cross_fit_folds(X, y, n_folds, random_state)
    logits = np.empty((len(X), n_classes))
    for k in np.unique(fold):
        rows, held_out = order[fold != k], order[fold == k]
        coef, intercept = fit_balanced_logistic(X[rows], y[rows], n_classes, C=C)
        for part in row_chunks(len(held_out), X.shape[1]):
            logits[held_out[part]] = X[held_out[part]] @ coef + intercept
    return logits


def cross_fit_folds(
    X: np.ndarray, y: np.ndarray, n_folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in an order of their own, and the fold of each: those of `cross_fitted_logits`."""
    order = row_order(X)
    _, count = distinct_rows(X, order)
    row_id = np.repeat(np.arange(len(count)), count)
    order = order[np.lexsort((y[order], row_id))]  # copies by class, whatever their order was
    is_dealt = (count >= 2 * n_folds)[row_id]
    is_new = np.diff(row_id, prepend=-1) > 0
    row_id = np.cumsum(is_new | is_dealt) - 1
    first = np.unique(row_id, return_index=True)[1]
    strata = _by_appearance(y[order[first]])
    fold = stratified_folds(strata, n_folds, np.random.default_rng(seed))[row_id]
    return order, fold


def _mean_and_std(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every feature, summed in float64."""
    chunks = list(row_chunks(*X.shape))
    if len(chunks) == 1:
        return X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    mean = sum(X[part].sum(axis=0, dtype=np.float64) for part in chunks) / len(X)
    variance = sum(((X[part] - mean) ** 2).sum(axis=0) for part in chunks) / len(X)
    return mean, np.sqrt(variance)


def _by_appearance(y: np.ndarray) -> np.ndarray:
    """Classes numbered as they appear, so that their names have no influence."""
    _, first, label = np.unique(y, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label]
