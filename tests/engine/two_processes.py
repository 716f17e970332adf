"""Fits that test_processes.py runs in one process, and by torchrun in two.

Started as a script, it saves what each process learned: ``two_processes.py FOLDER``.
"""

import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from torch import nn

from skspurious import (
    AFRClassifier,
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    LfFClassifier,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SELFClassifier,
    SPAREClassifier,
    XRMClassifier,
)
from skspurious._engine._batches import LabelledSamples
from skspurious._engine._callbacks import Callback
from skspurious._engine._masks import recalibrate_batch_norms
from skspurious._engine._runtime import Runtime
from skspurious.data import TensorSamples
from skspurious.group_inference import KMeansGroups, SpareGroups

N_SAMPLES, N_VALID = 103, 31
# Of the data; in a list, so that the shift of conftest.py is not added once more.
SEED = [int(os.environ.get("SKSPURIOUS_TEST_SEED", "0"))]

SHARED = {"max_epochs": 4, "batch_size": 14, "lr": 0.05, "random_state": 0, "device": "cpu"}
DRO = partial(GroupDROClassifier, **SHARED, step_size=0.3)

# 103 = 7 * 14 + 5: each last batch, and with a batch size of 15 each batch, is shared unevenly.
FITS = {
    "erm": partial(ERMClassifier, **SHARED),
    "erm-odd-batches": partial(ERMClassifier, **SHARED | {"batch_size": 15}),
    "erm-weights": partial(ERMClassifier, **SHARED | {"batch_size": 15}),
    "erm-schedule": partial(
        ERMClassifier, **SHARED, optimizer="adamw", lr_schedule="cosine", max_grad_norm=0.1
    ),
    "erm-accumulation": partial(
        ERMClassifier, **SHARED | {"batch_size": 7}, gradient_accumulation=2
    ),
    "erm-early-stopping": partial(
        ERMClassifier, **SHARED | {"max_epochs": 20}, early_stopping=True, n_epochs_no_change=2
    ),
    "erm-dataset": partial(ERMClassifier, **SHARED),
    "dro-sampling": partial(DRO, adjustment=1.0),
    "dro-batches": partial(DRO, balance="batches", absent_group="skip"),
    "dro-every-sample": partial(DRO, balance=None, absent_group="ema"),
    "dro-weights": partial(DRO, balance="batches"),
    "dro-automatic": partial(DRO, adjustment="auto"),
    "dro-cvar": partial(DRO, update="cvar"),
    "dro-single-samples": partial(DRO, balance=None, absent_group="zero"),
    "balanced-sampling": partial(BalancedRetrainer, **SHARED),
    "balanced-batches": partial(BalancedRetrainer, **SHARED, balance="batches"),
    "balanced-weights": partial(BalancedRetrainer, **SHARED, balance="weights"),
    "lff": partial(LfFClassifier, **SHARED | {"batch_size": 15}),
}

# Methods of several stages.
STAGED = {
    "jtt": partial(JTTClassifier, **SHARED, init_epochs=2, up_weight=4),
    "jtt-cross-fitted": partial(JTTClassifier, **SHARED, cross_fit=3, up_weight=4),
    "dfr": partial(LastLayerRetrainer, **SHARED),
    "afr": partial(AFRClassifier, **SHARED),
    "self": partial(SELFClassifier, **SHARED, n_selected=10),
    "nsf": partial(NSFClassifier, **SHARED, transform_steps=20, head_steps=20, nsf_lr=0.1),
    "nsf-fine-tuned": partial(
        NSFClassifier, **SHARED, transform_steps=20, head_steps=20, fine_tune_epochs=2
    ),
    "pruned": partial(PrunedRetrainer, **SHARED, score_epochs=2),
    "george": partial(GEORGEClassifier, **SHARED, group_method=KMeansGroups(n_clusters=2)),
    "spare-epoch-by-silhouette": partial(
        SPAREClassifier,
        **SHARED,
        group_method=SpareGroups(n_clusters=2),
        init_epochs=3,
        epoch_selector="silhouette",
        warm_start=True,
    ),
    "xrm": partial(XRMClassifier, **SHARED | {"batch_size": 15}, n_runs=2),
    "prusc": partial(
        PruSCNetwork, **SHARED | {"batch_size": 8}, n_clusters=2, mask_steps=10, mask_lr=0.3
    ),
}


def make_data():
    """X, y, groups and weights of training and validation samples."""
    rng = np.random.default_rng(SEED)
    n = N_SAMPLES + N_VALID
    X = rng.normal(size=(n, 5)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=n) > 0).astype(int)
    group = rng.choice(3, p=[0.7, 0.2, 0.1], size=n)
    weight = rng.uniform(0, 2, size=n)
    train = tuple(a[:N_SAMPLES] for a in (X, y, group, weight))
    X_val, y_val, group_val = (a[N_SAMPLES:] for a in (X, y, group))
    return train, {"X_val": X_val, "y_val": y_val, "sample_group_val": group_val}


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))


def fit(name, **params):
    """One of the fits, by name."""
    (X, y, group, weight), valid = make_data()
    clf = FITS[name](module=make_network()).set_params(**params)
    data = [torch.from_numpy(x) for x in X] if name == "erm-dataset" else X
    if name == "dro-single-samples":  # one real row and its padding: a group alone in a batch
        data, y, group = X[:9], y[:9], group[:9]
        weight = weight[:9]
        clf.set_params(batch_size=1)
    weighted = name.endswith("-weights") and not name.startswith("balanced")
    return clf.fit(data, y, sample_group=group, sample_weight=weight if weighted else None, **valid)


def fit_staged(name):
    """One of the fits of several stages, by name."""
    (X, y, group, _), valid = make_data()
    needs_groups = name in ("dfr", "pruned")
    clf = STAGED[name](module=make_network())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about data without a shortcut
        return clf.fit(X, y, sample_group=group if needs_groups else None, **valid)


def learned(clf):
    """What a fit learned, as plain values."""
    (X, *_), _ = make_data()
    return {
        "module": clf.module_.state_dict(),
        "history": clf.history_.drop(columns=["seconds", "stage"], errors="ignore").to_dict("list"),
        "group_weights": getattr(clf, "group_weights_", np.empty(0)).tolist(),
        "best_epoch": clf.best_epoch_,
        "predict_proba": clf.predict_proba(X).tolist(),
    }


class InterruptAfter(Callback):
    def on_epoch_end(self, *, row, **kwargs):
        if row["epoch"] == 2:
            raise KeyboardInterrupt


class Noise(nn.Module):
    """A random augmentation that each process draws for itself; remembers what it drew."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, batch):
        noise = torch.randn_like(batch)
        self.drawn.append(noise)
        return batch + 0.1 * noise


def _resumed(folder):
    """A GroupDRO run that is interrupted in all processes and started again in all."""
    try:
        fit("dro-sampling", checkpoint_dir=folder, callbacks=[InterruptAfter()])
    except KeyboardInterrupt:
        return fit("dro-sampling", checkpoint_dir=folder)
    raise AssertionError("the run was not interrupted")


def _rows_without_a_seed(rank):
    """Rows of one epoch, with no seed and global generators that differ."""
    np.random.seed(rank)  # noqa: NPY002
    torch.manual_seed(rank)
    rows = []

    def remember(batch):
        rows.extend(batch[:, 0].long().tolist())
        return batch

    X = np.column_stack([np.arange(100), np.ones(100)])
    clf = ERMClassifier(
        train_transform=remember, max_epochs=1, batch_size=10, lr=1e-3, device="cpu"
    )
    clf.fit(X, np.arange(100) % 2)
    return rows


def _batch_norm():
    """Batch statistics are those of a process's share: not what one process has."""
    (X, y, group, _), valid = make_data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return GroupDROClassifier(network, **SHARED).fit(X, y, sample_group=group, **valid)


def _one_validation_row():
    """Fewer validation rows than processes."""
    (X, y, *_), _ = make_data()
    clf = ERMClassifier(make_network(), **SHARED | {"max_epochs": 1})
    return clf.fit(X, y, X_val=X[:1], y_val=y[:1])


def recalibrated():
    """Statistics of two batch norms over 103 rows, in batches of 10: a process has 52 or 51."""
    (X, y, *_), _ = make_data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    data = LabelledSamples(TensorSamples(torch.from_numpy(X)), torch.from_numpy(y))
    rows = torch.arange(N_SAMPLES)
    recalibrate_batch_norms(network, data, rows, Runtime("cpu"), batch_size=10)
    return {name: buffer for name, buffer in network.named_buffers() if "running" in name}


def searched(n_jobs):
    """A search that may run two fits at once; the last fit is shared by the processes again."""
    (X, y, *_), _ = make_data()
    search = GridSearchCV(ERMClassifier(**SHARED), {"lr": [1e-4, 0.3]}, cv=2, n_jobs=n_jobs)
    search.fit(X, y)
    scores = search.cv_results_["mean_test_score"].tolist()
    return {"scores": scores, **learned(search.best_estimator_)}


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    results = {name: learned(fit(name)) for name in FITS}
    results |= {name: learned(fit_staged(name)) for name in STAGED}
    results["resumed"] = learned(_resumed(folder / "checkpoints"))
    results["rows-without-a-seed"] = _rows_without_a_seed(rank)
    results["batch-norm"] = learned(_batch_norm())
    results["recalibrated"] = recalibrated()
    results["one-validation-row"] = learned(_one_validation_row())
    results["parallel-search"] = searched(n_jobs=2)
    noise = Noise()
    fit("erm", train_transform=noise, verbose=1)
    results["noise"] = noise.drawn[0]
    torch.save(results, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()
