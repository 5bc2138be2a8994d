"""Gradients of many samples with respect to one parameter, kept as the factors that they are products of.

A parameter's elements are looked at as *units*, the slices along its first axis: a linear layer's weights of one output
are a unit. A factor answers for all samples at once, in whichever of two ways takes fewer multiplications: products
of its parts, or gradients written out, some units at a time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty

#: Numbers of units, on the CPU: which they are is known there, and goes to the device, never back.
IntArray = NDArray[np.int64]


class Factor(ABC):
    """Gradients of n rows with respect to some units of a parameter, an (n, n_units * width) matrix that isn't formed.

    Attributes
    ----------
    n_rows, n_units, width : int
        Rows; slices along the parameter's first axis; elements of each of them.
    """

    n_rows: int
    n_units: int
    width: int

    @property
    def n_columns(self) -> int:
        return self.n_units * self.width

    @property
    @abstractmethod
    def parts(self) -> tuple[torch.Tensor, ...]:
        """The tensors that it is made of."""

    @abstractmethod
    def converted(self, dtype: torch.dtype) -> Factor:
        """The same in some dtype: itself, if that is its own."""

    @abstractmethod
    def rows(self, index: torch.Tensor) -> Factor:
        """Some of the rows."""

    @abstractmethod
    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> Factor:
        """Sums of rows: row ``g`` is the sum of the rows ``index[g]`` (m,) where ``used[g]``."""

    @abstractmethod
    def stacked(self, size: int) -> Factor:
        """Sums of each ``size`` rows in turn."""

    @abstractmethod
    def units(self, index: IntArray) -> list[Factor]:
        """Factors of some of the units, ascending; together they have them all."""

    @abstractmethod
    def explicit(self, part: slice) -> torch.Tensor:
        """Gradients written out for adjacent units, (n, units * width)."""

    @abstractmethod
    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        """Write ``weights @ rows`` for weights (n,) to a vector (n_columns,)."""

    @abstractmethod
    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        """As :meth:`weighted_sum`, with weights of their own for some units, ascending."""

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        """Inner products of the rows with a vector (n_columns,), (n,)."""
        total = vector.new_zeros(self.n_rows)
        for part, chunk in self.chunks():
            total += chunk @ vector[part.start * self.width : part.stop * self.width]
        return total

    @property
    def multiplications(self) -> int:
        """What the Gram matrix takes."""
        return self.n_rows * self.n_rows * self.n_columns

    def gram(self) -> torch.Tensor:
        """Inner products of the rows, (n, n)."""
        if self.n_columns <= limits.ONE_PRODUCT_COLUMNS:
            written = self.explicit(slice(0, self.n_units))
            return written @ written.T
        total = self.parts[0].new_zeros((self.n_rows, self.n_rows))
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

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """``sum_i w_i |x_iu|^2`` for the part ``x_iu`` of every unit u, (n_units,)."""
        return weights @ self.unit_squares

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """``sum_i w_i x_ij^2`` for every column j, (n_columns,)."""
        return torch.cat([weights @ chunk.square() for _, chunk in self.chunks()])

    def entries(self, unit: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Elements ``place`` (k,) of units ``unit`` (k,) of all rows, (n, k)."""
        found = torch.empty((self.n_rows, len(unit)), dtype=self.parts[0].dtype, device=unit.device)
        for part, chunk in self.chunks():
            here = (unit >= part.start) & (unit < part.stop)
            found[:, here] = chunk[:, (unit[here] - part.start) * self.width + place[here]]
        return found

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Gradients written out, some units at a time."""
        step = max(1, limits.WRITTEN_ELEMENTS // max(1, self.n_rows * self.width))
        for start in range(0, self.n_units, step):
            part = slice(start, min(start + step, self.n_units))
            yield part, self.explicit(part)


class DenseFactor(Factor):
    """Gradients as they are: of biases, scales and anything small.

    Parameters
    ----------
    values : tensor of shape (n, units, ...)
        The gradient of each row.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.n_rows, self.n_units = len(values), values.shape[1] if values.ndim > 1 else 1
        self.width = math.prod(values.shape[2:])
        self.values = values.reshape(self.n_rows, self.n_columns)

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        return (self.values,)

    def _like(self, values: torch.Tensor) -> DenseFactor:
        return DenseFactor(values.reshape(len(values), -1, self.width))

    def converted(self, dtype: torch.dtype) -> DenseFactor:
        return self if self.values.dtype == dtype else self._like(self.values.to(dtype))

    def rows(self, index: torch.Tensor) -> DenseFactor:
        return self._like(self.values[index])

    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> DenseFactor:
        return self._like(torch.where(used[:, :, None], self.values[index], 0).sum(dim=1))

    def stacked(self, size: int) -> DenseFactor:
        return self._like(self.values.view(-1, size, self.n_columns).sum(dim=1))

    def units(self, index: IntArray) -> list[Factor]:
        stops = np.append(np.flatnonzero(np.diff(index) > 1) + 1, len(index))
        if self.width == 1 or self.n_rows * len(index) * self.width < limits.LONG_RUN_ELEMENTS * len(stops):
            at = torch.from_numpy(index).to(self.values.device)
            return [self._like(self.values.view(self.n_rows, self.n_units, self.width).index_select(1, at))]
        # The gradients of wide units are a good part of all memory there is: no copy of them.
        firsts, lasts = index[np.append(0, stops[:-1])], index[stops - 1]
        return [self._like(self.explicit(slice(first, last + 1))) for first, last in zip(firsts, lasts, strict=True)]

    def explicit(self, part: slice) -> torch.Tensor:
        return self.values[:, part.start * self.width : part.stop * self.width]

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


class OuterProductFactor(Factor):
    r"""Sums of outer products, :math:`\sum_t l_{it} r_{it}^T`: of linear and convolutional layers.

    Parameters
    ----------
    left : tensor of shape (n, t, n_units)
        What differs between units; a linear layer's gradients with respect to its outputs at t positions.
    right : tensor of shape (n, t, width)
        What units share; the layer's inputs there.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        self.left, self.right = left, right
        self.n_rows, self.positions, self.n_units = left.shape
        self.width = right.shape[2]

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        return (self.left, self.right)

    def converted(self, dtype: torch.dtype) -> OuterProductFactor:
        same = self.left.dtype == self.right.dtype == dtype
        return self if same else OuterProductFactor(self.left.to(dtype), self.right.to(dtype))

    def rows(self, index: torch.Tensor) -> OuterProductFactor:
        return OuterProductFactor(self.left[index], self.right[index])

    def grouped(self, index: torch.Tensor, used: torch.Tensor) -> OuterProductFactor:
        # Positions of all samples of a group are positions of the group.
        left = torch.where(used[:, :, None, None], self.left[index], 0)
        # What isn't used may hold anything, and zero times NaN is NaN.
        right = torch.where(used[:, :, None, None], self.right[index], 0)
        return OuterProductFactor(left.flatten(1, 2), right.flatten(1, 2))

    def stacked(self, size: int) -> OuterProductFactor:
        positions = size * self.positions
        return OuterProductFactor(
            self.left.reshape(-1, positions, self.n_units), self.right.reshape(-1, positions, self.width)
        )

    def units(self, index: IntArray) -> list[Factor]:
        at = torch.from_numpy(index).to(self.left.device)
        if self.positions == 1:
            return [OuterProductFactor(self.left[:, 0].index_select(1, at)[:, None], self.right)]
        # Along whichever axis is contiguous.
        return [OuterProductFactor(self.left.transpose(1, 2).index_select(1, at).transpose(1, 2), self.right)]

    def explicit(self, part: slice) -> torch.Tensor:
        left = self.left[:, :, part]
        if self.positions == 1:
            return (left[:, 0, :, None] * self.right).flatten(1)
        return torch.bmm(left.transpose(1, 2), self.right).flatten(1)

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        if self.positions > 1:
            self._sum(self.left * weights[:, None, None], out)
            return
        # The smaller part is scaled; and fewer views, for in small networks calls are what takes time.
        left, right = self.left[:, 0], self.right[:, 0]
        if self.n_units < self.width:
            left = left * weights[:, None]
        else:
            right = right * weights[:, None]
        torch.mm(left.T, right, out=out.view(self.n_units, self.width))

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        # As the layer does it: outputs of its inputs, and their products with what came back.
        products = (self.left @ vector.view(self.n_units, self.width)).mul_(self.right)
        return products.flatten(1).sum(dim=1)

    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        chosen = np.zeros((2, self.n_units))
        chosen[1, units] = 1.0
        chosen[0] = 1.0 - chosen[1]
        # Factors for rows and units by a product: torch.where takes several times as long.
        factors = torch.stack([elsewhere, on_units], dim=1) @ torch.from_numpy(chosen).to(on_units)
        self._sum(self.left * factors[:, None], out)

    def _sum(self, left: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(left.flatten(0, 1).T, self.right.flatten(0, 1), out=out.view(self.n_units, self.width))

    def has_bias(self, other: Factor) -> bool:
        """Whether the other factor is that of a bias of the same layer at one position."""
        return (
            self.positions == 1
            and isinstance(other, DenseFactor)
            and other.width == 1
            and other.values.shape == (self.n_rows, self.n_units)
            # The same memory: comparing numbers would wait for the device.
            and other.values.data_ptr() == self.left.data_ptr()
            and other.values.stride() == self.left[:, 0].stride()
        )

    def gram(self, plus: float = 0.0) -> torch.Tensor:
        """Inner products of the rows; ``plus`` is added to those of what units share."""
        if self.positions == 1:
            left, right = self.left[:, 0], self.right[:, 0]
            shared = right @ right.T
            return (left @ left.T).mul_(shared.add_(plus) if plus else shared)
        assert not plus, "a bias of several positions is no outer product with ones"
        return self._gram_by_products() if self._by_products < self._written_out else super().gram()

    @property
    def multiplications(self) -> int:
        return min(self._by_products, self._written_out)

    @property
    def _by_products(self) -> int:
        return (self.n_rows * self.positions) ** 2 * (self.n_units + self.width)

    @property
    def _written_out(self) -> int:
        return self.n_rows * (self.positions + self.n_rows) * self.n_columns

    def _gram_by_products(self) -> torch.Tensor:
        left, right = self.left.flatten(0, 1), self.right.flatten(0, 1)
        n, t = self.n_rows, self.positions
        result = left.new_empty((n, n))
        step = max(1, limits.WRITTEN_ELEMENTS // (t * t * n))
        for start in range(0, n, step):
            some = slice(start * t, min(start + step, n) * t)
            products = (left[some] @ left.T).mul_(right[some] @ right.T)
            result[start : start + step] = products.view(-1, t, n, t).sum(dim=(1, 3))
        return result

    @property
    def _products_are_cheaper(self) -> bool:
        """Whether products of a row's own positions are cheaper than its gradient written out."""
        return self.positions * (self.n_units + self.width) < self.n_units * self.width

    @cached_property
    def unit_squares(self) -> torch.Tensor:
        if not self._products_are_cheaper:
            return super().unit_squares
        # l^T R l for each unit, R the products of the positions.
        inner = torch.bmm(torch.bmm(self.right, self.right.transpose(1, 2)), self.left)
        return inner.mul_(self.left).sum(dim=1).clamp_min_(0.0)

    def squared_norms(self, plus: float = 0.0) -> torch.Tensor:
        """Squared norms of the rows, (n,); ``plus`` is added to the squares of what units share."""
        if self.positions > 1:
            return super().squared_norms()
        return self._own_squares.sum(dim=1) * (self._shared_squares + plus)

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        if self.positions > 1:
            return super().unit_scores(weights)
        return (weights * self._shared_squares) @ self._own_squares

    def affine_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """Scores of the units, and of those of a bias of the same layer at one position, (2 * n_units,)."""
        return (torch.stack([weights * self._shared_squares, weights]) @ self._own_squares).flatten()

    @cached_property
    def _own_squares(self) -> torch.Tensor:
        """Squares of what differs between units, at one position."""
        return self.left[:, 0].square()

    @cached_property
    def _shared_squares(self) -> torch.Tensor:
        """Squared norms of what units share, at one position."""
        shared: torch.Tensor = torch.linalg.vector_norm(self.right[:, 0], dim=1)
        return shared.square_()

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        if self.positions > 1:
            return super().column_scores(weights)
        left, right = self.left[:, 0].square(), self.right[:, 0].square()
        return ((left * weights[:, None]).T @ right).flatten()

    def entries(self, unit: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        if self.positions == 1:
            return self.left[:, 0, unit] * self.right[:, 0, place]
        return super().entries(unit, place)


def mask_of(index: IntArray, n: int, device: torch.device) -> torch.Tensor:
    """Which of n things are among some."""
    mask = np.zeros(n, dtype=bool)
    mask[index] = True
    return torch.from_numpy(mask).to(device)


def outer(left: torch.Tensor, right: torch.Tensor) -> OuterProductFactor | DenseFactor:
    """Outer products, written out where that takes less memory; shapes as in :class:`OuterProductFactor`."""
    n, t, units = left.shape
    width = right.shape[2]
    if units * width > t * (units + width):
        return OuterProductFactor(left, right)
    values = empty((n, units, width), left.dtype, left.device)
    torch.bmm(left.transpose(1, 2), right, out=values)
    return DenseFactor(values)


#: A rule's kind of answer: factors of the gradients of a layer's parameters by name.
Factors = Mapping[str, Factor | Sequence[Factor]]
#: What makes factors of a layer, its inputs, and the gradient with respect to its output; of a layer with several
#: outputs a tuple, with None where the loss doesn't depend on one.
Rule = Callable[[Any, tuple[torch.Tensor, ...], Any], Factors]
