"""Clients of very different size, each in turn hostile: what its weight lets it do, by the cap of claims.

The sizes are 17,834, 9,000, 4,000, 2,500, 1,000 and 190, one client with more than half of all samples and one with
half a percent; digits are dealt out in these proportions, and claimed are the sizes. The hostile client sends its
update times -3. Every training is a row of results/flower_sizes.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flower
import numpy as np
import torch
from flwr.serverapp.strategy import FedAvg
from resume import add_options, train_missing

from skbgmd.aggregators import GeometricMedian, HuberMean, Mean
from skbgmd.distributed.client_weights import cap_claims
from skbgmd.distributed.flower import RobustFedAvg

RESULTS = Path(__file__).resolve().parent / "results" / "flower_sizes.csv"
COLUMNS = ("hostile", "rule", "claims", "seed", "share", "accuracy", "seconds", "remark", "rounds", "flwr")
SIZES = np.array([17_834, 9_000, 4_000, 2_500, 1_000, 190])
CLAIMS = {"as claimed": None, "capped at the median": 1.0, "equal": 0.0}
RULES = {
    "mean": Mean(),
    "geometric median": GeometricMedian(rejection=3.0),
    "mean, rejection 3": HuberMean(c=3.0, rejection=3.0),
}


def train(hostile: str, rule: str, claims: str, seed: int, rounds: int) -> dict[str, Any]:
    """One row of the results; the share is the hostile client's in a plain mean with these claims, in %."""
    data = flower.split_digits(seed)
    order = np.random.default_rng(seed).permutation(len(data[2]))
    parts = np.split(order, np.cumsum(np.round(SIZES / SIZES.sum() * len(order)).astype(int))[:-1])
    at = np.empty(0, dtype=int) if hostile == "none" else np.flatnonzero(np.isin(SIZES, int(hostile)))
    strategy: FedAvg = RobustFedAvg(RULES[rule], max_claim=CLAIMS[claims], memory=None)
    weights = cap_claims(SIZES.astype(float), CLAIMS[claims])
    found = flower.federate(strategy, data, parts, SIZES, "sign flip", at, seed, rounds)
    return {"share": round(100.0 * float(weights[at].sum() / weights.sum()), 1), **found}


def trainings(seeds: int) -> Iterator[tuple[str, str, str, int]]:
    for seed in range(seeds):
        for hostile in ("none", *map(str, SIZES)):
            for rule in RULES:
                for claims in CLAIMS:
                    yield hostile, rule, claims, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="rounds")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing(trainings(arguments.seeds), train, COLUMNS, arguments)


if __name__ == "__main__":
    main()
