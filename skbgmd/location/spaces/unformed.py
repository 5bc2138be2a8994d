"""Space for few rows whose Gram matrix costs more than a few products with it."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.typing import FloatArray
from skbgmd.location.spaces.gram import GramSpace
from skbgmd.rows import Rows


class UnformedGramSpace(GramSpace):
    """Combinations of rows through products with their Gram matrix, ``K q = X (X^T q)``, which is never formed.

    A product takes two passes over the rows, where the matrix takes as many multiplications as n / 2 products: for an
    iterate or two. There are no Newton steps and no single rows.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite and with squares in the range of their dtype.
    """

    def __init__(self, rows: Rows, rounding: float) -> None:
        self.rows, self.rounding = rows, rounding
        self._weigh(rows.weights)
        self._lengths, self._floor = rows.norms(), 0.0
        self.squares = self._lengths**2

    def _times(self, coefficients: FloatArray) -> FloatArray:
        if coefficients.ndim > 1:
            return np.stack([self._times(line) for line in coefficients])
        return self.rows.inner_products(self.rows.weighted_sum(coefficients))
