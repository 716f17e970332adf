"""Every method on data with a shortcut: one command, one table.

    python benchmarks/methods.py --data-home FOLDER      # writes docs/results/methods.md

FOLDER holds MNIST as torchvision lays it out; without it, or the environment variable
SKSPURIOUS_DATA, the digits are left out. Two data sets:

- *images*: ``make_spurious_images``, 4,000 noisy images of stripes whose colour is right for 97 %,
  of the validation images too;
- *digits*: SpuCoMNIST, one in eight of its images (6,001 for training), colour right for 95 %; all
  colours are equally frequent in its validation images.

On each, all methods train the same network (LeNet) by the same recipe: optimizer, rate, epochs and
geometric augmentation. Methods that drop samples have more epochs, for about as many steps; those
that keep the trained network start from a longer training (``LONGER``); what else a method has is
in ``METHODS``, below. The recipe was chosen for plain training and group balancing on validation
images. Each method keeps the epoch that is best on the validation images, by what it may know of
them, which is all that its row says of group labels; the settings in this file were chosen with
group labels of held-out images, those of *none* too:

- *none*: ``fit`` is given class labels alone; where the method infers groups, those of the
  validation images are inferred as well;
- *validation*: true groups of the validation images;
- *train*: true groups of training and validation images.

Printed are test figures, mean and standard deviation over the seeds: accuracy of the worst of the
true groups; adjusted accuracy (groups weighted as in training); seconds of ``fit``, all stages; and
passes over the training data in which a network is trained. Results are kept, run by run, in a
file beside the table, so that an interrupted run goes on where it was.
"""

import argparse
import json
import os
import platform
import time
import warnings
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from sklearn.pipeline import make_pipeline
from torchvision.transforms import v2

from skspurious import (
    BalancedRetrainer,
    ERMClassifier,
    GEORGEClassifier,
    GroupDROClassifier,
    JTTClassifier,
    LastLayerRetrainer,
    NSFClassifier,
    PrunedRetrainer,
    PruSCNetwork,
    SPAREClassifier,
    SpuriousGroupInferrer,
    TorchFeatureExtractor,
    group_report,
)
from skspurious.datasets import fetch_spuco_mnist, make_spurious_images
from skspurious.networks import LeNet
from skspurious.transforms import RandomWarp

NORMALIZE = v2.Normalize([0.5] * 3, [0.25] * 3)
EVALUATE = v2.Compose([v2.ToDtype(torch.float32, scale=True), NORMALIZE])

# What all methods train with, and how long a first network is trained whose outputs are clustered
# (GEORGE's is trained in full, as in the paper, but for the digits: there it would learn the ten
# digits themselves, and these would be the clusters).
RECIPES = {
    "images": {
        "module": partial(LeNet, n_classes=2, image_size=16),
        "lr": 0.01,
        "max_epochs": 10,
        "batch_size": 64,
    },
    "digits": {
        "module": partial(LeNet, padding=2),
        "lr": 0.02,
        "lr_schedule": "cosine",
        "weight_decay": 1e-2,
        "max_grad_norm": 1.0,
        "max_epochs": 10,
        "batch_size": 64,
        "train_transform": v2.Compose([RandomWarp(20, 0.1, 0.25, 20, bend=0.08), NORMALIZE]),
        "eval_transform": EVALUATE,
    },
}
EARLY = {
    "images": {"lr": 0.01, "max_epochs": 1},
    "digits": {"lr": 0.01, "weight_decay": 5e-4, "max_epochs": 4, "batch_size": 128},
}
# Methods that keep the trained network start from one that is trained to convergence, without
# augmentation: on the digits the recipe above learns the colour and nothing else.
LONGER = {
    "images": {},
    "digits": {"weight_decay": 5e-4, "max_epochs": 20, "train_transform": None},
}

# JTT: epochs of its first stage, longer where one has learned nothing yet, and its up-weighting;
# chosen on validation groups, as in the paper. The step counts of NSF, which differ by data set in
# the paper too, and GEORGE's first training were chosen with trainings of seeds 10 to 12, by the
# groups of images of their own: stripes of the seeds 310 to 312, all combinations equally often,
# and the digits' validation images.
JTT = {"images": (2, 20), "digits": (4, 100)}
SUBSAMPLED = {"images": 16, "digits": 16}  # times fewer samples, hence more epochs
PRUNED = {"images": 12, "digits": 10}
NSF = {
    "images": {"transform_steps": 300, "nsf_lr": 0.01},
    "digits": {"transform_steps": 10, "head_steps": 2000},
}


def load_images(split, seed, data_home):
    """Stripes in colours; the test images have all combinations equally often."""
    size, strength, offset = {
        "train": (4000, 0.97, 0),
        "val": (2000, 0.97, 100),
        "test": (4000, 0.5, 200),
    }[split]
    return make_spurious_images(
        size,
        correlation_strength=strength,
        core_contrast=0.8,
        noise=0.5,
        random_state=seed + offset,
    )


def load_digits(split, seed, data_home):
    """SpuCoMNIST; an eighth of the training and validation splits."""
    data = fetch_spuco_mnist(data_home, split=split, correlation_strength=0.95, random_state=seed)
    if split in ("train", "val"):
        for name in ("data", "target", "sample_group"):
            data[name] = data[name][::8]
    return data


LOADERS = {"images": load_images, "digits": load_digits}


class Setting:
    """What a method is built from: the recipe of a data set and a seed."""

    def __init__(self, name, seed):
        self.recipe = {**RECIPES[name], "random_state": seed}
        self.early = EARLY[name]
        self.epochs = self.recipe["max_epochs"]
        self.subsampled = self.longer(SUBSAMPLED[name])
        self.pruned = {
            **self.longer(PRUNED[name]),
            "scope": "carriers",
            "score_epochs": 2,
            "prune_fraction": 0.95,
            "monitor": "auto",
        }
        self.george = {"first_stage": self.early_stage()} if name == "digits" else {}
        self.jtt_epochs, self.up_weight = JTT[name]
        self.trained = {**self.recipe, **LONGER[name]}
        self.trained_epochs = self.trained["max_epochs"]
        self.nsf = {**self.trained, **NSF[name]}
        self.fine_tuned = {
            **self.nsf,
            "fine_tune_epochs": self.epochs,
            "fine_tune_lr": self.trained["lr"] / 4,
        }

    def first(self):
        """The network of a first stage: the same recipe, cut short, without augmentation."""
        plain = {
            k: v for k, v in self.recipe.items() if k not in ("train_transform", "lr_schedule")
        }
        return ERMClassifier(**{**plain, **self.early})

    def early_stage(self):
        """The same for a method that has it inside, and seeds it."""
        return self.first().set_params(random_state=None)

    def longer(self, times):
        """The recipe with more epochs, for methods that train on fewer samples."""
        return {**self.recipe, "max_epochs": times * self.epochs}

    def find(self, method="spare"):
        """Groups without labels, from early outputs."""
        extractor = TorchFeatureExtractor(self.first(), output="proba")
        return make_pipeline(extractor, SpuriousGroupInferrer(method=method))


# name: (labels used, estimator of a setting, passes over the training data of a setting)
METHODS = {
    "ERM": ("none", lambda s: ERMClassifier(**s.recipe), lambda s: s.epochs),
    "ERM, longer": ("none", lambda s: ERMClassifier(**s.trained), lambda s: s.trained_epochs),
    "GroupDRO": ("train", lambda s: GroupDROClassifier(**s.recipe), lambda s: s.epochs),
    "BalancedRetrainer": ("train", lambda s: BalancedRetrainer(**s.recipe), lambda s: s.epochs),
    "BalancedRetrainer, subsampling": (
        "train",
        lambda s: BalancedRetrainer(**s.subsampled, balance="subsampling"),
        lambda s: f"< {s.epochs}",
    ),
    "PrunedRetrainer, carriers": (
        "train",
        lambda s: PrunedRetrainer(**s.pruned),
        lambda s: s.epochs + 2,
    ),
    "LastLayerRetrainer (DFR)": (
        "validation",
        lambda s: LastLayerRetrainer(**s.trained),
        lambda s: s.trained_epochs,
    ),
    "SPAREClassifier": (
        "none",
        lambda s: SPAREClassifier(first_stage=s.early_stage(), **s.recipe),
        lambda s: s.epochs + s.early["max_epochs"],
    ),
    "GEORGEClassifier": (
        "none",
        lambda s: GEORGEClassifier(**s.george, **s.recipe),
        lambda s: s.epochs + (s.early["max_epochs"] if s.george else s.epochs),
    ),
    "GroupDRO, inferred groups": (
        "none",
        lambda s: GroupDROClassifier(group_inferrer=s.find(), **s.recipe),
        lambda s: s.epochs + s.early["max_epochs"],
    ),
    "PrunedRetrainer, inferred carriers": (
        "none",
        lambda s: PrunedRetrainer(**s.pruned, group_inferrer=s.find()),
        lambda s: s.epochs + 2 + s.early["max_epochs"],
    ),
    "JTT": (
        "validation",
        lambda s: JTTClassifier(
            **s.recipe,
            first_stage=s.early_stage().set_params(max_epochs=s.jtt_epochs),
            up_weight=s.up_weight,
        ),
        lambda s: s.epochs + s.jtt_epochs,
    ),
    "NSF": (
        "none",
        lambda s: NSFClassifier(**s.nsf),
        lambda s: s.trained_epochs,
    ),
    "NSF, no elimination": (
        "none",
        lambda s: NSFClassifier(**{**s.nsf, "transform_steps": 0}),
        lambda s: s.trained_epochs,
    ),
    "NSF, fine-tuned": (
        "none",
        lambda s: NSFClassifier(**s.fine_tuned, alignment_weight=0.1),
        lambda s: s.trained_epochs + s.epochs,
    ),
    "NSF, fine-tuned without alignment": (
        "none",
        lambda s: NSFClassifier(**s.fine_tuned, alignment_weight=0.0),
        lambda s: s.trained_epochs + s.epochs,
    ),
    "PruSC": ("none", lambda s: PruSCNetwork(**s.trained), lambda s: s.trained_epochs),
    "PruSC, no contrast": (
        "none",
        lambda s: PruSCNetwork(**s.trained, contrastive_weight=0.0),
        lambda s: s.trained_epochs,
    ),
}


def run(data_name, method, seed, data):
    """Test figures of one method, fitted once."""
    labels, make, passes = METHODS[method]
    setting = Setting(data_name, seed)
    train, val, test = (data[split] for split in ("train", "val", "test"))
    options = {"X_val": val.data, "y_val": val.target}
    if labels != "none":
        options["sample_group_val"] = val.sample_group
    if labels == "train":
        options["sample_group"] = train.sample_group
    estimator = make(setting)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        estimator.fit(train.data, train.target, **options)
    seconds = time.perf_counter() - started
    used = estimator.used_group_labels_
    assert used["train"] == (labels == "train"), (method, used)
    assert used["validation"] == (labels != "none"), (method, used)
    report = group_report(
        test.target,
        estimator.predict(test.data),
        sample_group=test.sample_group,
        train_group=train.sample_group,
    )
    return {
        "data": data_name,
        "method": method,
        "labels": labels,
        "seed": seed,
        "passes": str(passes(setting)),
        "worst": report.worst_group_accuracy,
        "adjusted": report.adjusted_accuracy,
        "seconds": seconds,
    }


def table(rows, data_name):
    """Markdown: a row a method, figures over the seeds."""
    rows = pd.DataFrame([row for row in rows if row["data"] == data_name])
    lines = [
        "| method | group labels | worst group | adjusted | seconds | passes |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        own = rows[rows.method == method]
        if len(own) == 0:
            continue
        figures = [f"{own[c].mean():.3f} ± {own[c].std(ddof=0):.3f}" for c in ("worst", "adjusted")]
        cells = [
            method,
            own.labels.iloc[0],
            *figures,
            f"{own.seconds.mean():.0f}",
            own.passes.iloc[0],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(rows, args):
    """The page with the tables."""
    command = "python benchmarks/methods.py --data-home MNIST"
    seeds = sorted({row["seed"] for row in rows})
    text = [
        "# All methods on data with a shortcut",
        "",
        f"Written by `{command}`. What the columns mean, and the settings, are in that file. "
        f"Seeds {seeds}, {args.threads} thread of torch {torch.__version__}, "
        f"{os.cpu_count()} cores ({platform.machine()}), no GPU.",
    ]
    titles = {"images": "Stripes in colours", "digits": "Digits on colours (SpuCoMNIST)"}
    for name, title in titles.items():
        if any(row["data"] == name for row in rows):
            text += ["", f"## {title}", "", table(rows, name)]
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "methods.md").write_text("\n".join(text) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--data", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    store = args.output / f"methods-{args.split}.jsonl"
    rows = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    done = {(row["data"], row["method"], row["seed"]) for row in rows}
    for seed in range(args.seeds):
        for name in args.data:
            if name == "digits" and args.data_home is None:
                print("digits left out: no --data-home")
                continue
            data = {
                split: LOADERS[name](split, seed, args.data_home)
                for split in ("train", "val", args.split)
            }
            data["test"] = data[args.split]
            for method in args.methods:
                is_same = method == "ERM, longer" and not LONGER[name]
                if is_same or (name, method, seed) in done:
                    continue
                try:
                    row = run(name, method, seed, data)
                except ValueError as error:  # diverged: the others go on, and the table lacks it
                    print(f"{name} seed {seed} {method:35} {error}", flush=True)
                    continue
                rows.append(row)
                with store.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{name} seed {seed} {method:35} worst {row['worst']:.3f} "
                    f"adjusted {row['adjusted']:.3f} {row['seconds']:.0f} s",
                    flush=True,
                )
                if args.split == "test":
                    write(rows, args)


if __name__ == "__main__":
    main()
