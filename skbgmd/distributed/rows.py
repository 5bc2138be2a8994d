"""Rows whose columns are spread over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.typing import FloatArray
from skbgmd.distributed.exchange import Exchange
from skbgmd.rows import ChunkedRows, CoordinateBlock, DenseRows, ParameterBlock
from skbgmd.rows.blocks import sums_of_runs
from skbgmd.rows.layout import ColumnLayout


@dataclass(frozen=True)
class HeldBlock(CoordinateBlock):
    """A block of the columns of all ranks, by those of its columns that this rank holds.

    Attributes
    ----------
    n_chosen, n_columns : int
        Columns of the block, and columns in all, over all ranks.
    """

    n_chosen: int = 0
    n_columns: int = 0

    @property
    def off_block(self) -> HeldBlock:
        others = super().off_block
        return HeldBlock(others.runs, 1, self.total, self.n_columns - self.n_chosen, self.n_columns)

    def __len__(self) -> int:
        return self.n_chosen


class ShardedLayout(ColumnLayout):
    """Columns of which each rank holds some: adjacent ones, or adjacent ones of each of several parts.

    Parameters
    ----------
    exchange : Exchange
        The ranks.
    columns : int or sequence of int
        Columns of all ranks, or of each part.
    """

    def __init__(self, exchange: Exchange, columns: int | Sequence[int]) -> None:
        self.exchange, self.shards = exchange, exchange.shards(columns)
        self.n_columns, self.n_parts = self.shards.n_columns, exchange.size
        held = [part for part in self.shards.held(exchange.rank) if part.stop > part.start]
        ends = np.cumsum([part.stop - part.start for part in held]).tolist()
        #: Columns that this rank holds, part by part: those of all ranks, and the same counted from its first.
        self.held_parts = [
            (part, slice(end - part.stop + part.start, end)) for part, end in zip(held, ends, strict=True)
        ]

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        return self.exchange.add_up(values)

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        return self.exchange.maximum(values)

    def is_anywhere(self, found: bool, device: torch.device) -> bool:
        return bool(self.maximum(torch.tensor([float(found)], device=device)))

    def gather(self, scores: torch.Tensor) -> torch.Tensor:
        # Squares have a wider range than rows, which a narrow dtype for transport would cut off.
        return self.exchange.from_shards(scores, self.shards.sizes, narrows=False).wait()

    def pool(self, sample: torch.Tensor, width: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(sample, (0, width - sample.shape[1]))
        return self.exchange.gather(padded).transpose(0, 1).flatten(1)

    def sums_of_runs(self, scores: torch.Tensor, length: int) -> torch.Tensor:
        # A run may begin on one rank, or in one part, and end on the next.
        every = scores.new_zeros(-(-self.n_columns // length))
        for part, here in self.held_parts:
            sums = sums_of_runs(torch.nn.functional.pad(scores[here], (part.start % length, 0)), length)
            every[part.start // length : part.start // length + len(sums)] += sums
        return self.add_up(every)

    def sums_of_units(self, scores: torch.Tensor, units: ParameterBlock) -> torch.Tensor:
        every = scores.new_zeros(len(units.starts))
        for part, here in self.held_parts:
            first = int(units.starts.searchsorted(part.start, side="right")) - 1
            last = int(units.starts.searchsorted(part.stop))
            cuts = np.append(np.maximum(units.starts[first:last], part.start), part.stop)
            lengths = torch.from_numpy(np.diff(cuts)).to(scores.device)
            every[first:last] += torch.segment_reduce(scores[here], "sum", lengths=lengths)
        return self.add_up(every)

    def held(self, block: CoordinateBlock | ParameterBlock) -> HeldBlock:
        index = block.indices
        bounds = index.new_tensor([(part.start, part.stop) for part, _ in self.held_parts]).view(-1, 2)
        cuts = torch.searchsorted(index, bounds).tolist()
        pairs = zip(cuts, self.held_parts, strict=True)
        pieces = [index[first:last] - part.start + here.start for (first, last), (part, here) in pairs]
        n_held = sum(part.stop - part.start for part, _ in self.held_parts)
        return HeldBlock(torch.cat([index[:0], *pieces]), 1, n_held, len(block), self.n_columns)


class ShardedRows(DenseRows):
    """Rows of all ranks of a process group, of which each rank holds a shard of the columns.

    Use them to run any rule of :mod:`skbgmd.aggregators` across ranks. Rules run on them as on rows in one process, and
    return the same bits on all ranks, because sums over columns (products, squares, inner products, scores) are added
    up over the ranks. Vectors hold this rank's columns; :meth:`Exchange.from_shards` joins them. All ranks must call
    the same methods in the same order.

    Parameters
    ----------
    matrix : tensor of shape (n, k)
        This rank's columns of all rows, from :meth:`Exchange.to_shards`.
    columns : int or sequence of int
        Number of columns of all ranks, or, if every rank holds a piece of each of several parts, of each part.
    exchange : Exchange
        The ranks.
    weights : ndarray of shape (n,), default=None
        Non-negative weights of the rows, the same on all ranks. None: all one.
    units : ParameterBlock, default=None
        Columns that belong together, out of those of all ranks.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import GeometricMedian
    >>> exchange = Exchange()
    >>> mine = torch.tensor([[1.0, 2.0]])  # each rank has its own
    >>> rows = ShardedRows(exchange.to_shards(mine).wait(), 2, exchange)
    >>> aggregate, state = GeometricMedian()(rows)
    >>> exchange.from_shards(aggregate.vector, 2).wait()
    tensor([1., 2.])
    """

    def __init__(
        self,
        matrix: torch.Tensor,
        columns: int | Sequence[int],
        exchange: Exchange,
        weights: FloatArray | None = None,
        *,
        units: ParameterBlock | None = None,
    ) -> None:
        super().__init__(matrix, weights, units=units)
        self.layout = ShardedLayout(exchange, columns)
        self.n_columns = self.layout.n_columns

    def norms(self, run_length: int = 1) -> FloatArray:
        # Norms of runs aren't kept: a run may be of two ranks.
        return super().norms()

    def _sample(self) -> FloatArray:
        # A quick sample isn't pooled; whether one is taken depends on how many columns a rank holds.
        return ChunkedRows._sample(self)

    def block(self, columns: CoordinateBlock | ParameterBlock) -> DenseRows:
        return self._spread(super().block(columns), len(columns))

    def subset(self, index: NDArray[np.intp]) -> DenseRows:
        return self._spread(super().subset(index), self.n_columns)

    def hold(self, matrix: torch.Tensor) -> DenseRows:
        return self._spread(DenseRows(matrix, self.weights, units=self.units, ids=self.ids), self.n_columns)

    def _spread(self, rows: DenseRows, n_columns: int) -> DenseRows:
        spread = ShardedRows.__new__(ShardedRows)
        spread.__dict__.update(rows.__dict__)
        spread.n_columns, spread.layout = n_columns, self.layout
        return spread
