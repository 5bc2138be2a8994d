"""Minimize a weighted sum of distances: safeguarded Newton steps, in R^d or in the span of the rows.

Plain Weiszfeld steps are sublinear when the optimum is a data point and slow between two far clusters. A Newton
step costs a few times as much and converges quadratically; where it isn't safe, an exact search along it, the
Vardi-Zhang step off a data point, or the Weiszfeld step takes over: each of them lowers the objective, so
the sequence converges whatever the data are.

The loop knows nothing of where the points live. A *space* holds the points and answers a few questions:

- :class:`skbgmd.location.spaces.EuclideanSpace`: few columns; a position is a vector of R^d;
- :class:`skbgmd.location.spaces.ExpandedSpace`: many columns; the same, for Weiszfeld steps alone;
- :class:`skbgmd.location.spaces.GramSpace`: few rows; a position is a combination of the rows, and all that is ever
  asked of the rows is their Gram matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd.location.certificate import Excess
from skbgmd.rows.gram import lower_weighted_median

#: A vector of the space: its kind is the space's own affair; the loop adds and scales it.
Vector = Any
#: One number a row, in the space's kind of array.
PerRow = Any


@dataclass
class Iterate:
    """A position with its distances, objective and proof; ``z_i = x_i - y`` and ``d_i = ||z_i||``."""

    position: Vector
    #: d_i; zero where the row can't be told from the position.
    distances: PerRow
    #: a_i.
    weights: PerRow
    #: Sum of a_i / d_i.
    total_weiszfeld_weight: float
    #: Sum of their multiples of z_i, and its norm.
    residual: Vector
    residual_norm: float
    #: Weights of the rows at the position, zero for others (None: there are none), and their sum.
    at: PerRow
    weight_at: float
    objective: float
    excess: Excess
    #: Most that the rows at the position may add to the objective, if "at" only means "too near to tell".
    doubtful: float = 0.0
    #: Estimate of the part of the bound on the excess that is due to rounding; inf: there are no digits.
    rounding: float = 0.0

    @property
    def weiszfeld_weights(self) -> PerRow:
        """``a_i / d_i``; zero for the rows at the position. Not kept: of many rows each number is memory."""
        return weiszfeld_weights(self.weights, self.distances, self.distances == 0.0 if self.weight_at > 0.0 else None)

    @property
    def is_vertex_optimum(self) -> bool:
        """True where the rows at the position outweigh the residual of all the others."""
        return self.weight_at > 0.0 and self.residual_norm <= self.weight_at


def weiszfeld_weights(weights: PerRow, distances: PerRow, at: PerRow) -> PerRow:
    """Weights ``a_i / d_i`` of Weiszfeld's step; zero for the rows of the mask ``at`` (None: there are none)."""
    if at is None:
        return weights / distances
    # One more than the distance where that is zero.
    return (weights / (distances + at)) * (distances > 0.0)


class Evaluable(Protocol):
    """Questions that Weiszfeld steps ask of the points."""

    def at(self, position: Vector, radius: float | None = None) -> Iterate: ...
    def inner(self, left: Vector, right: Vector) -> float: ...


class HasError(Protocol):
    """Rounding of the objective."""

    def objective_error(self, point: Iterate) -> float: ...


class HasSteps(Evaluable, Protocol):
    """The step itself, which costs less where it needs no proof."""

    #: Factor by which steps are longer than Weiszfeld's.
    stretch: float

    def ahead(self, position: Vector) -> Vector: ...


class HasNewtonSteps(Protocol):
    """Newton steps without a proof, which cost less."""

    #: Sum of the row weights.
    weight: float

    def newton_step(self, position: Vector) -> tuple[Vector, float]: ...


class Space(Evaluable, HasError, Protocol):
    """Questions that the loop asks of the points."""

    #: Sum of the row weights.
    weight: float
    #: True where a Newton step costs several evaluations.
    newton_is_expensive: bool

    def row(self, index: int) -> Vector: ...
    def newton_direction(self, point: Iterate) -> Vector: ...
    def project(self, point: Iterate, direction: Vector) -> tuple[PerRow, float]: ...
    def decrease(self, point: Iterate, along: PerRow, square: float, step: float) -> tuple[float, float]: ...
    def nearest(self, point: Iterate) -> tuple[int, float]: ...


@dataclass
class Solution:
    """Solution of the loop: the Vardi-Zhang step from the best iterate, and that iterate with its proof."""

    position: Vector
    iterate: Iterate
    n_iter: int
    #: The excess is within the tolerance at the scale of the near rows.
    converged: bool
    #: Index of the row that the position is, or can't be told from; the heaviest of several.
    vertex: int | None = None

    #: Weights of the original rows, where the points are rows that were shrunk.
    restored: PerRow | None = None

    @cached_property
    def weights(self) -> PerRow:
        """Weights of the rows, adding up to one, whose weighted mean ``position`` is."""
        if self.restored is not None:
            return self.restored
        with np.errstate(all="ignore"):
            return vardi_zhang_weights(self.iterate)

    def float_weights(self) -> NDArray[np.float64]:
        """The weights as a float64 NumPy array."""
        return as_float_array(self.weights)


class Progress(NamedTuple):
    """State of a minimization that a step may look at.

    Attributes
    ----------
    proved : float
        Least bound on the excess so far.
    tol : float
        Bound to be reached, relative to the objective of the near rows.
    rejected : set of int
        Rows that were tried as the optimum; a step adds those that it tries.
    """

    proved: float
    tol: float
    rejected: set[int]


#: A step: from an iterate to the next.
Step = Callable[[Space, Iterate, Progress], Iterate]


def minimize(space: Space, start: Vector, *, tol: float, max_iter: int, step: Step | None = None) -> Solution:
    """Minimize the sum of weighted distances to the points of ``space``.

    Parameters
    ----------
    space : Space
        The points.
    start : vector of the space
        First position, among the majority of the rows; it needn't be good.
    tol : float
        Stop once the excess is proved to be at most ``tol`` times the objective of the near rows.
    max_iter : int
        Largest number of steps.
    step : callable, default=None
        Gives the next iterate, ``step(space, point, progress)``; None: :func:`newton_step`. The proof of accuracy is
        an iterate's own, and holds for any step.

    Returns
    -------
    Solution
        Its position's objective is at most that of the iterate (a Vardi-Zhang step never raises it), so the
        iterate's proof holds for it.
    """
    # Squares of far rows may overflow: sums of them are scaled, and a bound that isn't finite isn't used.
    with np.errstate(all="ignore"):
        best, n_iter = _descend(space, start, tol, max_iter, step or newton_step)
        position = best.position + vardi_zhang_step(best)
    vertex = int(best.at.argmax()) if best.is_vertex_optimum else None
    return Solution(position, best, n_iter, is_close(best, tol), vertex)


def approach(space: HasNewtonSteps, start: Vector, *, tol: float, max_iter: int) -> tuple[Vector, int]:
    """Take Newton steps without bounds, as long as each at least halves the residual's norm.

    They cost half of what those of :func:`minimize` do. The last one is that whose end is predicted to have a residual
    small enough for a proof, by quadratic convergence. NumPy may warn of divisions by zero, at a row.

    Parameters
    ----------
    space
        The points.
    start, tol, max_iter
        As in :func:`minimize`.

    Returns
    -------
    position : vector of the space
        A start for :func:`minimize`.
    n_iter : int
        Steps taken.
    """
    position, last, n_iter, before, predicted = start, start, 0, math.inf, math.inf
    while predicted > tol and n_iter < max_iter:
        direction, norm = space.newton_step(position)
        size = norm / space.weight
        if not (size < math.inf and size <= 0.5 * before):
            return last, max(0, n_iter - 1)
        growth = size / before**2 if n_iter else 1.0
        predicted = growth * size**2
        last, position, before, n_iter = position, position + direction, size, n_iter + 1
    return position, n_iter


def minimize_while(
    space: HasSteps, start: Vector, *, tol: float, max_iter: int, pays: Callable[[float], bool]
) -> Solution | None:
    """Minimize by Weiszfeld steps, accelerated, as long as the steps to come are predicted to pay.

    Each step is one evaluation. The last two steps ``f_k`` and ``f_{k-1}`` are combined to where they would
    cancel most, as Anderson does: ``y_{k+1} = y_k + f_k - t (y_k + f_k - y_{k-1} - f_{k-1})`` with the ``t`` that
    makes ``f_k - t (f_k - f_{k-1})`` the shortest. The bounds on the excess of two iterates give the contraction of a
    step, and so the number of steps that are left: a prediction to go by as long as it falls.

    Parameters
    ----------
    space
        The points; nothing is asked of them but evaluations, steps and inner products.
    start : vector of the space
        The step from zero.
    tol, max_iter
        As in :func:`minimize`.
    pays : callable
        True if so many steps in all pay; inf: there is no end in sight.

    Returns
    -------
    Solution or None
        None where it doesn't pay, or isn't proved within ``max_iter`` steps. Not converged where there are too few
        digits for a proof: those about the solution's position may do.
    """
    with np.errstate(all="ignore"):
        # The start is a step from zero.
        before, ahead = (start, start), space.ahead(start)
        step = ahead - start
        point, n_iter, left = space.at(_accelerated(space, step, ahead, before)), 1, math.inf
        before = step, ahead
        # Rounding is a part of the bound that steps don't bring down.
        while not is_close(point, tol):
            if n_iter >= max_iter or point.rounding == math.inf:
                return None
            if not point.rounding < tol * point.excess.near_objective:
                return Solution(point.position, point, n_iter, converged=False)
            step = space.stretch * vardi_zhang_step(point)
            ahead = point.position + step
            last, point = point, space.at(_accelerated(space, step, ahead, before))
            before, n_iter = (step, ahead), n_iter + 1
            predicted = _steps_left(last, point, tol)
            if not (predicted < left and pays(n_iter + predicted)):
                return None
            left = predicted
        position = point.position + vardi_zhang_step(point)
    return Solution(position, point, n_iter, converged=True)


def _accelerated(space: HasSteps, step: Vector, ahead: Vector, before: tuple[Vector, Vector]) -> Vector:
    """Combine a step, and the place where it ends, with the one before to where they cancel most."""
    change = step - before[0]
    square = space.inner(change, change)
    share = space.inner(step, change) / square if square > 0.0 else 0.0
    return ahead - share * (ahead - before[1])


def _steps_left(last: Iterate, point: Iterate, tol: float) -> float:
    """Predict the steps to the tolerance, if all bring the excess down as the last one did."""
    if is_close(point, tol):
        return 0.0
    if not point.excess.absolute < last.excess.absolute < math.inf:
        return math.inf
    left = math.log(point.excess.absolute / (tol * point.excess.near_objective))
    return left / math.log(last.excess.absolute / point.excess.absolute)


def _descend(space: Space, start: Vector, tol: float, max_iter: int, step: Step) -> tuple[Iterate, int]:
    point, rejected = space.at(start), set[int]()
    best, lowest, n_iter, stalled, close = point, point.objective, 0, 0, is_close(point, tol)
    # At an optimal vertex there is nothing left to do, even where rounding keeps the proof from saying so.
    while not (close or point.is_vertex_optimum) and n_iter < max_iter and stalled < 3:
        if math.isnan(point.objective):
            break  # NaN in a row makes all of it NaN
        n_iter += 1
        point = step(space, point, Progress(best.excess.absolute, tol, rejected))
        # What is close is the answer, also where the one before has nearly as small a bound, at fewer near rows.
        close = is_close(point, tol)
        proves_more = close or point.is_vertex_optimum or _improves(point, best)
        # On the way from one cluster to another the bound may rise for a while as the objective falls.
        stalled = 0 if proves_more or point.objective < (1.0 - limits.OBJECTIVE_FALL) * lowest else stalled + 1
        best, lowest = point if proves_more else best, min(lowest, point.objective)
    return best, n_iter


def near_radius(
    distances: PerRow, weights: PerRow | None = None, nearest: float = 0.0, farthest: float = math.inf
) -> float:
    """Ten times the median distance, zeros aside: rows within it set the scale of the problem.

    The median is by the rows' weights where they differ, for far rows may be many and weigh little. Any radius gives a
    valid proof (:mod:`skbgmd.location.certificate`), so a thousand rows are enough to choose it. Where all rows are
    within it, by the smallest and the largest distance if those are given, it is the largest.
    """
    if farthest <= 10.0 * nearest:
        return farthest
    every = max(1, len(distances) // limits.RADIUS_ROWS)
    some = as_float_array(distances[::every])
    # It takes less to count than to find the median, and mostly tells as much.
    if nearest > 0.0 and weights is None and 2 * np.count_nonzero(some < 0.1 * farthest) < len(some):
        return farthest
    positive = some[some > 0.0]
    if not positive.size:
        return 0.0
    if weights is not None:
        return 10.0 * lower_weighted_median(positive, as_float_array(weights[::every])[some > 0.0])
    middle = positive.size // 2
    positive.partition(middle)
    return 10.0 * float(positive[middle])


def vardi_zhang_weights(point: Iterate) -> PerRow:
    """Weights of the rows in the Vardi-Zhang step from a point; they add up to one.

    Off the data this is Weiszfeld's ``w_i = (a_i / d_i) / sum_j (a_j / d_j)``. On a data point that holds
    the weight ``A`` against a residual of norm ``||R||``, the share ``min(1, A / ||R||)`` stays there.
    """
    if point.weight_at == 0.0:
        return point.weiszfeld_weights / point.total_weiszfeld_weight
    # Rows at the point share their part by their own weights.
    at = point.at / point.weight_at
    if point.is_vertex_optimum or point.total_weiszfeld_weight == 0.0:
        return at
    stay = point.weight_at / point.residual_norm
    return stay * at + (1.0 - stay) / point.total_weiszfeld_weight * point.weiszfeld_weights


def is_close(point: Iterate, tol: float) -> bool:
    """True if the excess is proved to be within the tolerance, at the scale of the near rows."""
    return point.excess.absolute <= tol * point.excess.near_objective


def _improves(point: Iterate, best: Iterate) -> bool:
    # By a tenth: at the floor of rounding the bound jitters for ever.
    return point.excess.absolute < 0.9 * best.excess.absolute or not np.isfinite(best.excess.absolute)


def newton_step(space: Space, point: Iterate, progress: Progress) -> Iterate:
    """Safeguarded Newton step: cut short where it goes up, and at a row that it passes, which may be the optimum."""
    proved, tol, rejected = progress
    if point.weight_at > 0.0:
        # The objective has a kink here: no Newton step, but a search in the direction that leaves it downhill.
        return space.at(point.position + _search(space, point, vardi_zhang_step(point)))
    if space.newton_is_expensive and point.excess.absolute <= limits.NEAR_TOLERANCE * tol * point.excess.near_objective:
        ahead = space.at(point.position + vardi_zhang_step(point))
        if _is_twice_as_good(ahead, point, proved):
            return ahead
    direction = space.newton_direction(point)
    ahead = space.at(point.position + direction)
    if _is_twice_as_good(ahead, point, proved):
        return ahead
    vertex = _vertex_passed(space, point, direction, rejected)
    if vertex is not None:
        candidate = space.at(space.row(vertex))
        rejected.add(vertex)
        if candidate.is_vertex_optimum or _is_lower(space, point, candidate):
            return candidate
    found = _search(space, point, direction)
    return ahead if found is direction else space.at(point.position + found)


def _is_twice_as_good(ahead: Iterate, point: Iterate, proved: float) -> bool:
    """Check for a step that halves the least bound: there can be few, so they need no safeguard."""
    return 2.0 * ahead.excess.absolute <= proved < np.inf and ahead.objective <= point.objective


def vardi_zhang_step(point: Iterate) -> Vector:
    """The step of Vardi & Zhang (2000): Weiszfeld's, shortened by the weight of the rows at the point."""
    if point.is_vertex_optimum or point.total_weiszfeld_weight == 0.0:
        return 0.0 * point.residual
    share = 1.0 - point.weight_at / point.residual_norm if point.weight_at > 0.0 else 1.0
    return (share / point.total_weiszfeld_weight) * point.residual


def _vertex_passed(space: Space, point: Iterate, direction: Vector, rejected: set[int]) -> int | None:
    """Find the nearest row that a step is long enough to reach: it may be the optimum."""
    index, distance = space.nearest(point)
    if index in rejected or distance > math.sqrt(max(space.inner(direction, direction), 0.0)):
        return None
    return index


def _is_lower(space: Space, point: Iterate, candidate: Iterate) -> bool:
    along, square = space.project(point, candidate.position - point.position)
    change, _ = space.decrease(point, along, square, 1.0)
    return change < 0.0


def _search(space: Space, point: Iterate, direction: Vector) -> Vector:
    """Scale a direction so that it lowers the objective; where that can't be, take the Vardi-Zhang step."""
    fallback = vardi_zhang_step(point)
    for candidate in (direction, fallback):
        along, square = space.project(point, candidate)
        slope = space.inner(point.residual, candidate) if np.isfinite(square) else 0.0
        slope = point.weight_at * square**0.5 - slope
        step = _line_search(space, point, along, square, slope) if slope < 0.0 else 0.0
        if step > 0.0:
            return candidate if step == 1.0 else step * candidate
    return fallback


def _line_search(space: Space, point: Iterate, along: PerRow, square: float, slope: float) -> float:
    """Find a step that cuts the slope to a third without raising the convex objective; 1 is tried first."""
    low, high, step = 0.0, np.inf, 1.0
    low_slope, high_slope = slope, np.inf
    rounding = 1e-15 * space.weight * square**0.5
    for _ in range(60):
        change, here = space.decrease(point, along, square, step)
        if abs(here) <= abs(slope) / 3.0 and change <= rounding * step:
            return step
        if here > 0.0 or change > rounding * step:
            high, high_slope = step, here
        else:
            low, low_slope = step, here
        if not np.isfinite(high):
            step *= 4.0
            continue
        # The secant's zero of the slope, kept well inside the bracket.
        secant = low + (high - low) * (-low_slope) / max(high_slope - low_slope, 1e-300)
        step = min(max(secant, low + 0.1 * (high - low)), high - 0.1 * (high - low))
    return low


def as_float_array(values: Any) -> NDArray[np.float64]:
    """Convert an array or tensor to a float64 NumPy array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
