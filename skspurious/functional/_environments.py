"""EIIL's environments: those between which a model is as far from invariant as can be."""

import numpy as np
from scipy.special import softmax

__all__ = ["environment_penalty", "scale_gradients"]


def scale_gradients(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivative of every loss by a factor w on its logits, at w = 1.

    The cross-entropy of ``w * f`` has the derivative ``sum_c p_c f_c - f_y``: negative where the
    loss would fall if the model were surer of itself, positive where it would rise.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_classes)
        Logits f of the reference model.
    y : ndarray of shape (n_samples,), int64
        Classes 0 to n_classes-1.

    Returns
    -------
    gradient : ndarray of shape (n_samples,), float64

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    >>> scale_gradients(logits, np.array([0, 1, 0])).round(2)
    array([-0.24,  1.76,  0.  ])
    """
    logits = logits.astype(np.float64)
    own = np.take_along_axis(logits, y[:, None], axis=1)
    return (softmax(logits, axis=1) * (logits - own)).sum(axis=1)


def environment_penalty(gradient: np.ndarray, membership: np.ndarray) -> float:
    """IRMv1's penalty of two environments: their squared derivatives by the factor, summed.

    ``(sum_i q_i g_i / n)^2 + (sum_i (1 - q_i) g_i / n)^2``. It is convex in the first sum, so its
    largest value is at an end of what that sum can be: all positive ``g_i`` in one environment,
    and all negative ones in the other.

    Parameters
    ----------
    gradient : ndarray of shape (n_samples,)
        What :func:`scale_gradients` gives (g).
    membership : ndarray of shape (n_samples,)
        Probability of the first environment (q).

    Returns
    -------
    penalty : float

    Examples
    --------
    >>> environment_penalty(np.array([-0.5, 1.5]), np.array([0.0, 1.0]))
    0.625
    >>> environment_penalty(np.array([-0.5, 1.5]), np.array([0.5, 0.5]))
    0.125
    """
    first = float(np.mean(membership * gradient))
    second = float(np.mean((1.0 - membership) * gradient))
    return first**2 + second**2
