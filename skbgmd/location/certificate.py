"""A proof of accuracy for a geometric median: an upper bound on its excess objective.

The dual of ``min_y sum_i a_i ||x_i - y||`` asks for vectors ``u_i`` with ``||u_i|| <= a_i`` that add up to
zero; each such choice gives the lower bound ``sum_i <u_i, x_i - y>`` on the optimum, whatever ``y`` is. At an
optimum ``u_i = a_i (x_i - y) / d_i`` is such a choice. Near an optimum these vectors add up to a small
``r``; two repairs make them feasible.

1. Rows that lie at ``y`` ("at") may take any ``u`` in their ball: they cancel what they can of the rest.
2. The rows of a set ``N`` are shrunk by ``1 - theta`` and each gets its share of what is still missing:
   ``u'_i = (1 - theta) u_i - (a_i / A_N) (r - theta R_N)``, ``R_N = sum_N u_i``. This is feasible as soon as
   ``||r - theta R_N|| <= theta A_N``, and it costs ``theta sum_N <u_i, z_i> + <r - theta R_N, zbar_N>``.

These costs are differences of sums that may be much larger than they are, as where rows on a line pull each other
along it. Their rounding is a part of the bound: without it, a difference that has no digit left would be a proof.

With ``N`` = all rows this is the classical bound. With ``N`` = the near rows the bound does not grow with the
distance of an outlier: it says how good the median is at the scale of the inliers, not at the scale of a row
that sits 1e160 away and makes every point a 1e-100-accurate median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Excess(NamedTuple):
    """Proved bound on the excess objective of a point ``y``.

    Attributes
    ----------
    absolute : float
        Upper bound on ``g(y) - min g``.
    near_objective : float
        Part of ``g(y)`` that the near rows hold: the scale at which ``absolute`` has to be small.
    """

    absolute: float
    near_objective: float


def duality_gap_bound(
    products: Sequence[Sequence[float]],
    *,
    weight_all: float,
    objective: float,
    weight_near: float | None = None,
    near_objective: float | None = None,
    weight_at: float = 0.0,
    at_objective: float = 0.0,
    slack: float = 0.0,
    lengths: Sequence[float] | None = None,
    rounding: float = 2.0**-52,
) -> Excess:
    """Bound the excess objective of a point from inner products of four sums over rows.

    Parameters
    ----------
    products : sequence of shape (4, 4) or (2, 2)
        Inner products of ``R = sum_{i not at} u_i``, ``R_near`` (the same sum over near rows), ``sum a_i z_i``
        over all rows and over near rows, in this order; ``z_i = x_i - y``. Where all rows are near, of the sums over
        all rows alone. Plain numbers: so few are quicker in them than in arrays.
    weight_all, weight_near, weight_at : float
        Sums of the row weights ``a_i`` over all rows, the near rows (None: all are), and the rows that lie at ``y``
        (which count as near).
    objective, near_objective, at_objective : float
        Sums of ``a_i d_i`` over the same rows; ``at_objective`` is zero unless "at" only means "too near to tell".
    slack : float, default=0.0
        Bound on the error of ``R`` that the rounding of the distances causes.
    lengths : sequence of shape (4,) or (2,), default=None
        Lengths by which the products are rounded: sums of the lengths of all that the four sums are made of. None: the
        norms of the first two, and ``objective`` and ``near_objective``.
    rounding : float, default=2**-52
        Error of a product, relative to the product of its lengths.

    Returns
    -------
    Excess
    """
    q = products
    of_all = len(q) // 2
    size = math.sqrt(max(q[0][0], 0.0))
    if lengths is None:
        lengths = [math.sqrt(max(q[i][i], 0.0)) for i in range(of_all)]
        lengths += [objective] if near_objective is None else [objective, near_objective]
    # Rows at y cancel the share t of R, so r = (1 - t) R.
    t = 1.0 if size <= weight_at else weight_at / size
    missing = (1.0 - t) * size + slack
    # Share of ||R|| that is rounding; one that is all rounding is none that costs could cancel against.
    doubt = rounding * lengths[0] * lengths[0]
    unsure = 0.5 * doubt / (size * size) if size * size > doubt else 0.0
    # N = all rows: ||r - theta r|| = theta A gives theta = ||r|| / (A + ||r||).
    theta = missing / (weight_all + missing)
    shift = (1.0 - t) * q[0][of_all] + slack * math.sqrt(max(q[of_all][of_all], 0.0))
    shift += (1.0 - t) * rounding * lengths[0] * lengths[of_all]
    # What cancels by more than half of the digits is no proof.
    known = math.sqrt(rounding)
    rest_all = theta * objective
    rest_all = max((1.0 + unsure) * rest_all + (1.0 - theta) * shift / weight_all, known * rest_all)
    if weight_near is None or near_objective is None:
        best = max(rest_all, 0.0) if math.isfinite(rest_all) else math.inf
        return Excess(best + 2.0 * at_objective, objective)
    near_sum = _norm_of_difference(q, 1, 0, t) + slack  # ||R_N||, rows at y included
    along = (1.0 - t) * (q[0][1] - t * q[0][0]) - slack * (near_sum + missing)  # <r, R_N>
    theta = _smallest_share(missing, along, near_sum, weight_near)
    rest_near = math.inf
    if theta < 1.0:
        shift = (1.0 - t) * q[0][3] - theta * (q[1][3] - t * q[0][3])
        shift += slack * math.sqrt(max(q[3][3], 0.0))
        shift += rounding * ((1.0 - t) * lengths[0] + theta * (lengths[1] + t * lengths[0])) * lengths[3]
        rest_near = theta * near_objective
        rest_near = max((1.0 + unsure) * rest_near + shift / weight_near, known * rest_near)
    candidates = [bound for bound in (rest_all, rest_near) if math.isfinite(bound)]
    best = max(min(candidates), 0.0) if candidates else math.inf
    return Excess(best + 2.0 * at_objective, near_objective)


def relative_gap(excess: float, objective: float) -> float:
    """Upper bound on ``(g - g*) / g*`` from ``g`` and an upper bound on ``g - g*``.

    Examples
    --------
    >>> relative_gap(1.0, 11.0)
    0.1
    """
    if excess <= 0.0:
        return 0.0
    lower = objective - excess
    return float(excess / lower) if 0.0 < lower < math.inf else math.inf


def _norm_of_difference(q: Sequence[Sequence[float]], i: int, j: int, t: float) -> float:
    return math.sqrt(max(q[i][i] - 2.0 * t * q[i][j] + t * t * q[j][j], 0.0))


def _smallest_share(missing: float, along: float, near_sum: float, weight: float) -> float:
    """Smallest theta with ||r - theta R_N|| <= theta A_N; inf where there is none."""
    if missing == 0.0:
        return 0.0
    # missing^2 - 2 theta along + theta^2 near_sum^2 = theta^2 weight^2
    lead = weight * weight - near_sum * near_sum
    if not lead > 0.0:
        return math.inf
    root = math.sqrt(along * along + lead * missing * missing)
    # The form without cancellation for either sign of `along`.
    return missing * missing / (root + along) if along > 0.0 else (root - along) / lead
