"""Rows times numbers, as clipping hands them on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.allocation import empty
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.rows.gram import Gram
from skbgmd.rows.protocol import Rows


class ScaledRows(ChunkedRows):
    """Other rows, each multiplied by a number, formed only a chunk of columns at a time.

    Parameters
    ----------
    rows : Rows
        The rows to scale, all of them finite.
    factors : ndarray of shape (n,)
        Factor of each row, in [0, 1].

    Examples
    --------
    >>> from skbgmd.rows import DenseRows
    >>> rows = ScaledRows(DenseRows(torch.tensor([[3.0, 4.0], [0.0, 1.0]])), np.array([0.5, 1.0]))
    >>> rows.norms()
    array([2.5, 1. ])
    >>> rows.row(0)
    tensor([1.5000, 2.0000])
    """

    def __init__(self, rows: Rows, factors: FloatArray) -> None:
        self.rows, self.factors, self.weights = rows, factors, rows.weights
        self.n_rows, self.n_columns, self.device = rows.n_rows, rows.n_columns, rows.device
        self.units, self.layout, self.gram_is_expensive = rows.units, rows.layout, rows.gram_is_expensive
        sample = rows.columns(torch.zeros(0, dtype=torch.int64, device=rows.device))
        self.dtype = torch.float64 if sample.dtype == torch.float64 else torch.float32
        self._factors = on_device(factors, self.device, self.dtype)[:, None]

    @property
    def n_held(self) -> int:
        return self.rows.n_held

    def chunk(self, part: slice) -> torch.Tensor:
        return self.columns(torch.arange(part.start, part.stop, device=self.device))

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        return self._factors * self.rows.columns(index).to(self.dtype)

    def column_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for part, chunk in self.rows.column_chunks():
            # Memory that was written before costs less to write again.
            if self._buffer is None or self._buffer.numel() < chunk.numel():
                self._buffer = empty((chunk.numel(),), self.dtype, self.device)
            yield part, torch.mul(chunk, self._factors, out=self._buffer[: chunk.numel()].view(chunk.shape))

    def row(self, index: int) -> torch.Tensor:
        return self._factors[index] * self.rows.row(index).to(self.dtype)

    def block(self, columns: CoordinateBlock | ParameterBlock) -> ScaledRows:
        rows = ScaledRows(self.rows.block(columns), self.factors)
        rows.ids = self.ids
        return rows

    def subset(self, index: NDArray[np.intp]) -> ScaledRows:
        rows = ScaledRows(self.rows.subset(index), self.factors[index])
        rows.ids = self._ids_of(index)
        return rows

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.rows.weighted_sum(weights * self.factors).to(dtype or self.work_dtype)

    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        return self.factors * self.rows.inner_products(vector)

    def norms(self, run_length: int = 1) -> FloatArray:
        return self.factors * self.rows.norms(run_length)

    def gram(self, about: FloatArray | None = None, *, tol: float = 0.0) -> Gram:
        # Rows that are known by factors aren't written out where their products are enough.
        if about is None and self._gram is None and self.gram_is_expensive:
            self._gram = self.rows.gram(tol=tol).scaled(self.factors, self.rows.norms())
        return super().gram(about)
