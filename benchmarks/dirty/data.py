"""Sets of data, each a function of a seed that gives X and y; and how all of them are split and scaled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
    make_friedman1,
    make_friedman2,
    make_friedman3,
    make_gaussian_quantiles,
    make_moons,
    make_regression,
)
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skbgmd.inspection.datasets import DEBIAN_FASHION_MNIST, load_fashion_mnist

Data = tuple[NDArray[Any], NDArray[Any]]
#: Of Fashion-MNIST; the set is skipped where there is no such folder.
FOLDER = Path(os.environ.get("FASHION_MNIST", DEBIAN_FASHION_MNIST))
IMAGES = "Fashion-MNIST"
#: Share of a subgroup that follows a rule of its own.
SUBGROUP = 0.09


def digits_with_rare_classes(seed: int) -> Data:
    """Digits, a fifth of those from 0 to 4."""
    X, y = load_digits(return_X_y=True)
    kept = (y > 4) | (np.random.default_rng(seed).random(len(y)) < 0.2)
    return X[kept], y[kept]


def images(seed: int) -> Data:
    X, y, _, _ = load_fashion_mnist(FOLDER)
    some = np.random.default_rng(seed).permutation(len(X))[:5000]
    return X[some].reshape(len(some), -1), y[some]


def one_hot(seed: int) -> Data:
    """Six categories of eight levels; effects of the levels, and of the pairs of the first two categories."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(8, size=(3000, 6))
    found = rng.normal(size=(6, 8))[np.arange(6), levels].sum(axis=1)
    found += 2.0 * rng.normal(size=(8, 8))[levels[:, 0], levels[:, 1]]
    return np.eye(8)[levels].reshape(3000, -1), (found > np.median(found)).astype(int)


def bag_of_words(seed: int) -> Data:
    """Counts of sixty words; 65 % of the samples have few or none, and all without any are of one class."""
    rng = np.random.default_rng(seed)
    is_short = rng.random(3000) < 0.65
    X = rng.poisson(np.where(is_short, 0.01, 0.15)[:, None], size=(3000, 60)).astype(float)
    found = X @ rng.normal(size=60)
    return X, (found > max(0.0, np.median(found[~is_short]))).astype(int)


def logistic(seed: int) -> Data:
    """Classes that overlap: drawn by their probabilities, so that no rule is right on all samples."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, 10))
    odds = 2.0 * X @ _direction(rng, 10)
    return X, (rng.random(3000) < 1.0 / (1.0 + np.exp(-odds))).astype(int)


def _subgroup(rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Normal samples, and those of them that a shifted feature marks."""
    X = rng.normal(size=(3000, 20))
    marked = rng.random(3000) < SUBGROUP
    X[marked, 2] += 6.0
    return X, marked


def subgroups(seed: int) -> Data:
    """A subgroup whose labels are contrary to the others'."""
    X, marked = _subgroup(np.random.default_rng(seed))
    return X, ((X[:, 0] + X[:, 1] > 0.0) ^ marked).astype(int)


def subgroups_of_numbers(seed: int) -> Data:
    """A subgroup whose targets are contrary to the others'."""
    rng = np.random.default_rng(seed)
    X, marked = _subgroup(rng)
    return X, np.where(marked, -1.0, 1.0) * (X[:, 0] + X[:, 1]) + 0.1 * rng.normal(size=3000)


def _direction(rng: np.random.Generator, n_features: int) -> NDArray[Any]:
    w: NDArray[Any] = rng.normal(size=n_features)
    return w / np.linalg.norm(w)


def lognormal(seed: int) -> Data:
    """Targets with a long tail: the exponential of a linear function."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2000, 10))
    return X, np.exp(X @ _direction(rng, 10))


def zero_inflated(seed: int) -> Data:
    """Targets of which 65 % are zero and the others positive."""
    X = np.random.default_rng(seed).normal(size=(2000, 10))
    return X, 3.0 * np.maximum(X[:, 0] + X[:, 1] - 0.545, 0.0)


def heteroscedastic(seed: int) -> Data:
    """Noise that grows with a feature."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2000, 10))
    return X, 2.0 * X[:, 0] + 2.0 * np.sin(2.0 * X[:, 1]) + 0.5 * np.exp(0.7 * X[:, 2]) * rng.normal(size=2000)


def counts(seed: int) -> Data:
    """Targets drawn from Poisson distributions."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2000, 10))
    return X, rng.poisson(np.exp(0.7 * X @ _direction(rng, 10) + 1.0)).astype(float)


CLASSES: dict[str, Callable[[int], Data]] = {
    "digits": lambda seed: load_digits(return_X_y=True),
    "breast cancer": lambda seed: load_breast_cancer(return_X_y=True),
    "wine": lambda seed: load_wine(return_X_y=True),
    "iris": lambda seed: load_iris(return_X_y=True),
    "moons": lambda seed: make_moons(1500, noise=0.25, random_state=seed),
    "quantiles": lambda seed: make_gaussian_quantiles(n_samples=2000, n_features=10, n_classes=3, random_state=seed),
    "five classes": lambda seed: make_classification(
        3000, 20, n_informative=10, n_classes=5, flip_y=0.0, class_sep=1.5, random_state=seed
    ),
    "imbalanced 9:1": lambda seed: make_classification(
        2000, 20, n_informative=8, weights=[0.9], flip_y=0.0, class_sep=1.0, random_state=seed
    ),
    "imbalanced 98:2": lambda seed: make_classification(
        3000, 20, n_informative=8, weights=[0.98], flip_y=0.0, class_sep=1.0, random_state=seed
    ),
    "digits with rare classes": digits_with_rare_classes,
    "one-hot": one_hot,
    "bag of words": bag_of_words,
    "overlapping": logistic,
    "wide": lambda seed: make_classification(800, 200, n_informative=15, flip_y=0.0, class_sep=1.5, random_state=seed),
    "subgroups": subgroups,
    IMAGES: images,
}
TARGETS: dict[str, Callable[[int], Data]] = {
    "diabetes": lambda seed: load_diabetes(return_X_y=True),
    "Friedman 1": lambda seed: make_friedman1(1500, noise=1.0, random_state=seed),
    "Friedman 2": lambda seed: make_friedman2(1500, noise=50.0, random_state=seed),
    "Friedman 3": lambda seed: make_friedman3(1500, noise=0.1, random_state=seed),
    "linear": lambda seed: make_regression(1000, 10, n_informative=10, noise=10.0, random_state=seed),
    "lognormal": lognormal,
    "zero-inflated": zero_inflated,
    "heteroscedastic": heteroscedastic,
    "counts": counts,
    "subgroups of numbers": subgroups_of_numbers,
}
#: All that are there.
NAMES = [name for name in (*CLASSES, *TARGETS) if name != IMAGES or FOLDER.is_dir()]


class Split(NamedTuple):
    """Training and test data, all of it clean."""

    X: NDArray[np.float32]
    y: NDArray[Any]
    X_test: NDArray[np.float32]
    y_test: NDArray[Any]


def split(name: str, seed: int) -> Split:
    """Three quarters to train on and a quarter to test, standardised by the former.

    Numbers as targets are standardised as well, which scores don't see: networks that don't scale them are not at a
    disadvantage by their units.
    """
    of_classes = name in CLASSES
    X, y = (CLASSES | TARGETS)[name](seed)
    return standardised(X, y, seed, are_numbers=not of_classes, stratify=y if of_classes else None)


def standardised(
    X: NDArray[Any], y: NDArray[Any], seed: int, *, are_numbers: bool, stratify: NDArray[Any] | None = None
) -> Split:
    """Split data as :func:`split` does."""
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=stratify)
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X).astype(np.float32), scaler.transform(X_test).astype(np.float32)
    if are_numbers:
        y, y_test = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std()
    return Split(X, y, X_test, y_test)
