"""Activations: slopes that are learned, and derivatives by torch's own kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skbgmd.ghost.derivatives import Backward, register_derivative
from skbgmd.ghost.factors import DenseFactor
from skbgmd.ghost.registry import Factors, register_rule

aten: Any = torch.ops.aten


@register_rule(nn.PReLU)
def prelu(layer: nn.PReLU, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Slopes ``a`` of ``max(0, x) + a min(0, x)``."""
    slopes = inputs[0].clamp_max(0) * gradient
    if layer.num_parameters == 1:
        return {"weight": DenseFactor(slopes.flatten(1).sum(dim=1, keepdim=True))}
    return {"weight": DenseFactor(slopes.flatten(2).sum(dim=2) if slopes.ndim > 2 else slopes)}


@register_derivative(nn.PReLU)
def learned_slope(layer: nn.PReLU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One above zero, and the channel's slope below."""
    slope = layer.weight.view(-1, *[1] * (x.ndim - 2))
    return F.prelu(x, layer.weight), lambda gradient: torch.where(x > 0.0, gradient, slope * gradient)


@register_derivative(nn.ReLU)
def relu(layer: nn.ReLU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One where the output is positive."""
    y = torch.relu(x)
    return y, lambda gradient: aten.threshold_backward(gradient, y, 0)


@register_derivative(nn.LeakyReLU)
def leaky_relu(layer: nn.LeakyReLU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One above zero, and the slope below."""
    slope = layer.negative_slope
    return F.leaky_relu(x, slope), lambda gradient: aten.leaky_relu_backward(gradient, x, slope, False)


@register_derivative(nn.ELU)
def elu(layer: nn.ELU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One above zero, and ``alpha e^x`` below."""
    y = F.elu(x, layer.alpha)
    return y, lambda gradient: aten.elu_backward(gradient, layer.alpha, 1.0, 1.0, False, x)


@register_derivative(nn.GELU)
def gelu(layer: nn.GELU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """Distribution function at x, and x times its density; or those of the approximation by a hyperbolic tangent."""
    kind = layer.approximate
    return F.gelu(x, approximate=kind), lambda gradient: aten.gelu_backward(gradient, x, approximate=kind)


@register_derivative(nn.SiLU)
def silu(layer: nn.SiLU, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``s (1 + x (1 - s))`` for the logistic function s of x."""
    return F.silu(x), lambda gradient: aten.silu_backward(gradient, x)


@register_derivative(nn.Tanh)
def tanh(layer: nn.Tanh, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``1 - y^2``."""
    y = torch.tanh(x)
    return y, lambda gradient: aten.tanh_backward(gradient, y)


@register_derivative(nn.Sigmoid)
def sigmoid(layer: nn.Sigmoid, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``y (1 - y)``."""
    y = torch.sigmoid(x)
    return y, lambda gradient: aten.sigmoid_backward(gradient, y)


@register_derivative(nn.Softplus)
def softplus(layer: nn.Softplus, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """The logistic function, and one where the function is linear."""
    beta, linear_from = layer.beta, layer.threshold
    y = F.softplus(x, beta, linear_from)
    return y, lambda gradient: aten.softplus_backward(gradient, x, beta, linear_from)


@register_derivative(nn.Hardtanh)
def hardtanh(layer: nn.Hardtanh, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """One between the bounds; ``ReLU6`` has the bounds 0 and 6."""
    low, high = layer.min_val, layer.max_val
    return F.hardtanh(x, low, high), lambda gradient: aten.hardtanh_backward(gradient, x, low, high)


@register_derivative(nn.Softmax)
def softmax(layer: nn.Softmax, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``diag(y) - y y^T`` along an axis that isn't the samples'."""
    dim = _own_axis(layer.dim, x)
    y = torch.softmax(x, dim)
    return y, lambda gradient: aten._softmax_backward_data(gradient, y, dim, x.dtype)


@register_derivative(nn.LogSoftmax)
def log_softmax(layer: nn.LogSoftmax, x: torch.Tensor) -> tuple[torch.Tensor, Backward]:
    """``I - 1 p^T``, of the probabilities p, along an axis that isn't the samples'."""
    dim = _own_axis(layer.dim, x)
    y = torch.log_softmax(x, dim)
    return y, lambda gradient: aten._log_softmax_backward_data(gradient, y, dim, x.dtype)


def _own_axis(dim: int | None, x: torch.Tensor) -> int:
    """The axis, if it is one of a sample's own."""
    if dim is None or dim % x.ndim == 0:
        raise NotImplementedError("the axis of the samples")
    return dim


#: Derivatives of activations without parameters, by which each sample's numbers depend on its own alone.
ACTIVATIONS = frozenset({relu, leaky_relu, elu, gelu, silu, tanh, sigmoid, softplus, hardtanh, softmax, log_softmax})
