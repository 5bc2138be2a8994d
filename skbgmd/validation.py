"""Validation data of the user's own, with the targets that a network learns rather than those that were given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset

from skbgmd.batches import source

#: From targets as they are given to those that are learnt: codes of classes, scaled numbers.
Encoder = Callable[[NDArray[Any]], NDArray[Any]]


class EncodedSplit:
    """A ``train_split`` whose validation data, where they are no part of the training data, are encoded as these are.

    Parameters
    ----------
    split : callable
        A ``train_split`` as skorch takes it, such as ``skorch.helper.predefined_split(valid)``.
    encode : callable
        Makes of targets (n, ...) those that the network learns.
    """

    def __init__(self, split: Callable[..., Any], encode: Encoder) -> None:
        self.split, self.encode = split, encode

    def __call__(self, dataset: Any, y: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        train, valid = self.split(dataset, y, **kwargs)
        if valid is None or source(valid) is source(dataset):
            return train, valid
        like = source(dataset).X, source(dataset).y
        if type(valid) is Dataset and isinstance(valid.X, np.ndarray):
            return train, Dataset(*_alike(valid.X, self.encode(np.asarray(valid.y)), *like))
        return train, _EncodedItems(valid, self.encode, like)


class _EncodedItems(torch.utils.data.Dataset[Any]):
    """A dataset whose items are encoded as they are asked for; ``like`` is data that they are to be alike."""

    def __init__(self, dataset: Any, encode: Encoder, like: tuple[Any, Any]) -> None:
        # Of the data nothing but the form is kept.
        self.dataset, self.encode, self.like = dataset, encode, tuple(part[:0] for part in like)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        X, y = self.dataset[index]
        X, encoded = _alike(X, self.encode(np.asarray([y])), *self.like)
        return X, encoded[0]


def _alike(X: Any, y: NDArray[Any], like_X: NDArray[Any], like_y: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
    """Floating point X in the dtype of other data, and y (n, ...) in the dtype and of the shape of other targets."""
    floating = isinstance(X, np.ndarray) and X.dtype.kind == like_X.dtype.kind == "f"
    X = X.astype(like_X.dtype, copy=False) if floating else X
    return X, y.reshape(len(y), *like_y.shape[1:]).astype(like_y.dtype)
