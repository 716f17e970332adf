"""Heads on frozen embeddings of Waterbirds: worst-group and adjusted accuracy of every method.

    python benchmarks/waterbirds_embeddings.py --data-home ../shared/data/waterbirds --seeds 5

Reads ``waterbirds_efficientnet_lite0.npz``: embeddings of 11,788 photographs (``q`` times
``scale``), ``y`` (1 = waterbird), ``place`` (1 = water) and ``split`` (0, 1, 2). They come from
another network than the published numbers, with which these cannot be compared.

Every method is a linear head on embeddings that are standardised by the training samples. Its
settings are chosen from a small grid on the validation samples, with one seed; what a row says is
then the mean, over seeds, on the test samples, which nothing else looks at. How it was chosen
stands in the column *chosen by*:

- *group*: worst-group accuracy on validation, with its group labels (for DFR on validation, on the
  halves of it that its heads were not fitted on);
- *accuracy*, *class*: accuracy and worst-class accuracy on validation, without group labels;
- *training*: worst-class accuracy on the training samples, of what was fitted on validation;
- *inferred*: the worst group among those that the method infers on validation, without labels; for
  JTT, which infers no groups, those of ``SpuriousGroupInferrer(method="error")``.

*labels* says whose group labels were used in any way: in training (t), on validation (v), or not
at all (-). Adjusted accuracy weighs the test groups as in training, the convention of this data.
"""

import argparse
import sys
import time
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _timing import print_table
from sklearn.preprocessing import StandardScaler

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    SpuriousGroupInferrer,
    worst_group_accuracy,
)
from skspurious.metrics import adjusted_accuracy

# Gradient descent on all samples at once: with few steps and a strong penalty.
SHARED = {"lr": 1e-2, "batch_size": 8192, "device": "cpu"}
REGULARISATION = {"weight_decay": [0.3, 1.0, 2.0, 4.0], "max_epochs": [10, 30, 100]}
INIT = {"init_weight_decay": [0.3, 1.0], "init_epochs": [30], "up_weight": ["auto", 5.0, 20.0]}
JTT_GRID = {"weight_decay": [1.0, 4.0], "max_epochs": [30], **INIT}
L2_GRID = (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
DFR_GRID = [{"penalty": "l1"}, {"penalty": "l2", "Cs": L2_GRID}]


NSF_GRID = {
    "transform_steps": [10, 100, 300],
    "head_steps": [100, 500],
    "class_balanced": [False, True],
}


class Split:
    """Standardised embeddings, labels, and groups, which only some methods may ask for."""

    def __init__(self, Z, y, group):
        self.Z, self.y, self.group = Z, y, group


def load(folder):
    """Training, validation and test samples."""
    with np.load(Path(folder, "waterbirds_efficientnet_lite0.npz")) as file:
        Z = file["q"].astype(np.float32) * file["scale"]
        y, place, split = (file[name].astype(np.int64) for name in ("y", "place", "split"))
    scaler = StandardScaler().fit(Z[split == 0])
    group = 2 * y + place
    parts = [split == i for i in range(3)]
    return [Split(scaler.transform(Z[part]), y[part], group[part]) for part in parts]


# --------------------------------------------------------------------------------------
# Methods: fit(train, valid, seed, **settings), grid, how chosen, whose labels


def fit_plain(make):
    """A classifier that is given no groups."""

    def fit(train, valid, seed, **settings):
        return make(random_state=seed, **SHARED | settings).fit(train.Z, train.y)

    return fit


def fit_plain_valid(make):
    """A classifier of the validation samples, a control for methods that are fitted on them."""

    def fit(train, valid, seed, **settings):
        return make(random_state=seed, **SHARED | settings).fit(valid.Z, valid.y)

    return fit


def fit_known(make):
    """A classifier that is given the training groups."""

    def fit(train, valid, seed, **settings):
        clf = make(random_state=seed, **SHARED | settings)
        return clf.fit(train.Z, train.y, sample_group=train.group)

    return fit


def fit_inferred(make, **inferrer_params):
    """A classifier on inferred groups, which are inferred once a seed."""
    carried = {}

    def fit(train, valid, seed, **settings):
        if seed not in carried:
            inferrer = SpuriousGroupInferrer(random_state=seed, device="cpu", **inferrer_params)
            carried[seed] = inferrer.fit_transform(train.Z, train.y)
        return make(random_state=seed, **SHARED | settings).fit(carried[seed], train.y)

    return fit


def of_validation(valid):
    """Arguments of ``fit``."""
    return {"X_val": valid.Z, "y_val": valid.y, "sample_group_val": valid.group}


def fit_dfr(train, valid, seed, **settings):
    """The head on the validation samples; it chooses C on halves of them."""
    clf = LastLayerRetrainer(n_tuning_splits=20, random_state=seed, device="cpu", **settings)
    return clf.fit(train.Z, train.y, **of_validation(valid))


def fit_dfr_train(train, valid, seed, **settings):
    """The head on the training samples; C by the validation samples."""
    clf = LastLayerRetrainer(retrain_on="train", random_state=seed, device="cpu", **settings)
    return clf.fit(train.Z, train.y, sample_group=train.group, **of_validation(valid))


def fit_dfr_inferred(train, valid, seed, **settings):
    """The head on the training samples, balanced over inferred groups, which also choose C."""
    inferrer = SpuriousGroupInferrer(method="error", random_state=seed, device="cpu")
    clf = LastLayerRetrainer(
        group_inferrer=inferrer, retrain_on="train", random_state=seed, device="cpu", **settings
    )
    return clf.fit(train.Z, train.y)


def fit_nsf(identify_on):
    """NSF's four steps on training or on validation samples; it is given no groups."""

    def fit(train, valid, seed, **settings):
        clf = NSFClassifier(identify_on=identify_on, random_state=seed, device="cpu", **settings)
        return clf.fit(train.Z, train.y, X_val=valid.Z, y_val=valid.y)

    return fit


def balanced(**params):
    def make(**settings):
        return BalancedRetrainer(**params, **settings)

    return make


def jtt(**params):
    def make(**settings):
        first = ERMClassifier(
            weight_decay=settings.pop("init_weight_decay"),
            max_epochs=settings.pop("init_epochs"),
            **SHARED,
        )
        return JTTClassifier(first_stage=first, **params, **settings)

    return make


METHODS = [
    ("ERM", fit_plain(ERMClassifier), REGULARISATION, ["accuracy", "group"], ""),
    ("class-balanced", fit_plain(balanced(by="class")), REGULARISATION, ["class"], ""),
    (
        "GroupDRO",
        fit_known(partial(GroupDROClassifier, balance=None)),
        {**REGULARISATION, "step_size": [0.03, 0.1, 0.3]},
        ["group"],
        "t",
    ),
    ("balanced, sampling", fit_known(balanced()), REGULARISATION, ["group"], "t"),
    ("balanced, weights", fit_known(balanced(balance="weights")), REGULARISATION, ["group"], "t"),
    (
        "balanced, subsampling",
        fit_known(balanced(balance="subsampling")),
        REGULARISATION,
        ["group"],
        "t",
    ),
    ("DFR on training", fit_dfr_train, DFR_GRID, ["group"], "t"),
    ("DFR on validation", fit_dfr, DFR_GRID, ["group"], ""),
    ("JTT", fit_plain(jtt()), JTT_GRID, ["inferred", "class", "group"], ""),
    (
        "JTT, cross-fitted",
        fit_plain(jtt(cross_fit=5)),
        JTT_GRID,
        ["inferred", "class", "group"],
        "",
    ),
    *(
        (
            f"balanced, {method} groups",
            fit_inferred(balanced(), method=method),
            REGULARISATION,
            ["inferred", "class", "group"],
            "",
        )
        for method in ("kmeans", "dispersion", "error")
    ),
    ("ERM on validation", fit_plain_valid(ERMClassifier), REGULARISATION, ["training"], ""),
    (
        "class-balanced on validation",
        fit_plain_valid(balanced(by="class")),
        REGULARISATION,
        ["training"],
        "",
    ),
    ("NSF on training", fit_nsf("train"), NSF_GRID, ["class"], ""),
    ("NSF on validation", fit_nsf("validation"), NSF_GRID, ["class"], ""),
    (
        "NSF on validation, no elimination",
        fit_nsf("validation"),
        {**NSF_GRID, "transform_steps": [0]},
        ["class"],
        "",
    ),
    ("DFR, error groups", fit_dfr_inferred, DFR_GRID, ["inferred"], ""),
    (
        "GroupDRO, error groups",
        fit_inferred(partial(GroupDROClassifier, balance=None), method="error"),
        REGULARISATION,
        ["inferred", "class", "group"],
        "",
    ),
]


# --------------------------------------------------------------------------------------
# Choice and report


def criterion(kind, clf, train, valid, error_group):
    """What settings are chosen by."""
    if kind == "training":
        return worst_group_accuracy(train.y, clf.predict(train.Z), sample_group=train.y)
    if isinstance(clf, LastLayerRetrainer):  # which may have been fitted on these samples
        return clf.tuning_["worst_group_accuracy"].max()
    predicted = clf.predict(valid.Z)
    if kind == "accuracy":
        return np.mean(predicted == valid.y)
    if kind == "group":
        group = valid.group
    elif kind == "class":
        group = valid.y
    elif clf.group_inferrer_ is not None:
        group = clf.infer_groups(valid.Z, valid.y)
    else:
        group = error_group
    return worst_group_accuracy(valid.y, predicted, sample_group=group)


def settings_of(grid):
    """Every combination of the values of a grid; a list is one already."""
    if isinstance(grid, list):
        return grid
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def study(method, train, valid, test, seeds, error_group):
    """Rows of the table for one method, one for each way of choosing."""
    name, fit, grid, kinds, labels = method
    started, fits = time.perf_counter(), 0
    candidates = settings_of(grid)
    scores = {kind: [] for kind in kinds}
    if len(candidates) > 1:
        for settings in candidates:
            clf = fit(train, valid, 0, **settings)
            fits += 1
            for kind in kinds:
                scores[kind].append(criterion(kind, clf, train, valid, error_group))
    rows = []
    for kind in kinds:
        best = int(np.argmax(scores[kind])) if scores[kind] else 0
        worst, adjusted = [], []
        for seed in range(seeds):
            clf = fit(train, valid, seed, **candidates[best])
            fits += 1
            predicted = clf.predict(test.Z)
            worst.append(worst_group_accuracy(test.y, predicted, sample_group=test.group))
            mix = {"train_group": train.group}
            adjusted.append(adjusted_accuracy(test.y, predicted, sample_group=test.group, **mix))
        used = labels + ("v" if kind == "group" else "")
        shown = ", ".join(f"{k}={v}" for k, v in candidates[best].items() if k != "Cs")
        rows.append([name, used or "-", kind, mean_std(worst), mean_std(adjusted), shown or "-"])
    seconds = (time.perf_counter() - started) / fits
    return [[*row[:5], f"{seconds:.2g} s", row[5]] for row in rows]


def mean_std(values):
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", help="only those whose name contains one of these")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "the error set is")

    train, valid, test = load(args.data_home)
    find = SpuriousGroupInferrer(method="error", random_state=0, device="cpu")
    error_group = find.fit(valid.Z, valid.y).labels_
    rows = []
    for method in METHODS:
        if args.methods is None or any(part in method[0] for part in args.methods):
            rows += study(method, train, valid, test, args.seeds, error_group)
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(
        f"{len(train.y)} + {len(valid.y)} + {len(test.y)} samples of {train.Z.shape[1]} features, "
        f"test groups {np.bincount(test.group).tolist()}, {args.seeds} seeds, "
        f"torch {torch.__version__}, {args.threads} thread\n"
    )
    header = ["method", "labels", "chosen by", "worst group", "adjusted", "a fit", "settings"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
