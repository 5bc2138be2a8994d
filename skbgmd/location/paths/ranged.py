"""Path for numbers whose squares overflow or underflow: Newton steps in R^d among rows scaled to order one."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd._utils.checks import not_finite
from skbgmd.location.collinear import centered
from skbgmd.location.ranges import RangedRows, coordinatewise_median
from skbgmd.location.solved import Solved, excess_of
from skbgmd.location.solver import as_float_array, minimize
from skbgmd.location.spaces import EuclideanSpace
from skbgmd.rows import DenseRows


def solve_ranged(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved:
    """Solve in R^d with rows scaled to order one, where squares overflow or sizes are far apart."""
    whole = rows.whole()
    matrix, weights = whole.double().cpu().numpy(), rows.weights
    if not np.isfinite(matrix).all():
        raise not_finite("X", whole)
    about, n_iter = coordinatewise_median(matrix, weights), 0
    for _ in range(4):
        with np.errstate(under="ignore"):
            ranged = RangedRows.of(matrix, weights, about)
        space = EuclideanSpace(ranged.points, weights, np.zeros(rows.n_columns))
        solution = minimize(space, np.zeros(rows.n_columns), tol=tol, max_iter=max(1, max_iter - n_iter))
        solution = centered(space, solution, tol=tol)
        n_iter += solution.n_iter
        exact = matrix[solution.vertex] if solution.vertex is not None else ranged.restored(solution.position)
        exact = np.clip(exact, matrix.min(axis=0), matrix.max(axis=0))
        if solution.converged or n_iter >= max_iter:
            break
        about = exact
    answer = torch.from_numpy(exact).to(whole.device, dtype)
    with np.errstate(under="ignore"):
        place = ranged.place(answer.double().cpu().numpy())
        apart = np.sqrt(np.einsum("ij,ij->i", ranged.points - place, ranged.points - place))
    objective = float(weights @ apart)
    away = float(weights[apart > 0.0].sum())
    error = space.objective_error(solution.iterate) + 2.0**-52 * away * float(np.linalg.norm(place))
    excess = excess_of(objective, solution.iterate, error)
    if ranged.shrinkage is not None:
        # For the rows as they are, the bound relative to the objective is at most three times as large.
        excess *= 3.0
    weights_of_rows = ranged.restored_weights(as_float_array(solution.weights))
    is_row = solution.vertex is not None
    return Solved(lambda: weights_of_rows, answer, objective, excess, n_iter, ranged.exponent, is_row)
