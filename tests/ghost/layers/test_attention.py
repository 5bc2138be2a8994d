"""Multi-head attention, against one backward pass for each sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from single import check, made
from single import forked_initialisation as forked_initialisation


class Masked(nn.Module):
    """Attention between two sequences."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, dtype=dtype, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attention(x, x[:, :2].cos(), x[:, :2].cos())[0]
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(6, 2, 10, dropout=0.0, batch_first=True, dtype=dtype)
    check(encoder, made((5, 4, 6), dtype, 1), 2e-5 if dtype == torch.float32 else None)
    check(nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False), made((5, 4, 6), dtype, 1), 1e-4)
    check(Masked(dtype), made((5, 4, 6), dtype, 2))
    check(Masked(dtype, kdim=6, vdim=6), made((5, 4, 6), dtype, 2))
