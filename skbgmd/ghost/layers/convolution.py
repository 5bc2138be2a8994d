"""Convolutions and transposed convolutions: linear layers at every place of the kernel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd.ghost.derivatives import Backward, register_derivative
from skbgmd.ghost.factors import DenseFactor, Factor, KernelFactor, OuterProductFactor
from skbgmd.ghost.layers.linear import sum_positions
from skbgmd.ghost.registry import Factors, register_rule


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Linear layers at every place of the kernel, one for each group of channels."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs[0], layer._reversed_padding_repeated_twice, mode=mode)
    delta = gradient.flatten(2).transpose(1, 2)
    weights = [
        _of_kernel(part, channels, layer)
        for part, channels in zip(delta.chunk(layer.groups, dim=2), padded.chunk(layer.groups, dim=1), strict=True)
    ]
    return {"weight": weights, "bias": DenseFactor(sum_positions(delta))}


@register_derivative(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def patches_product(layer: Any, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The transposed convolution of the gradient."""
    axes = len(layer.kernel_size)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str) or x.ndim != 2 + axes:
        raise NotImplementedError("padding by values, by name, or a single image")
    weight, how = layer.weight, (layer.stride, layer.padding, layer.dilation)
    y = layer._conv_forward(x, weight, layer.bias)

    def backward(gradient: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *how, False, [0] * axes, layer.groups, [True, False, False]
        )[0]
        return found

    return y, backward


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A convolution with input and output exchanged: units are the input channels."""
    x = inputs[0].flatten(2).transpose(1, 2)
    padding = [side for amount in reversed(layer.padding) for side in (amount, amount)]
    padded, places = F.pad(gradient, padding), inputs[0].shape[2:]
    weights = [
        _of_kernel(part, channels, layer, places)
        for part, channels in zip(x.chunk(layer.groups, dim=2), padded.chunk(layer.groups, dim=1), strict=True)
    ]
    return {"weight": weights, "bias": DenseFactor(gradient.flatten(2).sum(dim=2))}


def _of_kernel(left: torch.Tensor, x: torch.Tensor, layer: Any, places: tuple[int, ...] | None = None) -> Factor:
    """Factor of a kernel: products of ``left`` (b, t, units) and the patches of x (b, c, ...) at t places."""
    n, t, units = left.shape
    channels, size = x.shape[1], math.prod(layer.kernel_size)
    width, n_axes = channels * size, len(layer.kernel_size)
    own, axes = tuple(range(2, 2 + n_axes)), tuple(range(2 + n_axes, 2 + 2 * n_axes))
    if units * width > t * (units + width):
        patches = windows(x, layer.kernel_size, layer.stride, layer.dilation, places)
        return OuterProductFactor(left, patches.permute(0, *own, 1, *axes).reshape(n, t, width))
    # Written out they take less memory than the patches do, which are then copied for some samples at a time: with
    # the channels last, or the places, whichever makes for longer runs of memory.
    last = size > 1 and channels * layer.kernel_size[-1] > (x.shape[-1] if places is None else places[-1])
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    patches = windows(x, layer.kernel_size, layer.stride, layer.dilation, places)
    patches = patches.permute(0, *own, *axes, 1) if last else patches.permute(0, 1, *axes, *own)
    values, left = empty((n, units, width), left.dtype, left.device), left.transpose(1, 2)
    at_once = limits.UNFOLDED_ELEMENTS if x.device.type == "cpu" else limits.UNFOLDED_ELEMENTS_OF_DEVICE
    step = max(1, at_once // (t * width))
    for start in range(0, n, step):
        part = slice(start, start + step)
        copied = patches[part].reshape(-1, t, width) if last else patches[part].reshape(-1, width, t).transpose(1, 2)
        torch.bmm(left[part], copied, out=values[part])
    return KernelFactor(values.view(n, units, size, channels)) if last else DenseFactor(values)


def windows(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    places: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """View x (b, c, ...) under a kernel at every place, (b, c, *places, *kernel), in one to three dimensions.

    ``places`` limits the number of places along each axis, where the last ones are to be left out.
    """
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, (size - 1) * spread + 1, step)[..., ::spread]
        if places is not None:
            x = x.narrow(axis, 0, places[axis - 2])
    return x
