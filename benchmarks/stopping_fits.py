"""Whole estimators with and without early stopping, on clean test data; the rule is the same, ``strength=None``.

Accuracy on digits and on 2,000 samples of ``make_classification`` with five classes, R² on 1,500 of ``make_friedman1``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resume import add_options, train_missing
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from stopping import CLASSES, LABELS, TARGETS

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import corrupt_labels

COLUMNS = ("data", "corruption", "share", "stopping", "seed", "score", "epochs trained")
RUNS = [
    (*case, stopping, seed)
    for case in [
        *((name, *dirt) for name in ("digits", "made") for dirt in LABELS),
        *(("friedman1", *d) for d in TARGETS),
    ]
    for stopping in ("none", "loss", "held out")
    for seed in range(3)
]
GIVEN = {"none": False, "loss": "loss", "held out": True}


def train(data: str, corruption: str, share: float, stopping: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"early_stopping": GIVEN[stopping], "strength": None, "random_state": seed}
    if data == "friedman1":
        rng = np.random.default_rng(seed)
        (X, y), (X_test, y_test) = (
            make_friedman1(1500, noise=1.0, random_state=seed),
            make_friedman1(1000, random_state=50 + seed),
        )
        bad = rng.random(len(y)) < share
        y[bad] += 100.0 * rng.normal(size=bad.sum()) + 50.0
        model: Any = BlockGMDRegressor(max_epochs=2 * epochs, **settings)
    else:
        X, y = CLASSES[data](seed)
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
        if share:
            y, _ = corrupt_labels(y, fraction=share, kind=corruption, random_state=seed)
        model = BlockGMDClassifier(max_epochs=epochs, **settings)
    scaler = StandardScaler().fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(scaler.transform(X), y)
    return {"score": round(float(model.score(scaler.transform(X_test), y_test)), 4), "epochs trained": model.n_iter_}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="of classifiers; regressors train twice as many")
    add_options(parser, Path(__file__).parent / "results" / "stopping_fits.csv")
    train_missing(RUNS, train, COLUMNS, parser.parse_args())


if __name__ == "__main__":
    main()
