"""Which rule and group size to take by default: clean accuracy against plain training, and what corruption costs.

Each row of results/defaults.csv is one training: a data set, a corruption of 30 % of the training samples, a rule with
its group size, a seed. Scores are on clean held-out data: accuracy and balanced accuracy, or R^2.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_wine,
    make_classification,
    make_friedman1,
)
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.aggregators import HuberMean
from skbgmd.corruption import GaussianNoise, corrupt_labels

RESULTS = Path(__file__).resolve().parent / "results" / "defaults.csv"
FRACTION = 0.3
COLUMNS = ("data", "corruption", "rule", "seed", "score", "balanced", "seconds", "epochs")

#: What holds for a rule that doesn't say otherwise.
COMMON = {
    "batch_size": 128,
    "pre_aggregation": None,
    "rejection": None,
    "beta": 0.1,
    "block": "coordinate",
    "huber": None,
}
SQUARED = {"criterion": torch.nn.MSELoss}
#: What the comparison chose for groups of samples; single samples have a comparison of their own (per_sample.py).
FOR_GROUPS = "block with rejection, groups of 32, batches of 256"
#: Plain training to compare it with.
PEER = "plain, batches of 256"
#: A rule by name: parameters of the estimator.
RULES: dict[str, dict[str, Any]] = {
    "plain": {"aggregator": "mean", "group_size": None},
    **{f"block, groups of {size}": {"group_size": size} for size in (4, 8, 16, 32)},
    **{f"median, groups of {size}": {"group_size": size, "aggregator": "geometric_median"} for size in (8, 16)},
    **{
        f"nearest + block, groups of {size}": {"group_size": size, "pre_aggregation": "nearest"} for size in (8, 16, 32)
    },
    "Huber c=1, groups of 8": {"group_size": 8, "aggregator": HuberMean(c=1.0)},
    "Huber c=3, groups of 8": {"group_size": 8, "aggregator": HuberMean(c=3.0)},
    # Two that are known to lose: how much is what small groups, and classes as they come, cost.
    "block, groups of 1": {"group_size": 1},
    "block, groups of 4, classes as they come": {"group_size": 4, "iterator_train__stratify": None},
    PEER: {"aggregator": "mean", "group_size": None, "batch_size": 256},
    "nearest + block, groups of 32, batches of 256": {
        "group_size": 32,
        "pre_aggregation": "nearest",
        "batch_size": 256,
    },
    "block, groups of 32, batches of 256": {"group_size": 32, "batch_size": 256},
    FOR_GROUPS: {"group_size": 32, "batch_size": 256, "rejection": 10.0},
}
#: Rules that take the estimators' loss in regression too, as the default does.
SMOOTH_BY_DEFAULT = ("nearest + block, groups of 32, batches of 256", "block, groups of 32, batches of 256")
#: Rules for regression alone: with a loss that grows linearly.
SMOOTH = {"criterion": torch.nn.SmoothL1Loss}
REGRESSION_RULES: dict[str, dict[str, Any]] = {
    "plain, smooth loss": {**RULES["plain"], **SMOOTH},
    **{f"block, groups of {size}, smooth loss": {"group_size": size, **SMOOTH} for size in (1, 4, 16)},
    "nearest + block, groups of 16, smooth loss": {"group_size": 16, "pre_aggregation": "nearest", **SMOOTH},
}
#: After one seed of all rules the others are run with these.
FINALISTS = (
    "plain",
    PEER,
    "nearest + block, groups of 32, batches of 256",
    "block, groups of 32, batches of 256",
    FOR_GROUPS,
    "block, groups of 16",
    "block, groups of 32",
    "nearest + block, groups of 16",
    "nearest + block, groups of 32",
    "plain, smooth loss",
    "block, groups of 16, smooth loss",
    "nearest + block, groups of 16, smooth loss",
)
DATA = {
    "digits": lambda seed: load_digits(return_X_y=True),
    "breast cancer": lambda seed: load_breast_cancer(return_X_y=True),
    "wine": lambda seed: load_wine(return_X_y=True),
    "imbalanced 9:1": lambda seed: make_classification(
        2000, 20, n_informative=8, weights=[0.9], flip_y=0.0, class_sep=1.0, random_state=seed
    ),
    "diabetes": lambda seed: load_diabetes(return_X_y=True),
    "Friedman 1": lambda seed: make_friedman1(1500, noise=1.0, random_state=seed),
}
REGRESSION = ("diabetes", "Friedman 1")


def trainings(seeds: int, clean_seeds: int) -> Iterator[tuple[str, str, str, int]]:
    """One seed of everything, the finalists with the other seeds, then the default and its plain peer on clean data."""
    for seed in range(seeds):
        for data in DATA:
            rules = RULES | REGRESSION_RULES if data in REGRESSION else RULES
            for corruption in ("none", "features", "outliers in y" if data in REGRESSION else "labels"):
                for rule in rules if seed == 0 else [rule for rule in rules if rule in FINALISTS]:
                    yield data, corruption, rule, seed
    for seed in range(seeds, clean_seeds):
        for data in DATA:
            for rule in (PEER, FOR_GROUPS):
                yield data, "none", rule, seed


def train(data: str, corruption: str, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    X, y = DATA[data](seed)
    stratify = None if data in REGRESSION else y
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=stratify)
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X).astype(np.float32), scaler.transform(X_test).astype(np.float32)
    if corruption == "features":
        X = GaussianNoise(FRACTION, std=10.0, random_state=seed).fit_transform(X)
    elif corruption == "labels":
        y, _ = corrupt_labels(y, fraction=FRACTION, random_state=seed)
    elif corruption == "outliers in y":
        rng = np.random.RandomState(seed)
        wrong = rng.permutation(len(y))[: int(FRACTION * len(y))]
        y = y.copy()
        y[wrong] += 20.0 * y.std() * (1.0 + rng.rand(len(wrong)))
    kind = BlockGMDRegressor if data in REGRESSION else BlockGMDClassifier
    settings = (RULES | REGRESSION_RULES)[rule]
    squared = data in REGRESSION and rule not in (*SMOOTH_BY_DEFAULT, FOR_GROUPS)
    settings = {**COMMON, **(SQUARED if squared else {}), **settings}
    model = kind(max_epochs=epochs, random_state=seed, **settings)
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    balanced = "" if data in REGRESSION else round(balanced_accuracy_score(y_test, model.predict(X_test)), 4)
    score = round(float(model.score(X_test, y_test)), 4)
    return {"score": score, "balanced": balanced, "seconds": round(seconds, 2), "epochs": epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--clean-seeds",
        type=int,
        default=20,
        help="of the default and plain training on clean data",
    )
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="keep the rows there are, measure what is missing")
    arguments = parser.parse_args()
    around, done = environment(), set()
    if arguments.resume and arguments.output.exists():
        with arguments.output.open(newline="") as file:
            done = {(row["data"], row["corruption"], row["rule"], int(row["seed"])) for row in csv.DictReader(file)}
    todo = [training for training in trainings(arguments.seeds, arguments.clean_seeds) if training not in done]
    with arguments.output.open("a" if done else "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        if not done:
            writer.writeheader()
        for training in tqdm(todo):
            row = train(*training, arguments.epochs)
            writer.writerow({**dict(zip(COLUMNS, training, strict=False)), **row, **around})
            file.flush()


if __name__ == "__main__":
    main()
