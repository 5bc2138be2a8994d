"""The weighted mean: plain SGD's aggregate."""

from __future__ import annotations

import math
from typing import Any

from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import Aggregate, RowWeighting, check_rows, refuse_state
from skbgmd.rows import Rows
from skbgmd.rows.means import in_range


class Mean(RowWeighting):
    """Weighted mean of the rows, as in plain SGD: one corrupt row moves it anywhere (breakdown point 0).

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import Mean
    >>> from skbgmd.rows import DenseRows
    >>> aggregate, state = Mean()(DenseRows(torch.tensor([[1.0], [2.0], [float("nan")]])))
    >>> aggregate.vector, aggregate.weights
    (tensor([1.5000]), array([0.5, 0.5, 0. ]))
    """

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        check_rows(rows)
        refuse_state(self, state)
        # A finite sum has finite rows; only another sum needs a look at every row.
        weights = rows.weights / rows.weights.sum()
        vector = rows.weighted_sum(weights)
        # Where columns are spread over processes, each has a sum of its own, and all take the same way.
        if not rows.layout.is_anywhere(not math.isfinite(float(vector.sum())), vector.device):
            return Aggregate(vector, weights), None
        if bool(rows.finite[weights > 0.0].all()):
            return Aggregate(in_range(rows, vector, weights), weights), None
        return super().__call__(rows)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows) -> FloatArray:
        weights: FloatArray = rows.weights / rows.weights.sum()
        return weights
