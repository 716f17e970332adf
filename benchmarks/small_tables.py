"""Every method with its defaults on scikit-learn's small data sets, where no groups mislead.

    python benchmarks/small_tables.py

Accuracy of five stratified folds behind a ``StandardScaler``, with ``LogisticRegression`` first,
and the difference from it. A method that needs groups gets them from ``SpuriousGroupInferrer()``.
Seconds are of all fits of a row.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspurious import SpuriousGroupInferrer, mitigation
from skspurious.base import BaseTorchClassifier

SETS = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
CLASSES = {name: getattr(mitigation, name) for name in mitigation.__all__}
METHODS = [name for name, kind in CLASSES.items() if issubclass(kind, BaseTorchClassifier)]
NEED_GROUPS = {"BalancedRetrainer", "GroupDROClassifier", "LastLayerRetrainer"}


def make(name, seed):
    """The estimator with its defaults, and an inferrer where it needs groups."""
    params = {"group_inferrer": SpuriousGroupInferrer()} if name in NEED_GROUPS else {}
    return CLASSES[name](random_state=seed, **params)


def accuracies(estimator, names, seed):
    """Mean accuracy of five folds on each set."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    pipeline = make_pipeline(StandardScaler(), estimator)
    sets = [SETS[name](return_X_y=True) for name in names]
    return np.array([cross_val_score(pipeline, X, y, cv=folds).mean() for X, y in sets])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")

    reference = accuracies(LogisticRegression(), args.sets, args.seed)
    print("| | " + " | ".join(args.sets) + " | seconds |")
    print("|---" * (len(args.sets) + 2) + "|")
    print("| LogisticRegression | " + " | ".join(f"{a:.3f}" for a in reference) + " | |")
    for name in args.methods:
        started = time.perf_counter()
        found = accuracies(make(name, args.seed), args.sets, args.seed)
        cells = [f"{a:.3f} ({a - r:+.3f})" for a, r in zip(found, reference, strict=True)]
        seconds = time.perf_counter() - started
        print(f"| {name} | " + " | ".join(cells) + f" | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
