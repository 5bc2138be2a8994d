"""This checkout against another one: calls timed in turns, each checkout in a process of its own.

``python benchmarks/commits.py ../before`` writes results/commits.csv: for each case the median time of either; the
median ratio of each pair of processes, and of these the median, the least and the largest.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
COLUMNS = ("case", "before, ms", "now, ms", "ratio", "least", "largest", "processes", "rounds")


def cases() -> dict[str, Callable[[], Any]]:
    """Calls to time, of some tenths of a second each; of whichever checkout is imported."""
    import torch
    from sklearn.datasets import load_digits, make_classification

    from skbgmd import BlockGMDClassifier, BlockGMDRegressor, block_geometric_median, geometric_median
    from skbgmd import RobustNeuralNetClassifier as Net

    rng = np.random.default_rng(0)

    def perceptron() -> Any:
        sizes = (784, 512, 256)
        layers = [layer for n, m in pairwise(sizes) for layer in (torch.nn.Linear(n, m), torch.nn.ReLU())]
        return torch.nn.Sequential(*layers, torch.nn.Linear(256, 10))

    def lenet() -> Any:
        """As in :class:`skbgmd.training.networks.LeNet`, which has had other places."""
        return torch.nn.Sequential(
            *(torch.nn.Conv2d(1, 64, 5), torch.nn.MaxPool2d(2), torch.nn.ReLU()),
            *(torch.nn.Conv2d(64, 64, 5), torch.nn.MaxPool2d(2), torch.nn.ReLU(), torch.nn.Flatten()),
            *(torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(1024, 10)),
        )

    def with_outliers(n: int, d: int, dtype: Any = np.float64) -> Any:
        X = rng.normal(size=(n, d)).astype(dtype)
        X[: 3 * n // 10] += 100.0
        return X

    def repeat(call: Callable[[], Any], times: int) -> Callable[[], Any]:
        return lambda: [call() for _ in range(times)]

    def training_rule(huber: float | None) -> Any:
        from skbgmd import aggregators

        if "location" not in inspect.signature(aggregators.BlockGeometricMedian).parameters:  # as it was once
            return aggregators.BlockGeometricMedian(1.0, block="unit", huber=huber, rejection=10.0, tol=1e-4)
        if huber is None:
            return aggregators.GeometricMedian(rejection=10.0, tol=1e-4)
        return aggregators.HuberMean(huber, rejection=10.0, remember=True, tol=1e-4)

    def steps(module: Any, shape: tuple[int, ...], huber: float | None) -> Callable[[], Any]:
        generator = torch.Generator().manual_seed(0)
        X, y = torch.randn((256, *shape), generator=generator), torch.randint(10, (256,), generator=generator)
        rule = training_rule(huber)
        net = Net(module, criterion=torch.nn.CrossEntropyLoss, aggregator=rule, group_size=1, verbose=0).initialize()

        def step() -> None:
            net.train_step((X, y))
            net.aggregator_.commit()

        return repeat(step, 8)

    X, y = load_digits(return_X_y=True)
    digits = (X / 16).astype(np.float32), y
    X, y = make_classification(10_000, 30, n_informative=10, random_state=0)
    wide, numbers = (X.astype(np.float32), y), (X.astype(np.float32), X[:, 0])
    rows = with_outliers(32, 116_000, np.float32)
    fit = partial(BlockGMDClassifier, random_state=0)
    return {
        "median, 100 x 2": repeat(partial(geometric_median, with_outliers(100, 2)), 400),
        "median, 10,000 x 2": repeat(partial(geometric_median, with_outliers(10_000, 2)), 40),
        "median, 1000 x 100": repeat(partial(geometric_median, with_outliers(1000, 100)), 60),
        "median, 32 x 116,000": repeat(partial(geometric_median, rows), 40),
        "block, 32 x 116,000": repeat(partial(block_geometric_median, rows), 40),
        "step, perceptron, default": steps(perceptron, (784,), 2.0),
        "step, perceptron, median": steps(perceptron, (784,), None),
        "step, LeNet, default": steps(lenet, (1, 28, 28), 2.0),
        "fit, digits, default": lambda: fit(max_epochs=20).fit(*digits),
        "fit, digits, beta=0.1": lambda: fit(max_epochs=20, beta=0.1).fit(*digits),
        "fit, digits, groups of 8": lambda: fit(max_epochs=20, group_size=8).fit(*digits),
        "fit, digits, plain": lambda: fit(max_epochs=40, aggregator="mean").fit(*digits),
        "fit, 10,000 x 30, default": lambda: fit(max_epochs=5).fit(*wide),
        "fit, 10,000 x 30, regressor": lambda: BlockGMDRegressor(max_epochs=5, random_state=0).fit(*numbers),
    }


def serve(threads: int) -> None:
    """Time the cases that are asked for, a line each."""
    import torch

    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    calls = cases()
    print(*calls, sep="\t", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        calls[line.strip()]()
        print(time.perf_counter() - start, flush=True)


class Checkout:
    """A process that times calls of one checkout."""

    def __init__(self, folder: Path, threads: int) -> None:
        paths = os.pathsep.join([str(folder), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, str(HERE / "commits.py"), "--serve", "--threads", str(threads)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        self.cases = self.process.stdout.readline().strip().split("\t")

    def time(self, case: str) -> float:
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=5, help="pairs of processes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "commits.csv")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.threads)
    from measure import environment

    folders = (arguments.before.resolve(), HERE.parent)
    times: dict[str, list[list[tuple[float, float]]]] = {}
    for _ in range(arguments.processes):
        before, now = (Checkout(folder, arguments.threads) for folder in folders)
        for case in now.cases:
            if arguments.case in case:
                times.setdefault(case, []).append(list(turns(before, now, case, arguments.rounds)))
        for checkout in (before, now):
            checkout.process.stdin.close()
            checkout.process.wait()
    around = environment()
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        writer.writeheader()
        for case, of_processes in times.items():
            seconds = np.concatenate([np.array(rounds) for rounds in of_processes])
            # One process is up to some per cent quicker than another of the same code: a ratio for each pair of them.
            ratios = [float(np.median(pair[:, 1] / pair[:, 0])) for pair in map(np.array, of_processes)]
            values = (case, *(1e3 * np.median(seconds, axis=0)), np.median(ratios), min(ratios), max(ratios))
            row = dict(zip(COLUMNS, (f"{v:.4g}" if isinstance(v, float) else v for v in values), strict=False))
            counts = {"processes": arguments.processes, "rounds": arguments.rounds}
            writer.writerow({**row, **counts, **around, "threads": arguments.threads})
            print(f"{case:30s} {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def turns(before: Checkout, now: Checkout, case: str, rounds: int) -> Iterator[tuple[float, float]]:
    """Times of a call of either checkout, in turns; the first is to warm up."""
    for turn in range(rounds + 1):
        order = (before, now) if turn % 2 else (now, before)
        taken = {checkout: checkout.time(case) for checkout in order}
        if turn:
            yield taken[before], taken[now]


if __name__ == "__main__":
    main()
