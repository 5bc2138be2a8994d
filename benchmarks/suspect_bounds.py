"""What held-out labels add to the number of suspects: estimates with and without them, of one training each.

Each row of results/suspect_bounds.csv is a set, a kind of wrong labels with their share, and a seed: labels become any
other class, or the most probable other one near the boundary. The rules were made on sets of ``dirty`` and some others
with seeds from 100 on; none of these sets was among them. Run again it goes on where it was; with ``--models`` fitted
estimators are kept, and another rule to count by needs no training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dirty import dirt
from numpy.typing import NDArray
from resume import add_options, kept, train_missing
from sklearn.datasets import make_blobs, make_circles
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from suspect_counts import confident_joint

from skbgmd import BlockGMDClassifier
from skbgmd.inspection import estimate_n_suspects, find_suspects
from skbgmd.inspection._suspect_groups import suspects_in

Data = tuple[NDArray[Any], NDArray[Any]]
RESULTS = Path(__file__).resolve().parent / "results" / "suspect_bounds.csv"
BOUNDARY = "near boundary 15 %"
DIRT: dict[str, dirt.Kind] = {
    dirt.NONE: dirt.none,
    "uniform 15 %": partial(dirt.labels, kind="uniform", share=0.15),
    "uniform 40 %": partial(dirt.labels, kind="uniform", share=0.4),
    BOUNDARY: partial(dirt.near_boundary, share=0.15),
}
COLUMNS = (
    "data",
    "dirt",
    "seed",
    "chosen",
    "samples",
    "corrupt",
    "without",
    "with",
    "low",
    "high",
    "corrupt found",
    "cleanlab",
)


def normal(n: int, d: int, seed: int) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=(n, d))


def checkerboard(seed: int) -> Data:
    X = np.random.default_rng(seed).uniform(-1.5, 1.5, (1200, 2))
    return X, (np.floor(X).sum(1) % 2).astype(int)


def three_normals(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=1200)
    X = rng.normal(size=(1200, 6))
    X[np.arange(1200), y] += 1.5
    return X, y


def logistic(seed: int, *, n: int, slope: float) -> Data:
    rng = np.random.default_rng(seed)
    X, w = rng.normal(size=(n, 8)), rng.normal(size=8)
    w /= np.linalg.norm(w)
    return X, (rng.random(n) < 1 / (1 + np.exp(-slope * X @ w))).astype(int)


def quadratic(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    X, form = rng.normal(size=(1200, 8)), rng.normal(size=(8, 8))
    found = ((X @ form) * X).sum(1)
    return X, (found > np.median(found)).astype(int)


def linear(seed: int, *, n: int, d: int, used: int) -> Data:
    X = normal(n, d, seed)
    return X, (X[:, :used].sum(1) > 0).astype(int)


def tree(seed: int) -> Data:
    X = normal(1200, 8, seed)
    left, right = 2 * (X[:, 1] > 0.3) + (X[:, 2] > 0), (X[:, 3] > -0.3) + 2 * (X[:, 4] > 0)
    return X, np.where(X[:, 0] > 0, left, right).astype(int)


def spirals(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    y, t = rng.integers(3, size=1200), rng.uniform(0.5, 3.0, 1200)
    angle = 2 * t + 2 * np.pi / 3 * y
    return np.c_[t * np.cos(angle), t * np.sin(angle)] + 0.1 * rng.normal(size=(1200, 2)), y


def ordinal(seed: int) -> Data:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(1200, 6))
    return X, np.digitize(X[:, :3].sum(1) + 0.5 * rng.normal(size=1200), [-1.5, 0, 1.5])


SETS: dict[str, Callable[[int], Data]] = {
    "three normals": three_normals,
    "steep logistic": lambda seed: logistic(seed, n=1200, slope=4.0),
    "flat logistic": lambda seed: logistic(seed, n=1500, slope=1.2),
    "ordinal": ordinal,
    "blobs": lambda seed: make_blobs(1000, 10, centers=4, cluster_std=4.0, random_state=seed),
    "ten blobs": lambda seed: make_blobs(1500, 20, centers=10, cluster_std=5.0, random_state=seed),
    "circles": lambda seed: make_circles(1000, noise=0.1, factor=0.5, random_state=seed),
    "checkerboard": checkerboard,
    "quadratic": quadratic,
    "rather wide": lambda seed: linear(seed, n=600, d=40, used=10),
    "tree": tree,
    "spirals": spirals,
    "small": lambda seed: linear(seed, n=270, d=5, used=2),
    "small blobs": lambda seed: make_blobs(270, 6, centers=3, cluster_std=3.0, random_state=seed),
}


def count(name: str, kind: str, seed: int, epochs: int, *, models: Path | None = None) -> dict[str, Any]:
    """A row of the results."""
    X, _, y, _ = train_test_split(*(of_all := SETS[name](seed)), test_size=0.25, random_state=seed, stratify=of_all[1])
    X = StandardScaler().fit_transform(X).astype(np.float32)
    X, y, corrupt = DIRT[kind](X, y, np.random.default_rng(seed))
    key = f"{name} {kind} {seed} {epochs}"
    model = kept(models, key, lambda: BlockGMDClassifier(max_epochs=epochs, random_state=seed).fit(X, y))
    found = estimate_n_suspects(model)
    without = suspects_in(model.sample_record_, fits_all=model.strength_ == "mild").estimate[0]
    right = int(corrupt[find_suspects(model)].sum())
    peer = kept(models, f"{key} cleanlab", lambda: confident_joint(X, y, seed, epochs))
    values = (model.strength_, len(X), int(corrupt.sum()), without, *found[:3], right, peer)
    return dict(zip(COLUMNS[3:], values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--models", type=Path, help="a folder to keep fitted estimators in")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = ((name, kind, seed) for seed, kind, name in product(arguments.seeds, DIRT, SETS))
    train_missing(runs, partial(count, models=arguments.models), COLUMNS, arguments)


if __name__ == "__main__":
    main()
