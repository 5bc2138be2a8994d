"""Records of training steps, of which the history's entries are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray


class StepRecord(NamedTuple):
    """A step for the history, whose entries are computed when an epoch is over.

    Attributes
    ----------
    seconds : float
        Time of the aggregation.
    record : mapping
        Entries of the aggregator.
    weights : ndarray of shape (n,), or None
        Weights of the rows in the aggregate.
    given : ndarray of shape (n,)
        Weights that they were given.
    mass : float, or None
        As in :class:`skbgmd.aggregators.Aggregate`.
    """

    seconds: float
    record: Mapping[str, Any]
    weights: FloatArray | None
    given: FloatArray
    mass: float | None

    def entries(self) -> dict[str, Any]:
        """Entries of the history."""
        entries: dict[str, Any] = {"aggregation_time": self.seconds, **self.record}
        if self.weights is not None:
            entries["lower_half_weight"] = lower_half_weight(self.weights, self.given)
        if self.mass is not None:
            entries["selected_mass"] = self.mass
        return entries


def lower_half_weight(weights: FloatArray, given: FloatArray) -> float:
    """Weight of the half of the rows that count least in proportion to the weights that they were given.

    Of rows that count alike, which most do where none is far, no more than some may belong to that half: these have the
    mean weight of them all.

    Parameters
    ----------
    weights, given : ndarray of shape (n,)
        Weights of the rows, and those that they were given.

    Examples
    --------
    >>> import numpy as np
    >>> lower_half_weight(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4))
    0.30000000000000004
    >>> lower_half_weight(np.array([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 2.0, 3.0, 4.0]))
    0.5
    """
    half = len(given) // 2
    if half == 0:
        return 0.0
    shares = weights / np.maximum(given, 1e-300)
    last = np.partition(shares, half - 1)[half - 1]
    near = limits.SAME_SHARE * abs(last)
    below, at = shares < last - near, np.abs(shares - last) <= near
    if not at.any():
        return float("nan")  # as a weight is
    return float(weights[below].sum() + (half - np.count_nonzero(below)) * weights[at].mean())
