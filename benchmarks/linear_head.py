"""A linear head on cached embeddings: ``ERMClassifier`` against the same training by a DataLoader.

    python benchmarks/linear_head.py

All contestants see the same 50,000 embeddings of 512 features (float32, in memory), train the same
softmax regression by the same optimizer with the same batch size for the same number of epochs,
on one core; they differ in how a batch is made:

- *skspurious*: the whole of ``ERMClassifier(...).fit(Z, y)``, its checks of the input included;
- *bare loop*: written by hand, a batch is one ``index_select``, and nothing but the training;
- *DataLoader*: ``DataLoader(TensorDataset(Z, y), batch_size, shuffle=True)``, the default collate
  function, in the training process;
- *DataLoader, n workers*: the same with ``num_workers=n`` (SpuCo's trainers always have four).

Printed are the medians, and the ranges, of the ratios to skspurious over the repeats.
"""

import argparse
import warnings

import numpy as np
import torch
from _timing import alternate, print_table, ratio, seconds
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from skspurious import ERMClassifier

LR, MOMENTUM = 0.01, 0.9


def make_embeddings(n_samples, n_features, n_classes, seed):
    """Gaussian classes, whose means differ in a few features."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n_samples)
    Z = rng.standard_normal((n_samples, n_features), dtype=np.float32)
    Z[:, :n_classes] += np.eye(n_classes, dtype=np.float32)[y]
    return Z, y


def fit_ours(Z, y, args, batch_size):
    """Training accuracy of ``ERMClassifier``."""
    head = ERMClassifier(
        lr=LR,
        optimizer_params={"momentum": MOMENTUM},
        max_epochs=args.epochs,
        batch_size=batch_size,
        device="cpu",
        random_state=args.seed,
    )
    return head.fit(Z, y).history_["train_accuracy"].iloc[-1]


def fit_bare(Z, y, args, batch_size):
    """The network after a loop whose batches are one ``index_select`` each."""
    generator = torch.Generator().manual_seed(args.seed)
    Z, y = torch.from_numpy(Z), torch.from_numpy(y)

    def batches():
        for rows in torch.randperm(len(y), generator=generator).split(batch_size):
            yield Z.index_select(0, rows), y.index_select(0, rows)

    return train(batches, Z.shape[1], args)


def fit_loader(Z, y, args, batch_size, num_workers):
    """The network after a loop over a DataLoader."""
    generator = torch.Generator().manual_seed(args.seed)
    data = TensorDataset(torch.from_numpy(Z), torch.from_numpy(y))
    loader = DataLoader(
        data, batch_size, shuffle=True, num_workers=num_workers, generator=generator
    )
    return train(lambda: loader, Z.shape[1], args)


def train(batches, n_features, args):
    """Softmax regression by SGD."""
    head = nn.Linear(n_features, args.classes)
    optimizer = torch.optim.SGD(head.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    for _ in range(args.epochs):
        for Z, y in batches():
            loss = F.cross_entropy(head(Z), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "This DataLoader will create")

    Z, y = make_embeddings(args.samples, args.features, args.classes, args.seed)
    rows = []
    for batch_size in args.batch_sizes:
        contestants = {
            "skspurious": lambda b=batch_size: fit_ours(Z, y, args, b),
            "bare loop": lambda b=batch_size: fit_bare(Z, y, args, b),
        }
        for n in args.workers:
            name = f"DataLoader, {n} workers" if n else "DataLoader"
            contestants[name] = lambda b=batch_size, n=n: fit_loader(Z, y, args, b, n)
        times = alternate(contestants, repeats=args.repeats)
        ours = times["skspurious"]
        for name, (wall, cpu, _) in times.items():
            ratios = [str(ratio(wall, ours.wall)), str(ratio(cpu, ours.cpu))]
            own = [seconds(wall), seconds(cpu)]
            rows.append([str(batch_size), name, *own, *(ratios if wall is not ours.wall else "11")])
    print(
        f"{args.samples} x {args.features}, {args.classes} classes, {args.epochs} epochs, "
        f"{args.repeats} repeats in turns, {args.threads} thread, torch {torch.__version__}\n"
    )
    print_table(
        ["batch size", "", "wall", "processor", "wall / ours", "processor / ours"],
        rows,
    )


if __name__ == "__main__":
    main()
