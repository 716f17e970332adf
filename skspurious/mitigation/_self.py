"""Selective last-layer finetuning: on the few samples that two networks disagree about."""

import copy
from numbers import Integral, Real

import numpy as np
import torch
from torch.nn import functional as F

from skspurious._engine._batches import LabelledSamples
from skspurious._engine._modules import last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler, WeightedSampler
from skspurious._engine._stage import TO_THE_END, Stage
from skspurious._prediction import read_embedding, read_outputs
from skspurious._training import Trained, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.data import TensorSamples
from skspurious.functional._selection import disagreement, select_per_class
from skspurious.functional._weights import sampling_probabilities
from skspurious.mitigation._stages import train_on_part
from skspurious.utils._parameters import RESNET50, extends
from skspurious.utils._sklearn_compat import Interval, StrOptions

_EARLY_STOPPED = {"early_stop_disagreement", "early_stop_misclassification"}


@extends(BaseTorchClassifier)
class SELFClassifier(BaseTorchClassifier):
    """Selective last-layer finetuning (SELF): on samples that two networks disagree about [1]_.

    A network is trained plainly on most of the samples. Of the others, which it has not seen, those
    are selected on which it disagrees most with a regularised network, such as itself after a few
    epochs: there the minority is frequent. Its last layer is trained on for a few steps on them,
    all classes equally often.

    .. versionadded:: 0.1

    Parameters
    ----------
    selection : {"early_stop_disagreement", "dropout_disagreement", "misclassification", \
            "early_stop_misclassification"}, default="early_stop_disagreement"
        What is selected: the largest divergence KL(p || p'), with p the network's probabilities
        and p' those after `early_epochs` epochs, or with dropout before the last layer; or the
        largest loss of the network, or of the network after `early_epochs` epochs.
    n_selected : int, default=500
        Samples that are selected, equally many of each class; a class that has fewer gives all.
    early_epochs : int, default=1
        Epochs of the early-stopped network; less than `max_epochs`.
    dropout : float, default=0.5
        Probability that a feature is dropped, for "dropout_disagreement".
    holdout_fraction : float, default=0.2
        Share of the training samples, stratified by class, that the network is not trained on and
        the selection is made from.
    head_steps : int, default=250
        Steps of the last layer.
    head_lr : float, default=0.001
        Learning rate of these steps.
    shared parameters

    Attributes
    ----------
    selected_mask_ : ndarray of shape (n_samples,), bool
        Rows of ``X`` that the last layer was finetuned on.
    selection_scores_ : ndarray of shape (n_samples,)
        The disagreement, or the loss; NaN for rows that nothing was selected from.
    shared attributes

    See Also
    --------
    AFRClassifier : Fits the last layer on weighted samples.
    JTTClassifier : Trains a second network, on which the errors of a first one count more.

    Notes
    -----
    Needs no groups in training; the paper chooses the settings by the worst validation group.
    Without that it is no safe gain: the selected samples are also those whose core features are
    unusual, and on frozen Waterbirds embeddings no setting was better than plain training.

    ``max_epochs`` passes over the training part, `early_epochs` more where a network is stopped
    early, and one or two over the rest. ``max_epochs=0`` takes a network that is trained already,
    such as ``FrozenEstimator(fitted_classifier)``, which has no early-stopped one; give it samples
    that it was not trained on. With ``module=None`` the networks are linear heads. In ``history_``
    the column ``stage`` tells "erm", "early" and "last_layer", of which all steps are one row.
    Sample weights act on the losses alone.

    The paper selects from held-out validation data, of which only the selected samples need a
    class label: so it takes the most controversial ones of all classes together and balances the
    batches. Here the labels are known, and each class gives the same number. The early-stopped
    network starts as the other one and sees the same batches, but without its ``lr_schedule``. A
    step draws, with replacement, as many samples as are selected.

    References
    ----------
    .. [1] T. LaBonte, V. Muthukumar, A. Kumar, "Towards Last-Layer Retraining for Group Robustness
       with Fewer Annotations", NeurIPS 2023. arXiv:2309.08534.

    Examples
    --------
    >>> from skspurious import SELFClassifier
    >>> from skspurious.datasets import make_spurious_classification
    >>> train = make_spurious_classification(500, random_state=0)
    >>> clf = SELFClassifier(n_selected=40, lr=0.1, max_epochs=5, random_state=0)
    >>> clf = clf.fit(train.data, train.target)
    >>> int(clf.selected_mask_.sum())
    40
    """

    # LaBonte et al., NeurIPS 2023, as their repository has them: first stage, steps, and the
    # choice of the rest that its demonstration on Waterbirds makes; half of the epochs are early.
    _presets: dict = {
        "waterbirds": {
            **RESNET50,
            "lr": 3e-3,
            "lr_schedule": "cosine",
            "batch_size": 32,
            "max_epochs": 100,
            "monitor": None,
            "early_epochs": 50,
            "n_selected": 500,
            "head_steps": 250,
            "head_lr": 1e-2,
        },
        "celeba": {
            **RESNET50,
            "lr": 3e-3,
            "lr_schedule": "cosine",
            "batch_size": 100,
            "max_epochs": 20,
            "monitor": None,
            "early_epochs": 10,
            "head_steps": 250,
        },
    }

    _parameter_constraints: dict = {
        **BaseTorchClassifier._parameter_constraints,
        "max_epochs": [
            *BaseTorchClassifier._parameter_constraints["max_epochs"],
            Interval(Integral, 0, None, closed="left"),
        ],
        "selection": [StrOptions({"dropout_disagreement", "misclassification", *_EARLY_STOPPED})],
        "n_selected": [Interval(Integral, 1, None, closed="left")],
        "early_epochs": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="neither")],
        "holdout_fraction": [Interval(Real, 0, 1, closed="neither")],
        "head_steps": [Interval(Integral, 1, None, closed="left")],
        "head_lr": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        module=None,
        *,
        selection="early_stop_disagreement",
        n_selected=500,
        early_epochs=1,
        dropout=0.5,
        holdout_fraction=0.2,
        head_steps=250,
        head_lr=0.001,
        **shared,
    ):
        super().__init__(module, **shared)
        self.selection = selection
        self.n_selected = n_selected
        self.early_epochs = early_epochs
        self.dropout = dropout
        self.holdout_fraction = holdout_fraction
        self.head_steps = head_steps
        self.head_lr = head_lr

    def _check_data(self, data):
        longest = self.max_epochs
        is_counted = isinstance(longest, Integral)
        if self.selection in _EARLY_STOPPED and is_counted and self.early_epochs >= longest:
            raise ValueError(
                f"selection={self.selection!r} stops a network after early_epochs="
                f"{self.early_epochs} epochs, but max_epochs={longest}. Lower the first, raise the "
                "second, or select by 'dropout_disagreement' or 'misclassification'."
            )

    def _train(self, module, data, runtime, seeds):
        early, history = copy.deepcopy(module), []
        held_out, part, first = train_on_part(self, module, data, runtime, seeds)
        if self.selection in _EARLY_STOPPED:
            changes = {"max_epochs": self.early_epochs, "lr_schedule": None, **TO_THE_END}
            sampler = UniformSampler(len(part), seed=seeds[0])
            stage = Stage("early", Objective(), sampler, seeds[1], changes)
            history = run_stage(self, early, stage, part, None, runtime).history
        candidates = data.train.take(held_out)
        module.to(runtime.device).eval()
        Z = read_embedding(self, module, candidates.samples, runtime, len(data.classes))
        scores = self._score(module, early, Z, candidates, runtime, seeds[0])
        y = candidates.y.cpu().numpy()
        chosen = select_per_class(scores, y, self.n_selected)
        selected = LabelledSamples(
            TensorSamples(Z[torch.from_numpy(chosen).to(Z.device)]),
            candidates.y[chosen],
            weight=None if candidates.weight is None else candidates.weight[chosen],
        )
        head = last_linear(module)[1]
        last = self._finetune(head, selected, runtime, seeds)
        all_scores, is_selected = np.full(len(data.train), np.nan), np.zeros(len(data.train), bool)
        all_scores[held_out], is_selected[held_out[chosen]] = scores, True
        learned = {
            "selected_mask_": data.on_rows(is_selected, False),
            "selection_scores_": data.on_rows(all_scores, np.nan),
        }
        best_epoch = None
        if first is not None:
            history, best_epoch = first.history + history, first.best_epoch
        return Trained(module, history + last.history, best_epoch, learned)

    def _score(self, module, early, Z, candidates, runtime, seed):
        """What the candidates are selected by, the larger the better."""
        head = last_linear(module)[1]
        with torch.no_grad():
            logits = head(Z)
            if self.selection in _EARLY_STOPPED:
                early.to(runtime.device)
                other = read_outputs(self, early, candidates.samples, runtime).float()
            elif self.selection == "dropout_disagreement":
                generator = torch.Generator().manual_seed(seed)
                is_kept = torch.rand(Z.shape, generator=generator).to(Z.device) >= self.dropout
                other = head(Z * is_kept / (1 - self.dropout))
            else:
                other = logits
        if self.selection.endswith("disagreement"):
            return disagreement(logits, other).cpu().numpy()
        y = candidates.y.to(other.device)
        return F.cross_entropy(other, y, reduction="none").cpu().numpy()

    def _finetune(self, head, selected, runtime, seeds):
        """Train the last layer on the selected embeddings, all classes equally often."""
        n = len(selected)
        p = sampling_probabilities(selected.y.cpu().numpy())
        sampler = WeightedSampler(p, n_draws=int(self.head_steps) * n, seed=seeds[0])
        changes = {
            "max_epochs": 1,
            "batch_size": n,
            "lr": self.head_lr,
            "lr_schedule": None,
            "gradient_accumulation": 1,
            "train_transform": None,
            "eval_transform": None,
            "callbacks": (),
            "compile": False,
            **TO_THE_END,
        }
        stage = Stage("last_layer", Objective(), sampler, seeds[1], changes)
        return run_stage(self, head, stage, selected, None, runtime)
