"""The memory of a block step: what it didn't take of the rows, kept for the next (error feedback)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils.arrays import as_matrix, as_real_array
from skbgmd._utils.checks import check_tensor, refuse_masks_and_dates
from skbgmd.location.ranges import vector_norm
from skbgmd.rows import DenseRows
from skbgmd.rows.layout import IN_ONE_PROCESS, ColumnLayout

MEMORY_RULES = ("weighted", "mean")


def as_memory(memory: Any, complement: str, rows: DenseRows) -> torch.Tensor | None:
    """Convert a caller's memory to a vector (d,) in the rows' working precision; None for None.

    Raises
    ------
    TypeError, ValueError
        For other than real numbers, a wrong shape, numbers that aren't finite or have none in that precision, and a
        memory that no ``complement`` asks for.
    """
    if memory is None:
        return None
    if complement != "memory":
        raise ValueError(f'memory is only used with complement="memory"; found complement={complement!r}.')
    refuse_masks_and_dates(memory, "memory")
    if isinstance(memory, torch.Tensor):
        check_tensor(memory, "memory")
    if np.ndim(memory) != 1 or len(memory) != rows.n_columns:
        raise ValueError(f"memory must have shape ({rows.n_columns},); found shape {tuple(np.shape(memory))}.")
    line = memory if isinstance(memory, torch.Tensor) else as_real_array(memory, "memory")
    given = as_matrix(line[None], "memory")[0][0]
    kept = given.to(dtype=rows.work_dtype, device=rows.matrix.device)
    if not bool(torch.isfinite(kept).all()):
        found = float(given[~torch.isfinite(kept).to(given.device)][0])
        raise ValueError(f"memory must be finite and have a number in {rows.work_dtype}; found {found}.")
    return kept


def check_range(values: torch.Tensor, layout: ColumnLayout = IN_ONE_PROCESS) -> None:
    """Raise an error where the sum with a memory overflows, wherever its columns are."""
    # A finite sum has finite terms.
    is_beyond = not math.isfinite(float(values.sum())) and not bool(torch.isfinite(values).all())
    if layout.is_anywhere(is_beyond, values.device):
        raise ValueError(
            f"memory must have a number in {values.dtype} after it is added to the rows; found one beyond "
            f"{torch.finfo(values.dtype).max:.2g}. Divide both by a constant, or begin with no memory."
        )


def limit_memory(memory: torch.Tensor, limit: float, layout: ColumnLayout) -> torch.Tensor:
    """Scale a memory, wherever its columns are, to at most a norm; a limit of zero is none, as nothing is added."""
    here = torch.full((), vector_norm(memory), dtype=torch.float64, device=memory.device)
    largest = float(layout.maximum(here))
    if limit in (0.0, math.inf) or largest == 0.0:
        return memory
    norm = largest * float(layout.add_up((here / largest) ** 2)) ** 0.5
    return memory * (limit / norm) if norm > limit else memory
