"""Robust training sample by sample: what each rule costs on clean data, and what it withstands.

Each row of results/per_sample.csv is one training: a data set, a corruption of 30 % of the training samples, a rule, a
seed. Scores are balanced accuracies on clean held-out data. Run again it goes on where it was. What the default costs
was looked at with more seeds (results/per_sample_paired.csv):

    python per_sample.py --seeds 20 --corruptions none --rules plain "steady Huber c=2, samples" \
        --data "breast cancer" wine iris moons quantiles "imbalanced 9:1" --output results/per_sample_paired.csv
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resume import add_options, train_missing
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_gaussian_quantiles,
    make_moons,
)
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import BlockGeometricMedian, HuberMean, NearestNeighborMixing
from skbgmd.corruption import GaussianNoise, corrupt_labels
from skbgmd.inspection.datasets import load_fashion_mnist

RESULTS = Path(__file__).resolve().parent / "results" / "per_sample.csv"
FRACTION = 0.3
COLUMNS = ("data", "corruption", "rule", "seed", "balanced", "seconds", "epochs")


SINGLE = {"group_size": 1}
PLAIN = "plain"


def _steady(beta: float, huber: float) -> dict[str, Any]:
    return {
        **SINGLE,
        "aggregator": BlockGeometricMedian(
            beta, HuberMean(huber, rejection=10.0, remember=True, tol=1e-4), block="unit"
        ),
    }


#: A rule by name: parameters of the estimator, said in full, so that they don't change with its defaults.
GROUPS = {"block": "unit", "rejection": 10.0, "huber": None}
RULES: dict[str, dict[str, Any]] = {
    PLAIN: {"aggregator": "mean", "group_size": None},
    "block, groups of 32": {"group_size": 32, **GROUPS},
    "block, groups of 4": {"group_size": 4, **GROUPS},
    "median of samples": {**SINGLE, "aggregator": "geometric_median"},
    "Huber c=1, samples": {**SINGLE, "aggregator": HuberMean(1.0, tol=1e-4)},
    "Huber c=3, groups of 4": {"group_size": 4, "aggregator": HuberMean(3.0, tol=1e-4)},
    "steady Huber c=1, samples": _steady(1.0, 1.0),
    "steady Huber c=2, samples": _steady(1.0, 2.0),
    "steady Huber c=1, block of samples": _steady(0.1, 1.0),
    "steady Huber c=2, block of samples": _steady(0.1, 2.0),
    "block, groups of 16": {"group_size": 16, **GROUPS},
    "block, groups of 8": {"group_size": 8, **GROUPS},
    "nearest neighbours, samples": {**SINGLE, "aggregator": NearestNeighborMixing()},
}
#: Rules that are run with one seed.
ONCE = ("block, groups of 16", "block, groups of 8", "nearest neighbours, samples")


def _rare(seed: int) -> tuple[Any, Any]:
    """Digits of which five are five times as rare."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(seed)
    kept = (y < 5) | (rng.rand(len(y)) < 0.2)
    return X[kept], y[kept]


def _images(seed: int) -> tuple[Any, Any]:
    X, y, _, _ = load_fashion_mnist()
    some = np.random.RandomState(seed).permutation(len(X))[:5000]
    return np.asarray(X[some], dtype=np.float32).reshape(len(some), -1), np.asarray(y[some])


DATA: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "digits": lambda seed: load_digits(return_X_y=True),
    "breast cancer": lambda seed: load_breast_cancer(return_X_y=True),
    "wine": lambda seed: load_wine(return_X_y=True),
    "iris": lambda seed: load_iris(return_X_y=True),
    "moons": lambda seed: make_moons(1500, noise=0.25, random_state=seed),
    "quantiles": lambda seed: make_gaussian_quantiles(n_samples=1500, n_features=5, n_classes=3, random_state=seed),
    "five classes": lambda seed: make_classification(
        2000, 20, n_informative=10, n_classes=5, flip_y=0.0, class_sep=1.5, random_state=seed
    ),
    "imbalanced 9:1": lambda seed: make_classification(
        2000, 20, n_informative=8, weights=[0.9], flip_y=0.0, class_sep=1.0, random_state=seed
    ),
    "digits, five rare": _rare,
    "Fashion-MNIST": _images,
}
CORRUPTIONS = ("none", "features", "labels", "backdoor")


def train(data: str, corruption: str, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    X, y = DATA[data](seed)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X).astype(np.float32), scaler.transform(X_test).astype(np.float32)
    if corruption == "features":
        X = GaussianNoise(FRACTION, std=10.0, random_state=seed).fit_transform(X)
    elif corruption == "labels":
        y, _ = corrupt_labels(y, fraction=FRACTION, random_state=seed)
    elif corruption == "backdoor":
        y, _ = corrupt_labels(y, fraction=FRACTION, kind="backdoor", target=y.max(), random_state=seed)
    model = BlockGMDClassifier(max_epochs=epochs, random_state=seed, **RULES[rule])
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    balanced = balanced_accuracy_score(y_test, model.predict(X_test))
    return {"balanced": round(balanced, 4), "seconds": round(seconds, 2), "epochs": epochs}


def trainings(seeds: int) -> Iterator[tuple[str, str, str, int]]:
    for seed in range(seeds):
        for corruption in CORRUPTIONS:
            for data in DATA:
                for rule in RULES:
                    if rule not in ONCE:
                        yield data, corruption, rule, seed
    for corruption in CORRUPTIONS:
        for data in DATA:
            for rule in ONCE:
                yield data, corruption, rule, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=50)
    add_options(parser, RESULTS)
    for name, known in (("data", DATA), ("corruptions", CORRUPTIONS), ("rules", RULES)):
        parser.add_argument(f"--{name}", nargs="+", choices=list(known), default=list(known), help="only these")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = (arguments.data, arguments.corruptions, arguments.rules)
    asked = [run for run in trainings(arguments.seeds) if all(map(list.__contains__, wanted, run))]
    train_missing(asked, train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
