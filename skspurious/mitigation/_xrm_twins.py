"""XRM's twins: two networks in one loop, each of which learns the other one's mistakes."""

import copy

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skspurious._engine._modules import forward
from skspurious._engine._objective import Objective
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import TO_THE_END, Stage
from skspurious._prediction import read_outputs
from skspurious._training import Trained, check_module, run_stage
from skspurious.base import BaseTorchClassifier
from skspurious.data import unpack_groups
from skspurious.functional._cross_mistakes import flip_labels, twin_weights
from skspurious.functional._error_set import stratified_folds
from skspurious.group_inference._evidence import MADE_OF_ERRORS, Nuisance
from skspurious.group_inference._found_evidence import CarriesEvidence
from skspurious.group_inference._samples import encode_classes
from skspurious.utils._parameters import extends, shallow_copy


class TwinGroups(CarriesEvidence):
    """Groups of classes by mistakes: those of the twin that has not seen a training sample.

    New samples, which neither twin has seen, are judged by the mean of both twins' probabilities.

    Parameters
    ----------
    twins : TwinNetworks
        Unfitted.
    min_group_size : int, default=1
        Fewest samples of a group; a class with fewer right or wrong ones stays whole.

    Attributes
    ----------
    twins_ : TwinNetworks
        The fitted twins.
    labels_ : ndarray of shape (n_samples,), int64
        Group of every training sample, class by class, right before wrong.
    evidence_ : Evidence
        "none": groups are made of errors.
    """

    made_of_errors = True

    def __init__(self, twins, min_group_size=1):
        self.twins = twins
        self.min_group_size = min_group_size

    def fit(self, X, y):
        """Train the twins, and find the groups of the samples that they were trained on."""
        self.twins_ = clone(self.twins).fit(X, y)
        is_wrong = self.twins_.error_mask_
        code = encode_classes(y, self.twins_.classes_, len(is_wrong))
        n_wrong = np.bincount(code[is_wrong], minlength=len(self.twins_.classes_))
        n_smaller = np.minimum(n_wrong, np.bincount(code) - n_wrong)
        self._is_split = n_smaller >= self.min_group_size
        self._sides = np.unique(self._side(code, is_wrong))
        self.labels_ = np.searchsorted(self._sides, self._side(code, is_wrong))
        self.keep_evidence(None, code, Nuisance("twins", None, MADE_OF_ERRORS))
        return self

    def infer_groups(self, X, y):
        """Groups of new samples."""
        check_is_fitted(self)
        predicted = self.twins_.predict(unpack_groups(X)[0])
        code = encode_classes(y, self.twins_.classes_, len(predicted))
        is_wrong = predicted != self.twins_.classes_[code]
        return np.searchsorted(self._sides, self._side(code, is_wrong))

    def _side(self, code, is_wrong):
        return 2 * code + (is_wrong & self._is_split[code])


@extends(BaseTorchClassifier)
class TwinNetworks(BaseTorchClassifier):
    """Trains two networks, each on a random half, whose labels flip to the other one's mistakes.

    Parameters
    ----------
    n_runs : int, default=1
        Runs, of which the one with the most flipped labels is kept.
    shared parameters

    Attributes
    ----------
    error_mask_ : ndarray of shape (n_samples,), bool
        Whether the network that was not trained on the sample is wrong about its true class.
    flip_counts_ : ndarray of shape (n_runs,)
        Labels of each run that differ in the end from the true ones.
    flipped_mask_ : ndarray of shape (n_samples,), bool
        Which they are, in the run that was kept.
    other_module_ : nn.Module
        The second network; ``module_`` is the first.
    shared attributes
    """

    def __init__(self, module=None, *, n_runs=1, **shared):
        super().__init__(module, **shared)
        self.n_runs = n_runs

    def predict_proba(self, X):
        """Mean of both networks' probabilities."""
        other = shallow_copy(self)
        other.module_ = self.other_module_
        return (super().predict_proba(X) + super(TwinNetworks, other).predict_proba(X)) / 2

    def predict(self, X):
        """Class of the largest mean probability."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    @property
    def _keeps_part_aside(self):
        return False  # groups are found for all samples, and the last epoch is kept

    def _train(self, module, data, runtime, seeds):
        runs = np.random.default_rng(seeds).integers(2**31 - 1, size=(self.n_runs, 5)).tolist()
        trained = [self._run(data, runtime, k, run) for k, run in enumerate(runs)]
        counts = [int(result.learned["flipped_mask_"].sum()) for result in trained]
        best = trained[int(np.argmax(counts))]
        best.learned["flip_counts_"] = np.array(counts)
        history = [row for result in trained for row in result.history]
        return Trained(best.module, history, None, best.learned)

    def _run(self, data, runtime, k, seeds):
        y = data.train.y
        half = stratified_folds(y.numpy(), 2, np.random.default_rng(seeds[0]))
        half = torch.from_numpy(half.astype(np.int64))
        pair = [self._initial_module(data, seed=seed) for seed in seeds[1:3]]
        for module in pair:
            check_module(self, module, data, runtime)
        twins = Twins(*pair)
        objective = CrossMistakes(y, half, len(data.classes), runtime, seed=seeds[3])
        sampler = UniformSampler(len(y), seed=seeds[3])
        stage = Stage(f"twins_{k + 1}", objective, sampler, seeds[4], TO_THE_END)
        history = run_stage(self, twins, stage, data.train, None, runtime).history
        logits = read_outputs(self, twins, data.train.samples, runtime).cpu()
        held_out = torch.where(half[:, None] == 0, logits[:, 1], logits[:, 0])
        learned = {
            "error_mask_": (held_out.argmax(dim=1) != y).numpy(),
            "flipped_mask_": (objective.label.cpu() != y).numpy(),
            "other_module_": pair[1],
        }
        return Trained(pair[0], history, None, learned)

    def __getstate__(self):
        state = super().__getstate__()
        if "other_module_" in state:  # as the first one: a file opens without a GPU
            state = {**state, "other_module_": copy.deepcopy(state["other_module_"]).cpu()}
        return state


class Twins(nn.Module):
    """Two networks of one shape, side by side: logits (b, 2, n_classes)."""

    def __init__(self, first, second):
        super().__init__()
        self.twins = nn.ModuleList([first, second])

    def forward(self, *args, **named):
        inputs = named or args[0]
        return torch.stack([forward(twin, inputs).float() for twin in self.twins], dim=1)


class CrossMistakes(Objective):
    """Class-balanced cross-entropy of every sample's own twin, whose labels the other one flips."""

    def __init__(self, y, half, n_classes, runtime, seed):
        super().__init__()
        self.register_buffer("twin_of", half)
        self.register_buffer("sample_weight", twin_weights(y, half, n_classes))
        self.register_buffer("y", y)
        self.register_buffer("label", y.clone())
        self.register_buffer("label_before", y.clone())  # as this epoch began
        self.register_buffer("draws", torch.empty(len(y)))
        self.runtime, self.seed = runtime, seed
        self._draw(0)

    def forward(self, module, batch, runtime):
        at, inputs = batch["position"], batch["X"]
        with runtime.autocast():
            logits = forward(module, inputs)
        in_first = self.twin_of[at, None] == 0
        held_in = torch.where(in_first, logits[:, 0], logits[:, 1])
        held_out = torch.where(in_first, logits[:, 1], logits[:, 0]).detach()
        label = self.label[at]
        losses = self.sample_losses(held_in, label)
        flipped = flip_labels(label, held_out, self.draws[at])
        if batch["is_real"] is not None:  # a sample that fills up a batch is another process's
            flipped = torch.where(batch["is_real"], flipped, label)
        self.label[at] = flipped
        return self.reduce(losses, batch, runtime), losses, held_in

    def coefficients(self, losses, batch, runtime):
        weight = self.sample_weight[batch["position"]]
        return 2.0 * weight * super().coefficients(losses, batch, runtime)

    def end_epoch(self, row):
        change = self.runtime.all_reduce(self.label - self.label_before)
        self.label.copy_(self.label_before + change)
        self.label_before.copy_(self.label)
        row["flip_rate"] = (self.label != self.y).float().mean().item()
        self._draw(row["epoch"])

    def _draw(self, epoch):
        """One draw for every sample of the next epoch, the same in all processes."""
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        self.draws.copy_(torch.rand(len(self.draws), generator=generator))
