"""Trainings that end by themselves: the defaults beside plain training and scikit-learn's perceptrons, all stopped.

The sets and kinds of dirt of ``dirty``, with sets of ``rare_rules`` besides, whose rules few samples have. All hold out
a tenth of the samples, and train for 100 epochs at most. Each row of results/stopped.csv is a set, a kind of dirt, a
seed and a method, with the score on clean test data in points (balanced accuracy, or R^2) and the epochs trained. Run
again it goes on where it was; ``--report`` makes the table in docs/results.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rare_rules
import torch
from dirty import data, dirt, methods
from numpy.random import default_rng
from paper.report import DOCS, write
from resume import parse_arguments, train_missing
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

RESULTS = Path(__file__).resolve().parent / "results" / "stopped.csv"
COLUMNS = ("kind of data", "data", "dirt", "seed", "method", "score", "epochs trained")
SEEDS, SAMPLES, TESTED, EPOCHS = (930, 931), 1000, 2000, 100
OF_CLASSES, OF_TARGETS, OF_RARE = "classes", "numbers", "rare rules"
#: R^2 of a training that diverged counts as this.
WORST = -100.0
RUNS = [
    *product([OF_CLASSES], [name for name in data.CLASSES if name != data.IMAGES], dirt.OF_CLASSES, SEEDS),
    *product([OF_TARGETS], data.TARGETS, dirt.OF_TARGETS, SEEDS),
    *product([OF_RARE], rare_rules.SETS, (dirt.NONE, "gross 15 %"), SEEDS),
]
PLAIN, AUTO, PERCEPTRON = "plain", "auto", "scikit-learn"


def estimators(kind: str) -> dict[str, Callable[[int], Any]]:
    """The methods by name, as functions of a seed."""
    of_classes = kind == OF_CLASSES
    ours: Any = BlockGMDClassifier if of_classes else BlockGMDRegressor
    theirs: Any = MLPClassifier if of_classes else MLPRegressor
    settings: dict[str, Any] = {"early_stopping": True, "max_epochs": EPOCHS}
    return {
        PLAIN: lambda seed: ours(group_size=None, random_state=seed, **settings),
        AUTO: lambda seed: ours(random_state=seed, **settings),
        PERCEPTRON: lambda seed: methods.perceptron(theirs, seed, EPOCHS, early_stopping=True, n_iter_no_change=10),
    }


def prepared(kind: str, name: str, of_dirt: str, seed: int) -> data.Split:
    """Training data with dirt, and clean test data."""
    if kind == OF_RARE:
        X, y = rare_rules.SETS[name](default_rng(seed), SAMPLES + TESTED)
        X = StandardScaler().fit(X[:SAMPLES]).transform(X).astype(np.float32)
        clean = data.Split(X[:SAMPLES], y[:SAMPLES], X[SAMPLES:], y[SAMPLES:])
    else:
        clean = data.split(name, seed)
    kinds = dirt.OF_CLASSES if kind == OF_CLASSES else dirt.OF_TARGETS
    X, y, _ = kinds[of_dirt](clean.X, clean.y, default_rng(seed))
    return clean._replace(X=X, y=y)


def train(kind: str, name: str, of_dirt: str, seed: int, method: str) -> dict[str, Any]:
    """What a row of the results has besides the training that it is of."""
    torch.set_num_threads(1)
    parts = prepared(kind, name, of_dirt, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "Got `batch_size`")
        model = estimators(kind)[method](seed).fit(parts.X, parts.y)
    metric = balanced_accuracy_score if kind == OF_CLASSES else r2_score
    score = 100.0 * float(metric(parts.y_test, model.predict(parts.X_test)))
    return {"score": round(max(score, WORST), 2), "epochs trained": model.n_iter_}


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the sets and seeds by kind of data and dirt."""
    found = frame.pivot_table(
        index=["kind of data", "dirt"], columns="method", values=["score", "epochs trained"], sort=False
    )
    every = list(estimators(OF_CLASSES))
    scores, epochs = (found[name][every] for name in ("score", "epochs trained"))
    result = scores.map("{:.1f}".format)
    for method in every:
        result[f"epochs, {method}"] = epochs[method].map("{:.0f}".format)
    return result.reset_index()


def main() -> None:
    arguments = parse_arguments(__doc__, RESULTS)
    if not arguments.report:
        train_missing([(*run, method) for run in RUNS for method in estimators(run[0])], train, COLUMNS, arguments)
    write(table(pd.read_csv(arguments.output)), "stopped", DOCS)


if __name__ == "__main__":
    main()
