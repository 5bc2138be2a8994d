"""Pre-aggregation: replace the rows by averages of rows before another aggregator sees them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Aggregate, Aggregator, AggregatorState, check_rows, usable_rows
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
        Number of calls.
    inner : object
        The inner aggregator's state.
    share : ShareMemory, or None
        Estimates of how many rows are corrupt.
    memory : object
        What else is remembered of the rows.
    """

    step: int = 0
    inner: Any = None
    share: ShareMemory | None = None
    memory: Any = None


class PreAggregation(Aggregator):
    r"""Aggregate averages of rows in place of the rows; :math:`K \to M K M^T` on the Gram matrix."""

    aggregator: Aggregator | None

    def __call__(self, rows: Rows, state: PreAggregationState | None = None) -> tuple[Aggregate, PreAggregationState]:
        self._validate()
        check_rows(rows)
        inner = self._default_rule() if self.aggregator is None else self.aggregator
        state = state or PreAggregationState()
        usable = usable_rows(rows, self._finite(rows))
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        mixing, weights, memory = self._average_with_memory(rows, some, usable, state)
        aggregate, after = inner(AveragedRows(some, mixing, weights), state.inner)
        if aggregate.weights is not None:
            spread = np.zeros(rows.n_rows)
            spread[usable] = aggregate.weights @ mixing
            aggregate = replace(aggregate, weights=spread)
        return aggregate, PreAggregationState(state.step + 1, after, memory)

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

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _average_with_memory(
        self, rows: Rows, some: Rows, usable: NDArray[np.intp], state: PreAggregationState
    ) -> tuple[FloatArray, FloatArray, Any]:
        """As :meth:`_average` for ``some``, the usable ones of the rows, and what the next call is to remember."""
        return *self._average(some, state.step), None

    @abstractmethod
    def _average(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        """Averaging matrix (m, n), lines adding up to one, and the weights (m,) of the averaged rows."""
