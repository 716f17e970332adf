"""Evidence: whether groups that were found rest on more than chance and hard samples."""

from dataclasses import asdict, dataclass, field
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array

from skspurious.data import encode_groups, unpack_groups
from skspurious.functional._jury import jury_scores
from skspurious.functional._recovery import recovery_tests
from skspurious.group_inference._error import ErrorGroups
from skspurious.group_inference._samples import AS_ROWS, as_array, smallest_type
from skspurious.utils._random import draw_seed
from skspurious.views._base import View
from skspurious.views._standard import kind_of

CLEAN = "clean"  # the samples as they are, among the views of a jury: no evidence, for it sees all
STRONG = 0.05  # recovered accuracy from which evidence is strong
MADE_OF_ERRORS = (
    "made of errors: balancing always recovers errors that were picked out, with a shortcut or none"
)


@dataclass(frozen=True)
class Evidence:
    """Whether groups rest on a shortcut, with the figures.

    Parameters
    ----------
    level : {"none", "weak", "strong"}
        "none": balancing the groups gains no more than it would by chance, or among equally hard
        samples. "weak": it gains more. "strong": and recovers 0.05 of the accuracy or more.
    reason : str
        One sentence.
    figures : dict of str to float or str, default={}
        Of the strongest of what was tested: its ``name``, ``recovered`` and ``lost`` accuracy,
        ``standard_error`` of the first, and ``p_value``.

    Examples
    --------
    >>> from skspurious.group_inference import Evidence
    >>> Evidence("none", "made of errors")
    Evidence: none (made of errors)
    """

    level: str
    reason: str
    figures: dict = field(default_factory=dict)

    def __repr__(self):
        return f"Evidence: {self.level} ({self.reason})"

    def _repr_html_(self):
        return f"<p><b>Evidence: {escape(self.level)}</b> ({escape(self.reason)})</p>"

    def to_dict(self):
        """The same as a dict that JSON can hold.

        Returns
        -------
        evidence : dict
            With ``level``, ``reason`` and ``figures``.
        """
        return asdict(self)


class Nuisance(NamedTuple):
    """What may mislead: its name and what it says of every sample, or why it cannot be tested."""

    name: str
    says: np.ndarray | None
    reason: str = ""


def evidence_of(groups, X, y, *, level=0.05, n_permutations=99, random_state=0):
    """Evidence that groups rest on a shortcut: what balancing them recovers, and by chance.

    .. versionadded:: 0.1

    Parameters
    ----------
    groups : fitted inferrer, or array-like of shape (n_samples,) or (n_samples, n_attributes)
        An inferrer that was fitted on these samples, or groups: values of an attribute, or groups
        within the classes, of which the largest of each class counts as its majority.
    X : array-like of shape (n_samples, n_features)
        Representation of the samples, such as an embedding. With a :class:`ViewJury` that has a
        clean sample they may be its samples, such as pictures.
    y : array-like of shape (n_samples,)
        Class labels.
    level : float, default=0.05
        Largest p-value of evidence.
    n_permutations : int, default=99
        Draws of each kind; the time that it takes goes with it.
    random_state : int, RandomState instance or None, default=0
        Seed of folds and draws.

    Returns
    -------
    evidence : Evidence
        Of groups that are made of the samples' own errors "none", without a test.

    Raises
    ------
    ValueError
        If lengths differ or ``X`` has not two dimensions.

    See Also
    --------
    skspurious.inspection.shortcut_test : The same with the errors of a classifier and all figures.

    Notes
    -----
    Of a :class:`ViewJury` the views are tested one by one and together, without the clean sample,
    and the smallest p-value is corrected for their number.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.group_inference import evidence_of
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 150)
    >>> sand = np.where(rng.random(300) < 0.9, y, 1 - y)       # goes with the class
    >>> X = np.stack([y + 0.4 * rng.normal(size=300), sand + 0.2 * rng.normal(size=300)], axis=1)
    >>> evidence_of(sand, X, y).level, evidence_of(rng.integers(2, size=300), X, y).level
    ('strong', 'none')
    """
    X = clean_numbers(groups, X)
    code = encode_groups(y, n_samples=len(X), name="y")[0]
    if hasattr(groups, "fit"):
        nuisances = nuisances_of(groups, code, name="groups")
    else:
        nuisances = [Nuisance("groups", nuisance_of_groups(groups, code))]
    tested = [n for n in nuisances if n.says is not None]
    if not tested:
        return Evidence("none", nuisances[0].reason)
    found = recovery_tests(
        X,
        code,
        [n.says for n in tested],
        n_permutations=n_permutations,
        random_state=draw_seed(random_state),
    )
    best = strongest(found)
    return describe_evidence(tested[best].name, found[best], level)


def clean_numbers(inferrer, X):
    """Samples as numbers: as they are, or as a jury sees the clean sample where it has one."""
    names = getattr(inferrer, "view_names_", [])
    if CLEAN in names and kind_of(X) not in ("table", "embedding"):
        X = inferrer.judges_[names.index(CLEAN)].transformer_.transform(X)
    X = unpack_groups(X)[0]
    X = as_array(X.toarray() if hasattr(X, "toarray") else X)
    return smallest_type(check_array(X, **AS_ROWS))


def strongest(recoveries):
    """Position of the one with the smallest p-value, of equal ones the one that recovers most."""
    return min(
        range(len(recoveries)), key=lambda i: (recoveries[i].p_value, -recoveries[i].recovered)
    )


def level_of(recovery, level):
    """The level of evidence: "none", "weak" or "strong"."""
    if recovery.p_value > level:
        return "none"
    return "strong" if recovery.recovered >= STRONG else "weak"


def describe_evidence(name, recovery, level):
    """Evidence in words."""
    figures = {
        "name": name,
        "recovered": recovery.recovered,
        "lost": recovery.lost,
        "standard_error": recovery.standard_error,
        "p_value": recovery.p_value,
    }
    reason = (
        f"balancing the sides of {name!r} recovers {recovery.recovered:.3f} of the accuracy where "
        f"it misleads and loses {recovery.lost:.3f} elsewhere, p = {recovery.p_value:.3g}"
    )
    return Evidence(level_of(recovery, level), reason, figures)


def nuisances_of(inferrer, code, *, name, X=None, y=None):
    """What a fitted inferrer has found: its views one by one and together, or its groups.

    Parameters
    ----------
    inferrer : fitted inferrer
    code : ndarray of shape (n_samples,)
        Class codes.
    name : str
        What groups are called.
    X, y : samples and class labels, default=None
        Samples whose groups are wanted; None are those of ``fit``.

    Returns
    -------
    nuisances : list of Nuisance
    """
    if is_made_of_errors(inferrer):
        return [Nuisance(name, None, MADE_OF_ERRORS)]
    last = inferrer.steps[-1][1] if isinstance(inferrer, Pipeline) else inferrer
    if hasattr(last, "votes_") and hasattr(last, "view_scores_"):
        votes = last.votes_ if X is None else _new_votes(inferrer, last, X, y)
        return _views_of(votes, last.view_names_, last.view_scores_["weight"].to_numpy())
    group = last.labels_ if X is None else inferrer.infer_groups(X, y)
    by_error = isinstance(getattr(last, "method_", None), ErrorGroups)
    return [Nuisance(name, nuisance_of_groups(group, code, first_is_right=by_error))]


def is_made_of_errors(inferrer):
    """Whether groups are errors on the sample itself; errors on a view of it are something else."""
    steps = [step for _, step in inferrer.steps] if isinstance(inferrer, Pipeline) else [inferrer]
    method = getattr(steps[-1], "method_", getattr(steps[-1], "method", None))
    of_errors = (
        method == "error"
        or (isinstance(method, ErrorGroups) and method.probe is None)
        or getattr(method, "made_of_errors", False)
        or getattr(steps[-1], "made_of_errors", False)
    )
    sees_view = any(isinstance(step, View) or hasattr(step, "transformers") for step in steps[:-1])
    return bool(of_errors) and not sees_view


def _views_of(votes, names, weight):
    """Each view, and their weighted vote without the clean sample."""
    is_view = np.array([name != CLEAN for name in names])
    views = [Nuisance(name, votes[v]) for v, name in enumerate(names) if is_view[v]]
    weight = np.where(is_view, weight, 0.0)
    if (weight > 0).sum() > 1:
        views.append(Nuisance("jury", jury_scores(votes, weight / weight.sum())))
    return views or [Nuisance(CLEAN, None, "the clean sample alone, which is no view")]


def _new_votes(inferrer, jury, X, y):
    for _, step in inferrer.steps[:-1] if isinstance(inferrer, Pipeline) else []:
        X = step.transform(X)
    return np.stack([judge.votes(X) for judge in jury.judges_])


def nuisance_of_groups(group, code, *, first_is_right=False):
    """What groups say of the class, as numbers.

    Of an attribute, whose values are met in several classes, the indicators of the values. Of
    groups within the classes the own class for the largest group (or the first), and the others
    alike for the rest.
    """
    group, values = encode_groups(group, n_samples=len(code))
    count = np.zeros((len(values), code.max() + 1), dtype=np.int64)
    np.add.at(count, (group, code), 1)
    if ((count > 0).sum(axis=1) > 1).any():
        return pd.get_dummies(group).to_numpy(dtype=np.float64)
    right = (count > 0).argmax(axis=0) if first_is_right else count.argmax(axis=0)
    own = np.eye(count.shape[1])[code]
    others = (1 - own) / max(1, count.shape[1] - 1)
    return np.where((group == right[code])[:, None], own, others)
