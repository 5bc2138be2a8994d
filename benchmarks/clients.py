"""What robust rules cost where clients hold different classes: digits, ten clients, a class of its own for each."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from measure import environment
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier

RESULTS = Path(__file__).resolve().parent / "results" / "clients.csv"
RULES = {
    "plain": {"aggregator": "mean"},
    "block": {"rejection": None},
    "block with rejection": {},
    "block with rejection from 3": {"rejection": 3.0},
    "nearest + block": {"rejection": None, "pre_aggregation": "nearest"},
}
#: Share of a client's samples that are of its own class; the rest are dealt out at random.
SKEWS = (0.0, 0.5, 0.9)


def main() -> None:
    around = environment()
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["skew", "rule", "seed", "accuracy", *around])
        writer.writeheader()
        for skew in SKEWS:
            for seed in range(3):
                X, y = load_digits(return_X_y=True)
                X, X_test, y, y_test = train_test_split((X / 16).astype(np.float32), y, stratify=y, random_state=seed)
                rng = np.random.RandomState(seed)
                clients = np.where(rng.rand(len(y)) < skew, y, rng.randint(0, 10, size=len(y)))
                for rule, settings in RULES.items():
                    model = BlockGMDClassifier(
                        batch_size=16, max_epochs=30, beta=0.1, block="coordinate", random_state=seed, **settings
                    )
                    accuracy = model.fit(X, y, groups=clients).score(X_test, y_test)
                    row = {"skew": skew, "rule": rule, "seed": seed, "accuracy": round(100 * accuracy, 1)}
                    writer.writerow({**row, **around})
                    file.flush()


if __name__ == "__main__":
    main()
