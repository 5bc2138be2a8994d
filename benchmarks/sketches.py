"""Gram matrix of the ranks' gradients from a sketch: error of its distances, and of the geometric median by them.

Rows are gradients of LeNet on Fashion-MNIST, some of them hostile. "Columns" sums over sampled columns; "runs" over
sampled runs of 64; "projection" is a count sketch, in which each column is added, with a random sign, to one of so many
sums. Each row of results/sketches.csv is the mean over seeds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import environment
from ranks import FACTOR, data_of, gradients, network, shares, update

from skbgmd.aggregators import GeometricMedian
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results" / "sketches.csv"
SIZES = (64, 256, 1024, 4096, 16384, 65536)
SEEDS, STEPS, RUN = 5, 20, 64


def columns(rows: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.randperm(rows.shape[1], generator=generator)[:size]
    return rows[:, chosen] * (rows.shape[1] / size) ** 0.5


def runs(rows: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    starts = RUN * torch.randperm(rows.shape[1] // RUN, generator=generator)[: size // RUN]
    return rows[:, (starts[:, None] + torch.arange(RUN)).flatten()] * (rows.shape[1] / size) ** 0.5


def projection(rows: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    place = torch.randint(size, (rows.shape[1],), generator=generator)
    sign = 2.0 * torch.randint(2, (rows.shape[1],), generator=generator) - 1.0
    return torch.zeros(len(rows), size).index_add_(1, place, rows * sign)


SKETCHES: dict[str, Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]] = {
    "columns": columns,
    "runs": runs,
    "projection": projection,
}


def gradients_of_lenet(ranks: int, seed: int) -> torch.Tensor:
    """Gradients of so many ranks after some steps."""
    X, y, _, _ = data_of("fashion-mnist", seed)
    module = network("fashion-mnist", seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    samples = shares(seed, len(y), 16 * ranks, ranks)
    for _ in range(STEPS):
        rows = gradients(module, X, y, next(samples)[:4], "none", 0)
        update(module, optimizer, rows.mean(dim=0))
    return gradients(module, X, y, next(samples), "none", 0)


def main() -> None:
    around = environment()
    rows = gradients_of_lenet(16, 0)
    with RESULTS.open("w", newline="") as file:
        names = ("hostile", "sketch", "numbers", "error of distances", "error of the median", "seeds")
        writer = csv.DictWriter(file, [*names, *around])
        writer.writeheader()
        for hostile in (0, 4):
            changed = rows.clone()
            changed[:hostile] *= FACTOR
            exact, _ = GeometricMedian()(DenseRows(changed))
            honest = changed[hostile:]
            # The length by which the mean of the honest rows is uncertain.
            spread = float((honest - honest.mean(dim=0)).norm(dim=1).mean()) / len(honest) ** 0.5
            distances = torch.pdist(changed.double())
            for name, sketch in SKETCHES.items():
                for size in SIZES:
                    errors = []
                    for seed in range(SEEDS):
                        small = sketch(changed, size, torch.Generator().manual_seed(seed))
                        relative = (torch.pdist(small.double()) / distances - 1.0).square().mean().sqrt()
                        weights = torch.as_tensor(GeometricMedian().weights(DenseRows(small)), dtype=torch.float32)
                        errors.append((float(relative), float((weights @ changed - exact.vector).norm()) / spread))
                    means = np.mean(errors, axis=0)
                    row = dict(zip(names, (hostile, name, size, *means.round(4), SEEDS), strict=True))
                    writer.writerow({**row, **around})
                    file.flush()


if __name__ == "__main__":
    main()
