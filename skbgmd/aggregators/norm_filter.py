"""Norm filter (comparative gradient elimination): the mean without the rows of largest norm."""

from __future__ import annotations

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.checks import check_flag
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.assumed_share import Fraction, FractionWeighting
from skbgmd.aggregators.base import n_assumed_corrupt
from skbgmd.rows import Rows


class NormFilter(FractionWeighting):
    r"""Norm filter (comparative gradient elimination): mean of the rows without those of largest norm.

    It drops the :math:`f = \lceil \psi n \rceil` rows (less than half) of largest norm. Rows of equal norm at the
    limit, as clipping leaves them, share the places that are left. The rule is blind to a row of ordinary length that
    points the wrong way. Ghosh et al. (2019); Gupta et al. (2020), comparative gradient elimination.

    Parameters
    ----------
    fraction : float or "auto", default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5). "auto": one row more than the largest estimate of the last steps
        (see :func:`estimate_corrupt_share`), or 0 if that estimate is zero. "auto" is blind to rows that hide in the
        spread of the others.
    both_tails : bool, default=False
        Drop as many rows of smallest norm too, which leaves the mean of the rows of middling length.
    """

    def __init__(self, fraction: Fraction = 0.4, both_tails: bool = False) -> None:
        self.fraction, self.both_tails = fraction, both_tails

    def _validate(self) -> None:
        super()._validate()
        check_flag(self.both_tails, "both_tails")

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        f = n_assumed_corrupt(fraction, rows.n_rows)
        shares = rows.weights * shares_of_ranks(rows.norms(), f if self.both_tails else 0, rows.n_rows - f)
        weights: FloatArray = shares / shares.sum()
        return weights


def shares_of_ranks(values: FloatArray, start: int, stop: int) -> FloatArray:
    """Share of each number that is at ranks from `start` to `stop`, in ascending order: equal ones share their ranks.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Non-negative numbers, of which those that differ by rounding are equal.
    start, stop : int
        First rank, and the one after the last.

    Returns
    -------
    shares : ndarray of shape (n,)
        In [0, 1]; they add up to `stop` - `start`.

    Examples
    --------
    >>> shares_of_ranks(np.array([4.0, 2.0, 4.0, 1.0]), 0, 3)
    array([0.5, 1. , 0.5, 1. ])
    """
    n, order = len(values), np.argsort(values, kind="stable")
    ascending = values[order]
    # What is left of rounding isn't a difference.
    group = np.cumsum(np.r_[False, ascending[1:] * (1.0 - limits.LEAST_STRENGTH) > ascending[:-1]])
    inside = (np.arange(n) >= start) & (np.arange(n) < stop)
    shares = np.empty(n)
    shares[order] = (np.bincount(group, inside) / np.bincount(group))[group]
    return shares
