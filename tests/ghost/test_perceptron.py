"""Perceptrons: forward passes in the parameters' own memory, and chains that are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skbgmd.ghost import Chain
from skbgmd.ghost.perceptron import Perceptron
from skbgmd.rows.blocks import ParameterBlock
from skbgmd.training.networks import MLP, LeNet

pytestmark = pytest.mark.usefixtures("forked")


def test_memory_is_used_again() -> None:
    module = MLP(6, 4, (7,))
    chain = Chain.of(module, list(module.parameters()))
    perceptron = Perceptron.of(chain, ParameterBlock.of(module.parameters()))
    outputs = [perceptron.forward(torch.full((n, 6), 0.1 * n))[0] for n in (5, 4, 9, 5)]
    for n, output in zip((5, 4, 9, 5), outputs, strict=True):
        # What is handed out isn't written to again.
        torch.testing.assert_close(output, module(torch.full((n, 6), 0.1 * n)).detach())


def test_sees_parameters_that_move() -> None:
    module = MLP(6, 4, (7,))
    perceptron = Perceptron.of(Chain.of(module, list(module.parameters())), ParameterBlock.of(module.parameters()))
    assert perceptron.is_in_place
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert perceptron.is_in_place
    module[0].weight.data = module[0].weight.data.clone()
    assert not perceptron.is_in_place


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 4)),
        nn.Sequential(nn.ReLU(), nn.Linear(6, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(6, 4)),
        nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.ReLU(), nn.Linear(5, 4)),
        LeNet(4),
    ],
    ids=lambda module: "-".join(type(layer).__name__ for layer in module),
)
def test_other_chains_are_none(module: nn.Module) -> None:
    parameters = list(module.parameters())
    chain = Chain.of(module, parameters)
    assert chain is not None
    assert Perceptron.of(chain, ParameterBlock.of(parameters)) is None


def test_frozen_layers_are_none() -> None:
    module = MLP(6, 4, (7,))
    for each in module[0].parameters():
        each.requires_grad_(False)
    parameters = [each for each in module.parameters() if each.requires_grad]
    chain = Chain.of(module, parameters)
    assert chain is not None
    assert Perceptron.of(chain, ParameterBlock.of(parameters)) is None


def test_layers_with_a_forward_of_their_own_are_none() -> None:
    module = nn.Sequential(nn.Linear(6, 5), Doubled(), nn.Linear(5, 4))
    assert Chain.of(module, list(module.parameters())) is None
