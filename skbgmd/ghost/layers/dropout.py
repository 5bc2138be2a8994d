"""Dropout: factors that are drawn anew in each step of a training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from skbgmd.ghost.derivatives import Backward, register_derivative


@register_derivative(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def dropout(layer: Any, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The same factors as on the way there."""
    if not layer.training or layer.p == 0.0:
        return x, lambda gradient: gradient
    # The factors are what the layer makes of ones: from the very numbers that it would draw for x.
    factors = type(layer).forward(layer, torch.ones_like(x))
    return x * factors, lambda gradient: gradient * factors
