"""Cumulated weights without rounding: which of some sorted numbers hold a share of the weight.

Sums of floats depend on their order, and integers that were divided by a number that isn't a power of two no longer add
up: whether two rows have half of the weight would depend on that. Here weights are whole multiples of a small unit, and
an integer weight counts as that number of equal rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray


def in_units(weights: FloatArray) -> NDArray[np.int64]:
    """Weights (n,) as whole multiples of a unit, rounded down, from 2**60 to 2**61 units in all.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Non-negative and finite, one of them positive.

    Examples
    --------
    >>> units = in_units(np.array([1.0, 2.0, 3.0]) / 7.0)
    >>> units / units[0]
    array([1., 2., 3.])
    """
    # Sums of the largest numbers overflow, and the smallest ones have few digits.
    with np.errstate(under="ignore"):
        scaled = np.ldexp(weights, -int(np.frexp(weights.max())[1]))
    scaled *= 2.0 ** (61 - int(np.frexp(scaled.sum())[1]))
    return scaled.astype(np.int64)


def rounding(total: Any, n: Any) -> Any:
    """Units by which sums of n weights, of a total of so many units, may differ by rounding."""
    return (total >> limits.SAME_WEIGHT_BITS) + 2 * n


def bounds(total: int, n: int, share: float = 0.5) -> tuple[int, int]:
    """Least cumulated weight that counts as a share of the total, and the most that is no more than it, in units.

    Examples
    --------
    The lower and the upper median of numbers in order:

    >>> mass = in_units(np.array([0.1, 0.2, 0.3])).cumsum()
    >>> least, most = bounds(int(mass[-1]), 3)
    >>> mass.searchsorted(least), mass.searchsorted(most, side="right")
    (np.int64(1), np.int64(2))
    """
    at, slack = int(share * total), rounding(total, n)
    # A number without weight holds none, and none holds more than all.
    return max(at - slack, 1), min(at + slack, total - 1)


def halves(totals: NDArray[np.int64], n: int | NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Least cumulated weights that count as half of some totals of n weights each, in units; see :func:`bounds`.

    Of a total of nothing that is nothing.

    Examples
    --------
    >>> halves(in_units(np.array([0.1, 0.2, 0.3])).cumsum()[-1:], 3) <= in_units(np.array([0.3, 0.1, 0.2])).cumsum()
    array([ True,  True,  True])
    """
    least: NDArray[np.int64] = np.minimum(np.maximum((totals >> 1) - rounding(totals, n), 1), totals)
    return least


def middle(weights: FloatArray, order: NDArray[np.intp]) -> tuple[int, int]:
    """Places in an order of numbers that hold their lower and their upper weighted median.

    They differ where the numbers up to one of them have exactly half of the weight.

    Examples
    --------
    >>> middle(np.array([0.3, 0.1, 0.2]), np.array([1, 2, 0]))
    (1, 2)
    """
    n = len(weights)
    if weights.min() == weights.max():
        return (n - 1) // 2, n // 2
    mass = np.cumsum(in_units(weights)[order])
    least, most = bounds(int(mass[-1]), n)
    return int(mass.searchsorted(least)), int(mass.searchsorted(most, side="right"))
