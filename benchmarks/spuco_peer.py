"""SpuCo 2.0.3 and a bare torch loop against skspurious: one process, same data, same network.

    python benchmarks/spuco_peer.py --data-home FOLDER

FOLDER holds MNIST as torchvision lays it out (``MNIST/raw``, also gzipped); without it, the
environment variable SKSPURIOUS_DATA is taken. SpuCo needs an environment of its own, in which
skspurious is installed too; from the root of this repository::

    python -m venv peer
    peer/bin/pip install . spuco==2.0.3
    peer/bin/python benchmarks/spuco_peer.py --data-home FOLDER

The contestants of each part run in turns (A B A B ...), with one thread of torch each, and the
ratios are taken repeat by repeat: their median and range are printed, of the wall time and of the
processor time, that of the worker processes included. SpuCo's trainers and its evaluator always
load their batches in four worker processes. What is measured:

- **build**: the training split of SpuCoMNIST, from the MNIST files on disk to arrays in memory;
  reading included for both, the sha256 of the files for ours only;
- **groups**: SPARE's groups from the class probabilities of a network trained for one epoch, the
  number of clusters of each class chosen from 2 to 5; printed too is the agreement of the
  clusters, the adjusted Rand index of each class;
- **evaluate**: the accuracy of each group of the test split, from the images to the table; that
  both tables are the same is checked;
- **GroupDRO**: one epoch, from the making of the trainer and all of ``fit``: training alone, and
  with the accuracy of each group of the validation split, by which both choose the best epoch. For
  scale: the network's own forward and backward passes alone, on one batch again and again, with
  no data to fetch, no groups and no optimizer. No trainer of this network can be faster;
- **ERM**: one epoch; that ours and the bare loop end with the same weights is checked. The bare
  loop is what one writes by hand, see ``bare_epoch``; it runs with the same fused SGD that we use
  and with SGD as torch makes it by default.
"""

import argparse
import contextlib
import copy
import functools
import gzip
import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from _timing import alternate, print_table, ratio, seconds
from sklearn.metrics import adjusted_rand_score
from torch.nn import functional as F

from skspurious import ERMClassifier, GroupDROClassifier, SpuriousGroupInferrer, group_report
from skspurious._engine._samplers import UniformSampler
from skspurious.datasets import fetch_spuco_mnist
from skspurious.group_inference import SpareGroups

SGD = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-2}
STRENGTH, MAX_CLUSTERS, EVALUATION_BATCH = 0.995, 5, 256
PARTS = ("build", "groups", "evaluate", "group-dro", "erm")


def prepare_peer():
    """Make SpuCo importable beside current releases, or leave with a message."""
    if importlib.util.find_spec("spuco") is None:
        sys.exit(
            "spuco is not installed here. Make an environment that has it and skspurious, from "
            "the root of this repository:\n"
            "    python -m venv peer\n"
            "    peer/bin/pip install . spuco==2.0.3"
        )
    import matplotlib.cm

    if not hasattr(matplotlib.cm, "get_cmap"):  # gone since matplotlib 3.9; SpuCo's colours use it
        matplotlib.cm.get_cmap = matplotlib.colormaps.__getitem__
    warnings.filterwarnings("ignore", "This DataLoader will create")
    warnings.filterwarnings("ignore", "'pin_memory' argument")
    from spuco.utils import set_seed

    set_seed(0)


@contextlib.contextmanager
def quiet():
    """SpuCo prints its progress."""
    with (
        open(os.devnull, "w") as sink,
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        yield


# --------------------------------------------------------------------------------------
# The same data and the same network for all


def unpack_mnist(home, folder):
    """Decompressed copies of the MNIST files, in torchvision's layout."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for source in sorted((Path(home) / "MNIST" / "raw").iterdir()):
        if source.suffix == ".gz":
            with gzip.open(source) as packed, open(raw / source.stem, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        elif source.name.endswith("ubyte"):
            shutil.copy(source, raw)


def make_peer_dataset(bunch):
    """Our images, labels and attributes as a data set of SpuCo's own kind."""
    from spuco.datasets import BaseSpuCoDataset, SourceData

    class Given(BaseSpuCoDataset):
        def load_data(self):
            data = SourceData()
            data.X = [image.clone() for image in torch.from_numpy(bunch.data).float() / 255]
            data.labels = bunch.target.tolist()
            data.spurious = bunch.spurious_attribute.tolist()
            classes = range(len(bunch.target_names))
            return data, classes, classes

    dataset = Given(root="", num_classes=len(bunch.target_names))
    dataset.skip_group_validation = True  # with --samples, a group may be empty
    dataset.initialize()
    return dataset


def make_network():
    """SpuCo's LeNet."""
    from spuco.models import model_factory

    return model_factory("lenet", (3, 28, 28), 5)


def first_rows(bunch, n_samples):
    """The data set cut to its first rows, which are in random order."""
    n_all = len(bunch.target)
    cut = {k: v[:n_samples] for k, v in bunch.items() if len(v) == n_all}
    return type(bunch)(**{**bunch, **cut})


def our_params(batch_size, seed):
    """What our classifiers train with: the optimizer and the batches of the others."""
    return {
        "optimizer": "sgd",
        "optimizer_params": {"momentum": SGD["momentum"]},
        "lr": SGD["lr"],
        "weight_decay": SGD["weight_decay"],
        "batch_size": batch_size,
        "max_epochs": 1,
        "device": "cpu",
        "random_state": seed,
    }


# --------------------------------------------------------------------------------------
# The parts; each returns rows of the table


def measure_build(args, folder):
    """SpuCoMNIST's training split."""
    from spuco.datasets import SpuCoMNIST, SpuriousFeatureDifficulty

    def theirs():
        dataset = SpuCoMNIST(
            root=str(folder),
            spurious_feature_difficulty=SpuriousFeatureDifficulty.MAGNITUDE_LARGE,
            spurious_correlation_strength=STRENGTH,
            classes=[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]],
            split="train",
            download=False,
        )
        dataset.initialize()
        return len(dataset)

    def ours():
        bunch = fetch_spuco_mnist(folder, correlation_strength=STRENGTH, random_state=args.seed)
        return len(bunch.target)

    times = alternate({"SpuCo": theirs, "ours": ours}, repeats=args.slow_repeats, warm_up=False)
    sizes = {name: t.result for name, t in times.items()}
    return [row("build SpuCoMNIST", times, "SpuCo", ">= 20", f"rows: {sizes}")]


def measure_groups(args, train, network):
    """SPARE's groups with the number of clusters chosen."""
    from spuco.group_inference import SpareInference

    early = ERMClassifier(network, **our_params(32, args.seed)).fit(train.data, train.target)
    proba = early.predict_proba(train.data).astype(np.float32)

    def theirs():
        with quiet():
            inference = SpareInference(
                logits=torch.from_numpy(proba),
                class_labels=train.target.tolist(),
                max_clusters=MAX_CLUSTERS,
            )
            partition = inference.infer_groups()
        labels = np.empty(len(proba), dtype=np.int64)
        for group, key in enumerate(sorted(partition)):
            labels[partition[key]] = group
        return labels

    def ours():
        inferrer = SpuriousGroupInferrer(
            SpareGroups(max_clusters=MAX_CLUSTERS), random_state=args.seed
        )
        return inferrer.fit(proba, train.target).labels_

    times = alternate({"SpuCo": theirs, "ours": ours}, repeats=args.slow_repeats, warm_up=False)
    agreement, n_clusters = [], []
    for label in np.unique(train.target):
        pair = [times[name].result[train.target == label] for name in ("SpuCo", "ours")]
        agreement.append(f"{adjusted_rand_score(*pair):.3f}")
        n_clusters.append("/".join(str(len(np.unique(groups))) for groups in pair))
    note = f"adjusted Rand {' '.join(agreement)}; clusters {' '.join(n_clusters)}"
    return [row(f"groups, n={len(proba):,}", times, "SpuCo", ">= 20", note)]


def make_peer_evaluator(dataset, model):
    """SpuCo's evaluation per group; the groups' shares only enter averages, not used here."""
    from spuco.evaluate import Evaluator

    return Evaluator(
        testset=dataset,
        group_partition=dataset.group_partition,
        group_weights=dataset.group_weights,
        batch_size=EVALUATION_BATCH,
        model=model,
    )


def measure_evaluate(args, test, network):
    """Accuracy of each group."""
    fitted = ERMClassifier(network, **our_params(EVALUATION_BATCH, args.seed))
    fitted.fit(test.data[:1000], test.target[:1000])  # any weights will do
    evaluator = make_peer_evaluator(make_peer_dataset(test), copy.deepcopy(fitted.module_))

    def theirs():
        with quiet():
            accuracies = evaluator.evaluate()
        return [accuracies[key] / 100 for key in sorted(accuracies)]

    def ours():
        prediction = fitted.predict(test.data)
        report = group_report(test.target, prediction, sample_group=test.sample_group)
        return report["accuracy"].to_numpy()[: len(evaluator.group_partition)]

    times = alternate({"SpuCo": theirs, "ours": ours}, repeats=args.repeats)
    gap = np.abs(np.subtract(times["SpuCo"].result, times["ours"].result)).max()
    note = f"largest difference of a group's accuracy {gap:.1g}"
    return [row(f"evaluate, n={len(test.target):,}", times, "SpuCo", ">= 10", note)]


def measure_group_dro(args, train, dataset, valid, network, batch_size):
    """One epoch of GroupDRO, alone and with the validation that chooses the epoch."""
    from spuco.datasets import GroupLabeledDatasetWrapper
    from spuco.robust_train import GroupDRO

    grouped = GroupLabeledDatasetWrapper(dataset, dataset.group_partition)
    valid_dataset = make_peer_dataset(valid)
    validation = {
        "X_val": valid.data,
        "y_val": valid.target,
        "sample_group_val": valid.sample_group,
    }

    def theirs(validates):
        model = copy.deepcopy(network)
        trainer = GroupDRO(
            model=model,
            trainset=grouped,
            batch_size=batch_size,
            optimizer=torch.optim.SGD(model.parameters(), **SGD),
            num_epochs=1,
            val_evaluator=make_peer_evaluator(valid_dataset, model) if validates else None,
        )
        with quiet():
            trainer.train()

    def ours(validates):
        clf = GroupDROClassifier(network, **our_params(batch_size, args.seed))
        clf.fit(
            train.data,
            train.target,
            sample_group=train.sample_group,
            **(validation if validates else {}),
        )

    rows = []
    for validates in (False, True):
        contestants = {
            "SpuCo": functools.partial(theirs, validates),
            "ours": functools.partial(ours, validates),
        }
        if not validates:
            n_steps = -(-len(train.target) // batch_size)
            contestants["passes alone"] = functools.partial(
                bare_passes, network, torch.from_numpy(train.data[:batch_size]), n_steps
            )
        times = alternate(contestants, repeats=args.repeats)
        name = f"GroupDRO epoch{' with validation' if validates else ''}, batch size {batch_size}"
        rows.append(row(name, times, "SpuCo", ">= 2"))
        if not validates:
            rows.append(row(name, times, "passes alone", "", is_ours_first=True))
            rows.append(
                row(
                    f"the most there is, batch size {batch_size}",
                    times,
                    "SpuCo",
                    "",
                    of="passes alone",
                )
            )
    return rows


def bare_passes(network, images, n_steps):
    """Forward and backward passes of the same batch; nothing is learned."""
    network, inputs = copy.deepcopy(network).train(), images.float() / 255
    for _ in range(n_steps):
        network.zero_grad()
        network(inputs).sum().backward()


def bare_epoch(network, images, labels, batch_size, seed, fused):
    """One epoch of ERM written by hand: resident images, and nothing but the training."""
    network = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(network.parameters(), **SGD, fused=fused)
    plan = UniformSampler(len(labels), seed=seed)(0)
    for rows in plan.split(batch_size):
        inputs = images.index_select(0, rows).float() / 255
        loss = F.cross_entropy(network(inputs), labels.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def measure_erm(args, train, dataset, network, batch_size):
    """One epoch of ERM: SpuCo's trainer, two bare loops, and ours."""
    from spuco.robust_train import ERM

    images, labels = torch.from_numpy(train.data), torch.from_numpy(train.target)

    def theirs():
        model = copy.deepcopy(network)
        optimizer = torch.optim.SGD(model.parameters(), **SGD)
        ERM(model, dataset, batch_size=batch_size, optimizer=optimizer, num_epochs=1).train()

    def ours():
        clf = ERMClassifier(network, **our_params(batch_size, args.seed))
        # The same batches as the bare loop, so that the weights can be compared.
        clf._make_sampler = lambda train, seed: UniformSampler(len(train), seed=args.seed)
        return clf.fit(train.data, train.target).module_

    bare = functools.partial(bare_epoch, network, images, labels, batch_size, args.seed)
    contestants = {
        "SpuCo": theirs,
        "bare loop": functools.partial(bare, fused=True),
        "bare loop, default SGD": functools.partial(bare, fused=None),
        "ours": ours,
    }
    times = alternate(contestants, repeats=args.repeats)
    pairs = zip(times["bare loop"].result.parameters(), times["ours"].result.parameters())
    gap = max((a - b).detach().abs().max().item() for a, b in pairs)
    name, note = f"ERM epoch, batch size {batch_size}", f"largest difference of a weight {gap:.1g}"
    return [
        row(name, times, "bare loop", "<= 1.10", note, is_ours_first=True),
        row(name, times, "bare loop, default SGD", "<= 1.10", is_ours_first=True),
        row(name, times, "SpuCo", ""),
    ]


def row(part, times, peer, target, note="", is_ours_first=False, of="ours"):
    """A row of the table: peer / ours, or ours / peer."""
    ours, other = times[of], times[peer]
    slow, fast = (ours, other) if is_ours_first else (other, ours)
    return [
        part,
        f"{of} / {peer}" if is_ours_first else f"{peer} / {of}",
        seconds(other.wall),
        seconds(ours.wall),
        str(ratio(slow.wall, fast.wall)),
        str(ratio(slow.cpu, fast.cpu)),
        target,
        note,
    ]


# --------------------------------------------------------------------------------------


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-home", default=os.environ.get("SKSPURIOUS_DATA"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument(
        "--samples", type=int, help="training rows of all parts but 'build'; default all"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=3, help="of 'build' and 'groups'")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.data_home is None:
        parser.error("give --data-home, or set SKSPURIOUS_DATA: a folder with MNIST/raw in it")
    for home in (Path(args.data_home), Path(args.data_home) / "mnist"):
        if (home / "MNIST" / "raw").is_dir():
            args.data_home = home
            return args
    parser.error(f"no MNIST/raw in --data-home {args.data_home}")


def main():
    args = parse_args()
    prepare_peer()
    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        unpack_mnist(args.data_home, Path(folder))
        if "build" in args.parts:
            rows += measure_build(args, Path(folder))
        train = fetch_spuco_mnist(folder, correlation_strength=STRENGTH, random_state=args.seed)
        valid = fetch_spuco_mnist(folder, split="val", random_state=args.seed)
        test = fetch_spuco_mnist(folder, split="test", random_state=args.seed)
    if args.samples is not None:
        valid = first_rows(valid, args.samples * len(valid.target) // len(train.target))
        train = first_rows(train, args.samples)
    network = make_network()
    if "groups" in args.parts:
        rows += measure_groups(args, train, network)
    if "evaluate" in args.parts:
        rows += measure_evaluate(args, test, network)
    if {"group-dro", "erm"} & set(args.parts):
        dataset = make_peer_dataset(train)
        for batch_size in args.batch_sizes:
            if "group-dro" in args.parts:
                rows += measure_group_dro(args, train, dataset, valid, network, batch_size)
            if "erm" in args.parts:
                rows += measure_erm(args, train, dataset, network, batch_size)
    print(
        f"{len(train.target):,} training rows, {args.repeats} repeats in turns (build and groups: "
        f"{args.slow_repeats}), {args.threads} thread, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}\n"
    )
    header = ["", "ratio", "peer", "ours", "wall", "processor", "wanted", ""]
    print_table(header, rows)


if __name__ == "__main__":
    main()
