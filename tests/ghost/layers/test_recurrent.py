"""Rules for recurrent layers, against one backward pass for each sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from single import check, ghost, loss, made, reference
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError


class Whole(nn.Module):
    """A layer that is used for its sequence, its last states or both, and begins at states that are learnt or not."""

    def __init__(self, layer: Any, *, use: str = "both", learnt: bool = False) -> None:
        super().__init__()
        self.layer, self.use = layer, use
        size = layer.proj_size or layer.hidden_size
        self.begin = nn.Linear(1, size, bias=False).to(layer.weight_ih_l0.dtype) if learnt else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer, states = self.layer, None
        if self.begin is not None:
            lines = layer.num_layers * (2 if layer.bidirectional else 1)
            begin = self.begin(x[:, :1, :1]).transpose(0, 1).expand(lines, -1, -1)
            cells = begin.new_zeros((lines, len(x), layer.hidden_size))
            states = (begin.contiguous(), cells) if isinstance(layer, nn.LSTM) else begin.contiguous()
        out, last = layer(x if layer.batch_first else x.transpose(0, 1), states)
        out = out if layer.batch_first else out.transpose(0, 1)
        parts = last if isinstance(last, tuple) else (last,)
        last = torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
        return {"sequence": out.flatten(1), "last": last, "both": torch.cat([out.flatten(1), last], dim=1)}[self.use]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    use=st.sampled_from(["sequence", "last", "both"]),
    learnt=st.booleans(),
    steps=st.integers(1, 5),
    wide=st.booleans(),
    special=st.booleans(),
)
def test_recurrent_layers(
    kind: Any,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    bias: bool,
    use: str,
    learnt: bool,
    steps: int,
    wide: bool,
    special: bool,
) -> None:
    dtype = torch.float64 if wide else torch.float32
    options: dict[str, Any] = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias, "dtype": dtype}
    if special and kind is nn.LSTM:
        options["proj_size"] = 2
    if special and kind is nn.RNN:
        options["nonlinearity"] = "relu"
    layer = kind(3, 4, num_layers=layers, **options)
    check(Whole(layer, use=use, learnt=learnt), made((5, steps, 3), dtype, 0), None if wide else 3e-5)


class Loop(nn.Module):
    """A cell that runs over a sequence, from zeros or as it is told."""

    def __init__(self, cell: Any, *, begins: bool) -> None:
        super().__init__()
        self.cell, self.begins = cell, begins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state: Any = None
        if self.begins:
            zeros = x.new_zeros((len(x), self.cell.hidden_size))
            state = (zeros, zeros) if isinstance(self.cell, nn.LSTMCell) else zeros
        for now in x.unbind(1):
            state = self.cell(now, state)
        return torch.cat(state, dim=1) if isinstance(state, tuple) else state


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 3e-5), (torch.float64, None)])
def test_cells(kind: Any, begins: bool, dtype: torch.dtype, tol: float | None) -> None:
    check(Loop(kind(3, 4, dtype=dtype), begins=begins), made((5, 3, 3), dtype, 0), tol)


def test_autocast() -> None:
    layer, x = nn.GRU(3, 4, batch_first=True), made((5, 4, 3), torch.float32, 0)
    exact = reference(layer, x, loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = ghost(layer, x, lambda out: loss(out[0].float()))
        weights = np.full(5, 0.2)
    assert float((rows.weighted_sum(weights) - exact.mean(dim=0)).norm()) < 0.02 * float(exact.mean(dim=0).norm())


def test_a_frozen_part_of_a_recurrent_layer() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    layer.weight_hh_l0.requires_grad_(False)
    check(layer, made((5, 4, 3), torch.float32, 0), 3e-5)


def test_packed_sequences_and_single_ones_are_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 2, 1, 1, 1]), batch_first=True)
            result: torch.Tensor = self.layer(packed)[1][-1]
            return result

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x)[0]
            return result

    with pytest.raises(GhostError, match="first axis"):
        ghost(Packed(), made((5, 2, 3), torch.float32, 0), loss)
    with pytest.raises(GhostError, match="three dimensions"):
        ghost(Single(), made((5, 3), torch.float32, 0), loss)
