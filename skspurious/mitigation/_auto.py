"""AutoRetrainer: looks for a shortcut by itself, and retrains the last layer where there is one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from skspurious._engine._modules import last_linear
from skspurious._prediction import read_embedding
from skspurious._training import Trained
from skspurious.base import BaseTorchClassifier
from skspurious.data import TensorSamples, unpack_groups
from skspurious.embedding import TorchFeatureExtractor
from skspurious.functional._cross_fit import fit_balanced_logistic
from skspurious.group_inference import ViewJury
from skspurious.group_inference._columns import column_positions
from skspurious.group_inference._samples import as_array
from skspurious.group_inference._sides import margins_of
from skspurious.mitigation._auto_choice import choose, groups_of_views
from skspurious.mitigation._auto_ways import Ways
from skspurious.mitigation._last_layer import set_head
from skspurious.utils._parameters import extends
from skspurious.utils._sklearn_compat import StrOptions
from skspurious.views._standard import kind_of


@extends(BaseTorchClassifier, without=("group_inferrer",))
class AutoRetrainer(BaseTorchClassifier):
    """Looks for a shortcut without group labels, and retrains the last layer where it finds one.

    For whoever does not want to choose. A jury of views (:class:`ViewJury`) divides every class
    by what can be said of it without the object. Where balancing these groups recovers what a plain
    model gets wrong, the last layer is fitted anew on balanced groups, as
    :class:`LastLayerRetrainer` does. Where it recovers nothing, plain training is kept, or the
    classes are balanced where that keeps a class from being missed.

    Read more in the :doc:`quick start </quickstart>`.

    .. versionadded:: 0.1

    Parameters
    ----------
    views : "auto", dict, or list of (str, view), default="auto"
        Views of the samples, as :class:`~skspurious.group_inference.ViewJury` takes them. "auto"
        is the standard set for the kind of samples. Of tables and embeddings nobody but you can
        say which columns are not the object: with "auto" they are looked at, and at most the
        classes are balanced.
    clean : "auto", view or None, default="auto"
        What looks at the samples as they are; with views that are columns, the columns of the
        sample itself: the head then uses these alone.
    finetune : {"auto"} or bool, default="auto"
        Whether the backbone of a network that is trained already (``weights``, an instance, or a
        ``FrozenEstimator``) is trained further. "auto" trains it only if a new last layer is then
        better than on the frozen backbone, on groups of halves that were held out. False never
        trains it. A network that starts from scratch is always trained.
    shared parameters

    Attributes
    ----------
    effect_ : BalancingEffect or None
        What balancing the views' sides does to a linear head: ``level``, "none", "small" or
        "large", with its figures, of which ``str`` makes a sentence; None where the groups were
        given.
    chosen_ : str
        What the head was fitted on: "plain", "classes", "jury", "errors" or "clusters"; "given".
    candidates_ : DataFrame
        For each of them the accuracy out of fold in the worst group of the views, and in the
        mean over their groups, of linear heads on the frozen embedding. For networks from scratch
        plain training and the jury alone, on what the jury has of the clean samples. Empty where
        groups were given.
    way_ : str
        What was done: "plain" training; a balanced "head" on embeddings; a new last layer on the
        "frozen" backbone, or after plain training of the network ("last layer"); or training of
        the whole "network" on balanced groups.
    ways_ : DataFrame
        Where there were several: accuracy in the worst group, in the mean over groups, and its
        standard error, of each way on halves of the samples that it was not trained on.
    shared attributes

    See Also
    --------
    LastLayerRetrainer : The same with groups that are known, or inferred otherwise.
    skspurious.group_inference.ViewJury : The jury alone.

    Notes
    -----
    Needs no group labels, and uses those that ``fit`` is given (``X`` that carries groups only
    counts for the score). ``group_inferrer_`` is the fitted jury, with its scores.

    The head is that of ``LastLayerRetrainer`` at its defaults, on balanced draws; where the
    network was trained on the samples and the effect is small, one head on all samples,
    weighted, which changes less. The jury's groups are taken unless others are better by more
    than a standard error. Drawn are then samples of whose side the jury is sure: its margin is
    at least 0.4 times the median one, or among the ten largest of the group. Without an effect,
    the classes are balanced, by weights, where that gains 10 points of accuracy in the worst
    class and two in the mean over the classes, out of fold.

    For a network from scratch the groups are those of the views without the samples themselves,
    wherever there is an effect: it has no embedding yet on which groups could be compared. Where
    they seem to do harm on what the jury has of the samples, the head is the gentle one. If it has
    learned nothing but the shortcut, no last layer helps, and if it has learned better than what
    the jury looks at, none is needed: where the effect is large, training on balanced groups, as
    :class:`BalancedRetrainer` does, and plain training are compared with a new last layer on
    halves of the samples.

    One pass over the samples for each view, five small models for each, what
    ``LastLayerRetrainer`` takes, and up to three trainings more for the comparison of ways. All of
    it is selected on training samples; there is no need to hold any out.

    Examples
    --------
    >>> from skspurious import AutoRetrainer
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = AutoRetrainer(random_state=0).fit(train.data, train.target)
    >>> clf.effect_.level in {"none", "small", "large"}
    True
    """

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "views": [StrOptions({"auto"}), dict, list],
        "clean": [object],
        "finetune": [StrOptions({"auto"}), "boolean"],
    }
    _parameter_constraints.pop("group_inferrer")

    def __init__(self, module=None, *, views="auto", clean="auto", finetune="auto", **shared):
        super().__init__(module, **shared)
        self.views = views
        self.clean = clean
        self.finetune = finetune

    # ------------------------------------------------------------------------- the jury

    def _fit(self, X, y, **given):
        return super()._fit(X, y, of_method={"raw": unpack_groups(X)[0]}, **given)

    def _make_group_inferrer(self):
        extractor = None
        if self.views == "auto" and self._is_trained_already:
            names = ("weights", "eval_transform", "collate_fn", "image_size", "batch_size")
            names = (*names, "device", "precision", "num_workers")
            params = {name: getattr(self, name) for name in names}
            extractor = TorchFeatureExtractor(self.module, **params)
        return ViewJury(self.views, clean=self.clean, extractor=extractor)

    @property
    def _is_trained_already(self):
        return self.weights is not None or isinstance(self.module, nn.Module | FrozenEstimator)

    @property
    def _uses_criterion(self):
        return self.module is not None and not self._is_frozen

    @property
    def _is_frozen(self):
        return self.max_epochs == 0 or (self.finetune is False and self._is_trained_already)

    # ------------------------------------------------------------------------- training

    def _train(self, module, data, runtime, seeds, *, raw):
        jury, kept = data.group_inferrer, self._clean_columns(raw)
        data = _without_columns(data, kept)
        Z = self._frozen_embedding(module, data, runtime, kept)
        learned = {"effect_": None, "chosen_": "given", "candidates_": pd.DataFrame()}
        if jury is not None:
            choice = self._choose(jury, Z, data, raw, seeds[0])
            learned = {
                "effect_": choice.effect,
                "chosen_": choice.chosen,
                "candidates_": choice.table,
            }
            data = _with_groups(data, choice.labels)
        if learned["chosen_"] == "plain":
            return self._train_plain(module, data, runtime, seeds, Z, kept, learned)
        level = choice.level if jury is not None else "large"
        sure = data.train.rows if jury is None else data.train.rows[choice.is_sure]
        ways = Ways(self, learned["chosen_"], level, data, runtime, seeds, sure_rows=sure)
        names = self._possible_ways(level)
        if jury is not None and "network" in names:
            names.append("plain")  # a network may have learned better than what the jury looks at
        learned["ways_"] = ways.compare(module, names)
        learned["way_"] = ways.best(learned["ways_"])
        if learned["way_"] == "plain":
            learned["chosen_"] = "plain"
        trained = ways.train(learned["way_"], module, data)
        return replace(trained, learned=learned)

    def _choose(self, jury, Z, data, raw, seed):
        """What the head is fitted on."""
        rows, y = data.train.rows, data.train.y.numpy()
        said = jury.view_score_[rows]
        # Of a table's own columns nobody but the user can say which are not the object.
        is_trusted = self.views != "auto" or kind_of(raw) not in ("table", "embedding")
        params = {"seed": seed, "is_trusted": is_trusted}
        if Z is not None:
            names = ["classes", "jury", "errors", "clusters"]
            group, margin = data.train.group.numpy(), jury.margin_[rows]
            return choose(Z, y, group, margin, said, names=names, **params)
        # A network from scratch has no embedding yet. Errors and clusters of what the jury has of
        # the samples mean nothing to it, and the views say more of the shortcut without that.
        Z = jury.represent(raw)[rows]
        group, margin = groups_of_views(said, y), margins_of(said, y)
        return choose(Z, y, group, margin, said, names=["jury"], **params)

    def _frozen_embedding(self, module, data, runtime, kept):
        """Embeddings by what has not been trained on the samples, or None from scratch."""
        if self.module is None:
            Z = data.train.samples.tensor.float().numpy()
            return Z if kept is None else Z[:, kept.numpy()]
        if not self._is_trained_already or self.finetune is True:
            return None
        module.to(runtime.device).eval()
        Z = read_embedding(self, module, data.train.samples, runtime, len(data.classes))
        return Z.cpu().numpy()

    def _possible_ways(self, level):
        """What may become of the network, the first one if in doubt."""
        if self.module is None:
            return ["head"]
        is_trainable = self.max_epochs != 0 and self.finetune is not False
        if self._is_trained_already and self.finetune is not True:
            return ["frozen", "last layer"] if is_trainable else ["frozen"]
        return ["last layer", "network"] if level == "large" else ["last layer"]

    def _train_plain(self, module, data, runtime, seeds, Z, kept, learned):
        """Plain training; with a backbone that must not be trained a plain head."""
        learned |= {"ways_": pd.DataFrame(), "way_": "plain"}
        if self.module is not None and self._is_frozen:
            self._fit_plain_head(module, Z, data, runtime)
            return Trained(module, [], learned=learned)
        trained = super()._train(module, data, runtime, seeds)
        if kept is not None:  # columns of views alone have the weights of the start
            with torch.no_grad():
                last_linear(trained.module)[1].weight[:, ~kept] = 0.0
        return replace(trained, learned=learned)

    def _fit_plain_head(self, module, Z, data, runtime):
        """A plain head on the frozen embedding."""
        module.to(runtime.device).eval()
        y, n_classes = data.train.y.numpy(), len(data.classes)
        coef, intercept = fit_balanced_logistic(Z, y, n_classes, strata=np.zeros(len(y)))
        head = coef.T if n_classes > 2 else (coef.T[1:] - coef.T[:1])
        set_head(last_linear(module)[1], head, intercept if n_classes > 2 else np.diff(intercept))

    def _clean_columns(self, raw):
        """Which columns of a table are not of views alone; None where all are features."""
        is_columns = isinstance(self.clean, list | tuple | slice | np.ndarray)
        if self.views == "auto" or not is_columns:
            return None
        raw = as_array(raw)
        kept = torch.zeros(raw.shape[1], dtype=torch.bool)
        kept[column_positions(self.clean, raw, "clean")] = True
        return kept


def _without_columns(data, kept):
    """The data with columns that are of views alone set to 0, so that no head learns from them."""
    if kept is None:
        return data

    def clear(labelled):
        if labelled is None:
            return None
        return replace(labelled, samples=TensorSamples(labelled.samples.tensor * kept))

    return replace(data, train=clear(data.train), valid=clear(data.valid))


def _with_groups(data, labels):
    """The data with other groups of the training samples."""
    groups, code = np.unique(labels, return_inverse=True)
    train = replace(data.train, group=torch.from_numpy(code), n_groups=len(groups))
    return replace(data, train=train, groups=groups)
