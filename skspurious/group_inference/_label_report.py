"""How good groups from a few labels are, class by class, and where labels are too few to tell."""

import numpy as np
import pandas as pd

from skspurious.functional._metrics import wilson_interval
from skspurious.utils._warnings import warn

_FEWEST_LABELS = 5  # of a class and value, below which nothing is said of the class


def report_labels(inferrer, code, value, labelled, is_right, sure):
    """Table of a row for each class; warns where there are too few labels.

    Parameters
    ----------
    inferrer : SemiSupervisedGroupInferrer
        With its groups.
    code : ndarray of shape (n_samples,)
        Class codes.
    value : ndarray of shape (n_samples,)
        Codes of the attribute; -1 where it is not known.
    labelled, is_right : bool ndarray of shape (n_samples,)
        Whose attribute is known, and whose a model that has not seen it found.
    sure : ndarray of shape (n_samples,)
        Probability that the value of the group is right.

    Returns
    -------
    table : DataFrame
    """
    n_classes, n_groups = len(inferrer.classes_), len(inferrer.groups_)
    n_values = len(inferrer.attribute_values_)
    n_labelled = np.bincount(code[labelled], minlength=n_classes)
    n_correct = np.bincount(code[is_right], minlength=n_classes)
    cells = np.bincount((code * n_values + value)[labelled], minlength=n_groups)
    is_short = (inferrer.group_sizes_ > 0) & (cells < _FEWEST_LABELS) & (n_values > 1)
    is_short &= np.bincount(inferrer.labels_[~labelled], minlength=n_groups) > 0
    is_enough = ~is_short.reshape(-1, n_values).any(axis=1) & (n_values > 1)
    low, high = wilson_interval(n_correct, n_labelled)
    with np.errstate(invalid="ignore"):
        accuracy = n_correct / n_labelled
    expected = np.bincount(code, weights=sure) / np.bincount(code)
    if n_values > 1 and not is_enough.all():
        short = ", ".join(
            f"({inferrer.group_classes_[g]!s}, {inferrer.group_attributes_[g]!s}): {cells[g]}"
            for g in np.flatnonzero(is_short)[:8]
        )
        warn(
            f"too few labels to tell how good the groups are: fewer than {_FEWEST_LABELS} labelled "
            f"samples of (class, value) {short}. expected_accuracy_ is NaN for these classes; "
            "suggest_annotations says which samples to label next."
        )
    return pd.DataFrame(
        {
            "class": inferrer.classes_,
            "n_samples": np.bincount(code),
            "n_labelled": n_labelled,
            "n_correct": n_correct,
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "expected_accuracy": np.where(is_enough, expected, np.nan),
            "is_enough": is_enough,
        }
    )
