"""Sides of a class: what its rows are taken for, and which parts of the class that makes."""

import numpy as np
import torch

from skspurious.functional._error_set import class_margins


def margins_of(logits, code):
    """Logit of the own class minus the largest of the others; 0 where there is one class."""
    if logits.shape[1] == 1:
        return np.zeros(len(logits))
    logits = torch.from_numpy(np.ascontiguousarray(logits))
    return class_margins(logits, torch.from_numpy(code.astype(np.int64))).numpy()


def taken_for(logits, code):
    """Class of the largest logit, the own one where it is among the largest."""
    return np.where(margins_of(logits, code) < 0.0, logits.argmax(axis=1), code)


def parts_of_predictions(predicted, code, n_classes, *, by, min_group_size):
    """Part of every class and predicted class: 0 where it is the own one.

    Parameters
    ----------
    predicted, code : ndarray of shape (n_samples,), int64
        What the rows are taken for, and their classes.
    n_classes : int
    by : {"error", "predicted_class"}
        One part for all that is wrong, or one for each predicted class, where those with fewer
        than `min_group_size` rows are put together, or with the largest of the others.
    min_group_size : int

    Returns
    -------
    part : ndarray of shape (n_classes, n_classes), int64
        Row: class; column: predicted class.
    """
    part = 1 - np.eye(n_classes, dtype=np.int64)
    if by == "error":
        return part
    size = np.zeros_like(part)
    np.add.at(size, (code, predicted), 1)
    for k in range(n_classes):
        others = np.flatnonzero(part[k])  # part 1 has what is small, the others follow
        large = others[size[k, others] >= min_group_size]
        part[k, large] = 2 + large
        small = others[part[k, others] == 1]
        if len(large) and size[k, small].sum() < min_group_size:
            part[k, small] = 2 + large[size[k, large].argmax()]
    return part
