"""Activations with parameters, against one backward pass for each sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from single import check, made
from single import forked_initialisation as forked_initialisation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prelu(dtype: torch.dtype) -> None:
    x = made((5, 3, 6), dtype, 0)
    check(nn.PReLU(dtype=dtype), x)
    check(nn.PReLU(3, dtype=dtype), x)
    check(nn.PReLU(3, dtype=dtype), x[:, :, 0])
