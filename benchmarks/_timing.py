"""Contestants timed in turns, A B A B, so that a busy machine is busy for all of them."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Times(NamedTuple):
    """Seconds of one contestant, one entry a repeat; `result` is what its last run returned."""

    wall: list[float]
    cpu: list[float]
    result: Any


class Ratio(NamedTuple):
    """Median and range, over the repeats, of how many times longer one contestant takes."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if self.median < 2 else 1
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}..{self.high:.{digits}f})"


def cpu_seconds() -> float:
    """Processor time of this process and of those it started and has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def alternate(
    contestants: dict[str, Callable[[], Any]], *, repeats: int, warm_up: bool = True
) -> dict[str, Times]:
    """Run every contestant in turn, `repeats` times, after a first round that does not count."""
    times = {name: Times([], [], None) for name in contestants}
    for repeat in range(-1 if warm_up else 0, repeats):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), cpu_seconds()
            result = run()
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            if repeat >= 0:
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
                times[name] = times[name]._replace(result=result)
    return times


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """Ratio of the seconds of two contestants, repeat by repeat."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def seconds(values: list[float]) -> str:
    """Median seconds, to three digits."""
    return f"{statistics.median(values):.3g} s"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table."""
    table = [header, ["-" * len(name) for name in header], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")
