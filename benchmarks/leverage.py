"""From which length on samples weigh less by their inputs: trainings by "mild" with ``leverage`` 2, 3, 5 and without.

**The rule**, written down before any of these trainings: a value may be the default if it is on no clean set more than
0.5 points of balanced accuracy, or of R^2, behind training without it, in the mean of the seeds; of those that may be,
the one with the best mean over the dirt. That was 3. "auto", which is 3 unless long samples are predicted, came
afterwards, for data of which most samples are nearly the same, and is measured with the same seeds. Sets are those of
``dirty`` but for images, and six with long tails among their features, where inputs are long and right; none of the
seeds is in another table, and none of the six was looked at before.

Each row of results/leverage.csv is a set, a kind of dirt, a seed and a value, with the score on clean test data in
points, R^2 at least -100, and the shares of the corrupt and of the other samples that weigh less. Run again it goes on
where it was; ``--report`` makes the table in docs/results.
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
from dirty.data import CLASSES, IMAGES, TARGETS, Data, Split, split, standardised
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from paper.report import DOCS, write
from resume import add_options, add_report, train_missing
from sklearn.metrics import balanced_accuracy_score, r2_score

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.training._data.leverage import leverage_weights

RESULTS = Path(__file__).resolve().parent / "results" / "leverage.csv"
COLUMNS = ("data", "dirt", "seed", "leverage", "score", "corrupt that weigh less", "others that weigh less")
VALUES = ("none", "2", "3", "5", "auto")
SEEDS = (520, 521)
ALLOWED = 0.5


def pareto(seed: int) -> Data:
    """Features whose squares have no mean, and a rule that is linear in them."""
    rng = default_rng(seed)
    X = rng.pareto(2.2, size=(2000, 6))
    return X, X @ rng.normal(size=6) + 0.2 * rng.normal(size=2000)


def exponential(seed: int) -> Data:
    rng = default_rng(seed)
    X = rng.exponential(size=(2000, 8))
    return X, X[:, 0] * X[:, 1] + np.sqrt(X[:, 2]) + 0.2 * rng.normal(size=2000)


def scales_by_sample(seed: int) -> Data:
    """Samples that are all of another scale, which matters to the target."""
    rng = default_rng(seed)
    scale = np.exp(0.8 * rng.normal(size=2000))
    X = rng.normal(size=(2000, 8)) * scale[:, None]
    return X, np.log(scale) + 0.3 * X[:, 0] / scale + 0.1 * rng.normal(size=2000)


def far_classes(seed: int) -> Data:
    """Ten classes, three of which lie far off."""
    rng = default_rng(seed)
    y = rng.integers(10, size=3000)
    centers = 1.5 * rng.normal(size=(10, 8))
    centers[:3] *= 12.0
    return centers[y] + rng.normal(size=(3000, 8)), y


def amounts(seed: int) -> Data:
    """Amounts of money, of which the large ones decide."""
    rng = default_rng(seed)
    X = np.exp(1.2 * rng.normal(size=(3000, 6)))
    return X, (X[:, 0] + X[:, 1] > 2.0 * X[:, 2] + 2.0).astype(int)


def rare_counts(seed: int) -> Data:
    """Counts that are mostly zero, of very different frequencies."""
    rng = default_rng(seed)
    X = rng.poisson(np.geomspace(0.01, 3.0, 30), size=(3000, 30)).astype(float)
    found = X @ (rng.normal(size=30) / np.sqrt(np.geomspace(0.01, 3.0, 30)))
    return X, (found > np.median(found)).astype(int)


LONG_NUMBERS: dict[str, Callable[[int], Data]] = {
    "Pareto features": pareto,
    "exponential features": exponential,
    "scales by sample": scales_by_sample,
}
LONG_CLASSES: dict[str, Callable[[int], Data]] = {
    "far classes": far_classes,
    "amounts": amounts,
    "rare counts": rare_counts,
}
NAMES = [*(name for name in CLASSES if name != IMAGES), *LONG_CLASSES, *TARGETS, *LONG_NUMBERS]


def one_feature(X: NDArray[Any], y: NDArray[Any], rng: Generator) -> dirt.Dirty:
    """Of 30 % of the samples one feature each is 30 standard deviations off."""
    wrong = rng.permutation(len(y))[: round(0.3 * len(y))]
    X, corrupted = X.copy(), np.zeros(len(y), dtype=bool)
    X[wrong, rng.integers(X.shape[1], size=len(wrong))] += 30.0 * rng.choice((-1.0, 1.0), size=len(wrong))
    corrupted[wrong] = True
    return dirt.Dirty(X, y, corrupted)


KINDS: dict[str, dirt.Kind] = {
    dirt.NONE: dirt.none,
    "features 30 %": dirt.OF_TARGETS["features 30 %"],
    "one feature 30 %": one_feature,
}


@lru_cache(maxsize=1)
def data(name: str, seed: int) -> Split:
    """Training and test data, standardised by the former."""
    if name in CLASSES or name in TARGETS:
        return split(name, seed)
    X, y = (LONG_NUMBERS | LONG_CLASSES)[name](seed)
    return standardised(X, y, seed, are_numbers=name in LONG_NUMBERS)


def row(name: str, kind: str, seed: int, value: str, epochs: int) -> dict[str, Any]:
    """A row of the results."""
    torch.set_num_threads(1)
    X, y, X_test, y_test = data(name, seed)
    X, y, corrupted = KINDS[kind](X, y, default_rng(seed))
    X = X.astype(np.float32)
    of_classes = name in CLASSES or name in LONG_CLASSES
    limit = None if value == "none" else value if value == "auto" else float(value)
    estimator = BlockGMDClassifier if of_classes else BlockGMDRegressor
    model = estimator(max_epochs=epochs, random_state=seed, strength="mild", leverage=limit).fit(X, y)
    measure = balanced_accuracy_score if of_classes else r2_score
    found: dict[str, Any] = {f"{some} that weigh less": 0.0 for some in ("corrupt", "others")} if limit else {}
    found |= {"score": round(100.0 * max(-1.0, float(measure(y_test, model.predict(X_test)))), 3)}
    if model.leverage_ is not None:
        strata = np.unique(y, return_inverse=True)[1] if of_classes else None
        weight = leverage_weights(X, model.leverage_, strata=strata)
        less = np.zeros(len(y), dtype=bool) if weight is None else weight < 1.0
        for some, which in (("corrupt", corrupted), ("others", ~corrupted)):
            found[f"{some} that weigh less"] = round(float(less[which].mean()), 4) if which.any() else 0.0
    return found


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """By value: points ahead of none by kind of dirt, the worst clean set, and the shares that weigh less."""
    points = frame.pivot_table(index=["dirt", "data", "seed"], columns="leverage", values="score", sort=False)
    ahead = points[list(VALUES[1:])].sub(points["none"], axis=0)
    rows = []
    for value in VALUES[1:]:
        of_value = frame[frame["leverage"] == value]
        line: dict[str, Any] = {"leverage": value}
        for kind, some in ahead[value].groupby("dirt", sort=False):
            title = "clean" if kind == dirt.NONE else kind
            means = some.groupby("data").mean()
            line[f"{title}, points ahead"] = f"{means.mean():+.2f} ± {means.sem():.2f}"
            if kind == dirt.NONE:
                line["worst clean set"] = f"{means.min():+.2f} ({means.idxmin()})"
            shares = of_value.loc[of_value["dirt"] == kind, [*COLUMNS[-2:]]].mean()
            if kind != dirt.NONE:
                line[f"{title}, corrupt that weigh less"] = f"{shares.iloc[0]:.1%}".replace("%", " %")
            line[f"{title}, others that weigh less"] = f"{shares.iloc[1]:.1%}".replace("%", " %")
        rows.append(line)
    return pd.DataFrame(rows)


def long_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Clean sets with long inputs: points without, what each value is ahead of that, and the share that weighs less."""
    clean = frame[(frame["dirt"] == dirt.NONE) & frame["data"].isin([*LONG_CLASSES, *LONG_NUMBERS])]
    points = clean.pivot_table(index=["data", "seed"], columns="leverage", values="score", sort=False)
    rows = []
    for name, some in points.groupby("data", sort=False):
        line = {"data": name, "without": f"{some['none'].mean():.1f}"}
        for value in VALUES[1:]:
            gain = some[value] - some["none"]
            of_value = clean[(clean["leverage"] == value) & (clean["data"] == name)]
            less = f"{of_value[COLUMNS[-1]].mean():.1%}".replace("%", " %")
            line[value] = f"{gain.mean():+.2f} ± {gain.sem():.2f} ({less})"
        rows.append(line)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    add_report(parser)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    if not arguments.report:
        cases = [(*case, seed, value) for seed in SEEDS for case in product(NAMES, KINDS) for value in VALUES]
        train_missing(cases, row, COLUMNS, arguments)
    frame = pd.read_csv(arguments.output, dtype={"leverage": str}, keep_default_na=False, na_values=[""])
    write(table(frame), "leverage", DOCS)
    write(long_table(frame), "leverage_long", DOCS)


if __name__ == "__main__":
    main()
