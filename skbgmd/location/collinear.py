"""Rows on a line, which may have several medians: the middle of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.cumulated_weights import middle
from skbgmd.location.solver import Iterate, Solution, Space, Vector, as_float_array, is_close


def centered(space: Space, solution: Solution, *, tol: float, rounding: float = 2.0**-52) -> Solution:
    """Replace a solution by the middle of all solutions, where there are several.

    Rows on a line that have just half of the weight on either side of a gap, such as any two rows of equal weight, have
    every point in it as a median. Which of them the steps end at depends on where they began, and on the rows' order.

    Parameters
    ----------
    space, solution, tol
        The points, and what :func:`~skbgmd.location.solver.minimize` found for them.
    rounding : float, default=2**-52
        Relative error of squared distances.

    Returns
    -------
    Solution
        The given one where there is no other, or none that is proved.
    """
    point, slack = solution.iterate, max(limits.LINE_SLACK, 8.0 * rounding)
    if not (solution.converged or point.is_vertex_optimum):
        return solution
    with np.errstate(all="ignore"):
        line = _line_of(space, point, slack)
        if line is None:
            return solution
        direction, length = line
        along, distances = as_float_array(space.project(point, direction)[0]), as_float_array(point.distances)
        if not (_away(along, distances, length) <= slack).all():
            return solution
        order = np.argsort(along, kind="stable")
        low, high = (int(order[place]) for place in middle(as_float_array(point.weights), order))
        if not along[high] - along[low] > math.sqrt(slack) * length * length:
            return solution
        position = 0.5 * (space.row(low) + space.row(high))
        found = space.at(position)
    return Solution(position, found, solution.n_iter, converged=True) if is_close(found, tol) else solution


def _line_of(space: Space, point: Iterate, slack: float) -> tuple[Vector, float] | None:
    """Vector to the row farthest from a point, and its length; None where another row isn't on a line with both.

    One row mostly tells that there is no line.
    """
    farthest = int(point.distances.argmax())
    direction, length = space.row(farthest) - point.position, float(point.distances[farthest])
    other = 0 if farthest else len(point.distances) - 1
    along = space.inner(direction, space.row(other) - point.position)
    return (direction, length) if _away(along, float(point.distances[other]), length) <= slack else None


def seem_collinear(rows: Callable[[list[int]], Any], distances: Any) -> bool:
    """Tell from a few rows whether all may be on a line; equal ones don't.

    Parameters
    ----------
    rows : callable
        Gives rows (k, d), float64, by their indices, as an array or a tensor.
    distances : ndarray or tensor of shape (n,)
        Of the rows to a median. Among rows of two kinds, the nearest is of one and the farthest of the other.
    """
    n = len(distances)
    ends = [int(distances.argmax()), int(distances.argmin())]
    every = range(0, n, -(-n // limits.LINE_SAMPLE))
    return all(_are_on_line(rows(some)) for some in ([*ends, n // 2], [*ends, *every]))


def _are_on_line(points: Any) -> bool:
    with np.errstate(all="ignore"):
        differences = points[1:] - points[0]
        products = as_float_array(differences @ differences.T)
        squares = products.diagonal()
        farthest, lengths = int(squares.argmax()), np.sqrt(squares)
        away = _away(products[farthest], lengths, float(lengths[farthest]))
    return bool((away <= limits.LINE_SLACK).all())


def _away(along: Any, distances: Any, length: float) -> Any:
    """Squared distances of points from a line in the unit of a vector along it, from their inner products with it."""
    if length == 0.0:
        # Equal points are on no line.
        return distances + math.inf
    # Squares in other units may overflow.
    places, away = along / length / length, distances / length
    return away * away - places * places
