"""Space for many rows of many columns: distances by expanded squares, in the data's own dtype."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd.location.certificate import Excess
from skbgmd.location.solver import Iterate, near_radius
from skbgmd.location.spaces.base import BaseSpace


class ExpandedSpace(BaseSpace):
    r"""Points of R^d, many columns: a position is a float64 vector (d,), relative to ``center``.

    .. math:: \lVert z_i - p \rVert^2 = \lVert z_i \rVert^2 - 2 \langle z_i, p \rangle + \lVert p \rVert^2,
        \qquad z_i = x_i - c

    Squared norms are computed once. From then on an evaluation is two products of a matrix with a vector, in the dtype
    of the points and over blocks of rows that the second finds in the caches; differences would have to be written and
    squared. There are few digits near a point and far from the center: the bound on the excess grows by what they may
    hide, and is infinite where that is everything. There are no Newton steps; what this space can't solve, others can.

    Parameters
    ----------
    points : ndarray or tensor of shape (n, d)
        float32 or float64.
    weights : ndarray or tensor of shape (n,)
        Positive float64 weights.
    center : ndarray or tensor of shape (d,), default=None
        A point among the data, in their dtype; None: zero, which spares the differences.
    xp : module, default=numpy
        ``numpy``, or ``torch`` for points on another device.
    """

    def __init__(self, points: Any, weights: Any, center: Any = None, xp: Any = np) -> None:
        self.points, self.center, self.xp = points, center, xp
        self._weigh(weights)
        self.n, self.d = points.shape
        self._is_single = points.dtype.itemsize == 4
        rows = max(1, limits.ROW_BLOCK_ELEMENTS[points.dtype.itemsize] // self.d)
        rows = min(rows, limits.SINGLE_SUM_ROWS) if self._is_single else rows
        self._parts = [slice(start, min(start + rows, self.n)) for start in range(0, self.n, rows)]
        self._buffer = None if center is None else xp.empty_like(points[self._parts[0]])
        #: Error of squared distances, relative to squares of lengths: as in a Gram matrix.
        self.rounding = 2.0 ** (-22 if self._is_single else -50)
        #: Error of sums of vectors in a block, relative to their lengths, as of independent roundings of vectors alike.
        self._sum_rounding = 0.125 * self.rounding * math.sqrt(self._parts[0].stop)
        #: With unit vectors in all directions alike, of mean square 1 / d in each, so long a step is Newton's.
        self.stretch = self.d / max(1, self.d - 1)
        self._range = limits.SQUARED_RANGE[torch.float32 if self._is_single else torch.float64]
        self._ones = xp.ones_like(weights) if self.is_weighted else weights
        self._squares: Any = None
        self._norms: Any = None
        self._sum: Any = None

    def _blocks(self) -> Iterator[tuple[slice, Any]]:
        """Blocks of rows less the center, good until the next."""
        for part in self._parts:
            z = self.points[part]
            yield part, z if self._buffer is None else self.xp.subtract(z, self.center, out=self._buffer[: len(z)])

    def _narrow(self, values: Any) -> Any:
        """Round float64 numbers to the dtype of the points."""
        if not self._is_single:
            return values
        return values.astype(np.float32) if self.xp is np else values.float()

    def _widen(self, values: Any) -> Any:
        if not self._is_single:
            return values
        return values.astype(np.float64) if self.xp is np else values.double()

    def rows(self, index: list[int]) -> Any:
        """Some points, as they are, in float64."""
        return self._widen(self.points[index])

    def start(self) -> Any:
        """The step from the center, which is as good as the mean and less moved by far points.

        It is made in the pass that squares the points.
        """
        xp, norms, total, step, whole = self.xp, self.xp.empty_like(self.weights), 0.0, 0.0, 0.0
        for part, z in self._blocks():
            a, lengths = self.weights[part], _norms(z)
            norms[part] = lengths
            is_apart = float(lengths[lengths.argmin()]) > 0.0
            v = a / (lengths if is_apart else xp.where(lengths > 0.0, lengths, math.inf))
            total = self._widen(self._narrow(a) @ z) + total
            step = self._widen(self._narrow(v) @ z) + step
            whole += self.inner(v, self._ones[part])
        self._norms, self._squares, self._sum = norms, norms * norms, total
        return step * (self.stretch / whole) if whole > 0.0 else step

    def move_to(self, position: Any) -> Any:
        """Move the center to a position, rounded; returns the start from there."""
        moved = self._narrow(position)
        self.center = moved if self.center is None else self.center + moved
        if self._buffer is None:
            self._buffer = self.xp.empty_like(self.points[self._parts[0]])
        return self.start()

    def ahead(self, position: Any) -> Any:
        """The end of the step from a position, without a proof."""
        _, v, total, _ = self._evaluate(self._narrow(position))
        return self.stretch * (total / self.inner(v, self._ones)) - (self.stretch - 1.0) * position

    def _evaluate(self, rounded: Any) -> tuple[Any, Any, Any, float]:
        """Distances to a position, weights of Weiszfeld's step, the sum of the points times these, and its square."""
        if self._norms is None:
            self.start()
        xp, a = self.xp, self.weights
        position = self._widen(rounded)
        twice, square = -2.0 * rounded, self.inner(position, position)
        d, v, total = xp.empty_like(a), xp.empty_like(a), 0.0
        for part, z in self._blocks():
            squares = self._widen(z @ twice)
            squares += self._squares[part]
            squares += square
            weiszfeld = xp.divide(a[part], xp.sqrt(squares, out=d[part]), out=v[part])
            total = self._widen(self._narrow(weiszfeld) @ z) + total
        return d, v, total, square

    def at(self, position: Any, radius: float | None = None) -> Iterate:
        """Evaluate a position, rounded to the dtype of the points, in one pass."""
        a, weight = self.weights, self.weight
        rounded = self._narrow(position)
        d, v, total, square = self._evaluate(rounded)
        position = self._widen(rounded)
        nearest, farthest, longest = float(d[d.argmin()]), float(d[d.argmax()]), math.sqrt(square)
        # Shares of errors in distances: the squared sum of the lengths over the distance.
        lengths = self._norms + longest
        lengths /= d
        can_tell = self.rounding * float(lengths[lengths.argmax()]) ** 2 < 0.5
        can_tell &= self._range[0] < nearest and farthest < self._range[1]
        whole = self.inner(v, self._ones)
        residual, away = total - whole * position, self._sum - weight * position
        lengths *= lengths
        slack = 0.5 * self.rounding * self.inner(a, lengths) + self._sum_rounding * weight
        radius = near_radius(d, a if self.is_weighted else None, nearest, farthest) if radius is None else radius
        sums, totals, objective = [residual, away], [whole, weight], self.inner(a, d)
        objectives = [weight, objective]
        if can_tell and farthest > radius:
            near = d <= radius
            near_sums: Any = 0.0
            parts = self._stack([near * v, near * a])
            for part, z in self._blocks():
                near_sums = near_sums + self._widen(self._narrow(parts[:, part]) @ z)
            near_totals = parts.sum(1).tolist()
            sums = [residual, near_sums[0] - near_totals[0] * position, away, near_sums[1] - near_totals[1] * position]
            totals = [whole, near_totals[0], weight, near_totals[1]]
            objectives = [weight, near_totals[0], objective, self.inner(parts[1], d)]
        vectors = self._stack(sums)
        products = (vectors @ vectors.T).tolist()
        iterate = self._assemble(
            position,
            d,
            None,
            residual,
            products,
            totals,
            objectives,
            doubtful=0.0,
            slack=slack,
            rounding=self._sum_rounding,
        )
        # As in the bound: what is missing is shared by the near rows, as far as they don't pull themselves.
        lead = totals[-1] ** 2 - products[len(products) // 2 - 1][len(products) // 2 - 1]
        iterate.rounding = slack / math.sqrt(lead) * objectives[-1] if lead > 0.0 else math.inf
        if not can_tell:
            iterate.excess, iterate.rounding = Excess(math.inf, 0.0), math.inf
        return iterate

    def position_error(self, point: Iterate) -> float:
        """Bound the error of Weiszfeld's step from a point by the rounding of sums."""
        longest = float(self._norms[self._norms.argmax()])
        return self._sum_rounding * longest + 2.0**-50 * (
            longest + math.sqrt(self.inner(point.position, point.position))
        )

    def objective_error(self, point: Iterate) -> float:
        """Bound the rounding error of the objective at a point."""
        d = point.distances
        lengths = self._norms + math.sqrt(self.inner(point.position, point.position))
        return 0.5 * self.rounding * float(self.weights @ (lengths * lengths / d)) + 2.0**-50 * point.objective

    def inner(self, left: Any, right: Any) -> float:
        return float(left @ right)


def _norms(z: Any) -> Any:
    """Norms of rows, in float64."""
    # By torch, whose norms are several times as fast as NumPy's; few columns at a time, to keep their digits.
    points = z if isinstance(z, torch.Tensor) else torch.from_numpy(z)
    if points.shape[1] <= limits.NORM_COLUMNS:
        norms = torch.linalg.vector_norm(points, dim=1).double()
    else:
        pieces = torch.split(points, limits.NORM_COLUMNS, dim=1)
        squares = [torch.linalg.vector_norm(piece, dim=1).double().square_() for piece in pieces]
        norms = torch.stack(squares).sum(dim=0).sqrt_()
    return norms if points is z else norms.numpy()
