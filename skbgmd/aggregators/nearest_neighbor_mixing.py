"""Nearest-neighbor mixing (NNM): every row becomes the mean of its nearest rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.assumed_share import Fraction, assumed_share, check_fraction_or_auto, with_lost
from skbgmd.aggregators.base import Aggregate, Aggregator, check_rows, n_assumed_corrupt, usable_rows
from skbgmd.aggregators.pre_aggregation import PreAggregation, PreAggregationState
from skbgmd.rows import Rows


class NearestNeighborMixing(PreAggregation):
    r"""Nearest-neighbor mixing (NNM): replace each row by the mean of its nearest rows. Allouah et al. (2023).

    The mean is over :math:`n - f` rows, including the row itself, with :math:`f = \lceil \psi n \rceil` (less than
    half). Mixing removes the spread of the honest rows, in which an attack of ordinary length hides.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the mixed rows; None: :class:`GeometricMedian`.
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of the last steps
        (see :func:`estimate_corrupt_share`), or 0 if that estimate is zero. "auto" is blind to rows that hide in the
        spread of the others.
    """

    keeps_workers = True

    def __init__(self, aggregator: Aggregator | None = None, fraction: Fraction = 0.4) -> None:
        self.aggregator, self.fraction = aggregator, fraction

    def __call__(self, rows: Rows, state: PreAggregationState | None = None) -> tuple[Aggregate, PreAggregationState]:
        if not isinstance(self.fraction, str):
            return super().__call__(rows, state)
        self._validate()
        check_rows(rows)
        state = self._own(state)
        finite = self._finite(rows)
        usable = usable_rows(rows, finite)
        some = rows if len(usable) == rows.n_rows else rows.subset(usable)
        assumed = assumed_share(self.fraction, some, None if state is None else state.share)
        aggregate, after = NearestNeighborMixing(self.aggregator, assumed.fraction)(rows, state)
        record = {**aggregate.record, **with_lost(assumed.record, finite)}
        return replace(aggregate, record=record), replace(after, share=assumed.memory)

    def _validate(self) -> None:
        super()._validate()
        check_fraction_or_auto(self.fraction)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.gram().finite

    def _average(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        n = rows.n_rows
        kept = n - n_assumed_corrupt(float(self.fraction), n)
        nearest = np.argsort(rows.gram().squared_distances(), axis=1, kind="stable")[:, :kept]
        mixing = np.zeros((n, n))
        np.put_along_axis(mixing, nearest, rows.weights[nearest], axis=1)
        return mixing / mixing.sum(axis=1, keepdims=True), rows.weights
