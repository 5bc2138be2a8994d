"""Block coordinate geometric median (BGMD's aggregate), with its state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils.checks import check_choice, check_integer, check_number, check_once
from skbgmd._utils.random import step_seed, torch_generator
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    Judgement,
    LocationRule,
    check_rows,
    state_of,
    usable_rows,
)
from skbgmd.aggregators.geometric_median import GeometricMedian
from skbgmd.aggregators.memory import Scale
from skbgmd.location.block import PUBLISHED
from skbgmd.location.block_memory import MEMORY_RULES
from skbgmd.location.block_selection import BLOCKS, SELECTIONS, median_clip_factors, select_block, take_norms
from skbgmd.location.off_block import OFF_BLOCK_RULES, BlockPart, block_step, off_block_norms
from skbgmd.rows import Rows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.gram import lower_weighted_median


@dataclass(frozen=True)
class BlockState(AggregatorState):
    """State of :class:`BlockGeometricMedian`.

    Attributes
    ----------
    memory : tensor of shape (d,), or None
        Off-block parts that earlier steps left out.
    step : int
        Number of calls so far; each call draws with a seed of its own.
    location : object
        State of the location rule.
    off_block : Scale
        Typical norm of off-block parts over the steps.
    n_columns : int
        Number of columns of the rows that the memory belongs to, in all processes; 0: unknown.
    """

    memory: torch.Tensor | None = None
    step: int = 0
    location: Any = None
    off_block: Scale = field(default_factory=Scale)
    n_columns: int = 0


class BlockGeometricMedian(Aggregator):
    """Block coordinate geometric median (BGMD's aggregate): a robust weighted mean by a block of columns.

    It takes the step of :func:`skbgmd.block_geometric_median` and carries the state from call to call. ``location`` may
    replace the geometric median by another robust location rule.

    Parameters
    ----------
    beta : float, default=0.1
        Share of the columns in the block, in (0, 1]. 1: the location rule sees all columns.
    location : LocationRule, default=None
        Rule that weighs the rows by their columns in the block; None: :class:`GeometricMedian`.
    selection, complement, memory_rule, clip_scores, run_length
        As in :func:`skbgmd.block_geometric_median`. ``complement="memory"`` keeps the memory in the state.
    block : {"coordinate", "unit"}, default="coordinate"
        Unit of the selection. "coordinate": single columns, or runs of them. "unit": if the rows are gradients of
        parameters, whole slices along a parameter's first axis, such as the weights of one output.
    random_state : int or None, default=None
        Seed for ``selection`` "sample" and "uniform"; each call draws afresh. None: another seed in each call.

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
        location: LocationRule | None = None,
        selection: str = "top",
        complement: str = "weighted",
        memory_rule: str = "weighted",
        clip_scores: bool = True,
        run_length: int = 1,
        block: str = "coordinate",
        random_state: int | None = None,
    ) -> None:
        self.beta, self.location, self.block = beta, location, block
        self.selection, self.complement, self.memory_rule = selection, complement, memory_rule
        self.clip_scores, self.run_length, self.random_state = clip_scores, run_length, random_state

    @classmethod
    def published(cls, beta: float = 0.1, random_state: int | None = None) -> Self:
        """Make BGMD as in Algorithms 1 and 2 of the paper: blocks sampled by unclipped scores, and the mean memory.

        This is the aggregator named "bgmd_paper": ``block_geometric_median(X, algorithm="bgmd_paper")`` with its state.
        It serves comparisons: one corrupt row decides the block and sends the memory anywhere.
        """
        return cls(beta, **PUBLISHED, random_state=random_state)

    def __call__(self, rows: Rows, state: BlockState | None = None) -> tuple[Aggregate, BlockState]:
        self._validate()
        check_rows(rows)
        state = state_of(self, state, BlockState) or BlockState()
        location = GeometricMedian() if self.location is None else self.location
        if self.beta == 1.0 and self.complement != "memory":
            aggregate, after_location = location(rows, state.location)
            return aggregate, replace(state, step=state.step + 1, location=after_location)
        some, usable, before, block = self._select(rows, state)
        inside = some if len(block) == some.n_columns else some.block(block)
        location._validate()
        judged = location.judge(inside, state.location)
        part = BlockPart(block, inside, judged.weights, judged.off_block)
        limit, norms, off_block = self._limit_off_block(some, part, judged, state.off_block)
        vector, memory = block_step(
            some,
            part,
            off_block=self.complement,
            memory_rule=self.memory_rule,
            memory=before,
            off_block_limit=limit,
            norms=norms,
            memory_lengths=1.0 / self.beta,
        )
        weights = np.zeros(rows.n_rows)
        weights[usable] = judged.weights
        chosen = None if len(block) == rows.n_columns else block.indices
        after = BlockState(memory, state.step + 1, judged.state, off_block, rows.n_columns)
        return Aggregate(vector, weights, chosen, self._mass(some, part), dict(judged.record)), after

    def looked_at(self, rows: Rows, state: BlockState | None = None) -> torch.Tensor | None:
        self._validate()
        check_rows(rows)
        if self.beta == 1.0 and self.complement != "memory":
            return super().looked_at(rows, state)
        block = self._select(rows, state_of(self, state, BlockState) or BlockState())[-1]
        return None if len(block) == rows.n_columns else block.indices

    def _select(
        self, rows: Rows, state: BlockState
    ) -> tuple[Rows, NDArray[np.intp], torch.Tensor | None, CoordinateBlock | ParameterBlock]:
        """Usable rows with their indices, the memory, and the block that they select."""
        # A memory counts only where one is kept.
        before = state.memory if self.complement == "memory" else None
        # Parts of the columns may be as many as before on some ranks and not on others.
        if before is not None and (len(before), rows.n_columns) != (rows.n_held, state.n_columns or rows.n_columns):
            before = None  # of other columns: parameters were frozen or thawed
        before = None if before is None else before.to(rows.device)
        if self.block == "coordinate":
            take_norms(rows, self.selection, self.run_length, before)
        usable = usable_rows(rows, rows.finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
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
        return some, usable, before, block

    @staticmethod
    def _limit_off_block(
        rows: Rows, part: BlockPart, judged: Judgement, before: Scale
    ) -> tuple[float | None, FloatArray | None, Scale]:
        """Norm to clip off-block parts to, if the rule has a limit for them, their norms, and a typical one."""
        if judged.clip is None or len(part.columns) == rows.n_columns:
            return None, None, before
        norms = off_block_norms(rows, part)
        length = before.update(max(lower_weighted_median(norms, rows.weights), judged.least))
        return judged.clip * length.value, norms, length

    def _mass(self, rows: Rows, part: BlockPart) -> float:
        if len(part.columns) == rows.n_columns:
            return 1.0
        scale = median_clip_factors(rows.norms(), rows.weights) if self.clip_scores else np.ones(rows.n_rows)
        whole, inside = scale * rows.norms(), scale * part.rows.norms()
        unit = float(whole.max())  # so that no square overflows
        if unit == 0.0:
            return 1.0
        return min(1.0, float(rows.weights @ (inside / unit) ** 2 / (rows.weights @ (whole / unit) ** 2)))

    def _validate(self) -> None:
        names = ("beta", "selection", "complement", "memory_rule", "run_length", "block")
        check_once(_check_parameters, *(getattr(self, name) for name in names))
        if not (self.location is None or isinstance(self.location, LocationRule)):
            raise TypeError(f"location must be None or an aggregator that weighs rows; found {self.location!r}.")

    def _generator(self, step: int, device: torch.device) -> torch.Generator | None:
        if self.selection == "top":
            return None
        return torch_generator(step_seed(self.random_state, step), device)


def _check_parameters(
    beta: Any, selection: Any, complement: Any, memory_rule: Any, run_length: Any, block: Any
) -> None:
    check_number(beta, "beta", at_most=1.0)
    check_choice(selection, "selection", SELECTIONS)
    check_choice(complement, "complement", OFF_BLOCK_RULES)
    check_choice(memory_rule, "memory_rule", MEMORY_RULES)
    check_integer(run_length, "run_length")
    check_choice(block, "block", BLOCKS)
