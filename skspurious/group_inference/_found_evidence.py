"""``evidence_`` of a fitted inferrer: looked for when it is first asked for, and printed."""

from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator

from skspurious.functional._cross_fit import cross_fit_folds
from skspurious.functional._recovery import leading_components, recovery_tests
from skspurious.group_inference._evidence import STRONG, Evidence, describe_evidence
from skspurious.utils._random import draw_seed
from skspurious.utils._sklearn_compat import print_as_estimator

_LEVEL = 0.05
_N_PERMUTATIONS = 39
_MOST_ROWS = 2500
_MUST_ERR = 0.1  # how often a plain head errs on one side, before one can say that nothing is there


@dataclass(frozen=True)
class KeptSamples:
    """What evidence is looked for in: some samples, by few numbers."""

    Z: np.ndarray  # (n_rows, at most 64)
    code: np.ndarray
    name: str
    says: np.ndarray  # (n_rows, n_columns)
    untested: str

    def evidence(self, n_permutations=_N_PERMUTATIONS):
        n = 1 if self.untested else n_permutations
        params = {"n_components": None, "n_permutations": n, "random_state": draw_seed(0)}
        (found,) = recovery_tests(self.Z, self.code, [self.says], **params)
        return describe_evidence(self.name, found, self.code, _LEVEL, self.untested)


class CarriesEvidence(BaseEstimator):
    """An inferrer with ``evidence_``; ``fit`` calls ``keep_evidence``."""

    @property
    def evidence_(self):
        """Evidence: whether the groups rest on a shortcut, with the figures."""
        if "_evidence" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no evidence_ before fit.")
        if isinstance(self._evidence, KeptSamples):
            self._evidence = self._evidence.evidence()
        return self._evidence

    def keep_evidence(self, Z, code, nuisance):
        """Keep what evidence can be looked for in, at most 2,500 rows of 64 numbers.

        Parameters
        ----------
        Z : ndarray of shape (n_samples, n_features), or None
            Representation of the samples; None if there is none.
        code : ndarray of shape (n_samples,)
            Class codes.
        nuisance : Nuisance
            What the groups say of the class; its reason is why it is no evidence.
        """
        if len(np.unique(code)) < 2:
            self._evidence = Evidence("none", "there is one class")
        elif nuisance.says is None:
            self._evidence = Evidence("none", nuisance.reason)
        elif np.ptp(nuisance.says, axis=0).max() < 1e-9:
            self._evidence = Evidence("none", "nothing says the class more often than chance")
        elif Z is None:
            reason = "not tested: nothing makes numbers of the samples as they are"
            self._evidence = Evidence("none", reason)
        else:
            n_folds = -(-len(Z) // _MOST_ROWS)
            order, fold = cross_fit_folds(Z, code, max(2, n_folds), 0)
            rows = order if n_folds == 1 else order[fold == 0]
            part = leading_components(Z[rows].astype(np.float64), is_quick=True)
            self._evidence = KeptSamples(
                part, code[rows], nuisance.name, nuisance.says[rows], nuisance.reason
            )

    def evidence_of_nothing(self):
        """The evidence where balancing the groups repairs nothing for sure; else None.

        Returns
        -------
        evidence : Evidence or None
            If it recovers less than 0.05 by more than two standard errors, which are less than
            0.05 themselves, where a plain head errs on a tenth or more: of few samples, and of
            few errors, nobody can say so.
        """
        found = self._evidence
        if isinstance(found, KeptSamples):
            found = found.evidence(n_permutations=1)  # the figures alone, at first
        figures = found.figures
        if not figures or figures["error_misled"] < _MUST_ERR:
            return None
        high = figures["recovered_high"]
        if high > STRONG or high - figures["recovered"] > STRONG:
            return None
        return self.evidence_ if self.evidence_.level == "none" else None

    # ------------------------------------------------------------------------ printing

    def __repr__(self, N_CHAR_MAX=700):
        text = super().__repr__(N_CHAR_MAX)
        return f"{text}\n{self.evidence_!r}" if "_evidence" in vars(self) else text

    def _repr_html_inner(self):
        html = super()._repr_html_inner()
        return html + self.evidence_._repr_html_() if "_evidence" in vars(self) else html

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle and "_evidence" in vars(self):
            bundle["text/html"] += self.evidence_._repr_html_()
        return bundle


print_as_estimator(CarriesEvidence.__repr__)
