"""Choice of the block across ranks under hostile scores: clipped sums, votes and medians, on digits.

Each training is a row of results/block_choice.csv: the share of the honest ranks' squares, what they have not sent
included, that lies in the block, in the mean over the steps; the same for the best block there is; the largest norm of
an honest remainder, in mean norms of honest gradients; and the accuracy.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment
from ranks import ATTACKS, BATCH, N_HOSTILE, STEPS, accuracy_of, block_step, data_of, gradients, network, shares, update

from skbgmd.aggregators import GeometricMedian, NonFiniteRowsError
from skbgmd.distributed.block_exchange import choose_runs, magnitudes_of_runs, median_scores
from skbgmd.location.block_selection import median_clip_factors
from skbgmd.rows.blocks import CoordinateBlock

RESULTS = Path(__file__).resolve().parent / "results" / "block_choice.csv"
BETA, LENGTH, LR, LIMIT = 0.1, 64, 0.1, 3.0
#: Learning rates at which trainings diverge, or nearly, with the remainders' limit and without.
HIGH_RATES, LIMITS = (0.4, 1.6, 6.4), (LIMIT, float("inf"))
FOUND = ("share in the block", "share in the best block", "largest remainder", "accuracy")
KEYS = ("choice", "ranks", "attack", "lr", "limit", "seed")


def clipped_scores(magnitudes: torch.Tensor) -> torch.Tensor:
    """Sums of squares of the ranks' magnitudes, each rank clipped to the median norm."""
    usable = magnitudes[magnitudes.isfinite().all(dim=1)].double()
    norms = usable.square().sum(dim=1).sqrt().numpy()
    factors = torch.from_numpy(median_clip_factors(norms, np.ones(len(norms))))
    return (usable * factors[:, None]).square().sum(dim=0).float()


def votes(magnitudes: torch.Tensor) -> torch.Tensor:
    """Number of ranks that would choose a run by themselves; ties by turns, as votes say no more."""
    n_chosen = -(-int(np.ceil(BETA * magnitudes.shape[1] * LENGTH)) // LENGTH)
    found = torch.zeros(magnitudes.shape[1])
    for row in magnitudes[magnitudes.isfinite().all(dim=1)]:
        found[row.topk(n_chosen).indices] += 1.0
    return found


#: Scores, and the share of the block that is sent by turns.
CHOICES: dict[str, tuple[Any, float]] = {
    "clipped sums": (clipped_scores, 0.0),
    "votes": (votes, 0.0),
    "medians": (median_scores, 0.0),
    "medians, 1/8 by turns": (median_scores, 0.125),
    "medians, 1/4 by turns": (median_scores, 0.25),
    "turns alone": (median_scores, 1.0),
}


def starve(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Ordinary numbers, but for the last layer, where there are none: its runs are to be forgotten."""
    wanted = rows.clone()
    wanted[:, -1010:] = 0.0
    return wanted


def train(choice: str, ranks: int, attack: str, lr: float, limit: float, seed: int) -> dict[str, float]:
    score, round_robin = CHOICES[choice]
    X, y, X_test, y_test = data_of("digits", seed)
    module, hostile = network("digits", seed), 0 if attack == "none" else N_HOSTILE[ranks]
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    samples = shares(seed, len(y), BATCH["digits"], ranks)
    remainders = torch.zeros(ranks, sum(p.numel() for p in module.parameters()))
    inside, best, lengths, largest = [], [], [], 0.0
    change = starve if attack == "starve" else ATTACKS[attack]
    for step in range(STEPS["digits"]):
        rows = gradients(module, X, y, next(samples), attack, hostile)
        if change is not None:
            rows[:hostile] = change(rows[:hostile], step)
        squares = (rows + remainders)[hostile:].double().square().sum(dim=0)
        try:
            aggregate, remainders, index = block_step(
                rows,
                remainders,
                step,
                GeometricMedian(),
                BETA,
                round_robin=round_robin,
                remainder_limit=limit,
                score=score,
            )
        except NonFiniteRowsError:
            break
        runs = magnitudes_of_runs(squares.sqrt(), LENGTH)
        ideal = CoordinateBlock(choose_runs(runs, -(-len(index) // LENGTH), step, 0.0), LENGTH, len(squares)).indices
        inside.append(float(squares[index].sum() / squares.sum()))
        best.append(float(squares[ideal].sum() / squares.sum()))
        lengths.append(float(rows[hostile:].norm(dim=1).mean()))
        largest = max(largest, float(remainders[hostile:].norm(dim=1).max()))
        update(module, optimizer, aggregate)
    return {
        "share in the block": round(float(np.mean(inside)), 4),
        "share in the best block": round(float(np.mean(best)), 4),
        "largest remainder": round(largest / float(np.mean(lengths)), 2),
        "accuracy": accuracy_of(module, X_test, y_test),
    }


def trainings() -> Iterator[tuple[Any, ...]]:
    for ranks in (4, 8):
        for attack in ("none", "flip", "constant block", "starve"):
            for choice in CHOICES:
                for seed in range(2):
                    yield choice, ranks, attack, LR, LIMIT, seed
    for lr in HIGH_RATES:
        for limit in LIMITS:
            for seed in range(2):
                yield "medians, 1/8 by turns", 4, "none", lr, limit, seed


def main() -> None:
    around, done = environment(), set()
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            done = {tuple(row[name] for name in KEYS) for row in csv.DictReader(file)}
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*KEYS, *FOUND, *around])
        if not file.tell():
            writer.writeheader()
        for key in trainings():
            if tuple(map(str, key)) not in done:
                writer.writerow({**dict(zip(KEYS, key, strict=True)), **train(*key), **around})
                file.flush()


if __name__ == "__main__":
    main()
