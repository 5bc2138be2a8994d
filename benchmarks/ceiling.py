"""How well wrong labels can be withstood by families of models whose settings the clean test labels choose.

No one can choose so, and no choice among these settings can be better than the best of all. "right samples alone" is
plain training on the samples whose labels are right, "best strength" the best of the classifier's three. Rows of "auto"
and plain training are of results/dirty.csv, of the same sets and seeds.

Each row of results/ceiling.csv is a set, a kind of dirt, a family and a seed, with the best balanced accuracy on clean
test data in points, and the setting. Run again it goes on where it was; ``--report`` makes the table in docs/results.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from dirty import dirt
from dirty.data import CLASSES, IMAGES
from dirty.methods import PLAIN, PLAIN_SETTINGS
from dirty.run import RESULTS as DIRTY
from dirty.training import prepared
from paper.report import DOCS, write
from resume import parse_arguments, train_missing
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from skbgmd import BlockGMDClassifier

RESULTS = Path(__file__).resolve().parent / "results" / "ceiling.csv"
COLUMNS = ("data", "dirt", "family", "seed", "score", "setting")
SEEDS = (0, 1)
KINDS = (dirt.NONE, "uniform 10 %", "uniform 20 %", "uniform 40 %", "pair 20 %", "pair 40 %", "near boundary 20 %")
RIGHT, AUTO, BEST = "right samples alone", "auto", "best of all settings"
WEIGHTS = (None, "balanced")


def forests(seed: int) -> Iterator[BaseEstimator]:
    for leaf, weight in product((1, 5, 20, 50), WEIGHTS):
        yield RandomForestClassifier(min_samples_leaf=leaf, class_weight=weight, random_state=seed)


def neighbours(seed: int) -> Iterator[BaseEstimator]:
    for k in (5, 15, 40, 100):
        yield KNeighborsClassifier(k, weights="distance")


def support_vectors(seed: int) -> Iterator[BaseEstimator]:
    for c, weight in product((0.01, 0.1, 1.0), WEIGHTS):
        yield SVC(C=c, class_weight=weight)


def logistic(seed: int) -> Iterator[BaseEstimator]:
    for c, weight in product((0.001, 0.01, 0.1, 1.0), WEIGHTS):
        yield LogisticRegression(C=c, class_weight=weight, max_iter=500)


def discriminants(seed: int) -> Iterator[BaseEstimator]:
    yield LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    yield QuadraticDiscriminantAnalysis(reg_param=0.3)


def strengths(seed: int) -> Iterator[BaseEstimator]:
    for strength in ("mild", "firm", "strict"):
        yield BlockGMDClassifier(strength=strength, max_epochs=100, random_state=seed)


def plain(seed: int) -> Iterator[BaseEstimator]:
    yield BlockGMDClassifier(max_epochs=100, random_state=seed, **PLAIN_SETTINGS)


FAMILIES: dict[str, Callable[[int], Iterator[BaseEstimator]]] = {
    RIGHT: plain,
    "best strength": strengths,
    "support vectors": support_vectors,
    "forest": forests,
    "logistic regression": logistic,
    "discriminant analysis": discriminants,
    "nearest neighbours": neighbours,
}


def train(data: str, kind: str, family: str, seed: int) -> dict[str, Any]:
    """What a row of the results has besides the trainings that it is of."""
    torch.set_num_threads(1)
    parts, corrupted = prepared(data, kind, seed)
    kept = ~corrupted if family == RIGHT else np.ones(len(corrupted), dtype=bool)
    found: dict[str, float] = {}
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        for model in FAMILIES[family](seed):
            try:
                predicted = model.fit(parts.X[kept].copy(), parts.y[kept].copy()).predict(parts.X_test)
            except np.linalg.LinAlgError:  # quadratic discriminants of classes whose features have no full rank
                continue
            setting = " ".join(repr(model).split())
            found[setting] = 100.0 * float(balanced_accuracy_score(parts.y_test, predicted))
    best = max(found, key=found.__getitem__)
    return {"score": round(found[best], 3), "setting": best}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over sets and seeds by kind of dirt; of all families, the best for each training."""
    known = frame[["data", "dirt", "seed"]].drop_duplicates()
    ours = pd.read_csv(DIRTY)
    ours = ours[ours["method"].isin([PLAIN, AUTO])].rename(columns={"method": "family"})
    ours = ours.assign(score=100.0 * ours["score"]).merge(known)
    best = frame[frame["family"] != RIGHT].groupby(["data", "dirt", "seed"], as_index=False)["score"].max()
    every = pd.concat([ours, frame, best.assign(family=BEST)])
    means = every.groupby(["family", "dirt", "data"], sort=False)["score"].mean().groupby(["family", "dirt"]).mean()
    found = means.unstack("dirt").loc[[PLAIN, AUTO, *FAMILIES, BEST], list(KINDS)]
    return found.map("{:.1f}".format).reset_index(names="family")


def main() -> None:
    arguments = parse_arguments(__doc__, RESULTS)
    if not arguments.report:
        sets = [name for name in CLASSES if name != IMAGES]
        runs = [(*run, seed) for seed in SEEDS for run in product(sets, KINDS, FAMILIES)]
        train_missing(runs, train, COLUMNS, arguments)
    write(table(pd.read_csv(arguments.output)), "ceiling", DOCS)


if __name__ == "__main__":
    main()
