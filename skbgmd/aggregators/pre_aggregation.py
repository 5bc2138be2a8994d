"""Pre-aggregation: replace the rows by averages of rows before another aggregator sees them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    NonFiniteRowsError,
    aggregated,
    check_rows,
    state_of,
    usable_rows,
    worker_ids,
)
from skbgmd.aggregators.geometric_median import GeometricMedian
from skbgmd.aggregators.memory import ShareMemory
from skbgmd.rows import Rows
from skbgmd.rows.averaged import AveragedRows


@dataclass(frozen=True)
class PreAggregationState(AggregatorState):
    """State of a pre-aggregation.

    Attributes
    ----------
    step : int
        Number of calls so far.
    inner : object
        State of the inner aggregator.
    share : ShareMemory, or None
        Estimates of how many rows are corrupt.
    memory : object
        Anything else remembered of the rows.
    rule : str
        Name of the pre-aggregation's class; empty if the state is from an earlier version.
    """

    step: int = 0
    inner: Any = None
    share: ShareMemory | None = None
    memory: Any = None
    rule: str = ""


class RowReplacement(Aggregator):
    """Aggregate other rows in place of the rows."""

    #: True where each other row stands for the worker of the row in its place, for rules behind it that remember.
    keeps_workers: ClassVar[bool] = False

    aggregator: Aggregator | None

    def __call__(self, rows: Rows, state: PreAggregationState | None = None) -> tuple[Aggregate, PreAggregationState]:
        self._validate()
        check_rows(rows)
        every = worker_ids(rows)
        inner = self._default_rule() if self.aggregator is None else self.aggregator
        state = self._own(state) or PreAggregationState()
        finite = self._finite(rows)
        usable_rows(rows, finite)
        usable = np.flatnonzero(self._usable(rows, every, state, finite) & (rows.weights > 0.0))
        self._check_left(rows, usable, finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        ids = tuple(every[i] for i in usable)
        others, shares, memory = self._replace(some, ids, state)
        others.ids = ids if self.keeps_workers and others.n_rows == len(ids) else None
        aggregate, after = aggregated(inner, others, state.inner)
        spread: FloatArray | None = None
        if aggregate.weights is not None:
            spread = np.zeros(rows.n_rows)
            spread[usable] = aggregate.weights @ shares
        record = {**aggregate.record, **self._record(others, aggregate)}
        return replace(aggregate, weights=spread, record=record), PreAggregationState(
            state.step + 1, after, memory=memory, rule=type(self).__name__
        )

    def check_parameters(self) -> None:
        self._validate()
        if self.aggregator is not None:
            self.aggregator.check_parameters()

    def _validate(self) -> None:
        if not (self.aggregator is None or isinstance(self.aggregator, Aggregator)):
            raise TypeError(f"aggregator must be an Aggregator or None; found {self.aggregator!r}.")

    @staticmethod
    def _default_rule() -> Aggregator:
        return GeometricMedian()

    def _own(self, state: Any) -> PreAggregationState | None:
        """Check that a state is of this kind of pre-aggregation, or None."""
        known = state_of(self, state, PreAggregationState)
        if known is not None and known.rule not in ("", type(self).__name__):
            raise TypeError(f"state must be what {type(self).__name__} returned, or None; found one of {known.rule}.")
        return known

    def _usable(self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState, finite: BoolArray) -> BoolArray:
        """Rows that a step looks at, of those that are finite."""
        return finite

    @staticmethod
    def _check_left(rows: Rows, usable: NDArray[np.intp], finite: BoolArray) -> None:
        """Raise an error where less than half of the weight is on the rows that a step looks at."""
        left, total = float(rows.weights[usable].sum()), float(rows.weights.sum())
        if left < limits.JUST_HALF * total:
            counts = rows.weights > 0.0
            n, n_lost = int(counts.sum()), int((~finite & counts).sum())
            raise NonFiniteRowsError(
                f"Half of the rows' weight or more must be on finite rows that aren't far longer than the others; "
                f"found, of {n} rows of any weight, {n_lost} that hold NaN or inf and {n - n_lost - len(usable)} that "
                f"are too long."
            )

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    @abstractmethod
    def _replace(self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState) -> tuple[Rows, FloatArray, Any]:
        """Make m other rows of n, their workers' ids given.

        Returns
        -------
        others : Rows
            The m other rows.
        shares : ndarray of shape (m, n)
            What the rows have in the weight of each of them, lines adding up to one.
        memory : object
            What the next call is to remember of the rows.
        """

    def _record(self, rows: Rows, aggregate: Aggregate) -> Mapping[str, Any]:
        """Additional entries of the history, from the other rows and their aggregate."""
        return {}


class PreAggregation(RowReplacement):
    r"""Base class of rules that aggregate averages of the rows in place of the rows.

    On the Gram matrix that is :math:`K \to M K M^T`.
    """

    def _replace(self, rows: Rows, ids: tuple[Any, ...], state: PreAggregationState) -> tuple[Rows, FloatArray, Any]:
        mixing, weights = self._average(rows, state.step)
        return AveragedRows(rows, mixing, weights), mixing, None

    @abstractmethod
    def _average(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        """Averaging matrix (m, n), lines adding up to one, and the weights (m,) of the averaged rows."""
