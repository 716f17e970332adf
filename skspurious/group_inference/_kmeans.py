"""GEORGE's choice: clusters of the normalised embedding, as many as the macro silhouette says."""

import numpy as np

from skspurious.group_inference._base import MethodDefaults

DEFAULTS = MethodDefaults(normalize=True, max_clusters=10, criterion="macro")


def choose_by_macro_silhouette(scores):
    """Index of the largest macro silhouette; of equal ones the last, with the most clusters."""
    macro = np.array([score.macro for score in scores])
    return int(np.flatnonzero(macro >= macro.max() - 1e-9)[-1])
