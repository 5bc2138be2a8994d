"""Kinds of dirt: a name, and a function of clean training data that says what became of them and which are corrupt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skbgmd.corruption import GaussianNoise, corrupt_labels
from skbgmd.corruption.base import draw_rows, n_corrupted

#: Noise of features, and what the features of a backdoor's trigger are set to, in standard deviations.
NOISE, TRIGGER = 10.0, 5.0
#: Features of a trigger; the last ones.
N_TRIGGER = 3
#: Share of the samples, in the order of their margins, over which the odds of a wrong label fall by the factor e.
DECAY = 0.2


class Dirty(NamedTuple):
    """Training data, and which samples are corrupt."""

    X: NDArray[Any]
    y: NDArray[Any]
    corrupted: NDArray[np.bool_]


def none(X: NDArray[Any], y: NDArray[Any], rng: Generator) -> Dirty:
    return Dirty(X, y, np.zeros(len(y), dtype=bool))


def labels(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, kind: str, share: float) -> Dirty:
    return Dirty(X, *corrupt_labels(y, fraction=share, kind=kind, random_state=rng))


def backdoor(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, share: float) -> Dirty:
    """A share of the samples of all classes but the last get its label and a trigger in their features."""
    y, changed = corrupt_labels(y, fraction=share, kind="backdoor", target=y.max(), random_state=rng)
    X = X.copy()
    X[changed, -N_TRIGGER:] = TRIGGER
    return Dirty(X, y, changed)


def near_boundary(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, share: float) -> Dirty:
    """Labels become the class that a smooth classifier takes for the most probable other, mostly where it hesitates."""
    kernel = Nystroem(n_components=min(100, len(y)), random_state=int(rng.integers(2**31)))
    model = make_pipeline(kernel, LogisticRegression(max_iter=1000)).fit(X, y)
    odds, classes = model.predict_log_proba(X), model.classes_
    samples, own = np.arange(len(y)), np.searchsorted(classes, y)
    given = odds[samples, own]
    odds[samples, own] = -np.inf
    other = odds.argmax(axis=1)
    rank = np.abs(given - odds[samples, other]).argsort().argsort() / len(y)
    # The first are a draw without replacement, with probabilities in proportion to exp(-rank / DECAY).
    order = np.argsort(rank / DECAY - rng.gumbel(size=len(y)))
    changed = np.zeros(len(y), dtype=bool)
    changed[order[: n_corrupted(share, len(y))]] = True
    return Dirty(X, np.where(changed, classes[other], y), changed)


def features(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, share: float) -> Dirty:
    noise = GaussianNoise(share, std=NOISE, random_state=rng)
    return Dirty(noise.fit_transform(X), y, noise.corrupted_)


def targets(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, share: float, one_sided: bool) -> Dirty:
    """Targets 20 to 40 standard deviations off."""
    wrong = draw_rows(np.arange(len(y)), n_corrupted(share, len(y)), rng)
    sign = 1.0 if one_sided else rng.choice((-1.0, 1.0), size=len(wrong))
    y, corrupted = y.copy(), np.zeros(len(y), dtype=bool)
    y[wrong] += 20.0 * y.std() * sign * (1.0 + rng.random(len(wrong)))
    corrupted[wrong] = True
    return Dirty(X, y, corrupted)


def both(X: NDArray[Any], y: NDArray[Any], rng: Generator, *, first: Kind, second: Kind) -> Dirty:
    """Two kinds, drawn independently."""
    X, y, before = first(X, y, rng)
    X, y, after = second(X, y, rng)
    return Dirty(X, y, before | after)


Kind = Callable[[NDArray[Any], NDArray[Any], Generator], Dirty]
NONE = "none"
OF_CLASSES: dict[str, Kind] = {
    NONE: none,
    **{
        f"{kind} {percent} %": partial(labels, kind=kind, share=percent / 100)
        for kind in ("pair", "uniform")
        for percent in (10, 20, 40)
    },
    **{f"backdoor {percent} %": partial(backdoor, share=percent / 100) for percent in (10, 20, 40)},
    "near boundary 20 %": partial(near_boundary, share=0.2),
    "features 30 %": partial(features, share=0.3),
    "features and labels 20 %": partial(
        both, first=partial(features, share=0.2), second=partial(labels, kind="uniform", share=0.2)
    ),
}
OF_TARGETS: dict[str, Kind] = {
    NONE: none,
    **{f"gross {percent} %": partial(targets, share=percent / 100, one_sided=False) for percent in (15, 30)},
    **{f"one-sided {percent} %": partial(targets, share=percent / 100, one_sided=True) for percent in (15, 30)},
    "features 30 %": partial(features, share=0.3),
    "features and targets 20 %": partial(
        both, first=partial(features, share=0.2), second=partial(targets, share=0.2, one_sided=False)
    ),
}
