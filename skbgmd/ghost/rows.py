"""Per-sample gradients, or sums over groups of samples, as rows: known by their factors and never written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd._utils.checks import check_row_weights
from skbgmd._utils.slices import Slices
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.ghost.factors import AffineFactor, DenseFactor, Factor, JoinedFactor, with_biases, without_biases
from skbgmd.ghost.gram_product import split_by_cost
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.chunked import ChunkedRows
from skbgmd.rows.few import FewRows, WrittenRows
from skbgmd.rows.gram import Gram
from skbgmd.rows.shrinkage import shrunk

F = TypeVar("F", Factor, JoinedFactor)


class GhostRows(ChunkedRows):
    """Per-sample gradients with respect to many parameters as rows, known by their factors.

    Use them to aggregate per-sample gradients without writing them out. They take the memory of the factors, which are
    the layers' inputs and output gradients, and of Gram matrices. The gradients of no more than some units are written
    out at a time.

    Parameters
    ----------
    factors : list of (int, Factor or AffineFactor)
        For each part of the columns: the column at which it begins, ascending, and the factor of the rows there.
        Columns that no part covers are zero.
    n_rows, n_columns : int
        Number of rows, and of columns.
    weights : ndarray of shape (n_rows,), default=None
        Non-negative weights of the rows, of which only ratios matter. None: all one.
    units : ParameterBlock, default=None
        Units of the parameters.
    device : torch.device, default=None
        Device of the factors; give it if there may be no factors.

    Raises
    ------
    TypeError
        If weights aren't an array of numbers.
    ValueError
        If weights have another shape, are masked or negative, or hold NaN or inf.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skbgmd.ghost import GhostRows, GradientRecorder
    >>> layer = torch.nn.Linear(1000, 500)
    >>> with GradientRecorder(layer, list(layer.parameters())) as recorder:
    ...     losses = layer(torch.randn(64, 1000)).square().sum(dim=1)
    >>> rows = GhostRows(recorder.factors(losses), 64, 500_500)
    >>> rows.gram().products.shape, rows.weighted_sum(np.full(64, 1 / 64)).shape
    ((64, 64), torch.Size([500500]))
    """

    gram_is_expensive = True

    def __init__(
        self,
        factors: Sequence[tuple[int, JoinedFactor]],
        n_rows: int,
        n_columns: int,
        weights: FloatArray | None = None,
        *,
        units: ParameterBlock | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.units = units
        self.n_rows, self.n_columns = n_rows, n_columns
        self.weights = np.ones(n_rows) if weights is None else check_row_weights(weights, n_rows)
        self.device = device or (factors[0][1].device if factors else torch.device("cpu"))
        wide = any(factor.dtype == torch.float64 for _, factor in factors)
        self.dtype = torch.float64 if wide else torch.float32
        self._given = _in_dtype(factors, self.dtype)

    @cached_property
    def factors(self) -> list[tuple[int, Factor]]:
        """First columns, ascending, and factors of single parameters."""
        return without_biases(self._given)

    @cached_property
    def _joined(self) -> list[tuple[int, JoinedFactor]]:
        """The same factors, of a layer's weights and bias as one where they can be."""
        return with_biases(self._given)

    @property
    def parts(self) -> list[JoinedFactor]:
        """The factors, of a layer's weights and bias as one where they can be."""
        return [factor for _, factor in self._joined]

    # ---- of the protocol, through factors ---------------------------------------------------------------------------

    def gram(self, about: FloatArray | None = None, *, tol: float = 0.0) -> Gram:
        """Inner products about the origin, around which gradients lie; with ``about``, from products in float64."""
        if about is not None:
            return self._gram_in(torch.float64)
        if self._gram is None:
            self._gram = self._gram_in(self.dtype)
            if not (self._gram.finite.all() and self._gram.squares.max(initial=0.0) < 1e30):
                # Squares that have no number in float32 may have one in float64.
                self._gram = self._gram_in(torch.float64)
        return self._gram

    def _gram_in(self, dtype: torch.dtype) -> Gram:
        total: torch.Tensor | None = None
        for part in self._gram_parts(dtype):
            total = part.double() if total is None else total.add_(part)
        if total is None:
            total = torch.zeros((self.n_rows, self.n_rows), dtype=torch.float64, device="cpu")
        products: FloatArray = total.cpu().numpy()
        squares = products.reshape(-1)[:: self.n_rows + 1]
        # As sums of products they may come out a little below zero.
        np.maximum(squares, 0.0, out=squares)
        finite: BoolArray = np.isfinite(squares)
        if not finite.all():
            products[~finite], products[:, ~finite] = 0.0, 0.0
        gram = Gram(products, finite, 2.0 ** (-22 if dtype == torch.float32 else -50))
        return shrunk(gram, self.weights)

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None:
            gram = self._gram
            if gram is not None and gram.unit == 1.0 and gram.shrinkage is None and gram.finite.all():
                # It is about the origin.
                squares = gram.squares
            else:
                squares = self._squares_in(self.dtype)
                if not math.isfinite(squares.sum()):
                    squares = self._squares_in(torch.float64)
                    squares = np.where(np.isfinite(squares), squares, np.nan)
            self._norms = np.sqrt(squares)
        return self._norms

    def _squares_in(self, dtype: torch.dtype) -> FloatArray:
        total: torch.Tensor | None = None
        for _, factor in _in_dtype(self._joined, dtype):
            squares = factor.squared_norms()
            total = squares if total is None else total + squares
        if total is None:
            return np.zeros(self.n_rows)
        found: FloatArray = total.double().cpu().numpy()
        return found

    def _gram_parts(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """Gram matrices that add up to that of all factors."""
        small = []
        for _, factor in self._joined:
            if isinstance(factor, DenseFactor) and factor.n_columns <= limits.ONE_PRODUCT_COLUMNS:
                small.append(factor.values)
            else:
                yield (factor if factor.dtype == dtype else factor.to(dtype)).gram()
        # Many in one product: calls are what takes time. Not all of a deep network's, for it takes a copy.
        at_once = max(1, limits.WRITTEN_ELEMENTS // (limits.ONE_PRODUCT_COLUMNS * self.n_rows))
        for start in range(0, len(small), at_once):
            together = torch.cat(small[start : start + at_once], dim=1).to(dtype)
            yield together @ together.T

    def gram_product(self) -> Callable[[FloatArray], FloatArray] | None:
        """Product of vectors (n,) and the Gram matrix, of which the expensive parts aren't formed; see FactoredRows."""
        formed, passed = split_by_cost(self.factors)
        if not passed or self._gram is not None:
            return None
        cheap, costly = (
            GhostRows(part, self.n_rows, sum(f.n_columns for _, f in part), self.weights, device=self.device)
            for part in (formed, passed)
        )
        known = cheap.gram()
        if known.unit != 1.0 or known.shrinkage is not None:
            return None
        return lambda vector: vector @ known.products + costly.inner_products(costly.weighted_sum(vector))

    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        total = torch.zeros(self.n_rows, dtype=torch.float64, device=self.device)
        for factor, part in zip(self.parts, self._split(vector.to(self.dtype)), strict=True):
            total += factor.inner_products(part)
        found: FloatArray = total.cpu().numpy()
        return found

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        if weights.ndim > 1:
            return torch.stack([self.weighted_sum(line, dtype) for line in weights])
        if 0 < np.count_nonzero(weights) < self.n_rows and not self.finite.all():
            # NaN times zero is NaN.
            used = np.flatnonzero(weights)
            return self.subset(used).weighted_sum(weights[used], dtype)
        dtype = dtype or self.dtype
        line = on_device(weights, self.device, dtype)
        result = self._empty((self.n_columns,), dtype)
        joined = _in_dtype(self._joined, dtype)
        for (_, factor), part in zip(joined, self._split(result), strict=True):
            factor.weighted_sum(line, part)
        return result

    def weighted_sum_by_block(
        self, on_block: FloatArray, elsewhere: FloatArray, block: CoordinateBlock | ParameterBlock
    ) -> torch.Tensor:
        if isinstance(block, CoordinateBlock) or not self.finite.all():
            return super().weighted_sum_by_block(on_block, elsewhere, block)
        inside, outside = self._tensor(on_block), self._tensor(elsewhere)
        both = torch.stack([outside, inside], dim=1)
        result = self._empty((self.n_columns,), self.dtype)
        for (start, factor), part in zip(self._joined, self._split(result), strict=True):
            chosen = block.within(start, start + factor.n_columns)
            if not len(chosen):
                factor.weighted_sum(outside, part)
            elif isinstance(factor, AffineFactor):
                factor.weighted_sum_by_block(both, chosen, part)
            else:
                factor.weighted_sum_by_block(inside, outside, chosen, part)
        return result

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Allocate memory for weighted sums; zero where no factor writes to it."""
        result = empty(shape, dtype, self.device)
        return result if self.covers_all else result.zero_()

    @cached_property
    def covers_all(self) -> bool:
        """Each column is one of a factor."""
        return sum(factor.n_columns for factor in self.parts) == self.n_columns

    def _split(self, vector: torch.Tensor) -> Sequence[torch.Tensor]:
        """Cut a vector (d,) into the columns of each part."""
        if self.covers_all:
            return torch.split_with_sizes(vector, [factor.n_columns for factor in self.parts])
        return [vector[start : start + factor.n_columns] for start, factor in self._joined]

    def _held_scores(self, scale: FloatArray, shift: torch.Tensor | None) -> torch.Tensor:
        rows, scale, dtype = self._scored(scale)
        scores = rows._column_scores(scale, dtype)
        if dtype != torch.float64 and not _are_numbers(scores):
            dtype = torch.float64
            scores = rows._column_scores(scale, dtype)
        if shift is not None:
            scores += 2.0 * shift * rows.weighted_sum(rows.weights * scale, dtype)
            scores += float(rows.weights.sum()) * shift.square()
            scores.clamp_min_(0.0)
        return scores

    def _column_scores(self, scale: FloatArray, dtype: torch.dtype) -> torch.Tensor:
        scores = torch.zeros(self.n_columns, dtype=self.dtype, device=self.device)
        squares = on_device(self.weights * scale**2, self.device, dtype)
        for start, factor in _in_dtype(self.factors, dtype):
            scores[start : start + factor.n_columns] = factor.column_scores(squares)
        return scores

    def unit_scores(self, units: ParameterBlock, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        if shift is not None:
            return super().unit_scores(units, scale, shift)
        rows, scale, dtype = self._scored(scale)
        scores = rows._unit_scores(units, scale, dtype)
        if dtype != torch.float64 and not _are_numbers(scores):
            scores = rows._unit_scores(units, scale, torch.float64)
        return scores

    def _unit_scores(self, units: ParameterBlock, scale: FloatArray, dtype: torch.dtype) -> torch.Tensor:
        squares = on_device(self.weights * scale**2, self.device, dtype)
        scores = torch.zeros(len(units.starts), dtype=self.dtype, device=self.device)
        for start, factor in _in_dtype(self._joined, dtype):
            first, found = units.at(start), factor.unit_scores(squares)
            scores[first : first + len(found)] = found
        return scores

    def _scored(self, scale: FloatArray) -> tuple[GhostRows, FloatArray, torch.dtype]:
        """Select the rows of non-zero scale, for others may hold NaN, and a dtype that holds their squares."""
        used = np.flatnonzero(scale)
        rows, scale = (self, scale) if len(used) == self.n_rows else (self.subset(used), scale[used])
        # What needs a larger scale has no squares in any dtype.
        return rows, np.minimum(scale, 1e150), self.dtype if self._have_squares(rows.norms()) else torch.float64

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        return on_device(values, self.device, self.dtype)

    def block(self, columns: CoordinateBlock | ParameterBlock) -> GhostRows | _SomeColumns:
        """Select columns; whole units keep their factors, other columns are written out when they are read."""
        if isinstance(columns, CoordinateBlock):
            return _SomeColumns(self, columns.indices)
        factors: list[tuple[int, JoinedFactor]] = []
        for start, factor in self._joined:
            chosen = columns.within(start, start + factor.n_columns)
            if not len(chosen):
                continue
            # Chosen columns that no factor covers lie between.
            begin = columns.before(start)
            whole = len(chosen) == factor.n_units and not isinstance(factor, AffineFactor)
            for part in [factor] if whole else factor.units(chosen):
                factors.append((begin, part))
                begin += part.n_columns
        rows = GhostRows(factors, self.n_rows, len(columns), self.weights, device=self.device)
        rows.ids = self.ids
        return rows

    def subset(self, index: NDArray[np.intp]) -> GhostRows:
        at = on_device(index, self.device)
        factors = [(start, factor.rows(at)) for start, factor in self._joined]
        rows = GhostRows(factors, len(index), self.n_columns, self.weights[index], units=self.units, device=self.device)
        rows.ids = self._ids_of(index)
        rows._gram = None if self._gram is None else self._gram.subset(index)
        rows._norms = None if self._norms is None else self._norms[index]
        return rows

    def few(self, index: NDArray[np.intp]) -> FewRows:
        if self.covers_all and len(index) * self.n_columns <= limits.FEW_ELEMENTS:
            at = on_device(index, self.device)
            return WrittenRows(torch.cat([part for factor in self.parts for part in factor.written(at)], dim=1))
        if self.covers_all and all(isinstance(factor, AffineFactor) for factor in self.parts):
            return _FewOfAffine(self, index)
        return super().few(index)

    def grouped(self, groups: Sequence[slice], weights: FloatArray) -> GhostRows:
        """Sum the rows of each group, groups following one another; the sums have weights of their own."""
        parts = groups if isinstance(groups, Slices) else Slices(groups)
        size = parts.longest
        if size == parts.shortest and len(parts) * size == self.n_rows:
            stacked = [(start, factor if size == 1 else factor.stacked(size)) for start, factor in self.factors]
            return GhostRows(stacked, len(groups), self.n_columns, weights, units=self.units, device=self.device)
        index, used = (on_device(table, self.device) for table in parts.table)
        factors = [(start, factor.grouped(index, used)) for start, factor in self.factors]
        return GhostRows(factors, len(groups), self.n_columns, weights, units=self.units, device=self.device)

    # ---- of the protocol, written out -------------------------------------------------------------------------------

    def chunk(self, part: slice) -> torch.Tensor:
        values = torch.zeros((self.n_rows, part.stop - part.start), dtype=self.dtype, device=self.device)
        for start, factor in self.factors:
            low, high = max(part.start, start), min(part.stop, start + factor.n_columns)
            if low < high:
                first, last = (low - start) // factor.width, -(-(high - start) // factor.width)
                written = factor.explicit(slice(first, last))
                offset = start + first * factor.width
                values[:, low - part.start : high - part.start] = written[:, low - offset : high - offset]
        return values

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        values = torch.zeros((self.n_rows, len(index)), dtype=self.dtype, device=self.device)
        for start, factor in self.factors:
            here = torch.nonzero((index >= start) & (index < start + factor.n_columns)).flatten()
            if len(here):
                local = index[here] - start
                values[:, here] = factor.entries(local // factor.width, local % factor.width).to(self.dtype)
        return values

    def row(self, index: int) -> torch.Tensor:
        return self.subset(np.array([index])).chunk(slice(0, self.n_columns))[0]


class _FewOfAffine:
    """A few rows of layers at one position: no product is of vectors (d,), only of inputs and of output gradients."""

    def __init__(self, rows: GhostRows, index: NDArray[np.intp]) -> None:
        self._rows, self._index = rows, index
        at = on_device(index, rows.device)
        everything = [factor for factor in rows.parts if isinstance(factor, AffineFactor)]
        self._factors = [factor.rows(at) for factor in everything]
        products = [few.products(factor) for few, factor in zip(self._factors, everything, strict=True)]
        self._products: FloatArray = sum(products[1:], products[0]).double().cpu().numpy()

    def products(self) -> FloatArray | None:
        products: FloatArray = self._products[:, self._index]
        return products if math.isfinite(products.sum()) else None

    def inner_products(self, total: torch.Tensor, weights: FloatArray) -> FloatArray:
        products: FloatArray = self._products @ weights
        return products

    def add_to(self, vector: torch.Tensor, scale: float, weights: FloatArray) -> torch.Tensor:
        line = on_device(weights, vector.device, vector.dtype)
        for factor, part in zip(self._factors, self._rows._split(vector.mul_(scale)), strict=True):
            factor.add_to(part, line)
        return vector


class _SomeColumns(ChunkedRows):
    """Some columns of ghost rows, written out a chunk at a time."""

    gathers = True

    def __init__(self, rows: GhostRows, index: torch.Tensor) -> None:
        self.rows, self.index = rows, index
        self.n_rows, self.n_columns, self.weights = rows.n_rows, len(index), rows.weights
        self.ids = rows.ids
        self.dtype, self.device = rows.dtype, rows.device

    def chunk(self, part: slice) -> torch.Tensor:
        return self.rows.columns(self.index[part])

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        return self.rows.columns(self.index[index])

    def row(self, index: int) -> torch.Tensor:
        return self.subset(np.array([index])).chunk(slice(0, self.n_columns))[0]

    def block(self, columns: CoordinateBlock | ParameterBlock) -> _SomeColumns:
        return _SomeColumns(self.rows, self.index[columns.indices])

    def subset(self, index: NDArray[np.intp]) -> _SomeColumns:
        some = _SomeColumns(self.rows.subset(index), self.index)
        some._gram = None if self._gram is None else self._gram.subset(index)
        some._norms = None if self._norms is None else self._norms[index]
        return some


def _in_dtype(factors: Sequence[tuple[int, F]], dtype: torch.dtype) -> list[tuple[int, F]]:
    """Convert the factors of another dtype."""
    return [(start, factor if factor.dtype == dtype else factor.to(dtype)) for start, factor in factors]


def _are_numbers(scores: torch.Tensor) -> bool:
    """Tell whether non-negative scores are finite: squares of factors may overflow where those of rows don't."""
    return bool(torch.isfinite(scores.sum()))
