"""How low the worst group really is: an interval for the lowest of several accuracies."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from skspurious.functional import group_counts, lowest_proportion_interval
from skspurious.metrics._checks import find_members, group_index, is_correct
from skspurious.utils._random import draw_seed

__all__ = ["WorstGroupInterval", "worst_group_interval"]


@dataclass(frozen=True)
class WorstGroupInterval:
    """The lowest accuracy of a group, as :func:`worst_group_interval` finds it.

    Parameters
    ----------
    observed : float
        The lowest accuracy in the evaluated samples; with many groups it is too low.
    low, high : float
        The interval for the lowest true accuracy.
    confidence : float
        Confidence level of the interval.
    share_worst : Series of shape (n_groups,)
        How often each group is the worst, when the accuracies are drawn from what the samples
        say of them; indexed by group.

    Examples
    --------
    >>> import pandas as pd
    >>> from skspurious.metrics import WorstGroupInterval
    >>> print(WorstGroupInterval(0.8, 0.71, 0.87, 0.95, pd.Series({"sand": 1.0})))
    worst-group accuracy 0.800, 95 % interval [0.710, 0.870]; sand is the worst in 100 % of draws
    """

    observed: float
    low: float
    high: float
    confidence: float
    share_worst: pd.Series

    def __str__(self):
        group = self.share_worst.idxmax()
        name = ", ".join(map(str, group)) if isinstance(group, tuple) else str(group)
        return (
            f"worst-group accuracy {self.observed:.3f}, {100 * self.confidence:g} % interval "
            f"[{self.low:.3f}, {self.high:.3f}]; {name} is the worst in "
            f"{100 * self.share_worst.max():.0f} % of draws"
        )


def worst_group_interval(
    y_true,
    y_pred,
    *,
    sample_group,
    groups=None,
    confidence=0.95,
    n_draws=10_000,
    random_state=0,
):
    """Interval for the accuracy of the group on which it is lowest.

    Of many groups one is low by chance, so that the lowest accuracy that is observed tends to be
    below the lowest true one; the interval allows for that. It is honest for tiny groups and for
    those without a mistake: see :func:`~skspurious.functional.lowest_proportion_interval`.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True classes.
    y_pred : array-like of shape (n_samples,)
        Predicted classes.
    sample_group : array-like of shape (n_samples,) or (n_samples, n_attributes)
        Group of each sample: any hashable values; several columns are crossed.
    groups : array-like of shape (n_groups,), default=None
        The groups to expect. By default those that occur.
    confidence : float, default=0.95
        Two-sided confidence level, in (0, 1).
    n_draws : int, default=10000
        Draws for ``share_worst``: of each accuracy from Jeffreys' posterior,
        Beta(k + 1/2, n - k + 1/2).
    random_state : int, RandomState or Generator, default=0
        Of these draws.

    Returns
    -------
    interval : WorstGroupInterval
        ``observed``, ``low``, ``high``, ``confidence`` and ``share_worst``.

    Raises
    ------
    ValueError
        If a group is empty or `confidence` is not in (0, 1).

    See Also
    --------
    group_report : All groups, each with an interval of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.metrics import worst_group_interval
    >>> y_true, group = np.zeros(200), np.repeat(["grass", "sand"], 100)
    >>> y_pred = np.repeat([0, 1, 0, 1], [95, 5, 80, 20])
    >>> interval = worst_group_interval(y_true, y_pred, sample_group=group)
    >>> print(interval)
    worst-group accuracy 0.800, 95 % interval [0.713, 0.870]; sand is the worst in 100 % of draws
    """
    correct = is_correct(y_true, y_pred)
    members = find_members(sample_group, len(correct), groups)
    n = members.counts
    k = group_counts(members.group, len(n), sample_weight=correct[members.rows])
    low, high = lowest_proportion_interval(k, n, confidence)
    rng = np.random.default_rng(draw_seed(random_state))
    worst = rng.beta(k + 0.5, n - k + 0.5, size=(n_draws, len(n))).argmin(axis=1)
    share = np.bincount(worst, minlength=len(n)) / n_draws
    return WorstGroupInterval(
        observed=float((k / n).min()),
        low=low,
        high=high,
        confidence=float(confidence),
        share_worst=pd.Series(
            share, index=group_index(members.values, sample_group), name="share_worst"
        ),
    )
