"""By which scores of held-out samples the regressor's strength is chosen: choices on sets that are in no other table.

Each row of results/scores_of_numbers.csv is a set, a kind of dirt and a seed, with the choice by absolute errors alone,
with the criterion beside them, with squares clipped at three median deviations beside them, and as the estimator makes
it. R^2 of "mild" and "firm" on clean test data is there where choices differ, and on clean data where any is "firm".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dirty import dirt
from dirty.data import standardised
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from resume import add_options, train_missing
from sklearn.datasets import make_friedman1, make_friedman2, make_friedman3, make_regression, make_s_curve

from skbgmd import BlockGMDRegressor
from skbgmd.training._strength import choice
from skbgmd.training._strength.evidence import choose, error_scores

RESULTS = Path(__file__).resolve().parent / "results" / "scores_of_numbers.csv"
SCORES = ("absolute", "and criterion", "and squares", "estimator")
COLUMNS = ("data", "dirt", "seed", *SCORES, "mild", "firm")
Data = tuple[NDArray[Any], NDArray[Any]]


def _normal(seed: int, n: int, d: int) -> tuple[Generator, NDArray[Any]]:
    rng = default_rng(seed)
    return rng, rng.normal(size=(n, d))


def _uniform(seed: int, d: int) -> tuple[Generator, NDArray[Any]]:
    rng = default_rng(seed)
    return rng, rng.uniform(-1, 1, size=(1500, d))


def _linear(rng: Generator, X: NDArray[Any]) -> NDArray[Any]:
    w = rng.normal(size=X.shape[1])
    return X @ (w / np.linalg.norm(w))


def laplace(seed: int) -> Data:
    rng, X = _normal(seed, 1200, 9)
    return X, _linear(rng, X) + X[:, 0] * X[:, 1] + 0.5 * rng.laplace(size=1200)


def contrary(seed: int) -> Data:
    """A subgroup of 6 % with a slope of its own."""
    rng, X = _normal(seed, 2500, 15)
    marked = rng.random(2500) < 0.06
    X[marked, :2] += 4
    return X, np.where(marked, -2, 1) * X[:, 5] + X[:, 6] + 0.1 * rng.normal(size=2500)


def wave(seed: int) -> Data:
    rng, X = _normal(seed, 1500, 6)
    return X, np.sin(3 * _linear(rng, X))


def lognormal(seed: int) -> Data:
    rng, X = _normal(seed, 3000, 12)
    return X, np.exp(0.8 * _linear(rng, X) + 0.1 * rng.normal(size=3000))


def negative_binomial(seed: int) -> Data:
    rng, X = _normal(seed, 1500, 8)
    mean = np.exp(0.8 * _linear(rng, X) + 1)
    return X, rng.poisson(mean * rng.gamma(3.0, 1 / 3.0, size=1500)).astype(float)


def checkerboard(seed: int) -> Data:
    rng, X = _uniform(seed, 4)
    return X, np.sin(3 * X[:, 0]) * np.sin(3 * X[:, 1]) + 0.05 * rng.normal(size=1500)


def bump(seed: int) -> Data:
    rng, X = _uniform(seed, 3)
    return X, 5 * np.exp(-8 * (X**2).sum(1)) + X[:, 0] + 0.05 * rng.normal(size=1500)


def hinge(seed: int) -> Data:
    rng, X = _normal(seed, 1000, 10)
    return X, 4 * np.maximum(X[:, 0] - 1, 0) + X[:, 1] + 0.3 * rng.normal(size=1000)


def zero_inflated(seed: int) -> Data:
    rng, X = _normal(seed, 1800, 9)
    z = _linear(rng, X)
    return X, np.where(z > 0.1, np.expm1(z), 0.0)


def soft_threshold(seed: int) -> Data:
    _, X = _normal(seed, 1500, 8)
    z = 2 * X[:, 0] + X[:, 1]
    return X, np.sign(z) * np.maximum(np.abs(z) - 1.8, 0)


def rounded(seed: int) -> Data:
    rng, X = _normal(seed, 1200, 8)
    return X, np.round(1.2 * _linear(rng, X) + 0.3 * rng.normal(size=1200))


CONTINUOUS: dict[str, Callable[[int], Data]] = {
    "regression sparse": lambda seed: make_regression(500, 15, n_informative=3, noise=10.0, random_state=seed),
    "friedman2 small": lambda seed: make_friedman2(300, noise=20.0, random_state=seed),
    "friedman3 low noise": lambda seed: make_friedman3(700, noise=0.05, random_state=seed),
    "laplace": laplace,
    "contrary 6%": contrary,
    "ushape": wave,
    "lognormal .8": lognormal,
    "negative binomial": negative_binomial,
    "checkerboard": checkerboard,
    "bump": bump,
    "hinge": hinge,
    "s-curve": lambda seed: make_s_curve(600, noise=0.1, random_state=seed),
    "small 150": lambda seed: make_friedman1(150, n_features=6, noise=0.5, random_state=seed),
}
DISCRETE: dict[str, Callable[[int], Data]] = {
    "zero-inflated exp": zero_inflated,
    "soft threshold": soft_threshold,
    "rounded": rounded,
}


def moderate(X: NDArray[Any], y: NDArray[Any], rng: Generator) -> dirt.Dirty:
    """A fifth of the targets 5 to 10 standard deviations off, all on one side."""
    wrong = rng.permutation(len(y))[: round(0.2 * len(y))]
    y, corrupted = y.copy(), np.zeros(len(y), dtype=bool)
    y[wrong] += 5.0 * (1.0 + rng.random(len(wrong)))
    corrupted[wrong] = True
    return dirt.Dirty(X, y, corrupted)


KINDS = {**dirt.OF_TARGETS, "5 sd one-sided 20 %": moderate}
ON_DIRT = ("gross 15 %", "gross 30 %", "one-sided 30 %", "5 sd one-sided 20 %")


def cases() -> list[tuple[str, str, int]]:
    """Sets, kinds of dirt and seeds."""
    return [
        *product(CONTINUOUS, (dirt.NONE,), (900, 901, 902)),
        *product(CONTINUOUS, ON_DIRT, (900,)),
        *product(DISCRETE, (dirt.NONE, "gross 30 %", "one-sided 30 %"), (950, 951)),
    ]


class _ChoiceMade(Exception):
    """Ends a fit once its candidates are trained."""


def utilities(name: str, residuals: dict[str, NDArray[Any]], y: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    """Scores of held-out samples by the residuals (n, 1) of the candidates."""
    absolute, squared = error_scores(residuals, y)
    if name == "estimator":
        return [absolute, squared]
    deviations = np.abs(y - np.median(y))
    unit = np.median(deviations[deviations > 0.0]) / 0.6745
    sizes = {key: np.abs(each[:, 0]) / unit for key, each in residuals.items()}
    smooth = {key: -np.where(each < 1.0, 0.5 * each**2, each - 0.5) for key, each in sizes.items()}
    clipped = {key: -(np.minimum(each, 3.0) ** 2) for key, each in sizes.items()}
    return {"absolute": [absolute], "and criterion": [absolute, smooth], "and squares": [absolute, clipped]}[name]


def choices(X: NDArray[Any], y: NDArray[Any], seed: int, epochs: int) -> dict[str, str]:
    """Choices by all scores, of the same candidates, trained to the end."""
    held: dict[str, Any] = {}

    def record(names: list[str], predict: Any, _: Any, strata: Any, weight: Any, *, epochs: int, **__: Any) -> Any:
        first = -(-epochs // 3)
        held["stages"] = [{name: predict(name, more) for name in names} for more in (first, epochs - first)]
        raise _ChoiceMade

    def remember(*given: Any) -> NDArray[np.bool_]:
        held["mask"] = hold_out(*given)
        return held["mask"]

    hold_out, choice.hold_out, choice.choose = choice.hold_out, remember, record
    try:
        BlockGMDRegressor(max_epochs=epochs, random_state=seed).fit(X, y)
    except _ChoiceMade:
        pass
    finally:
        choice.hold_out, choice.choose = hold_out, choose
    targets = y[held["mask"]][:, None]
    found = {}
    for name in SCORES:
        stages = {key: [stage[key] for stage in held["stages"]] for key in ("mild", "firm")}
        found[name] = choose(
            list(stages),
            lambda key, _, stages=stages: stages[key].pop(0),
            lambda known, name=name: utilities(
                name, {key: each.reshape(-1, 1) - targets for key, each in known.items()}, targets
            ),
            np.zeros(len(targets), dtype=np.intp),
            np.ones(len(targets)),
            epochs=epochs,
        )[0]
    return found


def row(name: str, kind: str, seed: int, epochs: int) -> dict[str, Any]:
    """A row of the results."""
    X, y = (CONTINUOUS | DISCRETE)[name](seed)
    X, y, X_test, y_test = standardised(X, y, seed, are_numbers=True)
    X, y, _ = KINDS[kind](X, y, default_rng(seed))
    found: dict[str, Any] = choices(X, y, seed, epochs)
    chosen = {found[score] for score in SCORES}
    if len(chosen) > 1 or (kind == dirt.NONE and chosen != {"mild"}):
        for strength in ("mild", "firm"):
            model = BlockGMDRegressor(max_epochs=epochs, random_state=seed, strength=strength).fit(X, y)
            found[strength] = round(float(model.score(X_test, y_test)), 5)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=[*CONTINUOUS, *DISCRETE])
    parser.add_argument("--epochs", type=int, default=100)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing([case for case in cases() if case[0] in arguments.data], row, COLUMNS, arguments)


if __name__ == "__main__":
    main()
