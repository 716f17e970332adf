"""ShortcutTest: the verdict of a shortcut test, in one sentence, as a table and for machines."""

from html import escape

import numpy as np
import pandas as pd

__all__ = ["ShortcutTest"]

_COLUMNS = [
    "n",
    "n_misled",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "error_right",
    "error_misled",
    "difference",
    "difference_low",
    "difference_high",
    "difference_p_value",
    "error_explained",
    "recovered",
    "recovered_low",
    "recovered_high",
    "lost",
    "p_value",
    "evidence",
]
_SHOWN = ["accuracy", "error_right", "error_misled", "error_explained", "recovered", "lost"]


class ShortcutTest:
    """What :func:`shortcut_test` has found.

    .. versionadded:: 0.1

    Parameters
    ----------
    nuisances : list of dict
        Figures of everything that was tested, as in ``to_dict``.
    strongest : str or None
        Name of what has the strongest evidence.
    not_tested : dict of str to str
        What could not be tested, with the reasons.
    notes : list of str
        What to know about the figures.
    classes : list
        Class labels.
    n_samples : int
        Number of samples.
    level : float
        Largest p-value of evidence.
    n_permutations : int
        Draws of each kind.

    See Also
    --------
    shortcut_test : Makes it.

    Examples
    --------
    >>> import numpy as np
    >>> from skspurious.inspection import shortcut_test
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 200)
    >>> X = np.stack([y + 0.5 * rng.normal(size=400), rng.normal(size=400)], axis=1)
    >>> shortcut_test(None, X, y, views={"ground": [1]}, random_state=0).sentence
    "No evidence of a shortcut among what was looked for: 'ground'."
    """

    def __init__(
        self,
        *,
        nuisances,
        strongest,
        not_tested,
        notes,
        classes,
        n_samples,
        level,
        n_permutations,
    ):
        self.nuisances = nuisances
        self.strongest = strongest
        self.not_tested = not_tested
        self.notes = notes
        self.classes = classes
        self.n_samples = n_samples
        self.level = level
        self.n_permutations = n_permutations

    @property
    def evidence(self):
        """That of the strongest of what was tested: "none", "weak" or "strong"."""
        figures = self._strongest()
        return "none" if figures is None else figures["evidence"]

    @property
    def p_value(self):
        """Smallest p-value, corrected for what was tested together; 1 where nothing was."""
        figures = self._strongest()
        return 1.0 if figures is None else figures["p_value"]

    @property
    def sentence(self):
        """The verdict for humans."""
        figures = self._strongest()
        if figures is None:
            reasons = "; ".join(f"{name!r} is {why}" for name, why in self.not_tested.items())
            return f"No evidence possible: {reasons or 'nothing was tested'}."
        if figures["evidence"] == "none":
            return f"No evidence of a shortcut among what was looked for: {self._names()}."
        contrast = ""
        if np.isfinite(figures["difference"]):
            contrast = (
                f"Where it misleads, the model errs on {figures['error_misled']:.0%}, elsewhere on "
                f"{figures['error_right']:.0%}; "
            )
        return (
            f"{figures['evidence'].capitalize()} evidence of a shortcut: {self.strongest!r} alone "
            f"says the class with {figures['accuracy']:.0%} accuracy. {contrast}balancing recovers "
            f"{_points(figures['recovered'])} there and costs {_points(figures['lost'])} elsewhere."
        )

    def to_frame(self):
        """All figures.

        Returns
        -------
        figures : DataFrame
            One row for each nuisance over all classes, and one for each of its classes; index
            ``nuisance`` and ``class`` ("all" or the label). ``accuracy`` is how often the nuisance
            says the class, ``n_misled`` the samples for which it does not, ``error_right`` and
            ``error_misled`` the model's errors on the two sides, ``error_explained`` the share of
            the model's errors that would not be if both sides were as easy, ``recovered`` and
            ``lost`` what balancing does. Over the classes they are means; intervals are of 95 %.
        """
        rows, index = [], []
        for nuisance in self.nuisances:
            for label, figures in [
                ("all", nuisance["overall"]),
                *zip(self.classes, nuisance["classes"]),
            ]:
                rows.append(figures)
                index.append((nuisance["name"], label))
        names = ["nuisance", "class"]
        index = pd.MultiIndex.from_tuples(index, names=names) if index else None
        return pd.DataFrame(rows, index=index, columns=_COLUMNS)

    def to_dict(self):
        """The same as a dict that JSON can hold; its keys stay as they are.

        Returns
        -------
        test : dict
            Numbers that there are none of are None.
        """
        return _plain(
            {
                "evidence": self.evidence,
                "sentence": self.sentence,
                "p_value": self.p_value,
                "level": self.level,
                "strongest": self.strongest,
                "n_samples": self.n_samples,
                "n_permutations": self.n_permutations,
                "classes": self.classes,
                "nuisances": self.nuisances,
                "not_tested": self.not_tested,
                "notes": self.notes,
            }
        )

    def _strongest(self):
        for nuisance in self.nuisances:
            if nuisance["name"] == self.strongest:
                return nuisance["overall"]
        return None

    def _names(self):
        return ", ".join(repr(nuisance["name"]) for nuisance in self.nuisances)

    def _lines(self):
        yield self.sentence
        yield f"Looked for, on {self.n_samples} samples: {self._names() or 'nothing'}."
        yield from (f"Not tested: {name!r} is {why}." for name, why in self.not_tested.items())
        yield from self.notes

    def _table(self):
        names = pd.Index([nuisance["name"] for nuisance in self.nuisances], name="nuisance")
        rows = [nuisance["overall"] for nuisance in self.nuisances]
        return pd.DataFrame(rows, index=names, columns=[*_SHOWN, "p_value", "evidence"])

    def __repr__(self):
        lines = list(self._lines())
        if self.nuisances:
            lines[1:1] = ["", self._table().to_string(float_format="{:.3f}".format), ""]
        return "\n".join(lines)

    def _repr_html_(self):
        first, *others = [escape(line) for line in self._lines()]
        table = self._table().to_html(float_format="{:.3f}".format) if self.nuisances else ""
        return f"<p><b>{first}</b></p>{table}<p>{'<br>'.join(others)}</p>"


def _points(share):
    n = round(100 * share, 1)
    return f"{n:g} point{'' if n == 1 else 's'}"


def _plain(value):
    """Python's own types, None for what is no number."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
