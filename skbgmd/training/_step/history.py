"""Records of training steps, of which the history's entries are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def entries_of(records: Sequence[StepRecord]) -> list[dict[str, Any]]:
    """Entries of the history for each of several steps."""
    entries: list[dict[str, Any]] = []
    by_length: dict[int, list[tuple[int, FloatArray, FloatArray]]] = {}
    for place, record in enumerate(records):
        entries.append({"aggregation_time": record.seconds, **record.record})
        if record.mass is not None:
            entries[place]["selected_mass"] = record.mass
        if record.weights is not None:
            by_length.setdefault(len(record.given), []).append((place, record.weights, record.given))
    for steps in by_length.values():
        # Of many steps at once it takes a fraction of the calls.
        for start in range(0, len(steps), limits.VISITS_HELD):
            places, weights, given = zip(*steps[start : start + limits.VISITS_HELD], strict=True)
            found = lower_half_weights(np.stack(weights), np.stack(given)).tolist()
            for place, weight in zip(places, found, strict=True):
                entries[place]["lower_half_weight"] = weight
    return entries


def lower_half_weights(weights: FloatArray, given: FloatArray) -> FloatArray:
    """Weight, in each step, of the half of the rows that count least in proportion to the weights that they were given.

    Of rows that count alike, which most do where none is far, no more than some may belong to that half: these have the
    mean weight of them all.

    Parameters
    ----------
    weights, given : ndarray of shape (n_steps, n)
        Weights of the rows, and those that they were given.

    Returns
    -------
    ndarray of shape (n_steps,)

    Examples
    --------
    >>> import numpy as np
    >>> given = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    >>> lower_half_weights(np.array([[0.1, 0.2, 0.3, 0.4]] * 2), given).round(6)
    array([0.3, 0.5])
    """
    half = given.shape[1] // 2
    if half == 0:
        return np.zeros(len(given))
    shares = weights / np.maximum(given, 1e-300)
    last = np.partition(shares, half - 1, axis=1)[:, half - 1 : half]
    near = limits.SAME_SHARE * np.abs(last)
    below, at = shares < last - near, np.abs(shares - last) <= near
    missing, n_alike = half - np.count_nonzero(below, axis=1), np.count_nonzero(at, axis=1)
    of_alike = np.where(at, weights, 0.0).sum(axis=1) / np.maximum(n_alike, 1)
    result: FloatArray = np.where(below, weights, 0.0).sum(axis=1) + missing * of_alike
    result[n_alike == 0] = np.nan  # as a weight is
    return result
