"""Space for few columns: points of R^d."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd.location.solver import Iterate, near_radius, weiszfeld_weights
from skbgmd.location.spaces.base import ALL_NEAR, BaseSpace
from skbgmd.location.spaces.linear_solvers import conjugate_gradients, solve_positive


class _Seen(NamedTuple):
    """Sums over a block of points, as evaluated at a position."""

    #: Mask of the points at the position; None: there are none.
    here: Any
    #: The most that the distances of those may add up to.
    doubtful: float
    #: The sums of :meth:`BaseSpace._sum_weights`, with those of the distances and of ones.
    sums: Any
    #: Distance up to which points are near.
    radius: float


class EuclideanSpace(BaseSpace):
    """Points of R^d, few columns: a position is a float64 vector (d,), relative to ``origin``.

    Parameters
    ----------
    points : ndarray or tensor of shape (n, d)
        Any real floating dtype; worked on in float64, a block of rows at a time.
    weights : ndarray or tensor of shape (n,)
        Positive float64 weights.
    origin : ndarray or tensor of shape (d,)
        A point among the data, in float64. With a large common offset the differences to it keep all their digits,
        where positions counted from zero would not.
    xp : module, default=numpy
        ``numpy``, or ``torch`` for points on another device. The code is one and the same.
    """

    def __init__(self, points: Any, weights: Any, origin: Any, xp: Any = np) -> None:
        self.points, self.origin, self.xp = points, origin, xp
        self._weigh(weights)
        self.n, self.d = points.shape
        self._rows = max(1, min(limits.POINT_BLOCK_ELEMENTS // (self.d + 2), self.n))
        self._column = origin[:, None]
        self._sample: tuple[Any, Any] | None = None
        if self.n > self._rows:
            # One block of them tells nothing where rows are sorted.
            some = slice(None, None, -(-self.n // limits.RADIUS_ROWS))
            self._sample = points[some].T - self._column, weights[some] if self.is_weighted else None
        # Memory that was written before costs less to write again.
        self._one: Any = None
        if self.n * (self.d + 2) <= limits.KEPT_ELEMENTS:
            self._kept: list[tuple[slice, Any]] | None = list(self._convert())
        else:
            self._kept, self._one = None, self._room(slice(0, self._rows))
        self._lines: Any = self._new((2, self._rows))
        self._lines[1] = weights[: self._rows]
        self._memory: list[tuple[slice, Any]] | None = None
        self._last: tuple[Any, list[tuple[slice, Any]]] | None = None
        #: True once squares of distances over- or underflowed: results may have, too.
        self.out_of_range = False
        self.newton_is_expensive = self.d > limits.DIRECT_SOLVE_DIMENSION

    def _new(self, shape: tuple[int, ...]) -> Any:
        return np.empty(shape) if self.xp is np else self.origin.new_empty(shape)

    def _room(self, part: slice) -> Any:
        """Memory of a block: columns first, so that with d = 2 or 3 every operation runs over long contiguous lines.

        There are two more lines, for the distances and of ones.
        """
        room = self._new((self.d + 2, part.stop - part.start))
        room[-1] = 1.0
        return room

    def _convert(self) -> Iterator[tuple[slice, Any]]:
        """Blocks of ``x_i - origin`` in float64, in memory of their own if they are to be kept."""
        for start in range(0, self.n, self._rows):
            part = slice(start, min(start + self._rows, self.n))
            room = self._room(part) if self._one is None else self._one[:, : part.stop - part.start]
            self.xp.subtract(self.points[part].T, self._column, out=room[:-2])
            yield part, room

    def _blocks(self, position: Any) -> Iterable[tuple[slice, Any]]:
        """Blocks of ``x_i - y`` with their two lines more, good until another position is asked for."""
        column = position[:, None]
        if self._kept is None:
            return self._moved(column)
        if self._last is None or self._last[0] is not position:
            blocks = self._kept
            if self.xp.count_nonzero(position):
                blocks = self._memory = self._memory or [(part, self._room(part)) for part, _ in self._kept]
                for (_, block), (_, z) in zip(self._kept, blocks, strict=True):
                    self.xp.subtract(block[:-2], column, out=z[:-2])
            self._last = position, blocks
        return self._last[1]

    def _moved(self, column: Any) -> Iterator[tuple[slice, Any]]:
        for part, block in self._convert():
            block[:-2] -= column
            yield part, block

    def _differences(self, position: Any) -> Iterator[tuple[slice, Any]]:
        """Blocks of ``x_i - y``, good until another position is asked for."""
        return ((part, z[:-2]) for part, z in self._blocks(position))

    def _empty(self) -> Any:
        return self.xp.empty_like(self.weights)

    def row(self, index: int) -> Any:
        """One point as a position."""
        # Subtracted in the same order and dtype as in a block, so that the row's own distance comes out as zero.
        if self.xp is np:
            return np.subtract(self.points[index], self.origin, dtype=np.float64)
        return self.points[index].to(self.xp.float64) - self.origin

    def at(self, position: Any, radius: float | None = None) -> Iterate:
        """Evaluate a position in one pass; rows within ``radius`` are near, None: as a sample of the rows suggests."""
        # The rounding of the position itself: nearer than this, a row can't be told from it.
        rounding = 2.0**-52 * math.sqrt(self.inner(position, position))
        seen: list[_Seen] = []
        distances = self._empty()
        if radius is None and self._sample is not None:
            sample, weights = self._sample
            differences = sample - position[:, None]
            near = self._new((len(differences[0]),))
            _column_norms(differences, near, self.xp)
            radius = near_radius(near, weights)
        for part, z in self._blocks(position):
            seen.append(self._look(z, self.weights[part], rounding, radius, distances[part]))
            radius = seen[-1].radius
        whole = seen[0] if len(seen) == 1 else self._joined(seen, distances)
        vectors, totals = whole.sums[:, :-2], whole.sums[:, -1].tolist()
        return self._assemble(
            position,
            distances,
            whole.here,
            vectors[0],
            (vectors @ vectors.T).tolist(),
            totals,
            whole.sums[:, -2].tolist(),
            doubtful=whole.doubtful,
            # Rounding of unit vectors, and of the differences that they are made from.
            slack=2.0**-50 * self.weight + rounding * totals[0],
        )

    def objective_error(self, point: Iterate) -> float:
        """Bound the rounding error of the objective at a point."""
        rounding = 2.0**-52 * math.sqrt(self.inner(point.position, point.position))
        away = float(self.weights[point.distances > 0.0].sum())
        return 2.0**-50 * point.objective + rounding * away

    def _look(self, z: Any, weights: Any, tiny: float, radius: float | None, distances: Any) -> _Seen:
        """Evaluate a block of ``x_i - y`` and its two lines more; write the distances."""
        nearest, farthest, in_range = _column_norms(z[:-2], distances, self.xp)
        self.out_of_range |= not in_range
        if radius is None:
            radius = near_radius(distances, weights if self.is_weighted else None, nearest, farthest)
        close = None if farthest <= radius else distances <= max(radius, tiny)
        here, doubtful = None, 0.0
        if not tiny < nearest:  # NaN, where differences overflow, says nothing of the others
            here = distances <= tiny
            doubtful = float(weights[here] @ distances[here])
            distances[here] = 0.0
        z[-2] = distances
        lines = self._lines[:, : len(distances)]
        if here is None:
            self.xp.divide(weights, distances, out=lines[0])
        else:
            lines[0] = weiszfeld_weights(weights, distances, here)
        if self.n > self._rows:
            lines[1] = weights
        if close is not None:
            lines = self._sum_weights(weights, lines[0], close)
        # With the distances and ones as two more columns, all that is added up comes out of one product.
        return _Seen(here, doubtful, lines @ z.T, radius)

    def _joined(self, seen: list[_Seen], distances: Any) -> _Seen:
        """Join the evaluations of all blocks."""
        return _Seen(
            None if all(block.here is None for block in seen) else distances == 0.0,
            sum(block.doubtful for block in seen),
            sum(block.sums if len(block.sums) == 4 else block.sums[ALL_NEAR] for block in seen),
            seen[0].radius,
        )

    def inner(self, left: Any, right: Any) -> float:
        return float(left @ right)

    def project(self, point: Iterate, direction: Any) -> tuple[Any, float]:
        """``<z_i, p>`` for every row, and ``||p||^2``."""
        along = self._empty()
        for part, z in self._differences(point.position):
            along[part] = direction @ z
        return along, self.inner(direction, direction)

    def newton_direction(self, point: Iterate) -> Any:
        if self.newton_is_expensive:
            return conjugate_gradients(lambda v: self.hessian_times(point, v), self.inner, point.residual)
        curvature = sum(_curvature(z, v, d, self.xp) for z, v, d in self._terms(point))
        return self._solve(curvature, point.total_weiszfeld_weight, point.residual)

    def newton_step(self, position: Any) -> tuple[Any, float]:
        """Newton direction at a position and the residual's norm in one pass, without a proof or a safeguard.

        Neither is finite at a row. Where squares of distances are out of range they are of no use.
        """
        terms = [self._newton_terms(z, self.weights[part]) for part, z in self._blocks(position)]
        sums, curvature = terms[0]
        for more, more_curvature in terms[1:]:
            sums, curvature = sums + more, curvature + more_curvature
        residual = sums[:-2]
        return self._solve(curvature, sums[-1], residual), math.sqrt(self.inner(residual, residual))

    def _newton_terms(self, z: Any, weights: Any) -> tuple[Any, Any]:
        """Sums of a block of ``x_i - y`` and its two lines by Weiszfeld's weights, and its part of the curvature."""
        d = self.xp.sqrt(self.xp.einsum("ij,ij->j", z[:-2], z[:-2]), out=z[-2])
        v = weights / d
        return z @ v, _curvature(z[:-2], v, d, self.xp)

    def _solve(self, curvature: Any, weight: Any, residual: Any) -> Any:
        hessian = -curvature
        hessian.reshape(-1)[:: self.d + 1] += weight
        return solve_positive(hessian, residual)

    def hessian_times(self, point: Iterate, vector: Any) -> Any:
        """``(sum_i v_i (I - e_i e_i^T)) p``, with Weiszfeld weights ``v_i`` and unit vectors ``e_i = z_i / d_i``."""
        result = point.total_weiszfeld_weight * vector
        for z, v, d in self._terms(point):
            result = result - z @ (vector @ z / d * v / d)
        return result

    def _terms(self, point: Iterate) -> Iterator[tuple[Any, Any, Any]]:
        """Blocks of differences, with their Weiszfeld weights, and their distances (one for the rows at the point)."""
        for part, z in self._differences(point.position):
            a, d = self.weights[part], point.distances[part]
            if point.weight_at > 0.0:
                a, d = self.xp.where(d > 0.0, a, 0.0), self.xp.where(d > 0.0, d, 1.0)
            yield z, a / d, d


def _curvature(z: Any, weiszfeld: Any, distances: Any, xp: Any) -> Any:
    """``sum_i v_i e_i e_i^T``, by which the Hessian is less than that of squared distances."""
    scaled = z * (xp.sqrt(weiszfeld) / distances)
    return scaled @ scaled.T


def _column_norms(z: Any, norms: Any, xp: Any) -> tuple[float, float, bool]:
    """Write the norms of columns; their smallest and largest, and True where squares of all but zeros are in range."""
    squares = xp.einsum("ij,ij->j", z, z)
    # Argmin and argmax are quicker than min and max.
    low, high = float(squares[squares.argmin()]), float(squares[squares.argmax()])
    least, most = limits.SQUARED_RANGE[torch.float64]
    if low > least * least and high < most * most:
        xp.sqrt(squares, out=norms)
        return math.sqrt(low), math.sqrt(high), True
    scale = abs(z).max(0) if xp is np else abs(z).amax(0)
    xp.multiply(scale, xp.sqrt(((z / xp.where(scale > 0.0, scale, 1.0)) ** 2).sum(0)), out=norms)
    low, high = float(norms.min()), float(norms.max())
    return low, high, high < most and not bool(((norms > 0.0) & (norms < least)).any())
