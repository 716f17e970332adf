"""What may become of a network once its groups are known, compared on samples held out."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd

from skspurious._prediction import read_outputs
from skspurious._training import Trained
from skspurious.base import BaseTorchClassifier
from skspurious.functional._error_set import stratified_folds
from skspurious.functional._metrics import group_means
from skspurious.mitigation._balanced import BalancedRetrainer
from skspurious.mitigation._last_layer import LastLayerRetrainer

_GENTLE_CS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # to choose from where the effect is small


class Ways:
    """Ways to retrain a network on balanced groups.

    Parameters
    ----------
    estimator : BaseTorchClassifier
        Gives the shared parameters.
    chosen : str
        What the groups are.
    level : {"none", "small", "large"}
        What balancing recovers: where it is little, the head is changed less.
    data : FitData
        With groups.
    runtime : Runtime
    seeds : sequence of two ints
    sure_rows : ndarray of int
        Rows of X whose groups are sure. Balanced draws are of these; networks and weighted heads
        are trained on all.
    """

    def __init__(self, estimator, chosen, level, data, runtime, seeds, *, sure_rows):
        names = BaseTorchClassifier().get_params(deep=False)
        self.shared = {n: getattr(estimator, n) for n in names if n != "group_inferrer"}
        self.chosen = chosen
        self.level = level
        self.data = data
        self.runtime = runtime
        self.seeds = seeds
        self.sure_rows = sure_rows

    def train(self, way, module, data):
        """The network trained in one of the ways, in place.

        Parameters
        ----------
        way : {"head", "frozen", "last layer", "network", "plain"}
        module : nn.Module
            The initial network.
        data : FitData
            All samples, or a part of them.

        Returns
        -------
        trained : Trained
        """
        if way == "network":
            balanced = BalancedRetrainer(**self.shared)
            return replace(balanced._train(module, data, self.runtime, self.seeds), learned={})
        history, best_epoch = [], None
        if way in ("last layer", "plain"):
            network = LastLayerRetrainer(retrain_on="train", **self.shared)
            history, best_epoch = network._train_network(module, data, self.runtime, self.seeds)
        if way == "plain":
            return Trained(module, history, best_epoch)
        params = {**self.shared, "max_epochs": 0}
        samples = replace(data, valid=None)
        if self.chosen == "classes":
            params |= {"balance": "weights", "penalty": "l2"}
        # What was not trained on the samples has not fitted them: balanced draws do no harm.
        elif way == "last layer" and self.level == "small":
            params |= {"balance": "weights", "penalty": "l2", "Cs": _GENTLE_CS}
        else:
            is_sure = np.isin(data.train.rows, self.sure_rows)
            samples = replace(samples, train=data.train.take(np.flatnonzero(is_sure)))
        head = LastLayerRetrainer(retrain_on="train", **params)
        trained = head._train(module, samples, self.runtime, self.seeds)
        return Trained(trained.module, history, best_epoch)

    def compare(self, module, names):
        """Accuracies of each way on halves that it was not trained on.

        Parameters
        ----------
        module : nn.Module
            The initial network; it is not changed.
        names : list of str
            The ways.

        Returns
        -------
        table : DataFrame
            Indexed by way: worst_group, mean (over the groups), standard_error (of the mean).
        """
        if len(names) == 1:
            return pd.DataFrame(index=pd.Index(names, name="way"))
        train = self.data.train
        group = train.group.numpy()
        half = stratified_folds(group, 2, np.random.default_rng(self.seeds[0]))
        rows = {}
        for way in names:
            hits = np.empty(len(group))
            for k in (0, 1):
                part = replace(self.data, train=train.take(np.flatnonzero(half != k)), valid=None)
                trained = self.train(way, copy.deepcopy(module), part).module.eval()
                rest = train.take(np.flatnonzero(half == k))
                hits[half == k] = self._hits(trained, rest)
            accuracy = group_means(hits, group, train.n_groups)
            size = np.bincount(group, minlength=train.n_groups)
            variance = accuracy * (1.0 - accuracy) / size
            rows[way] = {
                "worst_group": accuracy.min(),
                "mean": accuracy.mean(),
                "standard_error": np.sqrt(variance.sum()) / len(size),
            }
        return pd.DataFrame(rows).T.rename_axis("way")

    def best(self, table):
        """The way with the best mean; the first one if it is within a standard error of that.

        Where plain training is among them, the others must be better by its standard error.
        """
        if "plain" in table.index and len(table) > 1:
            plain = table.loc["plain"]
            table = table[table["mean"] > plain["mean"] + plain["standard_error"]]
        if len(table) < 2:
            return table.index[0] if len(table) else "plain"
        best = table["mean"].idxmax()
        first = table.iloc[0]
        is_better = table["mean"][best] > first["mean"] + first["standard_error"]
        return best if is_better else table.index[0]

    def _hits(self, module, samples):
        """Whether the network is right about each sample."""
        estimator = LastLayerRetrainer(**self.shared)
        module.to(self.runtime.device)
        logits = read_outputs(estimator, module, samples.samples, self.runtime)
        return logits.argmax(1).cpu().numpy() == samples.y.numpy()
