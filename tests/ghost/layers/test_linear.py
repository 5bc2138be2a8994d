"""Linear layers, against one backward pass for each sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from single import DTYPES, check, ghost, loss, made, reference
from single import forked_initialisation as forked_initialisation


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(3, 6),
    positions=st.lists(st.integers(1, 4), max_size=2),
    p=st.integers(1, 7),
    q=st.integers(1, 7),
    bias=st.booleans(),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_linear(n: int, positions: list[int], p: int, q: int, bias: bool, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    check(nn.Linear(p, q, bias=bias, dtype=dtype), made((n, *positions, p), dtype, seed))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_inputs_or_outputs() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing_in, self.nothing_out, self.last = nn.Linear(0, 4), nn.Linear(3, 0), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.nothing_in(self.nothing_out(x)).tanh() + x[:, :1])
            return result

    torch.manual_seed(0)
    module, x = Empty(), made((5, 3), torch.float32, 0)
    rows, exact = ghost(module, x, loss), reference(module, x, loss).double()
    np.testing.assert_allclose(rows.gram().products, exact @ exact.T, atol=1e-5)
    np.testing.assert_allclose(rows.weighted_sum(np.full(5, 0.2)), exact.mean(dim=0), atol=1e-6)
