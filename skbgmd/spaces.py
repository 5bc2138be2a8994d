"""The two homes of a geometric median's points: R^d (few columns) and the span of the rows (few rows)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from skbgmd.certificate import excess_bound
from skbgmd.solver import Iterate, as_float_array, near_radius

FloatArray = NDArray[np.float64]

#: Up to this dimension a Newton system is solved directly; beyond it by conjugate gradients.
DENSE_LIMIT = 64
#: Rows up to which NumPy multiplies Gram matrices, in one thread.
SMALL = 64
#: Elements of a block of points that is worked on at once (8 MB in float64).
BLOCK_ELEMENTS = 1 << 20
#: Elements up to which the float64 blocks are kept between passes rather than converted anew.
KEEP_ELEMENTS = 1 << 23


class _Space:
    """What both spaces share: everything that is one number a row."""

    xp: Any
    weights: Any
    weight: float
    newton_is_dear: bool

    def decrease(self, point: Iterate, along: Any, square: float, step: float) -> tuple[float, float]:
        """Change of the objective, and its slope, ``step`` directions away from a point.

        ``d_i(t)^2 - d_i^2 = t^2 ||p||^2 - 2 t <z_i, p>`` divided by ``d_i(t) + d_i`` has no cancellation, so a
        row at 1e160 doesn't drown what happens among rows of order one.
        """
        xp, length = self.xp, math.sqrt(square)
        a, d = self.weights, point.distances
        if point.weight_at > 0.0:
            # Rows at the point count by themselves, below: their distance is that of the step.
            a, d = xp.where(d == 0.0, 0.0, a), xp.where(d == 0.0, 1.0, d)
        # In units of the distance, for no square of it has to be a number.
        whole = (step * length) / d
        # (Negative by rounding only.)
        moved = d * xp.sqrt(abs(1.0 + whole * whole - (2.0 * step) * (along / d / d)))
        top = step * square - along
        change = (top - along) / (moved + d)
        slope = top / (moved if float(moved.min()) > 0.0 else xp.where(moved > 0.0, moved, d))
        kink = point.weight_at * length
        return step * (float(a @ change) + kink), float(a @ slope) + kink

    def nearest(self, point: Iterate) -> tuple[int, float]:
        """Index and distance of the row nearest to a point."""
        index = int(point.distances.argmin())
        return index, float(point.distances[index])

    def _pull_of(self, weights: Any, distances: Any, at: Any) -> Any:
        """a_i / d_i, zero for the rows of the mask ``at``; None: there are none."""
        if at is None:
            return weights / distances
        return self.xp.where(at, 0.0, weights / self.xp.where(at, 1.0, distances))

    def _sum_weights(self, weights: Any, pull: Any, near: Any) -> Any:
        """Weights of the four sums of :func:`~skbgmd.certificate.excess_bound`; of two, if all rows are near."""
        stack = np.array if self.xp is np else self.xp.stack  # np.stack takes longer to check than this to copy
        if near is None:
            return stack([pull, weights])
        return stack([pull, near * pull, weights, near * weights])

    def _assemble(
        self,
        position: Any,
        distances: Any,
        pull: Any,
        at: Any,
        residual: Any,
        products: FloatArray,
        totals: FloatArray,
        lengths: FloatArray,
        *,
        doubtful: float,
        slack: float,
    ) -> Iterate:
        """Pack an iterate with its proof.

        ``products`` (m, m) are of the sums of :meth:`_sum_weights`, ``totals`` (m,) the weights added up and
        ``lengths`` (m,) the same of the distances, m = 2 where all rows are near, else 4. ``at`` is a mask of rows,
        or None for none, and ``doubtful`` the largest sum of distances that they may have.
        """
        if len(products) == 2:
            products, totals, lengths = products[_ALL_NEAR_SQUARED], totals[_ALL_NEAR], lengths[_ALL_NEAR]
        total_pull, _, _, weight_near = totals.tolist()
        _, _, objective, near_objective = lengths.tolist()
        at_weights: Any = None if at is None else self.xp.where(at, self.weights, 0.0)
        weight_at = 0.0 if at is None else float(at_weights.sum())
        excess = excess_bound(
            products,
            weight_all=self.weight,
            objective=objective,
            weight_near=weight_near,
            near_objective=near_objective,
            weight_at=weight_at,
            at_objective=doubtful,
            slack=slack,
        )
        return Iterate(
            position=position,
            distances=distances,
            pull=pull,
            total_pull=total_pull,
            residual=residual,
            residual_norm=math.sqrt(max(float(products[0, 0]), 0.0)),
            at=at_weights,
            weight_at=weight_at,
            objective=objective,
            excess=excess,
        )


#: Where the four sums are found among two, if all rows are near.
_ALL_NEAR = np.array([0, 0, 1, 1])
_ALL_NEAR_SQUARED = np.ix_(_ALL_NEAR, _ALL_NEAR)


class PointSpace(_Space):
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
        self.points, self.weights, self.origin, self.xp = points, weights, origin, xp
        self.weight = float(weights.sum())
        self.n, self.d = points.shape
        self._rows = max(1, BLOCK_ELEMENTS // (self.d + 2))
        self._column = origin[:, None]
        self._kept = list(self._convert()) if self.n * (self.d + 2) <= KEEP_ELEMENTS else None
        # Memory that was written before costs less to write again.
        self._memory: list[tuple[slice, Any]] | None = None
        self._last: tuple[Any, list[tuple[slice, Any]]] | None = None
        self.newton_is_dear = self.d > DENSE_LIMIT
        if not self.newton_is_dear:
            self._identity = xp.diag(xp.ones_like(origin))

    def _room(self, part: slice) -> Any:
        """Memory of a block: columns first, so that with d = 2 or 3 every operation runs over long contiguous lines.

        There are two more lines, for the distances and of ones.
        """
        shape = (self.d + 2, part.stop - part.start)
        room: Any = np.empty(shape) if self.xp is np else self.origin.new_empty(shape)
        room[-1] = 1.0
        return room

    def _convert(self) -> Iterator[tuple[slice, Any]]:
        """Blocks of ``x_i - origin`` in float64."""
        for start in range(0, self.n, self._rows):
            part = slice(start, min(start + self._rows, self.n))
            room = self._room(part)
            self.xp.subtract(self.points[part].T, self._column, out=room[:-2])
            yield part, room

    def _blocks(self, position: Any) -> Iterable[tuple[slice, Any]]:
        """Blocks of ``x_i - y`` with their two lines more, good until another position is asked for."""
        column = position[:, None]
        if self._kept is None:
            return self._moved(column)
        if self._last is None or self._last[0] is not position:
            blocks = self._kept
            if bool(position.any()):
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
        """Evaluate a position in one pass; rows within ``radius`` are near, None: as the first block suggests."""
        xp = self.xp
        distances, pull, at = self._empty(), self._empty(), None
        sums: Any = 0.0
        # The rounding of the position itself: nearer than this, a row can't be told from it.
        tiny = 2.0**-52 * math.sqrt(self.inner(position, position))
        doubtful = 0.0
        for part, z in self._blocks(position):
            d, nearest, farthest = _column_norms(z[:-2], xp)
            radius = near_radius(d) if radius is None else radius
            close = None if farthest <= radius else d <= max(radius, tiny)
            here = None if tiny < nearest else d <= tiny
            if here is not None:
                at = self.weights < 0.0 if at is None else at
                at[part] = here
                doubtful += float(self.weights[part][here] @ d[here])
                d = xp.where(here, 0.0, d)
            distances[part], z[-2] = d, d
            a = self.weights[part]
            pull[part] = p = self._pull_of(a, d, here)
            # With the distances and ones as two more columns, all that is added up comes out of one product.
            some = self._sum_weights(a, p, close) @ z.T
            sums = some if self.n <= self._rows else sums + (some if close is not None else some[_ALL_NEAR])
        vectors = sums[:, :-2]
        products = as_float_array(vectors @ vectors.T)
        totals, lengths = as_float_array(sums[:, -1]), as_float_array(sums[:, -2])
        return self._assemble(
            position,
            distances,
            pull,
            at,
            vectors[0],
            products,
            totals,
            lengths,
            doubtful=doubtful,
            slack=2.0**-50 * self.weight,
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
        if self.newton_is_dear:
            return conjugate_gradients(lambda v: self.hessian_times(point, v), self.inner, point.residual)
        hessian = point.total_pull * self._identity
        for z, pull, d in self._terms(point):
            scaled = z * (self.xp.sqrt(pull) / d)
            hessian = hessian - scaled @ scaled.T
        return _solve_positive(hessian, point.residual) if self.xp is np else _solve(hessian, point.residual, self.xp)

    def hessian_times(self, point: Iterate, vector: Any) -> Any:
        """``(sum_i pull_i (I - e_i e_i^T)) v`` with the unit vectors ``e_i = z_i / d_i`` towards the rows."""
        result = point.total_pull * vector
        for z, pull, d in self._terms(point):
            result = result - z @ (vector @ z / d * pull / d)
        return result

    def _terms(self, point: Iterate) -> Iterator[tuple[Any, Any, Any]]:
        """Blocks of differences, with their pulls and distances (one for the rows at the point, without pull)."""
        d = point.distances
        safe = d if point.weight_at == 0.0 else self.xp.where(d > 0.0, d, 1.0)
        for part, z in self._differences(point.position):
            yield z, point.pull[part], safe[part]


class GramSpace(_Space):
    """Combinations of the rows of a matrix, through their Gram matrix alone; always NumPy on the CPU.

    A vector ``sum_i q_i (x_i - c)`` is the stack ``(q, K q)`` of shape (2, n), with ``K`` the Gram matrix of
    ``x_i - c``: sums and multiples act on both lines, an inner product is ``q @ (K q')``, and every
    product with ``K`` happens once.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        ``<x_i - c, x_j - c>`` in float64, for any point ``c``.
    weights : ndarray of shape (n,)
        Positive float64 weights.
    rounding : float, default=2**-50
        Relative error of the entries: ``|error of K_ij| <= rounding * ||x_i - c|| ||x_j - c||``.
    """

    xp = np

    def __init__(self, products: FloatArray, weights: FloatArray, rounding: float = 2.0**-50) -> None:
        self.products, self.weights, self.rounding = products, weights, rounding
        self.weight = float(weights.sum())
        self.n = len(weights)
        self.newton_is_dear = self.n > DENSE_LIMIT
        self.squares = np.maximum(np.diagonal(products), 0.0)
        self.norms = np.sqrt(self.squares)

    def vector(self, coefficients: FloatArray) -> FloatArray:
        """The vector with these coefficients."""
        return np.stack([coefficients, self._times(coefficients)])

    def _times(self, coefficients: FloatArray) -> FloatArray:
        """``coefficients @ products``."""
        if self.n <= SMALL:
            return coefficients @ self.products
        # Large products go to torch, as all others do: two libraries' idle threads would fight over the cores.
        result: FloatArray = (torch.from_numpy(coefficients) @ torch.from_numpy(self.products)).numpy()
        return result

    def row(self, index: int) -> FloatArray:
        coefficients = np.zeros(self.n)
        coefficients[index] = 1.0
        return np.stack([coefficients, self.products[index]])

    def distances(self, position: FloatArray) -> FloatArray:
        return np.sqrt(np.maximum(self._squared_distances(position), 0.0))

    def _squared_distances(self, position: FloatArray) -> FloatArray:
        result: FloatArray = self.squares - 2.0 * position[1] + position[0] @ position[1]
        return result

    def at(self, position: FloatArray, radius: float | None = None) -> Iterate:
        """Evaluate a position: one product of four vectors with the Gram matrix."""
        a, w = self.weights, position[0]
        squared = self._squared_distances(position)
        # Rounding of squared distances: independent errors of the entries, mostly of the row's own square.
        doubt = self.rounding * (self.norms + math.sqrt(float((w * w) @ self.squares))) ** 2
        here = squared <= 2.0 * doubt
        at = here if here.any() else None
        distances = np.sqrt(np.maximum(squared, 0.0))
        radius = near_radius(distances) if radius is None else radius
        near = None if distances.max() <= radius else here | (distances <= radius)
        doubtful = 0.0
        if at is not None:
            doubtful = float(a[here] @ np.sqrt(np.maximum(squared, 0.0) + doubt)[here])
            distances[here] = 0.0
        pull = self._pull_of(a, distances, at)
        sums = self._sum_weights(a, pull, near)
        totals, lengths = sums.sum(axis=1), sums @ distances
        sums -= totals[:, None] * w
        images = self._times(sums)
        residual = np.stack([sums[0], images[0]])
        products = images @ sums.T
        # R is off by the sum of a_i times the relative error of d_i.
        relative = doubt / np.where(here, np.inf, 2.0 * squared)
        slack = float(a @ relative)
        return self._assemble(
            position, distances, pull, at, residual, products, totals, lengths, doubtful=doubtful, slack=slack
        )

    def inner(self, left: FloatArray, right: FloatArray) -> float:
        return float(left[0] @ right[1])

    def project(self, point: Iterate, direction: FloatArray) -> tuple[FloatArray, float]:
        along: FloatArray = direction[1] - point.position[0] @ direction[1]
        return along, max(self.inner(direction, direction), 0.0)

    def newton_direction(self, point: Iterate) -> FloatArray:
        if self.newton_is_dear:
            direction: FloatArray = conjugate_gradients(
                lambda v: self.hessian_times(point, v), self.inner, point.residual
            )
            return direction
        w, image = point.position
        centred = self.products - image - image[:, None] + w @ image
        # (V I - Z^T S Z) Z^T q = Z^T pull has the solution of (V I - S Z Z^T) q = pull.
        system = point.total_pull * np.eye(self.n) - self._curvature(point)[:, None] * centred
        if self.n <= SMALL:
            q = _solve(system, point.pull, np)
        else:
            q = _solve(torch.from_numpy(system), torch.from_numpy(point.pull), torch).numpy()
        return self.vector(q - q.sum() * w)

    def hessian_times(self, point: Iterate, vector: FloatArray) -> FloatArray:
        w = point.position[0]
        share = self._curvature(point) * (vector[1] - w @ vector[1])
        return point.total_pull * vector - self.vector(share - share.sum() * w)

    def _curvature(self, point: Iterate) -> FloatArray:
        safe = np.where(point.distances > 0.0, point.distances, 1.0)
        curvature: FloatArray = point.pull / safe / safe
        return curvature


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


def _solve(matrix: Any, right: Any, xp: Any) -> Any:
    try:
        return xp.linalg.solve(matrix, right)
    except (np.linalg.LinAlgError, RuntimeError):
        # Singular only on collinear data, where the residual is the way to the optimum.
        return right * math.nan


def _solve_positive(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """As :func:`_solve`, of a symmetric positive definite matrix; for a few columns, calls are what takes time."""
    _, solution, failed = dposv(matrix, right)
    result: FloatArray = right * math.nan if failed else solution
    return result


def _column_norms(z: Any, xp: Any) -> tuple[Any, float, float]:
    """Norms of columns, the smallest and the largest of them; squares may overflow or underflow."""
    squares = xp.einsum("ij,ij->j", z, z)
    low, high = float(squares.min()), float(squares.max())
    if low > 1e-280 and high < 1e300:
        return xp.sqrt(squares), math.sqrt(low), math.sqrt(high)
    scale = abs(z).max(0) if xp is np else abs(z).amax(0)
    norms = scale * xp.sqrt(((z / xp.where(scale > 0.0, scale, 1.0)) ** 2).sum(0))
    return norms, float(norms.min()), float(norms.max())
