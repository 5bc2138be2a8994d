"""Weights of the rows in their geometric median, by Gram matrices alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.location.collinear import centered
from skbgmd.location.solver import Solution, as_float_array, minimize
from skbgmd.location.spaces import space_of
from skbgmd.rows import ChunkedRows, Rows
from skbgmd.rows.gram import Gram, clip_factors, high_median
from skbgmd.rows.unformed_gram import UnformedGram, unformed_gram


def gram_weights(
    gram: Gram | UnformedGram, weights: FloatArray, *, tol: float, max_iter: int, start: FloatArray | None = None
) -> Solution:
    """Weights of the geometric median of rows that are known by their Gram matrix.

    Parameters
    ----------
    gram : Gram or UnformedGram
        Inner products of the rows, all of them finite.
    weights : ndarray of shape (n,)
        Positive row weights.
    tol, max_iter
        As in :func:`geometric_median`; accuracy at the scale of the near rows.
    start : ndarray of shape (n,), default=None
        Weights whose mean is the first position; all zero: the point that the inner products are about. None:
        :func:`clipped_start` about that point.

    Returns
    -------
    Solution
    """
    space = space_of(gram, weights)
    start = clipped_start(gram.norms, weights) if start is None else start
    solution = minimize(space, space.vector(start), tol=tol, max_iter=max_iter)
    solution = centered(space, solution, tol=tol, rounding=gram.rounding)
    return solution if gram.shrinkage is None else replace(solution, restored=gram.restore(solution.weights))


def clipped_start(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights (n,) of one Huber step from the center: far rows count by their direction alone."""
    start: FloatArray = weights * clip_factors(high_median(norms), norms)
    start /= start.sum()
    return start


def row_weights(rows: Rows, *, tol: float, max_iter: int, about_zero: bool = False) -> tuple[Solution, Gram, int]:
    """Weights of the geometric median of rows, by Gram matrices alone.

    About a likely center first; about the solution, where the proof wants more digits.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite, and their weights.
    tol, max_iter
        As in :func:`gram_weights`.
    about_zero : bool, default=False
        Start at a mean of rows that are clipped about zero, wherever the inner products are about: a rough solution is
        then the same for every kind of rows.

    Returns
    -------
    solution : Solution
    gram : Gram
        The Gram matrix it was found in.
    n_iter : int
        Steps taken in all.
    """
    gram = rows.gram(tol=tol)
    start = clipped_start(rows.norms(), rows.weights) if about_zero and gram.shrinkage is None else None
    solution = gram_weights(gram, rows.weights, tol=tol, max_iter=max_iter, start=start)
    n_iter = solution.n_iter
    for _ in range(2):
        if solution.converged or n_iter >= max_iter:
            break
        about = rows.gram(about=place(solution))
        again = gram_weights(about, rows.weights, tol=tol, max_iter=max_iter - n_iter, start=np.zeros(rows.n_rows))
        n_iter += again.n_iter
        known = solution.iterate.excess.absolute * gram.unit
        if np.isfinite(known) and not again.iterate.excess.absolute * about.unit <= known:
            break  # the first answer has the better proof
        solution, gram = again, about
    return solution, gram, n_iter


def median_distances(
    rows: Rows, *, tol: float, max_iter: int, about_zero: bool = False
) -> tuple[FloatArray, Gram | UnformedGram, FloatArray]:
    """Weights of the geometric median, the Gram matrix it was found in, and the distances (n,) of the rows to it.

    Distances are in the Gram matrix's unit. Of many rows it isn't formed, unless a proof takes more digits. Parameters
    as in :func:`row_weights`.
    """
    if isinstance(rows, ChunkedRows) and rows.n_rows > limits.GRAM_ROWS and (products := unformed_gram(rows)):
        found = gram_weights(products, rows.weights, tol=tol, max_iter=max_iter)
        if found.converged:
            return found.weights, products, space_of(products, rows.weights).distances(found.position)
    solution, gram, _ = row_weights(rows, tol=tol, max_iter=max_iter, about_zero=about_zero)
    return solution.weights, gram, space_of(gram, rows.weights).distances(solution.position)


def place(solution: Solution) -> FloatArray:
    """Weights whose mean is the solution's position to the last digit: at a row, all weight on that row."""
    if solution.vertex is None:
        return as_float_array(solution.weights)
    weights = np.zeros(len(solution.weights))
    weights[solution.vertex] = 1.0
    return weights
