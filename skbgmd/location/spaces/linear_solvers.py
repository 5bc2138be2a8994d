"""Linear systems of Newton steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.linalg.lapack import dposv


def conjugate_gradients(
    times: Callable[[Any], Any],
    inner: Callable[[Any, Any], float],
    right: Any,
    *,
    tol: float = 0.03,
    max_iter: int = 60,
) -> Any:
    """Solve ``H p = right`` to a relative residual; inexact Newton steps keep the outer loop linear and fast.

    Parameters
    ----------
    times : callable
        ``H`` times a vector; ``H`` symmetric and positive.
    inner : callable
        Inner product of two vectors.
    right : vector of a space
    tol, max_iter
        Relative residual to stop at; largest number of products.
    """
    residual = right
    solution = residual * 0.0
    direction = residual
    square = inner(residual, residual)
    target = tol * tol * square
    for _ in range(max_iter):
        if not square > target:
            break
        image = times(direction)
        curvature = inner(direction, image)
        if not curvature > 0.0:
            break
        step = square / curvature
        solution = solution + step * direction
        residual = residual - step * image
        previous, square = square, inner(residual, residual)
        direction = residual + (square / previous) * direction
    return solution


def solve_positive(matrix: Any, right: Any) -> Any:
    """Solve a system of a small symmetric positive definite array or tensor; NaN where it is singular.

    It is singular on collinear data only, where the residual is the way to the optimum.
    """
    if isinstance(matrix, np.ndarray):
        _, solution, failed = dposv(matrix.T, right)  # LAPACK's order of a symmetric matrix
        return right * math.nan if failed else solution
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return right * math.nan if failed else torch.cholesky_solve(right[:, None], factor)[:, 0]
