"""Sampling probabilities that balance groups."""

import numpy as np
from scipy.special import logsumexp

from skspurious.functional._arguments import array, codes, count, takes

__all__ = ["sampling_probabilities"]


@takes(group=codes(), power=array(), n_groups=count)
def sampling_probabilities(
    group: np.ndarray,
    *,
    power: float | np.ndarray = 1.0,
    group_class: np.ndarray | None = None,
    n_groups: int | None = None,
) -> np.ndarray:
    r"""Probability of drawing each sample, by the inverse size of its group to a power.

    Sample i of group g, which has :math:`n_g` members, is drawn with probability proportional
    to :math:`n_g^{-\lambda_g}` [1]_, so the group as a whole is drawn in proportion to
    :math:`n_g^{1-\lambda_g}`: power 0 leaves the groups as they are, 1 gives all groups the same
    mass, 2 turns their sizes upside down.

    Parameters
    ----------
    group : ndarray of shape (n_samples,)
        Group of every sample, ids 0..n_groups-1.
    power : float or ndarray of shape (n_groups,), default=1.0
        The power, the same for all groups or one for each.
    group_class : ndarray of shape (n_groups,), default=None
        Class of every group. Given, the probabilities are scaled inside each class so that all
        classes (that have samples) get the same mass; None scales all of them together.
    n_groups : int, default=None
        Number of groups. None takes the largest id plus 1. Groups without samples are allowed.

    Returns
    -------
    probability : ndarray of shape (n_samples,), float64
        Sums to 1.

    Raises
    ------
    ValueError
        If there is no sample, an id is not below ``n_groups``, or ``power`` or ``group_class`` do
        not have one value for each group.

    References
    ----------
    .. [1] Y. Yang, E. Gan, G. K. Dziugaite, B. Mirzasoleiman. "Identifying Spurious Biases Early
       in Training through the Lens of Simplicity Bias." AISTATS 2024. arXiv:2305.18761.

    Examples
    --------
    >>> sampling_probabilities(np.array([0, 0, 0, 1]))
    array([0.16666667, 0.16666667, 0.16666667, 0.5       ])
    >>> sampling_probabilities(np.array([0, 0, 0, 1]), power=2.0).round(3)
    array([0.083, 0.083, 0.083, 0.75 ])
    """
    group = np.asarray(group)
    if group.ndim != 1 or len(group) == 0:
        raise ValueError(f"group has shape {group.shape}: give one group id for each sample.")
    size = np.bincount(group, minlength=n_groups or 0)
    if n_groups is not None and len(size) > n_groups:
        raise ValueError(
            f"group has the id {group.max()}, but n_groups={n_groups}: ids are 0..n_groups-1."
        )
    for name, value in (("power", power), ("group_class", group_class)):
        if value is not None and np.ndim(value) > 0 and np.shape(value) != size.shape:
            raise ValueError(
                f"{name} has shape {np.shape(value)} for {len(size)} groups: give one value for "
                "each group."
            )
    # In logarithms, because sizes to a high power leave the range of floating point.
    log_size = np.log(np.maximum(size, 1))
    log_weight = -np.asarray(power, dtype=np.float64) * log_size
    log_mass = np.where(size > 0, log_weight + log_size, -np.inf)
    if group_class is None:
        log_weight = log_weight - logsumexp(log_mass)
    else:
        for value in np.unique(np.asarray(group_class)[size > 0]):
            same = np.asarray(group_class) == value
            log_weight[same] -= logsumexp(log_mass[same])
    probability = np.exp(log_weight)[group]
    return probability / probability.sum()
