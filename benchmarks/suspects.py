"""Who finds the bad rows: areas under the ROC curve of rankings of training samples, on known corruptions.

Each row of results/suspects.csv is one data set, one corruption of 20 % of its samples, and one seed. "find_suspects"
is the ranking of that function after a training by default, which looks at the lengths of inputs as well, and "trust"
is ``sample_trust_`` alone, by two limits of Huber's mean; cleanlab ranks by the probability of the given label, out of
sample, of the same perceptron trained plainly; the detectors of outliers see the features alone.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanlab.rank import get_label_quality_scores
from measure import environment
from per_sample import DATA
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import RobustScaler
from tqdm import tqdm

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import GaussianNoise, corrupt_labels
from skbgmd.inspection import find_suspects, sample_losses

RESULTS = Path(__file__).resolve().parent / "results" / "suspects.csv"
FRACTION = 0.2
CORRUPTIONS = ("labels", "backdoor", "features", "features and labels")
PLAIN = {"aggregator": "mean", "group_size": None}


def corrupted(X: Any, y: Any, kind: str, seed: int) -> tuple[Any, Any, Any]:
    """Features, labels, and which samples were corrupted."""
    hit = np.zeros(len(y), dtype=bool)
    if "labels" in kind or kind == "backdoor":
        backdoor = kind == "backdoor"
        y, changed = corrupt_labels(
            y,
            fraction=FRACTION,
            kind="backdoor" if backdoor else "uniform",
            target=y.max() if backdoor else None,
            random_state=seed,
        )
        hit |= changed
    if "features" in kind:
        noisy = GaussianNoise(FRACTION, std=3.0, random_state=seed).fit_transform(X)
        hit |= (noisy != X).any(axis=1)
        X = noisy
    return X, y, hit


def trust(X: Any, y: Any, seed: int, huber: float = 1.0) -> Any:
    model = BlockGMDClassifier(group_size=1, huber=huber, max_epochs=50, random_state=seed).fit(X, y)
    return -model.sample_trust_


def suspects(X: Any, y: Any, seed: int) -> Any:
    model = BlockGMDClassifier(max_epochs=50, random_state=seed).fit(X, y)
    order = find_suspects(model, fraction=1.0)
    ranks = np.zeros(len(y))
    ranks[order] = np.arange(len(order), 0, -1)
    return ranks


def plain_loss(X: Any, y: Any, seed: int) -> Any:
    return sample_losses(BlockGMDClassifier(max_epochs=50, random_state=seed, **PLAIN).fit(X, y), X, y)


def cleanlab(X: Any, y: Any, seed: int) -> Any:
    model = BlockGMDClassifier(max_epochs=50, random_state=seed, **PLAIN)
    probabilities = cross_val_predict(model, X, y, cv=5, method="predict_proba")
    return -get_label_quality_scores(np.searchsorted(np.unique(y), y), probabilities)


def forest(X: Any, y: Any, seed: int) -> Any:
    return -IsolationForest(random_state=seed).fit(X).score_samples(X)


def envelope(X: Any, y: Any, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return -EllipticEnvelope(random_state=seed).fit(X).score_samples(X)


FINDERS: dict[str, Callable[[Any, Any, int], Any]] = {
    "find_suspects": suspects,
    "trust, huber=1": trust,
    "trust, huber=2": partial(trust, huber=2.0),
    "plain loss": plain_loss,
    "cleanlab": cleanlab,
    "IsolationForest": forest,
    "EllipticEnvelope": envelope,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work = [
        (data, kind, seed)
        for seed in range(arguments.seeds)
        for data in DATA
        if data != "Fashion-MNIST"
        for kind in CORRUPTIONS
    ]
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["data", "corruption", "seed", *FINDERS, *environment()])
        writer.writeheader()
        for data, kind, seed in tqdm(work):
            X, y = DATA[data](seed)
            X = RobustScaler(unit_variance=True).fit_transform(X).clip(-10.0, 10.0)
            X, y, hit = corrupted(X.astype(np.float32), y, kind, seed)
            areas = {name: round(float(roc_auc_score(hit, find(X, y, seed))), 4) for name, find in FINDERS.items()}
            writer.writerow({"data": data, "corruption": kind, "seed": seed, **areas, **environment()})
            file.flush()


if __name__ == "__main__":
    main()
