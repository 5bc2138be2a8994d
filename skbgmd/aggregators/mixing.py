"""Row mixings, which replace rows by means of rows before another aggregator sees them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    check_fraction,
    check_rows,
    corrupt_count,
    usable_rows,
)
from skbgmd.aggregators.geometric import GeometricMedian, step_seed
from skbgmd.arrays import check_integer
from skbgmd.gram import BoolArray, FloatArray
from skbgmd.mixed import MixedRows
from skbgmd.rows import Rows


@dataclass(frozen=True)
class MixingState(AggregatorState):
    """What a mixing carries from one call to the next: the number of calls, and the inner aggregator's state."""

    step: int = 0
    inner: Any = None


class Mixing(Aggregator):
    r"""Mixes the rows, then aggregates the mixed rows; :math:`K \to M K M^T` on the Gram matrix."""

    aggregator: Aggregator | None

    def __call__(self, rows: Rows, state: MixingState | None = None) -> tuple[Aggregate, MixingState]:
        self._validate()
        check_rows(rows)
        inner = GeometricMedian() if self.aggregator is None else self.aggregator
        state = state or MixingState()
        usable = usable_rows(rows, self._finite(rows))
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        mixing, weights = self._mix(some, state.step)
        aggregate, after = inner(MixedRows(some, mixing, weights), state.inner)
        if aggregate.weights is not None:
            spread = np.zeros(rows.n_rows)
            spread[usable] = aggregate.weights @ mixing
            aggregate = replace(aggregate, weights=spread)
        return aggregate, MixingState(state.step + 1, after)

    def _validate(self) -> None:
        if not (self.aggregator is None or isinstance(self.aggregator, Aggregator)):
            raise TypeError(f"aggregator must be an Aggregator or None; found {self.aggregator!r}.")

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    @abstractmethod
    def _mix(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        """The mixing matrix (m, n), lines adding up to one, and the weights (m,) of the mixed rows."""


class NearestNeighborMixing(Mixing):
    r"""Replace each row by the mean of its nearest rows, itself included. Allouah et al. (2023).

    The mean is over :math:`n - f` rows, :math:`f = \lceil \psi n \rceil` (less than half). It takes the
    spread out of the honest rows, in which an attack of ordinary length hides.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        What aggregates the mixed rows; None: :class:`GeometricMedian`.
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).
    """

    def __init__(self, aggregator: Aggregator | None = None, fraction: float = 0.4) -> None:
        self.aggregator, self.fraction = aggregator, fraction

    def _validate(self) -> None:
        super()._validate()
        check_fraction(self.fraction)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.gram().finite

    def _mix(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        n = rows.n_rows
        kept = n - corrupt_count(self.fraction, n)
        nearest = np.argsort(rows.gram().squared_distances(), axis=1, kind="stable")[:, :kept]
        mixing = np.zeros((n, n))
        np.put_along_axis(mixing, nearest, rows.weights[nearest], axis=1)
        return mixing / mixing.sum(axis=1, keepdims=True), rows.weights


class Bucketing(Mixing):
    """Average the rows in random buckets, then aggregate the buckets. Karimireddy et al. (2022).

    Brings rows from different distributions nearer together, at the price that a corrupt row spoils its bucket.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        What aggregates the buckets; None: :class:`GeometricMedian`.
    bucket_size : int, default=2
        Rows in a bucket; the last may hold fewer.
    random_state : int or None, default=None
        Seed; each call draws other buckets. None: another seed each call.
    """

    def __init__(
        self, aggregator: Aggregator | None = None, bucket_size: int = 2, random_state: int | None = None
    ) -> None:
        self.aggregator, self.bucket_size, self.random_state = aggregator, bucket_size, random_state

    def _validate(self) -> None:
        super()._validate()
        check_integer(self.bucket_size, "bucket_size")

    def _mix(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        n = rows.n_rows
        order = np.random.default_rng(step_seed(self.random_state, step)).permutation(n)
        bucket = np.empty(n, dtype=np.intp)
        bucket[order] = np.arange(n) // self.bucket_size
        mixing = np.zeros((int(bucket.max()) + 1, n))
        mixing[bucket, np.arange(n)] = rows.weights
        weights = mixing.sum(axis=1)
        return mixing / weights[:, None], weights
