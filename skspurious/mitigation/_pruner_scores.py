"""How hard samples are to learn, as networks in training see it after some epochs."""

import functools
from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from skspurious._engine._batches import iterate_batches, place
from skspurious._engine._callbacks import Recorder
from skspurious._engine._modules import forward, last_linear
from skspurious._engine._objective import Objective
from skspurious._engine._optimizers import make_schedule
from skspurious._engine._samplers import UniformSampler
from skspurious._engine._stage import Stage
from skspurious._training import history_frame, loop_config, run_stage, transforms_of
from skspurious.functional._difficulty import (
    el2n,
    forgetting_counts,
    gradient_norms,
    last_layer_gradient_norms,
    loss_difficulty,
)
from skspurious.functional._error_set import class_margins


class Scores(NamedTuple):
    """Difficulty of every sample, run by run, and its EL2N early in the first run."""

    run_scores: np.ndarray  # (n_runs, n_samples): means over the epochs
    early: dict  # epoch -> EL2N, (n_samples,)
    history: pd.DataFrame


def score_samples(
    estimator, data, make_network, runtime, *, difficulty, epochs, n_runs, checks=(), callbacks=()
):
    """Train networks for their first epochs, and score all samples.

    Parameters
    ----------
    estimator : TrainingParameters
        How to train.
    data : FitData
    make_network : callable
        Of the number of a run: its network, and two seeds.
    runtime : Runtime
    difficulty : str
        Name of the score.
    epochs : tuple of int
        Completed epochs after which samples are scored.
    n_runs : int
    checks : sequence of int
        Epochs after which the EL2N of the first run is kept.
    callbacks : sequence of Callback
        Of the training.

    Returns
    -------
    scores : Scores
    """
    train = place(data.train, runtime.device)
    runs, frames, early = [], [], {}
    for run in range(n_runs):
        module, seeds = make_network(run)
        look = functools.partial(
            _look, estimator, train, runtime, seed=seeds[1], difficulty=difficulty, epochs=epochs
        )
        recorder = _Recorder(look, difficulty, epochs, () if run else checks)
        stage = Stage(
            "",
            Objective(),
            UniformSampler(len(train), seed=seeds[0]),
            seed=seeds[1],
            changes={
                **_beginning(estimator, train, max(epochs)),
                "callbacks": [recorder, *callbacks],
            },
        )
        result = run_stage(estimator, module, stage, train, None, runtime)
        runs.append(np.mean(recorder.scores, axis=0))
        early |= recorder.early
        frame = history_frame(result.history, data.groups, data.groups)
        frames.append(frame.assign(run=run + 1))
    return Scores(np.stack(runs), early, pd.concat(frames, ignore_index=True))


class _Recorder(Recorder):
    """Scores all samples after some epochs."""

    def __init__(self, look, difficulty, epochs, checks):
        self.look, self.difficulty, self.epochs, self.checks = look, difficulty, epochs, checks
        self.scores, self.early, self.correct = [], {}, []

    def identity(self):
        return self.difficulty, self.epochs, list(self.checks)

    def state_dict(self):
        as_tensors = [[torch.from_numpy(v) for v in part] for part in (self.scores, self.correct)]
        early = {epoch: torch.from_numpy(error) for epoch, error in self.early.items()}
        return {"scores": as_tensors[0], "correct": as_tensors[1], "early": early}

    def load_state_dict(self, state):
        self.scores, self.correct = (
            [v.numpy() for v in state[name]] for name in ("scores", "correct")
        )
        self.early = {epoch: error.numpy() for epoch, error in state["early"].items()}

    def on_epoch_end(self, *, module, row, **kwargs):
        epoch = row["epoch"]
        if self.difficulty != "forgetting" and epoch not in (*self.epochs, *self.checks):
            return
        score, error, correct = self.look(module=module, epoch=epoch)
        self.correct.append(correct)
        if epoch in self.checks:
            self.early[epoch] = error
        if epoch in self.epochs:
            is_count = self.difficulty == "forgetting"
            self.scores.append(forgetting_counts(np.stack(self.correct)) if is_count else score)


def _look(estimator, train, runtime, *, module, epoch, seed, difficulty, epochs):
    """Score, EL2N and whether it is right, of every sample; the training does not notice."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    with runtime.fork_rng(), torch.no_grad():
        runtime.reseed(seed, epoch)
        batches = iterate_batches(
            train,
            torch.arange(len(train)),
            runtime,
            max(estimator.batch_size, 256),
            transforms_of(estimator, train.samples)[1],
            estimator.num_workers,
            is_shared=False,
        )
        # Gradients of all parameters are costly: not where nobody asks for them.
        kind = "el2n" if difficulty == "grand" and epoch not in epochs else difficulty
        parts = [_score_batch(module, b["X"], b["y"], runtime, kind) for b in batches]
    for part, was_training in modes:
        part.training = was_training
    return [torch.cat(part).cpu().numpy() for part in zip(*parts)]


def _score_batch(module, inputs, label, runtime, difficulty):
    seen, hook = [], None
    if difficulty == "grand_last":
        last = last_linear(module)[1]
        hook = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with runtime.autocast():
        logits = forward(module, inputs)
    # Far below 1e-7 scores still differ, in float64.
    logits = logits.float() if logits.device.type == "mps" else logits.double()
    error = el2n(logits, label)
    if hook is not None:
        hook.remove()
        if last.out_features != logits.shape[1]:
            raise ValueError("difficulty='grand_last' needs a network that ends in nn.Linear.")
        has_bias = last.bias is not None
        score = last_layer_gradient_norms(logits, label, seen[-1], has_bias=has_bias)
    elif difficulty == "grand":
        with runtime.autocast():
            score = gradient_norms(module, inputs, label)
    elif difficulty == "loss":
        score = loss_difficulty(logits, label)
    elif difficulty == "margin":
        score = -class_margins(logits, label)
    else:
        score = error
    return score, error, logits.argmax(1) == label


def _beginning(estimator, train, n_epochs):
    """Settings of the first epochs of a training, under the schedule of the whole."""
    schedule, whole = estimator.lr_schedule, loop_config(estimator, train).for_the_loop()
    if schedule is not None:
        schedule = functools.partial(
            _whole_schedule,
            schedule=schedule,
            n_epochs=n_epochs,
            n_total=max(n_epochs, whole.max_epochs),
            lr=whole.lr,
        )
    return {
        "max_epochs": n_epochs,
        "lr_schedule": schedule,
        "patience": None,
    }


def _whole_schedule(optimizer, n_steps, *, schedule, n_epochs, n_total, lr):
    return make_schedule(optimizer, schedule, n_steps=n_steps // n_epochs * n_total, lr=lr)


def check_epochs(score_epochs):
    """Epochs as a sorted tuple."""
    epochs = sorted({score_epochs} if isinstance(score_epochs, Integral) else set(score_epochs))
    if not epochs or not all(isinstance(e, Integral) and e > 0 for e in epochs):
        raise ValueError(
            "score_epochs must be a number of completed epochs, 1 or more, or a tuple of them; "
            f"got {score_epochs!r}."
        )
    return tuple(int(e) for e in epochs)
