"""Path for many rows of many columns: accelerated Weiszfeld steps in R^d, in the rows' own dtype."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.transfer import on_device
from skbgmd.location.collinear import seem_collinear
from skbgmd.location.solved import Solved, as_rounded, rounding_move
from skbgmd.location.solver import minimize_while
from skbgmd.location.spaces import ExpandedSpace
from skbgmd.rows import DenseRows


@one_thread_of_products()
def solve_by_weiszfeld(
    rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype, *, pays: Callable[[float], bool]
) -> Solved | None:
    """Solve by accelerated Weiszfeld steps as long as so many of them pay; None if they don't."""
    n, d = rows.n_rows, rows.n_columns
    # Other rows would have to be copied.
    if not rows.is_plain:
        return None
    matrix, center = rows.matrix, None
    if rows.product_dtype != rows.dtype:
        if n * d > limits.FLOAT64_PRODUCT_ELEMENTS:
            return None
        matrix = matrix.double()
    elif rows.dtype == torch.float32 and (central := rows.central_index()) is not None:
        center = matrix[central]
    on_cpu = matrix.is_cpu
    xp: Any = np if on_cpu else torch
    points: Any = matrix.numpy() if on_cpu else matrix
    about: Any = center.numpy() if on_cpu and center is not None else center
    row_weights: Any = rows.weights if on_cpu else on_device(rows.weights, matrix.device)
    space = ExpandedSpace(points, row_weights, about, xp)
    with np.errstate(all="ignore"):
        start = space.start()
        if center is not None:
            # A row is as far off as the others are; there are more digits about what is between them.
            start = space.move_to(start)
        solution = minimize_while(space, start, tol=tol, max_iter=max_iter, pays=pays)
        n_iter = 0 if solution is None else solution.n_iter
        if solution is not None and not solution.converged:
            start = space.move_to(solution.position)
            solution = minimize_while(space, start, tol=tol, max_iter=max_iter - n_iter, pays=pays)
            n_iter += 0 if solution is None else solution.n_iter
    if solution is None or not solution.converged:
        return None
    if seem_collinear(space.rows, solution.iterate.distances):
        # Other paths find the middle of several medians.
        return None
    place = solution.position if space.center is None else solution.position + space.center
    exact = torch.from_numpy(place) if on_cpu else place
    moved = rounding_move(math.sqrt(space.inner(place, place)), exact.dtype, dtype, d)
    moved += space.position_error(solution.iterate)
    solution.n_iter = n_iter
    return as_rounded(rows, space, solution, exact, dtype, moved=moved, tol=tol)
