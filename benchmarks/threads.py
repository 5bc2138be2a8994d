"""Two threads over one: medians, rules and steps, each after an operation of torch.

``python benchmarks/threads.py`` writes results/threads.csv: median seconds of each call with one thread, and the median
of the ratios of both, in turns. Torch's threads stay awake for a while after an operation, and fight with those of
NumPy's products over the cores: what takes longer with two threads than with one waits for them. A machine that does
anything else besides says nothing.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measure import environment, ratio
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ghost import MODULES, data, stepper
from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import AGGREGATORS, Aggregator, NearestNeighborMixing, get_aggregator
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results" / "threads.csv"
#: Rows, columns; those of rules are gradients of groups, clients or ranks.
OF_MEDIANS = ((100, 2), (1000, 100), (500, 5000), (34, 61706), (1024, 41000), (100_000, 10), (20_000, 500))
OF_RULES = ((8, 61706), (34, 5000), (34, 61706), (128, 5000), (300, 20_000), (600, 5000))
#: Rules that sort every column take long, and wait for nothing.
SORTING = ("coordinate_median", "trimmed_mean")
OF_STEPS = (
    "plain",
    "geometric median",
    "Huber, the default",
    "block of units, beta=0.1",
    "median, groups of 32, one pass",
)
DATA = ("easy", "far", "heavy")


def rows(kind: str, n: int, d: int) -> NDArray[np.float64]:
    """Normal rows (n, d): as they are, three of ten far away, or of all lengths."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    if kind == "far":
        X[: 3 * n // 10] += 10.0 * rng.standard_normal(d)
    elif kind == "heavy":
        X *= rng.standard_cauchy((n, 1))
    return X


def cases() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names of calls, and the calls."""
    for n, d in OF_MEDIANS:
        for kind in DATA:
            X = rows(kind, n, d)
            yield f"median, {n} x {d}, {kind}", partial(geometric_median, X)
            yield f"median, {n} x {d}, {kind}, float32", partial(geometric_median, torch.from_numpy(X).float())
            if d >= 100:
                yield f"block median, {n} x {d}, {kind}", partial(block_geometric_median, X)
    for n, d in OF_RULES:
        X = torch.from_numpy(rows("far", n, d)).float()
        rules = {name: get_aggregator(name) for name in AGGREGATORS if name not in SORTING or n * d < 1e6}
        rules["nearest-neighbor mixing"] = NearestNeighborMixing()
        for name, rule in rules.items():
            yield f"{name}, {n} x {d}", partial(_aggregate, rule, X)
    for network, (module, shape) in MODULES.items():
        for variant in OF_STEPS:
            torch.manual_seed(0)
            yield f"step, {network}, {variant}", stepper(module(), data(shape), variant)


def _aggregate(rule: Aggregator, X: torch.Tensor) -> None:
    rule(DenseRows(X))


def in_turns(call: Callable[[], Any], rounds: int, seconds: float) -> dict[int, list[float]]:
    """Seconds of a call with one thread and with two, in turns, each after an operation of torch."""
    awake = torch.zeros(300_000)
    times: dict[int, list[float]] = {1: [], 2: []}
    begin = time.perf_counter()
    while len(times[2]) <= rounds and (len(times[2]) < 4 or time.perf_counter() - begin < seconds):
        for threads, found in times.items():
            torch.set_num_threads(threads)
            with threadpool_limits(threads, user_api="blas"):
                call()
                awake.square().sum()
                start = time.perf_counter()
                call()
                found.append(time.perf_counter() - start)
    return {threads: found[1:] for threads, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="after which a case has no more rounds")
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    around = environment()
    del around["threads"]
    with arguments.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "milliseconds with one", "two over one", "rounds", *around])
        for name, call in cases():
            if arguments.case in name:
                times = in_turns(call, arguments.rounds, arguments.seconds)
                row = [name, f"{1e3 * median(times[1]):.4g}", f"{ratio(times[2], times[1]):.3g}", len(times[1])]
                writer.writerow([*row, *around.values()])
                file.flush()
                print(*row, sep="\t", flush=True)


if __name__ == "__main__":
    main()
