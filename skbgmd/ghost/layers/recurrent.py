"""Recurrent layers and cells: linear layers of the input and of the previous state at every step.

Torch's own recurrent layers give no gradient at their gates, so they are run again, and back through time, by hand:
no graph is made and no parameter's gradient is computed. Tensors over all steps have the steps along the first axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from skbgmd.ghost.factors import DenseFactor, Factor, outer_product
from skbgmd.ghost.layers.linear import sum_positions
from skbgmd.ghost.registry import Factors, register_rule

#: Hidden states of n samples, (n, size), and the cells' for long short-term memory; or gradients of them, or None.
State = tuple[torch.Tensor, ...]
StateGradients = Sequence[torch.Tensor | None]


@register_rule(nn.RNN, nn.LSTM, nn.GRU)
def recurrent(layer: Any, inputs: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> Factors:
    """Factors of all layers and directions, from the gradients of the sequence and of the last states."""
    if layer.training and layer.dropout > 0.0 and layer.num_layers > 1:
        raise NotImplementedError("dropout between the layers draws other numbers when they are run again")
    if inputs[0].ndim != 3:
        raise NotImplementedError("sequences must be in a tensor of three dimensions, all of one length")
    x, begin = inputs[0], inputs[1:]
    of_sequence, *of_states = gradients
    if layer.batch_first:
        x = x.transpose(0, 1)
        of_sequence = None if of_sequence is None else of_sequence.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    runs: list[_Run] = []
    for number in range(layer.num_layers):
        for backward in range(directions):
            before = tuple(state[len(runs)] for state in begin)
            suffix = f"_l{number}" + "_reverse" * backward
            runs.append(_run_of(layer)(layer, x.flip(0) if backward else x, before, suffix))
        sequences = [run.sequence.flip(0) if place else run.sequence for place, run in enumerate(runs[-directions:])]
        x = sequences[0] if directions == 1 else torch.cat(sequences, dim=2)
    factors: dict[str, Factor] = {}
    for first in range(len(runs) - directions, -1, -directions):
        of_input = []
        parts = [None] * directions if of_sequence is None else of_sequence.chunk(directions, dim=2)
        for backward, part in enumerate(parts):
            run, line = runs[first + backward], first + backward
            ends = [None if state is None else state[line] for state in of_states]
            factors |= run.factors(part if part is None or not backward else part.flip(0), ends)
            if first:
                given = run.given_gradient()
                of_input.append(given.flip(0) if backward else given)
        of_sequence = sum(of_input[1:], of_input[0]) if first else None
    return factors


@register_rule(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def cell(layer: Any, inputs: Sequence[torch.Tensor], gradients: Any) -> Factors:
    """Factors of a single step."""
    x, *state = inputs
    if x.ndim != 2:
        raise NotImplementedError("samples must be in a batch")
    run = _run_of(layer)(layer, x[None], tuple(state), "")
    return run.factors(None, gradients if isinstance(gradients, tuple) else (gradients,))


def _run_of(layer: Any) -> type[_Run]:
    if isinstance(layer, (nn.LSTM, nn.LSTMCell)):
        return _LongShortTermRun
    return _GatedRun if isinstance(layer, (nn.GRU, nn.GRUCell)) else _PlainRun


class _Run(ABC):
    """One layer run in one direction over t steps for n samples.

    Parameters
    ----------
    layer : Module
        The layer.
    x : tensor of shape (t, n, d)
        Its input.
    state : tuple of tensors of shape (n, size)
        States at the beginning; none: zeros.
    suffix : str
        What the names of the parameters end with.
    """

    #: States of a sample.
    n_states = 1

    def __init__(self, layer: Any, x: torch.Tensor, state: State, suffix: str) -> None:
        self.layer, self.x, self.suffix = layer, x, suffix
        t, n = x.shape[:2]
        self.weight, self.projection = self._required("weight_hh"), self._value("weight_hr")
        size = self.weight.shape[1]
        #: Hidden states before each step, and after the last, (t + 1, n, size).
        self.hidden = x.new_empty((t + 1, n, size))
        begin = state or tuple(x.new_zeros((n, width)) for width in (size, layer.hidden_size)[: self.n_states])
        self.hidden[0] = begin[0]
        self._forward(begin)

    @property
    def sequence(self) -> torch.Tensor:
        """Hidden states after each step, (t, n, size)."""
        return self.hidden[1:]

    def factors(self, of_sequence: torch.Tensor | None, of_ends: StateGradients) -> dict[str, Factor]:
        """Factors from the gradients of the sequence (t, n, size) and of the last states (n, size)."""
        if of_sequence is None:
            of_sequence = torch.zeros_like(self.sequence)
        if of_ends[0] is not None:
            of_sequence = torch.cat([of_sequence[:-1], (of_sequence[-1] + of_ends[0])[None]])
        found: dict[str, Factor] = {}
        lefts = self._backward(of_sequence, of_ends[1:])
        sums: dict[int, torch.Tensor] = {}
        for name, right in (("ih", self.x), ("hh", self.hidden[:-1]), *self._projected()):
            left = lefts[name].transpose(0, 1)
            found[f"weight_{name}{self.suffix}"] = outer_product(left, right.transpose(0, 1))
            if name != "hr":
                # Often the same of both.
                summed = sums.setdefault(id(lefts[name]), sum_positions(left))
                found[f"bias_{name}{self.suffix}"] = DenseFactor(summed)
        self._of_input = lefts["ih"]
        return found

    def given_gradient(self) -> torch.Tensor:
        """Gradient with respect to the input, (t, n, d), once there are factors."""
        return self._of_input @ self._required("weight_ih")

    def _value(self, name: str) -> torch.Tensor | None:
        """Values of a parameter, detached; None where the layer has none of that name."""
        parameter = getattr(self.layer, name + self.suffix, None)
        return parameter.detach().to(self.x.dtype) if isinstance(parameter, torch.Tensor) else None

    def _required(self, name: str) -> torch.Tensor:
        found = self._value(name)
        assert found is not None, name
        return found

    def _from_input(self, *, with_both: bool = True) -> torch.Tensor:
        """Products of the input, (t, n, gates * size), with one bias or the sum of both."""
        bias, other = self._value("bias_ih"), self._value("bias_hh")
        if bias is not None and other is not None and with_both:
            bias = bias + other
        return F.linear(self.x, self._required("weight_ih"), bias)

    def _projected(self) -> Sequence[tuple[str, torch.Tensor]]:
        """The product by ``weight_hr`` and the vectors (t, n, hidden size) that it multiplies, if there is one."""
        return ()

    @abstractmethod
    def _forward(self, begin: State) -> None:
        """Fill ``hidden`` from its first line on, and keep what the way back takes."""

    @abstractmethod
    def _backward(self, of_sequence: torch.Tensor, of_ends: StateGradients) -> dict[str, torch.Tensor]:
        """Gradients with respect to the products of each matrix, (t, n, units), from those of the sequence.

        That of the last hidden state is in ``of_sequence``; ``of_ends`` has those of the other last states.
        """


class _PlainRun(_Run):
    """``h' = tanh(W x + U h)``, or ``relu``."""

    def _forward(self, begin: State) -> None:
        act = torch.clamp_min if self.layer.nonlinearity == "relu" else torch.tanh
        limit = (0,) if self.layer.nonlinearity == "relu" else ()
        for now, before, after in zip(self._from_input(), self.hidden, self.hidden[1:], strict=False):
            act(now.addmm_(before, self.weight.T), *limit, out=after)

    def _backward(self, of_sequence: torch.Tensor, of_ends: StateGradients) -> dict[str, torch.Tensor]:
        h = self.sequence
        delta = (h > 0).to(h.dtype) if self.layer.nonlinearity == "relu" else 1.0 - h.square()
        later = None
        for now, of_h in zip(reversed(delta.unbind()), reversed(of_sequence.unbind()), strict=True):
            later = now.mul_(of_h if later is None else torch.addmm(of_h, later, self.weight))
        return {"ih": delta, "hh": delta}


class _LongShortTermRun(_Run):
    """``c' = f c + i g``, ``h' = o tanh(c')``, with gates ``i, f, g, o``, and ``h'`` multiplied by a matrix if any."""

    n_states = 2

    def _forward(self, begin: State) -> None:
        self.gates = self._from_input()
        size, weight = self.gates.shape[2] // 4, self.weight.T
        #: Cells before each step, and after the last, (t + 1, n, size); tanh of those after it.
        self.cells = self.hidden.new_empty((*self.hidden.shape[:2], size))
        self.cells[0] = begin[1]
        self.outer = torch.empty_like(self.cells[1:])
        self.unprojected = self.sequence if self.projection is None else torch.empty_like(self.outer)
        take, keep, new, give = (part.unbind() for part in self.gates.chunk(4, dim=2))
        gates, both, outer = self.gates.unbind(), self.gates[:, :, : 2 * size].unbind(), self.outer.unbind()
        cells, hidden, unprojected = self.cells.unbind(), self.hidden.unbind(), self.unprojected.unbind()
        for t in range(len(gates)):
            gates[t].addmm_(hidden[t], weight)
            both[t].sigmoid_()
            torch.mul(keep[t], cells[t], out=cells[t + 1]).addcmul_(take[t], new[t].tanh_())
            torch.mul(give[t].sigmoid_(), torch.tanh(cells[t + 1], out=outer[t]), out=unprojected[t])
            if self.projection is not None:
                torch.mm(unprojected[t], self.projection.T, out=hidden[t + 1])

    def _projected(self) -> Sequence[tuple[str, torch.Tensor]]:
        return () if self.projection is None else (("hr", self.unprojected),)

    def _backward(self, of_sequence: torch.Tensor, of_ends: StateGradients) -> dict[str, torch.Tensor]:
        take, keep, new, give = self.gates.chunk(4, dim=2)
        # What the gradients of the cells, or of the hidden states, are multiplied by: g (1 - g) for a gate.
        delta = torch.empty((*take.shape[:2], 4, take.shape[2]), dtype=take.dtype, device=take.device)
        of_take, of_keep, of_new, of_give = delta.unbind(2)
        torch.mul(take, new, out=of_take)
        torch.addcmul(take, of_take, new, value=-1.0, out=of_new)
        torch.mul(self.outer, give, out=of_give)
        lead = torch.addcmul(give, of_give, self.outer, value=-1.0)
        torch.mul(self.cells[:-1], keep, out=of_keep)
        for part, gate in ((of_take, take), (of_keep, keep), (of_give, give)):
            part.addcmul_(part, gate, value=-1.0)
        whole = delta.flatten(2)
        by_cell, by_hidden, flat = delta[:, :, :3].unbind(), of_give.unbind(), whole.unbind()
        of_outputs, leads, keeps = of_sequence.unbind(), lead.unbind(), keep.unbind()
        of_cell = lead.new_zeros(lead.shape[1:]) if of_ends[0] is None else of_ends[0].clone()
        every = of_cell[:, None]
        of_projected = None if self.projection is None else torch.empty_like(self.sequence)
        for t in reversed(range(len(delta))):
            of_h = of_outputs[t]
            if t + 1 < len(delta):
                of_h = torch.addmm(of_h, flat[t + 1], self.weight)
                of_cell.mul_(keeps[t + 1])
            if of_projected is not None and self.projection is not None:
                of_projected[t] = of_h
                of_h = of_h @ self.projection
            of_cell.addcmul_(of_h, leads[t])
            by_cell[t].mul_(every)
            by_hidden[t].mul_(of_h)
        return {"ih": whole, "hh": whole, **({} if of_projected is None else {"hr": of_projected})}


class _GatedRun(_Run):
    """``h' = (1 - z) n + z h`` with gates ``r, z`` and ``n = tanh(W x + r (U h))``."""

    def _forward(self, begin: State) -> None:
        self.gates, weight, bias = self._from_input(with_both=False), self.weight.T, self._value("bias_hh")
        size = self.weight.shape[1]
        #: ``U h`` of ``n``.
        self.recalled = torch.empty_like(self.sequence)
        parts = self.gates[:, :, : 2 * size].unbind(), self.gates[:, :, 2 * size :].unbind()
        for t, (both, new) in enumerate(zip(*parts, strict=True)):
            before = self.hidden[t]
            products = before @ weight if bias is None else torch.addmm(bias, before, weight)
            both.add_(products[:, : 2 * size]).sigmoid_()
            self.recalled[t] = products[:, 2 * size :]
            new.addcmul_(both[:, :size], self.recalled[t]).tanh_()
            torch.lerp(new, before, both[:, size:], out=self.hidden[t + 1])

    def _backward(self, of_sequence: torch.Tensor, of_ends: StateGradients) -> dict[str, torch.Tensor]:
        reset, keep, new = self.gates.chunk(3, dim=2)
        # What the gradients of the hidden states are multiplied by; of ``n`` for ``U h`` and for ``W x``.
        delta = torch.empty((*new.shape[:2], 4, new.shape[2]), dtype=new.dtype, device=new.device)
        of_reset, of_keep, of_recalled, of_new = delta.unbind(2)
        torch.sub(1.0, new.square(), out=of_new).addcmul_(of_new, keep, value=-1.0)
        torch.mul(of_new, reset, out=of_recalled)
        torch.mul(of_recalled, self.recalled, out=of_reset).addcmul_(of_reset, reset, value=-1.0)
        torch.sub(self.hidden[:-1], new, out=of_keep).mul_(keep).addcmul_(of_keep, keep, value=-1.0)
        flat, size = delta.flatten(2), new.shape[2]
        deltas, products, keeps = delta.unbind(), flat[:, :, : 3 * size].unbind(), keep.unbind()
        of_outputs = of_sequence.unbind()
        of_h = of_outputs[-1]
        for t in reversed(range(len(delta))):
            deltas[t].mul_(of_h[:, None])
            if t:
                of_h = torch.addmm(of_outputs[t - 1], products[t], self.weight).addcmul_(of_h, keeps[t])
        of_input = torch.cat([flat[:, :, : 2 * size], flat[:, :, 3 * size :]], dim=2)
        return {"ih": of_input, "hh": flat[:, :, : 3 * size]}
