"""A linear first model that sees every sample as if it were new: cross-fitted logits."""

import warnings

import numpy as np

from skspurious.functional._clustering import row_ids
from skspurious.functional._error_set import stratified_folds

__all__ = ["cross_fitted_logits", "fit_balanced_logistic"]

_ABSENT = -30.0  # logit of a class without samples: all but impossible


def fit_balanced_logistic(
    X: np.ndarray, y: np.ndarray, n_classes: int, *, C: float = 1e-3
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

    coef, intercept = np.zeros((X.shape[1], n_classes)), np.full(n_classes, _ABSENT)
    present = np.unique(y)
    intercept[present] = 0.0
    if len(present) < 2:
        return coef, intercept
    mean, std = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    std[std <= 1e-12 * np.abs(mean)] = 1.0
    rows = ((X - mean) / std).astype(X.dtype, copy=False)
    model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():  # what 1000 iterations give will do
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows, y)
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
        Folds, stratified by class. Copies of a row are in one fold.
    C : float, default=1e-3
        Inverse strength of the regularisation, see :func:`fit_balanced_logistic`.
    random_state : int, default=0
        Seed of the folds.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_classes), float64
        The order of the samples has no influence: folds are dealt to the distinct rows in an
        order of their own.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [2.0], [5.0], [6.0], [7.0], [6.5]])
    >>> y = np.array([0, 0, 0, 1, 1, 1, 0])  # the last one is not where its class is
    >>> logits = cross_fitted_logits(X, y, 2, n_folds=3, C=1.0)
    >>> logits.argmax(axis=1) == y
    array([ True,  True,  True,  True,  True,  True, False])
    """
    row_id = row_ids(X)
    order = np.lexsort((y, row_id))
    X, y, row_id = X[order], y[order], row_id[order]
    first = np.unique(row_id, return_index=True)[1]
    fold = stratified_folds(_by_appearance(y[first]), n_folds, np.random.default_rng(random_state))
    fold = fold[row_id]
    logits = np.empty((len(X), n_classes))
    for k in np.unique(fold):
        held_out = fold == k
        coef, intercept = fit_balanced_logistic(X[~held_out], y[~held_out], n_classes, C=C)
        logits[order[held_out]] = X[held_out] @ coef + intercept
    return logits


def _by_appearance(y: np.ndarray) -> np.ndarray:
    """Classes numbered as they appear, so that their names have no influence."""
    _, first, label = np.unique(y, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label]
