"""How the gradients of each sample follow from what went into a layer and what came back to it: a rule per layer type.

A rule takes a layer, its inputs (b, ...) and the gradient with respect to its output (b, ...), and gives a
:class:`~skbgmd.ghost.factors.Factor` for each of its parameters by name: ``OuterProductFactor`` where a gradient is a
sum of outer products, ``DenseFactor`` where it is small. Several factors of one parameter are those of adjacent ranges
of its units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from skbgmd._utils import limits
from skbgmd._utils.allocation import empty
from skbgmd.ghost.embedding_factor import EmbeddingFactor
from skbgmd.ghost.factors import DenseFactor, Factor, Factors, OuterProductFactor, Rule, outer

#: Methods that say what a layer does.
_FORWARD = ("forward", "_conv_forward")
_RULES: dict[type[nn.Module], Rule] = {}


def register_rule(*layers: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a rule for types of layers and what is derived from them without overriding ``forward``.

    Parameters
    ----------
    *layers : classes of modules
        What the rule is for; a rule that there was is replaced.

    Returns
    -------
    decorator : callable
        Of a function ``rule(layer, inputs, gradient)`` that gives a dict: for the name of each of the layer's
        parameters, those of modules within it included, a :class:`Factor`, or several of adjacent ranges of the units.

        ``inputs`` is a tuple of the tensors that went in, ``gradient`` is that of the summed losses with respect to the
        output, both without a graph; line i of them is of sample i. It is a tuple where there are several outputs,
        with None where the losses don't depend on one.

    Raises
    ------
    TypeError
        No classes of modules; in a training step: not such a dict.

    Notes
    -----
    In its first steps, and now and then later, a training compares a sum of all gradients with an exact one. Where they
    differ, ``gradients="auto"`` warns and takes micro-batches, ``"one_pass"`` is an error.

    Examples
    --------
    A layer that scales its inputs (b, d) by a parameter (d,):

    >>> import torch
    >>> from skbgmd.ghost import DenseFactor, register_rule
    >>> class Scale(torch.nn.Module):
    ...     def __init__(self, d):
    ...         super().__init__()
    ...         self.factor = torch.nn.Parameter(torch.ones(d))
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> @register_rule(Scale)
    ... def scale(layer, inputs, gradient):
    ...     return {"factor": DenseFactor(inputs[0] * gradient)}

    One that scales the channels of images (b, c, h, w): what the positions of an image add is summed.

    >>> class Gain(torch.nn.Module):
    ...     def __init__(self, c):
    ...         super().__init__()
    ...         self.gain = torch.nn.Parameter(torch.ones(c))
    ...
    ...     def forward(self, x):
    ...         return x * self.gain[:, None, None]
    >>> @register_rule(Gain)
    ... def gain(layer, inputs, gradient):
    ...     return {"gain": DenseFactor((inputs[0] * gradient).sum(dim=(2, 3)))}
    """
    if not layers or not all(isinstance(layer, type) and issubclass(layer, nn.Module) for layer in layers):
        raise TypeError(f"layers must be classes of modules, one at least; found {layers}.")

    def register(rule: Rule) -> Rule:
        for layer in layers:
            _RULES[layer] = rule
        return rule

    return register


def is_registered(rule: Rule | None) -> bool:
    """Whether a rule is a user's own."""
    return rule is not None and not (getattr(rule, "__module__", None) or "").startswith("skbgmd.")


def check_answer(answer: Any, layer: nn.Module, name: str, n: int) -> None:
    """See whether a rule's answer for n samples of the layer of some name is what :func:`register_rule` asks for."""
    what = f"The rule of the layer {name!r}, {type(layer).__name__},"
    if not isinstance(answer, Mapping):
        raise TypeError(f"{what} must give a dict of factors by the parameters' names; found {type(answer).__name__}.")
    held = {**layer._parameters, **dict(layer.named_parameters())}
    unknown = set(answer) - set(held)
    if unknown:
        raise TypeError(f"{what} must name parameters of the layer; found {sorted(unknown)}.")
    for key, given in answer.items():
        factors = given if isinstance(given, Sequence) else [given]
        if not all(isinstance(factor, Factor) for factor in factors):
            raise TypeError(
                f"{what} must give factors, such as DenseFactor or OuterProductFactor; found {given!r} for {key!r}."
            )
        parameter = held[key]
        if parameter is None:
            continue  # such as a bias that a layer doesn't have
        columns, size = sum(factor.n_columns for factor in factors), parameter.numel()
        if columns != size or any(factor.n_rows != n for factor in factors):
            raise TypeError(
                f"{what} must give {n} rows of {size} numbers for {key!r}; found "
                f"{' and '.join(f'{factor.n_rows} of {factor.n_columns}' for factor in factors)}."
            )


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule for a layer; None where there is none."""
    for kind in type(layer).__mro__:
        if kind in _RULES:
            # What does something else needs a rule of its own: a subclass, a changed object, a computed parameter.
            same = all(getattr(kind, name, None) is getattr(type(layer), name, None) for name in _FORWARD)
            same = same and "forward" not in vars(layer) and not is_parametrized(layer)
            return _RULES[kind] if same else None
    return None


def sample_axis(layer: nn.Module) -> int:
    """The axis of a layer's input that samples are along."""
    return 1 if isinstance(layer, nn.RNNBase) and not layer.batch_first else 0


@register_rule(nn.Linear)
def linear(layer: nn.Linear, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """``y = x W^T + c`` at every position."""
    return linear_factors(inputs[0], gradient)


def linear_factors(x: torch.Tensor, gradient: torch.Tensor) -> Factors:
    """Factors of a linear layer's ``weight`` and ``bias`` from its inputs and the gradient by its outputs."""
    x, delta = _positions(x), _positions(gradient)
    return {"weight": outer(delta, x), "bias": DenseFactor(_sum_positions(delta))}


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A linear layer at every place of the kernel; one for each group of channels."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs[0], layer._reversed_padding_repeated_twice, mode=mode)
    delta = gradient.flatten(2).transpose(1, 2)
    weights = [
        _of_kernel(part, channels, layer)
        for part, channels in zip(delta.chunk(layer.groups, dim=2), padded.chunk(layer.groups, dim=1), strict=True)
    ]
    return {"weight": weights, "bias": DenseFactor(_sum_positions(delta))}


@register_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A convolution with its input and output exchanged: units are the channels that come in."""
    x = inputs[0].flatten(2).transpose(1, 2)
    padding = [side for amount in reversed(layer.padding) for side in (amount, amount)]
    padded, places = F.pad(gradient, padding), inputs[0].shape[2:]
    weights = [
        _of_kernel(part, channels, layer, places)
        for part, channels in zip(x.chunk(layer.groups, dim=2), padded.chunk(layer.groups, dim=1), strict=True)
    ]
    return {"weight": weights, "bias": DenseFactor(gradient.flatten(2).sum(dim=2))}


@register_rule(nn.Embedding)
def embedding(layer: nn.Embedding, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """Rows of a table, looked up."""
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        raise NotImplementedError("max_norm and scale_grad_by_freq of Embedding depend on the other samples")
    units = inputs[0].reshape(len(inputs[0]), -1)
    row = torch.arange(len(units), device=units.device)[:, None].expand_as(units)
    values = gradient.reshape(-1, layer.embedding_dim)
    row, unit = row.reshape(-1), units.reshape(-1).to(torch.int64)
    if layer.padding_idx is not None:
        kept = unit != layer.padding_idx
        row, unit, values = row[kept], unit[kept], values[kept]
    return {"weight": EmbeddingFactor.of(row, unit, values, len(units), layer.num_embeddings)}


@register_rule(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift after normalisation over the last axes."""
    normal = F.layer_norm(inputs[0], layer.normalized_shape, None, None, layer.eps)
    shape = layer.normalized_shape
    return {
        "weight": DenseFactor(_sum_before(normal * gradient, len(shape))),
        "bias": DenseFactor(_sum_before(gradient, len(shape))),
    }


@register_rule(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift of each channel after normalisation within groups of channels."""
    normal = F.group_norm(inputs[0], layer.num_groups, None, None, layer.eps)
    return _per_channel(normal, gradient)


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """A scale and a shift of each channel after normalisation of each channel of each sample."""
    if layer.track_running_stats:
        raise NotImplementedError("running statistics depend on the other samples")
    return _per_channel(F.instance_norm(inputs[0], eps=layer.eps), gradient)


@register_rule(nn.PReLU)
def prelu(layer: nn.PReLU, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Factors:
    """``max(0, x) + a min(0, x)``."""
    slopes = inputs[0].clamp_max(0) * gradient
    summed = slopes.flatten(1).sum(dim=1, keepdim=True) if layer.num_parameters == 1 else _sum_after(slopes)
    return {"weight": DenseFactor(summed)}


def _of_kernel(left: torch.Tensor, x: torch.Tensor, layer: Any, places: tuple[int, ...] | None = None) -> Factor:
    """Gradients by a kernel: ``left`` (b, places, units) times what the kernel sees of x (b, c, ...) there."""
    n, t, units = left.shape
    width = x.shape[1] * math.prod(layer.kernel_size)

    def seen(part: slice) -> torch.Tensor:
        return unfolded(x[part], layer.kernel_size, layer.stride, layer.dilation, places)

    if units * width > t * (units + width):
        return OuterProductFactor(left, seen(slice(None)))
    # Written out they take less memory than what the kernel sees does, which then is had for some samples at a time.
    values = empty((n, units, width), left.dtype, left.device)
    step = max(1, limits.UNFOLDED_ELEMENTS // (t * width))
    for start in range(0, n, step):
        part = slice(start, start + step)
        torch.bmm(left[part].transpose(1, 2), seen(part), out=values[part])
    return DenseFactor(values)


def unfolded(
    x: torch.Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    places: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """What the kernel sees at each place of x (b, c, ...): (b, places, c * kernel), in one to three dimensions.

    ``places``: how many along each axis, where the last ones are to be left out.
    """
    n_axes = len(kernel)
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, (size - 1) * spread + 1, step)[..., ::spread]
        if places is not None:
            x = x.narrow(axis, 0, places[axis - 2])
    b, channels = x.shape[:2]
    order = (0, *range(2, 2 + n_axes), 1, *range(2 + n_axes, 2 + 2 * n_axes))
    return x.permute(order).reshape(b, -1, channels * math.prod(kernel))


def _positions(x: torch.Tensor) -> torch.Tensor:
    """(b, ..., d) as (b, positions, d)."""
    return x[:, None] if x.ndim == 2 else x.flatten(1, -2)


def _sum_positions(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0] if x.shape[1] == 1 else x.sum(dim=1)


def _sum_before(x: torch.Tensor, kept: int) -> torch.Tensor:
    """Sum over all but the first axis and the last ``kept`` ones."""
    return x.flatten(1, x.ndim - kept - 1).sum(dim=1) if x.ndim > kept + 1 else x


def _sum_after(x: torch.Tensor) -> torch.Tensor:
    """Sum over all but the first two axes."""
    return x.flatten(2).sum(dim=2) if x.ndim > 2 else x


def _per_channel(normal: torch.Tensor, gradient: torch.Tensor) -> Factors:
    return {"weight": DenseFactor(_sum_after(normal * gradient)), "bias": DenseFactor(_sum_after(gradient))}
