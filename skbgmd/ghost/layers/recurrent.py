"""Recurrent layers and cells: linear layers of the input and of the previous state at every step.

Torch's own recurrent layers give no gradient at their gates, so they are run again with zeros added there. The
gradients with respect to these zeros are those of the gates, and no parameter's gradient is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from skbgmd.ghost.factors import Factor
from skbgmd.ghost.layers.linear import linear_factors
from skbgmd.ghost.registry import Factors, register_rule

#: Hidden states of n samples, (n, size), and the cells' for long short-term memory.
State = tuple[torch.Tensor, ...]


@dataclass
class _Product:
    """A product with one of the layer's matrices at every step.

    Attributes
    ----------
    weight, bias : str
        Names of the parameters; a bias that is None there never is.
    given : tensor of shape (n, t, d)
        The vectors that were multiplied.
    added : tensor of shape (n, t, units)
        The zeros that were added to the product.
    """

    weight: str
    bias: str | None
    given: torch.Tensor
    added: torch.Tensor


@dataclass
class _Run:
    """A layer that is run again, and the products it consists of."""

    layer: Any
    products: list[_Product] = field(default_factory=list)

    def value(self, name: str, like: torch.Tensor) -> torch.Tensor | None:
        """Values of a parameter, detached; None where the layer has none of that name."""
        parameter = getattr(self.layer, name, None)
        return parameter.detach().to(like.dtype) if isinstance(parameter, torch.Tensor) else None

    def multiply(self, given: torch.Tensor, weight: str, bias: str) -> torch.Tensor:
        """Multiply vectors that are known at all steps, (n, t, d)."""
        result = nn.functional.linear(given, self.matrix(weight, given), self.value(bias, given))
        added = torch.zeros_like(result).requires_grad_()
        self.products.append(_Product(weight, bias, given.detach(), added))
        return result + added

    def matrix(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Values of a matrix that the layer has."""
        found = self.value(name, like)
        assert found is not None, name
        return found


@register_rule(nn.RNN, nn.LSTM, nn.GRU)
def recurrent(layer: Any, inputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> Factors:
    """Factors of all layers and directions, from the gradients of the sequence and of the last states."""
    if layer.training and layer.dropout > 0.0 and layer.num_layers > 1:
        raise NotImplementedError("dropout between the layers draws other numbers when they are run again")
    if inputs[0].ndim != 3:
        raise NotImplementedError("sequences must be in a tensor of three dimensions, all of one length")
    run = _Run(layer)
    with torch.enable_grad():
        outputs = _all_layers(run, inputs[0], inputs[1:])
    return _factors(run, outputs, gradients)


@register_rule(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def cell(layer: Any, inputs: Sequence[torch.Tensor], gradients: Any) -> Factors:
    """Factors of a single step."""
    x, *state = inputs
    if x.ndim != 2:
        raise NotImplementedError("samples must be in a batch")
    run = _Run(layer)
    sizes = [layer.hidden_size] * (2 if isinstance(layer, nn.LSTMCell) else 1)
    with torch.enable_grad():
        before = tuple(state) or tuple(x.new_zeros(len(x), size) for size in sizes)
        _, after = _steps(run, x[:, None], before, "")
    return _factors(run, after, gradients if isinstance(gradients, tuple) else (gradients,))


def _factors(run: _Run, outputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> Factors:
    used = [(value, gradient) for value, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
    found = torch.autograd.grad(
        [value for value, _ in used],
        [product.added for product in run.products],
        [gradient for _, gradient in used],
        allow_unused=True,
    )
    factors: dict[str, Factor | Sequence[Factor]] = {}
    for product, delta in zip(run.products, found, strict=True):
        # A product without a gradient, as of a single step, has no part in the loss.
        of_product: Factors = {} if delta is None else linear_factors(product.given, delta)
        factors[product.weight] = of_product.get("weight", [])
        if product.bias is not None:
            factors[product.bias] = of_product.get("bias", [])
    return factors


def _all_layers(run: _Run, x: torch.Tensor, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run all layers and directions: the sequence, and the last states."""
    layer = run.layer
    x = x if layer.batch_first else x.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if isinstance(layer, nn.LSTM) else 1]
    begin = given or [x.new_zeros(layer.num_layers * directions, len(x), size) for size in sizes]
    ends: list[State] = []
    for number in range(layer.num_layers):
        sequences = []
        for backward in range(directions):
            before = tuple(state[len(ends)] for state in begin)
            suffix = f"_l{number}" + "_reverse" * backward
            sequence, end = _steps(run, x.flip(1) if backward else x, before, suffix)
            sequences.append(sequence.flip(1) if backward else sequence)
            ends.append(end)
        x = torch.cat(sequences, dim=2)
    states = [torch.stack(parts) for parts in zip(*ends, strict=True)]
    return [x if layer.batch_first else x.transpose(0, 1), *states]


def _steps(run: _Run, x: torch.Tensor, state: State, suffix: str) -> tuple[torch.Tensor, State]:
    """Run one layer in one direction: its outputs (n, t, size), and its last state."""
    layer = run.layer
    from_input = run.multiply(x, f"weight_ih{suffix}", f"bias_ih{suffix}")
    # The gates get the state as they get the input, but for a part of a gated unit's.
    gated = isinstance(layer, (nn.GRU, nn.GRUCell))
    added = torch.zeros_like(from_input).requires_grad_() if gated else run.products[-1].added
    zeros = added.unbind(1)
    matrix, bias = run.matrix(f"weight_hh{suffix}", x), run.value(f"bias_hh{suffix}", x)
    projection = run.value(f"weight_hr{suffix}", x)
    before, unprojected, sequence = [], [], []
    projected = x.new_zeros((*x.shape[:2], 0 if projection is None else len(projection))).requires_grad_()
    for now, zero, extra in zip(from_input.unbind(1), zeros, projected.unbind(1), strict=True):
        before.append(state[0].detach())
        from_state = nn.functional.linear(state[0], matrix, bias)
        state = _step(layer, now, from_state + zero if gated else from_state, state)
        if projection is not None:
            unprojected.append(state[0].detach())
            state = (nn.functional.linear(state[0], projection) + extra, *state[1:])
        sequence.append(state[0])
    run.products.append(_Product(f"weight_hh{suffix}", f"bias_hh{suffix}", torch.stack(before, dim=1), added))
    if projection is not None:
        run.products.append(_Product(f"weight_hr{suffix}", None, torch.stack(unprojected, dim=1), projected))
    return torch.stack(sequence, dim=1), state


def _step(layer: Any, from_input: torch.Tensor, from_state: torch.Tensor, state: State) -> State:
    """The state after a step, from the pre-activations of the gates (n, gates * size)."""
    if isinstance(layer, (nn.LSTM, nn.LSTMCell)):
        take, keep, new, give = (from_input + from_state).chunk(4, dim=1)
        inner = keep.sigmoid() * state[1] + take.sigmoid() * new.tanh()
        return give.sigmoid() * inner.tanh(), inner
    if isinstance(layer, (nn.GRU, nn.GRUCell)):
        (reset, keep, new), (reset_h, keep_h, new_h) = from_input.chunk(3, dim=1), from_state.chunk(3, dim=1)
        share = (keep + keep_h).sigmoid()
        candidate = (new + (reset + reset_h).sigmoid() * new_h).tanh()
        return ((1.0 - share) * candidate + share * state[0],)
    total = from_input + from_state
    return (total.relu() if layer.nonlinearity == "relu" else total.tanh(),)
