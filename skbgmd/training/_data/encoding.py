"""Validation data of the user's own, with the targets that a network learns rather than those that were given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset

from skbgmd._utils.arrays import as_real_array
from skbgmd._utils.checks import as_targets, check_targets, refuse_masks_and_dates
from skbgmd._utils.frames import as_frame
from skbgmd.aggregators import Aggregator
from skbgmd.aggregators.zeno import check_trusted
from skbgmd.training._data.inputs import described, is_sparse, is_structured
from skbgmd.training._data.loader import refuse_in, source

#: From targets as they are given to those that are learnt: codes of classes, scaled numbers.
Encoder = Callable[[NDArray[Any]], NDArray[Any]]


class EncodedSplit:
    """A ``train_split`` whose validation data, where they don't come of the training data, are encoded as these are.

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
        # What a split makes of the training data is encoded.
        if valid is None or source(train) is not source(dataset) or source(valid) is source(dataset):
            return train, valid
        refuse_in(valid, refuse_masks_and_dates)
        like = _empty(dataset, "X"), _empty(dataset, "y")
        if isinstance(valid, Dataset) and valid.y is not None:
            encoded = copy.copy(valid)
            encoded.X, encoded.y = _alike(valid.X, self.encode(np.asarray(valid.y)), *like)
            return train, encoded
        return train, _EncodedItems(valid, self.encode, like)


def encoded_trusted(
    aggregator: Aggregator, encode: Encoder, X: Any, check_columns: Callable[[Any], Any] | None = None
) -> Aggregator:
    """Encode the targets of trusted samples that a rule, or one in it, was given: in a copy, where there are any.

    Parameters
    ----------
    aggregator : Aggregator
        The rule.
    encode : callable
        Makes of targets (n, ...) those that the network learns.
    X : array or sparse matrix of shape (n, ...)
        Samples to train on, of whose shape trusted ones must be.
    check_columns : callable, default=None
        Raises a ValueError for a data frame whose columns aren't those to train on. None: these have no names.

    Raises
    ------
    ValueError
        Trusted samples of another shape, with other columns or in another order, or with labels that aren't among the
        classes.
    """
    given = {
        name: value
        for name, value in aggregator.get_params().items()
        if name.split("__")[-1] == "trusted" and value is not None
    }
    if not given:
        return aggregator
    if is_structured(X):
        raise ValueError(f"X must be one array for a rule to have trusted samples; found {described(X)}.")
    encoded: dict[str, Any] = {}
    for name, value in given.items():
        samples, y = check_trusted(value)
        # They are few, and become dense a batch at a time anyway.
        samples = samples.toarray() if is_sparse(samples) else samples
        check_targets(y, "trusted")
        if check_columns is not None and as_frame(samples) is not None:
            try:
                check_columns(samples)
            except ValueError as error:
                raise ValueError(f"trusted must have the columns of the samples to train on. {error}") from None
        numbers = as_real_array(samples, "trusted")
        if numbers.shape[1:] != X.shape[1:]:
            raise ValueError(
                f"trusted must have samples of the shape of those to train on, {X.shape[1:]}; found "
                f"{numbers.shape[1:]}."
            )
        try:
            codes = encode(np.asarray(as_targets(y, "trusted")))
        except ValueError as error:
            raise ValueError(f"trusted must have targets as those to train on. {error}") from None
        encoded[name] = _alike(numbers, codes, _no_samples(X), None)
        if not all(np.isfinite(part).all() for part in encoded[name]):
            raise ValueError("trusted must be finite; found NaN or inf.")
    twin: Aggregator = copy.deepcopy(aggregator)
    twin.set_params(**encoded)
    return twin


class _EncodedItems(torch.utils.data.Dataset[Any]):
    """A dataset whose items are encoded as they are asked for; ``like`` is data that they are to be alike."""

    def __init__(self, dataset: Any, encode: Encoder, like: tuple[Any, Any]) -> None:
        self.dataset, self.encode, self.like = dataset, encode, like

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        X, y = self.dataset[index]
        X, encoded = _alike(X, self.encode(np.asarray([y])), *self.like)
        return X, encoded[0]


def _empty(dataset: Any, name: str) -> NDArray[Any] | None:
    """No samples of a dataset's data, which tell their form; None where it doesn't hold arrays."""
    data = getattr(source(dataset), name, None)
    return _no_samples(data) if isinstance(data, np.ndarray) or is_sparse(data) else None


def _no_samples(X: Any) -> NDArray[Any]:
    none: NDArray[Any] = X[:0].toarray() if is_sparse(X) else X[:0]
    return none


def _alike(
    X: Any, y: NDArray[Any], like_X: NDArray[Any] | None, like_y: NDArray[Any] | None
) -> tuple[Any, NDArray[Any]]:
    """Numbers X in the floating point dtype of other data, and y (n, ...) in the dtype and of the shape of targets."""
    if like_X is not None and like_X.dtype.kind == "f":
        X = X if is_sparse(X) else np.asarray(X.detach().cpu() if isinstance(X, torch.Tensor) else X)
        X = X.astype(like_X.dtype, copy=False)
    return X, y if like_y is None else y.reshape(len(y), *like_y.shape[1:]).astype(like_y.dtype)
