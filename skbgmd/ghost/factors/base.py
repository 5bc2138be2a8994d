"""The base class of factors: per-sample gradients with respect to one parameter.

A parameter's elements are grouped into *units*, the slices along its first axis: the weights of one output of a linear
layer are a unit. A factor answers for all samples at once, in whichever of two ways takes fewer multiplications: by
products of the tensors that it holds, or by gradients written out for some units at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.transfer import on_device

#: Indices of units, on the CPU: they are chosen there and go to the device, never back.
IntArray = NDArray[np.int64]


class Factor(ABC):
    """Gradients of n rows with respect to some units of a parameter: an (n, n_units * width) matrix, never formed.

    A subclass sets all attributes once, in ``__init__``.

    Attributes
    ----------
    n_rows, n_units, width : int
        Rows; slices along the parameter's first axis; elements of each of them.
    n_columns : int
        ``n_units * width``.
    multiplications : int
        Multiplications that the Gram matrix takes.
    dtype : torch.dtype
    device : torch.device
    """

    n_rows: int
    n_units: int
    width: int
    n_columns: int
    multiplications: int
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Factor:
        """Convert to another dtype."""

    @abstractmethod
    def rows(self, index: torch.Tensor) -> Factor:
        """Select rows."""

    @abstractmethod
    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> Factor:
        """Sum rows: row ``g`` is the sum of the rows ``index[g]`` (m,) where ``used[g]``."""

    @abstractmethod
    def stacked(self, size: int) -> Factor:
        """Sum every ``size`` consecutive rows."""

    @abstractmethod
    def units(self, index: IntArray) -> list[Factor]:
        """Select units, ascending; together the factors hold them all."""

    @abstractmethod
    def explicit(self, part: slice) -> torch.Tensor:
        """Write the gradients of adjacent units out, (n, units * width)."""

    @abstractmethod
    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        """Write ``weights @ rows`` for weights (n,) to a vector (n_columns,)."""

    @abstractmethod
    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        """Write a weighted sum with weights of their own for some units, ascending."""

    @property
    def pass_multiplications(self) -> int:
        """Time of a weighted sum, in that of multiplications of matrices: rows written out are read once."""
        return limits.READING_MULTIPLICATIONS * self.n_rows * self.n_columns

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        """Inner products of the rows with a vector (n_columns,), (n,)."""
        total = vector.new_zeros(self.n_rows)
        for part, chunk in self.chunks():
            total += chunk @ vector[part.start * self.width : part.stop * self.width]
        return total

    def gram(self) -> torch.Tensor:
        """Inner products of the rows, (n, n)."""
        if self.n_columns <= limits.ONE_PRODUCT_COLUMNS:
            written = self.explicit(slice(0, self.n_units))
            return written @ written.T
        total = torch.zeros((self.n_rows, self.n_rows), dtype=self.dtype, device=self.device)
        for _, chunk in self.chunks():
            for start in range(0, self.n_rows, limits.FACTOR_STRIPE_ROWS):
                stop = min(start + limits.FACTOR_STRIPE_ROWS, self.n_rows)
                total[start:stop, :stop].addmm_(chunk[start:stop], chunk[:stop].T)
        for start in range(limits.FACTOR_STRIPE_ROWS, self.n_rows, limits.FACTOR_STRIPE_ROWS):
            total[:start, start : start + limits.FACTOR_STRIPE_ROWS] = total[
                start : start + limits.FACTOR_STRIPE_ROWS, :start
            ].T
        return total

    @cached_property
    def unit_squares(self) -> torch.Tensor:
        """Squared norms of each row's units, (n, n_units)."""
        if self.width == 1:
            return self.explicit(slice(0, self.n_units)).square()
        squares = [
            torch.linalg.vector_norm(chunk.view(self.n_rows, -1, self.width), dim=2).square_()
            for _, chunk in self.chunks()
        ]
        return torch.cat(squares, dim=1)

    def squared_norms(self) -> torch.Tensor:
        """Squared norms of the rows, (n,)."""
        return self.unit_squares.sum(dim=1)

    def written(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Write some rows out, (k, n_columns), in adjacent parts."""
        return [self.rows(index).explicit(slice(0, self.n_units))]

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """Scores ``sum_i w_i |x_iu|^2`` of the units u, (n_units,)."""
        return weights @ self.unit_squares

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """Scores ``sum_i w_i x_ij^2`` of the columns j, (n_columns,)."""
        return torch.cat([weights @ chunk.square() for _, chunk in self.chunks()])

    def entries(self, unit: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Elements ``place`` (k,) of units ``unit`` (k,) of all rows, (n, k)."""
        found = torch.empty((self.n_rows, len(unit)), dtype=self.dtype, device=self.device)
        for part, chunk in self.chunks():
            here = (unit >= part.start) & (unit < part.stop)
            found[:, here] = chunk[:, (unit[here] - part.start) * self.width + place[here]]
        return found

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Write the gradients out, some units at a time."""
        step = max(1, limits.WRITTEN_ELEMENTS // max(1, self.n_rows * self.width))
        for start in range(0, self.n_units, step):
            part = slice(start, min(start + step, self.n_units))
            yield part, self.explicit(part)


def mask_of(index: IntArray, n: int, device: torch.device) -> torch.Tensor:
    """Boolean mask (n,) of some indices."""
    mask = np.zeros(n, dtype=bool)
    mask[index] = True
    return on_device(mask, device)
