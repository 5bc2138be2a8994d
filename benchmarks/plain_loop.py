"""A training loop in plain PyTorch on digits with wrong labels: ``backward`` against ``robust_backward``.

Rows of results/plain_loop.csv, accuracies on clean test data by rule, corruption and seed, and a table of their means
and standard deviations in docs/results.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import environment
from paper.report import DOCS, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skbgmd import robust_backward
from skbgmd.aggregators import BlockGeometricMedian, HuberMean
from skbgmd.corruption import corrupt_labels
from skbgmd.ghost import GradientRecorder

RESULTS = Path(__file__).resolve().parent / "results" / "plain_loop.csv"
SEEDS, EPOCHS = 5, 60
HUBER = HuberMean(1.0, rejection=10.0, remember=True, tol=1e-4)
RULES = {
    "losses.mean().backward()": None,
    '"auto"': "auto",
    "HuberMean(1.0, ...)": HUBER,
    "BlockGeometricMedian(0.1, HuberMean(1.0, ...))": BlockGeometricMedian(0.1, HUBER, block="unit"),
    '"geometric_median"': "geometric_median",
}
WRONG = {"nothing": (0.0, "uniform"), "20 %, the next class": (0.2, "pair"), "40 %, any class": (0.4, "uniform")}


def train(rule: object, fraction: float, kind: str, seed: int) -> float:
    """Accuracy in % of one training."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(X)
    X, X_test = (torch.from_numpy(scaler.transform(values).astype(np.float32)) for values in (X, X_test))
    y = corrupt_labels(y, fraction=fraction, kind=kind, random_state=seed)[0]
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.Adam(net.parameters())
    recorder, state = GradientRecorder(net), None
    for _ in range(EPOCHS):
        for images, labels in DataLoader(TensorDataset(X, torch.from_numpy(y)), batch_size=100, shuffle=True):
            with recorder:
                losses = nn.functional.cross_entropy(net(images), labels, reduction="none")
            optimizer.zero_grad()
            if rule is None:
                losses.mean().backward()
            else:
                _, state = robust_backward(losses, recorder, rule, state)
            optimizer.step()
    return 100.0 * float((net(X_test).argmax(dim=1).numpy() == y_test).mean())


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        {"rule": name, "wrong labels": wrong, "seed": seed, "accuracy": round(train(rule, *what, seed), 2)}
        for name, rule in RULES.items()
        for wrong, what in WRONG.items()
        for seed in range(SEEDS)
    ]
    frame = pd.DataFrame(rows)
    frame.assign(epochs=EPOCHS, **environment()).to_csv(RESULTS, index=False)
    found = frame.groupby(["rule", "wrong labels"], sort=False)["accuracy"].agg(["mean", "std"])
    table = found.apply(lambda line: f"{line['mean']:.1f} ± {line['std']:.1f}", axis=1).unstack()[list(WRONG)]
    write(table.loc[list(RULES)].reset_index(), "plain_loop", DOCS)


if __name__ == "__main__":
    main()
