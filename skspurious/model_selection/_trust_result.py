"""SelectionTrust: what selection_trust has found."""

from dataclasses import dataclass

import pandas as pd

_FEW = 5  # labelled samples of a group, below which its accuracy is a guess


@dataclass(frozen=True, repr=False)
class SelectionTrust:
    """How well the scores of a search rank its candidates by their worst group.

    Parameters
    ----------
    kind : {"labels", "folds"}
        "labels": correlation of the scores with the accuracy in the worst group, by the labels
        that there are. "folds": without labels, correlation of the scores of one fold with those
        of another; it says nothing of the worst group.
    correlation : float
        Spearman's.
    interval : tuple of two floats
        Of the correlation.
    n_labelled : int
        Samples with a label.
    group_sizes : dict of str to int
        Labelled samples of every group.
    candidates : DataFrame
        One row for each candidate: its parameters, its score, and with labels "worst_group", its
        accuracy out of fold in the worst group.
    n_resamples : int
        Resamples that the interval is made of.
    confidence : float
        Of the interval.

    Examples
    --------
    >>> import pandas as pd
    >>> from skspurious.model_selection import SelectionTrust
    >>> table = pd.DataFrame({"params": [{}, {}, {}], "score": [0.5, 0.6, 0.7]})
    >>> print(SelectionTrust("folds", 0.9, (0.7, 1.0), 0, {}, table, 1000, 0.95))
    Without group labels: folds agree on the order of 3 candidates, rank correlation 0.90 \
(95 %: 0.70 to 1.00). Whether it is the order of the worst group, labels of a few samples can say.
    """

    kind: str
    correlation: float
    interval: tuple
    n_labelled: int
    group_sizes: dict
    candidates: pd.DataFrame
    n_resamples: int
    confidence: float

    @property
    def sparse_groups(self):
        """Groups of fewer than five labelled samples.

        Returns
        -------
        names : list of str
        """
        return [name for name, size in self.group_sizes.items() if size < _FEW]

    def __repr__(self):
        low, high = self.interval
        figures = (
            f"rank correlation {self.correlation:.2f} "
            f"({100 * self.confidence:g} %: {low:.2f} to {high:.2f})"
        )
        n = len(self.candidates)
        if self.kind == "folds":
            return (
                f"Without group labels: folds agree on the order of {n} candidates, {figures}. "
                "Whether it is the order of the worst group, labels of a few samples can say."
            )
        text = f"Scores of {n} candidates and worst group by {self.n_labelled} labels: {figures}."
        if self.sparse_groups:
            text += f" Too few labels to tell: {', '.join(self.sparse_groups)}."
        return text
