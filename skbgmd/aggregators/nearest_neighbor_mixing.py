"""Nearest-neighbor mixing (NNM): every row becomes the mean of its nearest rows."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Aggregator, check_fraction, n_assumed_corrupt
from skbgmd.aggregators.pre_aggregation import PreAggregation
from skbgmd.rows import Rows


class NearestNeighborMixing(PreAggregation):
    r"""Nearest-neighbor mixing (NNM): replace each row by the mean of its nearest rows. Allouah et al. (2023).

    The mean is over :math:`n - f` rows, the row itself included, with :math:`f = \lceil \psi n \rceil` (less than
    half). It takes the spread out of the honest rows, in which an attack of ordinary length hides.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the mixed rows; None: :class:`GeometricMedian`.
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

    def _average(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        n = rows.n_rows
        kept = n - n_assumed_corrupt(self.fraction, n)
        nearest = np.argsort(rows.gram().squared_distances(), axis=1, kind="stable")[:, :kept]
        mixing = np.zeros((n, n))
        np.put_along_axis(mixing, nearest, rows.weights[nearest], axis=1)
        return mixing / mixing.sum(axis=1, keepdims=True), rows.weights
