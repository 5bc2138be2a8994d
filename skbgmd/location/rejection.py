"""Rejection of far rows: the geometric median of the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.location.row_weights import gram_weights, median_distances
from skbgmd.location.spaces import space_of
from skbgmd.rows import Rows
from skbgmd.rows.gram import Gram, clip_factors, lower_weighted_median
from skbgmd.rows.unformed_gram import UnformedGram


def check_rejection(rejection: Any) -> None:
    """Check a limit of rejection: None, or a number above one."""
    if rejection is not None:
        check_number(rejection, "rejection", above=1.0)


class NearMedian(NamedTuple):
    """Geometric median of the rows that aren't far.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows in it; they add up to one.
    carried : ndarray of shape (n,)
        Weights of the rows for columns that the median doesn't see.
    """

    weights: FloatArray
    carried: FloatArray


def median_weights(rows: Rows, rejection: float | None, *, tol: float, max_iter: int) -> NearMedian:
    """Weights of the geometric median, with far rows left out.

    Corrupt rows of less than half of the weight move the first median by a bounded distance, and so the median
    distance and the rows that are kept: the breakdown point stays 1/2 (Lopuhaä and Rousseeuw 1991, on reweighting).

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    rejection, tol, max_iter
        As in :class:`skbgmd.aggregators.GeometricMedian`.
    """
    if rows.n_rows == 1:  # it is the median, however it is rounded
        return NearMedian(np.ones(1), np.ones(1))
    weights, gram, distances = median_distances(rows, tol=tol, max_iter=max_iter)
    return without_far(rows.weights, weights, gram, distances, rejection, tol=tol, max_iter=max_iter)


def without_far(
    of_rows: FloatArray,
    weights: FloatArray,
    gram: Gram | UnformedGram,
    distances: FloatArray,
    rejection: float | None,
    *,
    tol: float,
    max_iter: int,
) -> NearMedian:
    """Reweight: the geometric median of the rows that aren't far from the median of all.

    Parameters
    ----------
    of_rows : ndarray of shape (n,)
        Weights of the rows.
    weights, gram, distances
        Results of :func:`skbgmd.location.row_weights.median_distances` for all rows.
    rejection, tol, max_iter
        As in :func:`median_weights`.
    """
    if rejection is None:
        return NearMedian(weights, weights_within_median_distance(of_rows, distances))
    near = distances <= rejection * lower_weighted_median(distances, of_rows)
    if near.all():
        return NearMedian(weights, weights_within_median_distance(of_rows, distances))
    some = gram.subset(near)
    again = gram_weights(some, of_rows[near], tol=tol, max_iter=max_iter)
    of_near, farther = np.zeros(len(weights)), np.full(len(weights), np.inf)
    of_near[near] = again.weights
    farther[near] = space_of(some, of_rows[near]).distances(again.position)
    return NearMedian(of_near, weights_within_median_distance(of_rows, farther))


def kept_weights(weights: FloatArray, distances: FloatArray, reach: float) -> FloatArray:
    """Weights of the rows within reach or among the nearer half, and zero for the others.

    Rows as far as the farthest of that half, but for rounding, are kept with it: of two rows about their midpoint both
    are.

    Parameters
    ----------
    weights, distances : ndarray of shape (n,)
        Weights of the rows, and their distances to a robust estimate.
    reach : float
        Distance beyond which a row is far.

    Examples
    --------
    >>> kept_weights(np.ones(4), np.array([1.0, 2.0, 3.0, 9.0]), reach=0.5)
    array([1., 1., 0., 0.])
    """
    half = (1.0 + limits.TIED_DISTANCES) * lower_weighted_median(distances, weights)
    kept: FloatArray = np.where(distances <= max(reach, half), weights, 0.0)
    return kept


def weights_within_median_distance(weights: FloatArray, distances: FloatArray) -> FloatArray:
    r"""Huber's weights for the (lower, weighted) median distance :math:`M`: :math:`\propto a_i \min(1, M / d_i)`.

    Near rows have those of a mean and far rows those of a geometric median. Rows of half of the weight count in full,
    so none has more than twice its share.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Weights :math:`a_i` of the rows.
    distances : ndarray of shape (n,)
        Distances :math:`d_i` to a robust estimate.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one.

    Examples
    --------
    >>> weights_within_median_distance(np.ones(4), np.array([0.0, 1.0, 2.0, np.inf]))
    array([0.4, 0.4, 0.2, 0. ])
    """
    found: FloatArray = weights * clip_factors(lower_weighted_median(distances, weights), distances)
    found /= found.sum()
    return found
