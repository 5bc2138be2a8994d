"""Linear layers: ``y = x W^T + c`` at every position."""

from __future__ import annotations

import torch
from torch import nn

from skbgmd.ghost.derivatives import Backward, register_derivative
from skbgmd.ghost.factors import DenseFactor, outer_product
from skbgmd.ghost.registry import Factors, register_rule


@register_rule(nn.Linear)
def linear(layer: nn.Linear, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Outer products of the gradients with respect to the outputs and the inputs."""
    return linear_factors(inputs[0], gradient)


@register_derivative(nn.Linear)
def product(layer: nn.Linear, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The product with the weights, and that with their transpose."""
    return nn.functional.linear(x, layer.weight, layer.bias), lambda gradient: gradient @ layer.weight


def linear_factors(x: torch.Tensor, gradient: torch.Tensor) -> Factors:
    """Factors of ``weight`` and ``bias`` from the inputs (b, ..., p) and the outputs' gradient (b, ..., q)."""
    x, delta = _positions(x), _positions(gradient)
    return {"weight": outer_product(delta, x), "bias": DenseFactor(sum_positions(delta))}


def _positions(x: torch.Tensor) -> torch.Tensor:
    """Reshape (b, ..., d) to (b, positions, d)."""
    return x[:, None] if x.ndim == 2 else x.flatten(1, -2)


def sum_positions(x: torch.Tensor) -> torch.Tensor:
    """Sum over the positions of (b, positions, d); a view where there is one."""
    return x[:, 0] if x.shape[1] == 1 else x.sum(dim=1)
