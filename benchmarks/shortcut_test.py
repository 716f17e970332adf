"""Calibration and power of ``shortcut_test``: alarms without a shortcut, and with one.

    python benchmarks/shortcut_test.py --data-home WATERBIRDS --output docs/results/shortcut_test.md

Three tables:

- *without a shortcut*: 500 data sets of five kinds, in which a nuisance is in the samples and in
  what the views see, but does not go with the class. An alarm is evidence other than "none", at
  level 0.05;
- *power*: Gaussian samples whose nuisance agrees with the class in a share of them, the strength;
- *Waterbirds*: embeddings of pictures, drawn so that the place agrees with the class with a given
  strength, 1,500 and 500 samples of the two classes; views are the same network on pictures without
  their middle and in pieces. Without ``--data-home`` this table is left out.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from skspurious.inspection import shortcut_test
from skspurious.views import ImageStatistics

TITLE = """\
# Alarms and power of shortcut_test

`python benchmarks/shortcut_test.py --sets {sets} --draws {draws} --seed {seed} --data-home FOLDER`

An alarm is evidence other than "none" at level 0.05. No classifier is tested here: the verdict
rests on what balancing the sides of a view recovers, by linear heads out of fold. *recovered* is
the accuracy that a head gains where the view is wrong, *lost* what it loses where the view is
right: mean over the classes, and mean ± standard deviation over data sets. Seconds are wall time
on a shared machine that others used too, one thread. The rules of the test were chosen on sets of
other seeds (10000 and on).
"""
WITHOUT = """\
## Without a shortcut

A nuisance is in the samples and in what a view sees of them, but does not go with the class; a
second view sees nothing. Gaussian samples: 500 with 20 features, views of five and three columns.
Pictures: 400 of 12 by 12 pixels, a disc or a cross on ground of any colour; views are the
statistics of the border and the colours.
"""
POWER = """\
## Power

The same Gaussian samples, where the nuisance agrees with the class in a share of them, the
strength. Data sets by their verdict; the figures are those of the view that sees the nuisance.
"""
WATERBIRDS = """\
## Waterbirds

Embeddings by EfficientNet-Lite0 of 1,500 landbirds and 500 waterbirds, drawn from the training and
test samples so that the place agrees with the class with the given strength. Views are the same
network on pictures without their middle and on pictures in pieces. At 0.5 there is no shortcut,
but the pieces show something of the bird. Verdicts are those of the whole test: both views and
their common vote.
"""
STRENGTHS = [0.5, 0.6, 0.8, 0.9, 0.95]


def make_samples(strength, n_samples, seed, *, label_noise=0.0, share=0.5, hardness=(1.2, 1.2)):
    """Twenty features with the class and a nuisance, eight of views, classes.

    The view "ground" sees the nuisance in the first of five columns, "weather" nothing.
    """
    rng = np.random.default_rng(seed)
    y = (rng.random(n_samples) < share).astype(int)
    agrees = rng.random(n_samples) < strength
    nuisance = 2 * np.where(agrees, y, 1 - y) - 1
    Z = rng.normal(size=(n_samples, 20))
    Z[:, 0] += (2 * y - 1) * np.array(hardness)[y]
    Z[:, 1] += 2 * nuisance
    seen = rng.normal(size=(n_samples, 8))
    seen[:, 0] += 2 * nuisance
    y = np.where(rng.random(n_samples) < label_noise, 1 - y, y)
    return Z, seen, y


def make_pictures(n_samples, seed):
    """Pictures of 12 x 12 pixels, a disc or a cross of as many pixels on ground of any colour."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n_samples)
    row, column = np.mgrid[-2:3, -2:3]
    shapes = [np.abs(row) + np.abs(column) <= 1, (np.abs(row) == np.abs(column)) & (abs(row) < 2)]
    shapes = [np.pad(shape, 2) for shape in shapes]
    X = np.repeat(rng.random((n_samples, 3, 1, 1)), 12, axis=2).repeat(12, axis=3)
    for picture, label in zip(X, y, strict=True):
        top, left = rng.integers(2, size=2) + 1
        picture[:, top : top + 9, left : left + 9][:, shapes[label]] = rng.random((3, 1))
    X += 0.1 * rng.normal(size=X.shape)
    return np.clip(X, 0, 1).astype(np.float32), y


def test_samples(strength, n_samples, seed, **kwargs):
    Z, seen, y = make_samples(strength, n_samples, seed, **kwargs)
    views = {"ground": slice(20, 25), "weather": slice(25, 28)}
    X = np.concatenate([Z, seen], axis=1)
    return shortcut_test(None, X, y, views=views, embedding=Z, random_state=seed)


def test_pictures(n_samples, seed):
    X, y = make_pictures(n_samples, seed)
    views = {
        "border": ImageStatistics(["border", "corners"]),
        "colours": ImageStatistics(["colours"]),
    }
    Z = (X - X.mean(axis=(2, 3), keepdims=True)) ** 2  # a shape is seen whatever its colour
    Z = np.concatenate([Z.mean(axis=1).reshape(n_samples, -1), X.mean(axis=(2, 3))], axis=1)
    return shortcut_test(None, X, y, views=views, embedding=Z, random_state=seed)


KINDS = {
    "Gaussian samples": lambda seed: test_samples(0.5, 500, seed),
    "labels wrong in 10 %": lambda seed: test_samples(0.5, 500, seed, label_noise=0.1),
    "classes of 20 and 80 %": lambda seed: test_samples(0.5, 500, seed, share=0.2),
    "an easy and a hard class": lambda seed: test_samples(0.5, 500, seed, hardness=(2.0, 0.7)),
    "pictures, statistics": lambda seed: test_pictures(400, seed),
}


def count_alarms(n_sets, first_seed):
    """Rows of the table without a shortcut."""
    rows, pooled = [], []
    for kind, run in KINDS.items():
        start = time.perf_counter()
        tests = [run(first_seed + seed) for seed in range(n_sets // len(KINDS))]
        seconds = (time.perf_counter() - start) / len(tests)
        pooled += tests
        rows.append([kind, *alarms_of(tests), f"{seconds:.2f}"])
    return [*rows, ["all", *alarms_of(pooled), ""]]


def alarms_of(tests):
    n, k = len(tests), sum(test.evidence != "none" for test in tests)
    tenth = sum(test.p_value <= 0.1 for test in tests)
    return [str(n), f"{k} ({k / n:.1%})", f"{tenth / n:.1%}"]


def power(n_draws, first_seed):
    rows = []
    for n_samples in (500, 2000):
        for strength in STRENGTHS:
            tests = [test_samples(strength, n_samples, first_seed + s) for s in range(n_draws)]
            rows.append([str(n_samples), f"{strength:g}", *summary(tests, "ground")])
    return rows


def summary(tests, name):
    """Shares of the verdicts, and mean figures of one nuisance."""
    level = [test.evidence for test in tests]
    figures = [t.to_frame().loc[(name, "all")] for t in tests if name in t.to_frame().index]
    shares = [f"{level.count(e)}" for e in ("none", "weak", "strong")]
    spread = np.array([f["recovered"] for f in figures])
    return [
        *shares,
        f"{np.mean([f['accuracy'] for f in figures]):.2f}",
        f"{spread.mean():.3f} ± {spread.std():.3f}",
        f"{np.mean([f['lost'] for f in figures]):.3f}",
    ]


def waterbirds(folder, n_draws):
    """Rows of the table of Waterbirds, and seconds of a test."""
    with np.load(Path(folder, "waterbirds_efficientnet_lite0.npz")) as file:
        Z = file["q"].astype(np.float32) * file["scale"]
        y, place, split = (file[name].astype(np.int64) for name in ("y", "place", "split"))
    with np.load(Path(folder, "waterbirds_views_efficientnet_lite0.npz")) as file:
        seen = [file[v].astype(np.float32) * file[f"{v}_scale"] for v in ("mask", "shuffle")]
    X = np.concatenate([Z, *seen], axis=1)
    d = Z.shape[1]
    views = {"mask": slice(d, 2 * d), "shuffle": slice(2 * d, 3 * d)}
    rows, seconds = [], []
    for strength in STRENGTHS:
        tests = []
        for seed in range(4 * n_draws if strength == 0.5 else n_draws):
            at = draw_rows(y, place, split != 1, strength, np.random.default_rng(seed))
            start = time.perf_counter()
            tests.append(
                shortcut_test(None, X[at], y[at], views=views, embedding=Z[at], random_state=seed)
            )
            seconds.append(time.perf_counter() - start)
        rows += [[f"{strength:g}", name, *summary(tests, name)] for name in ("mask", "shuffle")]
    return rows, np.median(seconds)


def draw_rows(y, place, is_used, strength, rng):
    """1,500 and 500 samples of the classes, of which a share are at the place of their class."""
    rows = []
    for label, n in ((0, 1500), (1, 500)):
        for at, m in ((label, round(strength * n)), (1 - label, n - round(strength * n))):
            cell = np.flatnonzero(is_used & (y == label) & (place == at))
            rows.append(rng.choice(cell, m, replace=False))
    return rng.permutation(np.concatenate(rows))


def table(header, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=500, help="data sets without a shortcut")
    parser.add_argument("--draws", type=int, default=40, help="data sets of a row of power")
    parser.add_argument("--waterbirds-draws", type=int, default=5, help="four times as many at 0.5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-home", help="folder with the embeddings of Waterbirds")
    parser.add_argument("--output", help="write the page here, too")
    args = parser.parse_args()

    verdicts = ["none", "weak", "strong", "view says the class", "recovered", "lost"]
    alarms = ["without a shortcut", "sets", "alarms", "p ≤ 0.1", "seconds"]
    page = [
        TITLE.format(sets=args.sets, draws=args.draws, seed=args.seed),
        WITHOUT,
        table(alarms, count_alarms(args.sets, args.seed)),
        POWER,
        table(["samples", "strength", *verdicts], power(args.draws, args.seed)),
    ]
    if args.data_home:
        rows, seconds = waterbirds(args.data_home, args.waterbirds_draws)
        page += [WATERBIRDS, table(["strength", "view", *verdicts], rows)]
        page.append(f"A test takes {seconds:.1f} seconds, with both views and what they say.\n")
    print("\n".join(page))
    if args.output:
        Path(args.output).write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
