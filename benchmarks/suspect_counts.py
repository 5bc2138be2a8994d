"""How many bad rows are there: estimates of the number of suspects against the truth, by set, dirt and share.

Each row of results/suspect_counts.csv is a set, a kind of dirt with its share, a strength and a seed, with the estimate
and its bounds, how many of the suspects are corrupt, areas under the ROC curve of the ranking and of
``sample_trust_``, and the precision of the ranking, the share of corrupt ones among as many first as there are. Beside
it, for wrong labels, is cleanlab's number, of the confident joint of five-fold predictions by plain training. The rule
was made on the seeds from 100 on; the tables have others. Run again it goes on where it was; with ``--models`` fitted
estimators are kept, and another rule to count by needs no training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanlab.count import num_label_issues
from dirty import dirt
from dirty.data import CLASSES, split
from dirty.methods import PLAIN_SETTINGS
from numpy.typing import NDArray
from resume import add_options, kept, train_missing
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

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
COLUMNS = (
    *("data", "dirt", "share", "strength", "seed", "chosen", "samples", "corrupt", "found", "low", "high"),
    *("badly fitted", "unusual inputs", "corrupt found", "AUROC", "trust AUROC", "precision", "cleanlab"),
)
OF_LABELS = (dirt.NONE, "pair", "uniform")


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


def confident_joint(X: NDArray[Any], y: NDArray[Any], seed: int, epochs: int) -> int:
    """Cleanlab's number of wrong labels, by predictions of samples that weren't trained on."""
    model = BlockGMDClassifier(max_epochs=epochs, random_state=seed, **PLAIN_SETTINGS)
    probabilities = cross_val_predict(model, X, y, cv=5, method="predict_proba")
    return int(num_label_issues(np.unique(y, return_inverse=True)[1], probabilities))


def count(
    name: str, kind: str, share: float, strength: str, seed: int, epochs: int, *, models: Path | None = None
) -> dict[str, Any]:
    """A row of the results."""
    clean = split(name, seed)
    if kind == "uniform" and name in CLASSES and len(np.unique(clean.y)) == 2:
        # To be any other class is to be the next one: the data are the same.
        kind = "pair"
    X, y, corrupt = kind_of(kind, share)(clean.X, clean.y, np.random.default_rng(seed))
    estimator = BlockGMDClassifier if name in CLASSES else BlockGMDRegressor
    settings = {"strength": strength, "max_epochs": epochs, "random_state": seed}
    key = f"{name} {kind} {share} {strength} {seed} {epochs}"
    model = kept(models, key, lambda: estimator(**settings).fit(X, y))
    found = estimate_n_suspects(model)
    rank = np.empty(len(X))
    rank[find_suspects(model, len(X))] = np.arange(len(X))
    areas = [roc_auc_score(corrupt, -of) if corrupt.any() else None for of in (rank, model.sample_trust_)]
    right = int(corrupt[find_suspects(model)].sum())
    values = (model.strength_, len(X), int(corrupt.sum()), *found[:5], right)
    areas.append(corrupt[rank < corrupt.sum()].mean() if corrupt.any() else None)
    areas = [area if area is None else round(float(area), 4) for area in areas]
    has_peer = name in CLASSES and kind in OF_LABELS
    peer = kept(models, f"{key} cleanlab", lambda: confident_joint(X, y, seed, epochs)) if has_peer else None
    return dict(zip(COLUMNS[5:], (*values, *areas, peer), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--strengths", nargs="+", default=["auto"])
    parser.add_argument("--kinds", nargs="+", default=["none", "pair", "uniform", "features", "gross"])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--models", type=Path, help="a folder to keep fitted estimators in")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = [
        (*case, strength, seed)
        for seed, strength, case in product(arguments.seeds, arguments.strengths, cases())
        if case[1] in arguments.kinds
    ]
    train_missing(runs, partial(count, models=arguments.models), COLUMNS, arguments)


if __name__ == "__main__":
    main()
