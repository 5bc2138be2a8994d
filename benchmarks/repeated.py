"""Clean data with empty, constant, repeated or one-hot samples: the defaults against plain training.

Each row of results/repeated.csv is one set, one rule and one seed: the score on the test samples that are not among the
repeated ones, balanced accuracy of classifiers and R^2 of regressors. A training that fails has no score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from resume import add_options, train_missing
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "repeated.csv"
COLUMNS = ("data", "rule", "seed", "score", "seconds", "epochs")
N = 900
#: The first seed: others were looked at when thresholds were chosen.
SEED = 200
PLAIN = "plain training"
RULES: dict[str, dict[str, Any]] = {
    PLAIN: {"aggregator": "mean"},
    "default": {},
    "beta=0.1": {"beta": 0.1},
    "huber=1": {"huber": 1.0},
}


class Data(NamedTuple):
    """Samples, their targets, and which are not among the repeated ones."""

    X: NDArray[Any]
    y: NDArray[Any]
    other: NDArray[np.bool_]


def empty(rng: Generator, share: float, size: float = 1.0, constant: float = 0.0) -> tuple[Any, Any]:
    """Normal samples, a share of which are one constant."""
    X = size * rng.normal(size=(N, 6))
    other = np.arange(N) >= share * N
    X[~other] = constant
    return X, other


def classes(rng: Generator, share: float, **settings: Any) -> Data:
    X, other = empty(rng, share, **settings)
    return Data(X, (other & (X[:, 0] > 0)).astype(int), other)


def standardised(rng: Generator) -> Data:
    data = classes(rng, 0.6)
    return data._replace(X=StandardScaler().fit_transform(data.X + 7.0))


def both_labels(rng: Generator) -> Data:
    """Empty samples of either class, as a bag of words gives them."""
    data = classes(rng, 0.6)
    return data._replace(y=np.where(data.other, data.y, rng.random(N) < 0.3))


def amounts(rng: Generator) -> Data:
    """Amounts of money, more or less, and a third of the samples without any."""
    X, other = np.exp(5.0 + rng.normal(size=(N, 6))), rng.random(N) >= 0.35
    X[~other] = 0.0
    return Data(X, (other & (X[:, 0] > X[:, 1])).astype(int), other)


def nearly_equal(rng: Generator) -> Data:
    X, other = empty(rng, 0.6)
    X[~other] = 0.03 * rng.normal(size=X[~other].shape)
    return Data(X, (other & (X[:, 0] > 0)).astype(int), other)


def words(rng: Generator) -> tuple[Any, Any]:
    X = rng.poisson(0.15, size=(N, 40)).astype(float)
    X[rng.random(N) < 0.65] = 0.0
    return X, X.any(axis=1)


def bag_of_words(rng: Generator) -> Data:
    X, other = words(rng)
    found = X @ rng.normal(size=40)
    return Data(X, (other & (found > np.median(found[other]))).astype(int), other)


def one_hot(rng: Generator) -> tuple[Any, Any]:
    category = rng.choice(12, N, p=[0.6, *[0.4 / 11] * 11])
    return np.eye(12)[category], category


def categories(rng: Generator) -> Data:
    X, category = one_hot(rng)
    return Data(X, category % 3, category > 0)


def copies(rng: Generator) -> Data:
    """Twenty samples, each many times, and one of them more than all others."""
    kinds = rng.normal(size=(20, 5))
    kind = rng.choice(20, N, p=[0.55, *[0.45 / 19] * 19])
    return Data(kinds[kind], (kinds[kind, 0] > 0).astype(int), kind > 0)


def one_class(rng: Generator) -> Data:
    """All samples of one of three classes are one and the same."""
    X, other = empty(rng, 2 / 3)
    X[~other] = rng.normal(size=6)
    return Data(X, np.where(other, X[:, 0] > 0, 2), other)


def constant_columns(rng: Generator) -> Data:
    X = np.hstack([rng.normal(size=(N, 3)), np.full((N, 5), 7.0)])
    return Data(X, (X[:, 0] * X[:, 1] > 0).astype(int), np.ones(N, dtype=bool))


def not_scaled(rng: Generator) -> Data:
    """Columns from 0.001 to 4,000: half of the samples are right by chance to begin with, without a gradient."""
    X, y = load_breast_cancer(return_X_y=True)
    chosen = rng.permutation(len(X))
    return Data(X[chosen], y[chosen], np.ones(len(X), dtype=bool))


def linear(rng: Generator, share: float, **settings: Any) -> Data:
    X, other = empty(rng, share, **settings)
    return Data(X, X @ rng.normal(size=6), other)


def two_targets(rng: Generator) -> Data:
    """Empty samples with one of two targets."""
    data = linear(rng, 0.6)
    return data._replace(y=np.where(data.other, data.y, rng.random(N) < 0.4))


def counted(rng: Generator) -> Data:
    X, other = words(rng)
    return Data(X, X @ rng.normal(size=40), other)


def means(rng: Generator) -> Data:
    X, category = one_hot(rng)
    return Data(X, 3.0 * rng.normal(size=12)[category], category > 0)


def zero_inflated(rng: Generator) -> Data:
    X = rng.normal(size=(N, 6))
    y = 3.0 * np.maximum(X[:, 0] + X[:, 1] - 0.35, 0.0)
    return Data(X, y, y > 0)


CLASSES: dict[str, Callable[[Generator], Data]] = {
    "60 % empty": lambda rng: classes(rng, 0.6),
    "60 % empty, standardised": standardised,
    "60 % empty, others 30 times as large": lambda rng: classes(rng, 0.6, size=30.0),
    "45 % empty, others 10 times as large": lambda rng: classes(rng, 0.45, size=10.0),
    "60 % empty, of both classes": both_labels,
    "90 % empty": lambda rng: classes(rng, 0.9),
    "30 % empty, others 1000 times as large": lambda rng: classes(rng, 0.3, size=1000.0),
    "50 % empty, others 100 times as large": lambda rng: classes(rng, 0.5, size=100.0),
    "amounts, 35 % empty": amounts,
    "60 % constant": lambda rng: classes(rng, 0.6, constant=3.0),
    "60 % nearly equal": nearly_equal,
    "bag of words, 65 % empty": bag_of_words,
    "one-hot": categories,
    "copies": copies,
    "a class of copies": one_class,
    "constant columns": constant_columns,
    "breast cancer, not scaled": not_scaled,
}
TARGETS: dict[str, Callable[[Generator], Data]] = {
    "regression, 60 % empty": lambda rng: linear(rng, 0.6),
    "regression, 20 % empty": lambda rng: linear(rng, 0.2),
    "regression, 60 % constant": lambda rng: linear(rng, 0.6, constant=2.0),
    "regression, empty with two targets": two_targets,
    "regression, bag of words": counted,
    "regression, one-hot": means,
    "regression, zero-inflated targets": zero_inflated,
}


def train(name: str, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train on two thirds of a set; score on the rest."""
    data = ({**CLASSES, **TARGETS})[name](np.random.default_rng(seed))
    kind: Any = BlockGMDClassifier if name in CLASSES else BlockGMDRegressor
    metric = balanced_accuracy_score if name in CLASSES else r2_score
    tested = np.arange(len(data.X)) % 3 == 0
    start, score = time.perf_counter(), np.nan
    try:
        model = kind(max_epochs=epochs, random_state=seed, **RULES[rule]).fit(data.X[~tested], data.y[~tested])
        some = tested & data.other
        score = metric(data.y[some], model.predict(data.X[some]))
    except ValueError as error:
        print(f"{name}, {rule}, seed {seed}: {error}")
    return {"score": round(float(score), 5), "seconds": round(time.perf_counter() - start, 2), "epochs": epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, RESULTS)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    arguments = parser.parse_args()
    names = [*CLASSES, *TARGETS]
    seeds = range(SEED, SEED + arguments.seeds)
    runs = [(name, rule, seed) for seed in seeds for name in names for rule in arguments.rules]
    train_missing(runs, train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
