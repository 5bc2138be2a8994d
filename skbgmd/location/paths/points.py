"""Path for few columns: Newton steps in R^d."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.transfer import on_device
from skbgmd.location.collinear import centered
from skbgmd.location.paths.ranged import solve_ranged
from skbgmd.location.ranges import are_far_apart
from skbgmd.location.solved import Solved, as_rounded, rounding_move_of_point
from skbgmd.location.solver import approach, minimize
from skbgmd.location.spaces import EuclideanSpace
from skbgmd.rows import DenseRows


@one_thread_of_products()
@np.errstate(all="ignore")
def solve_points(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved:
    """Solve in R^d, from the median of a subsample where there are many rows."""
    matrix, weights = rows.whole(), rows.weights
    on_cpu = matrix.is_cpu and matrix.dtype in (torch.float32, torch.float64)
    xp = np if on_cpu else torch
    points: Any = matrix.numpy() if on_cpu else matrix
    row_weights: Any = weights if on_cpu else on_device(weights, matrix.device)
    few: Any = points[:: -(-len(points) // limits.ORIGIN_ROWS)]
    middle = len(few) // 2
    if on_cpu:
        origin: Any = np.partition(few, middle, axis=0)[middle].astype(np.float64)
    else:
        origin = few.double().sort(dim=0).values[middle]
    step = -(-len(points) // limits.SUBSAMPLE_ROWS) if len(points) > limits.SUBSAMPLE_ABOVE else 1
    some: Any = points[::step]
    start, n_iter, may_be_row = 0.0 * origin, 0, False
    if step > 1 and weights[::step].any():
        space = EuclideanSpace(some, row_weights[::step], origin, xp)
        first = minimize(space, start, tol=max(tol, 1e-3), max_iter=max_iter)
        start, n_iter, may_be_row = first.position, first.n_iter, first.iterate.weight_at > 0.0
    for _ in range(3):
        space = EuclideanSpace(points, row_weights, origin, xp)
        # Without bounds steps would go to and fro about a row.
        if not (space.newton_is_expensive or may_be_row):
            start, taken = approach(space, start, tol=tol, max_iter=max_iter - n_iter - 1)
            n_iter += taken
        solution = centered(space, minimize(space, start, tol=tol, max_iter=max(1, max_iter - n_iter)), tol=tol)
        if space.out_of_range:
            # As it is where a number isn't finite.
            return solve_ranged(rows, tol, max_iter, dtype)
        n_iter += solution.n_iter
        exact: Any = origin + solution.position
        if solution.vertex is not None:
            exact = matrix[solution.vertex].to(torch.float64, copy=True)
            exact = exact.numpy() if on_cpu else exact
        if solution.converged or n_iter >= max_iter:
            break
        if are_far_apart(solution.iterate.distances):
            return solve_ranged(rows, tol, max_iter, dtype)
        # The origin is too far off for the digits that the proof wants.
        origin, start = exact, 0.0 * exact
    length = math.sqrt(space.inner(origin, origin)) + math.sqrt(space.inner(solution.position, solution.position))
    exact = torch.from_numpy(exact) if on_cpu else exact
    moved = rounding_move_of_point(exact, length, dtype, is_row=solution.vertex is not None)
    if solution.vertex is None:
        # The sum of two parts is rounded, and each of them was.
        moved += 2.0**-51 * length
    solution.n_iter = n_iter
    return as_rounded(rows, space, solution, exact, dtype, moved=moved, tol=tol)
