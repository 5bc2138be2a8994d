"""Space for few rows: their combinations, through the Gram matrix alone."""

from __future__ import annotations

import math

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.location.solver import Iterate, near_radius, weiszfeld_weights
from skbgmd.location.spaces.base import BaseSpace
from skbgmd.location.spaces.linear_solvers import conjugate_gradients, solve_positive
from skbgmd.rows.gram import Gram


class GramSpace(BaseSpace):
    """Combinations of the rows of a matrix, through their Gram matrix alone; always NumPy on the CPU.

    A vector ``sum_i q_i (x_i - c)`` is the stack ``(q, K q)`` of shape (2, n), with ``K`` the Gram matrix of
    ``x_i - c``: sums and multiples act on both lines, an inner product is ``q @ (K q')``, and every
    product with ``K`` happens once.

    Parameters
    ----------
    gram : Gram
        ``<x_i - c, x_j - c>``, for any point ``c``, and their errors.
    weights : ndarray of shape (n,)
        Positive float64 weights.
    """

    xp = np

    def __init__(self, gram: Gram, weights: FloatArray) -> None:
        self.products, self.rounding = gram.products, gram.rounding
        self._weigh(weights)
        self.squares, self._lengths, self._floor = gram.squares, gram.known_lengths, 4.0 * gram.floor
        self._products = torch.from_numpy(gram.products)

    def _weigh(self, weights: FloatArray) -> None:
        super()._weigh(weights)
        self.n = len(weights)
        self.newton_is_expensive = self.n > limits.DIRECT_SOLVE_DIMENSION

    def vector(self, coefficients: FloatArray) -> FloatArray:
        """The vector with these coefficients."""
        return np.array([coefficients, self._times(coefficients)])

    def _times(self, coefficients: FloatArray) -> FloatArray:
        """``coefficients @ products``."""
        if self.n <= limits.NUMPY_PRODUCT_ROWS:
            return coefficients @ self.products
        # Large products go to torch, as all others do: two libraries' idle threads would fight over the cores.
        given = torch.from_numpy(coefficients)
        product = torch.mv(self._products, given) if given.ndim == 1 else torch.mm(given, self._products)
        result: FloatArray = product.numpy()
        return result

    def row(self, index: int) -> FloatArray:
        coefficients = np.zeros(self.n)
        coefficients[index] = 1.0
        return np.array([coefficients, self.products[index]])

    def distances(self, position: FloatArray) -> FloatArray:
        """Distances of the rows to a position."""
        return np.sqrt(np.maximum(self._squared_distances(position), 0.0))

    def distances_to_mean(self, weights: FloatArray) -> FloatArray:
        """Distances of the rows to their mean with some weights, which add up to one."""
        image = self._times(weights)
        return np.sqrt(np.maximum(self.squares + (weights @ image - 2.0 * image), 0.0))

    def _squared_distances(self, position: FloatArray) -> FloatArray:
        result: FloatArray = self.squares - 2.0 * position[1] + position[0] @ position[1]
        return result

    def at(self, position: FloatArray, radius: float | None = None) -> Iterate:
        """Evaluate a position: one product of four vectors with the Gram matrix."""
        a, w = self.weights, position[0]
        squared = self._squared_distances(position)
        doubt = self._doubt(w)
        here = squared <= 2.0 * doubt
        at = here if np.count_nonzero(here) else None
        distances = np.sqrt(np.maximum(squared, 0.0))
        nearest, farthest = float(distances[distances.argmin()]), float(distances[distances.argmax()])
        if radius is None:
            radius = near_radius(distances, a if self.is_weighted else None, nearest, farthest)
        near = None if farthest <= radius else here | (distances <= radius)
        doubtful = 0.0
        if at is not None:
            doubtful = float(a[here] @ np.sqrt(np.maximum(squared, 0.0) + doubt)[here])
            distances[here] = 0.0
        weiszfeld = weiszfeld_weights(a, distances, at)
        sums = self._sum_weights(a, weiszfeld, near)
        totals, lengths = sums.sum(axis=1), sums @ distances
        images = self._images(sums, totals, position)
        residual = np.array([sums[0], images[0]])
        products = images @ sums.T
        rounded = abs(sums) @ self._lengths
        # R is off by the sum of a_i times the relative error of d_i.
        relative = doubt / (2.0 * squared) if at is None else doubt / np.where(here, np.inf, 2.0 * squared)
        slack = float(a @ relative)
        return self._assemble(
            position,
            distances,
            at,
            residual,
            products.tolist(),
            totals.tolist(),
            lengths.tolist(),
            doubtful=doubtful,
            slack=slack,
            rounded=rounded.tolist(),
            rounding=self.rounding,
        )

    def _images(self, sums: FloatArray, totals: FloatArray, position: FloatArray) -> FloatArray:
        """Center sums of rows (m, n), in place, at a position as often as they add up to; their products (m, n)."""
        sums -= totals[:, None] * position[0]
        return self._times(sums)

    def _doubt(self, coefficients: FloatArray) -> FloatArray:
        """Estimate the rounding of squared distances: independent errors of entries, mostly of a row's own square."""
        of_position = coefficients * self._lengths
        doubt: FloatArray = self.rounding * (self._lengths + math.sqrt(float(of_position @ of_position))) ** 2
        doubt += self._floor
        return doubt

    def objective_error(self, point: Iterate) -> float:
        """Bound the rounding error of the objective at a point, to which rows at the point add nothing."""
        d = point.distances
        away = d > 0.0
        doubt = self._doubt(point.position[0])[away] / (2.0 * d[away])
        return float(self.weights[away] @ doubt) + 2.0**-50 * point.objective

    def inner(self, left: FloatArray, right: FloatArray) -> float:
        return float(left[0] @ right[1])

    def project(self, point: Iterate, direction: FloatArray) -> tuple[FloatArray, float]:
        along: FloatArray = direction[1] - point.position[0] @ direction[1]
        return along, max(self.inner(direction, direction), 0.0)

    def newton_direction(self, point: Iterate) -> FloatArray:
        if self.newton_is_expensive:
            direction: FloatArray = conjugate_gradients(
                lambda v: self.hessian_times(point, v), self.inner, point.residual
            )
            return direction
        w, image = point.position
        centered = self.products - image - image[:, None] + w @ image
        # (V I - Z^T S^2 Z) Z^T q = Z^T v has the solution q = S p of (V I - S Z Z^T S) p = S^-1 v.
        roots, d = np.sqrt(point.weiszfeld_weights), self._safe_distances(point)
        scale = roots / d
        centered *= -scale
        centered *= scale[:, None]
        centered.flat[:: self.n + 1] += point.total_weiszfeld_weight
        q = scale * solve_positive(centered, roots * d)
        return self.vector(q - q.sum() * w)

    def hessian_times(self, point: Iterate, vector: FloatArray) -> FloatArray:
        w = point.position[0]
        d = self._safe_distances(point)
        share = point.weiszfeld_weights / d / d * (vector[1] - w @ vector[1])
        return point.total_weiszfeld_weight * vector - self.vector(share - share.sum() * w)

    def _safe_distances(self, point: Iterate) -> FloatArray:
        """Distances, one for the rows at the point, whose Weiszfeld weights are zero."""
        d: FloatArray = point.distances
        return d if point.weight_at == 0.0 else np.where(d > 0.0, d, 1.0)
