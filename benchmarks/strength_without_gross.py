"""By how many standard errors "firm" must be ahead where no targets are gross: choices by one, and the estimator's.

Each row of results/strength_without_gross.csv is a set, a kind of dirt and a seed, with the choice by one standard
error and as the estimator makes it, of the same candidates. R^2 of plain training with squared errors on clean test
data is there on clean data, and that of "mild" and "firm" where it is needed to know what both choices have. The rule
was made on the seeds from 300 to 302 of the sets of ``scores_of_numbers`` and others, and on none of the sets of
``dirty``. ``--report`` makes the table in docs/results.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from dirty.data import TARGETS, Split, split, standardised
from paper.report import DOCS, write
from resume import add_options, add_report, train_missing
from scores_of_numbers import CONTINUOUS, DISCRETE

from skbgmd import BlockGMDRegressor
from skbgmd._utils import limits
from skbgmd.training._strength import choice

RESULTS = Path(__file__).resolve().parent / "results" / "strength_without_gross.csv"
COLUMNS = ("data", "dirt", "seed", "by one", "chosen", "mild", "firm", "plain squared")
DIABETES = "diabetes"
ON_DIRT = (dirt.NONE, "gross 15 %", "gross 30 %")


def cases(n_diabetes: int) -> list[tuple[str, str, int]]:
    """Sets, kinds of dirt and seeds."""
    return [
        *product((DIABETES,), (dirt.NONE,), range(n_diabetes)),
        *product(TARGETS, ON_DIRT, (210, 211, 212)),
        *product((*CONTINUOUS, *DISCRETE), (dirt.NONE,), (310, 311, 312)),
    ]


def data(name: str, seed: int) -> Split:
    """Training and test data, standardised by the former."""
    if name in TARGETS:
        return split(name, seed)
    X, y = (CONTINUOUS | DISCRETE)[name](seed)
    return standardised(X, y, seed, are_numbers=True)


def choices(X: Any, y: Any, seed: int, epochs: int) -> tuple[str, str]:
    """Choices by one standard error and as the estimator makes it; both see the same predictions."""
    choose, found = choice.choose, []

    def twice(names: Any, predict: Any, *given: Any, ahead: Any, **settings: Any) -> Any:
        known: dict[Any, Any] = {}

        def remembered(name: str, more: int) -> Any:
            key = name, more
            if key not in known:
                known[key] = predict(name, more)
            return known[key]

        for errors in (lambda _: limits.CLEAR_GAIN, ahead):
            name, _ = choose(names, remembered, *given, ahead=errors, **settings)
            found.append(name)
        raise _ChoicesMade

    with patch.object(choice, "choose", twice), suppress(_ChoicesMade):
        BlockGMDRegressor(max_epochs=epochs, random_state=seed).fit(X, y)
    return found[0], found[1]


class _ChoicesMade(Exception):
    """Ends a fit once the choices are made."""


def row(name: str, kind: str, seed: int, epochs: int) -> dict[str, Any]:
    """A row of the results."""
    X, y, X_test, y_test = data(name, seed)
    X, y, _ = dirt.OF_TARGETS[kind](X, y, np.random.default_rng(seed))
    by_one, chosen = choices(X, y, seed, epochs)
    scores: dict[str, float] = {}
    wanted: dict[str, dict[str, Any]] = {strength: {"strength": strength} for strength in {by_one, chosen}}
    if kind == dirt.NONE:
        wanted["plain squared"] = {"group_size": None, "criterion": torch.nn.MSELoss}
    elif by_one == chosen:
        wanted = {}
    for column, settings in wanted.items():
        model = BlockGMDRegressor(max_epochs=epochs, random_state=seed, **settings).fit(X, y)
        scores[column] = round(float(model.score(X_test, y_test)), 5)
    return {"by one": by_one, "chosen": chosen, **scores}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """How often "firm" is chosen, and what both choices have beside each other and plain training, by set and dirt."""
    points = 100.0 * frame[["mild", "firm", "plain squared"]].clip(lower=-1.0)
    score = {name: points["mild"].where(frame[name] == "mild", points["firm"]) for name in ("by one", "chosen")}
    # Where both are the same nothing was trained on dirt.
    gain = (score["chosen"] - score["by one"]).where(frame["by one"] != frame["chosen"], 0.0)
    frame = frame.assign(gain=gain, ahead=score["chosen"] - points["plain squared"])
    groups = frame.groupby(["data", "dirt"], sort=False)
    return pd.DataFrame(
        {
            "trainings": groups.size(),
            "firm by one": groups["by one"].apply(lambda values: (values == "firm").sum()),
            "firm": groups["chosen"].apply(lambda values: (values == "firm").sum()),
            "gain": groups["gain"].agg(_with_error),
            "ahead of plain squared": groups["ahead"].agg(_with_error),
        }
    ).reset_index()


def _with_error(values: pd.Series) -> str:
    return "" if values.isna().any() else f"{values.mean():+.2f} ± {values.sem():.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--diabetes", type=int, default=120, help="seeds of it")
    parser.add_argument("--epochs", type=int, default=100)
    add_report(parser)
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        train_missing(cases(arguments.diabetes), row, COLUMNS, arguments)
    write(table(pd.read_csv(arguments.output)), "strength_without_gross", DOCS)


if __name__ == "__main__":
    main()
