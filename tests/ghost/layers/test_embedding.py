"""Embeddings, against one backward pass for each sample."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from single import DTYPES, check
from single import forked_initialisation as forked_initialisation


@settings(deadline=None, max_examples=30)
@given(
    shape=st.lists(st.integers(1, 5), max_size=2),
    padding=st.booleans(),
    words=st.integers(2, 9),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_embedding(shape: list[int], padding: bool, words: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(words, 3, padding_idx=0 if padding else None, dtype=dtype)
    check(layer, torch.randint(words, (4, *shape)))
