"""Coverage of ``worst_group_interval``: how often it holds the lowest true accuracy.

    python benchmarks/worst_group_interval.py

Writes docs/results/worst_group_interval.md; a few minutes on one core.
"""

import argparse
from pathlib import Path

import numpy as np

from skspurious.functional import lowest_proportion_interval, wilson_interval

PAGE = Path(__file__).parents[1] / "docs" / "results" / "worst_group_interval.md"
HEAD = """# How often the interval of the worst group holds

Written by `python benchmarks/worst_group_interval.py`: {n_draws} evaluations of groups with known
accuracies, seed 0, at 95 %. *Both*: how often `worst_group_interval` holds the lowest true
accuracy; *low* and *high*: how often each end does. Beside it how often the Wilson interval of the
group that was lowest holds that accuracy.

| groups | samples of each | both | low | high | mean width | Wilson of the lowest |
| --- | --- | --- | --- | --- | --- | --- |
"""
SIZES = (5, 10, 30, 100, 300, 1000, 5000)


def cases(n):
    """Name, accuracies and sizes."""
    yield "one at 0.7", [0.7], [n]
    yield "one at 0.95", [0.95], [n]
    yield "four at 0.8", [0.8] * 4, [n] * 4
    yield "sixteen at 0.8", [0.8] * 16, [n] * 16
    yield "0.6, and three at 0.9 and above", [0.6, 0.9, 0.9, 0.95], [n] * 4
    yield "0.6 of so many, three of 500 to 2,000", [0.6, 0.9, 0.9, 0.95], [n, 2000, 2000, 500]
    yield "0.98 of so many, three of 500 to 2,000", [0.98, 0.7, 0.9, 0.95], [n, 2000, 2000, 500]
    yield "sixteen from 0.6 to 0.95", list(np.linspace(0.6, 0.95, 16)), [n] * 16


def coverage(p, n, n_draws, rng):
    """How often both ends, the low one, the high one and Wilson's hold, and the mean width."""
    p, n = np.array(p), np.array(n)
    drawn, count = np.unique(rng.binomial(n, p, (n_draws, len(p))), axis=0, return_counts=True)
    found = []
    for k in drawn:
        low, high = lowest_proportion_interval(k, n)
        wilson = [end[(k / n).argmin()] for end in wilson_interval(k, n)]
        holds = low <= p.min(), p.min() <= high
        found.append([all(holds), *holds, high - low, wilson[0] <= p.min() <= wilson[1]])
    return np.average(np.array(found, dtype=float), axis=0, weights=count)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-draws", type=int, default=1000)
    args = parser.parse_args()
    rng, lines = np.random.default_rng(0), []
    for n in SIZES:
        for name, p, sizes in cases(n):
            figures = coverage(p, sizes, args.n_draws, rng)
            lines.append(f"| {name} | {n} | " + " | ".join(f"{f:.3f}" for f in figures) + " |")
            print(lines[-1], flush=True)
    PAGE.write_text(HEAD.format(n_draws=args.n_draws) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
