"""Per-sample gradients that are outer products: of linear and convolutional layers."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd._utils.transfer import on_device
from skbgmd.ghost.factors.base import Factor, IntArray
from skbgmd.ghost.factors.dense import DenseFactor


class OuterProductFactor(Factor):
    r"""Sums of outer products, :math:`\sum_t l_{it} r_{it}^T`: of linear and convolutional layers.

    Parameters
    ----------
    left : tensor of shape (n, t, n_units)
        The vectors that differ between units; a linear layer's gradients with respect to its outputs at t positions.
    right : tensor of shape (n, t, width)
        The vectors that units share; the layer's inputs there.

    Raises
    ------
    ValueError
        If one hasn't three dimensions, or the two differ in n or t.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        if left.ndim != 3 or right.ndim != 3 or left.shape[:2] != right.shape[:2]:
            raise ValueError(
                f"left and right must have shapes (n, t, n_units) and (n, t, width), with t = 1 for a layer without "
                f"positions; found {tuple(left.shape)} and {tuple(right.shape)}."
            )
        self.dtype, self.device = torch.promote_types(left.dtype, right.dtype), left.device
        if left.dtype != right.dtype:
            left, right = left.to(self.dtype), right.to(self.dtype)
        if left.shape[1] == 0:
            # Sums of nothing, as of empty sequences.
            left, right = (values.new_zeros((len(values), 1, values.shape[2])) for values in (left, right))
        self.left, self.right = left, right
        self.n_rows, self.positions, self.n_units = left.shape
        self.width = right.shape[2]
        self.n_columns = self.n_units * self.width
        by_products = (self.n_rows * self.positions) ** 2 * (self.n_units + self.width)
        written_out = self.n_rows * self.n_rows * self.n_columns
        to_write = self.n_rows * self.positions * self.n_columns
        self._takes_products = by_products < written_out + to_write
        # Whoever writes them out beforehand takes those multiplications as well.
        self.multiplications = by_products if self._takes_products else written_out
        factors_size = self.positions * (self.n_units + self.width)
        #: Gradients written out take little more memory than the factors, and every answer is one pass over them.
        self._is_held = self.positions > 1 and self.n_units * self.width <= limits.HELD_SHARE * factors_size

    @property
    def pass_multiplications(self) -> int:
        if self._is_held:
            return super().pass_multiplications
        return self.n_rows * self.positions * self.n_columns

    @cached_property
    def _written(self) -> DenseFactor:
        values = empty((self.n_rows, self.n_units, self.width), self.dtype, self.device)
        return DenseFactor(torch.bmm(self.left.transpose(1, 2), self.right, out=values))

    def to(self, dtype: torch.dtype) -> OuterProductFactor:
        return self if dtype == self.dtype else OuterProductFactor(self.left.to(dtype), self.right.to(dtype))

    def rows(self, index: torch.Tensor) -> OuterProductFactor:
        chosen = OuterProductFactor(self.left[index], self.right[index])
        if "_written" in vars(self):
            chosen._written = self._written.rows(index)
        return chosen

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
        at = on_device(index, self.device)
        if self.positions == 1:
            return [OuterProductFactor(self.left[:, 0].index_select(1, at)[:, None], self.right)]
        # Along whichever axis is contiguous.
        return [OuterProductFactor(self.left.transpose(1, 2).index_select(1, at).transpose(1, 2), self.right)]

    def explicit(self, part: slice) -> torch.Tensor:
        if self._is_held:
            return self._written.explicit(part)
        left = self.left[:, :, part]
        if self.positions == 1:
            return (left[:, 0, :, None] * self.right).flatten(1)
        return torch.bmm(left.transpose(1, 2), self.right).flatten(1)

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        if self._is_held:
            self._written.weighted_sum(weights, out)
            return
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
        if self._is_held:
            return self._written.inner_products(vector)
        if self.positions == 1:
            # One product, where torch takes one for each row.
            return (self.left[:, 0] @ vector.view(self.n_units, self.width)).mul_(self.right[:, 0]).sum(dim=1)
        # As the layer does it: outputs of its inputs, and their products with what came back.
        products = (self.left @ vector.view(self.n_units, self.width)).mul_(self.right)
        return products.flatten(1).sum(dim=1)

    def weighted_sum_by_block(
        self, on_units: torch.Tensor, elsewhere: torch.Tensor, units: IntArray, out: torch.Tensor
    ) -> None:
        if self._is_held:
            self._written.weighted_sum_by_block(on_units, elsewhere, units, out)
            return
        chosen = np.zeros((2, self.n_units))
        chosen[1, units] = 1.0
        chosen[0] = 1.0 - chosen[1]
        # Factors for rows and units by a product: torch.where takes several times as long.
        factors = torch.stack([elsewhere, on_units], dim=1) @ on_device(chosen, on_units.device, on_units.dtype)
        self._sum(self.left * factors[:, None], out)

    def _sum(self, left: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(left.flatten(0, 1).T, self.right.flatten(0, 1), out=out.view(self.n_units, self.width))

    def gram(self) -> torch.Tensor:
        if self.positions == 1:
            left, right = self.left[:, 0], self.right[:, 0]
            return (left @ left.T).mul_(right @ right.T)
        return self._gram_by_products() if self._takes_products and not self._is_held else super().gram()

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

    @cached_property
    def unit_squares(self) -> torch.Tensor:
        if self._is_held:
            return self._written.unit_squares
        # l^T R l for each unit, R the products of the positions.
        inner = torch.bmm(torch.bmm(self.right, self.right.transpose(1, 2)), self.left)
        return inner.mul_(self.left).sum(dim=1).clamp_min_(0.0)

    def squared_norms(self) -> torch.Tensor:
        if self._is_held:
            return self._written.squared_norms()
        if self.positions > 1:
            step = max(1, limits.WRITTEN_ELEMENTS // self.positions**2)
            parts = zip(torch.split(self.left, step), torch.split(self.right, step), strict=True)
            return torch.cat([_squared_norms(left, right) for left, right in parts])
        return self._left_squares.sum(dim=1) * self.right_squares

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        if self.positions > 1:
            return super().unit_scores(weights)
        return (weights * self.right_squares) @ self._left_squares

    @cached_property
    def _left_squares(self) -> torch.Tensor:
        """Squares of the left vectors at one position, (n, n_units)."""
        return self.left[:, 0].square()

    @cached_property
    def right_squares(self) -> torch.Tensor:
        """Squared norms of the right vectors at all positions, (n,)."""
        right = self.right[:, 0] if self.positions == 1 else self.right.flatten(1)
        norms: torch.Tensor = torch.linalg.vector_norm(right, dim=1)
        return norms.square_()

    def column_scores(self, weights: torch.Tensor) -> torch.Tensor:
        if self.positions > 1:
            return super().column_scores(weights)
        left, right = self.left[:, 0].square(), self.right[:, 0].square()
        return ((left * weights[:, None]).T @ right).flatten()

    def entries(self, unit: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        if self.positions == 1:
            return self.left[:, 0, unit] * self.right[:, 0, place]
        return super().entries(unit, place)


def _squared_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Squared norms of sums of outer products, (n,), by products of the positions; shapes as in the factor."""
    products = torch.bmm(left, left.transpose(1, 2)).mul_(torch.bmm(right, right.transpose(1, 2)))
    squares: torch.Tensor = products.sum(dim=(1, 2))
    longest = products.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt().sum(dim=1).square()
    # Where terms cancel, their rounding is as large as what is left.
    doubtful = torch.nonzero(squares < limits.CANCELLED_SHARE * longest).flatten()
    if len(doubtful):
        written = torch.bmm(left[doubtful].transpose(1, 2), right[doubtful])
        squares[doubtful] = torch.linalg.vector_norm(written.flatten(1), dim=1).square_()
    return squares


def outer_product(left: torch.Tensor, right: torch.Tensor) -> OuterProductFactor | DenseFactor:
    """Sum outer products, written out where that takes less memory; shapes as in :class:`OuterProductFactor`."""
    n, t, units = left.shape
    width = right.shape[2]
    if units * width > t * (units + width):
        return OuterProductFactor(left, right)
    values = empty((n, units, width), left.dtype, left.device)
    torch.bmm(left.transpose(1, 2), right, out=values)
    return DenseFactor(values)
