"""Per-sample gradients of the weights and the bias of a linear layer at one position, as one factor."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.transfer import on_device
from skbgmd.ghost.factors.base import Factor, IntArray
from skbgmd.ghost.factors.dense import DenseFactor
from skbgmd.ghost.factors.outer_product import OuterProductFactor


class AffineFactor:
    """Weights and bias of a linear layer at one position: the bias is a weight of an input of one.

    Every product takes one call for both: in small networks calls are what takes time.

    Parameters
    ----------
    left : tensor of shape (n, n_units)
        Gradients with respect to the outputs, which are those with respect to the bias.
    right : tensor of shape (n, width)
        Inputs.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        self.left, self.right, self.dtype = left, right, left.dtype
        self.device = left.device
        self.n_units, self.width = left.shape[1], right.shape[1]
        #: Columns of the weights, and of the bias.
        self._sizes = (self.n_units * self.width, self.n_units)
        self.n_columns = sum(self._sizes)
        n = self.n_rows = len(left)
        #: Multiplications that the Gram matrix takes.
        self.multiplications = n * n * (2 * self.n_units + self.width)

    @classmethod
    def of(cls, weight: Factor | AffineFactor, bias: Factor | AffineFactor) -> AffineFactor | None:
        """Join two factors of adjacent columns, if they are those of the weights and bias of one layer."""
        if not (isinstance(weight, OuterProductFactor) and isinstance(bias, DenseFactor)):
            return None
        fits = (
            weight.positions == 1
            and bias.width == 1
            and bias.values.shape == (weight.n_rows, weight.n_units)
            # The same memory: comparing numbers would wait for the device.
            and bias.values.data_ptr() == weight.left.data_ptr()
        )
        left = weight.left[:, 0]
        return cls(left, weight.right[:, 0]) if fits and bias.values.stride() == left.stride() else None

    def split(self) -> tuple[OuterProductFactor, DenseFactor]:
        """The factors of the weights and of the bias."""
        return OuterProductFactor(self.left.unsqueeze(1), self.right.unsqueeze(1)), DenseFactor(self.left)

    def to(self, dtype: torch.dtype) -> AffineFactor:
        """Convert to another dtype."""
        return AffineFactor(self.left.to(dtype), self.right.to(dtype))

    def gram(self) -> torch.Tensor:
        """Inner products of the rows, (n, n)."""
        wide = self.dtype in (torch.float32, torch.float64) and not (
            self.left.requires_grad or self.right.requires_grad
        )
        # NumPy takes a product of a matrix and its own transpose for what it is, half of another; but its threads wait
        # for those of torch.
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        if not (alone and wide) or self.n_rows > limits.NUMPY_GRAM_ROWS:
            return self.products(self)
        left, right = self.left.numpy(), self.right.numpy()
        with np.errstate(all="ignore"):
            products = right @ right.T
            products += 1.0
            products *= left @ left.T
        return torch.from_numpy(products)

    def squared_norms(self) -> torch.Tensor:
        """Squared norms of the rows, (n,)."""
        left = torch.linalg.vector_norm(self.left, dim=1).square_()
        return torch.addcmul(left, left, self.right_squares)

    def unit_scores(self, weights: torch.Tensor) -> torch.Tensor:
        """Scores of the units of the weights and of those of the bias, (2 * n_units,)."""
        return (torch.stack([weights * self.right_squares, weights]) @ self.left.square()).flatten()

    def weighted_sum(self, weights: torch.Tensor, out: torch.Tensor) -> None:
        """Write ``weights @ rows`` for weights (n,) to a vector (n_columns,)."""
        left = self.left * weights.unsqueeze(1)
        weight, bias = torch.split_with_sizes(out, self._sizes)
        torch.mm(left.T, self.right, out=weight.view(self.n_units, self.width))
        torch.sum(left, dim=0, out=bias)

    def weighted_sum_by_block(self, both: torch.Tensor, units: IntArray, out: torch.Tensor) -> None:
        """Write a weighted sum, by weights elsewhere and for some units, (n, 2), those of the bias last."""
        chosen = np.zeros((2, 2 * self.n_units), dtype=np.float32)
        chosen[1, units] = 1.0
        chosen[0] = 1.0 - chosen[1]
        # Factors for rows and units by a product: torch.where takes several times as long.
        factors = both @ on_device(chosen, both.device, both.dtype)
        weight, bias = torch.split_with_sizes(out, self._sizes)
        of_weight, of_bias = torch.split_with_sizes(factors, (self.n_units, self.n_units), dim=1)
        torch.mm((self.left * of_weight).T, self.right, out=weight.view(self.n_units, self.width))
        torch.sum(self.left * of_bias, dim=0, out=bias)

    def units(self, index: IntArray) -> list[Factor]:
        """Select units, ascending, those of the bias last."""
        at = on_device(index, self.device)
        n_weight = int(np.searchsorted(index, self.n_units))
        found: list[Factor] = []
        if n_weight:
            left = self.left.index_select(1, at[:n_weight])
            found.append(OuterProductFactor(left.unsqueeze(1), self.right.unsqueeze(1)))
        if n_weight < len(index):
            found.append(DenseFactor(self.left.index_select(1, at[n_weight:] - self.n_units)))
        return found

    def inner_products(self, vector: torch.Tensor) -> torch.Tensor:
        """Inner products of the rows with a vector (n_columns,), (n,)."""
        weight, bias = torch.split_with_sizes(vector, self._sizes)
        outputs = torch.addmm(bias, self.right, weight.view(self.n_units, self.width).T)
        return outputs.mul_(self.left).sum(dim=1)

    def rows(self, index: torch.Tensor) -> AffineFactor:
        """Select rows."""
        return AffineFactor(self.left.index_select(0, index), self.right.index_select(0, index))

    def written(self, index: torch.Tensor) -> list[torch.Tensor]:
        """Write some rows out, (k, n_columns), in adjacent parts."""
        left, right = self.left.index_select(0, index), self.right.index_select(0, index)
        return [(left.unsqueeze(2) * right.unsqueeze(1)).flatten(1), left]

    def products(self, other: AffineFactor) -> torch.Tensor:
        """Inner products with other rows, (n, m)."""
        return (self.left @ other.left.T).mul_((self.right @ other.right.T).add_(1.0))

    def add_to(self, vector: torch.Tensor, weights: torch.Tensor) -> None:
        """Add ``weights @ rows`` for weights (n,) to a vector (n_columns,)."""
        left = self.left * weights.unsqueeze(1)
        weight, bias = torch.split_with_sizes(vector, self._sizes)
        weight.view(self.n_units, self.width).addmm_(left.T, self.right)
        bias.add_(left.sum(dim=0))

    @cached_property
    def right_squares(self) -> torch.Tensor:
        """Squared norms of the inputs, (n,)."""
        norms: torch.Tensor = torch.linalg.vector_norm(self.right, dim=1)
        return norms.square_()


#: A factor, or that of the weights and bias of a layer.
JoinedFactor = Factor | AffineFactor


def with_biases(factors: Iterable[tuple[int, JoinedFactor]]) -> list[tuple[int, JoinedFactor]]:
    """Join the weights and bias of each layer where they can be one :class:`AffineFactor`.

    Parameters
    ----------
    factors : iterable of (int, Factor or AffineFactor)
        First columns, ascending, and factors.
    """
    joined: list[tuple[int, JoinedFactor]] = []
    end, before = -1, None
    for start, factor in factors:
        both = AffineFactor.of(before, factor) if before is not None and start == end else None
        if both is None:
            joined.append((start, factor))
        else:
            joined[-1] = (joined[-1][0], both)
        before = factor if both is None else None
        end = start + factor.n_columns
    return joined


def without_biases(parts: Iterable[tuple[int, JoinedFactor]]) -> list[tuple[int, Factor]]:
    """Part the weights and bias of each layer again."""
    parted: list[tuple[int, Factor]] = []
    for start, part in parts:
        if isinstance(part, AffineFactor):
            weight, bias = part.split()
            parted += [(start, weight), (start + weight.n_columns, bias)]
        else:
            parted.append((start, part))
    return parted
