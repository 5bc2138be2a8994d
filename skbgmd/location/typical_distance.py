"""The typical distance of rows from their median: Huber's scale, also where many rows are tied."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.cumulated_weights import in_units, rounding
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows.gram import Gram, low_median, lower_weighted_median, lower_weighted_quantile
from skbgmd.rows.unformed_gram import UnformedGram


class Typical(NamedTuple):
    """Typical distance of rows, with a mark of ties.

    Attributes
    ----------
    distance : float
        A typical distance of the rows, or of those that aren't tied, from a median of all.
    tied : bool
        True where many rows are tied, and the distance is that of the others.
    """

    distance: float
    tied: bool


def typical_distance(distances: FloatArray, norms: FloatArray, weights: FloatArray, tied: BoolArray) -> Typical:
    """Median distance of the rows; where many of them are tied, the lower quartile of the others'.

    Gradients of empty, constant or repeated samples are copies of one another, or nearly so. With many such rows the
    geometric median is among them, and the scale of all rows is zero or tiny: all other rows would look like outliers.
    Ties count from a tenth of the weight on. Then corrupt rows need three quarters of the *other* rows' weight to raise
    the scale, up to ten thousand median norms.

    Parameters
    ----------
    distances, norms : ndarray of shape (n,)
        Distances of the rows to a median, and to zero.
    weights : ndarray of shape (n,)
        Non-negative row weights.
    tied : ndarray of shape (n,), bool
        Rows that are tied, by :func:`tied_with_median` or :func:`copies`.

    Examples
    --------
    >>> distances, norms = np.array([0.0, 0.0, 0.0, 5.0]), np.array([1.0, 1.0, 1.0, 6.0])
    >>> typical_distance(distances, norms, np.ones(4), tied=distances == 0.0)
    Typical(distance=5.0, tied=True)
    """
    held = float(weights[tied].sum())
    # The quick checks first: in most steps no row is tied.
    if held < _tenth(weights) or tied.all() or held < _more_than_one(weights):
        return Typical(lower_weighted_median(distances, weights), tied=False)
    longest = limits.SAME_SIZE * lower_weighted_median(norms, weights)
    others = lower_weighted_quantile(distances[~tied], weights[~tied], limits.SHARE_OF_OTHERS)
    # Among a majority of zero rows there is nothing to compare the others with.
    return Typical(min(others, longest) if longest > 0.0 else others, tied=True)


def _more_than_one(weights: FloatArray) -> float:
    """Weight of two typical rows: among a few rows, a single one has a tenth."""
    return (1.0 - limits.SAME_WEIGHT) * 2.0 * low_median(weights)


def _tenth(weights: FloatArray) -> float:
    return (1.0 - limits.SAME_WEIGHT) * limits.MANY_TIED * float(weights.sum())


def tied_with_median(distances: FloatArray, norms: FloatArray) -> BoolArray:
    """Find rows within a tenth of their norms of the median; zero rows, which are learned, aren't counted."""
    tied: BoolArray = (distances <= limits.TIED * norms) & (norms > 0.0)
    return tied


def copies(gram: Gram, norms: FloatArray, weights: FloatArray) -> BoolArray:
    """Find rows that have many others, or much weight, within a tenth of their norm, wherever they are.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows, about any point.
    norms, weights : ndarray of shape (n,)
        Norms of the rows, in the unit of the Gram matrix, and their non-negative weights.
    """
    whole = gram if gram.original is None else gram.original
    lengths = norms if gram.original is None else gram.unit * norms
    near = whole.squared_distances() <= (limits.TIED * lengths[:, None]) ** 2
    tied: BoolArray = near @ weights >= max(_tenth(weights), _more_than_one(weights))
    # Rows that were drawn in may be farther from each other than they seem.
    return tied if whole.shrinkage is None else tied & (whole.shrinkage == 1.0)


def of_common_size(norms: FloatArray, weights: FloatArray) -> BoolArray:
    """Find rows whose norms are of a common size, up to a factor of ten thousand; none of zero.

    With unscaled data a network's first outputs may be huge, and more than half of the samples right by chance: their
    gradients are tiny, with sizes over tens of orders of magnitude. Gradients of samples still to be learned are of one
    size. The median size is among the former, and no measure of the latter.

    The common size is the smallest one that has at least seven tenths of the weight of the most frequent size: corrupt
    rows don't set it as long as honest rows of one size have that much weight.

    Parameters
    ----------
    norms : ndarray of shape (n,)
        Norms of the rows.
    weights : ndarray of shape (n,)
        Non-negative weights of the rows.

    Examples
    --------
    >>> of_common_size(np.array([1e-30, 1e-20, 1e-10, 1.0, 2.0, 3.0]), np.ones(6))
    array([False, False, False,  True,  True,  True])
    >>> of_common_size(np.array([1.0, 2.0, 3.0, 1e9, 1e9, 1e9, 1e9]), np.ones(7))
    array([ True,  True,  True, False, False, False, False])
    """
    order = np.argsort(norms, kind="stable")
    # Weight of the rows from each norm on, up to SAME_SIZE times that norm.
    mass = np.append(0, np.cumsum(in_units(weights)[order]))
    with np.errstate(over="ignore"):
        ends = np.searchsorted(norms[order], limits.SAME_SIZE * norms[order], side="right")
    held = np.where(norms[order] > 0.0, mass[ends] - mass[:-1], 0)
    most, slack = int(held.max()), rounding(int(mass[-1]), len(norms))
    first = int(np.argmax(held >= limits.NEARLY_AS_MUCH * most - slack))
    # From there, the size of most weight: few rows below it may be chance.
    some = held[first : ends[first]]
    first += int(np.argmax(some >= some.max() - slack)) if len(some) else 0
    smallest = float(norms[order][first])
    # No row, if only zero rows have any weight.
    common: BoolArray = (norms >= smallest) & (norms <= limits.SAME_SIZE * smallest) & (norms > 0.0)
    return common


def typical_distance_of_step(
    gram: Gram | UnformedGram, distances: FloatArray, norms: FloatArray, weights: FloatArray, *, is_first: bool
) -> Typical:
    """Typical distance of a step; the first ones, with which later ones are compared, are looked at more closely."""
    with np.errstate(over="ignore"):
        # A length that overflows is as long as any.
        lengths = np.minimum(gram.unit * distances, np.finfo(np.float64).max)
        if is_first and isinstance(gram, Gram):
            tied = copies(gram, norms / gram.unit, weights)
        else:
            tied = tied_with_median(lengths, norms)
    typical_of = _of_few_points if is_first and tied.all() else typical_distance
    found = typical_of(lengths, norms, weights, tied)
    if not is_first or not norms.any():
        return found
    # By norms, as rows may have been drawn in.
    common = of_common_size(norms, weights)
    if not weights[common].any():
        return found
    size = lower_weighted_median(norms[common], weights[common])
    if lower_weighted_median(norms, weights) < norms[common].min():
        found = found._replace(distance=max(found.distance, size))
    others = np.flatnonzero(~tied)
    some = found.tied and others.size > 0
    others = others[of_common_size(norms[others], weights[others])] if some else others[:0]
    if weights[others].any():
        typical = lower_weighted_quantile(norms[others], weights[others], limits.SHARE_OF_FIRST)
        found = found._replace(distance=max(found.distance, min(typical, limits.SAME_SIZE * size)))
    return found


def _of_few_points(distances: FloatArray, norms: FloatArray, weights: FloatArray, _: BoolArray) -> Typical:
    """Typical distance of rows that are all copies of a few: of those away from the median, up to the median norm.

    There is no other row to say what is far. Copies of a point about as long as the median row are to count, and longer
    ones may be corrupt.
    """
    found = typical_distance(distances, norms, weights, tied_with_median(distances, norms))
    longest = lower_weighted_median(norms, weights)
    return found._replace(distance=min(found.distance, longest)) if longest > 0.0 else found
