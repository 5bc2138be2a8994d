"""Attacks on gradients against rules: accuracy on clean data after a training in which some rows of each step lie.

An MLP on scikit-learn's digits by SGD with momentum, some 34 rows of 8 samples a step, or a row for each sample. Every
training is a row of results/attacks.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from digits import digits
from resume import add_options, seconds_to_fit, train_missing

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import (
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    HuberMean,
    Krum,
    Mean,
    NearestNeighborMixing,
    NormFilter,
    SpectralFilter,
    TrimmedMean,
)
from skbgmd.corruption import GRADIENT_CORRUPTIONS

RESULTS = Path(__file__).resolve().parent / "results" / "attacks.csv"
COLUMNS = ("attack", "percent", "rule", "seed", "accuracy", "seconds", "remark")
PERCENT = (20, 40)
NO_ATTACK = "none"
#: Rules by name; those that must be told how many rows lie are told 40 %.
RULES: dict[str, Any] = {
    "mean": Mean(),
    "BGMD as published": BlockGeometricMedian.published(random_state=0),
    "geometric median": GeometricMedian(),
    "block median, beta=0.1": BlockGeometricMedian(0.1),
    "block median, rejection": BlockGeometricMedian(0.1, GeometricMedian(rejection=10.0)),
    "mixing, geometric median": NearestNeighborMixing(GeometricMedian()),
    "mixing, block median": NearestNeighborMixing(BlockGeometricMedian(0.1)),
    "Huber mean": HuberMean(),
    "coordinate-wise median": CoordinatewiseMedian(),
    "trimmed mean": TrimmedMean(0.4),
    "Krum": Krum(0.4),
    "multi-Krum": Krum(0.4, n_selected=16),
    "norm filter": NormFilter(0.4),
    "spectral filter": SpectralFilter(0.4),
    "steady Huber c=2, single samples": HuberMean(2.0, rejection=10.0, remember=True, tol=1e-4),
}
#: Rules with a row for each sample, of which some lie; other rows are of eight samples.
SINGLE = ("steady Huber c=2, single samples",)


def train(attack: str, percent: int, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = digits(seed)
    model = BlockGMDClassifier(
        hidden_layer_sizes=(100,),
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.1,
        batch_size=256,
        group_size=1 if rule in SINGLE else 8,
        aggregator=RULES[rule],
        gradient_corruption=None if attack == NO_ATTACK else GRADIENT_CORRUPTIONS[attack](fraction=percent / 100),
        max_epochs=epochs,
        random_state=seed,
    )
    seconds = seconds_to_fit(model, X, y)
    if seconds is None:
        return {"remark": "diverged"}
    accuracy = round(100.0 * float(model.score(X_test, y_test)), 2)
    return {"accuracy": accuracy, "seconds": seconds}


def trainings(seeds: int) -> Iterator[tuple[str, int, str, int]]:
    for seed in range(seeds):
        for rule in RULES:
            yield NO_ATTACK, 0, rule, seed
            for attack in GRADIENT_CORRUPTIONS:
                for percent in PERCENT:
                    yield attack, percent, rule, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing(trainings(arguments.seeds), train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
