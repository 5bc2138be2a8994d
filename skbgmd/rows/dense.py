"""Rows of a matrix, on any device: read in chunks of columns, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd._utils.checks import FLOATS, check_row_weights, check_tensor, refuse_masks
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.chunked import ChunkedRows


class DenseRows(ChunkedRows):
    """Rows of a matrix, on any device, read in chunks of columns and never copied.

    Parameters
    ----------
    matrix : tensor of shape (n, d)
        The rows, in float16, bfloat16, float32 or float64. The half-precision types are computed in float32.
    weights : ndarray of shape (n,), default=None
        Non-negative weights of the rows. Only their ratios count: huge and tiny ones are divided by a power of two.
        None: all weights are one.
    index : tensor of shape (k,), default=None
        Use only these columns; they are gathered a chunk at a time. None: all columns.
    picked : ndarray of shape (m,), default=None
        Use only these rows. None: all rows.
    run_length : int, default=1
        Length of the runs of adjacent columns that ``index`` holds; the last run may be shorter.
    norms : ndarray of shape (n,), default=None
        Norms of the rows, if known.
    units : ParameterBlock, default=None
        Columns that belong together.
    ids : tuple of n numbers or strings, default=None
        Ids of the workers that the rows belong to, for rules that remember workers. An array or a tensor of ids counts
        by its values. None: the places of the rows.

    Raises
    ------
    TypeError
        If the matrix isn't a dense tensor of one of these dtypes, or if the weights aren't an array of numbers.
    ValueError
        If the matrix has masked entries, no data, or another number of dimensions than two. Also if the weights have
        another shape, are negative, or hold NaN or inf.

    Examples
    --------
    >>> import torch
    >>> rows = DenseRows(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    >>> rows.norms()
    array([5., 1.])
    >>> rows.weighted_sum(np.array([0.5, 0.5]))
    tensor([1.5000, 2.5000])
    """

    def __init__(
        self,
        matrix: torch.Tensor,
        weights: FloatArray | None = None,
        index: torch.Tensor | None = None,
        picked: NDArray[np.intp] | None = None,
        *,
        run_length: int = 1,
        norms: FloatArray | None = None,
        units: ParameterBlock | None = None,
        ids: tuple[Any, ...] | None = None,
    ) -> None:
        if not isinstance(matrix, torch.Tensor):
            raise TypeError(f"matrix must be a tensor of rows; found {type(matrix).__name__}.")
        refuse_masks(matrix, "matrix")
        check_tensor(matrix, "matrix", FLOATS)
        if matrix.ndim != 2:
            raise ValueError(f"matrix must have two dimensions, a line a row; found shape {tuple(matrix.shape)}.")
        # An iterator would be used up by the first look.
        self.units, self.ids = units, tuple(ids) if isinstance(ids, Iterator) else ids
        self.matrix, self.index, self.picked = matrix.detach(), index, picked
        n, d = matrix.shape
        self.n_rows = n if picked is None else len(picked)
        self.n_columns = d if index is None else len(index)
        self.weights = np.ones(self.n_rows) if weights is None else check_row_weights(weights, self.n_rows)
        self.dtype, self.device = matrix.dtype, matrix.device
        self.gathers = index is not None
        self.run_length = run_length
        self._norms = norms
        self._run_norms: tuple[int, torch.Tensor] | None = None
        self._pick = None if picked is None else on_device(picked, matrix.device)

    @property
    def n_held(self) -> int:
        return self.matrix.shape[1] if self.index is None else len(self.index)

    def chunk(self, part: slice) -> torch.Tensor:
        if self.index is None:
            chunk = self.matrix[:, part]
            return chunk if self._pick is None else chunk.index_select(0, self._pick)
        index = self.index[part]
        # Memory that was written before costs less to write again.
        if self._buffer is None or self._buffer.numel() < len(self.matrix) * len(index):
            self._buffer = empty((len(self.matrix) * len(index),), self.dtype, self.device)
        length = self.run_length
        whole = part.start % length == 0 and len(index) % length == 0
        if length >= limits.GATHERED_RUN and whole and self.matrix.stride(1) == 1:
            return _gather_runs(self.matrix, self._pick, index[::length], length, self._buffer)
        chunk = _gather(self.matrix, index, self._buffer)
        return chunk if self._pick is None else chunk.index_select(0, self._pick)

    @property
    def _columns_behind(self) -> int:
        return self.matrix.shape[1]

    @property
    def is_plain(self) -> bool:
        """The matrix is used as it is: there is nothing to convert or to gather."""
        return self.matrix.dtype == self.work_dtype and self.index is None and self._pick is None

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None and run_length >= limits.MEASURED_RUN and self.is_plain and self.matrix.stride(1) == 1:
            self._norms = self._measure_runs(run_length)
        return super().norms()

    def _measure_runs(self, length: int) -> FloatArray:
        """Norms of the rows from those of their runs, which are kept for scores."""
        whole = self.n_held // length
        norms = empty((self.n_rows, -(-self.n_held // length)), self.dtype, self.device)
        runs, rest = self.matrix[:, : whole * length], self.matrix[:, whole * length :]
        torch.linalg.vector_norm(runs.view(self.n_rows, -1, length), dim=2, out=norms[:, :whole])
        if rest.shape[1]:
            torch.linalg.vector_norm(rest, dim=1, out=norms[:, whole])
        self._run_norms = length, norms
        # In float64, for which torch makes a copy: of a few rows at a time.
        squares = [
            torch.linalg.vector_norm(some, dim=1, dtype=torch.float64)
            for some in torch.split(norms, limits.CONVERTED_ROWS)
        ]
        return self._checked(torch.cat(squares).square_(), None)

    def run_scores(self, length: int, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        known, norms = self._run_norms or (0, None)
        self._run_norms = None  # asked for once: the memory is wanted for the block
        used = np.flatnonzero(scale)
        if norms is None or known != length or shift is not None or not len(used):
            return super().run_scores(length, scale, shift)
        if not self._may_square_first(self.norms()[used], scale[used]):
            return super().run_scores(length, scale, shift)
        factors = on_device((self.weights * scale * scale)[used], self.device, norms.dtype)
        some = norms if len(used) == self.n_rows else norms[on_device(used, self.device)]
        scores: torch.Tensor = factors @ some.square()
        return scores

    def distances(self, center: torch.Tensor | None) -> FloatArray:
        if center is not None or not self.is_plain:
            return super().distances(center)
        # One call on the whole matrix: nothing is kept but a number for each row and some thousand columns.
        whole = self.n_held // limits.NORM_COLUMNS * limits.NORM_COLUMNS
        parts = self.matrix[:, :whole].view(self.n_rows, -1, limits.NORM_COLUMNS) if whole else self.matrix[:, :0, None]
        squares = torch.linalg.vector_norm(parts, dim=2).double().square_().sum(dim=1)
        if whole < self.n_held:
            squares += self._squared_norms(self.matrix[:, whole:])
        return self._checked(self.layout.add_up(squares), None)

    def _sample(self) -> FloatArray:
        if not self.is_plain or self.n_held < limits.CENTER_SAMPLE_RUNS * limits.CENTER_SAMPLE_RUN:
            return super()._sample()
        # The same columns but for a run cut short at the end, without an index of them.
        every, step = -(-self.n_rows // limits.CENTER_SAMPLE_ROWS), -(-self.n_held // limits.CENTER_SAMPLE_RUNS)
        sample = self.matrix[::every].unfold(1, limits.CENTER_SAMPLE_RUN, step).double().flatten(1)
        return np.asarray(sample.cpu().numpy())

    def _products(self, center: torch.Tensor | None, dtype: torch.dtype, scale: FloatArray | None) -> FloatArray:
        as_they_are = center is None and scale is None and self.is_plain and dtype == self.dtype
        if not as_they_are or self.n_rows > limits.GRAM_STRIPE_ROWS or self.matrix.stride(1) != 1:
            return super()._products(center, dtype, scale)
        # All pieces in one call: with few rows it is calls that take time. Even pieces leave next to nothing over.
        n_pieces = max(1, round(self.n_held / limits.PRODUCT_COLUMNS))
        width = self.n_held // n_pieces
        width -= width % limits.ALIGNED_COLUMNS if width > limits.ALIGNED_COLUMNS else 0
        whole = n_pieces * width
        total = _sum_of_products(self.matrix[:, :whole].view(self.n_rows, n_pieces, width).transpose(0, 1))
        if whole < self.n_held:
            rest = self.matrix[:, whole:]
            total += rest @ rest.T
        products: FloatArray = self.layout.add_up(total).cpu().numpy()
        return products

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        rows = slice(None) if self._pick is None else self._pick[:, None]
        return self.matrix[rows, index if self.index is None else self.index[index]]

    def row(self, index: int) -> torch.Tensor:
        values = self.matrix[index if self.picked is None else int(self.picked[index])]
        return values if self.index is None else values.index_select(0, self.index)

    def whole(self) -> torch.Tensor:
        """All rows and columns: the matrix itself, or a copy where only some of it is used."""
        if self.index is None and self._pick is None:
            return self.matrix
        return self.chunk(slice(0, self.n_held)).clone()

    def block(self, columns: CoordinateBlock | ParameterBlock) -> DenseRows:
        index = columns.indices if self.index is None else self.index[columns.indices]
        length = columns.length if self.index is None and isinstance(columns, CoordinateBlock) else 1
        return DenseRows(self.matrix, self.weights, index, self.picked, run_length=length, ids=self.ids)

    def hold(self, matrix: torch.Tensor) -> DenseRows:
        """Rows of another matrix (n, n_held), with the same weights, ids, units and layout."""
        return DenseRows(matrix, self.weights, units=self.units, ids=self.ids)

    def subset(self, index: NDArray[np.intp]) -> DenseRows:
        picked = index if self.picked is None else self.picked[index]
        rows = DenseRows(
            self.matrix, self.weights[index], self.index, picked, run_length=self.run_length, units=self.units
        )
        rows.ids = self._ids_of(index)
        rows._gram = None if self._gram is None else self._gram.subset(index)
        rows._norms = None if self._norms is None else self._norms[index]
        return rows

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        dtype = dtype or self.work_dtype
        if not (self.is_plain and dtype == self.dtype and np.all(weights)):
            return super().weighted_sum(weights, dtype)
        # One call on the whole matrix, with no row to leave out.
        return on_device(weights, self.device, dtype) @ self.matrix

    def _sums_of_squares(self, weights: FloatArray) -> torch.Tensor:
        few = self.n_rows < limits.ROWS_PER_THREAD * torch.get_num_threads()
        if few or self.device.type != "cpu" or not (self.is_plain and self.matrix.is_contiguous()):
            return super()._sums_of_squares(weights)
        # The gradient of a layer norm's weight is sum_i g_ij (x_ij - mean_i) / std_i. With g = x and no mean it is
        # what is asked for, squared and added up in one pass; what the weight itself is makes no difference.
        factors = on_device(weights, self.device, self.dtype)[:, None]
        gradients = torch.ops.aten.native_layer_norm_backward(
            self.matrix,
            self.matrix,
            [self.n_held],
            torch.zeros_like(factors),
            factors,
            self.matrix[0],
            None,
            [False, True, False],
        )
        of_weight: torch.Tensor = gradients[1]
        return of_weight


def _gather(matrix: torch.Tensor, index: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """Gather columns of a matrix, (n, k), in memory of at least that many elements."""
    # With its memory at hand, gather is several times faster than index_select on a CPU.
    chosen = memory[: len(matrix) * len(index)].view(len(matrix), len(index))
    return torch.gather(matrix, 1, index.expand(len(matrix), -1), out=chosen)


def _gather_runs(
    matrix: torch.Tensor, picked: torch.Tensor | None, starts: torch.Tensor, length: int, memory: torch.Tensor
) -> torch.Tensor:
    """Gather runs of adjacent columns of a matrix, or of some of its rows, (n, k), in memory of that many elements.

    The runs are rows of one strided view, in which a row begins at every number of the matrix.
    """
    rows = torch.arange(len(matrix), device=matrix.device) if picked is None else picked
    lines = (rows[:, None] * matrix.stride(0) + starts).flatten()
    every = matrix.shape[1] - length + (len(matrix) - 1) * matrix.stride(0) + 1
    table = matrix.as_strided((every, length), (1, 1))
    chosen = memory[: len(lines) * length].view(len(lines), length)
    return torch.index_select(table, 0, lines, out=chosen).view(len(rows), -1)


def _sum_of_products(pieces: torch.Tensor) -> torch.Tensor:
    """``sum_k P_k P_k^T`` of pieces (m, n, c), added up in float64, (n, n)."""
    n = pieces.shape[1]
    if n < limits.HALVED_PRODUCT_ROWS:
        return torch.bmm(pieces, pieces.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    # It is symmetric: a quarter of it, the lower rows by the upper, needs no products of its own.
    upper, lower = pieces[:, : n // 2], pieces[:, n // 2 :]
    total = pieces.new_empty((n, n), dtype=torch.float64)
    torch.sum(torch.bmm(upper, pieces.transpose(1, 2)), dim=0, dtype=torch.float64, out=total[: n // 2])
    total[n // 2 :, : n // 2] = total[: n // 2, n // 2 :].T
    total[n // 2 :, n // 2 :] = torch.bmm(lower, lower.transpose(1, 2)).sum(dim=0, dtype=torch.float64)
    return total
