"""What is far and right: trainings on targets with tails, and on inputs that are mostly small.

Where inputs of a few samples are long and right, or targets have a tail, a strength that distrusts what is far gives
it up. Each row of results/tails.csv is a set, a kind of dirt, a seed and a method, with the score on clean test data in
points, R^2 at least -100 or balanced accuracy, and what was chosen: the strength, the limit of lengths and the limit of
rows. None of the sets or seeds was used to find the rules. Run again it goes on where it was; ``--report`` makes the
table in docs/results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from dirty.data import Data, Split, standardised
from numpy.random import default_rng
from numpy.typing import NDArray
from paper.report import DOCS, write
from resume import add_options, add_report, train_missing
from sklearn.metrics import balanced_accuracy_score, r2_score

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "tails.csv"
COLUMNS = ("data", "dirt", "seed", "method", "score", "strength", "leverage", "rejection")
SEEDS = (830, 831, 832)
#: Settings by name; "limited" leaves out rows that are far, as a strength says where lengths of inputs say nothing.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"group_size": None},
    "mild": {"strength": "mild"},
    "firm": {"strength": "firm"},
    "auto": {},
    "limited": {"rejection": 20.0},
}


def _linear(rng: np.random.Generator, X: NDArray[Any]) -> NDArray[Any]:
    w = rng.normal(size=X.shape[1])
    return X @ (w / np.linalg.norm(w))


def incomes(seed: int) -> Data:
    """Amounts whose noise grows with them."""
    rng = default_rng(seed)
    X = rng.normal(size=(1600, 7))
    return X, np.exp(0.6 * _linear(rng, X) + 0.3 * np.tanh(X[:, 0] * X[:, 1]) + 0.4 * rng.normal(size=1600))


def durations(seed: int) -> Data:
    """Weibull times, shorter than exponential ones."""
    rng = default_rng(seed)
    X = rng.uniform(-1.0, 1.0, size=(1600, 6))
    return X, np.exp(2.0 * X[:, 0] + np.sin(3.0 * X[:, 1])) * rng.weibull(1.3, size=1600)


def claims(seed: int) -> Data:
    """Sums of amounts, of which there are none in most samples."""
    rng = default_rng(seed)
    X = rng.normal(size=(2400, 6))
    number = rng.poisson(0.6 * np.exp(0.8 * _linear(rng, X)))
    return X, np.array([rng.gamma(3.0, 1.0 / 3.0, size=n).sum() for n in number])


def peaks(seed: int) -> Data:
    """A resonance that is ten times as high as the rest."""
    rng = default_rng(seed)
    X = rng.uniform(-1.0, 1.0, size=(1600, 3))
    return X, 1.0 / (0.1 + (X[:, 0] - 0.3 * X[:, 1]) ** 2) + 0.3 * rng.normal(size=1600)


def powers(seed: int) -> Data:
    """The cube of a sum, with tails on both sides."""
    rng = default_rng(seed)
    X = rng.normal(size=(1600, 8))
    return X, _linear(rng, X) ** 3 + 0.3 * rng.normal(size=1600)


def surges(seed: int) -> Data:
    """One sample of 25 is ten times as large, and a feature says so."""
    rng = default_rng(seed)
    X = rng.normal(size=(2400, 6))
    is_surge = (rng.random(2400) < 0.04).astype(float)
    return np.c_[X, is_surge], (1.0 + 9.0 * is_surge) * (1.5 + np.sin(_linear(rng, X))) + 0.1 * rng.normal(size=2400)


def normal(seed: int) -> Data:
    """No tail: what a rule for tails must not cost."""
    rng = default_rng(seed)
    X = rng.normal(size=(1600, 8))
    return X, np.sin(2.0 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.normal(size=1600)


def idle_machine(seed: int) -> Data:
    """Sensors that read next to nothing, but in one sample of ten."""
    rng = default_rng(seed)
    X = 0.03 * rng.normal(size=(1600, 6))
    active = rng.random(1600) < 0.1
    X[active] += rng.normal(size=(int(active.sum()), 6))
    return X, X[:, 0] + X[:, 1] * X[:, 2] + 0.02 * rng.normal(size=1600)


def wide_feature(seed: int) -> Data:
    """One feature that is mostly small, of whose square the target is."""
    rng = default_rng(seed)
    X = rng.normal(size=(1600, 4))
    X[:, 0] *= np.where(rng.random(1600) < 0.12, 5.0, 1.0)
    return X, 0.5 * X[:, 0] ** 2 + X[:, 1] + 0.3 * rng.normal(size=1600)


def amounts(seed: int) -> Data:
    """Features and targets that are amounts."""
    rng = default_rng(seed)
    X = np.exp(0.9 * rng.normal(size=(1600, 5)))
    return X, np.sqrt(X[:, 0] * X[:, 1]) + X[:, 2] + 0.2 * rng.normal(size=1600)


def wide_classes(seed: int) -> Data:
    """Two classes of 6 % around a narrow one, many times as wide."""
    rng = default_rng(seed)
    y = rng.choice(3, size=2000, p=[0.88, 0.06, 0.06])
    X = rng.normal(size=(2000, 5)) * np.where(y > 0, 10.0, 1.0)[:, None]
    X[:, 0] = np.where(y == 1, np.abs(X[:, 0]), np.where(y == 2, -np.abs(X[:, 0]), X[:, 0]))
    return X, y


def idle_classes(seed: int) -> Data:
    """Sensors that read next to nothing, but in one sample of six, whose class is that of their sum."""
    rng = default_rng(seed)
    X = 0.05 * rng.normal(size=(2000, 6))
    active = rng.random(2000) < 1.0 / 6.0
    X[active] += rng.normal(size=(int(active.sum()), 6))
    return X, (X[:, 0] + 0.5 * X[:, 1] > 0.0).astype(int)


NUMBERS: dict[str, Callable[[int], Data]] = {
    "incomes": incomes,
    "durations": durations,
    "claims": claims,
    "peaks": peaks,
    "powers": powers,
    "surges": surges,
    "normal": normal,
    "idle machine": idle_machine,
    "wide feature": wide_feature,
    "amounts": amounts,
}
CLASSES: dict[str, Callable[[int], Data]] = {"wide classes": wide_classes, "idle classes": idle_classes}
KINDS = {
    name: dirt.OF_TARGETS.get(name) or dirt.OF_CLASSES[name]
    for name in (dirt.NONE, "features 30 %", "gross 15 %", "one-sided 30 %", "pair 20 %")
}
OF_NUMBERS, OF_CLASSES = (
    (dirt.NONE, "features 30 %", "gross 15 %", "one-sided 30 %"),
    (dirt.NONE, "features 30 %", "pair 20 %"),
)


@lru_cache(maxsize=1)
def data(name: str, seed: int) -> Split:
    X, y = (NUMBERS.get(name) or CLASSES[name])(seed)
    return standardised(X, y, seed, are_numbers=name in NUMBERS, stratify=None if name in NUMBERS else y)


def train(name: str, kind: str, seed: int, method: str) -> dict[str, Any]:
    """What a row of the results has besides the training that it is of."""
    torch.set_num_threads(1)
    parts, are_numbers = data(name, seed), name in NUMBERS
    X, y, _ = KINDS[kind](parts.X, parts.y, default_rng(seed))
    estimator = BlockGMDRegressor if are_numbers else BlockGMDClassifier
    metric = r2_score if are_numbers else balanced_accuracy_score
    model = estimator(random_state=seed, **METHODS[method]).fit(X, y)
    rule = model.net_.aggregator_.aggregator
    return {
        "score": round(100.0 * max(-1.0, float(metric(parts.y_test, model.predict(parts.X_test)))), 2),
        "strength": model.strength_,
        "leverage": model.leverage_,
        "rejection": getattr(rule, "rejection", None),
    }


def report(output: Path) -> None:
    """Means over the seeds, by set and kind, and the difference of the default to plain training."""
    found = pd.read_csv(output)
    scores = found.pivot_table(index=["data", "dirt"], columns="method", values="score", sort=False)
    scores = scores.reindex(columns=list(METHODS))
    seeds = found.pivot_table(index=["data", "dirt", "seed"], columns="method", values="score", sort=False)
    paired = (seeds["auto"] - seeds["plain"]).groupby(level=[0, 1], sort=False)
    scores["auto - plain"] = [
        f"{mean:+.1f} ± {error:.1f}" for mean, error in zip(paired.mean(), paired.sem(), strict=True)
    ]
    write(scores.round(1).reset_index(), "tails", DOCS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, RESULTS)
    add_report(parser)
    arguments = parser.parse_args()
    if not arguments.report:
        runs = [
            (name, kind, seed, method)
            for seed, of in product(SEEDS, (NUMBERS, CLASSES))
            for kind in (OF_NUMBERS if of is NUMBERS else OF_CLASSES)
            for name in of
            for method in METHODS
        ]
        train_missing(runs, train, COLUMNS, arguments)
    report(arguments.output)


if __name__ == "__main__":
    main()
