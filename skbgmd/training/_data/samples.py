"""Training samples with their weights and clients, between an estimator's arrays and a net's batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from skorch import NeuralNet
from skorch.dataset import Dataset

from skbgmd._utils import limits
from skbgmd._utils.checks import as_ids, as_targets, refuse_masks_and_dates
from skbgmd._utils.columns import naming_columns
from skbgmd.training._data.inputs import cast_to, is_sparse, n_samples, sparse_width, take


@dataclass(frozen=True)
class Samples:
    """Samples to train on.

    Attributes
    ----------
    X : array or sparse matrix of shape (m, ...), several of them, or Items
    y : ndarray of shape (m,) or (m, n_outputs)
    weight : ndarray of shape (m,), or None
        Positive float64 weights; None: all one.
    clients, ids : ndarray of shape (m,), or None
    source : ndarray of shape (n,), int64
        For each sample that was given, its place among these; -1: it has no weight.
    every_client : ndarray of shape (k,), or None
        Ids of all clients that were given, those without weight and on other ranks included; None: those of these.
    """

    X: Any
    y: NDArray[Any]
    weight: NDArray[np.float64] | None
    clients: NDArray[Any] | None
    ids: NDArray[Any] | None
    source: NDArray[np.int64]
    every_client: NDArray[Any] | None = None

    def dataset_of(self, net: NeuralNet) -> Dataset:
        """A dataset of the kind that a net makes, whose batches come with the weights and clients; it has the ids."""
        dataset = net.get_dataset(self.X, self.y)
        # One of the user's own may keep them otherwise.
        dataset.inputs = self.X
        dataset.sample_weight, dataset.clients, dataset.sample_id = self.weight, self.clients, self.ids
        dataset.every_client = self.every_client
        # Whatever batches are made by.
        dataset.knows_samples = True
        return dataset

    def among(self, n: int, chosen: NDArray[np.intp] | None) -> Samples:
        """The same samples, where what was given are those at some places among n; None: all."""
        if chosen is None:
            return self
        source = np.full(n, -1, dtype=np.int64)
        source[chosen] = self.source
        return replace(self, source=source)

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers (..., m) of the samples here as numbers (..., n) of those given; NaN where one has no weight."""
        return np.where(self.source >= 0, values[..., self.source], np.nan)


def drop_and_merge(
    X: Any,
    y: NDArray[Any],
    weight: NDArray[np.float64] | None,
    clients: NDArray[Any] | None,
    ids: NDArray[Any] | None = None,
    *,
    merge: bool,
) -> Samples:
    """Leave out samples without weight, and merge equal ones, adding up their weights.

    Merged, a sample of weight two is the same training as the sample twice. What equals what takes a sort of whole
    samples, so it is meant for few of them; afterwards they are in an order that doesn't depend on the given one.
    """
    n = len(y)
    # Batches are lines of it.
    X = np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X
    kept = np.arange(n)
    source = kept.astype(np.int64)
    if weight is not None and not weight.all():
        kept = np.flatnonzero(weight)
        source = np.full(n, -1, dtype=np.int64)
        source[kept] = np.arange(len(kept))
        X, y, weight = take(X, kept), y[kept], weight[kept]
        clients, ids = (None if values is None else values[kept] for values in (clients, ids))
    # Samples with ids of their own are to be told apart.
    if merge and ids is None:
        keys = [X, y] if clients is None else [X, y, np.unique(clients, return_inverse=True)[1].reshape(-1)]
        _, first, inverse = np.unique(_ranks(keys), return_index=True, return_inverse=True)
        total = np.bincount(inverse, weights=weight, minlength=len(first)).astype(np.float64)
        source[kept] = inverse
        X, y = X[first], y[first]
        clients = None if clients is None else clients[first]
        weight = None if np.all(total == total[0]) else total
    return Samples(X, y, weight, clients, ids, source)


def _ranks(keys: Sequence[Any]) -> NDArray[np.intp]:
    """Places (n,) of samples in their lexicographic order, equal ones at the same, by columns of several arrays.

    Columns are looked at until all samples differ: a sort by all of them at once takes long where they are many.
    """
    n = keys[0].shape[0]
    ranks = np.zeros(n, dtype=np.intp)
    for key in keys:
        # Columns of zeros say nothing.
        columns = key[:, np.unique(key.tocoo().col)].tocsc() if is_sparse(key) else key.reshape(n, -1)
        start, width = 0, limits.FIRST_SORTED_COLUMNS
        while start < columns.shape[1] and ranks.max() < n - 1:
            part = columns[:, start : start + width]
            part = part.toarray() if is_sparse(part) else part
            lines = np.column_stack([ranks, part.astype(np.float64)])
            ranks = np.unique(lines, axis=0, return_inverse=True)[1].reshape(-1)
            start, width = start + width, 2 * width
    return ranks


def unique_or_none(ids: NDArray[Any] | None) -> NDArray[Any] | None:
    """Different ids, in sorted order; None where there are none."""
    return None if ids is None else np.unique(ids)


def check_weights(sample_weight: ArrayLike | None, X: Any) -> NDArray[np.float64] | None:
    """Sample weights as float64, or None.

    Raises
    ------
    TypeError
        Names, dates or durations; tensors that don't hold real numbers.
    ValueError
        Of a wrong shape, negative, not finite, masked, or all zero.
    """
    if sample_weight is None:
        return None
    refuse_masks_and_dates(sample_weight, "sample_weight")
    if isinstance(sample_weight, (str, Mapping)):
        raise TypeError(
            f"sample_weight must be numbers, one a sample, such as compute_sample_weight('balanced', y) of "
            f"sklearn.utils.class_weight; found {sample_weight!r}."
        )
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(X), float(sample_weight))
    given = as_targets(sample_weight, "sample_weight")
    with np.errstate(over="ignore"), naming_columns(given, "sample_weight"):
        weight: NDArray[np.float64] = check_array(
            given, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight"
        )
    if weight.shape != (len(X),):
        raise ValueError(f"sample_weight must have shape ({len(X)},); found shape {weight.shape}.")
    if (weight < 0.0).any():
        raise ValueError(f"sample_weight must not be negative; found {weight.min():g}.")
    if not weight.any():
        raise ValueError("sample_weight must have a positive entry; found only zeros.")
    return moderate(weight)


def moderate(weight: NDArray[np.float64], factor: float | NDArray[np.float64] = 1.0) -> NDArray[np.float64]:
    """Weights (n,) times a factor, and by a power of two that lets their sums be finite, where it takes one.

    Examples
    --------
    >>> weight = np.array([1.0, 2.0])
    >>> moderate(weight, 3.0)
    array([3., 6.])
    >>> found = moderate(1e308 * (weight / 2.0), 1e308)
    >>> bool(np.isfinite(found.sum())), found / found.max()
    (True, array([0.5, 1. ]))
    """
    one, exponents = np.frexp(weight)
    other, more = np.frexp(np.asarray(factor, dtype=np.float64))
    mantissas, powers = one * other, exponents + more
    beyond = max(0, int(powers[mantissas > 0.0].max(initial=0)) - limits.WEIGHT_EXPONENT)
    if not beyond:
        product: NDArray[np.float64] = weight * factor
        return product
    # What is nothing beside the others may become zero.
    with np.errstate(under="ignore"):
        scaled: NDArray[np.float64] = np.ldexp(mantissas, powers - beyond)
    return scaled


def weights_of_score(sample_weight: Any) -> Any:
    """Weights for a score of scikit-learn's, which checks them; such as can be added up, where they are finite.

    Raises
    ------
    TypeError, ValueError
        As :func:`skbgmd._utils.checks.refuse_masks_and_dates` does.
    """
    refuse_masks_and_dates(sample_weight, "sample_weight")
    given = as_targets(sample_weight, "sample_weight")
    numbers = np.asarray(given)
    if numbers.ndim != 1 or numbers.dtype != np.float64:
        return given
    return moderate(numbers) if len(numbers) and (numbers >= 0.0).all() and np.isfinite(numbers).all() else given


def check_ids(ids: ArrayLike | None, name: str, X: Any) -> NDArray[Any] | None:
    """Ids of clients or of samples, one a sample, or None.

    Raises
    ------
    TypeError
        Ids that can't be sorted.
    ValueError
        Of a wrong shape, masked or missing.
    """
    if ids is None:
        return None
    checked = as_ids(ids, name)
    if len(checked) != (n := n_samples(X)):
        raise ValueError(f"{name} must have shape ({n},); found shape {checked.shape}.")
    return checked


def check_of_samples(
    X: Any,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    sample_id: ArrayLike | None,
    clients: ArrayLike | None,
) -> tuple[NDArray[np.float64] | None, NDArray[Any] | None, NDArray[Any] | None]:
    """Weights, ids of clients and ids of the samples X, checked by :func:`check_weights` and :func:`check_ids`.

    Raises
    ------
    ValueError
        Both ``clients`` and ``groups``, which is another name of it, are given.
    """
    if groups is not None and clients is not None:
        raise ValueError("One of clients and groups, another name of it, may be given to fit; found both.")
    weight, name = check_weights(sample_weight, X), "clients" if groups is None else "groups"
    return weight, check_ids(clients if groups is None else groups, name, X), check_ids(sample_id, "sample_id", X)


def cast(X: Any, network: torch.nn.Module) -> Any:
    """X in the dtype of a network's parameters; integers stay for one that embeds them, and of several inputs."""
    embeds = any(isinstance(layer, (torch.nn.Embedding, torch.nn.EmbeddingBag)) for layer in network.modules())
    return cast_to(X, _dtype_of(network), keeps_integers=embeds)


def predicted_at_once(X: Any) -> int:
    """Samples of data like X that are predicted at once: where inputs are sparse fewer, which become dense."""
    width = sparse_width(X)
    return max(1, min(limits.PREDICTED_SAMPLES, limits.DENSE_ELEMENTS // max(1, width)))


def _dtype_of(network: torch.nn.Module) -> np.dtype[Any]:
    found = {parameter.dtype for parameter in network.parameters() if parameter.dtype.is_floating_point}
    if found == {torch.bfloat16}:
        raise ValueError(
            "module must have parameters of a dtype that NumPy has; found bfloat16. Train in float32, under autocast."
        )
    if found == {torch.float16}:
        return np.dtype(np.float16)
    return np.dtype(np.float64 if torch.float64 in found else np.float32)


def network_of(net: NeuralNet) -> torch.nn.Module:
    """The module of a net that is initialized, whatever its name; all as one where none of several is ``module_``."""
    if hasattr(net, "module_"):
        network: torch.nn.Module = net.module_
        return network
    modules: list[torch.nn.Module] = [getattr(net, f"{name}_") for name in net._modules]
    return modules[0] if len(modules) == 1 else torch.nn.ModuleList(modules)


def in_dtype_of(network: torch.nn.Module, samples: Samples) -> Samples:
    """Samples whose numbers, and targets that are numbers, are in the dtype of a network's parameters."""
    y = samples.y if samples.y.dtype.kind != "f" else samples.y.astype(_dtype_of(network), copy=False)
    return replace(samples, X=cast(samples.X, network), y=y)
