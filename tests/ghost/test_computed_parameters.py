"""Layers whose parameters are computed from others, against gradients of autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from single import check, ghost, loss, made
from single import forked_initialisation as forked_initialisation
from skbgmd.ghost import GhostError, GradientRecorder
from skbgmd.ghost.computed_parameters import is_computed


class Large(prune.BasePruningMethod):
    """Pruning of a user's own."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        return default_mask * (t.abs() > 0.1)


class Square(nn.Module):
    """A parametrization of a user's own."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.square()


def by_hook(normalise: Callable[..., Any], **options: Any) -> Callable[[nn.Module, str], Any]:
    def apply(layer: nn.Module, name: str) -> None:
        with warnings.catch_warnings():
            # That there is a parametrization in its place.
            warnings.simplefilter("ignore", FutureWarning)
            normalise(layer, name, **options)

    return apply


def pruned_twice(layer: nn.Module, name: str) -> None:
    prune.random_unstructured(layer, name, amount=0.2)
    prune.l1_unstructured(layer, name, amount=0.3)


WAYS: dict[str, Callable[[nn.Module, str], Any]] = {
    "pruned": lambda layer, name: prune.random_unstructured(layer, name, amount=0.3),
    "pruned_twice": pruned_twice,
    "pruned_everywhere": lambda layer, name: prune.global_unstructured([(layer, name)], prune.L1Unstructured, amount=2),
    "pruned_by_ones_own": Large.apply,
    "weight_norm_by_hook": by_hook(nn.utils.weight_norm),
    "weight_norm_of_all_by_hook": by_hook(nn.utils.weight_norm, dim=None),
    "spectral_norm_by_hook": by_hook(nn.utils.spectral_norm),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "ones_own": lambda layer, name: parametrize.register_parametrization(layer, name, Square()),
}


class Called(nn.Module):
    """A layer, and how it is called."""

    def __init__(self, layer: nn.Module, call: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.calling = layer, [call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.calling[0](self.layer, x)


def plain(layer: Any, x: torch.Tensor) -> Any:
    return layer(x)


def to_itself(layer: Any, x: torch.Tensor) -> Any:
    x = x.view(-1, 2, 3).repeat(1, 1, 2).cumsum(dim=1)
    return layer(x, x[..., : layer.kdim], x)[0]


LAYERS: dict[str, tuple[Callable[..., nn.Module], str, Any]] = {
    "linear": (lambda: nn.Linear(6, 4), "weight", plain),
    "linear_without_bias": (lambda: nn.Linear(6, 4, bias=False), "weight", plain),
    "positions": (lambda: nn.Linear(3, 4), "weight", lambda layer, x: layer(x.view(-1, 2, 3))),
    "convolution": (lambda: nn.Conv1d(2, 4, 2, bias=False), "weight", lambda layer, x: layer(x.view(-1, 2, 3))),
    "embedding": (lambda: nn.Embedding(3, 4), "weight", lambda layer, x: layer((x > 0).long())),
    "cell": (lambda: nn.GRUCell(6, 4), "weight_hh", plain),
    "cells": (lambda: nn.LSTMCell(6, 4, bias=False), "weight_ih", lambda layer, x: layer(x)[1]),
    "recurrent": (lambda: nn.GRU(3, 4, batch_first=True), "weight_ih_l0", lambda layer, x: layer(x.view(-1, 2, 3))[0]),
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), "in_proj_weight", to_itself),
    "attention_without_bias": (
        lambda: nn.MultiheadAttention(6, 2, kdim=4, bias=False, batch_first=True),
        "k_proj_weight",
        to_itself,
    ),
}


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_gradients_are_those_of_what_parameters_are_computed_from(way: Any, kind: Any) -> None:
    torch.manual_seed(0)
    make, name, call = kind
    layer = make().double()
    way(layer, name)
    assert is_computed(layer)
    # In evaluation, for in training a norm is another in each call.
    check(nn.Sequential(Called(layer, call), nn.Tanh()).eval(), made((5, 6), torch.float64, 0), 1e-9)


@pytest.mark.parametrize("way", [name for name in WAYS if name.startswith("spectral_norm")])
@pytest.mark.parametrize("kind", ["linear", "convolution", "cell", "attention"])
def test_norms_of_a_call_in_training(kind: str, way: str) -> None:
    torch.manual_seed(0)
    make, name, call = LAYERS[kind]
    layer, x = make().double(), made((5, 6), torch.float64, 0)
    WAYS[way](layer, name)
    module = Called(layer, call)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    parameters = list(module.parameters())
    lines = [
        torch.cat([part.flatten() for part in torch.autograd.grad(each, parameters, retain_graph=True)])
        for each in loss(module(x))
    ]
    module.load_state_dict(before)
    found = torch.cat([chunk for _, chunk in ghost(module, x, loss).column_chunks()], dim=1)
    torch.testing.assert_close(found, torch.stack(lines), rtol=1e-9, atol=1e-9)


def test_parts_of_a_layer() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    parametrizations.weight_norm(layer.out_proj)
    assert not is_computed(layer)
    check(Called(layer, to_itself), made((5, 6), torch.float64, 0), 1e-9)


@pytest.mark.parametrize(
    ("way", "undo"),
    [
        ("pruned", prune.remove),
        ("weight_norm_by_hook", nn.utils.remove_weight_norm),
        ("spectral_norm_by_hook", nn.utils.remove_spectral_norm),
        ("ones_own", parametrize.remove_parametrizations),
    ],
)
def test_a_recorder_that_is_kept_sees_what_is_computed_since(way: str, undo: Callable[..., Any]) -> None:
    layer = nn.Linear(6, 4, bias=False)
    module = nn.Sequential(layer, nn.Tanh())
    recorder = GradientRecorder(module)

    def columns() -> torch.Tensor:
        x = made((5, 6), torch.float32, 0)
        with recorder:
            losses = loss(module(x))
        found = [factor.explicit(slice(0, factor.n_units)) for _, factor in recorder.factors(losses)]
        return torch.cat([values.reshape(5, -1) for values in found], dim=1)

    first = columns()
    WAYS[way](layer, "weight")
    assert columns().isfinite().all()
    assert [each.rule for each in recorder.layers] == [None]
    undo(layer, "weight")
    assert columns().shape == first.shape
    assert [each.rule for each in recorder.layers] != [None]


def test_what_is_computed_by_a_hook_that_attention_never_calls_is_refused() -> None:
    """It is what it was at the start, and a pass through it comes to its source once."""
    layer = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    prune.random_unstructured(layer.out_proj, "weight", amount=0.3)
    with pytest.raises(GhostError, match="multiplies by something that isn't a part of a parameter"):
        ghost(Called(layer, to_itself), made((5, 6), torch.float64, 0), loss)
