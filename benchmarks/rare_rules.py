"""Rules that hold for few samples, told by their inputs: the regressor's default beside plain training, by R^2.

Their targets are far from the others, as gross ones are, and a third of the samples is too few for a network to predict
them: held-out samples chose "firm", which gives them up. "unasked" is that choice, without the forest that is asked
which targets are far, see ``skbgmd/training/_data/far_targets.py``. The threshold was set by a switch on seeds 0 to
3; the sets and seeds here are others.

Each row of results/rare_rules.csv is a set, a number of samples, a kind of dirt, a seed and a method, with the score on
clean test data in points. Run again it goes on where it was; ``--report`` makes the table in docs/results.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from paper.report import DOCS, write
from resume import parse_arguments, train_missing
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "rare_rules.csv"
COLUMNS = ("data", "samples", "dirt", "seed", "method", "score", "strength")
SEEDS, SAMPLES, TESTED = (910, 911, 912), (500, 1000), 2000
KINDS = (dirt.NONE, "gross 15 %", "one-sided 15 %", "features and targets 20 %")
PLAIN, UNASKED, AUTO = "plain", "unasked", "auto"

Data = tuple[NDArray[np.float64], NDArray[np.float64]]


class Unasked(BlockGMDRegressor):
    """The choice by held-out samples alone."""

    def _objects(self, *of_samples: Any, **of_held_out: Any) -> bool:
        return False


METHODS: dict[str, Callable[[int], BlockGMDRegressor]] = {
    PLAIN: lambda seed: BlockGMDRegressor(aggregator="mean", group_size=None, random_state=seed),
    UNASKED: lambda seed: Unasked(random_state=seed),
    AUTO: lambda seed: BlockGMDRegressor(random_state=seed),
}


def switch(rng: Generator, n: int) -> Data:
    """A feature that is mostly off, and turns another one up."""
    X = rng.normal(size=(n, 6))
    X[:, 0] = rng.random(n) < 0.04
    return X, X[:, 1] + 25.0 * X[:, 0] * X[:, 2]


def two_switches(rng: Generator, n: int) -> Data:
    X = rng.normal(size=(n, 8))
    X[:, :2] = rng.random((n, 2)) < 0.03
    return X, X[:, 2] + 12.0 * X[:, 0] - 20.0 * X[:, 1] * X[:, 3]


def saturation(rng: Generator, n: int) -> Data:
    """Beyond a limit of one feature a steep line."""
    X = rng.normal(size=(n, 5))
    return X, X[:, 1] + 30.0 * np.maximum(X[:, 0] - 1.6, 0.0)


def corner(rng: Generator, n: int) -> Data:
    """A corner of two features, in which targets jump."""
    X = rng.uniform(size=(n, 4))
    return X, X[:, 2] + 8.0 * ((X[:, 0] > 0.8) & (X[:, 1] > 0.75))


def one_of_twenty(rng: Generator, n: int) -> Data:
    """Machines as ones of twenty columns, one of which has another unit."""
    machine, X = rng.integers(20, size=n), rng.normal(size=(n, 3))
    return np.hstack([X, np.eye(20)[machine]]), (X[:, 0] + 0.3 * X[:, 1]) * np.where(machine == 7, 30.0, 1.0)


SETS = {
    "switch": switch,
    "two switches": two_switches,
    "saturation": saturation,
    "corner": corner,
    "one of twenty machines": one_of_twenty,
}


def train(name: str, samples: int, kind: str, seed: int, method: str) -> dict[str, Any]:
    """What a row of the results has besides the training that it is of."""
    torch.set_num_threads(1)
    X, y = SETS[name](default_rng(seed), samples + TESTED)
    X = StandardScaler().fit(X[:samples]).transform(X)
    dirty_X, dirty_y, _ = dirt.OF_TARGETS[kind](X[:samples], y[:samples], default_rng(seed))
    model = METHODS[method](seed).fit(dirty_X.astype(np.float32), dirty_y)
    score = r2_score(y[samples:], model.predict(X[samples:].astype(np.float32)))
    return {"score": round(100.0 * float(score), 2), "strength": model.strength_}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means of the seeds by set and kind of dirt, and how often the default is "firm"."""
    means = frame.pivot_table(index=["dirt", "data"], columns="method", values="score", sort=False)
    firm = frame.assign(firm=frame["strength"] == "firm").pivot_table(
        index=["dirt", "data"], columns="method", values="firm", aggfunc="sum", sort=False
    )
    found = means[list(METHODS)].map("{:.1f}".format)
    for method in (UNASKED, AUTO):
        found[f"{method}, firm"] = firm[method].astype(int)
    return found.reset_index()


def main() -> None:
    arguments = parse_arguments(__doc__, RESULTS)
    if not arguments.report:
        runs = list(product(SETS, SAMPLES, KINDS, SEEDS, METHODS))
        train_missing(runs, train, COLUMNS, arguments)
    write(table(pd.read_csv(arguments.output)), "rare_rules", DOCS)


if __name__ == "__main__":
    main()
