"""Kernels over chunks of columns, of which never more than one is copied."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.center import central_line, lies_among
from skbgmd.rows.few import FewRows, SubsetOfRows, Vector
from skbgmd.rows.gram import Gram
from skbgmd.rows.layout import IN_ONE_PROCESS, ColumnLayout
from skbgmd.rows.means import in_range, means
from skbgmd.rows.shrinkage import out_of_range, shrink_outliers, shrunk, underflow_bound

#: Rules of others import ``means`` from here as well.
__all__ = ["ChunkedRows", "means"]


class ChunkedRows(ABC):
    """Base class of rows that come in chunks of columns.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Non-negative row weights, float64.
    n_rows, n_columns : int
    dtype : torch.dtype
        Dtype of the chunks.
    device : torch.device
    """

    weights: FloatArray
    n_rows: int
    n_columns: int
    dtype: torch.dtype
    device: torch.device
    #: Ids of the workers that the rows are of; None: their places.
    ids: tuple[Any, ...] | None = None
    #: Columns that belong together, where that is known.
    units: ParameterBlock | None = None
    #: Where the columns are.
    layout: ColumnLayout = IN_ONE_PROCESS
    #: Chunks are gathered, so that another pass over them costs more than what is done with them.
    gathers: bool = False
    #: Adjacent columns that are best gathered together.
    run_length: int = 1
    #: The Gram matrix takes many times as long as norms and weighted sums.
    gram_is_expensive = False
    #: Memory of a chunk that is no view of a matrix.
    _buffer: torch.Tensor | None = None
    _gram: Gram | None = None
    _norms: FloatArray | None = None

    @abstractmethod
    def chunk(self, part: slice) -> torch.Tensor:
        """Read adjacent columns of all rows, (n, m), valid until the next chunk is read."""

    @abstractmethod
    def columns(self, index: torch.Tensor) -> torch.Tensor:
        """Select columns of all rows, (n, k)."""

    @abstractmethod
    def row(self, index: int) -> torch.Tensor:
        """Select a row, (d,)."""

    @abstractmethod
    def block(self, columns: CoordinateBlock | ParameterBlock) -> ChunkedRows:
        """Restrict the rows to a block of columns."""

    @abstractmethod
    def subset(self, index: NDArray[np.intp]) -> ChunkedRows:
        """Select rows."""

    def few(self, index: NDArray[np.intp]) -> FewRows:
        """Select a few rows, for products and a sum."""
        return SubsetOfRows(self.subset(index))

    def sum_for_few(self, weights: FloatArray) -> Vector:
        """``weights @ rows`` of all rows, as those of :meth:`few` take it in the least time."""
        return self.weighted_sum(weights)

    def column_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Iterate over all columns, a chunk at a time; each is valid until the next."""
        share = self._columns_behind // limits.CHUNK_SHARE
        elements = min(limits.CHUNK_ELEMENTS, max(limits.CHUNK_ELEMENTS // 8, self.n_rows * share))
        width = max(limits.MIN_CHUNK_COLUMNS, min(limits.GOOD_CHUNK_COLUMNS, share), elements // max(1, self.n_rows))
        # Even chunks: a short one at the end would cost nearly as much as the others.
        width = -(-self.n_held // max(1, math.ceil(self.n_held / (width + width // 64))))
        if self.run_length < width:
            width += -width % self.run_length
        # Where there is no column, what is summed over columns is zero.
        for start in range(0, max(1, self.n_held), max(1, width)):
            part = slice(start, min(start + width, self.n_held))
            yield part, self.chunk(part)

    def _ids_of(self, index: NDArray[np.intp]) -> tuple[Any, ...] | None:
        """Ids of some rows, for a subset."""
        if self.ids is None:
            return None
        # By place, which isn't what a series is asked for by a number.
        every = self.ids if isinstance(self.ids, tuple) else list(self.ids)
        return tuple(every[i] for i in index)

    @property
    def n_held(self) -> int:
        """Columns in this process, and length of vectors of columns."""
        return self.n_columns

    @property
    def _columns_behind(self) -> int:
        """Columns in memory, of which these are some or all."""
        return self.n_columns

    @property
    def work_dtype(self) -> torch.dtype:
        """Dtype to compute in: float64 for float64, else float32."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def product_dtype(self) -> torch.dtype:
        """Dtype to multiply in: float32 for a large float32 matrix, else float64.

        For a small matrix float64 costs little, and float32 is not enough where the user has traded the digits of its
        products for speed.
        """
        small = self.n_rows * self.n_columns <= limits.FLOAT64_PRODUCT_ELEMENTS
        lossy = torch.get_float32_matmul_precision() != "highest"
        return torch.float64 if small or lossy else self.work_dtype

    def _have_squares(self, norms: FloatArray) -> bool:
        """Tell whether squares of rows of these norms, and of their columns, are in range, with room for sums."""
        return self.has_square(float(norms.max(initial=0.0)))

    def has_square(self, longest: float) -> bool:
        """Tell whether squares of rows of at most a norm are in range."""
        low, high = limits.SQUARED_RANGE[self.work_dtype]
        return longest == 0.0 or low <= longest <= high

    def _may_square_first(self, norms: FloatArray, scale: FloatArray) -> bool:
        """Tell whether squares of rows of these norms are in range, and so are those of the factors."""
        least = limits.SQUARED_RANGE[self.work_dtype][0]
        return self._have_squares(norms) and bool(least <= scale.min() and scale.max() <= 1.0 / least)

    @cached_property
    def has_equal_weights(self) -> bool:
        """All rows have the same weight."""
        return bool(self.weights.min() == self.weights.max())

    @property
    def knows_norms(self) -> bool:
        """The norms are known, without a pass."""
        return self._norms is not None

    @property
    def finite(self) -> BoolArray:
        """Rows that hold neither NaN nor inf."""
        return self._gram.finite if self._gram is not None else ~np.isnan(self.norms())

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None:
            self._norms = self.distances(None)
        return self._norms

    def distances(self, center: torch.Tensor | None) -> FloatArray:
        """Distances of the rows to a point (d,), or their norms; NaN for rows that are not finite.

        Differences are taken and squared in the wider of the two dtypes, and added up in float64.
        """
        squares = torch.zeros(self.n_rows, dtype=torch.float64, device=self.device)
        for part, chunk in self.column_chunks():
            squares += self._squared_norms(self._difference(chunk, center, part))
        return self._checked(self.layout.add_up(squares), center)

    def _squared_norms(self, chunk: torch.Tensor) -> torch.Tensor:
        norms: torch.Tensor = torch.linalg.vector_norm(chunk, dim=1)
        return norms.double().square_()

    def _checked(self, squares: torch.Tensor, center: torch.Tensor | None) -> FloatArray:
        """Take square roots of squared distances to a point; compute those anew that overflowed or underflowed."""
        norms = _to_numpy(squares.sqrt_())
        # Squares that overflow or underflow, or a row that isn't finite.
        odd = np.flatnonzero(~((norms > limits.SQUARED_RANGE[self.work_dtype][0]) & (norms < np.inf)))
        if odd.size:
            norms[odd] = self.subset(odd)._careful_distances(center)
        return norms

    def _careful_distances(self, center: torch.Tensor | None, factor: float = 1.0) -> FloatArray:
        """Distances of the rows to a point, both multiplied by a factor first, without overflow or underflow."""
        largest = torch.zeros(self.n_rows, dtype=torch.float64, device=self.device)
        for part, chunk in self.column_chunks():
            difference = self._difference(chunk, center, part, factor)
            if difference.shape[1]:
                largest = torch.maximum(largest, difference.abs().amax(dim=1).double())
        largest = self.layout.maximum(largest)
        scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
        squares = torch.zeros_like(largest)
        for part, chunk in self.column_chunks():
            # In double precision, in which subnormal numbers of single precision have inverses.
            difference = self._difference(chunk, center, part, factor).double()
            squares += (difference / scale[:, None]).square_().sum(dim=1)
        squares = self.layout.add_up(squares)
        # Distances that overflow even so count as the largest number.
        norms = np.minimum(_to_numpy(squares.sqrt_() * scale), np.finfo(np.float64).max)
        norms[~_to_numpy(torch.isfinite(largest)).astype(bool)] = np.nan
        return norms

    def _difference(
        self, chunk: torch.Tensor, center: torch.Tensor | None, part: slice, factor: float = 1.0
    ) -> torch.Tensor:
        if factor != 1.0:
            chunk, center = chunk.double() * factor, None if center is None else center.double() * factor
        return chunk.to(self.work_dtype) if center is None else chunk - center[part]

    def huge_distances(self, center: torch.Tensor | None) -> FloatArray:
        """Distances of the rows to a point, divided by 2**64, for those that would overflow."""
        return self._careful_distances(center, 2.0**-64)

    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        """Inner products of the rows with a vector (d,), float64 (n,)."""
        total = torch.zeros(self.n_rows, dtype=torch.float64, device=self.device)
        for part, chunk in self.column_chunks():
            total += chunk.to(self.work_dtype) @ vector[part].to(self.work_dtype)
        return _to_numpy(self.layout.add_up(total))

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        """``weights @ rows`` for weights (n,) or (m, n); rows of weight zero are left out, whatever they hold."""
        used = np.flatnonzero(np.atleast_2d(weights).any(axis=0))
        if 0 < len(used) < self.n_rows:
            # NaN times zero is NaN: rows without weight must not be touched.
            return self.subset(used).weighted_sum(weights[..., used], dtype)
        dtype = dtype or self.work_dtype
        factors = on_device(weights, self.device, dtype)
        result = empty((*factors.shape[:-1], self.n_held), dtype, self.device)
        for part, chunk in self.column_chunks():
            result[..., part] = factors @ chunk.to(dtype)
        return result

    def weighted_sum_by_block(
        self, on_block: FloatArray, elsewhere: FloatArray, block: CoordinateBlock | ParameterBlock
    ) -> torch.Tensor:
        """``on_block @ rows`` on a block's columns and ``elsewhere @ rows`` on the others, (d,)."""
        # One pass for both: reading the rows is what costs.
        everywhere, rest = self.weighted_sum(np.stack([on_block, elsewhere])).unbind()
        index = block.indices
        return rest.index_copy_(0, index, everywhere[index])

    def column_scores(self, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        return self.layout.gather(self._held_scores(scale, shift))

    def _held_scores(self, scale: FloatArray, shift: torch.Tensor | None) -> torch.Tensor:
        """Scores of the columns in this process."""
        used = np.flatnonzero(scale)
        if not len(used):
            return torch.zeros(self.n_held, dtype=self.work_dtype, device=self.device)
        if len(used) < self.n_rows:
            return self.subset(used)._held_scores(scale[used], shift)
        # To square first and then scale saves a pass, but squares of huge or tiny entries overflow or underflow.
        if shift is None and self._may_square_first(self.norms(), scale):
            return self._sums_of_squares(self.weights * scale * scale)
        dtype, device = self.work_dtype, self.device
        result = empty((self.n_held,), dtype, device)
        if dtype == torch.float32 and not self._may_square_first(self.norms(), scale):
            # Factors that bring tiny rows to order one may overflow in single precision.
            dtype = torch.float64
        factors = on_device(scale, device, dtype)[:, None]
        weights = on_device(self.weights, device, dtype)
        buffer: torch.Tensor | None = None
        for part, chunk in self.column_chunks():
            buffer = empty(tuple(chunk.shape), dtype, device) if buffer is None else buffer
            scaled = torch.mul(chunk.to(dtype), factors, out=buffer[:, : chunk.shape[1]])
            if shift is not None:
                scaled += shift[part]
            result[part] = torch.mv(scaled.square_().T, weights)
        return result

    def _sums_of_squares(self, weights: FloatArray) -> torch.Tensor:
        """``sum_i w_i x_ij^2`` for every column."""
        dtype, device = self.work_dtype, self.device
        result = empty((self.n_held,), dtype, device)
        factors = on_device(weights, device, dtype)
        buffer: torch.Tensor | None = None
        for part, chunk in self.column_chunks():
            buffer = empty(tuple(chunk.shape), dtype, device) if buffer is None else buffer
            chunk = chunk.to(dtype)  # half precision would be squared as such
            squares = torch.mul(chunk, chunk, out=buffer[:, : chunk.shape[1]])
            torch.mv(squares.T, factors, out=result[part])
        return result

    def run_scores(self, length: int, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of the columns, summed over runs of ``length``, of which the last may be shorter."""
        return self.layout.sums_of_runs(self._held_scores(scale, shift), length)

    def unit_scores(self, units: ParameterBlock, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of the columns, summed over each of the units that all columns are cut into."""
        return self.layout.sums_of_units(self._held_scores(scale, shift), units)

    def gram(self, about: FloatArray | None = None, *, tol: float = 0.0) -> Gram:
        """Gram matrix about ``about @ rows``, in float64; by default about zero or a central row."""
        if about is not None:
            center = in_range(self, self.weighted_sum(about, torch.float64), about)
            return self.gram_about(center, torch.float64)
        if self._gram is None:
            self._gram = self._gram_about_central()
        return self._gram

    def _gram_about_central(self) -> Gram:
        """Gram matrix about a row that lies among the majority, or about zero."""
        central, dtype = self.central_index(), self.product_dtype
        if central is not None:
            center = self.row(central)
            products = self._products(center, dtype, None)
            if lies_among(products, central):
                return self.gram_about(center, dtype, products)
            # It has NaN, inf or a huge number in a column that isn't in the sample, by fault or on purpose.
            central = central_line(self._sketch())
        return self.gram_about(None if central is None else self.row(central), dtype)

    def gram_about(self, center: torch.Tensor | None, dtype: torch.dtype, products: FloatArray | None = None) -> Gram:
        """Gram matrix of ``rows - center``, or of the rows as they are, multiplied in ``dtype``.

        Chunks are multiplied in ``dtype`` and added up in float64. Where squares of rows are out of range in float32,
        the rows are multiplied in float64. Where they are out of range in float64, all rows are scaled to order one.
        Rows farther than 1e12 typical distances are shrunk to that distance, in any range: seen from within a typical
        distance of the center, their direction is the same to 12 digits, and sums of their products would have no
        digit that tells the others apart. ``products`` are those in ``dtype``, if they are known.
        """
        products = self._products(center, dtype, None) if products is None else products
        floor = underflow_bound(dtype, self.n_columns)
        finite = np.ones(self.n_rows, dtype=bool) if np.isfinite(np.diagonal(products)).all() else self.finite
        if dtype == torch.float32 and out_of_range(np.diagonal(products)[finite], floor):
            dtype = torch.float64
            products, floor = self._products(center, dtype, None), underflow_bound(dtype, self.n_columns)
        unit, shrinkage = 1.0, None
        if out_of_range(np.diagonal(products)[finite], floor):
            down = 64 if not np.isfinite(np.diagonal(products)[finite]).all() else 0
            about = None if center is None else center.double()
            norms = self.huge_distances(about) if down else self.distances(about)
            reach = limits.DISTANCE_RATIO
            typical, shrinkage = shrink_outliers(norms, reach, self.weights)
            # It must have an inverse, and need only be close to the typical distance.
            unit = float(np.clip(np.ldexp(min(typical, 1e280), down), 1e-300, 1e300))
            far = reach * np.ldexp(typical / unit, down)
            far_norms = np.where(shrinkage < 1.0, norms, 1.0)
            factors = np.where(shrinkage < 1.0, np.ldexp(far / far_norms, -down), 1.0 / unit)
            products = self._products(center, dtype, factors)
            shrinkage = None if np.all(shrinkage == 1.0) else shrinkage
            floor = floor if norms[finite].any() else 0.0
            # Of finite rows whose products aren't: whoever adds them up elsewhere may say anything.
            finite = finite & np.isfinite(np.diagonal(products))
        if not finite.all():
            products[~finite], products[:, ~finite] = 0.0, 0.0
        rounding = 2.0 ** (-22 if dtype == torch.float32 else -50)
        gram = Gram(products, finite, rounding, unit, shrinkage, floor=floor, about_zero=center is None)
        return shrunk(gram, self.weights) if unit == 1.0 and shrinkage is None else gram

    def _products(self, center: torch.Tensor | None, dtype: torch.dtype, scale: FloatArray | None) -> FloatArray:
        n, device = self.n_rows, self.device
        squares = torch.zeros(n, dtype=torch.float64, device=device) if self.gathers and self._norms is None else None
        # Not of huge pages: half of the matrix stays untouched, and takes no memory, until the buffers are given back.
        total = torch.empty((n, n), dtype=torch.float64, device=device)
        factors = None if scale is None else on_device(scale, device, torch.float64)[:, None]
        stripe = empty((min(n, limits.GRAM_STRIPE_ROWS) * n,), dtype, device)
        as_they_are = center is None and scale is None
        buffer: torch.Tensor | None = None
        for part, chunk in self.column_chunks():
            if squares is not None:
                squares += self._squared_norms(chunk.to(self.work_dtype))
            # A chunk that was gathered is a copy already.
            if chunk.dtype == dtype and (as_they_are or self.gathers):
                z = chunk
            else:
                buffer = empty(tuple(chunk.shape), dtype, device) if buffer is None else buffer
                z = buffer[:, : chunk.shape[1]]
            if not (as_they_are and z is chunk):
                _move(chunk, None if center is None else center[part], factors, out=z)
            for start in range(0, n, limits.GRAM_STRIPE_ROWS):
                stop = min(start + limits.GRAM_STRIPE_ROWS, n)
                product = stripe[: (stop - start) * stop].view(stop - start, stop)
                torch.mm(z[start:stop], z[:stop].T, out=product)
                if part.start == 0:
                    total[start:stop, :stop] = product
                else:
                    _add_to(total[start:stop, :stop], product)
        if squares is not None:
            self._norms = self._checked(self.layout.add_up(squares), None)
        del stripe, product, buffer, chunk, z
        if n > limits.GRAM_STRIPE_ROWS:
            self._buffer = None
        result: FloatArray = self.layout.add_up(total).cpu().numpy()
        # NumPy copies what it takes from the same array.
        for start in range(0, n, limits.GRAM_ADDED_ROWS):
            result[:start, start : start + limits.GRAM_ADDED_ROWS] = result[
                start : start + limits.GRAM_ADDED_ROWS, :start
            ].T
        return result

    def central_index(self) -> int | None:
        """Find a row that lies among the majority, by a sample of the columns; None if zero does.

        The center decides the accuracy, never the result: about a far center, differences of rows cancel.
        """
        line = central_line(self._sample())
        return None if line is None else -(-self.n_rows // limits.CENTER_SAMPLE_ROWS) * line

    def _sample(self) -> FloatArray:
        """Sample the matrix: every few rows, and runs of adjacent columns."""
        n_runs = max(1, limits.CENTER_SAMPLE_RUNS // self.layout.n_parts)
        step = max(limits.CENTER_SAMPLE_RUN, -(-self.n_held // n_runs))
        starts = torch.arange(0, self.n_held, step, device=self.device)
        columns = (starts[:, None] + torch.arange(limits.CENTER_SAMPLE_RUN, device=self.device)).flatten()
        # Of the last run there may be a part only.
        n_sampled = len(columns) - max(0, (len(starts) - 1) * step + limits.CENTER_SAMPLE_RUN - self.n_held)
        every = -(-self.n_rows // limits.CENTER_SAMPLE_ROWS)
        some = self if every == 1 else self.subset(np.arange(0, self.n_rows, every))
        sample = some.columns(columns[:n_sampled]).to(self.work_dtype)
        return _to_numpy(self.layout.pool(sample, n_runs * limits.CENTER_SAMPLE_RUN).double())

    def _sketch(self) -> FloatArray:
        """Sums of all columns with signs at random (n, k), by which rows differ wherever they do.

        A row that isn't finite has sums that aren't.
        """
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros((self.n_rows, limits.SKETCHED), dtype=torch.float64, device=self.device)
        for _, chunk in self.column_chunks():
            shape = (chunk.shape[1], limits.SKETCHED)
            signs = torch.randint(0, 2, shape, generator=generator, dtype=torch.float64, device="cpu")
            total += chunk.double() @ on_device(2.0 * signs - 1.0, self.device, torch.float64)
        return _to_numpy(self.layout.add_up(total))


def _move(chunk: torch.Tensor, center: torch.Tensor | None, factors: torch.Tensor | None, out: torch.Tensor) -> None:
    """Write ``factors * (chunk - center)`` to ``out``."""
    if factors is not None:
        moved = chunk.double() * factors
        if center is not None:
            # The difference of huge numbers may overflow, and so may multiples of others.
            moved = torch.where(factors < 1.0, moved - center * factors, (chunk - center) * factors)
        out.copy_(moved)
    elif center is None:
        out.copy_(chunk)
    else:
        torch.sub(chunk, center.to(torch.promote_types(center.dtype, out.dtype)), out=out)


def _add_to(total: torch.Tensor, product: torch.Tensor) -> None:
    """Add a product to a total of another dtype, for which torch makes copies, a few rows at a time."""
    for start in range(0, len(total), limits.GRAM_ADDED_ROWS):
        total[start : start + limits.GRAM_ADDED_ROWS] += product[start : start + limits.GRAM_ADDED_ROWS]


def _to_numpy(values: torch.Tensor) -> NDArray[np.float64]:
    return values.cpu().numpy().astype(np.float64, copy=False)
