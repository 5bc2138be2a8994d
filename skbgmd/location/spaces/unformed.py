"""Space for rows whose Gram matrix costs more than a few products with it."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.typing import FloatArray
from skbgmd.location.solver import Iterate
from skbgmd.location.spaces.gram import GramSpace
from skbgmd.location.spaces.linear_solvers import conjugate_gradients
from skbgmd.rows.gram import Gram
from skbgmd.rows.unformed_gram import UnformedGram

#: Products that are kept.
KNOWN = 8


def space_of(gram: Gram | UnformedGram, weights: FloatArray) -> GramSpace:
    """Space of rows of positive weights (n,), by their Gram matrix or by products with it."""
    if isinstance(gram, UnformedGram):
        return UnformedGramSpace(gram, weights)
    return GramSpace(gram, weights)


class UnformedGramSpace(GramSpace):
    """Combinations of rows through products with their Gram matrix, which is never formed.

    Parameters
    ----------
    gram : UnformedGram
        Products with the Gram matrix about the origin.
    weights : ndarray of shape (n,)
        Positive float64 weights.
    """

    def __init__(self, gram: UnformedGram, weights: FloatArray) -> None:
        self.product, self.rounding = gram.product, gram.rounding
        self._weigh(weights)
        self._lengths, self._floor, self.squares = gram.norms, 0.0, gram.norms**2
        # Huber's weights begin as those of a sum that the proof has asked for.
        self._known: dict[bytes, FloatArray] = {}

    def _times(self, coefficients: FloatArray) -> FloatArray:
        if coefficients.ndim > 1:
            return np.stack([self._times(line) for line in coefficients])
        total = float(np.abs(coefficients).sum())
        # What adds up to one, but for rounding, is to keep its bits.
        scale = 1.0 if total == 0.0 or abs(total - 1.0) < 1e-12 else total
        mean = coefficients / scale
        key = mean.tobytes()
        if key not in self._known:
            if len(self._known) == KNOWN:
                self._known.clear()
            self._known[key] = self.product(mean)
        return scale * self._known[key]

    def row(self, index: int) -> FloatArray:
        coefficients = np.zeros(self.n)
        coefficients[index] = 1.0
        return self.vector(coefficients)

    def newton_direction(self, point: Iterate) -> FloatArray:
        # However few the rows are.
        direction: FloatArray = conjugate_gradients(lambda v: self.hessian_times(point, v), self.inner, point.residual)
        return direction

    def _images(self, sums: FloatArray, totals: FloatArray, position: FloatArray) -> FloatArray:
        images: FloatArray = self._times(sums) - totals[:, None] * position[1]
        sums -= totals[:, None] * position[0]
        return images
