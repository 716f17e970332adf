"""Probabilities that mean what they say: one temperature for all logits."""

import numpy as np

__all__ = ["fit_temperature"]

_LOG_BOUNDS = (-5.0, 5.0)  # of the temperature


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    r"""Temperature at which the softmax of logits has the least log loss [1]_.

    With :math:`N_k` of the :math:`N` samples in class :math:`k` of :math:`K`, the target of a
    sample of class :math:`k` is :math:`(N_k + 1) / (N_k + K)`, shared alike by the other classes
    for what is left to one [2]_: with few samples, all of them right, the temperature stays above
    zero.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logits of samples that the model has not seen.
    label : ndarray of shape (n_samples,), int64
        Their classes, 0 to n_classes-1.

    Returns
    -------
    temperature : float
        Positive, so that dividing by it leaves the order of the classes as it is.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger. "On Calibration of Modern Neural Networks."
       ICML 2017. arXiv:1706.04599.
    .. [2] J. Platt. "Probabilistic Outputs for Support Vector Machines." Advances in Large Margin
       Classifiers, 1999.

    Examples
    --------
    >>> label = np.repeat([0, 1], 50)
    >>> logits = np.where(label[:, None] == [0, 1], 4.0, 0.0)
    >>> logits[::10] = logits[::10, ::-1]  # sure of itself, and wrong in one of ten
    >>> probability = 1 / (1 + np.exp(-4.0 / fit_temperature(logits, label)))
    >>> print(round(probability, 2))  # targets of 0.98 and 0.02 in place of 1 and 0
    0.88
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    n, n_classes = logits.shape
    count = np.bincount(label, minlength=n_classes)
    own = ((count + 1) / (count + n_classes))[label]
    target = np.repeat(((1.0 - own) / max(1, n_classes - 1))[:, None], n_classes, axis=1)
    target[np.arange(n), label] = own

    def loss(log_temperature: float) -> float:
        return float(-(target * log_softmax(logits / np.exp(log_temperature), axis=1)).sum())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_BOUNDS, method="bounded").x))
