"""What a memory of workers costs: time of an aggregation over the geometric median's, in turns, on one thread."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import torch
from measure import environment

from skbgmd.aggregators import GeometricMedian, NearestNeighborMixing, WorkerMemory
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results" / "workers_cost.csv"
RULES = {"geometric median": GeometricMedian(), "worker memory": WorkerMemory(), "mixing": NearestNeighborMixing()}
SHAPES = ((34, 10_000), (34, 100_000), (34, 1_160_000))
ROUNDS = 15


def main() -> None:
    torch.set_num_threads(1)
    around = environment()
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["rows", "columns", "rule", "seconds", "ratio", *around])
        writer.writeheader()
        for n, d in SHAPES:
            G = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 0.1
            states: dict[str, object] = {}
            seconds: dict[str, list[float]] = {rule: [] for rule in RULES}
            for _ in range(ROUNDS):
                for name, rule in RULES.items():
                    rows, start = DenseRows(G), time.process_time()
                    _, states[name] = rule(rows, states.get(name))
                    seconds[name].append(time.process_time() - start)
            for name, own in seconds.items():
                ratio = float(np.median(np.divide(own, seconds["geometric median"])))
                row = {
                    "rows": n,
                    "columns": d,
                    "rule": name,
                    "seconds": f"{np.median(own):.4f}",
                    "ratio": f"{ratio:.3f}",
                }
                writer.writerow({**row, **around})


if __name__ == "__main__":
    main()
