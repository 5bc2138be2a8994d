"""Per-sample gradients of an embedding's table, of which each sample looks up a few rows."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from skbgmd._utils.transfer import on_device
from skbgmd.ghost.factors.base import Factor, IntArray, mask_of


class EmbeddingFactor(Factor):
    """Per-sample gradients of an embedding: non-zero in the units that a sample looks up.

    Parameters
    ----------
    row, unit : tensors of shape (m,), int64
        Row and unit of each entry; no pair twice.
    values : tensor of shape (m, width)
        The gradient with respect to that unit.
    n_rows, n_units : int
    """

    def __init__(self, row: torch.Tensor, unit: torch.Tensor, values: torch.Tensor, n_rows: int, n_units: int) -> None:
        self.row, self.unit, self.values = row, unit, values
        self.n_rows, self.n_units, self.width = n_rows, n_units, values.shape[1]
        self.n_columns = self.n_units * self.width
        self.multiplications = self.n_rows * self.n_rows * self.n_columns
        self.dtype, self.device = values.dtype, values.device

    @classmethod
    def of(cls, row: torch.Tensor, unit: torch.Tensor, values: torch.Tensor, n_rows: int, n_units: int) -> Self:
        """Add up entries that have the same row and unit."""
        pairs, place = torch.unique(row * n_units + unit, return_inverse=True)
        summed = values.new_zeros((len(pairs), values.shape[1])).index_add_(0, place, values)
        return cls(pairs // n_units, pairs % n_units, summed, n_rows, n_units)

    def to(self, dtype: torch.dtype) -> EmbeddingFactor:
        return EmbeddingFactor(self.row, self.unit, self.values.to(dtype), self.n_rows, self.n_units)

    def rows(self, index: torch.Tensor) -> EmbeddingFactor:
        new = torch.full((self.n_rows,), -1, device=self.device)
        new[index] = torch.arange(len(index), device=self.device)
        row = new[self.row]
        kept = row >= 0
        return EmbeddingFactor(row[kept], self.unit[kept], self.values[kept], len(index), self.n_units)

    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> EmbeddingFactor:
        group = torch.empty(self.n_rows, dtype=torch.int64, device=self.device)
        group[index[used]] = torch.arange(len(index), device=group.device)[:, None].expand_as(index)[used]
        return EmbeddingFactor.of(group[self.row], self.unit, self.values, len(index), self.n_units)

    def stacked(self, size: int) -> EmbeddingFactor:
        return EmbeddingFactor.of(self.row // size, self.unit, self.values, self.n_rows // size, self.n_units)

    def units(self, index: IntArray) -> list[Factor]:
        new = np.full(self.n_units, -1)
        new[index] = np.arange(len(index))
        unit = on_device(new, self.device)[self.unit]
        kept = unit >= 0
        return [EmbeddingFactor(self.row[kept], unit[kept], self.values[kept], self.n_rows, len(index))]

    def explicit(self, part: slice) -> torch.Tensor:
        here = (self.unit >= part.start) & (self.unit < part.stop)
        dense = self.values.new_zeros((self.n_rows, part.stop - part.start, self.width))
        dense[self.row[here], self.unit[here] - part.start] = self.values[here]
        return dense.flatten(1)

    def _used(self) -> EmbeddingFactor:
        """Drop the units that no row looks up."""
        used, unit = torch.unique(self.unit, return_inverse=True)
        return EmbeddingFactor(self.row, unit, self.values, self.n_rows, len(used))

    def gram(self) -> torch.Tensor:
        if not len(self.row):
            return self.values.new_zeros((self.n_rows, self.n_rows))
        return super(EmbeddingFactor, self._used()).gram()

    def squared_norms(self) -> torch.Tensor:
        return self._add_up(self.values.square().sum(dim=1), self.row, self.n_rows)

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        return self._add_up(self.values.square().sum(dim=1) * weights[self.row], self.unit, self.n_units)

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        of_entries = (self.values * vector.view(self.n_units, self.width)[self.unit]).sum(dim=1)
        return self._add_up(of_entries, self.row, self.n_rows)

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        self._sum(weights[self.row], out)

    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        chosen = mask_of(units, self.n_units, out.device)
        self._sum(torch.where(chosen[self.unit], on_units[self.row], elsewhere[self.row]), out)

    def _sum(self, of_entries: torch.Tensor, out: torch.Tensor) -> None:
        lines = out.zero_().view(self.n_units, self.width)
        lines.index_add_(0, self.unit, self.values * of_entries[:, None])

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        squares = self.values.square().mul_(weights[self.row, None])
        return self._add_up(squares, self.unit, self.n_units).flatten()

    @staticmethod
    def _add_up(values: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
        return values.new_zeros((n, *values.shape[1:])).index_add_(0, index, values)
