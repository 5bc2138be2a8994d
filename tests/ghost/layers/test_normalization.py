"""Normalization layers, against one backward pass for each sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from single import DTYPES, check, made
from single import forked_initialisation as forked_initialisation


@settings(deadline=None, max_examples=30)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), dtype=DTYPES, seed=st.integers(0, 99))
def test_normalisations(shape: list[int], dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x = made((4, 3, 4, *shape), dtype, seed)
    norm = nn.LayerNorm(tuple(shape), dtype=dtype)
    group = nn.GroupNorm(1, 3, dtype=dtype)
    for layer in (norm, group):
        nn.init.normal_(layer.weight)
        check(layer, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_instance_norm(dtype: torch.dtype) -> None:
    x = made((5, 3, 6), dtype, 0)
    check(nn.InstanceNorm1d(3, affine=True, dtype=dtype), x)
    check(nn.InstanceNorm2d(3, affine=True, dtype=dtype), x[:, :, :, None].expand(-1, -1, -1, 4).contiguous().cumsum(3))
