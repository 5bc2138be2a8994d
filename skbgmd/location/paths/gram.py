"""Path for few rows of many columns: Newton steps in the Gram matrix of the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skbgmd._utils.checks import not_finite
from skbgmd.location.paths.ranged import solve_ranged
from skbgmd.location.ranges import are_far_apart, vector_norm
from skbgmd.location.row_weights import gram_weights, place, row_weights
from skbgmd.location.solved import (
    Solved,
    combination_error,
    exact_mean,
    excess_after_move,
    measured,
    rounding_move,
    rounding_move_of_point,
)
from skbgmd.location.spaces import GramSpace
from skbgmd.rows import DenseRows
from skbgmd.rows.means import means


def solve_gram(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype, combines: bool) -> Solved:
    """Solve in the Gram matrix of the rows."""
    gram = rows.gram()
    if not gram.finite.all():
        raise not_finite("X", rows.whole())
    if gram.unit != 1.0 or gram.shrinkage is not None:
        return solve_ranged(rows, tol, max_iter, dtype)
    solution, gram, n_iter = row_weights(rows, tol=tol, max_iter=max_iter)
    if gram.unit != 1.0 or gram.shrinkage is not None:
        return solve_ranged(rows, tol, max_iter, dtype)
    iterate = solution.iterate
    if solution.converged:
        if solution.vertex is None and combines and rows.knows_norms:
            # The median's length isn't known yet; it is no more than the mean of the rows'.
            length = float(solution.weights @ rows.norms())
            moved = combination_error(rows, length) + rounding_move(length, rows.work_dtype, dtype, rows.n_columns)
            if (excess := excess_after_move(iterate, moved, tol)) is not None:
                return Solved(solution.float_weights, None, iterate.objective, excess, n_iter)
        median = means(rows, place(solution))
        # A median that is a row needs no rounding.
        total = iterate.total_weiszfeld_weight
        spread = float(rows.weights.sum()) / total if total > 0.0 else 0.0
        length = vector_norm(median)
        moved = combination_error(rows, length + spread) if solution.vertex is None else 0.0
        moved += rounding_move_of_point(median, length, dtype, is_row=solution.vertex is not None)
        if (excess := excess_after_move(iterate, moved, tol)) is not None:
            return Solved(
                solution.float_weights,
                median.to(dtype),
                iterate.objective,
                excess,
                n_iter,
                is_row=solution.vertex is not None,
            )
    if not solution.converged and n_iter < max_iter and are_far_apart(gram.norms):
        return solve_ranged(rows, tol, max_iter, dtype)
    space = GramSpace(gram, rows.weights)
    settled = measured(rows, solution, space.objective_error(iterate), exact_mean(rows, solution), dtype, n_iter)
    if settled.gap <= tol or gram.rounding <= 2.0**-40:
        return settled
    about = rows.gram(about=place(solution))
    again = gram_weights(about, rows.weights, tol=tol, max_iter=max_iter, start=np.zeros(rows.n_rows))
    error = GramSpace(about, rows.weights).objective_error(again.iterate)
    better = measured(rows, again, error, exact_mean(rows, again), dtype, n_iter + again.n_iter)
    return better if better.gap < settled.gap else replace(settled, n_iter=better.n_iter)
