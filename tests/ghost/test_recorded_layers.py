"""Which layers are recorded, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from single import check, ghost, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError
from skbgmd.ghost.recorded_layers import recorded_layers


def test_batch_norm_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(GhostError, match=r"'1', BatchNorm1d.*GroupNorm"):
        ghost(module, made((5, 3), torch.float32, 0), loss)
    check(module.eval(), made((5, 3), torch.float32, 0))


def test_outermost_layers_with_wanted_parameters_are_found() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.TransformerEncoderLayer(4, 2, 8), nn.ReLU())
    every = {id(parameter) for parameter in module.parameters()}
    names = [layer.name for layer in recorded_layers(module, every)]
    assert sorted(names) == ["0", "1.linear1", "1.linear2", "1.norm1", "1.norm2", "1.self_attn"]
    assert [layer.name for layer in recorded_layers(module, {id(module[0].bias)})] == ["0"]


def test_layers_in_one_another_are_refused() -> None:
    outer = nn.Linear(2, 2)
    inner = nn.Linear(2, 2)
    outer.inner = inner
    module = nn.ModuleList([outer, inner])
    with pytest.raises(GhostError, match=r"found '1' inside of '0', which has parameters of its own"):
        recorded_layers(module, {id(parameter) for parameter in module.parameters()})
