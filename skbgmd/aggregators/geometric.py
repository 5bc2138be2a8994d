"""The geometric median of rows, and that of a block of columns with what it carries from step to step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from skbgmd.aggregators.base import Aggregate, Aggregator, AggregatorState, RowWeighting, check_rows, usable_rows
from skbgmd.aggregators.few_far import few_far
from skbgmd.aggregators.huber import Huberised, huberised_weights
from skbgmd.aggregators.rejection import check_rejection, median_weights
from skbgmd.aggregators.scale import Scale
from skbgmd.arrays import check_choice, check_integer, check_number
from skbgmd.block import (
    BLOCKS,
    COMPLEMENTS,
    MEMORY_RULES,
    SELECTIONS,
    BlockPart,
    block_step,
    clip_factors,
    outside_norms,
    select_block,
    take_norms,
)
from skbgmd.gram import BoolArray, FloatArray, factors_to
from skbgmd.median import lower_weighted_median
from skbgmd.randomness import torch_generator
from skbgmd.rows import Rows

#: What may be done where many rows are tied.
TIES = ("median", "huber")


class GeometricMedian(RowWeighting):
    """The geometric median of the rows (GMD's aggregate); breakdown point 1/2.

    Parameters
    ----------
    rejection : float or None, default=None
        Leave out rows farther from the median than this many times the median distance, more than 1, and take the
        median of the others. Rows that are far off then have no influence at all, where on the median alone they have
        as much as any other.
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

    def __init__(self, rejection: float | None = None, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.rejection, self.tol, self.max_iter = rejection, tol, max_iter

    def _validate(self) -> None:
        check_rejection(self.rejection)
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.gram(tol=self.tol).finite

    def _weigh(self, rows: Rows) -> FloatArray:
        return median_weights(rows, self.rejection, tol=self.tol, max_iter=self.max_iter)


@dataclass(frozen=True)
class BlockState(AggregatorState):
    """What :class:`BlockGeometricMedian` carries from one call to the next.

    Attributes
    ----------
    memory : tensor of shape (d,), or None
        What earlier steps left out.
    step : int
        Calls so far: together with the seed it decides what is drawn.
    scale, outside : Scale
        Typical distance on the block, and typical norm outside of it, as they are remembered.
    """

    memory: torch.Tensor | None = None
    step: int = 0
    scale: Scale = field(default_factory=Scale)
    outside: Scale = field(default_factory=Scale)


class BlockGeometricMedian(Aggregator):
    """Geometric median on a block of columns, carried over to the others (BGMD's aggregate).

    The step of :func:`skbgmd.block_geometric_median` with its state.

    Parameters
    ----------
    beta, selection, complement, memory_rule, clip_scores, run_length
        As in :func:`skbgmd.block_geometric_median`. ``complement="memory"`` keeps the memory in the state.
    block : {"coordinate", "unit"}, default="coordinate"
        What is selected: single columns (or runs of them), or, where the rows are gradients of parameters, whole
        slices of them along their first axis, such as the weights of one output.
    huber : float or None, default=None
        If given, rows nearer to the median than so many typical distances count in full, and farther ones by their
        direction, as in :class:`HuberMean`. The typical distance of a step is the median distance; where many rows are
        tied, as those of empty, constant or repeated samples are, it is that of the others, see
        :func:`skbgmd.aggregators.huber.typical_distance`. What counts is the median of the last five steps' or, if
        that is larger, an earlier such one, which fades by 0.1 % a step: as samples are learnt their gradients
        shrink, and those that are yet to be learnt would look like outliers. For rows that are single samples.
    rejection : float or None, default=None
        As in :class:`GeometricMedian`, on the block; with ``huber``, in typical distances as they are remembered.
    ties : {"median", "huber"}, default="median"
        Without ``huber``, where many rows are tied. "median": they may be the geometric median, whatever the others
        are. "huber": the others have a say, by Huber's mean with the typical distance as its length. For rows that are
        single samples.
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
        block: str = "coordinate",
        huber: float | None = None,
        rejection: float | None = None,
        ties: str = "median",
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: int | None = None,
    ) -> None:
        self.beta, self.selection, self.complement, self.memory_rule = beta, selection, complement, memory_rule
        self.clip_scores, self.run_length, self.random_state = clip_scores, run_length, random_state
        self.block, self.huber, self.rejection, self.ties = block, huber, rejection, ties
        self.tol, self.max_iter = tol, max_iter

    @classmethod
    def published(cls, beta: float = 0.1, random_state: int | None = None) -> Self:
        """The rule of the paper's Algorithms 1 and 2: blocks sampled by unclipped scores, and the mean memory.

        It is here to be compared with: one corrupt row decides the block and sends the memory anywhere.
        """
        return cls(
            beta,
            selection="sample",
            complement="memory",
            memory_rule="mean",
            clip_scores=False,
            random_state=random_state,
        )

    def __call__(self, rows: Rows, state: BlockState | None = None) -> tuple[Aggregate, BlockState]:
        self._validate()
        check_rows(rows)
        state = state or BlockState()
        # What was left out before counts only where it is kept.
        before = state.memory if self.complement == "memory" else None
        if before is not None and len(before) != rows.n_columns:
            before = None  # of other columns: parameters were frozen or thawed
        if self.beta < 1.0 and self.block == "coordinate":
            take_norms(rows, self.selection, self.run_length, before)
        by_norms = self.huber is not None and self.beta == 1.0 and self.complement != "memory" and rows.gram_is_dear
        # Without a block the Gram matrix is all that is asked for, and knows which rows are finite.
        usable = usable_rows(rows, rows.finite if by_norms or self.beta < 1.0 else rows.gram().finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        if self.huber is not None and by_norms:
            found = few_far(some, self.huber, self.rejection, state.scale, tol=self.tol, max_iter=self.max_iter)
            if found is not None:
                weights = np.zeros(rows.n_rows)
                weights[usable] = found.weights
                return Aggregate(found.vector, weights, None, 1.0), replace(
                    state, step=state.step + 1, scale=found.scale
                )
        block = select_block(
            some,
            self.beta,
            selection=self.selection,
            clip=self.clip_scores,
            run_length=self.run_length,
            units=rows.units if self.block == "unit" else None,
            memory=before,
            generator=self._generator(state.step, rows.device),
        )
        inside = some if len(block) == some.n_columns else some.block(block)
        judged = self._judge(inside, state.scale)
        after = replace(state, step=state.step + 1, scale=judged.scale)
        part, clip = BlockPart(block, inside, judged.weights), None
        if (self.huber is not None or judged.tied) and len(block) < some.n_columns:
            norms = outside_norms(some, part)
            now = lower_weighted_median(norms, some.weights)
            if judged.tied:
                # The tied rows may have next to nothing off the block, where the others have most of theirs.
                now = max(now, judged.scale.value)
            limit = state.outside.after(now)
            clip = factors_to((self.huber or 1.0) * limit.value, norms)
            after = replace(after, outside=limit)
        vector, memory = block_step(
            some,
            part,
            complement=self.complement,
            memory_rule=self.memory_rule,
            memory=before,
            outside=clip,
        )
        weights = np.zeros(rows.n_rows)
        weights[usable] = judged.weights
        looked_at = None if len(block) == rows.n_columns else block.indices
        return Aggregate(vector, weights, looked_at, self._mass(some, part)), replace(after, memory=memory)

    def _judge(self, rows: Rows, before: Scale) -> Huberised:
        """Weights of the rows, and the scale they were judged by."""
        if self.huber is None and self.ties == "median":
            weights = median_weights(rows, self.rejection, tol=self.tol, max_iter=self.max_iter)
            return Huberised(weights, before, tied=False)
        return huberised_weights(rows, self.huber, self.rejection, before, tol=self.tol, max_iter=self.max_iter)

    def _mass(self, rows: Rows, part: BlockPart) -> float:
        if len(part.columns) == rows.n_columns:
            return 1.0
        scale = clip_factors(rows.norms(), rows.weights) if self.clip_scores else np.ones(rows.n_rows)
        whole, inside = scale * rows.norms(), scale * part.rows.norms()
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
        check_choice(self.block, "block", BLOCKS)
        if self.huber is not None:
            check_number(self.huber, "huber")
        check_rejection(self.rejection)
        check_choice(self.ties, "ties", TIES)
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
