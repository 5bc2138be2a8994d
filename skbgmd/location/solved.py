"""The geometric median as a path found it, and its proof after rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from skbgmd._utils.typing import FloatArray
from skbgmd.location.certificate import relative_gap
from skbgmd.location.row_weights import place
from skbgmd.location.solver import HasError, Iterate, Solution, as_float_array
from skbgmd.rows import DenseRows


@dataclass(frozen=True)
class Solved:
    """Solution of either path, before its conversion to the caller's kind of array."""

    #: Gives the weights of the rows, (n,), which take memory and may not be asked for.
    weigh: Callable[[], FloatArray]
    #: Rounded to the answer's dtype; None: weights @ rows, in working precision, is to be rounded.
    median: torch.Tensor | None
    #: Sum of the weighted distances, and a bound on its excess; in units of 2**exponent.
    objective: float
    excess: float
    n_iter: int
    exponent: int = 0
    #: True where the median is a row, but for rounding.
    is_row: bool = False

    @property
    def weights(self) -> FloatArray:
        return self.weigh()

    @property
    def gap(self) -> float:
        return relative_gap(self.excess, self.objective)

    def of_rounded_rows(self, lost: FloatArray | None, weights: FloatArray) -> Solved:
        """Bounds for rows that lost digits in float64, given a norm (n,) of the loss for each."""
        if lost is None:
            return self
        moved = math.ldexp(float(weights @ lost), -self.exponent)
        return replace(self, objective=self.objective + moved, excess=self.excess + 2.0 * moved)


@cache
def _rounding(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2.0


@cache
def _least(dtype: torch.dtype) -> float:
    """The smallest positive number of a dtype."""
    return float(torch.finfo(dtype).tiny) * torch.finfo(dtype).eps


def rounding_move(length: float, dtype: torch.dtype, rounded_to: torch.dtype, d: int) -> float:
    """Bound the move of a point (d,) by rounding, from a bound on its norm, and its dtype."""
    if dtype == rounded_to:
        return 0.0
    return 2.0 * _rounding(rounded_to) * length + _least(rounded_to) * math.sqrt(d)


def rounding_move_of_point(point: torch.Tensor, length: float, rounded_to: torch.dtype, *, is_row: bool) -> float:
    """Bound the move of a point by rounding: none for a row whose numbers are exact in the dtype."""
    if is_row and torch.equal(point.to(rounded_to).to(point.dtype), point):
        return 0.0
    return rounding_move(length, point.dtype, rounded_to, point.shape[0])


def combination_error(rows: DenseRows, length: float) -> float:
    """Bound the error of a weighted mean of rows by rounding, from their mean norm.

    Each weight is rounded, each product, and each sum.
    """
    least = _least(rows.work_dtype) * rows.n_rows * math.sqrt(rows.n_columns)
    return (rows.n_rows + 2) * _rounding(rows.work_dtype) * length + least


def excess_after_move(iterate: Iterate, moved: float, tol: float) -> float | None:
    """Bound the excess of a median that is moved by at most ``moved``; None where that costs too much.

    ``||z - e|| <= ||z|| - <z, e> / ||z|| + ||e||^2 / (2 ||z||)``, summed over the rows; rows at the point add
    ``||e||``. Twice that, for the step from the iterate to the median.
    """
    cost = moved * (2.0 * iterate.residual_norm + iterate.weight_at + iterate.total_weiszfeld_weight * moved)
    if not cost <= 0.1 * tol * iterate.excess.near_objective:
        return None
    excess = iterate.excess.absolute + cost
    return excess if relative_gap(excess, iterate.objective) <= tol else None


def excess_of(objective: float, iterate: Iterate, error: float) -> float:
    """Bound the excess of a point from its objective and the lower bound that the iterate proves."""
    lower = iterate.objective - error - iterate.excess.absolute
    return max(0.0, objective * (1.0 + 2.0**-50) - lower) if objective > 0.0 else 0.0


def as_rounded(
    rows: DenseRows,
    space: HasError,
    solution: Solution,
    exact: torch.Tensor,
    dtype: torch.dtype,
    *,
    moved: float,
    tol: float,
) -> Solved:
    """Round a solution's point (d,), which moves it by at most ``moved``; measure it where that bound is too wide."""
    iterate = solution.iterate
    excess = excess_after_move(iterate, moved, tol) if solution.converged else None
    if excess is None:
        return measured(rows, solution, space.objective_error(iterate), exact, dtype, solution.n_iter)
    is_row = solution.vertex is not None
    return Solved(solution.float_weights, exact.to(dtype), iterate.objective, excess, solution.n_iter, is_row=is_row)


def exact_mean(rows: DenseRows, solution: Solution) -> torch.Tensor:
    """The solution's position in float64, as the mean of the rows by its weights."""
    return rows.weighted_sum(place(solution), torch.float64)


def measured(
    rows: DenseRows, solution: Solution, error: float, exact: torch.Tensor, dtype: torch.dtype, n_iter: int
) -> Solved:
    """Measure the distances to the rounded median in float64, for a tighter bound on its excess.

    Rounding costs second order only, which a bound from the size of the move doesn't show.
    """
    answer, iterate = exact.to(dtype), solution.iterate
    distances = rows.distances(answer.double())
    objective = float(rows.weights @ distances)
    excess = excess_of(objective, iterate, error)
    if solution.vertex is not None:
        # Rows that count as at the point may be seen to be so now.
        at = as_float_array(iterate.distances) == 0.0
        excess -= 2.0 * max(0.0, iterate.doubtful - float(rows.weights[at] @ distances[at]))
    is_row = solution.vertex is not None
    return Solved(solution.float_weights, answer, objective, excess, n_iter, is_row=is_row)
