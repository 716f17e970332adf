"""Fits in threads have the bits that they have alone."""

import joblib
import numpy as np
import pytest
import torch
from registry import SMALL
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skspurious import ERMClassifier, GroupDROClassifier, SPAREClassifier


class Network(nn.Module):
    """Draws while it is built and while it is trained."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 2))

    def forward(self, x):
        return self.layers(x)


FAST = {"max_epochs": 2, "batch_size": 8}
MODELS = [
    cls(Network, random_state=seed, **FAST)
    for seed in range(4)
    for cls in (ERMClassifier, GroupDROClassifier, SPAREClassifier)
]


def _fit(model, X, y, group):
    return clone(model).fit(X, y, sample_group=group).module_.state_dict()


@pytest.fixture(scope="module")
def alone():
    return [_fit(model, *SMALL["table"]()) for model in MODELS]


def test_threads_of_joblib(alone):
    before = torch.get_rng_state()
    with joblib.parallel_config("threading", n_jobs=4):
        found = joblib.Parallel()(joblib.delayed(_fit)(m, *SMALL["table"]()) for m in MODELS)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(found, alone, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_search_in_threads():
    X, y, _ = SMALL["table"]()
    clf = ERMClassifier(Network, random_state=0, **FAST)
    searches = [GridSearchCV(clf, {"lr": [0.01, 0.1]}, cv=3, n_jobs=n) for n in (1, 3)]
    with joblib.parallel_config("threading"):
        found = [s.fit(X, y).best_estimator_.predict_proba(X) for s in searches]
    np.testing.assert_array_equal(*found)


def test_a_callback_may_wait_for_fits_in_other_threads():
    from skspurious.callbacks import Callback

    X, y, _ = SMALL["table"]()

    class FitsOthers(Callback):
        def on_epoch_end(self, **kwargs):
            with joblib.parallel_config("threading", n_jobs=2):
                joblib.Parallel()(joblib.delayed(_fit)(MODELS[0], X, y, None) for _ in range(2))

    clf = ERMClassifier(Network, callbacks=[FitsOthers()], random_state=0, **FAST).fit(X, y)
    assert len(clf.history_) == 2
