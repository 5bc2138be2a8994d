"""Rows of a perceptron's per-sample gradients, all of them, on a block of units, or a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.ghost.factors import AffineFactor, DenseFactor, JoinedFactor, OuterProductFactor
from skbgmd.ghost.layer_columns import Array, IntArray, LayerColumns
from skbgmd.ghost.rows import GhostRows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.few import ArrayRows, FewRows, Vector

CPU = torch.device("cpu")


class ChosenUnits(NamedTuple):
    """Units of a block in whole layers.

    Attributes
    ----------
    of_weights, of_biases : list of ndarray of shape (k,), (m,)
        For each layer, the outputs whose weights, and whose biases, are in the block.
    lefts : list of ndarray of shape (n, k)
        For each layer, gradients with respect to the former.
    left_of_biases : ndarray of shape (n, m)
        Those with respect to the latter, of all layers next to one another.
    """

    of_weights: list[IntArray]
    of_biases: list[IntArray]
    lefts: list[Array]
    left_of_biases: Array


class PerceptronRows(GhostRows):
    """Rows of a perceptron's per-sample gradients, or of some of their columns, on a CPU.

    Parameters
    ----------
    parts : list of LayerColumns
        The columns, layer by layer, in their order.
    n_columns : int
    weights : ndarray of shape (n,)
        Weights of the rows.
    units : ParameterBlock, default=None
        Units of the parameters.
    """

    def __init__(
        self, parts: list[LayerColumns], n_columns: int, weights: FloatArray, units: ParameterBlock | None = None
    ) -> None:
        self._parts, self.n_columns, self.weights, self.units = parts, n_columns, weights, units
        self._known_units: tuple[ParameterBlock, ChosenUnits] | None = None
        self.n_rows = len(weights)
        self.array_dtype = parts[0].left.dtype
        self.dtype = torch.float64 if self.array_dtype == np.float64 else torch.float32
        self.device = CPU

    @cached_property
    def _given(self) -> list[tuple[int, JoinedFactor]]:  # type: ignore[override]
        # For what isn't said here in NumPy.
        found: list[tuple[int, JoinedFactor]] = []
        for part in self._parts:
            left, right = torch.from_numpy(part.left), torch.from_numpy(part.right)
            if part.is_whole:
                found.append((part.start, AffineFactor(left, right)))
                continue
            if part.n_weights:
                found.append((part.start, OuterProductFactor(left.unsqueeze(1), right.unsqueeze(1))))
            if part.left_of_bias.shape[1]:
                found.append((part.start + part.n_weights, DenseFactor(torch.from_numpy(part.left_of_bias))))
        return found

    @property
    def input_squares(self) -> Array:
        """Squared norms (n,) of what all layers were given."""
        with np.errstate(over="ignore", invalid="ignore"):
            squares: Array = sum((part.right_squares for part in self._parts[1:]), self._parts[0].right_squares)
        return squares

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None:
            # What overflows is seen by the sum.
            with np.errstate(over="ignore", invalid="ignore"):
                squares = self._squares()
            if not math.isfinite(np.add.reduce(squares)):
                # Squares that have no number in float32 may have one in float64.
                return super().norms(run_length)
            self._norms = np.sqrt(squares, dtype=np.float64)
        return self._norms

    def _squares(self) -> Array:
        """Squared norms (n,); those that overflow are no numbers."""
        squares = self._parts[0].squares()
        for part in self._parts[1:]:
            squares += part.squares()
        return squares

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        if weights.ndim > 1 or dtype not in (None, self.dtype) or not self.finite.all():
            return super().weighted_sum(weights, dtype)
        return torch.from_numpy(self.sum_for_few(weights))

    def sum_for_few(self, weights: FloatArray) -> Array:
        result, line = self._empty_array(), weights.astype(self.array_dtype)
        for part in self._parts:
            part.write_sum(line, result)
        return result

    def weighted_sum_by_block(
        self, on_block: FloatArray, elsewhere: FloatArray, block: CoordinateBlock | ParameterBlock
    ) -> torch.Tensor:
        if isinstance(block, CoordinateBlock) or not self._is_whole or not self.finite.all():
            return super().weighted_sum_by_block(on_block, elsewhere, block)
        return self.sum_by_block(on_block, elsewhere, block)

    def sum_by_block(self, on_block: FloatArray, elsewhere: FloatArray, block: ParameterBlock) -> torch.Tensor:
        """Weighted sum (d,) of all layers' whole rows, which are finite, by other weights on a block than elsewhere."""
        result = self._empty_array()
        inside, outside = on_block.astype(self.array_dtype), elsewhere.astype(self.array_dtype)
        chosen = self._chosen_in(block)
        of_biases, first = inside.dot(chosen.left_of_biases), 0
        for number, part in enumerate(self._parts):
            part.write_sum_by_block(outside, inside, chosen.of_weights[number], chosen.lefts[number], result)
            outputs = chosen.of_biases[number]
            if len(outputs):
                part.of(result)[1][outputs] = of_biases[first : first + len(outputs)]
                first += len(outputs)
        return torch.from_numpy(result)

    def unit_scores(self, units: ParameterBlock, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        if shift is not None or not self._is_whole or not self._have_squares(self.norms()):
            return super().unit_scores(units, scale, shift)
        scores = self.scores_of_units(units, (self.weights * scale**2).astype(self.array_dtype))
        return torch.from_numpy(scores) if math.isfinite(scores.sum()) else super().unit_scores(units, scale)

    def scores_of_units(self, units: ParameterBlock, factors: Array) -> Array:
        """Sums over rows, by factors (n,), of all layers' units' squares; some are no numbers where these overflow."""
        scores = np.empty(len(units.starts), dtype=self.array_dtype)
        first = 0
        # Where a layer's inputs have no squares, they are none.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self._parts:
                squares, n_units = np.square(part.left), part.left.shape[1]
                np.dot(factors * part.right_squares, squares, out=scores[first : first + n_units])
                np.dot(factors, squares, out=scores[first + n_units : first + 2 * n_units])
                first += 2 * n_units
        return scores

    def block(self, columns: CoordinateBlock | ParameterBlock) -> Any:
        if isinstance(columns, CoordinateBlock) or not self._is_whole:
            return super().block(columns)
        chosen = self._chosen_in(columns)
        parts, start, first = [], 0, 0
        for part, left, of_biases in zip(self._parts, chosen.lefts, chosen.of_biases, strict=True):
            last = first + len(of_biases)
            if left.shape[1] or last > first:
                left_of_bias = chosen.left_of_biases[:, first:last]
                parts.append(LayerColumns(start, left, left_of_bias, part.right, part.right_squares))
                start, first = start + parts[-1].n_columns, last
        return self._with_parts(parts, start)

    def on_units(self, block: ParameterBlock) -> PerceptronRows:
        """Select units of whole layers' rows, whose scores are finite; their columns are in an order of their own.

        All biases are columns of one part.
        """
        chosen = self._chosen_in(block)
        parts, start, left_of_bias = [], 0, chosen.left_of_biases
        for part, left in zip(self._parts, chosen.lefts, strict=True):
            if left.shape[1]:
                parts.append(LayerColumns(start, left, left_of_bias, part.right, part.right_squares))
                start += left.shape[1] * part.right.shape[1] + left_of_bias.shape[1]
                left_of_bias = left_of_bias[:, :0]
        if not parts:
            first = self._parts[0]
            parts.append(LayerColumns(0, chosen.lefts[0], left_of_bias, first.right, first.right_squares))
            start = left_of_bias.shape[1]
        rows = self._with_parts(parts, start)
        rows._norms = np.sqrt(rows._squares(), dtype=np.float64)
        return rows

    def _with_parts(self, parts: list[LayerColumns], n_columns: int) -> PerceptronRows:
        """Make rows of other columns of the same samples."""
        rows = PerceptronRows(parts, n_columns, self.weights)
        rows.ids, rows.has_equal_weights = self.ids, self.has_equal_weights
        return rows

    def _chosen_in(self, block: ParameterBlock) -> ChosenUnits:
        """Units of a block in the parts, which are all whole layers."""
        if self._known_units is not None and self._known_units[0] is block:
            return self._known_units[1]
        starts, outputs = unit_places(tuple([part.left.shape[1] for part in self._parts]))
        places, chosen = block.chosen.searchsorted(starts).tolist(), outputs.take(block.chosen)
        of_weights, of_biases, lefts, lefts_of_biases = [], [], [], []
        for number, part in enumerate(self._parts):
            first, middle, last = places[2 * number : 2 * number + 3]
            of_weights.append(chosen[first:middle])
            of_biases.append(chosen[middle:last])
            lefts.append(_columns(part.left, of_weights[-1]))
            if last > middle:
                lefts_of_biases.append(_columns(part.left, of_biases[-1]))
        if len(lefts_of_biases) > 1:
            left_of_biases = np.concatenate(lefts_of_biases, axis=1)
        else:
            left_of_biases = lefts_of_biases[0] if lefts_of_biases else self._parts[0].left[:, :0]
        units = ChosenUnits(of_weights, of_biases, lefts, left_of_biases)
        self._known_units = block, units
        return units

    def few(self, index: NDArray[np.intp]) -> FewRows:
        if len(index) * self.n_columns <= limits.FEW_FACTORED_ELEMENTS:
            written = [each for part in self._parts for each in part.written(index)]
            return ArrayRows(np.concatenate(written, axis=1) if len(written) > 1 else written[0])
        return FewPerceptronRows([part.at(index) for part in self._parts])

    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        given = vector.numpy().astype(self.array_dtype, copy=False)
        products: Any = self._parts[0].inner_products(given)
        for part in self._parts[1:]:
            products += part.inner_products(given)
        found: FloatArray = products.astype(np.float64)
        return found

    def gram_product(self) -> Callable[[FloatArray], FloatArray] | None:
        if self._gram is not None:
            return None
        formed: list[LayerColumns] = []
        passed: list[LayerColumns] = []
        costs = [
            (part.multiplications, limits.GRAM_PRODUCT_PASSES * part.n_rows * part.n_weights) for part in self._parts
        ]
        for part, (products, passes) in zip(self._parts, costs, strict=True):
            (formed if products <= passes else passed).append(part)
        if not passed or 2 * sum(map(min, costs)) > sum(products for products, _ in costs):
            return None
        costly, known = self._of_parts(passed), self._of_parts(formed).gram() if formed else None
        if known is None:
            return lambda vector: costly.inner_products(costly.weighted_sum(vector))
        if known.unit != 1.0 or known.shrinkage is not None:
            return None
        formed_products = known.products
        return lambda vector: vector @ formed_products + costly.inner_products(costly.weighted_sum(vector))

    def _of_parts(self, parts: list[LayerColumns]) -> PerceptronRows:
        """Select parts, whose columns are then next to one another."""
        starts = [0, *accumulate(part.n_columns for part in parts)]
        moved = [part._replace(start=start) for part, start in zip(parts, starts, strict=False)]
        rows = PerceptronRows(moved, starts[-1], self.weights)
        rows.ids = self.ids
        return rows

    def _gram_parts(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        if dtype != self.dtype or self.n_rows > limits.NUMPY_GRAM_ROWS:
            yield from super()._gram_parts(dtype)
            return
        with np.errstate(all="ignore"):
            for part in self._parts:
                yield torch.from_numpy(part.gram())

    @property
    def _is_whole(self) -> bool:
        return all(part.is_whole for part in self._parts)

    def _empty_array(self) -> Array:
        return np.empty(self.n_columns, dtype=self.array_dtype)


class FewPerceptronRows:
    """A few of the rows, for products and a sum; see :class:`skbgmd.rows.few.FewRows`."""

    def __init__(self, parts: list[LayerColumns]) -> None:
        self._parts = parts

    def products(self) -> FloatArray | None:
        """Inner products of the k rows, float64 (k, k); None where they are out of range."""
        total = self._parts[0].gram()
        for part in self._parts[1:]:
            total += part.gram()
        products: FloatArray = total.astype(np.float64)
        return products if math.isfinite(np.add.reduce(products, axis=None)) else None

    def inner_products(self, total: Vector, weights: FloatArray) -> FloatArray:
        """Inner products of the k rows with ``total``, which is ``weights @ rows`` of all rows, float64 (k,)."""
        vector = np.asarray(total)
        found: Any = sum(part.inner_products(vector) for part in self._parts)
        products: FloatArray = found.astype(np.float64)
        return products

    def add_to(self, vector: Vector, scale: float, weights: FloatArray) -> Vector:
        """Make a vector (d,) ``scale * vector + weights @ rows`` of the k rows, and return it."""
        whole = np.asarray(vector)
        line = weights.astype(whole.dtype)
        whole *= whole.dtype.type(scale)
        for part in self._parts:
            of_weights, of_biases = part.of(whole)
            if len(of_weights):
                of_weights += (part.left * line[:, None]).T.dot(part.right)
            if len(of_biases):
                of_biases += line.dot(part.left_of_bias)
        return vector


@lru_cache(maxsize=64)
def unit_places(widths: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    """First units of each layer's weights and of its biases, one after another, and the number of all; units' outputs.

    Examples
    --------
    >>> unit_places((3, 2))
    (array([ 0,  3,  6,  8, 10]), array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1]))
    """
    runs = np.repeat(widths, 2)
    return np.cumsum([0, *runs]), np.concatenate([np.arange(width) for width in runs])


def _columns(matrix: Array, index: IntArray) -> Array:
    """Select columns of a matrix, maybe none."""
    return matrix.take(index, axis=1) if len(index) else matrix[:, :0]
