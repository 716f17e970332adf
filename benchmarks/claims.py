"""PruSC's contrast and NSF's map on photographs, each with and without.

    python benchmarks/claims.py --data-home FOLDER --packages PACKAGES --seeds 0 1

Waterbirds at 96 pixels and EfficientNet-Lite0, whose last block is fine-tuned by plain training
(as in ``finetuning.py``, whose folders these are); no group label in training. 20 % of the
training photographs are kept aside for NSF, with the same bias as the others. Printed are
accuracies on test photographs. Nothing is chosen: all is at its default, but for what is left out.
Pruning of faint shortcuts has a script of its own, ``cifar10s_pruning.py``.
"""

import argparse
import json
import os
import time
import warnings

import torch
from finetuning import Tail, before
from label_free_data import pretrained, read_pictures
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split

from skspurious import ERMClassifier, NSFClassifier, PruSCNetwork, group_report

FIRST = 15  # block from which on the network is trained
TRAINING = {"lr": 3e-3, "lr_schedule": "cosine", "weight_decay": 1e-4, "batch_size": 64}


def methods(erm, seed, X_val, y_val):
    """Name and a function that fits, for each of them."""
    frozen = {"module": FrozenEstimator(erm), "max_epochs": 0, "random_state": seed}
    masks = {**frozen, "batch_size": 64}
    on_val = {**frozen, "identify_on": "validation"}

    def nsf(**params):
        return lambda X, y: NSFClassifier(**on_val, **params).fit(X, y, X_val=X_val, y_val=y_val)

    return {
        "plain": lambda X, y: erm,
        "NSF": nsf(),
        "NSF without its map": nsf(transform_steps=0),
        "PruSC": lambda X, y: PruSCNetwork(**masks).fit(X, y),
        "PruSC without contrast": lambda X, y: PruSCNetwork(**masks, contrastive_weight=0.0).fit(
            X, y
        ),
        "PruSC without masks": lambda X, y: PruSCNetwork(**masks, mask_epochs=0, mask_steps=0).fit(
            X, y
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--packages", help="folder of the packages of the pretrained network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=4, help="of plain training")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    X, y, _ = read_pictures(args.data_home, 0)
    X_test, y_test, group_test = read_pictures(args.data_home, 2)
    X, X_test = (before(pretrained(2, args.packages), part, FIRST) for part in (X, X_test))
    for seed in args.seeds:
        parts = train_test_split(X, y, test_size=0.2, stratify=y, random_state=seed)
        X_train, X_val, y_train, y_val = parts
        network = Tail(pretrained(2, args.packages), FIRST, trains_norms=True)
        erm = ERMClassifier(network, max_epochs=args.epochs, random_state=seed, **TRAINING)
        erm.fit(X_train, y_train)
        for name, fit in methods(erm, seed, X_val, y_val).items():
            started = time.perf_counter()
            clf = fit(X_train, y_train)
            seconds = time.perf_counter() - started
            report = group_report(y_test, clf.predict(X_test), sample_group=group_test)
            shown = {
                "worst_group": round(float(report.accuracy.min()), 3),
                "mean_of_groups": round(float(report.accuracy.mean()), 3),
                "accuracy": round(float(report.average_accuracy), 3),
                "density": round(float(getattr(clf, "density_", 1.0)), 3),
                "seconds": round(seconds),
            }
            print(json.dumps({"seed": seed, "method": name, **shown}), flush=True)


if __name__ == "__main__":
    main()
