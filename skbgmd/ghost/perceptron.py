"""A perceptron on a CPU: forward and backward passes by NumPy, in the tensors' own memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from skbgmd._utils.typing import FloatArray
from skbgmd.ghost.chain import Chain, Link
from skbgmd.ghost.derivatives import Backward
from skbgmd.ghost.layer_columns import Array, LayerColumns, squared_norms
from skbgmd.ghost.layers.activation import ACTIVATIONS
from skbgmd.ghost.perceptron_rows import PerceptronRows
from skbgmd.rows.blocks import ParameterBlock


class Layer(NamedTuple):
    """A linear layer and the activation after it.

    Attributes
    ----------
    link : Link
        The linear layer.
    activation : Link, or None
    weight, bias : ndarray of shape (q, p), (q,)
        Its parameters' own memory.
    start : int
        The column at which they begin.
    """

    link: Link
    activation: Link | None
    weight: Array
    bias: Array
    start: int


class Perceptron:
    """A chain of linear layers, each with an activation or none, whose parameters are on the CPU.

    A small network's step is calls more than products. NumPy's take a fraction of torch's, and its products of a few
    hundred rows half of the time, without threads that wait for the next one.

    Parameters
    ----------
    layers : list of Layer
        As :meth:`of` finds them.
    units : ParameterBlock
        Units of all parameters.
    """

    def __init__(self, layers: list[Layer], units: ParameterBlock) -> None:
        self.layers, self._units = layers, units
        self._parameters = [layer.link.layer.get_parameter(name) for layer in layers for name in ("weight", "bias")]
        self._places = self._found()
        self.dtype = self._parameters[0].dtype
        # Of the layers by their columns.
        self._order = sorted(range(len(layers)), key=lambda number: layers[number].start)

    @classmethod
    def of(cls, chain: Chain, units: ParameterBlock) -> Perceptron | None:
        """Find the perceptron that a chain is; None where it is none."""
        layers: list[Layer] = []
        first: Any = chain.links[0].layer
        if not isinstance(first, torch.nn.Linear) or first.weight.device.type != "cpu":
            return None
        for link in chain.links:
            if link.is_affine:
                weight, bias = (link.layer.get_parameter(name).detach().numpy() for name in ("weight", "bias"))
                layers.append(Layer(link, None, weight, bias, link.columns[0][1]))
            elif layers and layers[-1].activation is None and link.rule is None and link.derivative in ACTIVATIONS:
                layers[-1] = layers[-1]._replace(activation=link)
            else:
                return None
        covered = sum(layer.weight.size + layer.bias.size for layer in layers)
        return cls(layers, units) if covered == units.total else None

    @property
    def is_in_place(self) -> bool:
        """The parameters are where they were."""
        return self._found() == self._places

    def _found(self) -> list[Any]:
        return [(each.data_ptr(), each.dtype, each.shape, each.stride()) for each in self._parameters]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[Array], list[Backward | None]]:
        """Output (n, c) for a batch (n, p), and each layer's input and the way back through its activation."""
        given, back = [], []
        values = x.numpy()
        for layer in self.layers:
            given.append(values)
            values = values.dot(layer.weight.T)
            values += layer.bias
            way = None
            if layer.activation is not None:
                output, way = layer.activation.derivative(layer.activation.layer, torch.from_numpy(values))
                values = output.numpy()
            back.append(way)
        return torch.from_numpy(values), given, back

    def rows(
        self, given: list[Array], back: list[Backward | None], gradient: torch.Tensor, weights: FloatArray
    ) -> PerceptronRows:
        """Per-sample gradients, from that (n, c) of the summed losses with respect to the output."""
        lefts: list[Array] = []
        for number in range(len(self.layers) - 1, -1, -1):
            way = back[number]
            left = (gradient if way is None else way(gradient)).numpy()
            lefts.append(left)
            if number:
                gradient = torch.from_numpy(left.dot(self.layers[number].weight))
        parts = [
            LayerColumns(layer.start, left, left, right, squared_norms(right))
            for layer, left, right in zip(self.layers, reversed(lefts), given, strict=True)
        ]
        return PerceptronRows([parts[place] for place in self._order], self._units.total, weights, self._units)
