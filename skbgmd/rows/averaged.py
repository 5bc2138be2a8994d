"""Weighted means of rows, as pre-aggregations hand them on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.allocation import empty
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.rows.gram import Gram
from skbgmd.rows.protocol import Rows


class AveragedRows(ChunkedRows):
    """Weighted means of other rows, ``averaging @ rows``, formed only a chunk of columns at a time.

    Parameters
    ----------
    rows : Rows
        The rows to average, all of them finite.
    averaging : ndarray of shape (m, n)
        Non-negative coefficients; each line adds up to one.
    weights : ndarray of shape (m,)
        Weights of the averaged rows.
    """

    def __init__(self, rows: Rows, averaging: FloatArray, weights: FloatArray) -> None:
        self.rows, self.averaging, self.weights = rows, averaging, weights
        self.n_rows, self.n_columns, self.device = len(averaging), rows.n_columns, rows.device
        self.units, self.layout = rows.units, rows.layout
        sample = rows.columns(torch.zeros(0, dtype=torch.int64, device=rows.device))
        self.dtype = torch.float64 if sample.dtype == torch.float64 else torch.float32
        self._factors = on_device(averaging, self.device, self.dtype)
        #: The Gram matrix is of the averaged rows' own products.
        self._own = False

    @property
    def n_held(self) -> int:
        return self.rows.n_held

    def chunk(self, part: slice) -> torch.Tensor:
        return self.columns(torch.arange(part.start, part.stop, device=self.device))

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        return self._clamped(self._factors @ self.rows.columns(index).to(self.dtype))

    def column_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for part, chunk in self.rows.column_chunks():
            # Memory that was written before costs less to write again.
            if self._buffer is None or self._buffer.numel() < self.n_rows * chunk.shape[1]:
                self._buffer = empty((self.n_rows * chunk.shape[1],), self.dtype, self.device)
            averaged = self._buffer[: self.n_rows * chunk.shape[1]].view(self.n_rows, chunk.shape[1])
            yield part, self._clamped(torch.mm(self._factors, chunk.to(self.dtype), out=averaged))

    def _clamped(self, averaged: torch.Tensor) -> torch.Tensor:
        """Clamp averaged rows to finite numbers: means of rows near the largest one may round to inf."""
        # A sum that is finite has finite terms.
        largest = torch.finfo(self.dtype).max
        return averaged if bool(torch.isfinite(averaged.sum())) else averaged.clamp_(-largest, largest)

    def row(self, index: int) -> torch.Tensor:
        return self._clamped(self.rows.weighted_sum(self.averaging[index]))

    def block(self, columns: CoordinateBlock | ParameterBlock) -> AveragedRows:
        rows = AveragedRows(self.rows.block(columns), self.averaging, self.weights)
        rows.ids = self.ids
        return rows

    def subset(self, index: NDArray[np.intp]) -> AveragedRows:
        rows = AveragedRows(self.rows, self.averaging[index], self.weights[index])
        rows.ids = self._ids_of(index)
        return rows

    @one_thread_of_products()
    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.rows.weighted_sum(weights @ self.averaging)

    @one_thread_of_products()
    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        products = self.rows.inner_products(vector)
        # Those of means may be in range where the rows' aren't.
        return self.averaging @ products if np.isfinite(products).all() else super().inner_products(vector)

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None:
            squares = self._averaged_squares()
            self._norms = super().norms() if squares is None else np.sqrt(squares)
        return self._norms

    @one_thread_of_products()
    def _averaged_squares(self) -> FloatArray | None:
        """Squared norms from the rows' Gram matrix and norms, without a pass over columns; None where digits cancel.

        The Gram matrix is about some center ``c``: ``<x_i, x_j> = K_ij + s_i + s_j + |c|^2``, ``s_i = <x_i - c, c>``.
        Means of ``|x_i|^2`` less the spread, ``sum_j m_j |x_j - m x|^2``, need neither ``c`` nor ``s``.
        """
        gram, norms = self.rows.gram(), self.rows.norms()
        if gram.unit != 1.0 or gram.shrinkage is not None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            first = self.averaging @ norms**2
        spread = self.averaging @ np.diagonal(gram.products) - np.einsum(
            "ij,ij->i", self.averaging @ gram.products, self.averaging
        )
        squares = first - spread
        enough = np.isfinite(first) & (squares > max(1e-3, 1e4 * gram.rounding) * first)
        return squares if enough.all() else None

    def gram(self, about: FloatArray | None = None, *, tol: float = 0.0) -> Gram:
        # The averaged rows' Gram matrix is M K M^T: no pass over the columns.
        if about is not None:
            return self.rows.gram(about @ self.averaging).averaged(self.averaging)
        if self._gram is None:
            self._gram = self.rows.gram(tol=tol).averaged(self.averaging)
        # Means lie so close together that their differences cancel about a row, which is far from them: in float32 the
        # means' own products are cheaper than more digits of the rows' products. One mean has no differences.
        if self._own or self.n_rows == 1 or self._gram.noise <= max(0.5 * tol, 4.0 * 2.0**-22):
            return self._gram
        self._gram, self._own = None, True
        self._gram = super().gram()
        return self._gram
