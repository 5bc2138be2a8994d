"""Per-sample gradients by ``torch.func``, for layers that have no rule."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from skbgmd._utils import limits
from skbgmd.ghost.before_call import BeforeCall
from skbgmd.ghost.factors import DenseFactor, Factor


def per_sample_factors(
    layer: nn.Module,
    before: BeforeCall,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    outputs: list[torch.Tensor],
    gradients: list[torch.Tensor | None],
    n: int,
) -> dict[str, Factor]:
    """Per-sample gradients with respect to the layer's parameters, written out.

    Parameters
    ----------
    layer : Module
        Called anew, with one sample at a time under ``vmap``: it must treat each by itself and draw nothing.
    before : BeforeCall
        What it was before the call.
    arguments : tuple
        Positional arguments of the call, and others by name.
    outputs : list of tensors
        Outputs of the call for the whole batch.
    gradients : list of tensors
        With respect to the outputs; None where the loss doesn't depend on one.
    n : int
        Samples.

    Raises
    ------
    NotImplementedError
        The layer draws numbers, mixes the samples, is initialized by the call, or does what ``vmap`` can't.
    """
    if not before.is_initialized:
        raise NotImplementedError("lazy layers in it are initialized by this call, so run one batch through it first")
    _refuse_randomness(layer)
    used = [number for number, gradient in enumerate(gradients) if gradient is not None]
    try:
        with warnings.catch_warnings():
            # That an operator has no batching rule: it is slower, and right.
            warnings.simplefilter("ignore", UserWarning)
            found, alone = _differentiated(layer, before, arguments, gradients, used, n)
    except Exception as error:
        # Random draws, decisions by values, changes in place, packed sequences, dtypes of a context that has been left.
        raise NotImplementedError(f"torch.func can't run it for single samples: {error}") from error
    if not all(agree(outputs[number], value) for number, value in zip(used, alone, strict=True)):
        raise NotImplementedError("what comes out for a sample depends on the others of its batch")
    return {name: DenseFactor(_units(gradient)) for name, gradient in found.items()}


def _differentiated(
    layer: nn.Module,
    before: BeforeCall,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    gradients: list[torch.Tensor | None],
    used: list[int],
    n: int,
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Per-sample gradients by name, and the used outputs with each sample alone."""
    args, kwargs = _with_hidden_state(layer, arguments, n)
    values, structure = tree_flatten((args, kwargs))
    # One that is given several times stays one: layers may look, as attention does for queries that are the keys.
    detached = {id(value): value.detach() for value in values if isinstance(value, torch.Tensor)}
    values = [detached.get(id(value), value) for value in values]
    axes = _sample_axes(layer, values, n)
    mapped = [number for number, axis in enumerate(axes) if axis is not None]
    # The gradients' axes are those of the outputs, which for recurrent layers are those of the inputs.
    of_outputs = _sample_axes(layer, gradients, n, are_outputs=True)
    out_axes = [of_outputs[number] for number in used]
    if not mapped or None in out_axes:
        raise ValueError("what goes in or comes out is shared by all samples")
    # Copies, for a layer may change its parameters in place, such as to a norm.
    trained = {name: value.detach().clone() for name, value in layer.named_parameters() if value.requires_grad}

    def inner(
        parameters: dict[str, torch.Tensor],
        others: dict[str, torch.Tensor],
        inputs: list[torch.Tensor],
        deltas: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        alone = {id(values[at]): value.unsqueeze(axes[at] or 0) for at, value in zip(mapped, inputs, strict=True)}
        positional, named = tree_unflatten([alone.get(id(value), value) for value in values], structure)
        output = functional_call(layer, {**others, **parameters}, positional, named)
        tensors = [value for value in tree_flatten(output)[0] if isinstance(value, torch.Tensor)]
        single = [tensors[number].squeeze(axis or 0) for number, axis in zip(used, out_axes, strict=True)]
        products = [(value * delta).sum() for value, delta in zip(single, deltas, strict=True)]
        return torch.stack(products).sum(), single

    dims: Any = (0, out_axes)
    per_sample = vmap(grad(inner, has_aux=True), (None, None, [axes[number] for number in mapped], out_axes), dims)
    deltas: list[Any] = [gradients[number] for number in used]
    # What a layer keeps of its last call is that of the batch, and no tensor of torch.func's.
    with before.restored():
        found: tuple[dict[str, torch.Tensor], list[torch.Tensor]] = per_sample(
            trained, before.tensors, [values[number] for number in mapped], deltas
        )
    return found


def agree(together: torch.Tensor, alone: torch.Tensor) -> bool:
    """Tell whether outputs differ by rounding at most; those that aren't finite say nothing."""
    if together.shape != alone.shape:
        return False
    return not bool((together - alone).abs().max() > limits.SAMPLE_ROUNDING * together.abs().max())


def _units(gradient: torch.Tensor) -> torch.Tensor:
    return gradient if gradient.ndim > 1 else gradient[:, None]


def _sample_axes(layer: nn.Module, values: list[Any], n: int, *, are_outputs: bool = False) -> list[int | None]:
    """Find the axis of each input or output that samples are along; None for what all samples share."""
    axes: list[int | None] = []
    for number, value in enumerate(values):
        axis = 0
        if isinstance(layer, nn.RNNBase):
            axis = 1 if number > 0 or not layer.batch_first else 0
        elif isinstance(layer, nn.MultiheadAttention):
            # Of queries, keys, values and what comes of them; masks and weights have samples first.
            axis = 1 if number < (1 if are_outputs else 3) and not layer.batch_first else 0
        is_mapped = isinstance(value, torch.Tensor) and value.ndim > axis and value.shape[axis] == n
        axes.append(axis if is_mapped else None)
    return axes


def _with_hidden_state(
    layer: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]], n: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the initial zeros of a recurrent layer to its arguments: vmap must know them to be of n samples."""
    args, kwargs = arguments
    if not isinstance(layer, (nn.RNNBase, nn.RNNCellBase)) or len(args) > 1 or kwargs.get("hx") is not None:
        return arguments
    x = args[0] if args else kwargs["input"]
    # Cells have one state, of no direction.
    runs = (layer.num_layers * (2 if layer.bidirectional else 1),) if isinstance(layer, nn.RNNBase) else ()
    sizes = (getattr(layer, "proj_size", 0) or layer.hidden_size, layer.hidden_size)
    zeros = tuple(x.new_zeros((*runs, n, size)) for size in sizes)
    return (x, zeros if isinstance(layer, (nn.LSTM, nn.LSTMCell)) else zeros[0]), {}


def _refuse_randomness(layer: nn.Module) -> None:
    for name, inner in layer.named_modules():
        chance = getattr(inner, "p", 0.0) if isinstance(inner, nn.modules.dropout._DropoutNd) else 0.0
        chance = inner.dropout if isinstance(inner, nn.RNNBase) and inner.num_layers > 1 else chance
        if inner.training and chance > 0.0:
            raise NotImplementedError(f"{name or type(inner).__name__!r} draws other numbers when it is called anew")
