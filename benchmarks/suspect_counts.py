"""How many bad rows are there: estimates of the number of suspects against the truth, by set, dirt and share.

Each row of results/suspect_counts.csv is a set, a kind of dirt with its share, a strength and a seed, with the estimate
and its bounds, how many of the suspects are corrupt, and areas under the ROC curve of the ranking and of
``sample_trust_``. The rule was made on the seeds from 100 on; the table has others.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dirty import dirt
from dirty.data import CLASSES, split
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.inspection import estimate_n_suspects, find_suspects

RESULTS = Path(__file__).resolve().parent / "results" / "suspect_counts.csv"
SETS = (
    "digits",
    "breast cancer",
    "quantiles",
    "five classes",
    "imbalanced 9:1",
    "imbalanced 98:2",
    "digits with rare classes",
    "subgroups",
    "moons",
    "one-hot",
    "bag of words",
    "wide",
    "overlapping",
)
SETS_OF_NUMBERS = ("Friedman 1", "linear", "lognormal", "zero-inflated", "heteroscedastic", "subgroups of numbers")
SHARES = (0.05, 0.1, 0.2, 0.4)
EPOCHS = 100
COLUMNS = (
    *("data", "dirt", "share", "strength", "seed", "chosen", "samples", "corrupt", "found", "low", "high"),
    *("badly fitted", "unusual inputs", "corrupt found", "AUROC", "trust AUROC"),
)


def cases() -> Iterator[tuple[str, str, float]]:
    """Sets, kinds of dirt and shares."""
    for kinds, sets in ((("pair", "uniform", "features"), SETS), (("gross", "features"), SETS_OF_NUMBERS)):
        for kind, share in [(dirt.NONE, 0.0), *product(kinds, SHARES)]:
            for name in sets:
                yield name, kind, share


def kind_of(kind: str, share: float) -> dirt.Kind:
    if kind == dirt.NONE:
        return dirt.none
    if kind == "features":
        return partial(dirt.features, share=share)
    if kind == "gross":
        return partial(dirt.targets, share=share, one_sided=False)
    return partial(dirt.labels, kind=kind, share=share)


def count(work: tuple[tuple[str, str, float], str, int]) -> dict[str, Any]:
    """A row of the results."""
    (name, kind, share), strength, seed = work
    torch.set_num_threads(1)
    clean = split(name, seed)
    X, y, corrupt = kind_of(kind, share)(clean.X, clean.y, np.random.default_rng(seed))
    estimator = BlockGMDClassifier if name in CLASSES else BlockGMDRegressor
    model = estimator(strength=strength, max_epochs=EPOCHS, random_state=seed).fit(X, y)
    found = estimate_n_suspects(model)
    rank = np.empty(len(X))
    rank[find_suspects(model, len(X))] = np.arange(len(X))
    areas = [roc_auc_score(corrupt, -of) if corrupt.any() else None for of in (rank, model.sample_trust_)]
    right = int(corrupt[find_suspects(model)].sum())
    values = (name, kind, share, strength, seed, model.strength_, len(X), int(corrupt.sum()), *found[:5], right)
    return dict(zip(COLUMNS, (*values, *(area if area is None else round(area, 4) for area in areas)), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--strengths", nargs="+", default=["auto", "firm"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    work = [(case, strength, seed) for seed in arguments.seeds for strength in arguments.strengths for case in cases()]
    with arguments.output.open("w", newline="") as file, ProcessPoolExecutor(arguments.jobs) as pool:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in tqdm(pool.map(count, work), total=len(work)):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
