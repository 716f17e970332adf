"""The command line: ``skspurious demo``."""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import pandas as pd

from skspurious import ERMClassifier, SPAREClassifier, group_report
from skspurious._version import __version__
from skspurious.datasets import load_spurious_digits
from skspurious.inspection import (
    GroupAccuracyDisplay,
    GroupGalleryDisplay,
    HistoryDisplay,
    write_report,
)
from skspurious.metrics import group_inference_report
from skspurious.networks import LeNet
from skspurious.transforms import RandomWarp

__all__ = ["main"]


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments without the program's name. None takes those of the process.

    Returns
    -------
    status : int
        0 where all went well.
    """
    arguments = vars(_parser().parse_args(argv))
    run = arguments.pop("run")
    return run(**arguments)


def _parser():
    parser = argparse.ArgumentParser(
        prog="skspurious",
        description="Find hidden groups on which a classifier fails, and make the worst one hold.",
    )
    parser.add_argument("--version", action="version", version=f"skspurious {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="digits with a colour shortcut: group tables before and after, and a report",
        description=(
            "Train a network plainly, and then by SPARE with no group label, on bundled real "
            "digits whose background colour nearly gives the class away. Print the accuracy of "
            "every group before and after, and write a report with plots. Needs no download."
        ),
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("demo-report"),
        metavar="FOLDER",
        help="folder of the report (default: demo-report)",
    )
    demo.add_argument("--seed", type=int, default=0, help="seed of everything (default: 0)")
    demo.add_argument(
        "--quick",
        action="store_true",
        help="a few epochs only: shows that it runs, not that it works",
    )
    demo.set_defaults(run=_demo)
    return parser


# --------------------------------------------------------------------------------------
# skspurious demo


def _demo(*, output, seed, quick):
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit(
            "skspurious demo draws with matplotlib. Install it with: pip install skspurious[plot]"
        )
    started = time.perf_counter()
    train, test = (load_spurious_digits(split=split) for split in ("train", "test"))
    settings = {
        "module": LeNet,  # the class: its first weights come from the seed
        "module_params": {
            "n_classes": len(train.target_names),
            "image_size": train.data.shape[-1],
        },
        # Both stages and plain training have the same settings.
        "optimizer": "adam",
        "lr": 0.005,
        "lr_schedule": "onecycle",
        "max_epochs": 2 if quick else 20,
        "train_transform": RandomWarp(),
        "random_state": seed,
    }

    print("Plain training (ERMClassifier) ...", flush=True)
    before = ERMClassifier(**settings).fit(train.data, train.target)
    report_before = _report(before, train, test)
    print(f"\nBefore: accuracy of each group of the test set\n\n{report_before}\n")

    print("Groups from early outputs, then balanced retraining (SPAREClassifier) ...", flush=True)
    after = SPAREClassifier(init_epochs=1 if quick else 3, **settings)
    after.fit(train.data, train.target)
    report_after = _report(after, train, test)
    print(f"\nAfter: no group label was used in training or selection\n\n{report_after}\n")

    path = _write(output / "report.html", train, test, before, after, report_before, report_after)
    for name in ("worst_group", "average", "adjusted"):
        old, new = (getattr(r, f"{name}_accuracy") for r in (report_before, report_after))
        print(f"{name.replace('_', '-')} accuracy".ljust(22), f"{old:.3f} -> {new:.3f}")
    print(f"\nReport: {path.resolve()} ({time.perf_counter() - started:.0f} seconds in all)")
    return 0


def _report(classifier, train, test):
    """Group report of the test set; of the groups, only the evaluation knows."""
    return group_report(
        test.target,
        classifier.predict(test.data),
        sample_group=_named_groups(test),
        train_group=_named_groups(train),
    )


def _named_groups(data):
    """Class and colour of each sample, by name."""
    return pd.DataFrame(
        {
            "class": np.asarray(data.target_names)[data.target],
            "colour": np.asarray(data.attribute_names)[data.spurious_attribute],
        }
    )


def _write(path, train, test, before, after, report_before, report_after):
    """The demo's report."""
    import matplotlib.pyplot as plt

    true, inferred = _named_groups(train), after.group_inferrer_[-1].labels_
    displays = {
        "data": GroupGalleryDisplay.from_data(train.data, sample_group=true),
        "before": GroupAccuracyDisplay(report_before, estimator_name="plain training").plot(),
        "after": GroupAccuracyDisplay(report_after, estimator_name="SPARE").plot(),
        "history": HistoryDisplay.from_estimator(after, estimator_name="SPARE, second stage"),
    }
    sections = {
        "The data": [
            "Real handwritten digits (bundled with scikit-learn) on coloured backgrounds. In "
            "training, colour and class nearly always go together: the sizes of the groups are "
            "beside their images. In the test set every group is as frequent as the others.",
            displays["data"],
        ],
        "Before and after": [
            "Left, plain training: the network reads the colour and fails where the colour "
            "misleads. Right, SPARE: it sees the same images and labels, and no group label, "
            "neither in training nor in selection. Groups are known to these tables only.",
            [displays["before"], displays["after"]],
            [report_before, report_after],
        ],
        "The groups it found": [
            "SPARE clusters the outputs of each class after a few epochs. How well these clusters "
            "match the true groups, class by class; 'precision', 'recall' and 'f1' are those of "
            "one cluster against the smallest true group.",
            group_inference_report(true["colour"], inferred, true["class"]),
        ],
        "Training": [
            "Accuracy on the training batches of the second stage, over the inferred groups.",
            displays["history"],
        ],
    }
    written = write_report(path, title="skspurious demo: digits and colours", sections=sections)
    for display in displays.values():
        plt.close(display.figure_)
    return written
