"""Aggregators built on distances to a robust centre: Huber mean, geometric median, block geometric median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skbgmd.aggregators.base import Aggregate, Aggregator, AggregatorState, RowWeighting, usable_rows
from skbgmd.arrays import check_choice, check_integer, check_number
from skbgmd.block import (
    COMPLEMENTS,
    MEMORY_RULES,
    SELECTIONS,
    BlockPart,
    block_step,
    clip_factors,
    select_block,
)
from skbgmd.gram import FloatArray, Gram
from skbgmd.median import lower_weighted_median, row_weights
from skbgmd.randomness import torch_generator
from skbgmd.rows import Rows
from skbgmd.spaces import GramSpace


class GeometricMedian(RowWeighting):
    """The geometric median of the rows (GMD's aggregate); breakdown point 1/2.

    Parameters
    ----------
    tol : float, default=1e-6
        Proved relative accuracy, as in :func:`skbgmd.geometric_median`. There is no warning where it isn't reached.
    max_iter : int, default=100
        Largest number of steps.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import GeometricMedian
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [1e9, 5e8]]))
    >>> GeometricMedian()(rows)[0].vector
    tensor([1., 1.])
    """

    def __init__(self, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.tol, self.max_iter = tol, max_iter

    def _validate(self) -> None:
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _weigh(self, rows: Rows) -> FloatArray:
        weights: FloatArray = row_weights(rows, tol=self.tol, max_iter=self.max_iter)[0].weights
        return weights


class HuberMean(RowWeighting):
    r"""Huber's M-estimate of location: near rows count in full, far rows by their direction.

    Minimises :math:`\sum_i a_i \rho(\lVert x_i - y \rVert)` with :math:`\rho(t) = t^2 / 2` up to :math:`c M`
    and linear beyond; :math:`M` is the median distance of the rows to their geometric median. Weights
    :math:`\propto a_i \min(1, c M / d_i)`, iterated in the Gram matrix. A large ``c`` gives the mean, a small one the
    geometric median.

    Parameters
    ----------
    c : float, default=1.0
        Distance, in median distances, from which a row's weight falls.
    tol : float, default=1e-6
        Stop when no weight changes by more than this, in shares of 1/n.
    max_iter : int, default=100
        Largest number of iterations.
    """

    def __init__(self, c: float = 1.0, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.c, self.tol, self.max_iter = c, tol, max_iter

    def _validate(self) -> None:
        check_number(self.c, "c")
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _weigh(self, rows: Rows) -> FloatArray:
        solution, gram, _ = row_weights(rows, tol=max(self.tol, 1e-4), max_iter=self.max_iter)
        return huber_weights(gram, rows.weights, solution.weights, self.c, tol=self.tol, max_iter=self.max_iter)


def huber_weights(
    gram: Gram, weights: FloatArray, start: FloatArray, c: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Weights of Huber's location estimate with scale from the distances to ``start @ rows``; they add up to one.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows.
    weights, start : ndarray of shape (n,)
        Positive row weights; weights, adding up to one, of a robust first estimate.
    c, tol, max_iter
        As in :class:`HuberMean`.
    """
    space = GramSpace(gram.products, weights, gram.rounding)
    current = start
    distances = space.distances(space.vector(current))
    limit = c * lower_weighted_median(distances, weights)
    for _ in range(max_iter):
        # With a limit of zero most rows coincide: they are the estimate.
        factor = np.where(distances <= limit, 1.0, limit / np.where(distances > limit, distances, 1.0))
        new = weights * factor
        new /= new.sum()
        change = np.abs(new - current).max() * len(new)
        current = new
        if change <= tol:
            break
        distances = space.distances(space.vector(current))
    return gram.restore(current)


@dataclass(frozen=True)
class BlockState(AggregatorState):
    """What :class:`BlockGeometricMedian` carries from one call to the next.

    Attributes
    ----------
    memory : tensor of shape (d,), or None
        What earlier steps left out.
    step : int
        Calls so far: together with the seed it decides what is drawn.
    """

    memory: torch.Tensor | None = None
    step: int = 0


class BlockGeometricMedian(Aggregator):
    """Geometric median on a block of columns, carried over to the others (BGMD's aggregate).

    The step of :func:`skbgmd.block_geometric_median` with its state.

    Parameters
    ----------
    beta, selection, complement, memory_rule, clip_scores, run_length
        As in :func:`skbgmd.block_geometric_median`. ``complement="memory"`` keeps the memory in the state.
    tol : float, default=1e-6
    max_iter : int, default=100
        As in :class:`GeometricMedian`.
    random_state : int or None, default=None
        Seed for ``selection`` "sample" and "uniform"; each call draws afresh. None: another seed each call.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import BlockGeometricMedian
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.randn(8, 100, generator=torch.Generator().manual_seed(0)))
    >>> aggregator = BlockGeometricMedian(beta=0.2, complement="memory")
    >>> aggregate, state = aggregator(rows)
    >>> aggregate, state = aggregator(rows, state)
    >>> int((aggregate.vector != 0).sum()), state.step
    (20, 2)
    """

    def __init__(
        self,
        beta: float = 0.1,
        selection: str = "top",
        complement: str = "weighted",
        memory_rule: str = "weighted",
        clip_scores: bool = True,
        run_length: int = 1,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: int | None = None,
    ) -> None:
        self.beta, self.selection, self.complement, self.memory_rule = beta, selection, complement, memory_rule
        self.clip_scores, self.run_length, self.random_state = clip_scores, run_length, random_state
        self.tol, self.max_iter = tol, max_iter

    def __call__(self, rows: Rows, state: BlockState | None = None) -> tuple[Aggregate, BlockState]:
        self._validate()
        state = state or BlockState()
        usable = usable_rows(rows, rows.finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        block = select_block(
            some,
            self.beta,
            selection=self.selection,
            clip=self.clip_scores,
            run_length=self.run_length,
            memory=state.memory,
            generator=self._generator(state.step, rows.device),
        )
        inside = some.block(block)
        solution, _, _ = row_weights(inside, tol=self.tol, max_iter=self.max_iter)
        part = BlockPart(block, solution.weights, inside.norms())
        vector, memory = block_step(
            some,
            part,
            complement=self.complement,
            memory_rule=self.memory_rule,
            memory=state.memory,
        )
        weights = np.zeros(rows.n_rows)
        weights[usable] = solution.weights
        return Aggregate(vector, weights, block.indices, self._mass(some, part)), BlockState(memory, state.step + 1)

    def _mass(self, rows: Rows, part: BlockPart) -> float:
        scale = clip_factors(rows.norms(), rows.weights) if self.clip_scores else np.ones(rows.n_rows)
        whole, inside = scale * rows.norms(), scale * part.norms
        unit = float(whole.max())  # so that no square overflows
        if unit == 0.0:
            return 1.0
        return min(1.0, float(rows.weights @ (inside / unit) ** 2 / (rows.weights @ (whole / unit) ** 2)))

    def _validate(self) -> None:
        check_number(self.beta, "beta", at_most=1.0)
        check_choice(self.selection, "selection", SELECTIONS)
        check_choice(self.complement, "complement", COMPLEMENTS)
        check_choice(self.memory_rule, "memory_rule", MEMORY_RULES)
        check_integer(self.run_length, "run_length")
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _generator(self, step: int, device: torch.device) -> torch.Generator | None:
        if self.selection == "top":
            return None
        return torch_generator(step_seed(self.random_state, step), device)


def step_seed(random_state: Any, step: int) -> Any:
    """A seed of its own for every call: from the aggregator's seed and the number of the call; None stays None."""
    if random_state is None:
        return None
    return np.random.default_rng([check_integer(random_state, "random_state", at_least=0), step])
