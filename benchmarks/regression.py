"""Robust regression against scikit-learn's: R^2 on clean data, at growing shares of gross outliers.

Each row of results/regression.csv is one truth (linear or not), one place of the outliers (y, X or both), one share,
one regressor and one seed. Outliers in y lie 20 to 40 standard deviations off, all on one side; in X they have noise of
ten standard deviations.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment
from sklearn.datasets import make_friedman1, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import HuberRegressor, LinearRegression, RANSACRegressor, TheilSenRegressor
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import RobustScaler
from tqdm import tqdm

from skbgmd import BlockGMDRegressor
from skbgmd.corruption import GaussianNoise

RESULTS = Path(__file__).resolve().parent / "results" / "regression.csv"
PERCENT = (0, 15, 30, 45)
PLACES = ("y", "X", "both")
TRUTHS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "linear": lambda seed: make_regression(1000, 10, n_informative=10, noise=10.0, random_state=seed),
    "nonlinear": lambda seed: make_friedman1(1500, noise=1.0, random_state=seed),
}
PER_SAMPLE = {"group_size": 1, "huber": 2.0}
REGRESSORS: dict[str, Callable[[int], Any]] = {
    "least squares": lambda seed: LinearRegression(),
    "HuberRegressor": lambda seed: HuberRegressor(max_iter=1000),
    "RANSACRegressor": lambda seed: RANSACRegressor(random_state=seed),
    "TheilSenRegressor": lambda seed: TheilSenRegressor(random_state=seed),
    "MLPRegressor": lambda seed: MLPRegressor(
        random_state=seed, learning_rate_init=0.005, batch_size=256, max_iter=100
    ),
    "plain training, smooth loss": lambda seed: BlockGMDRegressor(
        aggregator="mean", group_size=None, random_state=seed
    ),
    "BGMD, groups of 32": lambda seed: BlockGMDRegressor(group_size=32, huber=None, random_state=seed),
    "BGMD, default": lambda seed: BlockGMDRegressor(random_state=seed),
    "BGMD, samples, median": lambda seed: BlockGMDRegressor(strength=None, random_state=seed),
    "BGMD, samples, huber=1": lambda seed: BlockGMDRegressor(huber=1.0, random_state=seed),
    "BGMD, samples, huber=2": lambda seed: BlockGMDRegressor(**PER_SAMPLE, random_state=seed),
    "BGMD, samples, linear model": lambda seed: BlockGMDRegressor(
        hidden_layer_sizes=(), lr=0.02, **PER_SAMPLE, random_state=seed
    ),
}


def contaminated(X: Any, y: Any, place: str, percent: int, seed: int) -> tuple[Any, Any]:
    """Training data with outliers."""
    share = percent / 100.0
    if place in ("X", "both"):
        X = GaussianNoise(share, std=10.0, random_state=seed).fit_transform(X)
    if place in ("y", "both"):
        rng = np.random.RandomState(seed + 1)
        wrong = rng.permutation(len(y))[: int(share * len(y))]
        y = y.copy()
        y[wrong] += 20.0 * y.std() * (1.0 + rng.rand(len(wrong)))
    return X, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        (truth, place, percent, seed)
        for seed in range(arguments.seeds)
        for truth in TRUTHS
        for percent in PERCENT
        for place in (PLACES if percent else PLACES[:1])
    ]
    columns = ["truth", "outliers in", "percent", "regressor", "seed", "R2", "seconds", *environment()]
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for truth, place, percent, seed in tqdm(cases):
            X, y = TRUTHS[truth](seed)
            X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=seed)
            scaler = RobustScaler(unit_variance=True).fit(X)
            X, X_test = scaler.transform(X), scaler.transform(X_test)
            X, y = contaminated(X, y, place, percent, seed)
            for name, make in REGRESSORS.items():
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model = make(seed).fit(X.astype(np.float32), y)
                seconds = time.perf_counter() - start
                score = model.score(X_test.astype(np.float32), y_test)
                key = {"truth": truth, "outliers in": place, "percent": percent, "regressor": name, "seed": seed}
                writer.writerow({**key, "R2": round(float(score), 4), "seconds": round(seconds, 2), **environment()})
            file.flush()


if __name__ == "__main__":
    main()
