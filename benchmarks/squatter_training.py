"""Trainings under squatters and without, by the weights that rows have off a block.

Balanced accuracy on scikit-learn's digits and other sets, 34 rows of eight samples, or single samples for caps of
Huber's weights; and under the library's other attacks by 13 of the rows, one seed and half of the epochs. Every
training is a row of results/squatter_training.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from digits import digits
from dirty.data import split
from paper.report import DOCS, write
from resume import add_options, seconds_to_fit, train_missing
from sklearn.metrics import balanced_accuracy_score

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import BlockGeometricMedian, GeometricMedian, HuberMean
from skbgmd.corruption import GRADIENT_CORRUPTIONS, BitFlip, Squatter, corrupt_labels

RESULTS = Path(__file__).resolve().parent / "results" / "squatter_training.csv"
COLUMNS = ("case", "rule", "seed", "balanced", "seconds", "remark")
LABELS = "40 % of the labels drawn anew"
N_ROWS = 34
#: Squatters among the rows, at the same places in each step or not, and what they do.
SQUATTERS: dict[str, dict[str, Any]] = {
    "1 squatter": {"fraction": 1.5 / N_ROWS},
    "7 squatters": {"fraction": 7.5 / N_ROWS},
    "13 squatters": {"fraction": 13.5 / N_ROWS},
    "13 squatters, the same": {"corrupt": range(13)},
    "13 squatters, own noise": {"fraction": 13.5 / N_ROWS, "own": True},
    "13 squatters, searched": {"fraction": 13.5 / N_ROWS, "searched": True},
    "13 squatters, own noise, searched": {"fraction": 13.5 / N_ROWS, "own": True, "searched": True},
}
SETS = ("imbalanced 9:1", "subgroups")
UNEVEN = ("uneven classes", "a fifth of the rows huge")
CASES = (*SQUATTERS, "clean", *SETS, *UNEVEN, LABELS)
#: Attacks of the library, with 38 % of the rows.
ATTACKS = {f"attack: {name}": attack for name, attack in GRADIENT_CORRUPTIONS.items() if name != "squatter"}


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


def by_weights(beta: float) -> dict[str, Any]:
    """The estimators' rule for a block, but with the block's weights off it as well."""
    return {"aggregator": BlockGeometricMedian(beta, GeometricMedian(10.0, tol=1e-4), block="unit")}


#: Rules by name, settings of the classifier.
RULES: dict[str, dict[str, Any]] = {
    "block median": {"beta": 0.1},
    "block median, half": {"beta": 0.5},
    "block's weights": by_weights(0.1),
    "block's weights, half": by_weights(0.5),
    "own weights": {"aggregator": BlockGeometricMedian(0.1, OwnWeights(10.0, tol=1e-4))},
    "all columns": {"beta": 1.0},
    "clipped spectral filter": {"aggregator": "clipped_spectral_filter"},
}
#: The estimators' rule for a block, and with the block's weights off it as well.
BLOCKS, BY_WEIGHTS = ("block median", "block median, half"), ("block's weights", "block's weights, half")
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
    if case in SETS:
        X, y, X_test, y_test = split(case, seed)
    else:
        X, X_test, y, y_test = digits(seed)
    attack: Any = None
    if case == "uneven classes":
        kept = (y % 2 == 0) | (np.random.default_rng(seed).random(len(y)) < 0.15)
        X, y = X[kept], y[kept]
    elif case == LABELS:
        y, _ = corrupt_labels(y, fraction=0.4, random_state=seed)
    elif case in SQUATTERS:
        attack = Squatter(**SQUATTERS[case])
    elif case in ATTACKS:
        attack = ATTACKS[case](fraction=13.5 / N_ROWS)
    elif case == "a fifth of the rows huge":
        attack = BitFlip(0.2)
    settings = {**RULES, **CAPS}[rule]
    if case in ATTACKS:
        epochs //= 2
    model = BlockGMDClassifier(
        **{"group_size": 8, "batch_size": 272, **settings} if rule in RULES else {"group_size": 1, **settings},
        strength=None,
        gradient_corruption=attack,
        max_epochs=epochs,
        random_state=seed,
    )
    seconds = seconds_to_fit(model, X, y, time.process_time)
    if seconds is None:
        return {"remark": "diverged"}
    balanced = 100.0 * balanced_accuracy_score(y_test, model.predict(X_test))
    return {"balanced": round(balanced, 2), "seconds": seconds}


def trainings(seeds: int) -> Iterator[tuple[str, str, int]]:
    whole = ("all columns", "clipped spectral filter")
    few, several, many, same, *adapted = SQUATTERS
    first, compared = BLOCKS[:1], (BLOCKS[0], BY_WEIGHTS[0])
    plan: list[tuple[tuple[str, ...], tuple[str, ...], int]] = [
        ((many, "clean"), BLOCKS, seeds),
        ((*SETS, several, LABELS), compared, seeds),
        (tuple(adapted), first, 1),
        (tuple(ATTACKS), compared, 1),
        ((same, several, few), BLOCKS, seeds),
        (UNEVEN, compared, seeds),
        (SETS, (*BLOCKS, *BY_WEIGHTS), seeds),
        ((many, several, few, "clean"), (*whole, *BY_WEIGHTS), seeds),
        ((many, few, "clean"), ("own weights",), seeds),
        (tuple(adapted), (*first, whole[1]), seeds),
    ]
    found = [(case, rule, seed) for cases, rules, n in plan for case in cases for rule in rules for seed in range(n)]
    yield from dict.fromkeys(found)
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
    spread = (" ± " + scores.std().round(1).astype(str)).where(scores.count() > 1, "")
    table = (scores.mean().round(1).astype(str) + spread).unstack()
    by_rule = table.reindex(index=list(CASES), columns=list(RULES)).dropna(how="all")
    write(by_rule.reset_index(), "squatter_training", DOCS)
    attacked = frame[frame["case"].isin(ATTACKS)].pivot(index="case", columns="rule", values="balanced")
    if len(attacked):
        attacked = attacked.reindex(list(ATTACKS)).rename(lambda name: name.removeprefix("attack: "))
        write(attacked.round(1).rename_axis("attack").reset_index(), "squatter_attacks", DOCS)
    caps = table.reindex(index=[LABELS], columns=list(CAPS)).dropna(how="all")
    if len(caps):
        write(caps.rename(columns=lambda name: name.removeprefix("Huber, ")).reset_index(), "squatter_caps", DOCS)


if __name__ == "__main__":
    main()
