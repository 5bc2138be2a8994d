"""What is left of a hidden shift in each step, and in a training, by learning rate: digits under ``Simplex``.

The trainings of fresh_rows.py with other learning rates and numbers of steps. Beside the accuracy at the end there are,
as means over the steps, the weight of the corrupt rows, the aggregate's part along their shift in its own length, and
along the honest mean. Every training is a row of results/hidden_shift.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fresh_rows import NO_ATTACK, RULES, SIZES, classifier, samples
from paper.report import DOCS, write
from resume import add_options, seconds_to_fit, train_missing

from skbgmd.aggregators import AdaptiveClipping, Aggregate, Aggregator
from skbgmd.corruption import Simplex

RESULTS = Path(__file__).resolve().parent / "results" / "hidden_shift.csv"
MEASURED = ("accuracy", "corrupt_weight", "shift", "signal")
COLUMNS = ("attack", "group_size", "groups", "rule", "lr", "steps", "seed", *MEASURED, "seconds", "remark")
NAMED = "clipped spectral filter"
COMPARED: dict[str, Any] = {
    NAMED: RULES[NAMED],
    "spectral filter": RULES["spectral filter"],
    "clipped geometric median": AdaptiveClipping(),
    "mean": RULES["mean"],
}
RATES = (0.1, 0.05, 0.025)
STEPS = 160


class Watched(Simplex):
    """Simplex that keeps the corrupt rows, the honest mean and the corrupt rows' mean of the last call."""

    #: Of the class, as a training copies its attack.
    last: tuple[Any, torch.Tensor, torch.Tensor]

    def _replace(self, gradients: Any, corrupt: Any, honest: Any, rng: np.random.RandomState) -> torch.Tensor:
        replacement = super()._replace(gradients, corrupt, honest, rng)
        Watched.last = corrupt.numpy(), gradients[honest].mean(dim=0), replacement.mean(dim=0)
        return replacement


class Watching(Aggregator):
    """A rule that has the training record what is left of the shift."""

    def __init__(self, rule: Aggregator) -> None:
        self.rule = rule

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def __call__(self, rows: Any, state: Any = None) -> tuple[Aggregate, Any]:
        aggregate, state = self.rule(rows, state)
        corrupt, mean, center = Watched.last
        record = {
            "corrupt_weight": float(aggregate.weights[corrupt].sum()),
            "shift": along(aggregate.vector - mean, center - mean),
            "signal": along(aggregate.vector, mean),
        }
        return Aggregate(aggregate.vector, aggregate.weights, record=record), state


def along(vector: torch.Tensor, direction: torch.Tensor) -> float:
    """The part of a vector along another, in lengths of that."""
    vector, direction = vector.double(), direction.double()
    return float(vector @ direction / (direction @ direction))


def train(attack: str, size: int, groups: int, rule: str, lr: float, steps: int, seed: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = samples(size, groups, seed)
    settings: dict[str, Any] = {"aggregator": COMPARED[rule]}
    if attack != NO_ATTACK:
        settings = {"aggregator": Watching(COMPARED[rule]), "gradient_corruption": Watched(fraction=0.4)}
    model = classifier(size, groups, len(X), steps, lr=lr, random_state=seed, **settings)
    seconds = seconds_to_fit(model, X, y)
    if seconds is None:
        return {"remark": "diverged"}
    found = {"accuracy": round(100.0 * float(model.score(X_test, y_test)), 2)}
    for name in MEASURED[1:]:
        if attack != NO_ATTACK:
            found[name] = round(float(np.mean([epoch[name] for epoch in model.history_])), 3)
    return {**found, "seconds": seconds}


def trainings(seeds: int) -> Iterator[tuple[str, int, int, str, float, int, int]]:
    for seed in range(seeds):
        for size, groups in SIZES[:2]:
            for lr in RATES:
                for rule in COMPARED:
                    yield "simplex", size, groups, rule, lr, STEPS, seed
                yield "simplex", size, groups, NAMED, lr, 2 * STEPS, seed
                for steps in (STEPS, 2 * STEPS):
                    yield NO_ATTACK, size, groups, NAMED, lr, steps, seed


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracies by learning rate, means over the seeds with the lowest one; and what is left at the first rate."""
    groups = frame["groups"].astype(str) + " of " + frame["group_size"].astype(str)
    frame = frame.assign(accuracy=frame["accuracy"].fillna(10.0), groups=groups)
    keys = ["attack", "groups", "steps", "rule"]
    accuracy = frame.groupby([*keys, "lr"], sort=False)["accuracy"]
    lines = (accuracy.mean().round(1).astype(str) + " (" + accuracy.min().round(1).astype(str) + ")").unstack("lr")
    lines.columns = [f"lr={rate}" for rate in lines.columns]
    first = frame[frame["lr"] == RATES[0]].groupby(keys, sort=False)
    for name in MEASURED[1:]:
        lines[name.replace("_", " ")] = first[name].mean().map("{:.2f}".format).replace("nan", "")
    return lines.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing(trainings(arguments.seeds), train, COLUMNS, arguments)
    write(table(pd.read_csv(arguments.output)), "hidden_shift", DOCS)


if __name__ == "__main__":
    main()
