"""Per-sample gradients of a perceptron on a CPU: products by NumPy, in the tensors' own memory."""

from __future__ import annotations

import math
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.typing import FloatArray
from skbgmd.ghost.chain import Chain, Link
from skbgmd.ghost.derivatives import Backward
from skbgmd.ghost.factors import AffineFactor, DenseFactor, JoinedFactor, OuterProductFactor
from skbgmd.ghost.layers.activation import ACTIVATIONS
from skbgmd.ghost.rows import GhostRows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.few import FewRows

Array = NDArray[Any]
IntArray = NDArray[np.int64]
CPU = torch.device("cpu")


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
            values = np.matmul(values, layer.weight.T)
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
                gradient = torch.from_numpy(np.matmul(left, self.layers[number].weight))
        parts = [
            Part(layer.start, left, left, right, squared_norms(right))
            for layer, left, right in zip(self.layers, reversed(lefts), given, strict=True)
        ]
        parts.sort(key=attrgetter("start"))
        return PerceptronRows(parts, self._units.total, weights, self._units)


class Part(NamedTuple):
    """Columns of a layer in the rows.

    Attributes
    ----------
    start : int
        Where they begin.
    left : ndarray of shape (n, k)
        Gradients with respect to the outputs of the units whose weights are among the columns.
    left_of_bias : ndarray of shape (n, m)
        Those of the units whose biases are; the same array, where all are.
    right : ndarray of shape (n, p)
        Inputs.
    right_squares : ndarray of shape (n,)
        Their squared norms.
    """

    start: int
    left: Array
    left_of_bias: Array
    right: Array
    right_squares: Array

    @property
    def is_whole(self) -> bool:
        """All units' weights and biases are among the columns."""
        return self.left is self.left_of_bias

    @property
    def n_weights(self) -> int:
        """Columns that are weights."""
        n_weights: int = self.left.shape[1] * self.right.shape[1]
        return n_weights

    def squares(self) -> Array:
        """Squared norms of the rows in these columns, (n,)."""
        if self.is_whole:
            return squared_norms(self.left) * (self.right_squares + 1.0)
        return squared_norms(self.left) * self.right_squares + squared_norms(self.left_of_bias)

    def of(self, vector: Array) -> tuple[Array, Array]:
        """Weights (k, p) and biases (m,) of a vector of all columns."""
        stop = self.start + self.n_weights
        weights = vector[self.start : stop].reshape(self.left.shape[1], self.right.shape[1])
        return weights, vector[stop : stop + self.left_of_bias.shape[1]]

    def chosen(self, block: ParameterBlock) -> tuple[IntArray, IntArray]:
        """Units of a block whose weights, and whose biases, are among the columns."""
        n_units = self.left.shape[1]
        units = block.within(self.start, self.start + self.n_weights + n_units)
        n_weights = int(units.searchsorted(n_units))
        return units[:n_weights], units[n_weights:] - n_units

    def at(self, index: Any) -> Part:
        """Select rows."""
        left = self.left[index]
        of_bias = left if self.is_whole else self.left_of_bias[index]
        return Part(self.start, left, of_bias, self.right[index], self.right_squares[index])

    def write_sum(self, line: Array, out: Array) -> None:
        """Write ``line @ rows``, (n,), to these columns of a vector."""
        weights, biases = self.of(out)
        if self.is_whole and self.left.shape[1] <= self.right.shape[1]:
            scaled = self.left * line[:, None]
            np.matmul(scaled.T, self.right, out=weights)
            np.add.reduce(scaled, axis=0, out=biases)
        else:
            np.matmul(self.left.T, self.right * line[:, None], out=weights)
            np.matmul(line, self.left_of_bias, out=biases)


class PerceptronRows(GhostRows):
    """Rows of a perceptron's per-sample gradients, or of some of their columns, on a CPU.

    Parameters
    ----------
    parts : list of Part
        The columns, layer by layer, in their order.
    n_columns : int
    weights : ndarray of shape (n,)
        Weights of the rows.
    units : ParameterBlock, default=None
        Units of the parameters.
    """

    def __init__(
        self, parts: list[Part], n_columns: int, weights: FloatArray, units: ParameterBlock | None = None
    ) -> None:
        self._parts, self.n_columns, self.weights, self.units = parts, n_columns, weights, units
        self.n_rows = len(weights)
        self._float = parts[0].left.dtype
        self.dtype = torch.float64 if self._float == np.float64 else torch.float32
        self.device = CPU

    @cached_property
    def _given(self) -> list[tuple[int, JoinedFactor]]:  # type: ignore[override]
        # For what isn't said here in NumPy.
        found: list[tuple[int, JoinedFactor]] = []
        for part in self._parts:
            left, right = torch.from_numpy(part.left), torch.from_numpy(part.right)
            if part.is_whole:
                found.append((part.start, AffineFactor(left, right)))
                continue
            if part.n_weights:
                found.append((part.start, OuterProductFactor(left.unsqueeze(1), right.unsqueeze(1))))
            if part.left_of_bias.shape[1]:
                found.append((part.start + part.n_weights, DenseFactor(torch.from_numpy(part.left_of_bias))))
        return found

    @property
    def input_squares(self) -> Array:
        """Squared norms (n,) of what all layers were given."""
        squares: Array = sum((part.right_squares for part in self._parts[1:]), self._parts[0].right_squares)
        return squares

    def norms(self, run_length: int = 1) -> FloatArray:
        if self._norms is None:
            squares = self._parts[0].squares()
            for part in self._parts[1:]:
                squares += part.squares()
            if not math.isfinite(squares.sum()):
                # Squares that have no number in float32 may have one in float64.
                return super().norms(run_length)
            self._norms = np.sqrt(squares, dtype=np.float64)
        return self._norms

    def weighted_sum(self, weights: FloatArray, dtype: torch.dtype | None = None) -> torch.Tensor:
        if weights.ndim > 1 or dtype not in (None, self.dtype) or not self.finite.all():
            return super().weighted_sum(weights, dtype)
        result, line = self._empty_array(), weights.astype(self._float)
        for part in self._parts:
            part.write_sum(line, result)
        return torch.from_numpy(result)

    def weighted_sum_by_block(
        self, on_block: FloatArray, elsewhere: FloatArray, block: CoordinateBlock | ParameterBlock
    ) -> torch.Tensor:
        if isinstance(block, CoordinateBlock) or not self._is_whole or not self.finite.all():
            return super().weighted_sum_by_block(on_block, elsewhere, block)
        result = self._empty_array()
        inside, outside = (weights.astype(self._float)[:, None] for weights in (on_block, elsewhere))
        for part in self._parts:
            weights, biases = part.of(result)
            of_weights, of_biases = part.chosen(block)
            scaled = part.left * outside
            np.add.reduce(scaled, axis=0, out=biases)
            biases[of_biases] = (inside[:, 0] @ part.left)[of_biases] if len(of_biases) else 0.0
            scaled[:, of_weights] = part.left[:, of_weights] * inside
            np.matmul(scaled.T, part.right, out=weights)
        return torch.from_numpy(result)

    def unit_scores(self, units: ParameterBlock, scale: FloatArray, shift: torch.Tensor | None = None) -> torch.Tensor:
        if shift is not None or not self._is_whole or not self._have_squares(self.norms()):
            return super().unit_scores(units, scale, shift)
        scores = np.empty(len(units.starts), dtype=self._float)
        factors = (self.weights * scale**2).astype(self._float)
        for part in self._parts:
            first, n_units = units.at(part.start), part.left.shape[1]
            both = np.stack([factors * part.right_squares, factors]) @ np.square(part.left)
            scores[first : first + 2 * n_units] = both.reshape(-1)
        return torch.from_numpy(scores) if math.isfinite(scores.sum()) else super().unit_scores(units, scale)

    def block(self, columns: CoordinateBlock | ParameterBlock) -> Any:
        if isinstance(columns, CoordinateBlock) or not self._is_whole:
            return super().block(columns)
        parts = []
        for part in self._parts:
            of_weights, of_biases = part.chosen(columns)
            if len(of_weights) or len(of_biases):
                begin = columns.before(part.start)
                left, left_of_bias = part.left[:, of_weights], part.left[:, of_biases]
                parts.append(Part(begin, left, left_of_bias, part.right, part.right_squares))
        rows = PerceptronRows(parts, len(columns), self.weights)
        rows.ids = self.ids
        return rows

    def few(self, index: NDArray[np.intp]) -> FewRows:
        return FewPerceptronRows([part.at(index) for part in self._parts])

    @property
    def _is_whole(self) -> bool:
        return all(part.is_whole for part in self._parts)

    def _empty_array(self) -> Array:
        return np.empty(self.n_columns, dtype=self._float)


class FewPerceptronRows:
    """A few of the rows, for products and a sum; see :class:`skbgmd.rows.few.FewRows`."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def products(self) -> FloatArray | None:
        """Inner products of the k rows, float64 (k, k); None where they are out of range."""
        total: Any = 0.0
        for part in self._parts:
            inputs = part.right @ part.right.T
            if part.is_whole:
                total += (part.left @ part.left.T) * (inputs + 1.0)
            else:
                total += (part.left @ part.left.T) * inputs + part.left_of_bias @ part.left_of_bias.T
        products: FloatArray = total.astype(np.float64)
        return products if math.isfinite(products.sum()) else None

    def inner_products(self, total: torch.Tensor, weights: FloatArray) -> FloatArray:
        """Inner products of the k rows with ``total``, which is ``weights @ rows`` of all rows, float64 (k,)."""
        found: Any = 0.0
        for part in self._parts:
            of_weights, of_biases = part.of(total.numpy())
            if part.is_whole:
                found += np.add.reduce((part.right @ of_weights.T + of_biases) * part.left, axis=1)
            else:
                found += np.add.reduce((part.right @ of_weights.T) * part.left, axis=1) + part.left_of_bias @ of_biases
        products: FloatArray = found.astype(np.float64)
        return products

    def add_to(self, vector: torch.Tensor, scale: float, weights: FloatArray) -> torch.Tensor:
        """Make a vector (d,) ``scale * vector + weights @ rows`` of the k rows, and return it."""
        whole = vector.numpy()
        line = weights.astype(whole.dtype)
        whole *= whole.dtype.type(scale)
        for part in self._parts:
            of_weights, of_biases = part.of(whole)
            np.add(of_weights, (part.left * line[:, None]).T @ part.right, out=of_weights)
            np.add(of_biases, line @ part.left_of_bias, out=of_biases)
        return vector


def squared_norms(matrix: Array) -> Array:
    """Squared norms of the lines of a matrix (n, p), (n,)."""
    squares: Array = np.einsum("ij,ij->i", matrix, matrix)
    return squares
