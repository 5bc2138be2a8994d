"""Where the vectors are, and what may be asked of them.

An aggregator sees b vectors of d numbers, the *rows*, only through this module's protocol: their Gram matrix, a
weighted sum, scores of the columns, some columns. :class:`DenseRows` holds a matrix and streams over it in chunks of
columns; it never copies it. Other homes of rows (factors of gradients, other machines) give the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from skbgmd.arrays import empty

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Elements of a chunk of columns: 8 MB in float32. Smaller chunks spend more on calls, larger ones on memory.
CHUNK_ELEMENTS = 1 << 21
#: A chunk is never narrower than this: shorter lines starve the memory bus and the matrix product.
MIN_CHUNK_COLUMNS = 2048
#: Elements up to which a float32 matrix is multiplied in float64.
SMALL_ELEMENTS = 1 << 20
#: A block of columns is copied if it is at most this share of the matrix, else gathered a chunk at a time.
COPIED_SHARE = 0.125
#: Rows beyond which only the lower triangle of a Gram matrix is computed, in stripes of this many rows.
STRIPE_ROWS = 256
#: Columns and rows looked at to choose a centre.
SAMPLE_COLUMNS, SAMPLE_CANDIDATES, SAMPLE_ROWS = 256, 64, 256


@dataclass(frozen=True)
class Gram:
    """Inner products of the rows about some point, in float64 on the CPU.

    Only what doesn't depend on that point means anything: differences and distances.

    Attributes
    ----------
    products : ndarray of shape (n, n)
        ``<x_i - c, x_j - c>``; zero for rows that are not finite.
    finite : ndarray of shape (n,), bool
        Rows that hold neither NaN nor inf.
    rounding : float
        ``|error of products_ij| <= rounding * ||x_i - c|| ||x_j - c||``.
    unit : float
        Length that counts as one: other than 1 where the squares of the rows have no number.
    bending : float
        Largest change of the direction to a far row, where such rows were drawn nearer for the same reason.
    """

    products: FloatArray
    finite: BoolArray
    rounding: float = 2.0**-50
    unit: float = 1.0
    bending: float = 0.0

    def subset(self, index: NDArray[np.intp] | BoolArray) -> Gram:
        """The Gram matrix of some of the rows."""
        return replace(self, products=self.products[index][:, index], finite=self.finite[index])

    def mixed(self, mixing: FloatArray) -> Gram:
        """The Gram matrix of ``mixing @ rows``; the lines of ``mixing`` add up to one."""
        return replace(self, products=mixing @ self.products @ mixing.T, finite=np.ones(len(mixing), dtype=bool))

    def squared_distances(self) -> FloatArray:
        """Squared distances between all pairs of rows."""
        squares = np.diagonal(self.products)
        result: FloatArray = np.maximum(squares[:, None] + squares - 2.0 * self.products, 0.0)
        np.fill_diagonal(result, 0.0)
        return result


@dataclass(frozen=True)
class Columns:
    """A block of columns: runs of ``length`` adjacent ones that start at multiples of ``length``.

    Attributes
    ----------
    runs : tensor of shape (r,), int64
        Numbers of the runs, ascending; run ``q`` begins at column ``q * length``.
    length : int
        Columns of a run; the last run of all ends with the matrix.
    total : int
        Columns of the matrix.
    """

    runs: torch.Tensor
    length: int
    total: int

    @property
    def indices(self) -> torch.Tensor:
        """The columns, ascending."""
        if self.length == 1:
            return self.runs
        offsets = torch.arange(self.length, device=self.runs.device)
        columns = (self.runs[:, None] * self.length + offsets).flatten()
        return columns[: len(self)]

    def __len__(self) -> int:
        full = len(self.runs) * self.length
        return full - (-self.total % self.length) if self._ends_early else full

    @property
    def _ends_early(self) -> bool:
        """Whether the last run is the matrix's last, shorter one."""
        return self.length > 1 and (int(self.runs[-1]) + 1) * self.length > self.total

    def of(self, matrix: torch.Tensor) -> torch.Tensor:
        """These columns of a matrix (n, total), (n, k)."""
        # With its memory at hand, gather is several times faster than index_select on a CPU.
        chosen = empty((len(matrix), len(self)), matrix.dtype, matrix.device)
        return torch.gather(matrix, 1, self.indices.expand(len(matrix), -1), out=chosen)


@runtime_checkable
class Rows(Protocol):
    """b vectors of d numbers, wherever they are."""

    #: Weight of each row, float64 (n,), on the CPU.
    weights: FloatArray

    @property
    def n_rows(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def finite(self) -> BoolArray:
        """Rows that hold neither NaN nor inf."""
        ...

    def gram(self) -> Gram:
        """Inner products of the rows about a point of the implementation's choice."""
        ...

    def norms(self) -> FloatArray:
        """Euclidean norms of the rows; NaN for rows that are not finite."""
        ...

    def combine(self, weights: FloatArray) -> torch.Tensor:
        """``weights @ rows`` for weights (n,) or (m, n); rows of weight zero are left out, whatever they hold."""
        ...

    def column_scores(self, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """``sum_i a_i (scale_i x_ij + s_j)^2`` for every column, ``a`` the weights; rows of scale zero are left out."""
        ...

    def columns(self, index: slice | torch.Tensor) -> torch.Tensor:
        """Some columns of all rows, (n, k)."""
        ...

    def column_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All columns, a chunk at a time."""
        ...

    def block(self, columns: Columns) -> Rows:
        """The rows restricted to some columns."""
        ...

    def subset(self, index: NDArray[np.intp]) -> Rows:
        """Some of the rows."""
        ...


@dataclass
class DenseRows:
    """The rows of a matrix, on any device, streamed in chunks of columns and never copied.

    Parameters
    ----------
    matrix : tensor of shape (n, d)
        float16, bfloat16 (computed in float32), float32 or float64.
    weights : ndarray of shape (n,), optional
        Non-negative weights of the rows; all one where none are given.
    index : tensor of shape (k,), default=None
        Use these columns only; they are gathered a chunk at a time.
    picked : ndarray of shape (m,), default=None
        Use these rows only.
    """

    matrix: torch.Tensor
    weights: FloatArray = field(default_factory=lambda: np.empty(0))
    index: torch.Tensor | None = None
    picked: NDArray[np.intp] | None = None
    _gram: Gram | None = field(default=None, repr=False)
    _norms: FloatArray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.weights.size:
            self.weights = np.ones(self.n_rows)
        self._pick = None if self.picked is None else torch.as_tensor(self.picked, device=self.matrix.device)

    @property
    def n_rows(self) -> int:
        return self.matrix.shape[0] if self.picked is None else len(self.picked)

    @property
    def n_columns(self) -> int:
        return self.matrix.shape[1] if self.index is None else len(self.index)

    @property
    def work_dtype(self) -> torch.dtype:
        """float64 for float64, else float32."""
        return torch.float64 if self.matrix.dtype == torch.float64 else torch.float32

    @property
    def product_dtype(self) -> torch.dtype:
        """The dtype to multiply in: float32 for a large float32 matrix, else float64.

        In a small matrix float64 costs little; nor is float32 enough where the user has traded the digits of its
        products for speed.
        """
        small = self.n_rows * self.n_columns <= SMALL_ELEMENTS
        lossy = torch.get_float32_matmul_precision() != "highest"
        return torch.float64 if small or lossy else self.work_dtype

    @property
    def finite(self) -> BoolArray:
        return ~np.isnan(self.norms())

    def columns(self, index: slice | torch.Tensor) -> torch.Tensor:
        if self.index is not None:
            index = self.index[index]
        if isinstance(index, slice):
            return self.matrix[:, index] if self._pick is None else self.matrix[:, index].index_select(0, self._pick)
        rows = slice(None) if self._pick is None else self._pick[:, None]
        return self.matrix[rows, index]

    def column_chunks(self, width: int | None = None) -> Iterator[tuple[slice, torch.Tensor]]:
        width = width or max(MIN_CHUNK_COLUMNS, CHUNK_ELEMENTS // max(1, self.n_rows))
        for start in range(0, self.n_columns, width):
            part = slice(start, min(start + width, self.n_columns))
            chunk = self.matrix[:, part] if self.index is None else self.matrix.index_select(1, self.index[part])
            yield part, chunk if self._pick is None else chunk.index_select(0, self._pick)

    def block(self, columns: Columns) -> DenseRows:
        plain = self.index is None and self._pick is None
        if plain and len(columns) <= COPIED_SHARE * self.n_columns:
            return DenseRows(columns.of(self.matrix), self.weights)
        index = columns.indices if self.index is None else self.index[columns.indices]
        return DenseRows(self.matrix, self.weights, index, self.picked)

    def subset(self, index: NDArray[np.intp]) -> DenseRows:
        picked = index if self.picked is None else self.picked[index]
        return DenseRows(self.matrix, self.weights[index], self.index, picked)

    def norms(self) -> FloatArray:
        if self._norms is None:
            self._norms = self.distances(None)
        return self._norms

    def distances(self, center: torch.Tensor | None) -> FloatArray:
        """Distances of the rows to a point (d,), or their norms; NaN for rows that are not finite.

        Differences are taken and squared in the wider of the two dtypes, and added up in float64.
        """
        squares = torch.zeros(self.n_rows, dtype=torch.float64, device=self.matrix.device)
        for part, chunk in self.column_chunks():
            squares += torch.linalg.vector_norm(self._difference(chunk, center, part), dim=1).double().square_()
        norms = _to_numpy(squares.sqrt_())
        # Squares that overflow or underflow, or a row that isn't finite.
        odd = np.flatnonzero(~((norms > (1e-16 if self.work_dtype == torch.float32 else 1e-140)) & (norms < np.inf)))
        if odd.size:
            norms[odd] = self.subset(odd)._careful_distances(center)
        return norms

    def _careful_distances(self, center: torch.Tensor | None) -> FloatArray:
        largest = torch.zeros(self.n_rows, dtype=torch.float64, device=self.matrix.device)
        for part, chunk in self.column_chunks():
            largest = torch.maximum(largest, self._difference(chunk, center, part).abs().amax(dim=1).double())
        scale = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
        squares = torch.zeros_like(largest)
        for part, chunk in self.column_chunks():
            squares += (self._difference(chunk, center, part) / scale[:, None]).square_().sum(dim=1)
        norms = _to_numpy(squares.sqrt_() * scale)
        norms[~_to_numpy(torch.isfinite(largest)).astype(bool)] = np.nan
        return norms

    def _difference(self, chunk: torch.Tensor, center: torch.Tensor | None, part: slice) -> torch.Tensor:
        return chunk.to(self.work_dtype) if center is None else chunk - center[part]

    def combine(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        used = np.flatnonzero(np.atleast_2d(weights).any(axis=0))
        if len(used) < self.n_rows:
            # NaN times zero is NaN: rows without weight must not be touched.
            return self.subset(used).combine(weights[..., used], dtype)
        dtype = dtype or self.work_dtype
        factors = torch.as_tensor(weights, dtype=dtype, device=self.matrix.device)
        if self.matrix.dtype == dtype and self.index is None and self._pick is None:
            result = empty((*factors.shape[:-1], self.n_columns), dtype, self.matrix.device)
            return _product(factors, self.matrix, result)
        result = empty((*factors.shape[:-1], self.n_columns), dtype, self.matrix.device)
        for part, chunk in self.column_chunks():
            result[..., part] = factors @ chunk.to(dtype)
        return result

    def column_scores(self, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        used = np.flatnonzero(scale)
        if len(used) < self.n_rows:
            return self.subset(used).column_scores(scale[used], shift)
        dtype, device = self.work_dtype, self.matrix.device
        result = empty((self.n_columns,), dtype, device)
        # Squares in the order "square, then scale" cost a pass less, but those of a huge entry have no number.
        huge = 1e18 if dtype == torch.float32 else 1e150
        scaled_first = shift is not None or float(np.nanmax(self.norms())) > huge
        factors = torch.as_tensor(scale, dtype=dtype, device=device)[:, None]
        per_row = self.weights if scaled_first else self.weights * scale * scale
        weights = torch.as_tensor(per_row, dtype=dtype, device=device)
        buffer: torch.Tensor | None = None
        for part, chunk in self.column_chunks():
            buffer = empty(tuple(chunk.shape), dtype, device) if buffer is None else buffer
            squares = buffer[:, : chunk.shape[1]]
            if scaled_first:
                torch.mul(chunk, factors, out=squares)
                if shift is not None:
                    squares += shift[part]
                squares.square_()
            else:
                torch.mul(chunk, chunk, out=squares)
            torch.mv(squares.T, weights, out=result[part])
        return result

    def gram(self) -> Gram:
        if self._gram is None:
            self._gram = self.gram_about(self.central_row(), self.product_dtype)
        return self._gram

    def gram_about(self, center: torch.Tensor, dtype: torch.dtype) -> Gram:
        """Gram matrix of ``rows - center``, multiplied in ``dtype``.

        Chunks are multiplied in ``dtype`` and added up in float64. Rows beyond the range of the dtype's squares are
        drawn nearer along their direction first, and all rows brought to order one: it changes no direction by more
        than the rounding does.
        """
        rounding = 2.0 ** (-22 if dtype == torch.float32 else -50)
        products = self._products(center, dtype, None)
        squares = np.diagonal(products)
        finite = np.ones(self.n_rows, dtype=bool) if np.isfinite(squares).all() else self.finite
        unit, bending = 1.0, 0.0
        if _out_of_range(squares[finite], dtype):
            reach = 1e8 if dtype == torch.float32 else 1e12
            scale = _pull_in(self.distances(center.double()), reach)
            products = self._products(center, dtype, scale)
            unit, bending = 1.0 / scale.max(), 4.0 / reach
        if not finite.all():
            products[~finite], products[:, ~finite] = 0.0, 0.0
        return Gram(products, finite, rounding, unit, bending)

    def _products(self, center: torch.Tensor, dtype: torch.dtype, scale: FloatArray | None) -> FloatArray:
        n, device = self.n_rows, self.matrix.device
        total = empty((n, n), torch.float64, device)
        center = center.to(torch.promote_types(center.dtype, dtype))
        factors = None if scale is None else torch.as_tensor(scale, dtype=torch.float64, device=device)[:, None]
        stripe = empty((min(n, STRIPE_ROWS) * n,), dtype, device)
        buffer: torch.Tensor | None = None
        for part, chunk in self.column_chunks():
            buffer = empty(tuple(chunk.shape), dtype, device) if buffer is None else buffer
            z = buffer[:, : chunk.shape[1]]
            if factors is None:
                torch.sub(chunk, center[part], out=z)
            else:
                z.copy_((chunk.double() - center[part]) * factors)
            for start in range(0, n, STRIPE_ROWS):
                stop = min(start + STRIPE_ROWS, n)
                product = stripe[: (stop - start) * stop].view(stop - start, stop)
                torch.mm(z[start:stop], z[:stop].T, out=product)
                if part.start == 0:
                    total[start:stop, :stop] = product
                else:
                    total[start:stop, :stop] += product
        result: FloatArray = total.cpu().numpy()
        for start in range(STRIPE_ROWS, n, STRIPE_ROWS):
            result[:start, start : start + STRIPE_ROWS] = result[start : start + STRIPE_ROWS, :start].T
        return result

    def central_row(self) -> torch.Tensor:
        """A row that lies among the majority, as far as a sample of the columns tells.

        The centre decides the accuracy, never the result: about a far centre, differences of rows cancel.
        """
        row = self._central_index()
        values = self.matrix[row if self.picked is None else int(self.picked[row])]
        return values if self.index is None else values.index_select(0, self.index)

    def _central_index(self) -> int:
        columns = torch.arange(0, self.n_columns, -(-self.n_columns // SAMPLE_COLUMNS), device=self.matrix.device)
        rows = np.arange(0, self.n_rows, -(-self.n_rows // SAMPLE_ROWS))
        sample = _to_numpy(self.subset(rows).columns(columns).double())
        finite = np.flatnonzero(np.isfinite(sample).all(axis=1))
        if not len(finite):
            return 0
        candidates = finite[:: -(-len(finite) // SAMPLE_CANDIDATES)]
        # Scaled, so that no square overflows.
        sample = sample / max(np.abs(sample[finite]).max(), 1e-300)
        distances = cdist(sample[candidates], sample[finite])
        return int(rows[candidates[np.median(distances, axis=1).argmin()]])


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.mv(right.T, left, out=out) if left.ndim == 1 else torch.mm(left, right, out=out)


def _to_numpy(values: torch.Tensor) -> NDArray[np.float64]:
    return values.cpu().numpy().astype(np.float64, copy=False)


def _out_of_range(squares: FloatArray, dtype: torch.dtype) -> bool:
    """Whether squared norms overflowed, or most of them came so near underflow that their digits are gone."""
    smallest = 1e-30 if dtype == torch.float32 else 1e-280
    return not (np.isfinite(squares).all() and np.median(squares) > smallest)


def _pull_in(norms: FloatArray, reach: float) -> FloatArray:
    """Factors that bring rows to order one, and those beyond ``reach`` typical norms to ``reach``."""
    positive = norms[(norms > 0.0) & np.isfinite(norms)]
    if not positive.size:
        return np.ones_like(norms)
    typical = float(np.median(positive))
    return 1.0 / np.maximum(typical, np.nan_to_num(norms, nan=typical) / reach)
