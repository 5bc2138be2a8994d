"""What the choice of a strength costs: process time of whole fits, in turns, over one with ``strength="mild"``."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import torch
from dirty.data import split
from measure import environment
from sklearn.datasets import make_classification

from skbgmd import BlockGMDClassifier

STRENGTHS, ROUNDS = ("mild", "firm", "strict", "auto"), 5


def cases() -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Samples, labels and epochs by name."""
    digits, quantiles = split("digits", 0), split("quantiles", 0)
    wrong = np.where(np.random.default_rng(0).random(len(digits.y)) < 0.2, (digits.y + 1) % 10, digits.y)
    X, y = make_classification(10_000, 30, n_informative=15, n_classes=5, flip_y=0.0, class_sep=1.5, random_state=0)
    return {
        "digits": (digits.X, digits.y, 100),
        "digits, pair 20 %": (digits.X, wrong, 100),
        "quantiles": (quantiles.X, quantiles.y, 100),
        "10,000 x 30": (X.astype(np.float32), y, 20),
        **{f"digits, first {n}": (digits.X[:n], digits.y[:n], 100) for n in (100, 200, 500)},
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (X, y, epochs) in cases().items():
        seconds: dict[str, list[float]] = {strength: [] for strength in STRENGTHS}
        for turn in range(ROUNDS + 1):
            for strength in STRENGTHS:
                start = time.process_time()
                model = BlockGMDClassifier(strength=strength, max_epochs=epochs, random_state=0).fit(X, y)
                # The first round loads what a process needs.
                seconds[strength] += [time.process_time() - start] if turn else []
                chosen = model.strength_
        mild = np.array(seconds["mild"])
        for strength, values in seconds.items():
            ratio = float(np.median(np.array(values) / mild))
            row = {"data": name, "strength": strength, "chosen": chosen if strength == "auto" else strength}
            rows.append({**row, "seconds": round(float(np.median(values)), 3), "over mild": round(ratio, 2)})
            print(rows[-1], flush=True)
    around = {**environment(), "rounds": ROUNDS}
    with (Path(__file__).parent / "results" / "strength_cost.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *around])
        writer.writeheader()
        writer.writerows({**row, **around} for row in rows)


if __name__ == "__main__":
    main()
