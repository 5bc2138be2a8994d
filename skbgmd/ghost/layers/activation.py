"""Activations with parameters."""

from __future__ import annotations

import torch
from torch import nn

from skbgmd.ghost.factors import DenseFactor
from skbgmd.ghost.registry import Factors, register_rule


@register_rule(nn.PReLU)
def prelu(layer: nn.PReLU, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Slopes ``a`` of ``max(0, x) + a min(0, x)``."""
    slopes = inputs[0].clamp_max(0) * gradient
    if layer.num_parameters == 1:
        return {"weight": DenseFactor(slopes.flatten(1).sum(dim=1, keepdim=True))}
    return {"weight": DenseFactor(slopes.flatten(2).sum(dim=2) if slopes.ndim > 2 else slopes)}
