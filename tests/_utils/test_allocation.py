"""Memory of every dtype."""

from __future__ import annotations

import pytest
import torch

from skbgmd._utils.allocation import empty


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_empty(dtype):
    assert empty((2, 3), dtype, torch.device("cpu")).shape == (2, 3)
    assert empty((2, 3), dtype, torch.device("cpu")).dtype == dtype
