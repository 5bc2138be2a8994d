"""Which score of held-out samples, as dirty as the others, picks the epoch to stop at.

A row is a training to the last epoch, with a tenth of the samples held out. It has the score on clean test data
(accuracy, or R²) of the last epoch, of the best, and of those that scores of the held-out samples pick: the best before
ten epochs bring no improvement by 1e-4. "trusted" scores weigh held-out samples by a remembered trust, Huber's weights
of their losses by the median loss of their class, with decay 0.9; the best epoch is weighted anew in each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from resume import add_options, train_missing
from scipy.special import softmax
from sklearn.datasets import load_digits, make_classification, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd._utils import limits
from skbgmd.corruption import corrupt_labels

CLASSES = {
    "digits": lambda seed: load_digits(return_X_y=True),
    "made": lambda seed: make_classification(2000, n_informative=8, n_classes=5, random_state=seed),
    "imbalanced": lambda seed: make_classification(
        3000, n_informative=8, n_classes=4, weights=[0.7, 0.15, 0.1, 0.05], random_state=seed
    ),
}
LABELS = [("clean", 0.0), ("pair", 0.2), ("pair", 0.4), ("uniform", 0.2), ("uniform", 0.4)]
TARGETS = [("clean", 0.0), ("gross", 0.2), ("gross", 0.4)]
SEEDS = range(5)
RUNS = [
    *((name, *dirt, seed) for name in CLASSES for dirt in LABELS for seed in SEEDS),
    *(("friedman1", *dirt, seed) for dirt in TARGETS for seed in SEEDS),
]
SCORES = ("bounded", "bounded_trusted", "accuracy", "accuracy_balanced", "accuracy_trusted", "log_likelihood")
SCORES += ("probability", "median_absolute", "mean_absolute", "mean_square")
COLUMNS = ("data", "corruption", "share", "seed", "last", "best", *SCORES, "bounded_epochs", "accuracy_epochs")


class Predicts(Callback):
    """Keeps what the network gives for some samples after each epoch."""

    def __init__(self, *samples):
        self.samples = samples

    def on_train_begin(self, net, **kwargs):
        self.given_ = []

    def on_epoch_end(self, net, **kwargs):
        net.module_.eval()
        with torch.no_grad():
            self.given_.append([net.module_(torch.from_numpy(X)).numpy().copy() for X in self.samples])


def picked(points, weights=None, patience=10, tol=1e-4):
    """The epoch that points of samples (n,) by epochs pick, each pair compared by the later weights; and the epochs."""
    best, misses = 0, 0
    for epoch in range(1, len(points)):
        weight = None if weights is None else weights[epoch]
        now, before = (np.average(points(epoch)[at], weights=weight) for at in (epoch, best))
        misses = 0 if now >= before + tol else misses + 1
        best = epoch if now > before else best
        if misses >= patience:
            return best, epoch + 1
    return best, len(points)


class Points:
    """Points (epochs, n) that are the same in all epochs, or are to be computed anew in each."""

    def __init__(self, values, function=None):
        self.values, self.function = values, function

    def __len__(self):
        return len(self.values)

    def __call__(self, epoch):
        return self.values if self.function is None else self.function(epoch)


def trust(losses, classes):
    """Remembered trust in samples (epochs, n)."""
    medians = np.stack([np.median(losses[:, classes == each], axis=1) for each in np.unique(classes)], axis=1)
    middle = medians[:, np.searchsorted(np.unique(classes), classes)]
    result = np.minimum(1.0, middle / np.maximum(losses, 1e-300))
    for epoch in range(1, len(result)):
        result[epoch] = 0.9 * result[epoch - 1] + 0.1 * result[epoch]
    return result


def split(X, y, dirty, seed):
    """Samples to train on, held-out ones, and their dirty targets."""
    stratify = dirty if dirty.dtype.kind == "i" else None
    return train_test_split(X, dirty, test_size=0.1, random_state=seed, stratify=stratify)


def train_classifier(name, corruption, share, seed, epochs):
    X, y = CLASSES[name](seed)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
    scaler = StandardScaler().fit(X)
    X, X_test = (scaler.transform(part).astype(np.float32) for part in (X, X_test))
    if share:
        y = corrupt_labels(y, fraction=share, kind=corruption, random_state=seed)[0]
    X, X_held, y, y_held = split(X, y, y, seed)
    keeps = Predicts(X_held, X_test)
    model = BlockGMDClassifier(max_epochs=epochs, random_state=seed, callbacks=[keeps]).fit(X, y)
    test = np.array([(given.argmax(axis=1) == y_test).mean() for _, given in keeps.given_])
    given = softmax(np.array([given for given, _ in keeps.given_], dtype=np.float64), axis=2)
    codes = np.searchsorted(model.classes_, y_held)
    p, k = given[:, np.arange(len(codes)), codes], given.shape[2]
    hits, bounded = (given.argmax(axis=2) == codes).astype(float), np.log(p + limits.LEAST_LIKELIHOOD / k)
    logarithms = np.log(np.maximum(p, 1e-12))
    trusted = trust(-logarithms, codes)
    balanced = np.tile(1.0 / np.bincount(codes, minlength=k)[codes], (len(p), 1))
    return row(
        test,
        bounded=picked(Points(bounded)),
        bounded_trusted=picked(Points(bounded), trusted),
        accuracy=picked(Points(hits)),
        accuracy_balanced=picked(Points(hits), balanced),
        accuracy_trusted=picked(Points(hits), trusted),
        log_likelihood=picked(Points(logarithms)),
        probability=picked(Points(p)),
    )


def train_regressor(name, corruption, share, seed, epochs):
    X, y = make_friedman1(1500, noise=1.0, random_state=seed)
    X_test, y_test = make_friedman1(1000, random_state=seed + 1000)
    scaler, rng = StandardScaler().fit(X), np.random.default_rng(seed)
    X, X_test = scaler.transform(X), scaler.transform(X_test)
    wrong = rng.random(len(y)) < share
    y[wrong] += 50.0 + 100.0 * rng.normal(size=wrong.sum())
    X, X_held, y, y_held = split(X, y, y, seed)
    keeps = Predicts(X_held, X_test)
    model = BlockGMDRegressor(max_epochs=2 * epochs, random_state=seed, callbacks=[keeps]).fit(X, y)
    held, given = (
        np.array([of[place][:, 0] for of in keeps.given_]) * model._scale + model._center for place in (0, 1)
    )
    test = 1.0 - ((given - y_test) ** 2).mean(axis=1) / y_test.var()
    sizes = np.abs(held - y_held)
    medians = np.median(sizes, axis=1)
    scale = np.minimum.accumulate(medians)
    bounded = Points(sizes, lambda epoch: -np.log1p((sizes / (3.0 * scale[epoch])) ** 2))
    return row(
        test,
        bounded=picked(bounded),
        bounded_trusted=picked(bounded, trust(sizes, np.zeros(len(y_held)))),
        median_absolute=picked(Points(-np.tile(medians[:, None], (1, 2)))),
        mean_absolute=picked(Points(-sizes)),
        mean_square=picked(Points(-(sizes**2))),
    )


def row(test, **picks):
    return {
        "last": f"{test[-1]:.4f}",
        "best": f"{test.max():.4f}",
        **{name: f"{test[epoch]:.4f}" for name, (epoch, _) in picks.items()},
        **{f"{name}_epochs": n for name, (_, n) in picks.items() if f"{name}_epochs" in COLUMNS},
    }


def train(name, *run):
    return (train_classifier if name in CLASSES else train_regressor)(name, *run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="of classifiers; regressors train twice as many")
    add_options(parser, Path(__file__).parent / "results" / "stopping.csv")
    train_missing(RUNS, train, COLUMNS, parser.parse_args())


if __name__ == "__main__":
    main()
