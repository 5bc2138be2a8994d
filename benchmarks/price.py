"""The price of robustness on tables: process time of whole fits over scikit-learn's perceptron and plain skorch.

Equal layers, epochs, batches, optimizer and data for all, in turns within one process; medians of the ratios of each
round. Rows go to results/price.csv, its table to docs/results by samples_report.py.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import environment, ratio
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from skorch import NeuralNetClassifier
from threadpoolctl import threadpool_limits

from skbgmd import BlockGMDClassifier
from skbgmd.training.networks import MLP

RESULTS = Path(__file__).resolve().parent / "results" / "price.csv"
LR = 0.005


class Case(NamedTuple):
    """A data set, layers, epochs and samples of a batch."""

    data: Callable[[], tuple[Any, Any]]
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int = 200


def _table(n: int, d: int) -> tuple[Any, Any]:
    X, y = make_classification(n, d, n_informative=min(d, 15), n_classes=5, flip_y=0.0, class_sep=1.5, random_state=0)
    return X.astype(np.float32), y


def _digits() -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return (X / 16.0).astype(np.float32), y


CASES = {
    "digits": Case(_digits, (100,), 15),
    "digits, batches of 32": Case(_digits, (100,), 4, 32),
    "10,000 x 30": Case(lambda: _table(10_000, 30), (100,), 5),
    "200,000 x 20": Case(lambda: _table(200_000, 20), (100,), 2),
    "10,000 x 500": Case(lambda: _table(10_000, 500), (100,), 5),
    "10,000 x 200, 256-128": Case(lambda: _table(10_000, 200), (256, 128), 5),
    "5,000 x 784, 512-256": Case(lambda: _table(5_000, 784), (512, 256), 4),
}


def estimators(case: Case, d: int, n_classes: int) -> dict[str, Any]:
    """Estimators by name, all for the same training but for what is robust."""
    ours = {
        "hidden_layer_sizes": case.hidden,
        "max_epochs": case.epochs,
        "batch_size": case.batch_size,
        "lr": LR,
        "random_state": 0,
    }
    return {
        "MLPClassifier": MLPClassifier(
            case.hidden,
            batch_size=case.batch_size,
            learning_rate_init=LR,
            max_iter=case.epochs,
            tol=0.0,
            n_iter_no_change=case.epochs + 1,
            alpha=0.0,
            random_state=0,
        ),
        "skorch": NeuralNetClassifier(
            MLP(d, n_classes, case.hidden),
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=LR,
            max_epochs=case.epochs,
            batch_size=case.batch_size,
            train_split=None,
            iterator_train__shuffle=True,
            verbose=0,
        ),
        "group_size=None, aggregator='mean'": BlockGMDClassifier(group_size=None, aggregator="mean", **ours),
        "default": BlockGMDClassifier(**ours),
        "beta=0.1": BlockGMDClassifier(beta=0.1, **ours),
    }


def seconds_of(call: Callable[[], Any]) -> float:
    """Process time of a call, all threads of it."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.cases:
            case = CASES[name]
            X, y = case.data()
            found = estimators(case, X.shape[1], len(np.unique(y)))
            times: dict[str, list[float]] = {each: [] for each in found}
            with threadpool_limits(threads), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                for turn in range(options.rounds + 1):
                    for each, estimator in found.items():
                        taken = seconds_of(partial(estimator.fit, X, y))
                        if turn:  # the first is to load and to warm up
                            times[each].append(taken)
            for each, taken in times.items():
                row = {
                    "case": name,
                    "estimator": each,
                    "epochs": case.epochs,
                    "process milliseconds": round(1000 * median(taken), 2),
                    "over MLPClassifier": round(ratio(taken, times["MLPClassifier"]), 3),
                    "over skorch": round(ratio(taken, times["skorch"]), 3),
                    "over default": round(ratio(taken, times["default"]), 3),
                    "rounds": options.rounds,
                    **environment(),
                    "threads": threads,
                }
                print(*[row[column] for column in list(row)[:7]], f"threads={threads}", sep="  ", flush=True)
                rows.append(row)
            _write(options.output, rows)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


if __name__ == "__main__":
    main()
