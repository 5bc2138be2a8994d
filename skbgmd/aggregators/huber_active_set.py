"""Huber's mean by an active set: norms, one sum, and products of the few rows that may be far."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.memory import Scale
from skbgmd.location.median import lower_weighted_median
from skbgmd.rows import Rows
from skbgmd.rows.gram import clip_factors


class HuberActiveSet(NamedTuple):
    """Huber's mean, with its weights and the scale for the next step.

    Attributes
    ----------
    vector : tensor of shape (d,)
    weights : ndarray of shape (n,)
        Weights of the rows, which add up to one.
    scale : Scale
        For the next step.
    """

    vector: torch.Tensor
    weights: FloatArray
    scale: Scale


def huber_active_set(
    rows: Rows, huber: float, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> HuberActiveSet | None:
    r"""Huber's mean for a remembered scale, without the Gram matrix of all rows; None where that doesn't suffice.

    A row of norm :math:`|x_i| \le c M - |y|` is within :math:`c M` of the estimate :math:`y`, and counts in full. The
    others, and the sum of all rows, leave a problem in their inner products. The scale :math:`M` must not depend on
    this step: as long as the median distance to a mean of clipped rows, at most the sum of the median norm and that
    mean's, doesn't raise the remembered scale, it decays.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber, rejection, before, tol, max_iter
        As in :func:`skbgmd.aggregators.huber_mean.huber_weights_about_median`; rows are left out by their distance to a
        mean of clipped rows.
    """
    limit = before.decayed
    if limit == 0.0 or before.is_rising:
        return None
    norms, weights = rows.norms(), rows.weights
    reach, near = huber * limit, (huber if rejection is None else min(huber, rejection)) * limit
    largest = limits.SQUARED_RANGE[torch.float32][1]
    if not norms.max(initial=0.0) <= largest or not _are_few(norms > near, weights):
        return None
    clipped = weights * clip_factors(reach, norms)
    whole = float(clipped.sum())
    mean = rows.weighted_sum(clipped / whole)
    length = float(torch.linalg.vector_norm(mean))
    typical = lower_weighted_median(norms, weights) + length
    if typical > limit:
        # That was an upper bound; the distances take another pass.
        squares = norms**2 - 2.0 * rows.inner_products(mean) + length**2
        typical = float(lower_weighted_median(np.sqrt(np.maximum(squares, 0.0)), weights))
    after = before.update(typical)
    may_be_far = norms + limits.MEAN_SLACK * length > near
    # A larger distance would count in later steps, so it has to be measured.
    if not (typical <= limit and after.value <= limit and _are_few(may_be_far, weights)):
        return None
    far = np.flatnonzero(may_be_far)
    if not len(far):
        # None is clipped.
        return HuberActiveSet(mean, weights / whole, after)
    few = rows.subset(far)
    products = few.gram()
    if products.unit != 1.0 or products.shrinkage is not None:
        return None
    line = _Line((whole * length) ** 2, whole * few.inner_products(mean), products.products, whole)
    out = np.inf if rejection is None else rejection * limit
    kept = np.where(line.distances(np.zeros(len(far))) <= out, weights[far], 0.0)
    change = _settled(line, kept, clipped[far], reach, tol=tol / len(norms), max_iter=max_iter)
    if not norms[~may_be_far].max(initial=0.0) + line.length(change) <= near:
        return None
    new = whole + float(change.sum())
    result = clipped / new
    result[far] = (clipped[far] + change) / new
    # One pass over all columns.
    return HuberActiveSet(few.weighted_sum(change / new).add_(mean, alpha=whole / new), result, after)


def _are_few(chosen: NDArray[np.bool_], weights: FloatArray) -> bool:
    few = np.count_nonzero(chosen) <= limits.FAR_SHARE * len(chosen)
    return bool(few and weights[chosen].sum() <= limits.FAR_SHARE * weights.sum())


class _Line(NamedTuple):
    """Mean of all rows as a function of the weights of a few, by their inner products.

    Attributes
    ----------
    square : float
        Squared norm of the sum of all rows by their first weights.
    inner_products : ndarray of shape (k,)
        Its products with the few.
    products : ndarray of shape (k, k)
        Their own.
    weight : float
        The first weights of all rows, added up.
    """

    square: float
    inner_products: FloatArray
    products: FloatArray
    weight: float

    def distances(self, change: FloatArray) -> FloatArray:
        """Distances of the few to the mean, after a change of their weights, (k,)."""
        whole = self.weight + change.sum()
        to_mean = (self.inner_products + self.products @ change) / whole
        result: FloatArray = np.sqrt(
            np.maximum(np.diagonal(self.products) - 2.0 * to_mean + self.length(change) ** 2, 0.0)
        )
        return result

    def length(self, change: FloatArray) -> float:
        """Norm of the mean."""
        square = self.square + float(change @ (2.0 * self.inner_products + self.products @ change))
        return math.sqrt(max(square, 0.0)) / (self.weight + float(change.sum()))


def _settled(
    line: _Line, weights: FloatArray, first: FloatArray, reach: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Iterate the weights of the few to Huber's about the mean that they make; returns their changes."""
    change = weights * clip_factors(reach, line.distances(np.zeros(len(first)))) - first
    for _ in range(max_iter - 1):
        before, change = change, weights * clip_factors(reach, line.distances(change)) - first
        if np.abs(change - before).max() <= tol * line.weight:
            break
    return change
