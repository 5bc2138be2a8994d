"""A few of many rows, of which only products and a weighted sum are wanted: however that takes the least."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray

#: A vector (d,): a tensor, or an array where NumPy does the work. To make a view of the other kind takes longer than an
#: inner product.
Vector: TypeAlias = Any


class FewRows(Protocol):
    """k of n rows of d numbers."""

    def products(self) -> FloatArray | None:
        """Inner products of the k rows, float64 (k, k); None where they are out of range."""
        ...

    def inner_products(self, total: Vector, weights: FloatArray) -> FloatArray:
        """Inner products of the k rows with ``total``, which is ``weights @ rows`` of all rows, float64 (k,)."""
        ...

    def add_to(self, vector: Vector, scale: float, weights: FloatArray) -> Vector:
        """Make a vector (d,) ``scale * vector + weights @ rows`` of the k rows, and return it."""
        ...


class SubsetOfRows:
    """Rows selected, as rows."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def products(self) -> FloatArray | None:
        gram = self._rows.gram()
        products: FloatArray = gram.products
        return products if gram.unit == 1.0 and gram.shrinkage is None and gram.finite.all() else None

    def inner_products(self, total: torch.Tensor, weights: FloatArray) -> FloatArray:
        products: FloatArray = self._rows.inner_products(total)
        return products

    def add_to(self, vector: torch.Tensor, scale: float, weights: FloatArray) -> torch.Tensor:
        return vector.mul_(scale).add_(self._rows.weighted_sum(weights))


class ArrayRows:
    """Rows written out in an array: NumPy takes a fraction of the time for products of a few.

    Parameters
    ----------
    matrix : ndarray of shape (k, d)
    """

    def __init__(self, matrix: NDArray[Any]) -> None:
        self._matrix = matrix

    def products(self) -> FloatArray | None:
        products: FloatArray = self._matrix.dot(self._matrix.T).astype(np.float64)
        return products if math.isfinite(np.add.reduce(products, axis=None)) else None

    def inner_products(self, total: Vector, weights: FloatArray) -> FloatArray:
        products: FloatArray = self._matrix.dot(np.asarray(total)).astype(np.float64)
        return products

    def add_to(self, vector: Vector, scale: float, weights: FloatArray) -> Vector:
        whole = np.asarray(vector)
        whole *= whole.dtype.type(scale)
        whole += weights.astype(whole.dtype).dot(self._matrix)
        return vector


class WrittenRows:
    """Rows written out.

    Parameters
    ----------
    matrix : tensor of shape (k, d)
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def products(self) -> FloatArray | None:
        products: FloatArray = torch.mm(self._matrix, self._matrix.T).double().cpu().numpy()
        return products if math.isfinite(products.sum()) else None

    def inner_products(self, total: torch.Tensor, weights: FloatArray) -> FloatArray:
        products: FloatArray = torch.mv(self._matrix, total).double().cpu().numpy()
        return products

    def add_to(self, vector: torch.Tensor, scale: float, weights: FloatArray) -> torch.Tensor:
        line = on_device(weights, vector.device, vector.dtype)
        return vector.addmv_(self._matrix.T, line, beta=scale)
