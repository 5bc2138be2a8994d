"""Huber's M-estimate of location: near rows count in full, far rows by their direction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skbgmd._utils.typing import FloatArray
from skbgmd.location.spaces import GramSpace, space_of
from skbgmd.rows.gram import Gram, clip_factors
from skbgmd.rows.unformed_gram import UnformedGram


def huber_weights(
    gram: Gram | UnformedGram, weights: FloatArray, distances: FloatArray, limit: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Weights of Huber's location estimate; they add up to one.

    Parameters
    ----------
    gram : Gram or UnformedGram
        Inner products of the rows.
    weights, distances : ndarray of shape (n,)
        Row weights, none of them negative; distances to a robust first estimate.
    limit : float
        Distance from which a row's weight falls.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    # Rows that coincide lie as far apart as their products are rounded: no shorter length means anything.
    limit = max(limit, gram.resolution)
    found = iterate_huber(space_of(gram, weights), weights, distances, limit, tol=tol, max_iter=max_iter)
    return gram.restore(found.weights)


class HuberIterate(NamedTuple):
    """Iterate of Huber's location estimate.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows, which add up to one.
    settled : bool
        No weight changed by more than the tolerance in the last iteration.
    """

    weights: FloatArray
    settled: bool


def iterate_huber(
    space: GramSpace, weights: FloatArray, distances: FloatArray, limit: float, *, tol: float, max_iter: int
) -> HuberIterate:
    """Iterate Huber's weights; parameters as in :func:`huber_weights`, in a space of the rows."""
    current = _weights_at(distances, weights, limit)
    # At a limit of zero only rows at the first estimate count, and a rounded mean of them may be at none.
    for _ in range(max_iter - 1 if limit > 0.0 else 0):
        before, current = current, _weights_at(space.distances_to_mean(current), weights, limit)
        if np.abs(current - before).max() * len(current) <= tol:
            return HuberIterate(current, settled=True)
    return HuberIterate(current, settled=False)


def _weights_at(distances: FloatArray, weights: FloatArray, limit: float) -> FloatArray:
    result: FloatArray = weights * clip_factors(limit, distances)
    result /= result.sum()
    return result
