"""Weighted means of rows that stay finite where sums near the largest number overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray


def means(rows: Any, weights: FloatArray) -> torch.Tensor:
    """Weighted means of rows, finite if the rows are."""
    return in_range(rows, rows.weighted_sum(weights), weights)


def in_range(rows: Any, vector: torch.Tensor, weights: FloatArray) -> torch.Tensor:
    """Make means ``weights @ rows`` (d,) finite, where those of rows near the largest number rounded to inf.

    Weights may add up to less than one.
    """
    # A finite sum has finite terms; if all are NaN, the rows are not finite.
    if math.isfinite(float(vector.sum())) or bool(vector.isnan().all()):
        return vector
    used = np.flatnonzero(weights)
    some = rows if len(used) == len(weights) else rows.subset(used)
    odd = (~torch.isfinite(vector)).nonzero().flatten()
    quarter = torch.finfo(vector.dtype).max / 4.0
    factors = on_device(weights[used] / 4.0, vector.device, torch.float64)
    for start in range(0, len(odd), limits.MIN_CHUNK_COLUMNS):
        index = odd[start : start + limits.MIN_CHUNK_COLUMNS]
        columns = some.columns(index).double()
        mean = (4.0 * (factors @ columns).clamp(-quarter, quarter)).to(vector.dtype)
        vector[index] = torch.where(torch.isfinite(columns).all(dim=0), mean, vector[index])
    return vector
