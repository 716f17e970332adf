"""suggest_annotations: which samples to label, when labels are dear."""

from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.utils import check_array
from sklearn.utils.validation import check_consistent_length, column_or_1d

from skspurious.data._grouped import carried_attribute
from skspurious.data._groups import encode_attribute
from skspurious.functional._cross_fit import cross_fitted_logits
from skspurious.functional._rows import row_order
from skspurious.group_inference._samples import checked_rows
from skspurious.group_inference._sides import margins_of
from skspurious.utils._random import draw_seed
from skspurious.utils._rows import as_labels
from skspurious.utils._sklearn_compat import Interval, validate_params

_LOW, _OTHER = "low margin", "random"


@validate_params(
    {
        "k": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def suggest_annotations(
    X, y, k, *, sample_attribute=None, margin=None, missing_values="auto", random_state=0
):
    """Say which samples to label with a spurious attribute: some hard ones, some at random.

    Half of the labels of a class are to be of samples with low margins, where minorities are, and
    half of the others; hard samples alone mislead. Labels that are there already count: classes
    with fewer get more, and of what is missing in a half more is suggested. So one can ask again,
    with the new labels in ``sample_attribute``, and go on.

    .. versionadded:: 0.1

    Parameters
    ----------
    X : array-like, tensor or GroupedData of shape (n_samples, n_features)
        Embedding of the training samples.
    y : array-like of shape (n_samples,)
        Class labels.
    k : int
        How many samples to suggest.
    sample_attribute : array-like of shape (n_samples,), default=None
        What is known already; None or NaN where it is not. None in place of the array takes the
        ``sample_attribute`` that ``X`` carries, if it does.
    margin : array-like of shape (n_samples,), default=None
        What tells hard samples: the lower, the harder, such as the ``margin_`` of a
        ``SpuriousGroupInferrer("error")`` on a view. None takes the margins of a logistic
        regression on ``X`` that has not seen the sample.
    missing_values : "auto", None, or a value, default="auto"
        As in :class:`SemiSupervisedGroupInferrer`.
    random_state : int, RandomState instance or None, default=0
        Seed of the choice.

    Returns
    -------
    table : DataFrame
        One line for each of the ``k`` samples: `row` (its position in ``X``), `class`, `margin`,
        `why` ("low margin" or "random") and `sample_attribute`, empty, to be filled in. Sorted
        by class and row.

    Raises
    ------
    ValueError
        If fewer than ``k`` samples are without a label, lengths differ, or there is one class
        and no margin.

    See Also
    --------
    SemiSupervisedGroupInferrer : Makes groups of the labels.

    Notes
    -----
    Of a class that is to have `t` labels in all, old and new, the samples with low margins are
    the `2 t` lowest, but at most half of the class; `t / 2` of them are to have a label. The
    choice does not depend on the order of the rows.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from skspurious.group_inference import suggest_annotations
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> Z = y[:, None] + rng.normal(size=(200, 3))
    >>> table = suggest_annotations(Z, y, k=8)
    >>> table.groupby(["class", "why"]).size().tolist()
    [2, 2, 2, 2]

    ``table.to_csv("label_these.csv", index=False)`` writes it; someone fills in the last column.
    ``pd.read_csv("label_these.csv")`` reads it back, and this makes of it what estimators take:

    >>> table["sample_attribute"] = ["grass", "sand"] * 4
    >>> known = np.full(len(y), None)
    >>> known[table["row"]] = table["sample_attribute"]
    >>> len(suggest_annotations(Z, y, k=8, sample_attribute=known))  # the next ones
    8
    """
    given = carried_attribute(X) if sample_attribute is None else sample_attribute
    X = checked_rows(X)
    y = column_or_1d(as_labels(y, "y"))
    check_consistent_length(X, y)
    classes, code = np.unique(y, return_inverse=True)
    value, _ = encode_attribute(given, n_samples=len(y), missing_values=missing_values)
    is_labelled = value >= 0
    if k > (~is_labelled).sum():
        raise ValueError(
            f"k={k}, but only {(~is_labelled).sum()} of {len(y)} samples are without a label."
        )
    margin = _check_margin(margin, X, code, len(classes))

    rng = np.random.default_rng(draw_seed(random_state))
    order = row_order(X)  # so that the order in which rows come has no influence
    order = order[np.lexsort((rng.random(len(X)), code[order]))]
    n_old = np.bincount(code[is_labelled], minlength=len(classes))
    n_new = _share(k, n_old, np.bincount(code[~is_labelled], minlength=len(classes)))
    chosen = []
    for c in range(len(classes)):
        rows = order[code[order] == c]
        chosen += [
            (row, why) for row, why in _choose(rows, margin, is_labelled, n_old[c], n_new[c])
        ]
    row, why = (np.array(part) for part in zip(*chosen, strict=True))
    table = pd.DataFrame({"row": row, "class": y[row], "margin": margin[row], "why": why})
    table["sample_attribute"] = pd.Series([None] * len(table), dtype=object)
    return table.sort_values(["class", "row"], ignore_index=True)


def _check_margin(margin, X, code, n_classes):
    if margin is None:
        if n_classes < 2:
            raise ValueError(
                "y has one class, so there are no margins between classes: give margin=, for "
                "instance those of a view."
            )
        return margins_of(cross_fitted_logits(X, code, n_classes), code)
    margin = check_array(margin, ensure_2d=False, dtype=np.float64, input_name="margin")
    if margin.shape != (len(X),):
        raise ValueError(
            f"margin has shape {margin.shape} for {len(X)} samples: give one for each."
        )
    return margin


def _share(k, n_old, n_left):
    """New labels of every class: each in turn goes to the class with the fewest."""
    n_new = np.zeros(len(n_old), dtype=np.int64)
    for _ in range(k):
        n_new[np.where(n_new < n_left, n_old + n_new, np.inf).argmin()] += 1
    return n_new


def _choose(rows, margin, is_labelled, n_old, n_new):
    """Rows of a class to label, and why: from its rows in the order in which they are drawn."""
    n_in_all = n_old + n_new
    lowest = rows[np.argsort(margin[rows], kind="stable")]
    is_low = np.zeros(len(margin), dtype=bool)
    is_low[lowest[: min(2 * n_in_all, (len(rows) + 1) // 2)]] = True
    low, other = (rows[part & ~is_labelled[rows]] for part in (is_low[rows], ~is_low[rows]))
    n_low_old = (is_low & is_labelled)[rows].sum()
    n_low = min(max(0, (n_in_all + 1) // 2 - n_low_old), n_new, len(low))
    n_low = max(n_low, n_new - len(other))
    yield from ((row, _LOW) for row in low[:n_low])
    yield from ((row, _OTHER) for row in other[: n_new - n_low])
