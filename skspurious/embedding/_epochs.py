"""Which epoch's network an extractor keeps: each one is scored."""

import copy
import os
from numbers import Real

import numpy as np
from sklearn.base import clone

from skspurious._engine._callbacks import Recorder
from skspurious.base import BaseTorchClassifier
from skspurious.data._sources import last_step


def check_has_epochs(source, is_trained):
    """Raise where a network is not trained here in one run of epochs."""
    if not is_trained:
        problem = "nothing is trained here: pass an unfitted classifier as module"
    elif type(source)._train is not BaseTorchClassifier._train:
        problem = (
            f"{type(source).__name__} does not train in one plain run: use ERMClassifier or "
            "BalancedRetrainer"
        )
    else:
        return
    raise ValueError(f"epoch_selector chooses among the epochs of a training; {problem}.")


class EpochScores(Recorder):
    """Scores the network after each epoch, and remembers the weights of the best."""

    def __init__(self, extractor, X, y):
        self.extractor, self.X, self.y = extractor, X, y
        self.values, self.best_weights = [], None

    def identity(self):
        params = self.extractor.get_params(deep=False)
        return {k: v for k, v in params.items() if k not in ("memmap_dir", "num_workers", "device")}

    def state_dict(self):
        return {"values": self.values, "best_weights": self.best_weights}

    def load_state_dict(self, state):
        self.values, self.best_weights = state["values"], state["best_weights"]

    def on_epoch_end(self, *, module, row, **kwargs):
        module = copy.deepcopy(module)  # the extractor may have another device
        score = score_epoch(self.extractor._adopt(module, self.X), self.X, self.y)
        if not self.values or score > max(self.values):
            self.best_weights = {k: v.cpu().clone() for k, v in module.state_dict().items()}
        self.values.append(score)


def score_epoch(extractor, X, y):
    """The score of the network as it is."""
    selector = extractor.epoch_selector
    if callable(selector):
        score = selector(extractor, X, y)
    else:
        Z = extractor._extract(X)
        inferrer = last_step(clone(selector).fit(Z, y))
        if not hasattr(inferrer, "silhouette_"):
            raise TypeError(
                f"epoch_selector is a {type(inferrer).__name__}, which finds no clusters. Pass "
                "a SpuriousGroupInferrer or a function (extractor, X, y) -> float."
            )
        score = np.where(inferrer.n_clusters_ > 1, inferrer.silhouette_, 0.0).mean()
        if isinstance(Z, np.memmap):
            os.unlink(Z.filename)
    if not isinstance(score, Real) or not np.isfinite(score):
        raise ValueError(
            f"epoch_selector={selector!r} gave {score!r}; it must give a finite number."
        )
    return float(score)
