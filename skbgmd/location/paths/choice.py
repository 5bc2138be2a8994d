"""Solution on the cheapest path: Weiszfeld steps, the Gram matrix of the rows, or Newton steps in R^d."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import not_finite
from skbgmd.location.paths.column import solve_column
from skbgmd.location.paths.gram import solve_gram
from skbgmd.location.paths.points import solve_points
from skbgmd.location.paths.weiszfeld import solve_by_weiszfeld
from skbgmd.location.solved import Solved
from skbgmd.rows import DenseRows


def takes_gram_path(n: int, d: int) -> bool:
    """Choose between the Gram matrix of the rows (True) and Newton steps in R^d, for a solution by either.

    The Gram matrix costs n^2 d multiplications, once; in R^d each of some five evaluations and Newton steps costs some
    ten passes of n d, and a copy in float64. Measured (``benchmarks/results/paths.md``), R^d is ahead up to 100 columns
    at any number of rows, and the two are level at 400 rows of 400 columns. From 1000 columns on the Gram matrix is
    ahead as long as there are at most half as many rows, by 1.3 to 3 times; the two are level at 2500 rows of 5000
    columns. With as many rows as columns R^d is ahead.
    """
    return d >= 1000 and 2 * n <= d


def weiszfeld_pays(n: int, d: int, steps: float) -> bool:
    """Choose so many Weiszfeld steps (True), predicted by their contraction, rather than a solution by another path.

    A step evaluates all rows once, by two products of the matrix with a vector. In such evaluations the Gram matrix
    costs a share of the rows, for it is bound by multiplications where they are bound by memory, and Newton steps in
    R^d with conjugate gradients a constant. Up to so few columns that a Newton step is one of them, it is always
    better: few columns are what makes Weiszfeld steps contract slowly.
    """
    if d <= limits.DIRECT_SOLVE_DIMENSION:
        return False
    return steps <= (n / limits.GRAM_EVALUATION_ROWS if takes_gram_path(n, d) else limits.NEWTON_EVALUATIONS)


def solve(
    rows: DenseRows, *, tol: float, max_iter: int, dtype: torch.dtype | None = None, combines: bool = False
) -> Solved:
    """Geometric median of dense rows on whichever path is cheaper; rows of weight zero are left out.

    The proof is of the answer as rounded.

    Parameters
    ----------
    rows : DenseRows
        The rows, with their weights.
    tol, max_iter
        As in :func:`geometric_median`.
    dtype : torch.dtype, default=None
        Dtype that the median is rounded to; None: the working precision.
    combines : bool, default=False
        True where the caller takes the weighted mean itself: then the median is left out where that will do.

    Raises
    ------
    ValueError
        A row that isn't finite.
    """
    dtype = dtype or rows.work_dtype
    # The rest of the tolerance is for rounding, and it is relative to the least objective, not to that of a point.
    solved = _solve(rows, 0.9 * tol / (1.0 + tol), max_iter, dtype, combines)
    left = max_iter - solved.n_iter
    if tol < solved.gap <= 2.0 * tol and left > 0:
        # A tighter lower bound may show that rounding costs less than that.
        again = _solve(rows, 0.01 * tol, left, dtype, combines)
        better = again if again.gap < solved.gap else solved
        solved = replace(better, n_iter=solved.n_iter + again.n_iter)
    return solved


def _solve(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype, combines: bool) -> Solved:
    used = None if np.count_nonzero(rows.weights) == rows.n_rows else np.flatnonzero(rows.weights)
    if used is not None and not rows.finite.all():
        raise not_finite("X", rows.whole())
    part = rows if used is None else rows.subset(used)
    if part.n_columns == 1:
        solved = solve_column(part, dtype)
    elif (found := _try_weiszfeld(part, tol, max_iter, dtype)) is not None:
        solved = found
    elif takes_gram_path(part.n_rows, part.n_columns):
        solved = solve_gram(part, tol, max_iter, dtype, combines)
    else:
        solved = solve_points(part, tol, max_iter, dtype)
    if used is None:
        return solved
    weights = np.zeros(rows.n_rows)
    weights[used] = solved.weights
    return replace(solved, weigh=lambda: weights)


def _try_weiszfeld(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved | None:
    pays = partial(weiszfeld_pays, rows.n_rows, rows.n_columns)
    return solve_by_weiszfeld(rows, tol, max_iter, dtype, pays=pays) if pays(limits.WEISZFELD_STEPS) else None
