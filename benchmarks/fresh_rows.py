"""Rows without identity: accuracy on clean data where other rows of each step collude, by group size.

An MLP on scikit-learn's digits, drawn with replacement, by 160 steps of SGD with momentum; 40 % of the rows of each
step, rounded down, are corrupt. Two group sizes make an equal batch, the third has as many rows as the first. Every
training is a row of results/fresh_rows.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resume import add_options, seconds_to_fit, train_missing
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import GeometricMedian, Mean, NearestNeighborMixing, SpectralFilter
from skbgmd.aggregators.adaptive_clipping import clipped_spectral_filter
from skbgmd.corruption import GRADIENT_CORRUPTIONS

RESULTS = Path(__file__).resolve().parent / "results" / "fresh_rows.csv"
COLUMNS = ("attack", "group_size", "groups", "rule", "seed", "accuracy", "noise_to_signal", "seconds", "remark")
NO_ATTACK = "none"
ATTACKS = (
    NO_ATTACK,
    "a_little_is_enough",
    "inner_product",
    "simplex",
    "searched_a_little_is_enough",
    "searched_inner_product",
    "sign_flip",
    "mimic",
    "min_max",
    "label_flip",
    "bit_flip",
)
#: Samples in a group, and groups in a batch.
SIZES = ((8, 34), (27, 10), (128, 34))
#: Rules by name; those that must be told how many rows lie are told 40 %.
RULES: dict[str, Any] = {
    "clipped spectral filter": clipped_spectral_filter(),
    "mixing, geometric median": NearestNeighborMixing(GeometricMedian()),
    "spectral filter": SpectralFilter(0.4),
    "mean": Mean(),
}


def samples(size: int, groups: int, seed: int) -> tuple[Any, ...]:
    """Samples to train on, to test on, and their labels."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype(np.float32)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    batch = size * groups
    # Whole batches: about as many samples of each size, one large batch or some small ones.
    drawn = np.random.default_rng(seed).integers(len(X), size=max(1, 4352 // batch) * batch)
    return X[drawn], X_test, y[drawn], y_test


def classifier(size: int, groups: int, n_samples: int, steps: int, **settings: Any) -> BlockGMDClassifier:
    """Perceptron that takes so many steps."""
    batch = size * groups
    fixed = {
        "hidden_layer_sizes": (100,),
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "lr": 0.1,
        "batch_size": batch,
        "group_size": size,
        "max_epochs": steps * batch // n_samples,
    }
    return BlockGMDClassifier(**{**fixed, **settings})


def train(attack: str, size: int, groups: int, rule: str, seed: int, steps: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = samples(size, groups, seed)
    corruption = None if attack == NO_ATTACK else GRADIENT_CORRUPTIONS[attack](fraction=0.4)
    model = classifier(
        size, groups, len(X), steps, aggregator=RULES[rule], gradient_corruption=corruption, random_state=seed
    )
    seconds = seconds_to_fit(model, X, y)
    if seconds is None:
        return {"remark": "diverged"}
    found = {"accuracy": round(100.0 * float(model.score(X_test, y_test)), 2)}
    ratios = [epoch["noise_to_signal"] for epoch in model.history_ if "noise_to_signal" in epoch]
    if ratios:
        found["noise_to_signal"] = round(float(np.median(ratios)), 3)
    return {**found, "seconds": seconds}


def trainings(attacks: list[str], rules: list[str], seeds: int) -> Iterator[tuple[str, int, int, str, int]]:
    for seed in range(seeds):
        for attack in attacks:
            for size, groups in SIZES:
                for rule in rules:
                    yield attack, size, groups, rule, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attacks", help="those whose names match a regular expression", default="")
    parser.add_argument("--rules", help="those whose names match a regular expression", default="")
    parser.add_argument("--epochs", type=int, default=160, metavar="STEPS", help="steps of a training")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    attacks = [attack for attack in ATTACKS if re.search(arguments.attacks, attack)]
    rules = [rule for rule in RULES if re.search(arguments.rules, rule)]
    train_missing(trainings(attacks, rules, arguments.seeds), train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
