"""Rows scaled to order one, so that squares of huge and of tiny numbers neither overflow nor underflow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.cumulated_weights import bounds, in_units
from skbgmd._utils.typing import FloatArray
from skbgmd.location.solver import as_float_array
from skbgmd.rows.gram import lower_weighted_median


@dataclass(frozen=True)
class RangedRows:
    """Rows about a point, in units of a typical distance; far rows are drawn in.

    Attributes
    ----------
    about : ndarray of shape (d,)
        The point.
    points : ndarray of shape (n, d)
        ``(x_i - about) / 2**exponent``; of rows beyond 2**400 typical distances, the point at that distance in the same
        direction, and of rows within 2**-400, zero.
    exponent : int
        A typical distance is between one and two such powers of two.
    shrinkage : ndarray of shape (n,), or None
        Factors at most one by which far rows were drawn in; None: no row was.
    """

    about: FloatArray
    points: FloatArray
    exponent: int
    shrinkage: FloatArray | None

    @classmethod
    def of(cls, matrix: FloatArray, weights: FloatArray, about: FloatArray) -> RangedRows:
        """The rows of a matrix (n, d), all finite, about a point (d,); the typical distance is by their weights."""
        tops = exponents(np.maximum(np.abs(matrix).max(axis=1), np.abs(about).max()))
        points = np.ldexp(matrix, -tops[:, None]) - np.ldexp(about, -tops[:, None])
        # Differences of near numbers are small, and are scaled to order one themselves.
        tops_of_points = exponents(np.abs(points).max(axis=1))
        points = np.ldexp(points, -tops_of_points[:, None])
        norms = np.sqrt(np.einsum("ij,ij->i", points, points))
        apart = np.flatnonzero(norms)
        if not len(apart):
            return cls(about, points, 0, None)
        sizes = tops + tops_of_points
        logarithms = sizes[apart] + np.log2(norms[apart])
        exponent = math.floor(lower_weighted_median(logarithms, weights[apart]))
        relative = np.where(norms > 0.0, sizes - exponent, 0)
        points = np.ldexp(points, np.minimum(relative, limits.RANGE_EXPONENT)[:, None])
        # A solver that starts among these would never reach the others.
        points[relative < -limits.RANGE_EXPONENT] = 0.0
        if not (relative > limits.RANGE_EXPONENT).any():
            return cls(about, points, exponent, None)
        return cls(about, points, exponent, np.ldexp(1.0, np.minimum(limits.RANGE_EXPONENT - relative, 0)))

    def place(self, point: FloatArray) -> FloatArray:
        """Convert a point of the caller's to these units, (d,)."""
        top = int(exponents(np.maximum(np.abs(point).max(), np.abs(self.about).max())))
        placed: FloatArray = np.ldexp(np.ldexp(point, -top) - np.ldexp(self.about, -top), top - self.exponent)
        return placed

    def restored(self, position: FloatArray) -> FloatArray:
        """Convert one of these points back to the caller's unit, (d,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            point: FloatArray = self.about + np.ldexp(position, self.exponent)
            # The difference of two numbers may overflow where their sum doesn't.
            halved = np.ldexp(np.ldexp(self.about, -2) + np.ldexp(position, self.exponent - 2), 2)
        return np.where(np.isfinite(point), point, halved)

    def restored_weights(self, weights: FloatArray) -> FloatArray:
        """Weights of the rows as they are, from weights of the rows as drawn in."""
        if self.shrinkage is None:
            return weights
        restored: FloatArray = weights * self.shrinkage
        restored /= restored.sum()
        return restored


def coordinatewise_median(matrix: FloatArray, weights: FloatArray) -> FloatArray:
    """Lower weighted median of each column, (d,)."""
    order = np.argsort(matrix, axis=0, kind="stable")
    mass = np.cumsum(in_units(weights)[order], axis=0)
    least, _ = bounds(int(mass[-1, 0]), len(mass))
    middle = (mass >= least).argmax(axis=0)
    columns = np.arange(matrix.shape[1])
    median: FloatArray = matrix[order[middle, columns], columns]
    return median


def exponents(values: FloatArray) -> NDArray[np.intc]:
    """Powers of two that numbers are less than; 0 for zero."""
    found: NDArray[np.intc] = np.frexp(values)[1]
    return found


def are_far_apart(distances: Any) -> bool:
    """Check for distances of which some are too much larger than others for steps between them."""
    positive = as_float_array(distances)
    positive = positive[positive > 0.0]
    return bool(len(positive)) and float(positive.max()) > limits.DISTANCE_RATIO * float(positive.min())


def vector_norm(vector: torch.Tensor) -> float:
    """Norm of a vector whose square may over- or underflow."""
    norm = float(torch.linalg.vector_norm(vector))
    low, high = limits.SQUARED_RANGE[vector.dtype]
    if low <= norm <= high:
        return norm
    vector = vector.double()
    largest = float(vector.abs().max()) if len(vector) else 0.0
    return largest * float(torch.linalg.vector_norm(vector / largest)) if largest > 0.0 else 0.0
