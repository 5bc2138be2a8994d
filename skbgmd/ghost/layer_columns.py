"""Columns of a linear layer in rows of per-sample gradients: their norms, sums and products by NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
IntArray = NDArray[np.int64]
#: Inner products of lines, of NumPy 2, which take less time.
VECDOT: Any = getattr(np, "vecdot", None)


class LayerColumns(NamedTuple):
    """Columns of a layer in the rows.

    Attributes
    ----------
    start : int
        Where they begin.
    left : ndarray of shape (n, k)
        Gradients with respect to the outputs of the units whose weights are among the columns.
    left_of_bias : ndarray of shape (n, m)
        Those of the units whose biases are; the same array, where all are.
    right : ndarray of shape (n, p)
        Inputs.
    right_squares : ndarray of shape (n,)
        Their squared norms.
    """

    start: int
    left: Array
    left_of_bias: Array
    right: Array
    right_squares: Array

    @property
    def is_whole(self) -> bool:
        """All units' weights and biases are among the columns."""
        return self.left is self.left_of_bias

    @property
    def n_weights(self) -> int:
        """Columns that are weights."""
        n_weights: int = self.left.shape[1] * self.right.shape[1]
        return n_weights

    @property
    def n_rows(self) -> int:
        return len(self.left)

    @property
    def multiplications(self) -> int:
        """Multiplications that the Gram matrix takes."""
        multiplications: int = self.n_rows**2 * (self.left.shape[1] + self.right.shape[1] + self.left_of_bias.shape[1])
        return multiplications

    @property
    def n_columns(self) -> int:
        """Columns of the weights and of the biases."""
        n_biases: int = self.left_of_bias.shape[1]
        return self.n_weights + n_biases

    def squares(self) -> Array:
        """Squared norms of the rows in these columns, (n,)."""
        if self.is_whole:
            return squared_norms(self.left) * (self.right_squares + 1.0)
        if not self.left.shape[1]:
            return squared_norms(self.left_of_bias)
        squares: Array = squared_norms(self.left) * self.right_squares
        if self.left_of_bias.shape[1]:
            squares += squared_norms(self.left_of_bias)
        return squares

    def of(self, vector: Array) -> tuple[Array, Array]:
        """Weights (k, p) and biases (m,) of a vector of all columns."""
        n_units, width = self.left.shape[1], self.right.shape[1]
        stop = self.start + n_units * width
        return vector[self.start : stop].reshape(n_units, width), vector[stop : stop + self.left_of_bias.shape[1]]

    def at(self, index: Any) -> LayerColumns:
        """Select rows."""
        left = _lines(self.left, index)
        of_bias = left if self.is_whole else _lines(self.left_of_bias, index)
        return LayerColumns(self.start, left, of_bias, self.right.take(index, axis=0), self.right_squares.take(index))

    def write_sum(self, line: Array, out: Array) -> None:
        """Write ``line @ rows``, (n,), to these columns of a vector."""
        weights, biases = self.of(out)
        # The smaller part is scaled.
        if self.left.shape[1] > self.right.shape[1]:
            np.dot(self.left.T, self.right * line[:, None], out=weights)
        elif len(weights):
            np.dot((self.left * line[:, None]).T, self.right, out=weights)
        if len(biases):
            np.dot(line, self.left_of_bias, out=biases)

    def write_sum_by_block(self, line: Array, on_block: Array, units: IntArray, left: Array, out: Array) -> None:
        """Write ``line @ rows``, but for some units' weights, of gradients (n, k), ``on_block @ rows``; one product."""
        if not len(units):
            self.write_sum(line, out)
            return
        weights, biases = self.of(out)
        scaled = self.left * line[:, None]
        scaled[:, units] = left * on_block[:, None]
        np.dot(scaled.T, self.right, out=weights)
        np.dot(line, self.left_of_bias, out=biases)

    def written(self, index: Any) -> list[Array]:
        """Rows in these columns written out, (k, n_weights) and (k, m), where there are some."""
        left, written = _lines(self.left, index), []
        if left.shape[1]:
            written.append((left[:, :, None] * self.right.take(index, axis=0)[:, None]).reshape(len(left), -1))
        if self.left_of_bias.shape[1]:
            written.append(left if self.is_whole else self.left_of_bias.take(index, axis=0))
        return written

    def inner_products(self, vector: Array) -> Array:
        """Inner products of the rows with a vector of all columns, (n,)."""
        of_weights, of_biases = self.of(vector)
        products: Array
        if not len(of_weights):
            products = self.left_of_bias.dot(of_biases)
            return products
        outputs = self.right.dot(of_weights.T)
        if self.is_whole:
            outputs += of_biases
        products = sums_of_products(outputs, self.left)
        if not self.is_whole and len(of_biases):
            products += self.left_of_bias.dot(of_biases)
        return products

    def gram(self) -> Array:
        """Inner products of the rows in these columns, (n, n)."""
        # NumPy takes a product of a matrix and its own transpose for what it is, half of another.
        products: Array
        if not self.left.shape[1]:
            products = self.left_of_bias.dot(self.left_of_bias.T)
            return products
        products = self.right.dot(self.right.T)
        if self.is_whole:
            products += 1.0
        products *= self.left.dot(self.left.T)
        if not self.is_whole and self.left_of_bias.shape[1]:
            products += self.left_of_bias.dot(self.left_of_bias.T)
        return products


def _lines(matrix: Array, index: NDArray[np.intp]) -> Array:
    """Select lines of a matrix, which may have no columns."""
    return matrix.take(index, axis=0) if matrix.shape[1] else matrix[: len(index)]


def sums_of_products(left: Array, right: Array) -> Array:
    """Inner products of the lines of two matrices (n, p), (n,)."""
    sums: Array = VECDOT(left, right) if VECDOT is not None else np.einsum("ij,ij->i", left, right)
    return sums


def squared_norms(matrix: Array) -> Array:
    """Squared norms of the lines of a matrix (n, p), (n,)."""
    return sums_of_products(matrix, matrix)
