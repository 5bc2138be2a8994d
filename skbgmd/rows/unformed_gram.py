"""Products with the Gram matrix of many rows, which isn't formed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.rows.gram import resolution_of


@dataclass(frozen=True)
class UnformedGram:
    """Inner products of rows about zero, of which only products with vectors are known, in float64 on the CPU.

    A matrix of 10,000 rows takes a gigabyte, and as long as hundreds of passes over them.

    Attributes
    ----------
    product : callable
        Of a vector (n,): its product with the Gram matrix.
    norms : ndarray of shape (n,)
        Norms of the rows, all of them finite.
    rounding : float
        As of :class:`skbgmd.rows.gram.Gram`.
    """

    product: Callable[[FloatArray], FloatArray]
    norms: FloatArray
    rounding: float
    #: All squares are in range.
    unit: ClassVar[float] = 1.0
    shrinkage: ClassVar[None] = None
    original: ClassVar[None] = None

    @property
    def resolution(self) -> float:
        """As of :class:`skbgmd.rows.gram.Gram`."""
        return resolution_of(self.norms, self.rounding)

    def restore(self, weights: FloatArray) -> FloatArray:
        """Weights as they are: no row was shrunk."""
        return weights

    def subset(self, index: BoolArray) -> UnformedGram:
        """Select rows by a mask."""

        def product(vector: FloatArray) -> FloatArray:
            whole = np.zeros(len(self.norms))
            whole[index] = vector
            return self.product(whole)[index]

        return UnformedGram(product, self.norms[index], self.rounding)


def unformed_gram(rows: ChunkedRows) -> UnformedGram | None:
    """Products with the Gram matrix of rows by two passes over them; None where squares are out of range, or coarse."""
    norms = rows.norms()
    least, largest = limits.SQUARED_RANGE[torch.float32]
    longest = float(norms.max(initial=0.0))
    if rows.dtype not in (torch.float32, torch.float64) or not (longest == 0.0 or least <= longest <= largest):
        return None
    rounding = limits.GRAM_PRODUCT_ROUNDING if rows.dtype == torch.float32 else 2.0**-50
    return UnformedGram(lambda vector: rows.inner_products(rows.weighted_sum(vector)), norms, rounding)
