"""Centered clipping: a mean of rows clipped about the last aggregate, in time linear in the number of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.checks import check_integer, check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import Aggregate, Aggregator, AggregatorState, check_rows, state_of, usable_rows
from skbgmd.aggregators.geometric_median import GeometricMedian
from skbgmd.rows import ChunkedRows, Rows
from skbgmd.rows.gram import clip_factors, lower_weighted_median
from skbgmd.rows.means import in_range, means


@dataclass(frozen=True)
class CenteredClippingState(AggregatorState):
    """State of :class:`CenteredClipping`.

    Attributes
    ----------
    center : tensor of shape (d,)
        The last aggregate. If columns are spread over processes, its columns held here.
    n_columns : int
        Number of columns of the rows that the center belongs to, in all processes.
    """

    center: torch.Tensor
    n_columns: int


class CenteredClipping(Aggregator):
    r"""Centered clipping: the last aggregate, moved by the mean of the rows' clipped differences from it.

    Each iteration moves the center,
    :math:`y \leftarrow y + \sum_i a_i \min(1, \tau / \lVert x_i - y \rVert) (x_i - y)`, for weights :math:`a_i` that
    add up to one. A call begins at the aggregate of the last call, which is the state. Karimireddy, He and Jaggi
    (2021), "Learning from history for Byzantine robust optimization".

    Use it for workers that send momenta rather than gradients, and for many rows:

    - Momentum averages out an attack that hides within the spread of each step's gradients but pushes the same way in
      all of them.
    - A row moves the aggregate by at most :math:`a_i \tau` in each iteration, whatever it holds.

    The cost is two passes over the rows for each iteration, n numbers, and the memory of one more row. Rules by
    distances between rows take n² products. If a gradient jumps by more than the radius, the rule follows it only from
    call to call.

    Parameters
    ----------
    radius : float or None, default=None
        Distance τ from the center beyond which rows are clipped. A number, as in the paper, is in the rows' unit and
        bounds what an iteration moves. None: the median distance of the rows to the center, computed anew in each
        iteration. That needs no tuning and follows gradients that shrink or jump. But the bound then comes from the
        rows: it is at most the largest distance of an honest row.
    n_iter : int, default=1
        Number of iterations in each call; the paper takes one in all of its experiments.

    Notes
    -----
    The first call has no last aggregate. It begins at the geometric median, which takes the Gram matrix once. The
    authors' analysis asks for a good beginning; their experiments begin at zero, which a small radius takes many steps
    to leave.

    The weights of the rows are their factors, divided by their sum: what remains of the last aggregate belongs to no
    row.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import CenteredClipping
    >>> from skbgmd.rows import DenseRows
    >>> rule = CenteredClipping(radius=1.0)
    >>> aggregate, state = rule(DenseRows(torch.tensor([[0.0], [0.0], [0.0], [0.0]])))
    >>> aggregate, state = rule(DenseRows(torch.tensor([[0.5], [0.5], [0.5], [1e6]])), state)
    >>> aggregate.vector, aggregate.weights.round(3)
    (tensor([0.6250]), array([0.333, 0.333, 0.333, 0.   ]))
    """

    def __init__(self, radius: float | None = None, n_iter: int = 1) -> None:
        self.radius, self.n_iter = radius, n_iter

    def __call__(self, rows: Rows, state: CenteredClippingState | None = None) -> tuple[Aggregate, Any]:
        self._validate()
        check_rows(rows)
        state = state_of(self, state, CenteredClippingState)
        usable = usable_rows(rows, rows.finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        if state is None or (len(state.center), state.n_columns) != (rows.n_held, rows.n_columns):
            # None yet, or of other columns: parameters were frozen or thawed.
            influence = GeometricMedian().judge(some).weights
            center = means(some, influence)
        else:
            influence, center = np.zeros(some.n_rows), state.center.to(rows.device)
        for _ in range(self.n_iter):
            factors = clipped_shares(some, center, self.radius)
            center = moved(some, center, factors)
            influence = (1.0 - factors.sum()) * influence + factors
        # Shares may underflow, all of them, where each row is much farther than a radius.
        influence = influence if influence.any() else some.weights
        weights = np.zeros(rows.n_rows)
        weights[usable] = influence / influence.sum()
        # What changes a gradient in place, such as clipping it, must not move the center.
        return Aggregate(center.clone(), weights), CenteredClippingState(center, rows.n_columns)

    def _validate(self) -> None:
        if self.radius is not None:
            check_number(self.radius, "radius")
        check_integer(self.n_iter, "n_iter")


def clipped_shares(rows: Rows, center: torch.Tensor, radius: float | None) -> FloatArray:
    """Shares of the rows in a mean of their differences from a center that are clipped to a radius.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    center : tensor of shape (d,)
    radius : float or None
        None: the median distance.

    Returns
    -------
    shares : ndarray of shape (n,)
        They add up to one at most.
    """
    distances = distances_to(rows, center)
    limit = lower_weighted_median(distances, rows.weights) if radius is None else radius
    shares: FloatArray = clip_factors(limit, distances) * (rows.weights / rows.weights.sum())
    return shares


def moved(rows: Rows, center: torch.Tensor, shares: FloatArray) -> torch.Tensor:
    """Move a center (d,) by a share (n,) of its difference to each row."""
    total = in_range(rows, rows.weighted_sum(shares), shares)
    # Rounding may leave less than nothing of the center, or come out beyond the largest number.
    largest = torch.finfo(total.dtype).max
    return total.add_(center, alpha=max(0.0, 1.0 - float(shares.sum()))).clamp_(-largest, largest)


def distances_to(rows: Rows, center: torch.Tensor) -> FloatArray:
    """Distances (n,) of finite rows to a vector (d,), from norms and inner products where these have the digits."""
    squared_length = rows.layout.add_up(torch.linalg.vector_norm(center).double().square().view(1))
    norms, length = rows.norms(), math.sqrt(float(squared_length))
    least, most = limits.SQUARED_RANGE[torch.float32]
    is_chunked = isinstance(rows, ChunkedRows)
    if is_chunked and not (least <= length and max(length, norms.max()) <= most):
        return _by_differences(rows, center)
    squares = norms**2 - 2.0 * rows.inner_products(center) + length**2
    if is_chunked and (squares < limits.CANCELLATION * (norms**2 + length**2)).any():
        return _by_differences(rows, center)
    distances: FloatArray = np.sqrt(np.maximum(squares, 0.0))
    return distances


def _by_differences(rows: Any, center: torch.Tensor) -> FloatArray:
    distances: FloatArray = rows.distances(center)
    if np.isnan(distances).any():
        # Differences of the largest numbers overflow.
        with np.errstate(over="ignore"):
            distances = np.minimum(rows.huge_distances(center) * 2.0**64, np.finfo(np.float64).max)
    return distances
