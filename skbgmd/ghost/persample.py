"""Gradients of single samples by ``torch.func``, for layers that have no rule."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from skbgmd.ghost.factors import Explicit, Factor


def per_sample_factors(
    layer: nn.Module,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    gradients: list[torch.Tensor | None],
    n: int,
) -> dict[str, Factor]:
    """Gradients of each sample by the layer's parameters, written out.

    Parameters
    ----------
    layer : Module
        Called anew, with one sample at a time under ``vmap``: it must treat each by itself and draw nothing.
    arguments : tuple
        What it was called with: positional arguments, and others by name.
    gradients : list of tensors
        With respect to the tensors that came out; None where the loss doesn't depend on one.
    n : int
        Samples.
    """
    _refuse_randomness(layer)
    args, kwargs = _with_hidden_state(layer, arguments, n)
    values, structure = tree_flatten((args, kwargs))
    values = [value.detach() if isinstance(value, torch.Tensor) else value for value in values]
    axes = _sample_axes(layer, values, n)
    mapped = [number for number, axis in enumerate(axes) if axis is not None]
    # The gradients' axes are those of the outputs, which for recurrent layers are those of the inputs.
    used = [(number, gradient) for number, gradient in enumerate(gradients) if gradient is not None]
    out_axes = _sample_axes(layer, [gradient for _, gradient in used], n)
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters() if parameter.requires_grad}

    def inner(trained: dict[str, torch.Tensor], inputs: list[torch.Tensor], deltas: list[torch.Tensor]) -> torch.Tensor:
        one = list(values)
        for number, value in zip(mapped, inputs, strict=True):
            one[number] = value.unsqueeze(axes[number] or 0)
        positional, named = tree_unflatten(one, structure)
        output = functional_call(layer, trained, positional, named)
        tensors = [value for value in tree_flatten(output)[0] if isinstance(value, torch.Tensor)]
        products = [
            (tensors[number] * delta.unsqueeze(axis or 0)).sum()
            for (number, _), delta, axis in zip(used, deltas, out_axes, strict=True)
        ]
        return torch.stack(products).sum()

    with warnings.catch_warnings():
        # That an operator has no batching rule: it is slower, and right.
        warnings.simplefilter("ignore", UserWarning)
        found = vmap(grad(inner), (None, [axes[number] for number in mapped], out_axes))(
            parameters, [values[number] for number in mapped], [gradient for _, gradient in used]
        )
    return {name: Explicit(_units(gradient)) for name, gradient in found.items()}


def _units(gradient: torch.Tensor) -> torch.Tensor:
    return gradient if gradient.ndim > 1 else gradient[:, None]


def _sample_axes(layer: nn.Module, values: list[Any], n: int) -> list[int | None]:
    """The axis of each value that samples are along; None for what all samples share."""
    axes: list[int | None] = []
    for value in values:
        axis = 0
        if isinstance(layer, nn.RNNBase) and (len(axes) > 0 or not layer.batch_first):
            axis = 1
        is_mapped = isinstance(value, torch.Tensor) and value.ndim > axis and value.shape[axis] == n
        axes.append(axis if is_mapped else None)
    return axes


def _with_hidden_state(
    layer: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]], n: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A recurrent layer's arguments with the zeros that it begins with: vmap must know them to be of n samples."""
    args, kwargs = arguments
    if not isinstance(layer, nn.RNNBase) or len(args) > 1 or kwargs.get("hx") is not None:
        return arguments
    directions = 2 if layer.bidirectional else 1
    x = args[0] if args else kwargs["input"]
    zeros = [
        x.new_zeros((layer.num_layers * directions, n, size))
        for size in (layer.proj_size or layer.hidden_size, layer.hidden_size)
    ]
    return (x, (zeros[0], zeros[1]) if isinstance(layer, nn.LSTM) else zeros[0]), {}


def _refuse_randomness(layer: nn.Module) -> None:
    for name, inner in layer.named_modules():
        chance = getattr(inner, "p", 0.0) if isinstance(inner, nn.modules.dropout._DropoutNd) else 0.0
        chance = inner.dropout if isinstance(inner, nn.RNNBase) and inner.num_layers > 1 else chance
        if inner.training and chance > 0.0:
            raise NotImplementedError(f"{name or type(inner).__name__!r} draws other numbers when it is called anew")
