"""Pooling: largest and mean values of patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from skbgmd.ghost.derivatives import Backward, register_derivative

aten: Any = torch.ops.aten


@register_derivative(nn.MaxPool2d)
def max_pool(layer: nn.MaxPool2d, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One at the largest value of each patch."""
    if layer.return_indices or x.ndim != 4:
        raise NotImplementedError("indices, or a single image")
    stride = layer.kernel_size if layer.stride is None else layer.stride
    how = (*map(_pair, (layer.kernel_size, stride, layer.padding, layer.dilation)), layer.ceil_mode)
    y, places = aten.max_pool2d_with_indices(x, *how)
    return y, lambda gradient: aten.max_pool2d_with_indices_backward(gradient, x, *how, places)


@register_derivative(nn.AvgPool2d)
def mean_pool(layer: nn.AvgPool2d, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One over the size of the patch, all over it."""
    if x.ndim != 4:
        raise NotImplementedError("a single image")
    stride = layer.kernel_size if layer.stride is None else layer.stride
    how = (*map(_pair, (layer.kernel_size, stride, layer.padding)), layer.ceil_mode, layer.count_include_pad)
    y = aten.avg_pool2d(x, *how, layer.divisor_override)
    return y, lambda gradient: aten.avg_pool2d_backward(gradient, x, *how, layer.divisor_override)


@register_derivative(nn.AdaptiveAvgPool2d)
def adaptive_mean_pool(layer: nn.AdaptiveAvgPool2d, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One over the size of the patch, all over it."""
    if x.ndim != 4:
        raise NotImplementedError("a single image")
    y = nn.functional.adaptive_avg_pool2d(x, layer.output_size)
    if y.shape[2:] == (1, 1):
        # Torch takes a mean here, whose derivative is not that of the kernel.
        return y, lambda gradient: gradient.expand(x.shape) / (x.shape[2] * x.shape[3])
    return y, lambda gradient: aten._adaptive_avg_pool2d_backward(gradient, x)


def _pair(value: int | tuple[int, int]) -> list[int]:
    """Along both axes."""
    return [value, value] if isinstance(value, int) else list(value)
