"""Huber's M-estimate of location: near rows count in full, far rows by their direction."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.typing import FloatArray
from skbgmd.location.spaces import GramSpace
from skbgmd.rows.gram import Gram, clip_factors


def huber_weights(
    gram: Gram, weights: FloatArray, distances: FloatArray, limit: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Weights of Huber's location estimate; they add up to one.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows.
    weights, distances : ndarray of shape (n,)
        Row weights, none of them negative; distances to a robust first estimate.
    limit : float
        Distance from which a row's weight falls.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    space = GramSpace(gram, weights)
    # Rows that coincide lie as far apart as their products are rounded: no shorter length means anything.
    limit = max(limit, gram.resolution)
    current = _weights_at(distances, weights, limit)
    # At a limit of zero only rows at the first estimate count, and a rounded mean of them may be at none.
    for _ in range(max_iter - 1 if limit > 0.0 else 0):
        before, current = current, _weights_at(space.distances_to_mean(current), weights, limit)
        if np.abs(current - before).max() * len(current) <= tol:
            break
    return gram.restore(current)


def _weights_at(distances: FloatArray, weights: FloatArray, limit: float) -> FloatArray:
    result: FloatArray = weights * clip_factors(limit, distances)
    result /= result.sum()
    return result
