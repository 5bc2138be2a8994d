"""The paper's LeNet on Fashion-MNIST with gradients that are corrupt: accuracy after some epochs.

32 rows of 64 samples a step, 40 % of the rows multiplied by -100. Each training is a row of results/lenet.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import torch
from measure import environment
from tqdm import tqdm

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import BlockGeometricMedian, NonFiniteRowsError
from skbgmd.corruption import BitFlip
from skbgmd.inspection.datasets import load_fashion_mnist
from skbgmd.training.networks import LeNet

RESULTS = Path(__file__).resolve().parent / "results" / "lenet.csv"
COLUMNS = (
    "rule",
    "corruption",
    "epochs",
    "lr",
    "accuracy",
    "seconds",
    "aggregation seconds an epoch",
    "seed",
    "remark",
)
#: Rules by name: parameters of the estimator.
RULES: dict[str, dict[str, Any]] = {
    "SGD": {"aggregator": "mean"},
    "BGMD with rejection": {"rejection": 10.0},
    "BGMD without rejection": {"rejection": None},
    "BGMD with nearest-neighbour mixing": {"rejection": None, "pre_aggregation": "nearest"},
    "BGMD as published": {"aggregator": BlockGeometricMedian.published(random_state=0)},
    "geometric median": {"aggregator": "geometric_median"},
}
#: What is run: a rule and whether gradients are corrupt.
TRAININGS = [("SGD", False), ("BGMD with rejection", False), *((rule, True) for rule in RULES)]


def train(rule: str, corrupt: bool, *, epochs: int, lr: float, seed: int, device: str) -> dict[str, Any]:
    X, y, X_test, y_test = load_fashion_mnist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = LeNet()
    model = BlockGMDClassifier(
        module,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        lr=lr,
        batch_size=2048,
        group_size=64,
        beta=0.1,
        block="coordinate",
        max_epochs=epochs,
        gradient_corruption=BitFlip(0.4) if corrupt else None,
        device=device,
        random_state=seed,
        **RULES[rule],
    )
    row = {
        "rule": rule,
        "corruption": "40 % bit flip -100" if corrupt else "none",
        "epochs": epochs,
        "lr": lr,
        "seed": seed,
    }
    try:
        model.fit(X, y)
    except NonFiniteRowsError:
        return {**row, "remark": "diverged: gradients overflowed"}
    history = model.history_
    return {
        **row,
        "accuracy": round(100.0 * float(model.score(X_test, y_test)), 2),
        "seconds": round(sum(history[:, "dur"])),
        "aggregation seconds an epoch": round(sum(history[:, "aggregation_time"]) / epochs, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "lr": arguments.lr, "seed": arguments.seed, "device": arguments.device}
    around = environment()
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *around])
        writer.writeheader()
        for rule, corrupt in tqdm(TRAININGS):
            writer.writerow({**train(rule, corrupt, **settings), **around})
            file.flush()


if __name__ == "__main__":
    main()
