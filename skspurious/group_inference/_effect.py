"""What balancing the sides of a nuisance does to a linear head, in words."""

from dataclasses import dataclass

import numpy as np

from skspurious.functional._recovery import recovery_tests

_RECOVERS = 0.02  # accuracy on the wrong sides, below which nothing is worth balancing
_RECOVERS_MUCH = 0.25
_FAILS = 0.6  # how much less often a plain head is right where the nuisance is wrong


@dataclass(frozen=True)
class BalancingEffect:
    """Whether a nuisance misleads a linear head, and how much of it balancing repairs.

    A size and no test: :func:`skspurious.inspection.shortcut_test` is one.

    Parameters
    ----------
    level : {"none", "small", "large"}
        "none" where balancing recovers less than two points or two standard errors; "large" where
        it recovers 25 points, or a plain head is right 60 points less often where the nuisance is
        wrong than where it is right.
    recovered, lost : float
        Accuracy that a head gains out of fold, when the sides of each class count the same, where
        the nuisance is wrong, and loses where it is right; means over the classes.
    standard_error : float
        Of ``recovered``.
    wrong_share : float
        Share of the samples of which the nuisance says another class.
    accuracy_right, accuracy_wrong : float
        Of a head that balances the classes alone, where the nuisance is right and where it is
        wrong; means over the classes.
    """

    level: str
    recovered: float
    lost: float
    standard_error: float
    wrong_share: float
    accuracy_right: float
    accuracy_wrong: float

    def __str__(self):
        if self.level == "none":
            return (
                "Nothing of a shortcut: balancing what the views say recovers "
                f"{100 * self.recovered:.0f} points where they are wrong."
            )
        return (
            f"A {self.level} effect of a shortcut: a linear head errs on "
            f"{100 * (1 - self.accuracy_wrong):.0f} % where the views are wrong about the class, "
            f"elsewhere on {100 * (1 - self.accuracy_right):.0f} %; balancing recovers "
            f"{100 * self.recovered:.0f} points."
        )


def effect_of(Z, code, score, *, seed=0):
    """What balancing the sides of a nuisance recovers.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Representation of the samples themselves, which has not been fitted to their labels.
    code : ndarray of shape (n_samples,)
        Class codes.
    score : ndarray of shape (n_samples, n_classes)
        Probabilities of the classes by what does not see the object, out of fold.
    seed : int, default=0
        Of the folds.

    Returns
    -------
    effect : BalancingEffect
    """
    if np.ptp(score) < 1e-9:  # no view has a say
        return BalancingEffect("none", 0.0, 0.0, 0.0, 0.0, float("nan"), float("nan"))
    says = np.log(np.maximum(score, 1e-4))
    (found,) = recovery_tests(Z, code, [says], n_permutations=1, random_state=seed)
    right, wrong = (
        np.mean([found.is_hit[rows].mean() for rows in _parts(code, is_side)] or [np.nan])
        for is_side in (~found.is_wrong, found.is_wrong)
    )
    recovered, error = found.recovered, found.standard_error
    level = "none"
    if recovered > max(_RECOVERS, 2.0 * error):
        is_large = recovered >= _RECOVERS_MUCH or right - wrong >= _FAILS
        level = "large" if is_large else "small"
    return BalancingEffect(
        level,
        recovered,
        found.lost,
        error,
        float(found.is_wrong.mean()),
        float(right),
        float(wrong),
    )


def _parts(code, is_side):
    """Masks of the samples of each class on a side, where there are any."""
    masks = [(code == k) & is_side for k in np.unique(code)]
    return [mask for mask in masks if mask.any()]
