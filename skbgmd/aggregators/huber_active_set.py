"""Huber's mean by an active set: norms, one sum, and products of the few rows that may be far."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.transfer import as_tensor
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.memory import Scale
from skbgmd.rows import ChunkedRows
from skbgmd.rows.few import FewRows, Vector
from skbgmd.rows.gram import clip_factors, lower_weighted_median

#: Norms whose squares have numbers.
LEAST, LARGEST = limits.SQUARED_RANGE[torch.float32]


class HuberActiveSet(NamedTuple):
    """Huber's mean, with its weights and the scale for the next step.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows, which add up to one.
    scale : Scale
        For the next step.
    first : tensor or ndarray of shape (d,)
        A mean of all rows by weights that are nearly these.
    few : FewRows, or None
        The rows that had others; None: there are none.
    kept : float
        Factor of the first mean.
    added : ndarray of shape (k,), or None
        Weights of the few to be added.
    most_in_full : bool
        Rows of most of the weight are known to count in full.
    """

    weights: FloatArray
    scale: Scale
    first: Vector
    few: FewRows | None = None
    kept: float = 1.0
    added: FloatArray | None = None
    most_in_full: bool = False

    def vector(self) -> torch.Tensor:
        """The mean (d,), which is computed where the first one is: once only."""
        if self.few is None or self.added is None:
            return as_tensor(self.first)
        return as_tensor(self.few.add_to(self.first, self.kept, self.added))


def huber_active_set(
    rows: ChunkedRows, huber: float, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> HuberActiveSet | None:
    r"""Huber's mean for a remembered scale, without the Gram matrix of all rows; None where that doesn't suffice.

    A row of norm :math:`|x_i| \le c M - |y|` is within :math:`c M` of the estimate :math:`y`, and counts in full. The
    others, and the sum of all rows, leave a problem in their inner products. The scale :math:`M` must not depend on
    this step: as long as the median distance to a mean of clipped rows, at most the sum of the median norm and that
    mean's, doesn't raise the remembered scale, it decays. What is remembered of such a step is no more than the scale,
    so that later ones are off by what it decays in five steps, half a per cent.

    Parameters
    ----------
    rows : ChunkedRows
        The rows, all of them finite.
    huber, rejection, before, tol, max_iter
        As in :func:`skbgmd.aggregators.huber_mean.huber_weights_about_median`; rows are left out by their distance to a
        mean of clipped rows.
    """
    limit = before.decayed
    # Squares of distances must have numbers.
    if limit < limits.SQUARED_RANGE[torch.float64][0] or before.is_rising:
        return None
    norms, weights, are_equal = rows.norms(), rows.weights, rows.has_equal_weights
    reach, farthest = huber * limit, np.inf if rejection is None else rejection * max(limit, before.largest)
    near = min(reach, farthest)
    ordered = np.sort(norms)
    longest = float(ordered[-1])
    if not (longest <= LARGEST and _are_few_beyond(near, norms, ordered, weights, are_equal=are_equal)):
        return None
    clipped = weights if longest <= reach else weights * clip_factors(reach, norms)
    whole = float(np.add.reduce(clipped))
    shares = clipped / whole
    mean = rows.sum_for_few(shares)
    length = _length(mean)
    typical = float(ordered[(len(ordered) - 1) // 2]) if are_equal else lower_weighted_median(norms, weights)
    typical += length
    if typical > limit:
        if len(norms) < limits.FEWEST_MEASURED:
            return None
        # That was an upper bound; the distances take another pass.
        squares = norms**2 - 2.0 * rows.inner_products(as_tensor(mean)) + length**2
        square = float(lower_weighted_median(squares, weights))
        if square < limits.CANCELLATION * length**2:
            return None
        typical = math.sqrt(square)
        # From the median, which is not known, they may be a little longer.
        if typical * (1.0 + limits.MEASURED_MARGIN / math.sqrt(len(norms))) > limit:
            return None
    after = before.update(typical)
    # A larger distance would count in later steps, so it has to be measured.
    if not (typical <= limit and after.value <= limit):
        return None
    safe = near - limits.MEAN_SLACK * length
    if longest <= safe:
        # None is clipped.
        return HuberActiveSet(weights / whole, after, mean, most_in_full=True)
    if not _are_few_beyond(safe, norms, ordered, weights, are_equal=are_equal):
        return None
    far = (norms > safe).nonzero()[0]
    few = rows.few(far)
    products = few.products()
    if products is None:
        return None
    to_mean = few.inner_products(mean, shares)
    line = _Line((whole * length) ** 2, (2.0 * whole) * to_mean, products, products.diagonal(), whole)
    first = line.first_squares()
    kept = weights[far]
    # Of what was once the largest the square may have no number.
    kept[np.sqrt(np.maximum(first, 0.0)) > farthest] = 0.0
    change = _settled(line, kept, clipped[far], first, reach, tol=tol / len(norms), max_iter=max_iter)
    length = line.length(change)
    # Mostly it is as short as expected.
    if not safe + length <= near and not norms[norms <= safe].max(initial=0.0) + length <= near:
        return None
    new = whole + float(np.add.reduce(change))
    result, more = clipped / new, change / new
    result[far] += more
    return HuberActiveSet(result, after, mean, few, whole / new, more, most_in_full=True)


def _length(vector: Vector) -> float:
    """Norm of a vector (d,), which on a CPU NumPy has in a fraction of the time, where squares are in range."""
    if isinstance(vector, torch.Tensor) and vector.device.type != "cpu":
        return float(torch.linalg.vector_norm(vector))
    values = np.asarray(vector)
    square = float(values.dot(values))
    if LEAST**2 <= square <= LARGEST**2:
        return math.sqrt(square)
    return float(torch.linalg.vector_norm(as_tensor(vector)))


def _are_few_beyond(
    limit: float, norms: FloatArray, ordered: FloatArray, weights: FloatArray, *, are_equal: bool
) -> bool:
    """Tell whether rows beyond a limit are few, and have little of the weight; their weights may all be equal.

    The norms (n,) come in order as well.
    """
    if ordered[-1] <= limit:
        return True
    if ordered[-1 - int(limits.FAR_SHARE * len(ordered))] > limit:
        return False
    return are_equal or bool(weights[norms > limit].sum() <= limits.FAR_SHARE * weights.sum())


class _Line(NamedTuple):
    """Mean of all rows as a function of the weights of a few, by their inner products.

    Attributes
    ----------
    square : float
        Squared norm of the sum of all rows by their first weights.
    inner_products : ndarray of shape (k,)
        Twice its products with the few.
    products : ndarray of shape (k, k)
        Their own.
    squares : ndarray of shape (k,)
        Their squared norms.
    weight : float
        The first weights of all rows, added up.
    """

    square: float
    inner_products: FloatArray
    products: FloatArray
    squares: FloatArray
    weight: float

    def first_squares(self) -> FloatArray:
        """Squared distances of the few to the mean by the first weights, (k,), but for rounding."""
        result: FloatArray = self.squares - self.inner_products / self.weight
        result += self.square / self.weight**2
        return result

    def squared_distances(self, change: FloatArray) -> FloatArray:
        """Squared distances of the few to the mean, after a change of their weights, (k,), but for rounding."""
        # NumPy's `dot` takes a third of the time of `@` for so few numbers.
        whole, shifted = self.weight + float(np.add.reduce(change)), self.products.dot(change)
        result: FloatArray = self.inner_products + shifted
        square = self.square + float(change.dot(result))
        result += shifted
        result /= -whole
        result += self.squares
        result += max(square, 0.0) / whole**2
        return result

    def length(self, change: FloatArray) -> float:
        """Norm of the mean."""
        square = self.square + float(change.dot(self.inner_products + self.products.dot(change)))
        return math.sqrt(max(square, 0.0)) / (self.weight + float(np.add.reduce(change)))


def _settled(
    line: _Line, weights: FloatArray, clipped: FloatArray, first: FloatArray, reach: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Iterate the weights of the few, at their first squared distances, to Huber's about the mean; their changes."""
    # What clips is ``reach`` over the distance, where that is more.
    scaled, least = weights * reach, reach**2
    change = scaled / np.sqrt(np.maximum(first, least)) - clipped
    for _ in range(max_iter - 1):
        before, change = change, scaled / np.sqrt(np.maximum(line.squared_distances(change), least)) - clipped
        if np.maximum.reduce(np.abs(change - before)) <= tol * line.weight:
            break
    return change
