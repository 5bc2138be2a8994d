"""Images to train, validate and test with, checked to be what they are said to be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from paper.cases import Setting
from skbgmd.inspection.datasets import load_cifar10, load_fashion_mnist

#: SHA-256 of all pixels and labels: of the whole data, or of the first 10,000 and 2,000 images of CIFAR-10.
CHECKSUMS = {
    "fashion-mnist": {"ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f"},
    "cifar-10": {"71b06bdc3880d701ac1207cdf4acb177bdfd1d6225ea2798c77e191caebafaec"},
}


@dataclass(frozen=True)
class Images:
    """Images and labels to train on and to score with; whose they are, where there are clients."""

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    clients: Any = None


def load(setting: Setting, *, folder: Path | None, validate: bool, n_validation: int, seed: int) -> Images:
    """The data of a setting; to validate, training images that it doesn't train on take the test images' place."""
    parts = _checked(setting.data, folder)
    X, y, X_test, y_test = parts
    n = min(setting.n_train, len(X) - n_validation)
    if validate:
        X_test, y_test = X[n : n + n_validation], y[n : n + n_validation]
    X, y = X[:n], y[:n]
    clients = _clients(y, setting.rows, seed) if setting.heterogeneous else None
    return Images(X, y, X_test, y_test, clients)


def _clients(y: Any, n_clients: int, seed: int) -> Any:
    """Clients whose samples are half of two classes of their own, and half of all."""
    rng = np.random.RandomState(seed)
    own = (y + rng.randint(0, 2, size=len(y))) % n_clients
    return np.where(rng.rand(len(y)) < 0.5, own, rng.randint(0, n_clients, size=len(y)))


def check(name: str, parts: tuple[Any, ...]) -> None:
    """Refuse data other than those that the results are of.

    Raises
    ------
    ValueError
        The checksum is another.
    """
    if name not in CHECKSUMS:
        return
    found = checksum(parts)
    if found not in CHECKSUMS[name]:
        raise ValueError(
            f"The files of {name} must be the published ones, with a checksum among {CHECKSUMS[name]}; found {found}."
        )


def checksum(parts: tuple[Any, ...]) -> str:
    """SHA-256 of images and labels as bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(np.round(part * 255) if part.ndim > 1 else part, dtype=np.uint8).tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)
def _checked(name: str, folder: Path | None) -> tuple[Any, ...]:
    parts = _loaded(name, folder)
    check(name, parts)
    return parts


def _loaded(name: str, folder: Path | None) -> tuple[Any, ...]:
    if name == "fashion-mnist":
        return load_fashion_mnist()
    if name == "cifar-10":
        return load_cifar10(folder)
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = (X / 16.0).astype(np.float32)
        return X[:1200], y[:1200], X[1200:], y[1200:]
    return _shapes()


def _shapes() -> tuple[Any, ...]:
    """Noise with a bright bar at one of ten places, to try a network for images on."""
    rng = np.random.RandomState(0)
    y = rng.randint(0, 10, size=400)
    X = 0.3 * rng.rand(400, 3, 32, 32).astype(np.float32)
    for image, label in zip(X, y, strict=True):
        image[:, :, 3 * label : 3 * label + 3] += 0.7
    return X[:300], y[:300], X[300:], y[300:]
