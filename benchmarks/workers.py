"""Workers that collude: accuracy on clean data after trainings in which some of 34 workers lie, by rule and attack.

Workers are fixed, with even or skewed data of their own, or others lie at each step. Rules of the library stand beside
those of ByzFL, if that is installed (``pip install byzfl``). Every training is a row of results/workers.csv; run again
it goes on where it was.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import sys
import time
import types
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resume import add_options, train_missing
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import (
    Aggregate,
    Aggregator,
    BlockGeometricMedian,
    GeometricMedian,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    SpectralFilter,
    WorkerMemory,
    WorkerMomentum,
    get_aggregator,
)
from skbgmd.corruption import gradients as attacks
from skbgmd.inspection.datasets import load_fashion_mnist

RESULTS = Path(__file__).resolve().parent / "results" / "workers.csv"
COLUMNS = ("data", "workers", "percent", "attack", "rule", "seed", "accuracy", "seconds", "remark")
N_WORKERS, PER_WORKER, N_STEPS = 34, 8, 160
HONEST = "honest workers alone"


class FromByzFL(Aggregator):
    """A pipeline of ByzFL, told how many rows lie."""

    def __init__(self, *names: str, f: int = 13) -> None:
        self.names, self.f = names, f

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def __call__(self, rows: Any, state: Any = None) -> tuple[Aggregate, Any]:
        package, vectors = byzfl(), rows.matrix
        for name in self.names:
            vectors = getattr(package, name)(**({} if name == "GeometricMedian" else {"f": self.f}))(vectors)
        return Aggregate(vectors), None


@cache
def byzfl() -> Any:
    """ByzFL's rules, without its root, which imports torchvision."""
    root = importlib.util.find_spec("byzfl")
    package = types.ModuleType("byzfl")
    package.__path__ = list(root.submodule_search_locations or [])
    sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


#: Rules by name, with the momentum that their trainings have; those that must be told how many rows lie are told 40 %.
RULES: dict[str, Any] = {
    "mean": Mean(),
    "geometric median": GeometricMedian(),
    "block median, beta=0.1": BlockGeometricMedian(0.1),
    "spectral filter": SpectralFilter(0.4),
    "clipped spectral filter": get_aggregator("clipped_spectral_filter"),
    "mixing": NearestNeighborMixing(),
    "worker momentum, mixing": WorkerMomentum(NearestNeighborMixing()),
    "worker memory": WorkerMemory(),
    "ByzFL: NNM, TrMean": FromByzFL("NNM", "TrMean"),
    "ByzFL: ARC, NNM, GM": FromByzFL("ARC", "NNM", "GeometricMedian"),
    "ByzFL: momentum, NNM, GM": WorkerMomentum(FromByzFL("NNM", "GeometricMedian")),
}
ATTACKS: dict[str, Any] = {
    "bit flip": attacks.BitFlip(),
    "sign flip": attacks.SignFlip(),
    "label flip": attacks.LabelFlip(),
    "ALIE, z=1": attacks.ALittleIsEnough(z=1.0),
    "ALIE, z=1.5": attacks.ALittleIsEnough(),
    "ALIE, z=1, own noise": attacks.ALittleIsEnough(z=1.0, own=True),
    "inner product, 0.5": attacks.InnerProduct(epsilon=0.5),
    "inner product, 1.1": attacks.InnerProduct(),
    "min-max": attacks.MinMax(),
    "mimic": attacks.Mimic(target=N_WORKERS - 1),
    "squatter": attacks.Squatter(),
    "simplex": attacks.Simplex(),
    "shadowing": attacks.Shadowing(),
    "shadowing, z=1": attacks.Shadowing(z=1.0),
    "framing": attacks.Framing(),
    "constant vote": attacks.ConstantVote(),
    "memory filler": attacks.MemoryFiller(),
    "sleeper, then ALIE": attacks.Sleeper(attack=attacks.ALittleIsEnough(z=1.0), n_honest_steps=N_STEPS // 2),
    "searched ALIE": attacks.SearchedALittleIsEnough(),
    "searched ALIE, deviation": attacks.SearchedALittleIsEnough(objective="deviation"),
    "searched inner product": attacks.SearchedInnerProduct(),
}
WORKERS = ("even", "skewed", "fresh")


class SmallCNN(nn.Module):
    """Two convolutions on images of 14 x 14."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (1, 14)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layers(X)


@cache
def samples(data: str, seed: int) -> tuple[Any, ...]:
    if data == "digits":
        X, y = load_digits(return_X_y=True)
        return tuple(train_test_split((X / 16).astype(np.float32), y, test_size=0.25, random_state=seed, stratify=y))
    X, y = load_fashion_mnist()[:2]
    X = np.asarray(X, dtype=np.float32).reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    X = (X - X.mean()) / X.std()
    return tuple(train_test_split(X, y, train_size=6000, test_size=3000, random_state=seed, stratify=y))


def shards(y: Any, skewed: bool, rng: np.random.RandomState) -> Any:
    """Whose sample it is: dealt out evenly, or each class by a Dirichlet distribution of concentration 0.5."""
    owner = np.empty(len(y), dtype=np.int64)
    if not skewed:
        owner[rng.permutation(len(y))] = np.arange(len(y)) % N_WORKERS
        return owner
    for label in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == label))
        cuts = (np.cumsum(rng.dirichlet(np.full(N_WORKERS, 0.5)))[:-1] * len(own)).astype(int)
        for worker, part in enumerate(np.split(own, cuts)):
            owner[part] = worker
    for worker in np.setdiff1d(np.arange(N_WORKERS), owner):  # none is without samples
        owner[rng.randint(len(y))] = worker
    return owner


def train(data: str, workers: str, percent: int, attack: str, rule: str, seed: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = samples(data, seed)
    rng = np.random.RandomState(seed + 100)
    owner = None if workers == "fresh" else shards(y, workers == "skewed", rng)
    # The last one is never corrupt: others copy it.
    liars = np.sort(rng.permutation(N_WORKERS - 1)[: int(percent / 100 * N_WORKERS)])
    if rule == HONEST and owner is not None:
        kept = ~np.isin(owner, liars)
        X, y, owner = X[kept], y[kept], owner[kept]
    corruption = None
    if attack != "none":
        corruption = attacks.get_gradient_corruption(ATTACKS[attack])
        corruption = type(corruption)(**corruption.get_params(deep=False))
        corruption.set_params(fraction=percent / 100, corrupt=None if owner is None else [int(i) for i in liars])
        if isinstance(corruption, attacks.Sleeper):
            inner = type(corruption.attack)(**corruption.attack.get_params())
            corruption.set_params(attack=inner.set_params(fraction=percent / 100))
    aggregator = Mean() if rule == HONEST else RULES[rule]
    has_momentum = isinstance(aggregator, WorkerMomentum)
    batch = N_WORKERS * PER_WORKER
    per_epoch = -(-len(y) // batch) if owner is None else -(-np.bincount(owner).max() // PER_WORKER)
    is_image = data != "digits"
    rate = 0.05 if is_image else 0.1
    model = BlockGMDClassifier(
        SmallCNN if is_image else None,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.0 if has_momentum else 0.9,
        lr=10.0 * rate if has_momentum else rate,
        batch_size=batch if owner is None else PER_WORKER,
        group_size=PER_WORKER,
        aggregator=aggregator,
        gradient_corruption=corruption,
        max_epochs=max(1, round((1.5 if is_image else 1.0) * N_STEPS / per_epoch)),
        random_state=seed,
        **({} if is_image else {"hidden_layer_sizes": (100,)}),
    )
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a training that diverges says so at every step
            model.fit(X, y, groups=owner)
    except (NonFiniteRowsError, ValueError) as error:
        if isinstance(error, ValueError) and "finite" not in str(error) and "NaN" not in str(error):
            raise
        return {"remark": "diverged"}
    accuracy = round(100.0 * float(model.score(X_test, y_test)), 2)
    return {"accuracy": accuracy, "seconds": round(time.perf_counter() - start, 2)}


def trainings(
    data: list[str], kinds: list[str], names: list[str], rules: list[str], percents: list[int], seeds: list[int]
) -> Iterator[tuple[Any, ...]]:
    for seed in seeds:
        for name in data:
            for workers in kinds:
                for percent in percents:
                    if workers != "fresh":
                        yield name, workers, percent, "none", HONEST, seed
                    for attack in names:
                        for rule in rules:
                            yield name, workers, percent, attack, rule, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits,fashion-mnist")
    parser.add_argument("--percent", default="40")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--workers", default=",".join(WORKERS))
    parser.add_argument("--attacks", help="those whose names match a regular expression", default="")
    parser.add_argument("--rules", help="those whose names match a regular expression", default="")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [[int(x) for x in text.split(",")] for text in (arguments.percent, arguments.seeds)]
    some = [attack for attack in ("none", *ATTACKS) if re.search(arguments.attacks, attack)]
    rules = [rule for rule in RULES if re.search(arguments.rules, rule)]
    runs = trainings(arguments.data.split(","), arguments.workers.split(","), some, rules, *chosen)
    train_missing(runs, train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
