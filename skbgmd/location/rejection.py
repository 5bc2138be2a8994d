"""Rejection of far rows: the geometric median of the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.location.median import gram_weights, lower_weighted_median, median_distances
from skbgmd.rows import Rows
from skbgmd.rows.gram import Gram


def check_rejection(rejection: Any) -> None:
    """Check a limit of rejection: None, or a number above one."""
    if rejection is not None:
        check_number(rejection, "rejection", above=1.0)


def median_weights(rows: Rows, rejection: float | None, *, tol: float, max_iter: int) -> FloatArray:
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
    weights, gram, distances = median_distances(rows, tol=tol, max_iter=max_iter)
    return without_far(rows.weights, weights, gram, distances, rejection, tol=tol, max_iter=max_iter)


def without_far(
    of_rows: FloatArray,
    weights: FloatArray,
    gram: Gram,
    distances: FloatArray,
    rejection: float | None,
    *,
    tol: float,
    max_iter: int,
) -> FloatArray:
    """Reweight: the geometric median of the rows that aren't far from the median of all.

    Parameters
    ----------
    of_rows : ndarray of shape (n,)
        Weights of the rows.
    weights, gram, distances
        Results of :func:`skbgmd.location.median.median_distances` for all rows.
    rejection, tol, max_iter
        As in :func:`median_weights`.
    """
    if rejection is None:
        return weights
    near = np.flatnonzero(distances <= rejection * lower_weighted_median(distances, of_rows))
    if len(near) == len(weights):
        return weights
    again = gram_weights(gram.subset(near), of_rows[near], tol=tol, max_iter=max_iter)
    of_near = np.zeros(len(weights))
    of_near[near] = again.weights
    return of_near
