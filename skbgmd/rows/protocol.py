"""Protocol of rows: Gram matrix, weighted sums, norms and scores of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.gram import Gram
from skbgmd.rows.layout import ColumnLayout


@runtime_checkable
class Rows(Protocol):
    """Protocol of n vectors of d numbers, in memory or elsewhere, which aggregation rules read."""

    #: Weight of each row, float64 (n,), on the CPU.
    weights: FloatArray
    #: Ids of the workers that the rows are of, where rows have an identity that isn't their place; None: their places.
    ids: tuple[Any, ...] | None

    @property
    def n_rows(self) -> int: ...
    @property
    def n_columns(self) -> int: ...
    @property
    def n_held(self) -> int:
        """Columns in this process, and length of vectors of columns: all columns, unless others have some of them."""
        ...

    @property
    def layout(self) -> ColumnLayout:
        """Layout of the columns over processes."""
        ...

    @property
    def device(self) -> torch.device: ...
    @property
    def units(self) -> ParameterBlock | None:
        """Columns that belong together, where that is known."""
        ...

    @property
    def gram_is_expensive(self) -> bool:
        """The Gram matrix takes many times as long as norms and weighted sums."""
        ...

    @property
    def finite(self) -> BoolArray:
        """Rows that hold neither NaN nor inf."""
        ...

    def gram(self, about: FloatArray | None = None, *, tol: float = 0.0) -> Gram:
        """Inner products about ``about @ rows``, as accurately as possible; by default about a likely center.

        As a hint, relative errors of distances up to ``tol`` don't matter if that saves a pass.
        """
        ...

    def norms(self, run_length: int = 1) -> FloatArray:
        """Euclidean norms of the rows; NaN for rows that are not finite.

        As a hint, scores of runs of ``run_length`` adjacent columns will be asked for.
        """
        ...

    def weighted_sum(self, weights: FloatArray) -> torch.Tensor:
        """``weights @ rows`` for weights (n,) or (m, n); rows of weight zero are left out, whatever they hold."""
        ...

    def inner_products(self, vector: torch.Tensor) -> FloatArray:
        """Inner products of the rows with a vector (d,), float64 (n,)."""
        ...

    def weighted_sum_by_block(
        self, on_block: FloatArray, elsewhere: FloatArray, block: CoordinateBlock | ParameterBlock
    ) -> torch.Tensor:
        """``on_block @ rows`` on a block's columns and ``elsewhere @ rows`` on the others, (d,)."""
        ...

    def column_scores(self, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """``sum_i a_i (scale_i x_ij + s_j)^2`` for every column, ``a`` the weights; rows of scale zero are left out."""
        ...

    def run_scores(self, length: int, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of the columns, summed over runs of ``length``, of which the last may be shorter."""
        ...

    def unit_scores(self, units: ParameterBlock, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of the columns, summed over each of the units that all columns are cut into."""
        ...

    def row(self, index: int) -> torch.Tensor:
        """One row, (d,), whatever it holds."""
        ...

    def columns(self, index: torch.Tensor) -> torch.Tensor:
        """Select columns of all rows, (n, k)."""
        ...

    def column_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Iterate over all columns, a chunk at a time."""
        ...

    def block(self, columns: CoordinateBlock | ParameterBlock) -> Rows:
        """Restrict the rows to the columns of a block."""
        ...

    def subset(self, index: NDArray[np.intp]) -> Rows:
        """Select rows."""
        ...


class FactoredRows(Rows, Protocol):
    """Rows that can multiply by their Gram matrix for less than it takes to form it."""

    def gram_product(self) -> Callable[[FloatArray], FloatArray] | None:
        """Product of vectors (n,) and the Gram matrix about the origin, for a few of them.

        None where the matrix costs less, or has squares out of range.
        """
        ...
