"""Long federated trainings with and without a memory of clients: what is left to remember once training has converged.

The clients, net and loop of flower.py, with 100 rounds; RobustFedAvg's default rule without memory, with one of all
rounds, and with its own, which leaves out rounds in which most updates are short (skbgmd.distributed.client_memory).
Besides label flips and false claims there are hostile clients that behave until half of the rounds are over and then
reverse their updates ("sleepers"), and such that flip labels and would have rounds left out in which they might be
found: all with three first updates of five times their length ("decoys"), and half of them with updates of zero
("idlers"). Fashion-MNIST is 3,000 of its images in 8 x 8 pixels; breast cancer has 30 features. Every training is a row
of results/flower_long.csv; run again it goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flower
import numpy as np
import torch
from resume import add_options, train_missing
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import minmax_scale

from skbgmd._utils import limits
from skbgmd.distributed.flower import RobustFedAvg
from skbgmd.inspection.datasets import load_fashion_mnist

RESULTS = Path(__file__).resolve().parent / "results" / "flower_long.csv"
COLUMNS = (
    *("data", "clients", "split", "attack", "memory", "seed"),
    *("after_30", "before", "worst", "accuracy", "honest_out", "hostile_out", "rounds"),
)
MEMORIES = ("none", "all rounds", "default")
SPLITS = ("even", "Dirichlet 0.5")
#: What is measured with each set of data and number of clients.
CASES = {
    ("digits", 10): ("none", "label flip", "false claims", "sleepers", "decoys", "idlers"),
    ("digits", 5): ("none", "label flip"),
    ("Fashion-MNIST", 10): ("none", "label flip", "sleepers"),
    ("breast cancer", 10): ("none", "label flip"),
}
#: Images of Fashion-MNIST, and rounds at the end of which clients without weight are counted.
IMAGES, COUNTED = 3000, 30


def load(data: str, seed: int, folder: Path | None) -> list[torch.Tensor]:
    """Training and test samples of 64 features, training and test labels."""
    if data == "digits":
        return flower.split_digits(seed)
    if data == "Fashion-MNIST":
        images, y, _, _ = load_fashion_mnist(folder)
        some = np.random.default_rng(seed).choice(len(y), IMAGES, replace=False)
        X, y = images[some, 0, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean(axis=(2, 4)).reshape(-1, 64), y[some]
    else:
        X, y = load_breast_cancer(return_X_y=True)
        X = np.pad(minmax_scale(X), ((0, 0), (0, 64 - X.shape[1])))
    split = train_test_split(X.astype(np.float32), y, test_size=0.25, random_state=seed, stratify=y)
    return [torch.from_numpy(part) for part in split]


def train(
    data: str, clients: int, split: str, attack: str, memory: str, seed: int, rounds: int, *, folder: Path | None
) -> dict[str, Any]:
    """One row of the results; before: accuracy where sleepers wake up, worst: the lowest one after that."""
    samples = load(data, seed, folder)
    rng = np.random.default_rng(seed)
    parts = flower.deal(samples[2].numpy(), split, rng, clients)
    n_hostile = clients * flower.HOSTILE // flower.CLIENTS if attack != "none" else 0
    hostile = rng.permutation(clients)[:n_hostile]
    claims = np.array([len(part) for part in parts])
    if attack == "false claims":
        claims[hostile] = 10**9
    strategy, short = RobustFedAvg(memory=None if memory == "none" else 0.9), limits.SHORT_UPDATE
    try:
        limits.SHORT_UPDATE = 0.0 if memory == "all rounds" else short
        found = list(flower.rounds_of(strategy, samples, parts, claims, attack, hostile, seed, rounds))
    finally:
        limits.SHORT_UPDATE = short
    scores = np.array([score for score, _ in found])
    out = np.array([[metrics[f"client-weight/{1 + i}"] == 0.0 for i in range(clients)] for _, metrics in found])
    lies, last, half = np.isin(np.arange(clients), hostile), flower.LAST, rounds // 2
    return {
        "after_30": round(scores[30 - last : 30].mean(), 2),
        "before": round(scores[half - last : half].mean(), 2),
        "worst": round(scores[half:].min(), 2),
        "accuracy": round(scores[-last:].mean(), 2),
        "honest_out": round(out[-COUNTED:, ~lies].sum(axis=1).mean(), 1),
        "hostile_out": round(out[-COUNTED:, lies].sum(axis=1).mean(), 1),
        "rounds": rounds,
    }


def trainings(seeds: int) -> Iterator[tuple[str, int, str, str, str, int]]:
    for seed in range(seeds):
        for (data, clients), attacks in CASES.items():
            for split in SPLITS:
                for attack in attacks:
                    for memory in MEMORIES:
                        yield data, clients, split, attack, memory, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100, help="rounds")
    parser.add_argument("--fashion-mnist", type=Path, help="folder of its idx files; Debian's package otherwise")
    add_options(parser, RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train_missing(trainings(arguments.seeds), partial(train, folder=arguments.fashion_mnist), COLUMNS, arguments)


if __name__ == "__main__":
    main()
