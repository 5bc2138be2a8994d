"""Scales and shifts of normalization layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skbgmd.ghost.derivatives import Backward, register_derivative
from skbgmd.ghost.factors import DenseFactor
from skbgmd.ghost.registry import Factors, register_rule


@register_rule(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift after normalization over the last axes."""
    normal = F.layer_norm(inputs[0], layer.normalized_shape, None, None, layer.eps)
    shape = layer.normalized_shape
    return {
        "weight": DenseFactor(_sum_before(normal * gradient, len(shape))),
        "bias": DenseFactor(_sum_before(gradient, len(shape))),
    }


@register_derivative(nn.LayerNorm)
def normalized(layer: nn.LayerNorm, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The gradient without its parts along ones and along the normalized values, times the scale."""
    shape, weight, bias = list(layer.normalized_shape), layer.weight, layer.bias
    if len(shape) >= x.ndim:
        raise NotImplementedError("the axis of the samples")
    y, mean, scale = torch.native_layer_norm(x, shape, weight, bias, layer.eps)

    def backward(gradient: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.aten.native_layer_norm_backward(
            gradient, x, shape, mean, scale, weight, bias, [True, False, False]
        )[0]
        return found

    return y, backward


@register_rule(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift of each channel after normalization within groups of channels."""
    normal = F.group_norm(inputs[0], layer.num_groups, None, None, layer.eps)
    return _per_channel(normal, gradient)


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift of each channel after normalization of each channel of each sample."""
    if layer.track_running_stats:
        raise NotImplementedError("running statistics depend on the other samples")
    return _per_channel(F.instance_norm(inputs[0], eps=layer.eps), gradient)


def _sum_before(x: torch.Tensor, kept: int) -> torch.Tensor:
    """Sum over all but the first axis and the last ``kept`` ones."""
    return x.flatten(1, x.ndim - kept - 1).sum(dim=1) if x.ndim > kept + 1 else x


def _sum_after(x: torch.Tensor) -> torch.Tensor:
    """Sum over all but the first two axes."""
    return x.flatten(2).sum(dim=2) if x.ndim > 2 else x


def _per_channel(normal: torch.Tensor, gradient: torch.Tensor) -> Factors:
    return {"weight": DenseFactor(_sum_after(normal * gradient)), "bias": DenseFactor(_sum_after(gradient))}
