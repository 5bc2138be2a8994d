"""Huber's mean: near rows count in full, far rows by their direction; with a scale that may remember earlier steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skbgmd.aggregators.base import RowWeighting
from skbgmd.aggregators.rejection import without_far
from skbgmd.aggregators.scale import Scale
from skbgmd.arrays import check_integer, check_number
from skbgmd.gram import BoolArray, FloatArray, Gram, factors_to, lower_weighted_median, lower_weighted_quantile, middle
from skbgmd.median import median_distances
from skbgmd.rows import Rows
from skbgmd.spaces import GramSpace


class HuberMean(RowWeighting):
    r"""Huber's M-estimate of location: near rows count in full, far rows by their direction.

    Minimises :math:`\sum_i a_i \rho(\lVert x_i - y \rVert)` with :math:`\rho(t) = t^2 / 2` up to :math:`c M`
    and linear beyond; :math:`M` is the median distance of the rows to their geometric median. Weights
    :math:`\propto a_i \min(1, c M / d_i)`, iterated in the Gram matrix. A large ``c`` gives the mean, a small one the
    geometric median.

    Parameters
    ----------
    c : float, default=1.0
        Distance, in median distances, from which a row's weight falls.
    tol : float, default=1e-6
        Stop when no weight changes by more than this, in shares of 1/n.
    max_iter : int, default=100
        Largest number of iterations.
    """

    def __init__(self, c: float = 1.0, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.c, self.tol, self.max_iter = c, tol, max_iter

    def _validate(self) -> None:
        check_number(self.c, "c")
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _weigh(self, rows: Rows) -> FloatArray:
        _, gram, distances = median_distances(rows, tol=max(self.tol, 1e-4), max_iter=self.max_iter)
        limit = self.c * lower_weighted_median(distances, rows.weights)
        return huber_weights(gram, rows.weights, distances, limit, tol=self.tol, max_iter=self.max_iter)


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
    for _ in range(max_iter - 1):
        before, current = current, _weights_at(space.distances_to_mean(current), weights, limit)
        if np.abs(current - before).max() * len(current) <= tol:
            break
    return gram.restore(current)


def _weights_at(distances: FloatArray, weights: FloatArray, limit: float) -> FloatArray:
    result: FloatArray = weights * factors_to(limit, distances)
    result /= result.sum()
    return result


#: Relative accuracy of the median that Huber's mean starts from and that its scale is taken about.
START = 0.2
#: Least scale, in typical distances of the step.
TINY = 1e-9
#: Distance, in norms of the row itself, within which a row is tied with another or with the median: they say the same.
#: Gradients of samples are as far from each other as they are long: in trainings on seven sets of classes and three of
#: regression, all standardised, at most 1 % of the rows of a step were so near to the median.
TIED = 0.1
#: Share of the weight on tied rows from which the scale is that of the others.
MANY_TIED = 0.1
#: Share of the others' weight within whose distance the scale is then: less than half, for what is corrupt is no copy.
SHARE_OF_OTHERS = 0.25
#: The same of those of common size in the first steps, of which others may be nothing.
SHARE_OF_FIRST = 0.4
#: Ratio within which norms are of one size: those of gradients of samples that are all to be learnt, or all honest.
SAME_SIZE = 1e4
#: Weight of a size, relative to that of the size that has most, which makes it common as well.
NEARLY_AS_MUCH = 0.7


class Typical(NamedTuple):
    """A length that rows are judged by.

    Attributes
    ----------
    distance : float
        A typical distance of the rows, or of those that aren't tied, from a median of all.
    tied : bool
        Whether many rows are tied, so that it is that of the others.
    """

    distance: float
    tied: bool


def typical_distance(distances: FloatArray, norms: FloatArray, weights: FloatArray, tied: BoolArray) -> Typical:
    """Median distance of the rows; where many of them are tied, the lower quartile of the others'.

    Gradients of empty, constant or repeated samples are copies of one another, or nearly so. Where there are many such
    rows the geometric median is among them, and a scale taken over all rows is zero or tiny: it says nothing of the
    other rows, which would all look like outliers. Ties count from a tenth of the weight on. The others can then make
    the scale as long as they like with three quarters of *their* weight, but for ten thousand median norms.

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
    # First what is quick to see: in most steps none is tied.
    if held < MANY_TIED * weights.sum() or tied.all() or held < _more_than_one(weights):
        return Typical(lower_weighted_median(distances, weights), tied=False)
    longest = SAME_SIZE * lower_weighted_median(norms, weights)
    others = lower_weighted_quantile(distances[~tied], weights[~tied], SHARE_OF_OTHERS)
    # Where most rows are zero there is nothing to compare the others with.
    return Typical(min(others, longest) if longest > 0.0 else others, tied=True)


def _more_than_one(weights: FloatArray) -> float:
    """Weight that is more than that of a single row: among a few rows, each has a tenth."""
    return 2.0 * middle(weights)


def tied_with_median(distances: FloatArray, norms: FloatArray) -> BoolArray:
    """Rows that are within a tenth of their norms of the median; none of zero, which are learnt and say nothing."""
    tied: BoolArray = (distances <= TIED * norms) & (norms > 0.0)
    return tied


def copies(gram: Gram, norms: FloatArray, weights: FloatArray) -> BoolArray:
    """Rows that have many others, or much weight, within a tenth of their norm, wherever they are.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows, about any point.
    norms, weights : ndarray of shape (n,)
        Norms of the rows, in the unit of the Gram matrix, and their non-negative weights.
    """
    whole = gram if gram.original is None else gram.original
    lengths = norms if gram.original is None else gram.unit * norms
    near = whole.squared_distances() <= (TIED * lengths[:, None]) ** 2
    tied: BoolArray = near @ weights >= max(MANY_TIED * float(weights.sum()), _more_than_one(weights))
    # Of rows that were drawn nearer it isn't known how near they are to each other.
    return tied if whole.drawn is None else tied & (whole.drawn == 1.0)


def of_common_size(norms: FloatArray, weights: FloatArray) -> BoolArray:
    """Rows whose norms are of a size that much weight has in common, up to a factor of ten thousand; none of zero.

    In the first steps of a network whose outputs are huge, as of data that are not scaled, more than half of the
    samples may be right by chance, and their gradients nothing: of sizes over tens of orders of magnitude, while those
    of the samples that are yet to be learnt are of one. The median is among the former, and no measure of the latter.

    Of the sizes that have at least seven tenths of the weight of the one that has most it is the smallest: what is
    corrupt is not taken for common as long as so much is honest, and of one size.

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
    # Weight of the rows from each one on, up to so many times its norm.
    mass = np.append(0.0, np.cumsum(weights[order]))
    with np.errstate(over="ignore"):
        ends = np.searchsorted(norms[order], SAME_SIZE * norms[order], side="right")
    held = np.where(norms[order] > 0.0, mass[ends] - mass[:-1], 0.0)
    first = int(np.argmax(held >= NEARLY_AS_MUCH * held.max()))
    # From there the one that has most: rows below it may be so few that they are chance.
    first += int(held[first : ends[first]].argmax()) if ends[first] > first else 0
    smallest = float(norms[order][first])
    # None, if nothing but zeros has any weight.
    common: BoolArray = (norms >= smallest) & (norms <= SAME_SIZE * smallest) & (norms > 0.0)
    return common


class Huberised(NamedTuple):
    """Huber's mean about the geometric median.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows; they add up to one.
    scale : Scale
        For the next step.
    tied : bool
        Whether many rows are tied, see :func:`typical_distance`.
    """

    weights: FloatArray
    scale: Scale
    tied: bool


def huberised_weights(
    rows: Rows, huber: float | None, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> Huberised:
    """Weights of Huber's mean about the geometric median, far rows left out, and the scale for the next step.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber : float or None
        Distance, in typical distances, from which a row's weight falls. None: the geometric median, unless many rows
        are tied, and then one typical distance.
    rejection : float or None
        Distance, in typical distances, from which a row has no weight, unless it is among the nearer half.
    before : Scale
        The scale of the step before.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    # The way to the median begins at a mean of clipped rows and never goes up: wherever it is left, corrupt rows can do
    # no more than so much. Huber's mean goes on from there, so that it need not be the median's last digit.
    rough = tol if huber is None else max(tol, START)
    weights, gram, distances = median_distances(rows, tol=rough, max_iter=max_iter)
    now = _typical(gram, distances, rows.norms(), rows.weights, is_first=before.is_new)
    scale = before.after(now.distance)
    if huber is None and not now.tied:
        near = without_far(rows.weights, weights, gram, distances, rejection, tol=tol, max_iter=max_iter)
        return Huberised(near, scale, tied=False)
    whole = gram.original
    if whole is not None and scale.value > gram.unit * gram.norms.max():
        # Rows that were drawn nearer, for they are far from the median, are not far for this scale.
        gram, distances = whole, GramSpace(whole, rows.weights).distances_to_mean(weights)
    # A smaller limit would change nothing but that weights may underflow.
    limit = max(scale.value / gram.unit, TINY * (now.distance / gram.unit))
    if limit == 0.0:
        # In their own unit the smallest of distances are numbers.
        limit = TINY * lower_weighted_median(distances, rows.weights)
    kept = rows.weights
    if rejection is not None:
        # The nearer half is kept, however small the scale is that is remembered.
        reach = max(rejection * limit, lower_weighted_median(distances, rows.weights))
        kept = np.where(distances <= reach, kept, 0.0)
    limit *= 1.0 if huber is None else huber
    return Huberised(huber_weights(gram, kept, distances, limit, tol=tol, max_iter=max_iter), scale, now.tied)


def _typical(gram: Gram, distances: FloatArray, norms: FloatArray, weights: FloatArray, *, is_first: bool) -> Typical:
    """The typical distance of a step; in the first ones, with which later ones are compared, by a closer look."""
    with np.errstate(over="ignore"):
        # A length that has no number is as long as any.
        lengths = np.minimum(gram.unit * distances, np.finfo(np.float64).max)
        tied = copies(gram, norms / gram.unit, weights) if is_first else tied_with_median(lengths, norms)
    found = typical_distance(lengths, norms, weights, tied)
    if not is_first or not norms.any():
        return found
    # Norms, for rows may have been drawn nearer.
    common = of_common_size(norms, weights)
    if not weights[common].any():
        return found
    size = lower_weighted_median(norms[common], weights[common])
    if lower_weighted_median(norms, weights) < norms[common].min():
        found = found._replace(distance=max(found.distance, size))
    others = np.flatnonzero(~tied)
    others = others[of_common_size(norms[others], weights[others])] if found.tied else others[:0]
    if weights[others].any():
        typical = lower_weighted_quantile(norms[others], weights[others], SHARE_OF_FIRST)
        found = found._replace(distance=max(found.distance, min(typical, SAME_SIZE * size)))
    return found
