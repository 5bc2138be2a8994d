"""The experiment of ``python -m skbgmd``: one network, three kinds of corruption, four ways to combine gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.parallel import Parallel, delayed

from skbgmd._utils import limits
from skbgmd._utils.starting import interrupts_held_back
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.corruption import BitFlip, GaussianNoise, GradientCorruption, corrupt_labels
from skbgmd.inspection.datasets import load_fashion_mnist
from skbgmd.training.classifier import BlockGMDClassifier
from skbgmd.training.networks import LeNet


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes
    ----------
    parameters : dict
        Parameters of ``BlockGMDClassifier`` that make it.
    meaning : str
        Its description.
    """

    parameters: dict[str, Any]
    meaning: str


#: Ways to train, by the names of the table's columns.
METHODS = {
    "plain training": Method({"aggregator": "mean"}, "the mean of the gradients, as in any other training loop"),
    "geometric median": Method(
        {"aggregator": "geometric_median", "group_size": 8},
        "that of the gradients of groups of 8 samples, a classic rule against Byzantine workers",
    ),
    "paper's BGMD": Method(
        {"aggregator": "bgmd_paper", "group_size": 8},
        'the paper\'s algorithm to the letter, aggregator="bgmd_paper", on groups of 8 samples as well',
    ),
    "skbgmd's default": Method(
        {}, "BlockGMDClassifier() as it comes: it judges single samples; held-out ones choose how strictly"
    ),
}
#: Kinds of corruption, and their descriptions. Features that are less wrong do little harm: with a standard deviation
#: of 10 in 40 % of the samples, plain training classifies 95.5 % correctly (one seed, 1,000 samples).
KINDS = {
    "labels": "samples labeled as the class after their own",
    "features": "samples with Gaussian noise of standard deviation 100 added to features that lie in [0, 1]",
    "gradients": "gradients, of groups or samples, multiplied by -100, drawn at each step",
}
CLEAN = "nothing"
FRACTIONS = (0.2, 0.4)
#: Accuracy of a guess: the data have ten classes.
CHANCE = 0.1


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
    seed : int
        Seed of all that was random.
    accuracy : float
        Share of the clean test samples that are classified correctly; NaN: the parameters grew beyond all bounds.
    seconds : float
        Processor time of the training, which other programs hardly lengthen.
    """

    kind: str
    fraction: float
    method: str
    seed: int
    accuracy: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """True where the parameters grew beyond all bounds."""
        return math.isnan(self.accuracy)


#: Parameters of ``BlockGMDClassifier`` by data. For a network of images they are Adam's own learning rate in torch, and
#: the fewest epochs that let held-out samples choose.
TRAININGS: dict[str, dict[str, Any]] = {
    "digits": {},
    "fashion-mnist": {"module": LeNet, "lr": 0.001, "max_epochs": 20},
}


def digits(seed: int) -> Data:
    """Load scikit-learn's handwritten digits: 768 training samples, which are three batches, and 1,029 test samples.

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
        (X / 16.0).astype(np.float32), y.astype(np.int64), train_size=768, stratify=y, random_state=seed
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
        return GaussianNoise(fraction, std=100.0, random_state=seed).fit_transform(X), y, None
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
    data: Mapping[int, Data],
    training: Mapping[str, Any],
    *,
    fractions: Sequence[float] = FRACTIONS,
    n_jobs: int | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> list[Outcome]:
    """Train by each method under each corruption with each seed, and test on clean samples.

    With one seed all methods start from the same parameters and see the same samples in the same order, equally
    corrupt. The outcomes but for their times are the same whatever ``n_jobs`` is.

    Parameters
    ----------
    data : mapping of int to Data
        Clean samples by seed.
    training : mapping of str to object
        Parameters of ``BlockGMDClassifier`` for all methods.
    fractions : sequence of float, default=(0.2, 0.4)
        Shares that are corrupt; clean data come on top.
    n_jobs : int or None, default=None
        Number of processes; None: one for each core, and at most 8.
    progress : callable
        Called after each of the ``len(cases(fractions)) * len(METHODS) * len(data)`` trainings.

    Returns
    -------
    list of Outcome
        By corruption, method and seed, in the order of ``cases``, ``METHODS`` and ``data``.
    """
    keys = [(*case, method, seed) for case, method, seed in product(cases(fractions), METHODS, data)]
    if n_jobs is None:
        n_jobs = min(effective_n_jobs(-1), limits.DEMONSTRATION_PROCESSES)
    # Arrays that are shared by processes would be read-only by default, of which torch warns.
    parallel = Parallel(n_jobs=n_jobs, batch_size=1, mmap_mode="c", return_as="generator_unordered")
    outcomes, found = {}, None
    try:
        if n_jobs != 1:
            _start_tracker()
        # Processes that are started meanwhile never get interrupts: who started them ends them.
        with nullcontext() if n_jobs == 1 else interrupts_held_back():
            # The last are the longest: begun first, they let all processes end at about the same time.
            found = parallel(delayed(_outcome)(data[key[-1]], training, *key) for key in reversed(keys))
        for outcome in found:
            outcomes[outcome.kind, outcome.fraction, outcome.method, outcome.seed] = outcome
            progress()
    except BaseException as error:
        if found is not None:
            # A generator that is only dropped warns of the trainings that it ends.
            found.throw(error)
        raise
    return [outcomes[key] for key in keys]


def _start_tracker() -> None:
    """Start joblib's tracker of resources, once; older versions let interrupts through when they have started it."""
    with suppress(ImportError):
        from joblib.externals.loky.backend.resource_tracker import ensure_running

        ensure_running()


def _outcome(data: Data, training: Mapping[str, Any], kind: str, fraction: float, method: str, seed: int) -> Outcome:
    X, y, attack = corrupt(kind, fraction, data.X_train, data.y_train, seed)
    threads = torch.get_num_threads()
    # Processes use the cores, and sums over threads would depend on their number.
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        model = train(X, y, training, method, attack=attack, seed=seed)
        seconds = time.process_time() - start
        accuracy = math.nan if model is None else float(model.score(data.X_test, data.y_test))
    finally:
        torch.set_num_threads(threads)
    return Outcome(kind, fraction, method, seed, accuracy, seconds)


def described(training: Mapping[str, Any]) -> str:
    """Say by which settings all methods train.

    Parameters
    ----------
    training : mapping of str to object
        Parameters of ``BlockGMDClassifier``.

    Returns
    -------
    str
    """
    model = BlockGMDClassifier(**training)
    return (
        f"{model.optimizer.__name__}, learning rate {model.lr:g}, epochs {model.max_epochs}, batches of "
        f"{model.batch_size} samples"
    )


def train(
    X: NDArray[np.float32],
    y: NDArray[np.int64],
    training: Mapping[str, Any],
    method: str,
    *,
    attack: GradientCorruption | None = None,
    seed: int = 0,
) -> BlockGMDClassifier | None:
    """Train one network.

    Parameters
    ----------
    X : ndarray of shape (n, ...), float32
        Features.
    y : ndarray of shape (n,), int64
        Labels.
    training : mapping of str to object
        Parameters of ``BlockGMDClassifier``.
    method : str
        A key of ``METHODS``.
    attack : GradientCorruption or None, default=None
        Attack on the gradients.
    seed : int, default=0
        Seed of the first parameters, the order of the samples and the attack.

    Returns
    -------
    BlockGMDClassifier or None
        None: the parameters grew beyond all bounds.
    """
    model = BlockGMDClassifier(
        **{**training, **METHODS[method].parameters}, gradient_corruption=attack, random_state=seed
    )
    # An interrupt stops all trainings.
    model._hands_interrupts_on = True
    try:
        return model.fit(X, y)
    except NonFiniteRowsError:
        return None
