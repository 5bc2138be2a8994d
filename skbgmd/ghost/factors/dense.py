"""Per-sample gradients written out."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.transfer import on_device
from skbgmd.ghost.factors.base import Factor, IntArray, mask_of


class DenseFactor(Factor):
    """Per-sample gradients written out: of biases, scales and anything small.

    Parameters
    ----------
    values : tensor of shape (n, units, ...)
        The gradient of each row.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.n_rows, self.n_units = len(values), values.shape[1] if values.ndim > 1 else 1
        self.width = math.prod(values.shape[2:])
        self.n_columns = self.n_units * self.width
        self.multiplications = self.n_rows * self.n_rows * self.n_columns
        self.dtype, self.device = values.dtype, values.device
        self.values = values.reshape(self.n_rows, self.n_columns)

    def _like(self, values: torch.Tensor) -> DenseFactor:
        return DenseFactor(values.reshape(len(values), -1, self.width))

    def to(self, dtype: torch.dtype) -> DenseFactor:
        return self._like(self.values.to(dtype))

    def rows(self, index: torch.Tensor) -> DenseFactor:
        return self._like(self.values[index])

    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> DenseFactor:
        return self._like(torch.where(used[:, :, None], self.values[index], 0).sum(dim=1))

    def stacked(self, size: int) -> DenseFactor:
        return self._like(self.values.view(-1, size, self.n_columns).sum(dim=1))

    def _stored(self, part: slice) -> torch.Tensor:
        """Values of adjacent units, (n, units * width), in the order of ``values``."""
        return self.values[:, part.start * self.width : part.stop * self.width]

    def units(self, index: IntArray) -> list[Factor]:
        stops = np.append(np.flatnonzero(np.diff(index) > 1) + 1, len(index))
        if self.width == 1 or self.n_rows * len(index) * self.width < limits.LONG_RUN_ELEMENTS * len(stops):
            at = on_device(index, self.device)
            return [self._like(self.values.view(self.n_rows, self.n_units, self.width).index_select(1, at))]
        # The gradients of wide units are a good part of all memory there is: no copy of them.
        firsts, lasts = index[np.append(0, stops[:-1])], index[stops - 1]
        return [self._like(self._stored(slice(first, last + 1))) for first, last in zip(firsts, lasts, strict=True)]

    def explicit(self, part: slice) -> torch.Tensor:
        return self._stored(part)

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        yield slice(0, self.n_units), self.values

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        torch.mv(self.values.T, weights, out=out)

    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        # One pass for both.
        everywhere, rest = (torch.stack([on_units, elsewhere]) @ self.values).view(2, self.n_units, self.width)
        torch.where(
            mask_of(units, self.n_units, out.device)[:, None], everywhere, rest, out=out.view(self.n_units, self.width)
        )
