"""Trusted samples and redundant gradients: what Zeno and votes withstand on digits, and what a call of them costs.

Trainings are a row each of results/redundancy.csv; run again it goes on where it was. The costs are process times over
those of the geometric median, in turns, in results/redundancy_cost.csv.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from digits import digits
from measure import environment, ratio
from paper.report import DOCS, write
from resume import add_options, train_missing

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import (
    Aggregate,
    Aggregator,
    GeometricMedian,
    MajorityVote,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    Zeno,
)
from skbgmd.corruption import GRADIENT_CORRUPTIONS
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results" / "redundancy.csv"
COST = RESULTS.with_name("redundancy_cost.csv")
COLUMNS = ("attack", "percent", "rule", "seed", "accuracy", "seconds", "remark")
NO_ATTACK = "none"
ATTACKS = (NO_ATTACK, "sign_flip", "a_little_is_enough", "inner_product")
N_TRUSTED, ROUNDS = 100, 30


class Redundant(Aggregator):
    """Rows that come r times each, of which some are attacked, and their vote."""

    def __init__(self, r: int, inner: Aggregator, attack: Any = None) -> None:
        self.r, self.inner, self.attack = r, inner, attack

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def __call__(self, rows: Any, state: Any = None) -> tuple[Aggregate, Any]:
        every = rows.matrix.repeat_interleave(self.r, dim=0)
        if self.attack is not None:
            self.attack.apply_(every)
        aggregate, state = MajorityVote(self.r, self.inner)(DenseRows(every), state)
        return Aggregate(aggregate.vector), state


#: Rules that all rows are given to, told 45 % or 65 %; votes by the number of copies and the rule for the winners.
RULES: dict[str, Any] = {
    "mean": lambda trusted, fraction: Mean(),
    "geometric median": lambda trusted, fraction: GeometricMedian(),
    "mixing, geometric median": lambda trusted, fraction: NearestNeighborMixing(GeometricMedian()),
    "Zeno": lambda trusted, fraction: Zeno(trusted=trusted, fraction=fraction),
}
VOTES: dict[str, tuple[int, Aggregator]] = {
    "vote of 3, mean": (3, Mean()),
    "vote of 9, mean": (9, Mean()),
    "vote of 3, geometric median": (3, GeometricMedian()),
}
#: Rules for a majority of corrupt rows.
OF_MAJORITY = ("geometric median", "Zeno")


def train(attack: str, percent: int, rule: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the results."""
    X, X_test, y, y_test = digits(seed)
    made = None if attack == NO_ATTACK else GRADIENT_CORRUPTIONS[attack](fraction=percent / 100)
    if rule in VOTES:
        if made is not None:
            made.set_params(random_state=np.random.RandomState(seed))
        (r, inner), made, seen = VOTES[rule], None, made
        aggregator: Aggregator = Redundant(r, inner, seen)
    else:
        chosen = np.random.default_rng(seed).permutation(len(y))[:N_TRUSTED]
        aggregator = RULES[rule]((X[chosen], y[chosen]), 0.65 if percent > 50 else 0.45)
    model = BlockGMDClassifier(
        hidden_layer_sizes=(100,),
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.1,
        batch_size=256,
        group_size=8,
        aggregator=aggregator,
        gradient_corruption=made,
        max_epochs=epochs,
        random_state=seed,
    )
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # half of the rows or more, and trainings that diverge
            model.fit(X, y)
    except NonFiniteRowsError:
        return {"remark": "diverged"}
    accuracy = round(100.0 * float(model.score(X_test, y_test)), 2)
    return {"accuracy": accuracy, "seconds": round(time.process_time() - start, 2)}


def trainings(seeds: int) -> Iterator[tuple[str, int, str, int]]:
    for seed in range(seeds):
        for rule in (*RULES, *VOTES):
            for attack in ATTACKS:
                yield attack, 0 if attack == NO_ATTACK else 40, rule, seed
        for rule in OF_MAJORITY:
            for attack in ATTACKS[1:]:
                yield attack, 60, rule, seed


def costs() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Rules and a call of each on 34 rows, 33 for votes, as wide as a perceptron of 784, 126 and 10 units."""
    network = torch.nn.Sequential(torch.nn.Linear(784, 126), torch.nn.ReLU(), torch.nn.Linear(126, 10))
    sizes = [parameter.numel() for parameter in network.parameters()]
    rows = torch.randn(34, sum(sizes), generator=torch.Generator().manual_seed(0))
    thrice = rows[:11].repeat_interleave(3, dim=0)
    corrupt = thrice.clone()
    corrupt[::3] *= -1.0

    def loss(X: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def oracle(displacement: torch.Tensor) -> torch.Tensor:
            parts = torch.split(displacement, sizes)
            moved = {
                name: parameter + part.view_as(parameter)
                for (name, parameter), part in zip(network.named_parameters(), parts, strict=True)
            }
            with torch.no_grad():
                return torch.nn.functional.cross_entropy(torch.func.functional_call(network, moved, (X,)), y)

        return oracle

    def call(rule: Aggregator, matrix: torch.Tensor) -> Callable[[], Any]:
        return lambda: rule(DenseRows(matrix))

    yield "geometric median", call(GeometricMedian(), rows)
    yield "mean", call(Mean(), rows)
    yield "MajorityVote(3), no row is corrupt", call(MajorityVote(3), thrice)
    yield "MajorityVote(3), first of each three", call(MajorityVote(3), corrupt)
    yield "MajorityVote(3, rtol=1e-5)", call(MajorityVote(3, rtol=1e-5), thrice)
    for n in (4, 32, 256):
        X, y = torch.rand(n, 784), torch.arange(n) % 10
        yield f"Zeno, {n} trusted samples", call(Zeno(loss(X, y), lr=0.1), rows)


def measure_costs() -> None:
    """Process times of the calls in turns, medians of ratios to the geometric median."""
    calls = dict(costs())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if repeat:  # the first loads
                times[name].append(time.process_time() - start)
    around = environment()
    with COST.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["rule", "milliseconds", "ratio", *around])
        writer.writeheader()
        for name, own in times.items():
            over = ratio(own, times["geometric median"])
            writer.writerow(
                {"rule": name, "milliseconds": f"{1000 * np.median(own):.2f}", "ratio": f"{over:.2f}", **around}
            )


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Means and standard deviations over the seeds, a training that diverged counting as 10 %."""
    frame = frame.assign(accuracy=frame["accuracy"].where(frame["remark"] != "diverged", 10.0))
    lines = []
    told = [(40, rule) for rule in (*RULES, *VOTES)] + [(60, rule) for rule in OF_MAJORITY]
    for percent, rule in told:
        some = frame[(frame["percent"] == percent) & (frame["rule"] == rule)]
        clean = frame[(frame["percent"] == 0) & (frame["rule"] == rule)] if percent == 40 else some.iloc[:0]
        line: dict[str, Any] = {"corrupt rows, %": percent, "rule": rule}
        for attack in ATTACKS:
            scores = (clean if attack == NO_ATTACK else some[some["attack"] == attack])["accuracy"]
            line[attack] = f"{scores.mean():.1f} ± {scores.std():.1f}" if len(scores) else ""
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--cost", action="store_true", help="measure what calls cost instead")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.cost:
        measure_costs()
    else:
        train_missing(trainings(arguments.seeds), train, COLUMNS, arguments)
    if RESULTS.exists():
        write(table(pd.read_csv(RESULTS)), "redundancy", DOCS)
    if COST.exists():
        write(pd.read_csv(COST)[["rule", "ratio"]], "redundancy_cost", DOCS)


if __name__ == "__main__":
    main()
