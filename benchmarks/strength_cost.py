"""What the choice of a strength costs: process time of whole fits, in turns, over one with the strength that is chosen.

Sets of ``dirty`` and others, of 100 to 10,000 samples; clean, and with dirt. Run again it begins anew. ``--report``
makes the table in docs/results.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from dirty.data import CLASSES, split
from measure import environment
from paper.report import DOCS, write
from sklearn.datasets import make_classification

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "strength_cost.csv"
ROUNDS = 5
#: By name and kind of dirt; all are trained for 100 epochs.
SETS = {
    "digits": (dirt.NONE, "pair 20 %", "uniform 40 %", "features 30 %"),
    "quantiles": (dirt.NONE, "pair 20 %"),
    "one-hot": (dirt.NONE, "pair 20 %"),
    "bag of words": (dirt.NONE,),
    "overlapping": (dirt.NONE,),
    "imbalanced 9:1": (dirt.NONE, "pair 20 %"),
    "Friedman 1": (dirt.NONE, "gross 15 %", "features and targets 20 %"),
    "lognormal": (dirt.NONE, "gross 30 %"),
    "counts": (dirt.NONE, "one-sided 15 %"),
    "diabetes": (dirt.NONE, "gross 15 %"),
}


def cases() -> dict[tuple[str, str], tuple[Any, Any, int]]:
    """Samples, targets and epochs by name and kind of dirt."""
    found = {}
    for name, kinds in SETS.items():
        clean, known = split(name, 0), dirt.OF_CLASSES if name in CLASSES else dirt.OF_TARGETS
        for kind in kinds:
            X, y, _ = known[kind](clean.X, clean.y, np.random.default_rng(0))
            found[name, kind] = X, y, 100
    X, y = make_classification(10_000, 30, n_informative=15, n_classes=5, flip_y=0.0, class_sep=1.5, random_state=0)
    found["10,000 x 30", dirt.NONE] = X.astype(np.float32), y, 20
    digits = split("digits", 0)
    return found | {(f"digits, first {n}", dirt.NONE): (digits.X[:n], digits.y[:n], 100) for n in (100, 200, 500)}


def seconds(fit: Callable[[], Any]) -> tuple[float, Any]:
    """Process time of a fit, and what it gives."""
    start = time.process_time()
    model = fit()
    return time.process_time() - start, model


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for (name, kind), (X, y, epochs) in cases().items():
        make = BlockGMDClassifier if y.dtype.kind in "iu" else BlockGMDRegressor

        def fit(strength: str, make: Any = make, X: Any = X, y: Any = y, epochs: int = epochs) -> Any:
            return make(strength=strength, max_epochs=epochs, random_state=0).fit(X, y)

        chosen = fit("auto").strength_
        names = list(dict.fromkeys(("auto", "mild", chosen)))
        # The first round loads what a process needs.
        rounds = [{each: seconds(lambda each=each: fit(each))[0] for each in names} for _ in range(ROUNDS + 1)][1:]
        times = pd.DataFrame(rounds)
        ratios = {f"over {label}": times["auto"] / times[of] for label, of in (("mild", "mild"), ("chosen", chosen))}
        row = {"data": name, "dirt": kind, "samples": len(y), "chosen": chosen, "seconds": times["auto"].median()}
        rows.append(row | {label: float(ratio.median()) for label, ratio in ratios.items()})
        print(rows[-1], flush=True)
    around = {**environment(), "rounds": ROUNDS}
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *around])
        writer.writeheader()
        for row in rows:
            rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
            writer.writerow({**rounded, **around})


def report() -> None:
    table = pd.read_csv(RESULTS, keep_default_na=False)
    shown = table[["data", "dirt", "samples", "chosen", "over mild", "over chosen"]]
    write(shown.round({"over mild": 2, "over chosen": 2}), "strength_cost", DOCS)


if __name__ == "__main__":
    report() if sys.argv[1:] == ["--report"] else main()
