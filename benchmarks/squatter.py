"""Rows that squat at the median of a block and point the wrong way elsewhere: what is left of the honest mean.

A table of the least projection on the true mean, in its own length, over kinds of squatters and blocks found anew.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from measure import environment

from skbgmd import block_geometric_median, geometric_median
from skbgmd.location.off_block import BlockPart, block_step
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock

RESULTS = Path(__file__).resolve().parent / "results" / "squatter.csv"
DOCS = Path(__file__).resolve().parents[1] / "docs" / "results" / "squatter.csv"
N_ROWS, N_COLUMNS, MEAN, TURNS = 34, 5000, 0.1, 10
#: Noise about the block's median, and length elsewhere, in median norms.
KINDS = ((0.0, 0.97), (0.0, 1.0), (0.0, 2.0), (0.3, 1.0))
#: Means by the median's own weights, by those capped, by those of a filter; and the median of all columns.
ESTIMATES = ("own weights", "block median", "filtered", "all columns")


def squatted(honest: np.ndarray, n: int, beta: float, jitter: float, length: float) -> Iterator[np.ndarray]:
    """The rows with n squatters, for the block that they make, again and again."""
    rng, d = np.random.default_rng(0), honest.shape[1]
    X = np.vstack([honest, np.full((n, d), -5.0 * honest.mean())])
    for _ in range(TURNS):
        on = np.zeros(d, dtype=bool)
        on[block_geometric_median(X, beta=beta, return_result=True).block] = True
        row = np.full(d, -length * np.median(np.linalg.norm(honest[:, ~on], axis=1)) / max(1.0, (~on).sum()) ** 0.5)
        row[on] = geometric_median(honest[:, on])
        rows = np.tile(row, (n, 1))
        rows[:, on] += jitter * rng.normal(size=(n, on.sum()))
        X = np.vstack([honest, rows])
        yield X


def with_own_weights(X: np.ndarray, beta: float) -> np.ndarray:
    """The block median whose own weights are carried off the block."""
    result = block_geometric_median(X, beta=beta, return_result=True)
    rows, block = DenseRows(torch.from_numpy(X)), CoordinateBlock(torch.from_numpy(result.block), 1, X.shape[1])
    part = BlockPart(block, rows.block(block), result.weights, result.weights)
    return block_step(rows, part)[0].numpy()


def main() -> None:
    around, table = environment(), []
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["beta", "squatters", *ESTIMATES, *around])
        writer.writeheader()
        for beta in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
            line: dict[str, object] = {"beta": beta}
            for n in (1, 6, 13):
                honest = MEAN + np.random.default_rng(0).normal(size=(N_ROWS - n, N_COLUMNS))
                along = [
                    [
                        float(answer.mean() / MEAN)
                        for answer in (
                            with_own_weights(X, beta),
                            block_geometric_median(X, beta=beta),
                            block_geometric_median(X, beta=beta, complement="filtered"),
                            geometric_median(X),
                        )
                    ]
                    for kind in KINDS
                    for X in squatted(honest, n, beta, *kind)
                ]
                least = dict(zip(ESTIMATES, np.min(along, axis=0), strict=True))
                rounded = {name: f"{value:.2f}" for name, value in least.items()}
                writer.writerow({"beta": beta, "squatters": n, **rounded, **around})
                file.flush()
                line |= {f"{n} row{'s' * (n > 1)}: {name}": value for name, value in rounded.items()}
            table.append(line)
    with DOCS.open("w", newline="") as file:
        docs = csv.DictWriter(file, list(table[0]))
        docs.writeheader()
        docs.writerows(table)


if __name__ == "__main__":
    main()
