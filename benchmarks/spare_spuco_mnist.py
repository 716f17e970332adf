"""From a worst group near 0 to a good one on SpuCoMNIST, with no group label anywhere.

    python benchmarks/spare_spuco_mnist.py --data-home PATH_OF_MNIST --seeds 3

Plain training and SPARE on 48,000 MNIST digits whose background colour tells the class in 99.5 %.
Prints, for every seed, test accuracies and seconds. SPARE keeps the epoch whose worst *inferred*
group of the validation images is best. The true groups are used for the printed figures alone; the
settings were chosen on validation images, which are never trained on.
"""

import argparse
import os
import time

import numpy as np
import torch
from torchvision.transforms import v2

from skspurious import ERMClassifier, SPAREClassifier, group_report
from skspurious.datasets import fetch_spuco_mnist
from skspurious.networks import LeNet
from skspurious.transforms import RandomWarp

NORMALIZE = v2.Normalize([0.5] * 3, [0.25] * 3)
EVALUATE = v2.Compose([v2.ToDtype(torch.float32, scale=True), NORMALIZE])
AUGMENT = v2.Compose([RandomWarp(20, 0.1, 0.25, 20, bend=0.08), NORMALIZE])


def plain(seed):
    """Plain training."""
    return ERMClassifier(LeNet, max_epochs=5, batch_size=128, weight_decay=5e-4, random_state=seed)


def spare(seed):
    """Early outputs, groups, retraining on balanced groups with geometric augmentation."""
    return SPAREClassifier(
        LeNet,
        module_params={"padding": 2},
        first_stage=ERMClassifier(lr=0.01, weight_decay=5e-4, batch_size=128, max_epochs=1),
        lr=0.05,
        lr_schedule="cosine",
        weight_decay=1e-2,
        max_epochs=5,
        batch_size=64,
        train_transform=AUGMENT,
        eval_transform=EVALUATE,
        random_state=seed,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}")
    worst = {"ERM": [], "SPARE": []}
    for seed in range(args.seeds):
        train, val, held_out = (
            fetch_spuco_mnist(args.data_home, split=split, random_state=seed)
            for split in ("train", "val", args.split)
        )
        for name, make in (("SPARE", spare), ("ERM", plain)):
            started = time.perf_counter()
            classifier = make(seed)
            if name == "SPARE":
                classifier.fit(train.data, train.target, X_val=val.data, y_val=val.target)
            else:
                classifier.fit(train.data, train.target)
            seconds = time.perf_counter() - started
            report = group_report(
                held_out.target,
                classifier.predict(held_out.data),
                sample_group=held_out.sample_group,
                train_group=train.sample_group,
            )
            assert classifier.used_group_labels_ == {"train": False, "validation": False}
            worst[name].append(report.worst_group_accuracy)
            print(
                f"seed {seed} {name:5} worst group {report.worst_group_accuracy:.4f} "
                f"adjusted {report.adjusted_accuracy:.4f} "
                f"average {report.average_accuracy:.4f} {seconds:.0f} s",
                flush=True,
            )
            if name == "SPARE":
                inferrer = classifier.group_inferrer_[-1]
                print(
                    f"       groups per class {inferrer.n_clusters_.tolist()}, smallest "
                    f"{inferrer.cluster_sizes_.min()}, silhouettes "
                    f"{np.round(inferrer.silhouette_, 3).tolist()}, epoch kept "
                    f"{classifier.best_epoch_}"
                )
    for name, values in worst.items():
        print(f"{name:5} worst group, mean of {len(values)} seeds: {np.mean(values):.4f}")


if __name__ == "__main__":
    main()
