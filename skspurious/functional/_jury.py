"""A jury of views: how much each view's vote counts, and what they say together."""

import numpy as np

__all__ = ["balanced_hits", "jury_scores", "view_weights"]


def balanced_hits(votes: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Balanced accuracy of every view, shrunk a little towards chance.

    Parameters
    ----------
    votes : ndarray of shape (n_views, n_samples, n_classes)
        Probabilities of the classes, each class counting the same, of models that have not seen
        the sample.
    y : ndarray of shape (n_samples,), int64
        Classes 0 to n_classes-1.

    Returns
    -------
    accuracy : ndarray of shape (n_views,), float64
        Mean over the classes of (hits + 1/K) / (samples + 1), with K classes. Where several
        classes are the most probable, each is a part of a hit.

    Examples
    --------
    >>> votes = np.array([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]])
    >>> balanced_hits(votes, np.array([0, 1, 1]))
    array([0.625])
    """
    n_views, _, n_classes = votes.shape
    present = np.unique(y)
    result = np.empty(n_views)
    for v in range(n_views):
        is_top = votes[v] == votes[v].max(axis=1, keepdims=True)
        hit = (is_top / is_top.sum(axis=1, keepdims=True))[np.arange(len(y)), y]
        total, size = np.bincount(y, weights=hit)[present], np.bincount(y)[present]
        result[v] = np.mean((total + 1.0 / n_classes) / (size + 1.0))
    return result


def view_weights(
    accuracy: np.ndarray,
    n_classes: int,
    *,
    clean: np.ndarray | None = None,
    n_samples: int | np.ndarray = 0,
) -> np.ndarray:
    r"""Weight of every view's vote, by how far it is above chance.

    With the balanced accuracy a and K classes,

    .. math:: w = \left( \frac{(a - 1/K) / (1 - 1/K)}{1 - a} \right)^2,

    and 0 for a view within three standard errors of chance. The clean sample counts at most as
    much as the best view: what makes it better than any view is the object.

    Parameters
    ----------
    accuracy : ndarray of shape (n_views,)
        Balanced accuracies, below 1.
    n_classes : int
        Number of classes.
    clean : bool ndarray of shape (n_views,), default=None
        Which of them is no view, but the sample as it is.
    n_samples : int, or ndarray of shape (n_classes,), default=0
        Samples of every class that the accuracies are of; 0 takes them as exact.

    Returns
    -------
    weight : ndarray of shape (n_views,), float64
        They sum to 1, or are all 0 where no view is above chance.

    Examples
    --------
    >>> view_weights(np.array([0.9, 0.75, 0.5]), 2).round(3)
    array([0.941, 0.059, 0.   ])
    """
    if n_classes == 1:  # there is nothing to know
        return np.zeros(len(accuracy))
    chance = 1.0 / n_classes
    size = np.broadcast_to(np.asarray(n_samples, dtype=np.float64), n_classes)
    variance = np.divide(chance * (1.0 - chance), size, out=np.zeros(n_classes), where=size > 0)
    error = 3.0 * np.sqrt(variance.sum()) / n_classes
    gain = np.where(accuracy > chance + error, (accuracy - chance) / (1.0 - chance), 0.0)
    weight = (gain / (1.0 - accuracy)) ** 2
    if clean is not None and not clean.all():
        weight[clean] = np.minimum(weight[clean], weight[~clean].max())
    total = weight.sum()
    return weight / total if total > 0 else weight


def jury_scores(votes: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the views say together: the weighted mean of their probabilities.

    Parameters
    ----------
    votes : ndarray of shape (n_views, n_samples, n_classes)
        Probabilities of the classes.
    weight : ndarray of shape (n_views,)
        They sum to 1, or are all 0.

    Returns
    -------
    score : ndarray of shape (n_samples, n_classes), float64
        Equal for all classes where no view counts. A sum in float64 that does not depend on the
        order of the views.

    Examples
    --------
    >>> votes = np.array([[[0.9, 0.1]], [[0.2, 0.8]]])
    >>> jury_scores(votes, np.array([0.25, 0.75]))
    array([[0.375, 0.625]])
    """
    if not weight.any():
        return np.full(votes.shape[1:], 1.0 / votes.shape[2])
    order = np.argsort(weight, kind="stable")
    return np.einsum("v,vnk->nk", weight[order], votes[order].astype(np.float64))
