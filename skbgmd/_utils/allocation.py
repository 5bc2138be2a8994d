"""Allocation of memory for results."""

from __future__ import annotations

import math

import numpy as np
import torch

from skbgmd._utils import limits


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Allocate a tensor without initializing it.

    On a CPU NumPy does, which asks for huge pages: they make the first write to a large tensor several times as fast.
    """
    if (
        device.type == "cpu"
        and math.prod(shape) >= limits.HUGE_PAGE_ELEMENTS
        and dtype in (torch.float32, torch.float64)
    ):
        return torch.from_numpy(np.empty(shape, dtype=np.float32 if dtype == torch.float32 else np.float64))
    return torch.empty(shape, dtype=dtype, device=device)
