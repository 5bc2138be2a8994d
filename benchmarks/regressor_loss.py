"""From which error on the regressor's loss counts linearly: trainings with two losses beside plain ones.

**The rule**, written down before any of these trainings: of the smooth L1 losses whose errors count linearly from one
and from two scaled units on, one may be the default if the estimator is with it, on every clean set of ``dirty``, at
most 0.5 points of R^2 behind the best plain training in the mean of the seeds: ours with the first loss and with
squared errors, and scikit-learn's perceptron. Of those that may be, the one with the best mean over the dirt is chosen,
where R^2 counts as -1 at least; if neither may be, the one that is less behind where it is furthest.

Each row of results/regressor_loss.csv is a set, a kind of dirt, a seed and a training, with R^2 on clean test data and
the strength. None of the seeds is in another table. Run again it goes on where it was; ``--report`` makes the tables in
docs/results.
"""

from __future__ import annotations

import argparse
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from dirty.data import TARGETS, Split, split
from dirty.methods import Method, mlp, ours
from paper.report import DOCS, write
from resume import add_options, train_missing
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor

from skbgmd import BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "regressor_loss.csv"
COLUMNS = ("data", "dirt", "seed", "training", "score", "strength")
SMOOTH_1, SMOOTH_2 = (
    {"criterion": torch.nn.SmoothL1Loss, "criterion__beta": beta, "strength": "auto"} for beta in (1.0, 2.0)
)
PLAIN: dict[str, dict[str, Any]] = {
    "plain": {"criterion": torch.nn.SmoothL1Loss, "group_size": None},
    "plain squared": {"criterion": torch.nn.MSELoss, "group_size": None},
}
LOSSES: dict[str, dict[str, Any]] = {"smooth 1": SMOOTH_1, "smooth 2": SMOOTH_2}
TRAININGS: dict[str, Method] = {
    **{name: partial(ours, kind=BlockGMDRegressor, settings=given) for name, given in (PLAIN | LOSSES).items()},
    "MLP": partial(mlp, kind=MLPRegressor),
}
#: Seeds of clean sets; of those whose scores differ most from seed to seed; and of dirty ones.
CLEAN, MORE, DIRTY = range(220, 225), {"diabetes": range(220, 250), "counts": range(220, 230)}, range(220, 222)


def cases() -> list[tuple[str, str, int, str]]:
    """Sets, kinds of dirt, seeds and trainings."""
    return [
        *(
            (name, dirt.NONE, seed, training)
            for name in TARGETS
            for seed, training in product(MORE.get(name, CLEAN), TRAININGS)
        ),
        *(
            (name, kind, seed, training)
            for seed, kind, name, training in product(DIRTY, dirt.OF_TARGETS, TARGETS, LOSSES)
            if kind != dirt.NONE
        ),
    ]


@lru_cache(maxsize=1)
def prepared(name: str, kind: str, seed: int) -> Split:
    """Training data with dirt, and clean test data."""
    clean = split(name, seed)
    X, y, _ = dirt.OF_TARGETS[kind](clean.X, clean.y, np.random.default_rng(seed))
    return clean._replace(X=X, y=y)


def row(name: str, kind: str, seed: int, training: str, epochs: int) -> dict[str, Any]:
    """A row of the results."""
    torch.set_num_threads(1)
    parts = prepared(name, kind, seed)
    model = TRAININGS[training](parts.X.copy(), parts.y.copy(), seed, epochs)
    score = float(r2_score(parts.y_test, model.predict(parts.X_test)))
    return {"score": round(score, 5), "strength": getattr(model, "strength_", None)}


def clean_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Points of the best plain training by set, in the mean of the seeds, and what the others are ahead of it."""
    rows = []
    for name, some in frame[frame["dirt"] == dirt.NONE].groupby("data", sort=False):
        points = 100.0 * some.pivot_table(index="seed", columns="training", values="score")
        best = points[[*PLAIN, "MLP"]].mean().idxmax()
        ahead = points[[*LOSSES]].sub(points[best], axis=0)
        found = {loss: f"{ahead[loss].mean():+.2f} ± {ahead[loss].sem():.2f}" for loss in LOSSES}
        rows.append(
            {"data": name, "seeds": len(points), "best plain": best, "R²": round(points[best].mean(), 1), **found}
        )
    return pd.DataFrame(rows)


def dirt_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Points by kind of dirt, the paired difference with its standard error, and the least score of each loss."""
    dirty = frame[frame["dirt"] != dirt.NONE].assign(score=100.0 * frame["score"].clip(lower=-1.0))
    rows = []
    for kind, some in [*dirty.groupby("dirt", sort=False), ("all", dirty)]:
        points = some.pivot_table(index=["data", "dirt", "seed"], columns="training", values="score")
        gain = points["smooth 2"] - points["smooth 1"]
        means = {loss: round(points[loss].mean(), 2) for loss in LOSSES}
        worst = gain.idxmin()
        rows.append(
            {
                "dirt": kind,
                "trainings": len(points),
                **means,
                "difference": f"{gain.mean():+.2f} ± {gain.sem():.2f}",
                "worst": f"{gain.min():+.1f} ({worst[0]})",
                "best": f"{gain.max():+.1f} ({gain.idxmax()[0]})",
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--report", action="store_true", help="make the tables of the rows there are, and train nothing"
    )
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    if not arguments.report:
        train_missing(cases(), row, COLUMNS, arguments)
    frame = pd.read_csv(arguments.output)
    write(clean_table(frame), "regressor_loss_clean", DOCS)
    write(dirt_table(frame), "regressor_loss_dirt", DOCS)


if __name__ == "__main__":
    main()
