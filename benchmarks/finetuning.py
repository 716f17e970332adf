"""Whether fine-tuning a pretrained network beats a new last layer on the frozen one.

    python benchmarks/finetuning.py --data-home FOLDER --packages PACKAGES
    python benchmarks/finetuning.py --data-home FOLDER --packages PACKAGES --test SETTING

Photographs of Waterbirds at 96 pixels, EfficientNet-Lite0, **known groups** of the training and the
validation samples; folders as in ``label_free.py``. Prints accuracies on validation samples, by
which the epoch and the setting are chosen, as lines of JSON; with ``--test`` those of the named
settings on test samples as well. *then a last layer*: the network's last layer is replaced as on
the frozen network, by ``LastLayerRetrainer`` on training samples.

Only the blocks from a setting's ``first`` on are trained. What the blocks before make of the
pictures is computed once. The norms' statistics stay those of the pretrained network, but for the
settings that say so. *from the last layer*: training starts from the network with its new last
layer, and not from a random one.
"""

import argparse
import json
import os
import time
import warnings

import numpy as np
import torch
from label_free_data import pretrained, read_pictures
from torch import nn

from skspurious import (
    BalancedRetrainer,
    GroupDROClassifier,
    LastLayerRetrainer,
    group_report,
)

SGD = {"batch_size": 64, "lr_schedule": "cosine", "max_epochs": 4}
# A new balanced subset of the training samples, 224 of them, for every epoch.
SUBSETS = {"balance": "subsampling", "resample_each_epoch": True, "max_epochs": 20}
# Name: class, first trained block of 16, whether training starts from a new last layer, whether
# the norms are trained, parameters. Three of the seven that were run were added after the others'
# figures on validation samples; no test sample was looked at.
SETTINGS = {
    "usual, last block": (GroupDROClassifier, 15, False, True, {"lr": 3e-3}),
    "last block": (GroupDROClassifier, 15, True, False, {"lr": 1e-3}),
    "last block, slow": (GroupDROClassifier, 15, True, False, {"lr": 1e-4}),
    "last block, balanced": (BalancedRetrainer, 15, True, False, {"lr": 1e-3}),
    "last block, decay": (
        GroupDROClassifier,
        15,
        True,
        False,
        {"lr": 1e-4, "weight_decay": 1.0},
    ),
    "last block, subsets": (BalancedRetrainer, 15, True, False, {**SUBSETS, "lr": 1e-3}),
    "five blocks, subsets": (BalancedRetrainer, 11, True, False, {**SUBSETS, "lr": 1e-3}),
    "five blocks, slow": (GroupDROClassifier, 11, True, False, {"lr": 1e-4}),
    "five blocks": (GroupDROClassifier, 11, True, False, {"lr": 1e-3}),
    "all blocks, slow": (GroupDROClassifier, 0, True, False, {"lr": 1e-4}),
}


class Tail(nn.Module):
    """The network from a block on, its pooling and a last layer; norms fixed or not."""

    def __init__(self, network, first, trains_norms):
        super().__init__()
        features = network.features
        self.blocks = nn.ModuleList(features._blocks[first:])
        self.stem = nn.Sequential(features._conv_stem, features._bn0, features._swish)
        if first:
            self.stem = None
        self.top = nn.Sequential(features._conv_head, features._bn1, features._swish)
        self.head = nn.Linear(1280, 2)
        self.trains_norms = trains_norms

    def train(self, mode=True):
        super().train(mode)
        if not self.trains_norms:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def forward(self, x):
        if self.stem is not None:
            x = self.stem((x * 255 - 127) / 128)
        for block in self.blocks:
            x = block(x)
        return self.head(self.top(x).mean((2, 3)))


@torch.no_grad()
def before(network, X, first, start=0):
    """What the blocks from `start` to the first trained one make of pictures, or of its input."""
    features, parts = network.features.eval(), []
    for x in torch.from_numpy(X).split(256):
        if start == 0 < first:
            x = features._swish(features._bn0(features._conv_stem((x.float() - 127) / 128)))
        for block in features._blocks[start:first]:
            x = block(x)
        parts.append(x)
    return torch.cat(parts).numpy()


class Bench:
    """The pictures, and what a setting's blocks are given of them."""

    def __init__(self, args):
        self.packages, self.seed = args.packages, args.seed
        self.data = {k: read_pictures(args.data_home, k) for k in (0, 1, 2)[: 2 + bool(args.test)]}
        self._inputs = {}

    def inputs(self, first, part):
        if (first, part) not in self._inputs:
            X, start = self.data[part][0], 0
            if first == 15:  # through what the block has that is trained in other settings
                X, start = self.inputs(11, part), 11
            self._inputs[first, part] = before(pretrained(2, self.packages), X, first, start)
        return self._inputs[first, part]

    def network(self, first, trains_norms):
        return Tail(pretrained(2, self.packages), first, trains_norms)

    def last_layer(self, network, first):
        """A new last layer, balanced over the groups of the training samples."""
        _, y, group = self.data[0]
        clf = LastLayerRetrainer(network, max_epochs=0, retrain_on="train", random_state=self.seed)
        return clf.fit(self.inputs(first, 0), y, sample_group=group)

    def fine_tuned(self, name):
        kind, first, is_warm, trains_norms, params = SETTINGS[name]
        network = self.network(first, trains_norms)
        if is_warm:
            network = self.last_layer(network, first).module_
        _, y, group = self.data[0]
        _, y_val, group_val = self.data[1]
        clf = kind(network, random_state=self.seed, **{**SGD, **params})
        return clf.fit(
            self.inputs(first, 0),
            y,
            sample_group=group,
            X_val=self.inputs(first, 1),
            y_val=y_val,
            sample_group_val=group_val,
        )

    def figures(self, clf, first, *, with_test):
        shown = {}
        for part, name in ((1, "validation"), (2, "test"))[: 1 + with_test]:
            _, y, group = self.data[part]
            accuracy = group_report(
                y, clf.predict(self.inputs(first, part)), sample_group=group
            ).accuracy
            shown[name] = [round(float(a), 4) for a in (accuracy.min(), accuracy.mean())]
        return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--packages", help="folder of the packages of the pretrained network")
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--test", nargs="*", choices=["frozen", *SETTINGS], default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    bench = Bench(args)

    def show(name, clf, first, started):
        figures = bench.figures(clf, first, with_test=name.split(" + ")[0] in args.test)
        seconds = round(time.perf_counter() - started, 1)
        print(json.dumps({"setting": name, "seed": args.seed, **figures, "s": seconds}), flush=True)

    started = time.perf_counter()
    show("frozen", bench.last_layer(bench.network(15, False), 15), 15, started)
    for name in args.test or args.settings:
        if name == "frozen":
            continue
        first = SETTINGS[name][1]
        bench.inputs(first, 0)
        started = time.perf_counter()
        clf = bench.fine_tuned(name)
        show(name, clf, first, started)
        history = clf.history_[[c for c in clf.history_ if "worst" in c]]
        print(np.round(history.to_numpy().ravel(), 3).tolist(), clf.best_epoch_, flush=True)
        show(f"{name} + last layer", bench.last_layer(clf.module_, first), first, started)


if __name__ == "__main__":
    main()
