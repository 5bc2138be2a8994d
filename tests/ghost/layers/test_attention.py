"""Multi-head attention, against one backward pass for each sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from single import check, ghost, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError, GhostRows, GradientRecorder


class Masked(nn.Module):
    """Attention between two sequences."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, dtype=dtype, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attention(x, x[:, :2].cos(), x[:, :2].cos())[0]
        return result


class Decoder(nn.Module):
    """Attention of a sequence to itself and then to another one."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(6, 2, 10, dropout=0.0, batch_first=True, dtype=dtype)
        self.layer.multihead_attn = nn.MultiheadAttention(6, 2, batch_first=True, dtype=dtype, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        result: torch.Tensor = self.layer(x, x[:, :2, : self.layer.multihead_attn.kdim].cos(), tgt_mask=mask)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(6, 2, 10, dropout=0.0, batch_first=True, dtype=dtype)
    check(encoder, made((5, 4, 6), dtype, 1), 2e-5 if dtype == torch.float32 else None)
    check(nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False), made((5, 4, 6), dtype, 1), 1e-4)
    check(Masked(dtype), made((5, 4, 6), dtype, 2))
    for options in ({}, {"kdim": 4, "vdim": 4, "add_bias_kv": True}):
        check(Decoder(dtype, **options), made((5, 4, 6), dtype, 1), 1e-4)


class Memory(nn.Module):
    """Attention to a sequence of another width, whose first entries may be masked; with its weights."""

    def __init__(self, kdim: int = 6, vdim: int = 6, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, kdim=kdim, vdim=vdim, dtype=torch.float64, **options)
        self.keys = nn.Linear(6, kdim, dtype=torch.float64)
        self.values = nn.Linear(6, vdim, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = [x, self.keys(x[:, :3].cos()), self.values(x[:, :3].sin())]
        if not self.attention.batch_first:
            given = [each.transpose(0, 1) for each in given]
        output, weights = self.attention(*given, key_padding_mask=x[:, :3, 0] > 1.0)
        if not self.attention.batch_first:
            output = output.transpose(0, 1)
        return torch.cat([output.flatten(1), weights.flatten(1)], dim=1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"kdim": 4},
        {"vdim": 5},
        {"kdim": 4, "vdim": 3, "bias": False},
        {"add_zero_attn": True},
        {"add_bias_kv": True},
        {"kdim": 4, "add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
def test_widths_and_biases_of_keys(options: dict[str, Any], batch_first: bool) -> None:
    check(Memory(**options, batch_first=batch_first), made((5, 4, 6), torch.float64, 1))


def test_frozen_parts_of_attention() -> None:
    module = Memory(kdim=4, add_bias_kv=True, batch_first=True)
    for name, parameter in module.attention.named_parameters():
        parameter.requires_grad_(name not in ("bias_k", "q_proj_weight"))
    check(module, made((5, 4, 6), torch.float64, 2))


def test_one_attention_within_a_sequence_and_between_two() -> None:
    class Both(Masked):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(self.attention(x, x, x)[0].tanh())

    check(Both(torch.float64, add_bias_kv=True), made((5, 4, 6), torch.float64, 2))


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"kdim": 4, "add_bias_kv": True}], ids=str)
def test_dropout_and_a_mask_with_a_line_for_each_position(options: dict[str, Any]) -> None:
    """As many positions as samples, so that lines of the mask might be taken for those of samples."""
    attention = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True, dtype=torch.float64, **options)
    x, parameters = made((5, 5, 6), torch.float64, 2), list(attention.parameters())
    with GradientRecorder(attention) as recorder:
        output, _ = attention(x, x[..., : attention.kdim], x, attn_mask=torch.ones(5, 5).triu(1).bool())
        losses = loss(output)
    factors = recorder.factors(losses, retain_graph=True)
    rows = GhostRows(factors, 5, sum(parameter.numel() for parameter in parameters))
    for row, each in enumerate(losses):
        exact = torch.autograd.grad(each, parameters, retain_graph=True)
        torch.testing.assert_close(rows.row(row), torch.cat([part.flatten() for part in exact]))


def test_an_attention_of_ones_own_that_multiplies_by_its_parameters_once_more_is_refused() -> None:
    """Outside of torch's function samples are along another axis."""

    class Own(nn.MultiheadAttention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            result: torch.Tensor = self.out_proj(super().forward(x, x, x)[0]).repeat(1, 2, 1)
            return result

    attention = Own(6, 2, add_bias_kv=True, batch_first=True, dtype=torch.float64)
    with pytest.raises(GhostError, match=r"found 'out_proj\.\w+', which something else uses"):
        ghost(attention, made((5, 4, 6), torch.float64, 2), loss)


def test_computed_matrices() -> None:
    for change in (
        lambda attention: prune.random_unstructured(attention, "in_proj_weight", 0.4),
        lambda attention: parametrizations.weight_norm(attention.out_proj),
    ):
        module = Masked(torch.float64)
        change(module.attention)
        check(module, made((5, 4, 6), torch.float64, 3))
