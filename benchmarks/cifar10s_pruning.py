"""How many test images a faint line misleads, with and without data pruning, on CIFAR-10S.

    python benchmarks/cifar10s_pruning.py --data-home FOLDER_OF_CIFAR10 --seeds 3

A few training airplanes get a red line one pixel wide, no automobile does. Drawn on all test
automobiles, the line makes some of them airplanes: the spurious misclassifications. Printed for
every seed, the line being on the airplanes that are hardest or easiest to learn: without pruning,
and with the hardest, the easiest or random samples of every class pruned, equally many. Several
``--fractions`` show how few have to go.

Difficulty is EL2N on the clean images, after ``--score-epochs`` epochs. FOLDER holds
``cifar10_jpeg.npz``: for each split, JPEG files in one array of bytes, their offsets, and classes.
Smaller than the paper (ResNet-20, all of CIFAR-10, 160 epochs), to run on one core.
"""

import argparse
import io
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from skspurious import ERMClassifier, SpuriousSamplePruner

ORDERS = ["hardest", "easiest", "random"]


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x):
        y = self.first_norm(self.first(x)).relu_()
        return (self.second_norm(self.second(y)) + self.shortcut(x)).relu_()


def make_network(n_classes, width):
    """A residual network of eight layers."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, n_classes),
    )


def augment(x):
    """Pad by 4, crop and flip, each image by itself."""
    n, _, height, width = x.shape
    x = F.pad(x, (4, 4, 4, 4))
    rows = torch.randint(0, 9, (n, 1)) + torch.arange(height)
    columns = torch.arange(width).expand(n, -1)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    columns = columns + torch.randint(0, 9, (n, 1))
    image, channel = torch.arange(n)[:, None, None, None], torch.arange(3)[:, None, None]
    return x[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def load_classes(data_home, split, classes, n_per_class, rng=None):
    """Images (n, 3, 32, 32) of some classes, the first of each or random ones, and 0, 1, ..."""
    found = sorted(Path(data_home).rglob("cifar10_jpeg.npz"))
    if not found:
        raise SystemExit(f"{data_home} has no cifar10_jpeg.npz; give its folder with --data-home.")
    with np.load(found[0]) as file:
        blob, offset, y = (file[f"{split}_{name}"] for name in ("jpeg", "offset", "y"))
    of_class = [np.flatnonzero(y == c) for c in classes]
    if rng is not None:
        of_class = [rng.permutation(rows) for rows in of_class]
    rows = np.concatenate([rows[:n_per_class] for rows in of_class])
    images = [Image.open(io.BytesIO(blob[offset[i] : offset[i + 1]].tobytes())) for i in rows]
    X = np.stack([np.asarray(image.convert("RGB")) for image in images])
    label = np.repeat(np.arange(len(classes)), [len(rows[:n_per_class]) for rows in of_class])
    return np.ascontiguousarray(X.transpose(0, 3, 1, 2)), label


def mark(X, rows):
    """A red line, one pixel wide, down the middle."""
    X = X.clone()
    X[rows, 0, :, 16] = 191
    return X


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA", "."))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=4, help="the first ones; at least 2")
    parser.add_argument("--samples", type=int, default=2500, help="training images per class")
    parser.add_argument("--carriers", type=int, default=50, help="airplanes with the line")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--score-epochs", type=int, default=5)
    parser.add_argument(
        "--fractions", type=float, nargs="+", default=[0.1], help="of every class, pruned"
    )
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--width", type=int, default=16, help="channels of the first layer")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classes = range(args.classes)
    X, y = load_classes(args.data_home, "train", classes, args.samples)
    X_test, y_test = load_classes(args.data_home, "test", classes, 1000)
    X, X_test = torch.from_numpy(X), torch.from_numpy(X_test)
    misleading = mark(X_test[y_test == 1], slice(None))
    started = time.perf_counter()
    print(f"{len(y)} images, {args.carriers} with the line; {torch.__version__=}, {args}")

    results = {}
    for seed in range(args.seeds):
        params = {
            "module": make_network,
            "module_params": {"n_classes": args.classes, "width": args.width},
            "lr": 0.1,
            "lr_schedule": "onecycle",
            "weight_decay": 5e-4,
            "batch_size": 64,
            "max_epochs": args.epochs,
            "train_transform": augment,
            "random_state": seed,
        }
        pruner = SpuriousSamplePruner(score_epochs=args.score_epochs, **params).fit(X, y)
        airplanes = np.flatnonzero(y == 0)
        airplanes = airplanes[np.argsort(pruner.scores_[airplanes], kind="stable")]
        marked = {
            "no": X,
            "hard": mark(X, airplanes[-args.carriers :]),
            "easy": mark(X, airplanes[: args.carriers]),
        }
        runs = [("no", "none", 0.0), ("easy", "none", 0.0), ("hard", "none", 0.0)]
        runs += [("hard", order, share) for order in args.orders for share in args.fractions]
        for carriers, order, share in runs:
            keep = np.ones(len(y), dtype=bool)
            if share:
                keep = pruner.select(share, order=order)
            classifier = ERMClassifier(**params)
            classifier.fit(marked[carriers][torch.from_numpy(keep)], y[keep])
            misled = int((classifier.predict(misleading) == 0).sum())
            unmarked = int((classifier.predict(X_test[y_test == 1]) == 0).sum())
            accuracy = classifier.score(X_test, y_test)
            results.setdefault((carriers, order, share), []).append((misled, unmarked, accuracy))
            print(
                f"seed {seed} {carriers:4} carriers, pruned {order:7} ({(~keep).sum():4}): "
                f"{misled:4} misled, {unmarked:4} without the line, accuracy {accuracy:.4f}, "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )
    print("carriers  pruned         misled (std)   without the line   accuracy")
    for (carriers, order, share), values in results.items():
        misled, unmarked, accuracy = np.transpose(values)
        print(
            f"{carriers:8}  {order:7} {share:5.0%}  {misled.mean():6.1f} ({misled.std():5.1f})   "
            f"{unmarked.mean():16.1f}   {accuracy.mean():8.4f}"
        )


if __name__ == "__main__":
    main()
