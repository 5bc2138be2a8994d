"""What rules against workers cost over those that they build on, in turns, on one thread.

A memory of workers over the geometric median, and a filter off a block over the weights that rows have on it, of
honest rows and where 38 % of them agree on a shift, which takes the filter more rounds.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import torch
from measure import environment

from skbgmd.aggregators import (
    Aggregator,
    BlockGeometricMedian,
    GeometricMedian,
    NearestNeighborMixing,
    WorkerMemory,
)
from skbgmd.corruption import ALittleIsEnough
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results" / "workers_cost.csv"
COLUMNS = ("rows", "columns", "corrupt", "rule", "seconds", "over", "ratio")
ROUNDS = 16


def block_median(complement: str) -> BlockGeometricMedian:
    """The estimators' rule for a block of a tenth."""
    return BlockGeometricMedian(0.1, GeometricMedian(10.0, tol=1e-4), block="coordinate", complement=complement)


#: Rules, the first of which the others are compared with, and numbers of rows and columns.
COMPARED: tuple[tuple[dict[str, Aggregator], tuple[tuple[int, int], ...]], ...] = (
    (
        {"geometric median": GeometricMedian(), "worker memory": WorkerMemory(), "mixing": NearestNeighborMixing()},
        ((34, 10_000), (34, 100_000), (34, 1_160_000)),
    ),
    (
        {"block median, weighted": block_median("weighted"), "block median, filtered": block_median("filtered")},
        ((10, 7_500), (34, 7_500), (34, 100_000), (34, 1_160_000), (128, 10_000), (512, 10_000), (1024, 10_000)),
    ),
)


def main() -> None:
    torch.set_num_threads(1)
    around = environment()
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        writer.writeheader()
        for rules, shapes in COMPARED:
            first = next(iter(rules))
            for n, d in shapes:
                for corrupt in (0, int(0.4 * n)):
                    states: dict[str, object] = {}
                    seconds: dict[str, list[float]] = {rule: [] for rule in rules}
                    for step in range(ROUNDS):
                        # Of noise that stays the same a memory would learn.
                        G = torch.randn(n, d, generator=torch.Generator().manual_seed(step)) + 0.1
                        if corrupt:
                            ALittleIsEnough(corrupt=range(corrupt)).apply_(G, random_state=0)
                        # The first finds fewer of the numbers in the caches.
                        for name in list(rules)[:: 1 if step % 2 else -1]:
                            rows, start = DenseRows(G), time.process_time()
                            _, states[name] = rules[name](rows, states.get(name))
                            seconds[name].append(time.process_time() - start)
                    for name, own in seconds.items():
                        ratio = float(np.median(np.divide(own, seconds[first])))
                        found = (n, d, corrupt, name, f"{np.median(own):.5f}", first, f"{ratio:.3f}")
                        writer.writerow({**dict(zip(COLUMNS, found, strict=True)), **around})
                        file.flush()


if __name__ == "__main__":
    main()
