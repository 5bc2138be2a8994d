"""The experiment of ``python -m skbgmd``: one network, three kinds of corruption, six rules to combine gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from skbgmd.aggregators import BlockGeometricMedian, NonFiniteRowsError
from skbgmd.corruption import BitFlip, GaussianNoise, GradientCorruption, corrupt_labels
from skbgmd.inspection.datasets import load_fashion_mnist
from skbgmd.training.classifier import BlockGMDClassifier
from skbgmd.training.networks import LeNet

#: Rules by the names that they are known by: stochastic gradient descent is the mean. The last is the estimators'
#: default, whose rows are single samples; the others' are groups.
METHODS: dict[str, dict[str, Any]] = {
    "SGD": {"aggregator": "mean"},
    "coordinate median": {"aggregator": "coordinate_median"},
    "geometric median": {"aggregator": "geometric_median"},
    "BGMD, published": {"aggregator": BlockGeometricMedian.published(random_state=0)},
    "BGMD, groups": {"beta": 0.1, "block": "coordinate"},
    "BGMD": {"group_size": 1},
}
#: Kinds of corruption, and their descriptions.
KINDS = {
    "gradients": "groups (or samples) whose gradient is multiplied by -100, drawn at each step",
    "features": "samples with Gaussian noise of standard deviation 10 added to features that lie in [0, 1]",
    "labels": "samples labeled as the class after their own",
}
CLEAN = "nothing"
FRACTIONS = (0.2, 0.4)

Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Data:
    """Clean samples.

    Attributes
    ----------
    X_train : ndarray of shape (n_train, ...), float32
        In [0, 1].
    y_train : ndarray of shape (n_train,), int64
    X_test : ndarray of shape (n_test, ...), float32
    y_test : ndarray of shape (n_test,), int64
    """

    X_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


@dataclass(frozen=True)
class Training:
    """Settings of a training, the same for all rules.

    Attributes
    ----------
    module : Module class or None
        The network; None: a perceptron with one hidden layer.
    lr : float
        Learning rate of plain gradient steps.
    epochs : int
        Passes over the data.
    batch_size, group_size : int
        Samples of a step, and of each of the gradients that are combined in it.
    """

    module: Any
    lr: float
    epochs: int
    batch_size: int = 50
    group_size: int = 2


@dataclass(frozen=True)
class Outcome:
    """Result of one training.

    Attributes
    ----------
    kind : str
        Kind of corruption: a key of ``KINDS``, or ``CLEAN``.
    fraction : float
        Share of it that was.
    method : str
        A key of ``METHODS``.
    accuracy : float
        Share of the clean test samples that are classified correctly; NaN: the parameters grew beyond all bounds.
    seconds : float
        Time of the training.
    """

    kind: str
    fraction: float
    method: str
    accuracy: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """True where the parameters grew beyond all bounds."""
        return math.isnan(self.accuracy)


# Learning rates were chosen for plain SGD on clean data; no robust rule was looked at. On digits it is the best in
# cross-validation. An epoch of Fashion-MNIST gives the same accuracy on 5,000 held-out training images from 0.1 to 0.6.
TRAININGS = {"digits": Training(None, lr=1.0, epochs=8), "fashion-mnist": Training(LeNet, lr=0.1, epochs=1)}


def digits(seed: int) -> Data:
    """Load scikit-learn's handwritten digits: 1,000 training and 797 test samples.

    Parameters
    ----------
    seed : int
        Seed of the split.

    Returns
    -------
    Data
    """
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        (X / 16.0).astype(np.float32), y.astype(np.int64), train_size=1000, stratify=y, random_state=seed
    )
    return Data(X_train, y_train, X_test, y_test)


def fashion_mnist(folder: Path | None = None) -> Data:
    """Load Fashion-MNIST, from a folder or from Debian's package.

    Parameters
    ----------
    folder : Path or None, default=None
        As for :func:`skbgmd.inspection.datasets.load_fashion_mnist`.

    Returns
    -------
    Data
    """
    return Data(*load_fashion_mnist(folder))


def subset(data: Data, n: int, seed: int) -> Data:
    """Keep n training samples, drawn at random; all of them where there are no more.

    Parameters
    ----------
    data : Data
        Samples to draw from; the test samples stay.
    n : int
        Number of samples to keep.
    seed : int
        Seed of the draw.

    Returns
    -------
    Data
    """
    kept = np.random.default_rng(seed).permutation(len(data.X_train))[:n]
    return Data(data.X_train[kept], data.y_train[kept], data.X_test, data.y_test)


def corrupt(
    kind: str, fraction: float, X: NDArray[np.float32], y: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], GradientCorruption | None]:
    """Corrupt training samples, or make the attack that corrupts gradients.

    Parameters
    ----------
    kind : str
        A key of ``KINDS``, or ``CLEAN``.
    fraction : float
        Share of the samples, or of the gradients in each step.
    X : ndarray of shape (n, ...)
        Features, in [0, 1].
    y : ndarray of shape (n,)
        Labels.
    seed : int
        Seed of the draws.

    Returns
    -------
    X : ndarray of shape (n, ...)
    y : ndarray of shape (n,)
    attack : GradientCorruption or None
        Attack on the gradients in training.
    """
    if kind == "gradients":
        return X, y, BitFlip(fraction, scale=-100.0)
    if kind == "features":
        return GaussianNoise(fraction, std=10.0, random_state=seed).fit_transform(X), y, None
    if kind == "labels":
        return X, corrupt_labels(y, fraction=fraction, kind="pair", random_state=seed)[0], None
    return X, y, None


def cases(fractions: Sequence[float] = FRACTIONS) -> list[tuple[str, float]]:
    """Kinds and fractions of corruption in the order of the table; clean data, which all kinds share, come first.

    Parameters
    ----------
    fractions : sequence of float, default=(0.2, 0.4)
        Positive shares.

    Returns
    -------
    list of (str, float)
    """
    return [(CLEAN, 0.0), *((kind, fraction) for kind in KINDS for fraction in fractions)]


def run(
    data: Data,
    training: Training,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    progress: Progress = lambda samples: None,
) -> Iterator[Outcome]:
    """Train by each rule under each corruption, and test on clean samples.

    All rules start from the same parameters and see the same samples in the same order, equally corrupt.

    Parameters
    ----------
    data : Data
        Clean samples.
    training : Training
        Settings of the training.
    fractions : sequence of float, default=(0.2, 0.4)
        Shares that are corrupt; clean data come on top.
    seed : int, default=0
        Seed of all that is random.
    progress : callable
        Called with numbers of samples that were gone through; in all
        ``len(cases(fractions)) * len(METHODS) * epochs * n_train``.

    Yields
    ------
    Outcome
        One at a time, as they come.
    """
    for kind, fraction in cases(fractions):
        X, y, attack = corrupt(kind, fraction, data.X_train, data.y_train, seed)
        for method in METHODS:
            start = time.perf_counter()
            model = train(X, y, training, method, attack=attack, seed=seed, progress=progress)
            seconds = time.perf_counter() - start
            accuracy = math.nan if model is None else float(model.score(data.X_test, data.y_test))
            yield Outcome(kind, fraction, method, accuracy, seconds)


def train(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    training: Training,
    method: str,
    *,
    attack: GradientCorruption | None = None,
    seed: int = 0,
    progress: Progress = lambda samples: None,
) -> BlockGMDClassifier | None:
    """Train one network.

    Parameters
    ----------
    X : ndarray of shape (n, ...), float32
        Features.
    y : ndarray of shape (n,), int64
        Labels.
    training : Training
        Settings of the training.
    method : str
        A key of ``METHODS``.
    attack : GradientCorruption or None, default=None
        Attack on the gradients.
    seed : int, default=0
        Seed of the first parameters, the order of the samples and the attack.
    progress : callable
        As for :func:`run`.

    Returns
    -------
    BlockGMDClassifier or None
        None: the parameters grew beyond all bounds.
    """
    counter = _Counter(progress)
    model = BlockGMDClassifier(
        training.module,
        optimizer=torch.optim.SGD,
        lr=training.lr,
        max_epochs=training.epochs,
        batch_size=training.batch_size,
        gradient_corruption=attack,
        callbacks=[("counter", counter)],
        random_state=seed,
        **{"group_size": training.group_size, **METHODS[method]},
    )
    # An interrupt stops all trainings.
    model._hands_interrupts_on = True
    try:
        model.fit(X, y)
    except NonFiniteRowsError:
        progress(training.epochs * len(X) - counter.samples)
        return None
    return model


class _Counter(Callback):
    """Count the samples of each step."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.samples = progress, 0

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.samples += len(batch[1])
            self.progress(len(batch[1]))
