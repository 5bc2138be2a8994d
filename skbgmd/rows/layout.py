"""Layouts of columns: all in one process, or a seam for columns that are spread over several."""

from __future__ import annotations

import torch

from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock, sums_of_runs


class ColumnLayout:
    """Columns of rows that are all in this process; a base for columns that are spread over several processes.

    Kernels work on the columns that are here, and pass what sums over columns through :meth:`add_up`. Vectors (d,) that
    go into rows or come out of them hold the columns that are here; scores are of all columns.
    """

    #: Processes that hold a part of the columns.
    n_parts: int = 1

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all parts of what was summed over the columns of each."""
        return values

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Largest over all parts, element by element; NaN counts as inf."""
        return values

    def is_anywhere(self, found: bool, device: torch.device) -> bool:
        """Tell whether something was found in any part."""
        return found

    def gather(self, scores: torch.Tensor) -> torch.Tensor:
        """Join the scores that each part has for its columns."""
        return scores

    def pool(self, sample: torch.Tensor, width: int) -> torch.Tensor:
        """Join samples (n, k) of each part, padded with columns of zeros to ``width``."""
        return sample

    def sums_of_runs(self, scores: torch.Tensor, length: int) -> torch.Tensor:
        """Sum scores of the columns that are here over runs of ``length`` of all columns."""
        return sums_of_runs(scores, length)

    def sums_of_units(self, scores: torch.Tensor, units: ParameterBlock) -> torch.Tensor:
        """Sum scores of the columns that are here over each of the units that all columns are cut into."""
        return units.sums(scores)

    def held(self, block: CoordinateBlock | ParameterBlock) -> CoordinateBlock | ParameterBlock:
        """Restrict a block to the columns that are here, which are counted from the first of them."""
        return block


#: All columns in this process.
IN_ONE_PROCESS = ColumnLayout()
