"""Layers that leave the numbers as they are."""

from __future__ import annotations

import torch
from torch import nn

from skbgmd.ghost.derivatives import Backward, register_derivative


@register_derivative(nn.Identity)
def identity(layer: nn.Identity, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """Nothing changes."""
    return x, lambda gradient: gradient


@register_derivative(nn.Flatten)
def flatten(layer: nn.Flatten, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The gradient in the input's shape, of axes that aren't the samples'."""
    if layer.start_dim % x.ndim == 0:
        raise NotImplementedError("the axis of the samples")
    return x.flatten(layer.start_dim, layer.end_dim), lambda gradient: gradient.reshape(x.shape)


@register_derivative(nn.Unflatten)
def unflatten(layer: nn.Unflatten, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The gradient in the input's shape, of an axis that isn't the samples'."""
    if not isinstance(layer.dim, int) or layer.dim % x.ndim == 0:
        raise NotImplementedError("the axis of the samples, or a name")
    return nn.Unflatten.forward(layer, x), lambda gradient: gradient.reshape(x.shape)
