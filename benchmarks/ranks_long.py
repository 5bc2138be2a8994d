"""Longer trainings of LeNet across eight ranks, of which three are hostile: what is lost once training converges.

The ranks, attacks, methods and learning rates of ranks.py, with five times its steps; the accuracy is taken along the
way. Beside them the mean of all ranks without an attack, and of the honest ones alone, which is the most that anyone
could have who knows which these are. Every training is a row of results/ranks_long.csv; run again it goes on where it
was. ``--report`` makes the table in docs/results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from paper.report import DOCS, write
from ranks import ABSENT, METHODS, accuracies, chosen_rate
from resume import parse_arguments, train_missing

RESULTS = Path(__file__).resolve().parent / "results" / "ranks_long.csv"
DATA, RANKS, RANKS_OF_GRID, SEEDS = "fashion-mnist", 8, 4, range(3)
STEPS = (300, 600, 900, 1200, 1500)
#: The worst attack of the shorter trainings first.
ATTACKS = ("none", "labels", "flip", "flip every other step", "nan")
ROBUST = ("exact, rejection=3", "block, rejection=3", "exact, worker memory")
RUNS = [
    (method, attack, seed)
    for seed in SEEDS
    for attack in (ABSENT, *ATTACKS)
    for method in (("mean",) if attack == ABSENT else ("mean", *ROBUST) if attack == "none" else ROBUST)
]
COLUMNS = ("method", "attack", "seed", "lr", "momentum", *(f"after {steps}" for steps in STEPS))


def train(method: str, attack: str, seed: int) -> dict[str, Any]:
    """Accuracy along a training, in %."""
    torch.set_num_threads(1)
    beta, rule = METHODS[method]
    lr, momentum = chosen_rate(DATA, RANKS_OF_GRID, beta or 1.0)
    found = accuracies(DATA, RANKS, attack, beta, rule, lr, momentum, seed, STEPS)
    return {"lr": lr, "momentum": momentum} | {f"after {n}": each for n, each in zip(STEPS, found, strict=True)}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy along the trainings over the seeds that are complete, and its standard deviation at their end."""
    is_complete = frame.groupby("seed")["seed"].transform("size") == len(RUNS) // len(SEEDS)
    groups = frame[is_complete].groupby(["method", "attack"], sort=False)
    columns = [f"after {steps}" for steps in STEPS]
    found, last = groups[columns].mean(), columns[-1]
    text = found.map("{:.1f}".format)
    text[last] += groups[last].std().map(" ± {:.1f}".format).where(groups.size() > 1, "")
    return text.assign(seeds=groups["seed"].nunique()).reset_index()


def main() -> None:
    arguments = parse_arguments(__doc__, RESULTS)
    if not arguments.report:
        train_missing(RUNS, train, COLUMNS, arguments)
    # "nan" is the name of an attack.
    write(table(pd.read_csv(arguments.output, keep_default_na=False)), "ranks_long", DOCS)


if __name__ == "__main__":
    main()
