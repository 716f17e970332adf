"""Evidence: whether groups that were found rest on more than chance and hard samples."""

from dataclasses import asdict, dataclass, field
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.validation import column_or_1d

from skspurious.data import encode_groups, unpack_groups
from skspurious.data._sources import infer_groups, steps_of
from skspurious.functional._jury import jury_scores
from skspurious.functional._recovery import recovery_tests
from skspurious.group_inference._methods import new_method
from skspurious.group_inference._named_views import CLEAN
from skspurious.group_inference._samples import as_array, checked_rows
from skspurious.group_inference._two_sided import TwoSidedMethod
from skspurious.utils._random import draw_seed
from skspurious.utils._rows import as_labels
from skspurious.views._base import View

STRONG = 0.05  # recovered accuracy from which evidence is strong
MADE_OF_ERRORS = (
    "made of errors: balancing always recovers errors that were picked out, with a shortcut or none"
)
MADE_OF_CLUSTERS = (
    "parts of a class: balancing recovers those that are hard, with a shortcut or none"
)


@dataclass(frozen=True)
class Evidence:
    """Whether groups rest on a shortcut, with the figures.

    Parameters
    ----------
    level : {"none", "weak", "strong"}
        "none": balancing the groups gains no more than it would by chance, or among equally hard
        samples; or this cannot be tested. "weak": it gains more. "strong": and recovers 0.05 of
        the accuracy or more.
    reason : str
        One sentence.
    figures : dict of str to float or str, default={}
        Of the strongest of what was tested: its ``name``, ``recovered`` and ``lost`` accuracy,
        ``standard_error`` of the first and ``recovered_high``, what it is at most (two standard
        errors, and one sample more), ``error_misled``, how often a plain head errs where it
        misleads, and ``p_value``, where it can be tested.

    See Also
    --------
    evidence_of : Makes it, of groups or of an inferrer.
    skspurious.inspection.shortcut_test : The full test, with the errors of a classifier.

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
        within the classes, of which the largest of each class counts as its majority; better the
        attribute.
    X : array-like of shape (n_samples, n_features)
        Representation of the samples, such as an embedding. With a :class:`ViewJury` that has a
        clean sample they may be its samples, such as pictures or all columns.
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
        Of an inferrer's groups that are clusters, or are made of errors, "none": they tell hard
        samples as well as those that a shortcut misleads. Errors on a view of the samples are
        tested: a Pipeline that begins with a :mod:`view <skspurious.views>` or a
        ``ColumnTransformer``, or ``ErrorGroups(probe=)``.

    Raises
    ------
    ValueError
        If lengths differ or ``X`` has not two dimensions.

    See Also
    --------
    skspurious.inspection.shortcut_test : The same with the errors of a classifier and all figures.

    Notes
    -----
    A fitted inferrer has ``evidence_``, which is a quick form of this; ``ViewJury.effect_`` is the
    size of what balancing recovers, without a test. Which to use: ``evidence_`` to see whether
    groups rest on something; this function for groups from elsewhere, other samples, or more
    draws; :func:`~skspurious.inspection.shortcut_test` for a report on a classifier.

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
    code = encode_groups(column_or_1d(as_labels(y, "y")), n_samples=len(X), name="y")[0]
    if code.max() == 0:
        raise ValueError(f"y has one class, {np.unique(y).tolist()[0]!r}: evidence needs two.")
    if hasattr(groups, "fit"):
        nuisances = nuisances_of(groups, code, name="groups")
    else:
        nuisances = [Nuisance("groups", nuisance_of_groups(groups, code, name="groups"))]
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
    return describe_evidence(tested[best].name, found[best], code, level)


def clean_numbers(inferrer, X):
    """Samples as numbers: what a jury takes for the clean sample, or as they are."""
    samples = unpack_groups(X)[0]
    samples = as_array(samples.toarray() if hasattr(samples, "toarray") else samples)
    n_features = getattr(inferrer, "n_features_in_", None)  # where a jury was fitted on a table
    is_table = len(getattr(samples, "shape", ())) == 2
    is_for_jury = not is_table or samples.shape[1] == n_features
    if is_for_jury and CLEAN in getattr(inferrer, "view_names_", []):
        return inferrer.represent(X)
    return checked_rows(samples)


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


def describe_evidence(name, recovery, code, level, untested=""):
    """Evidence in words; `untested` says why there can be none."""
    wrong = recovery.is_wrong
    split = np.flatnonzero(np.isfinite(recovery.class_recovered))
    n_wrong = np.bincount(code[wrong], minlength=len(recovery.class_recovered))[split]
    one_more = np.sqrt(np.sum(1.0 / n_wrong**2)) / max(1, len(split))
    error = [np.mean(~recovery.is_hit[wrong & (code == k)]) for k in split]
    figures = {
        "name": name,
        "recovered": recovery.recovered,
        "recovered_high": recovery.recovered
        + float(2 * np.hypot(recovery.standard_error, one_more)),
        "lost": recovery.lost,
        "standard_error": recovery.standard_error,
        "error_misled": float(np.mean(error)) if error else 0.0,
        "p_value": recovery.p_value,
    }
    reason = (
        f"balancing the sides of {name!r} recovers {recovery.recovered:.3f} of the accuracy where "
        f"it misleads and loses {recovery.lost:.3f} elsewhere"
    )
    if untested:
        del figures["p_value"]
        return Evidence("none", f"{untested}; {reason}", figures)
    reason += f", p = {recovery.p_value:.3g}"
    found = level_of(recovery, level)
    if found == "none" and recovery.recovered > max(STRONG, 2 * recovery.standard_error):
        reason += ": it is not told from hard samples"
    return Evidence(found, reason, figures)


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
    reason = why_not_tested(inferrer)
    if reason:
        return [Nuisance(name, None, reason)]
    last = steps_of(inferrer)[-1]
    if hasattr(last, "votes_") and hasattr(last, "view_scores_"):
        return _views_of(last, None if X is None else _new_votes(inferrer, last, X))
    group = last.labels_ if X is None else infer_groups(inferrer, X, y)[0]
    is_ordered = isinstance(getattr(last, "method_", None), TwoSidedMethod)
    return [Nuisance(name, nuisance_of_groups(group, code, first_is_right=is_ordered))]


def why_not_tested(inferrer):
    """Why groups are no evidence, whatever balancing them recovers; empty where they may be.

    Errors on the samples and parts of a class are not, errors on a view of the samples are.
    """
    *before, last = steps_of(inferrer)
    method = getattr(last, "method_", getattr(last, "method", None))
    method = new_method(method) if isinstance(method, str) else method
    if method is not None and not method.made_of_errors:
        return MADE_OF_CLUSTERS
    sees_view = any(isinstance(step, View) or hasattr(step, "transformers") for step in before)
    if sees_view or getattr(method, "probe", None) is not None:
        return ""
    return MADE_OF_ERRORS if getattr(last, "made_of_errors", method is not None) else ""


def _views_of(jury, votes=None):
    """Each view, and their weighted vote without the clean sample."""
    score = jury.view_score_ if votes is None else jury_scores(votes, jury._view_weight)
    votes = jury.votes_ if votes is None else votes
    named = zip(jury.view_names_, votes, strict=True)
    views = [Nuisance(name, vote) for name, vote in named if name != CLEAN]
    if np.count_nonzero(jury._view_weight) > 1:
        views.append(Nuisance("jury", score))
    return views or [Nuisance(CLEAN, None, "the clean sample alone, which is no view")]


def _new_votes(inferrer, jury, X):
    for step in steps_of(inferrer)[:-1]:
        X = step.transform(X)
    return np.stack([judge.votes(X) for judge in jury.judges_])


def nuisance_of_groups(group, code, *, first_is_right=False, name="sample_group"):
    """What groups say of the class, as numbers.

    Of an attribute, whose values are met in several classes, the indicators of the values. Of
    groups within the classes the own class for the largest group (or the first), and the others
    alike for the rest.
    """
    group, values = encode_groups(group, n_samples=len(code), name=name)
    count = np.zeros((len(values), code.max() + 1), dtype=np.int64)
    np.add.at(count, (group, code), 1)
    if ((count > 0).sum(axis=1) > 1).any():
        return pd.get_dummies(group).to_numpy(dtype=np.float64)
    right = (count > 0).argmax(axis=0) if first_is_right else count.argmax(axis=0)
    own = np.eye(count.shape[1])[code]
    others = (1 - own) / max(1, count.shape[1] - 1)
    return np.where((group == right[code])[:, None], own, others)
