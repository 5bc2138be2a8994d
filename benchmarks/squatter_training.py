"""Trainings under squatters, by how the weights of a block are carried to the other columns.

Balanced accuracy on scikit-learn's digits, 34 rows of eight samples, or single samples for caps of Huber's weights.
Every training is a row of results/squatter_training.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from digits import digits
from paper.report import DOCS, write
from resume import add_options, train_missing
from sklearn.metrics import balanced_accuracy_score

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean, NonFiniteRowsError
from skbgmd.corruption import BitFlip, Squatter, corrupt_labels

RESULTS = Path(__file__).resolve().parent / "results" / "squatter_training.csv"
COLUMNS = ("case", "rule", "seed", "balanced", "seconds", "remark")
LABELS = "40 % of the labels drawn anew"
#: Squatters by their number among 34 rows.
SQUATTERS = {"1 squatter": 1, "13 squatters": 13}
CASES = ("13 squatters", "clean", "1 squatter", "uneven classes", "a fifth of the rows huge", LABELS)
#: Cases that are for the two ways of carrying weights only.
OF_WEIGHTS = CASES[2:]


class OwnWeights(GeometricMedian):
    """Geometric median whose own weights are carried off a block."""

    def judge(self, rows: Any, state: Any = None) -> Any:
        judged = super().judge(rows, state)
        return judged._replace(off_block=judged.weights)


class CappedHuber(HuberMean):
    """Huber's mean whose weights are carried off a block capped at a multiple of the shares; the excess is spread."""

    def __init__(self, multiple: float = float("inf")) -> None:
        super().__init__(1.0, rejection=10.0, remember=True, tol=1e-4)
        self.multiple = multiple

    def judge(self, rows: Any, state: Any = None) -> Any:
        judged = super().judge(rows, state)
        return judged._replace(off_block=capped(judged.weights, rows.weights / rows.weights.sum(), self.multiple))


def capped(weights: Any, shares: Any, multiple: float) -> Any:
    """Weights of at most a multiple of the shares; what is over goes to the others, in proportion to their shares."""
    for _ in range(len(weights)):
        over = weights > multiple * shares * (1.0 + 1e-12)
        if not over.any():
            break
        free = weights < multiple * shares
        excess = float((weights - multiple * shares)[over].sum())
        weights = np.where(over, multiple * shares, weights + np.where(free, shares, 0.0) / shares[free].sum() * excess)
    return weights


#: Rules by name, settings of the classifier.
RULES: dict[str, dict[str, Any]] = {
    "block median": {"beta": 0.1},
    "own weights": {"aggregator": BlockGeometricMedian(0.1, OwnWeights(10.0, tol=1e-4))},
    "all columns": {"beta": 1.0},
    "block median, mixing": {"beta": 0.1, "pre_aggregation": "nearest"},
    "clipped spectral filter": {"aggregator": "clipped_spectral_filter"},
}
#: Huber's mean of single samples on a block, for wrong labels only.
CAPS: dict[str, dict[str, Any]] = {
    "Huber, median multiple": {"huber": 1.0, "beta": 0.1},
    "Huber, no cap": {"aggregator": BlockGeometricMedian(0.1, CappedHuber())},
    **{
        f"Huber, cap {multiple}": {"aggregator": BlockGeometricMedian(0.1, CappedHuber(multiple))}
        for multiple in (1.05, 1.25, 1.5)
    },
}


def train(case: str, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = digits(seed)
    attack: Any = None
    if case == "uneven classes":
        kept = (y % 2 == 0) | (np.random.default_rng(seed).random(len(y)) < 0.15)
        X, y = X[kept], y[kept]
    elif case == LABELS:
        y, _ = corrupt_labels(y, fraction=0.4, random_state=seed)
    elif case in SQUATTERS:
        attack = Squatter((SQUATTERS[case] + 0.5) / 34)
    elif case != "clean":
        attack = BitFlip(0.2)
    settings = {**RULES, **CAPS}[rule]
    model = BlockGMDClassifier(
        **{"group_size": 8, "batch_size": 272, **settings} if rule in RULES else {"group_size": 1, **settings},
        strength=None,
        gradient_corruption=attack,
        max_epochs=epochs,
        random_state=seed,
    )
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a training that diverges says so at every step
            model.fit(X, y)
    except NonFiniteRowsError:
        return {"remark": "diverged"}
    balanced = 100.0 * balanced_accuracy_score(y_test, model.predict(X_test))
    return {"balanced": round(balanced, 2), "seconds": round(time.process_time() - start, 2)}


def trainings(seeds: int) -> Iterator[tuple[str, str, int]]:
    for case in CASES:
        for rule in (*RULES,)[:2] if case in OF_WEIGHTS else RULES:
            for seed in range(seeds):
                yield case, rule, seed
    for rule in CAPS:
        for seed in range(seeds):
            yield LABELS, rule, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing(trainings(arguments.seeds), train, COLUMNS, arguments)
    frame = pd.read_csv(arguments.output)
    scores = frame.groupby(["case", "rule"])["balanced"]
    table = (scores.mean().round(1).astype(str) + " ± " + scores.std().round(1).astype(str)).unstack()
    by_rule = table.reindex(index=list(CASES), columns=list(RULES)).dropna(how="all")
    write(by_rule.reset_index(), "squatter_training", DOCS)
    caps = table.reindex(index=[LABELS], columns=list(CAPS)).dropna(how="all")
    if len(caps):
        write(caps.rename(columns=lambda name: name.removeprefix("Huber, ")).reset_index(), "squatter_caps", DOCS)


if __name__ == "__main__":
    main()
