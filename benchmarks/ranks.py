"""Training across ranks with a block of the coordinates: learning rates, and accuracy where some ranks are hostile.

The ranks are simulated in one process by the pure functions of ``skbgmd.distributed``. ``grid`` trains clean for each
share of the coordinates, momentum and learning rate, with a seed of its own, and scores on images or samples that no
test uses; ``table`` trains under attack; ``processes`` repeats a few trainings of the table on gloo ranks.

The rule for learning rates, fixed before any training of the table: for each data set, number of ranks and method,
among all pairs of momentum and learning rate of the grid, those within half a point of the best mean accuracy of the
grid's seeds; of these the largest momentum, then the largest learning rate. The mean takes that of the exact geometric
median.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from measure import environment
from resume import read
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd.aggregators import Aggregator, GeometricMedian, Mean, NonFiniteRowsError, WorkerMemory
from skbgmd.distributed import BlockExchange
from skbgmd.distributed.block_exchange import choose_runs, limit_norm, magnitudes_of_runs, median_scores
from skbgmd.inspection.datasets import load_fashion_mnist
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock
from skbgmd.training.networks import MLP, LeNet

RESULTS = Path(__file__).resolve().parent / "results"
FILES = {"grid": RESULTS / "ranks_grid.csv", "table": RESULTS / "ranks.csv", "processes": RESULTS / "ranks_gloo.csv"}
GRID_COLUMNS = ("data", "ranks", "beta", "lr", "momentum", "seed", "accuracy")
TABLE_COLUMNS = ("data", "ranks", "attack", "method", "lr", "momentum", "seed", "accuracy")
#: Samples of a step, over all ranks, and steps.
BATCH, STEPS = {"digits": 128, "fashion-mnist": 64}, {"digits": 300, "fashion-mnist": 300}
#: Learning rates by momentum.
RATES = {
    "digits": {0.0: (1.6, 0.8, 0.4, 0.2), 0.9: (0.4, 0.2, 0.1, 0.05, 0.025)},
    "fashion-mnist": {0.0: (0.4, 0.2), 0.9: (0.05, 0.025)},
}
BETAS = {"digits": (1.0, 0.3, 0.1, 0.05), "fashion-mnist": (1.0, 0.1)}
GRID_SEEDS = {"digits": (100,), "fashion-mnist": (100,)}
RANKS = {"digits": (4, 8), "fashion-mnist": (4, 8)}
#: Ranks whose learning rates hold for all: a step has as many samples with more.
RANKS_OF_GRID = {"digits": (4, 8), "fashion-mnist": (4,)}
N_HOSTILE = {4: 1, 8: 3}
#: Share of the coordinates by method, None for the plain mean, and the rule.
METHODS: dict[str, tuple[float | None, Aggregator]] = {
    "mean": (None, Mean()),
    "exact geometric median": (1.0, GeometricMedian()),
    "block, beta=0.1": (0.1, GeometricMedian()),
    "exact, rejection=3": (1.0, GeometricMedian(rejection=3.0)),
    "block, rejection=3": (0.1, GeometricMedian(rejection=3.0)),
    "exact, worker memory": (1.0, WorkerMemory()),
}
#: Seeds of the table.
SEEDS = {"digits": range(3), "fashion-mnist": range(3)}
FACTOR = -10.0


def flip(rows: torch.Tensor, step: int) -> torch.Tensor:
    return rows * FACTOR


def not_a_number(rows: torch.Tensor, step: int) -> torch.Tensor:
    return rows * torch.nan


def flip_every_other_step(rows: torch.Tensor, step: int) -> torch.Tensor:
    return rows * FACTOR if step % 2 else rows


def constant_block(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Huge numbers in the same twentieth of the coordinates at every step."""
    wanted = torch.zeros_like(rows)
    wanted[:, -(rows.shape[1] // 20) :] = 1e3
    return wanted


#: What hostile ranks make of their gradients; "labels" is in the samples.
ATTACKS: dict[str, Callable[[torch.Tensor, int], torch.Tensor] | None] = {
    "none": None,
    "flip": flip,
    "nan": not_a_number,
    "labels": None,
    "flip every other step": flip_every_other_step,
    "constant block": constant_block,
}
#: In place of an attack: the hostile ranks are left out, as if it were known which they are.
ABSENT = "absent"


@lru_cache(maxsize=4)
def data_of(name: str, seed: int) -> tuple[torch.Tensor, ...]:
    """Training and test samples; for seeds of the grid, samples that no test uses."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        split = train_test_split((X / 16).astype(np.float32), y, stratify=y, random_state=seed)
        return tuple(map(torch.as_tensor, (split[0], split[2], split[1], split[3])))
    X, y, X_test, y_test = map(torch.as_tensor, load_fashion_mnist())
    return (X[:-2000], y[:-2000], X[-2000:], y[-2000:]) if seed >= 100 else (X, y, X_test[:4000], y_test[:4000])


def network(name: str, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP(64, 10) if name == "digits" else LeNet(dropout=0.0)


def block_step(
    rows: torch.Tensor,
    remainders: torch.Tensor,
    step: int,
    rule: Aggregator,
    beta: float,
    *,
    run_length: int = 64,
    round_robin: float = 0.125,
    remainder_limit: float = 3.0,
    score: Callable[[torch.Tensor], torch.Tensor] = median_scores,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of ``BlockExchange`` on all ranks: aggregate (d,), remainders (n, d) and chosen columns (k,)."""
    d = rows.shape[1]
    moved = rows + remainders
    n_chosen = -(-max(1, int(np.ceil(beta * d))) // run_length)
    finite = moved.isfinite().all(dim=1)
    magnitudes = torch.stack([magnitudes_of_runs(row, run_length) for row in moved])
    if n_chosen == magnitudes.shape[1]:
        index, limit = torch.arange(d), float("inf")
    else:
        runs = choose_runs(score(magnitudes), n_chosen, step, round_robin)
        index = CoordinateBlock(runs, run_length, d).indices
        squares = magnitudes.double().square().sum(dim=1) * run_length
        limit = remainder_limit * float(squares.nanmedian()) ** 0.5
    moved[~finite] = torch.nan
    found, _ = rule(DenseRows(moved if len(index) == d else moved[:, index]))
    aggregate = torch.zeros(d).index_copy_(0, index, found.vector)
    moved[:, index] = 0.0
    kept = [limit_norm(row, limit) if ok else old for row, ok, old in zip(moved, finite, remainders, strict=True)]
    return aggregate, torch.stack(kept), index


def shares(seed: int, n: int, batch: int, ranks: int) -> Iterator[list[torch.Tensor]]:
    """Samples of each rank, step by step."""
    rng = np.random.default_rng(seed)
    while True:
        order = torch.as_tensor(rng.permutation(n))
        for start in range(0, n - batch + 1, batch):
            yield list(order[start : start + batch].chunk(ranks))


def gradient_of(module: torch.nn.Module, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = torch.nn.functional.cross_entropy(module(X), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def gradients(
    module: torch.nn.Module, X: torch.Tensor, y: torch.Tensor, which: list[torch.Tensor], attack: str, hostile: int
) -> torch.Tensor:
    return torch.stack(
        [
            gradient_of(module, X[mine], 9 - y[mine] if attack == "labels" and rank < hostile else y[mine])
            for rank, mine in enumerate(which)
        ]
    )


def accuracy_of(module: torch.nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        right = sum(
            int((module(x).argmax(dim=1) == t).sum()) for x, t in zip(X.split(1000), y.split(1000), strict=True)
        )
    return round(100.0 * right / len(y), 2)


def update(module: torch.nn.Module, optimizer: torch.optim.Optimizer, aggregate: torch.Tensor) -> None:
    parameters = list(module.parameters())
    for parameter, part in zip(parameters, aggregate.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)
    optimizer.step()


def accuracies(
    data: str,
    ranks: int,
    attack: str,
    beta: float | None,
    rule: Aggregator,
    lr: float,
    momentum: float,
    seed: int,
    steps: Sequence[int],
) -> list[float]:
    """Accuracy on test samples after so many steps, in %; that of chance once the training has diverged."""
    X, y, X_test, y_test = data_of(data, seed)
    module, hostile = network(data, seed), 0 if attack == "none" else N_HOSTILE[ranks]
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum)
    samples, found = shares(seed, len(y), BATCH[data], ranks), list[float]()
    first = hostile if attack == ABSENT else 0
    remainders, state = torch.zeros(ranks - first, sum(p.numel() for p in module.parameters())), None
    try:
        for step in range(steps[-1]):
            rows = gradients(module, X, y, next(samples)[first:], attack, hostile)
            change = ATTACKS.get(attack)
            if change is not None:
                rows[:hostile] = change(rows[:hostile], step)
            if beta is None:
                aggregate = rows.mean(dim=0)  # as plain all-reduce has it
            elif beta == 1.0:
                aggregated, state = rule(DenseRows(rows), state)
                aggregate = aggregated.vector
            else:
                aggregate, remainders, _ = block_step(rows, remainders, step, rule, beta)
            update(module, optimizer, aggregate)
            if not bool(torch.isfinite(aggregate.sum())):
                break
            if step + 1 in steps:
                found.append(accuracy_of(module, X_test, y_test))
    except NonFiniteRowsError:
        pass
    return found + [10.0] * (len(steps) - len(found))


def train(data: str, *settings: Any) -> float:
    """Accuracy at the end of a training of the table."""
    return accuracies(data, *settings, steps=(STEPS[data],))[-1]


def train_on_rank(
    rank: int,
    ranks: int,
    store: str,
    data: str,
    attack: str,
    beta: float,
    rule: Aggregator,
    lr: float,
    momentum: float,
    seed: int,
) -> None:
    """The training of one rank, by ``BlockExchange``; the first rank saves the accuracy beside the store."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", world_size=ranks, rank=rank)
    X, y, X_test, y_test = data_of(data, seed)
    module = network(data, seed)
    is_hostile = attack != "none" and rank < N_HOSTILE[ranks]
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum)
    samples, exchange = shares(seed, len(y), BATCH[data], ranks), BlockExchange(rule, beta)
    change = ATTACKS[attack]
    for step in range(STEPS[data]):
        row = gradients(module, X, y, [next(samples)[rank]], attack, int(is_hostile))
        if is_hostile and change is not None:
            row = change(row, step)
        update(module, optimizer, exchange(row[0]))
    if rank == ranks - 1:
        Path(f"{store}.accuracy").write_text(str(accuracy_of(module, X_test, y_test)), encoding="utf-8")
    dist.destroy_process_group()


def train_in_processes(data: str, ranks: int, *settings: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        torch.multiprocessing.spawn(train_on_rank, (ranks, store, data, *settings), nprocs=ranks)
        return float(Path(f"{store}.accuracy").read_text(encoding="utf-8"))


def processes(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Trainings of the table by the exact rule and by blocks, with the first seed and four ranks."""
    for row in table(names):
        if (row["ranks"], row["seed"]) == (4, 0) and METHODS[row["method"]][0] is not None:
            yield row


def grid(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for data in names:
        for n in RANKS_OF_GRID[data]:
            for seed in GRID_SEEDS[data]:
                for beta in BETAS[data]:
                    for momentum, rates in RATES[data].items():
                        for lr in rates:
                            yield {"data": data, "ranks": n, "beta": beta, "lr": lr, "momentum": momentum, "seed": seed}


def chosen_rate(data: str, ranks: int, beta: float) -> tuple[float, float]:
    """Learning rate and momentum, by the rule above."""
    found: dict[tuple[float, float], list[float]] = {}
    with FILES["grid"].open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["data"], int(row["ranks"]), float(row["beta"])) == (data, ranks, beta):
                found.setdefault((float(row["momentum"]), float(row["lr"])), []).append(float(row["accuracy"]))
    means = {setting: float(np.mean(values)) for setting, values in found.items()}
    momentum, lr = max(setting for setting, value in means.items() if value >= max(means.values()) - 0.5)
    return lr, momentum


def table(names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for data in names:
        for n in RANKS[data]:
            for seed in SEEDS[data]:
                for attack in ATTACKS:
                    for method in METHODS:
                        known = n if n in RANKS_OF_GRID[data] else RANKS_OF_GRID[data][-1]
                        lr, momentum = chosen_rate(data, known, METHODS[method][0] or 1.0)
                        row = {"data": data, "ranks": n, "attack": attack, "method": method}
                        yield {**row, "lr": lr, "momentum": momentum, "seed": seed}


TRAININGS = {"grid": grid, "table": table, "processes": processes}


def trained(what: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row with the accuracy of its training."""
    torch.set_num_threads(1)
    beta, rule = METHODS[row["method"]] if "method" in row else (row["beta"], GeometricMedian())
    settings = row.get("attack", "none"), beta, rule, row["lr"], row["momentum"], row["seed"]
    run = train_in_processes if what == "processes" else train
    return {**row, "accuracy": run(row["data"], row["ranks"], *settings), **environment()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(FILES))
    parser.add_argument("--data", choices=tuple(RANKS), default=None)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    arguments = parser.parse_args()
    path, columns = FILES[arguments.what], GRID_COLUMNS if arguments.what == "grid" else TABLE_COLUMNS
    known = {tuple(row[name] for name in columns[:-1]) for row in read(path)}
    missing = [
        row
        for row in TRAININGS[arguments.what]([arguments.data] if arguments.data else list(RANKS))
        if tuple(str(row[name]) for name in columns[:-1]) not in known
    ]
    missing.sort(key=lambda row: row["seed"])
    with path.open("a", newline="") as file, ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
        writer = csv.DictWriter(file, [*columns, *environment()])
        if not file.tell():
            writer.writeheader()
        for done in as_completed(pool.submit(trained, arguments.what, row) for row in missing):
            writer.writerow(done.result())
            file.flush()


if __name__ == "__main__":
    main()
