"""Operations that both spaces share: all that take one number a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skbgmd._utils import limits
from skbgmd.location.certificate import duality_gap_bound
from skbgmd.location.solver import Iterate


class BaseSpace:
    """Operations that both spaces share: all that take one number a row."""

    xp: Any
    weights: Any
    weight: float
    newton_is_expensive: bool
    #: The weights differ.
    is_weighted: bool

    def _weigh(self, weights: Any) -> None:
        """Set the weights (n,) of the rows."""
        # Argmin and argmax are quicker than min and max.
        least = float(weights[weights.argmin()])
        self.weights, self.is_weighted = weights, least < float(weights[weights.argmax()])
        self.weight = float(weights.sum()) if self.is_weighted else least * len(weights)

    def decrease(self, point: Iterate, along: Any, square: float, step: float) -> tuple[float, float]:
        """Change of the objective, and its slope, ``step`` directions away from a point.

        ``d_i(t)^2 - d_i^2 = t^2 ||p||^2 - 2 t <z_i, p>`` divided by ``d_i(t) + d_i`` has no cancellation, so a
        row at 1e160 doesn't drown what happens among rows of order one.
        """
        length, change, slope = math.sqrt(square), 0.0, 0.0
        for start in range(0, len(along), limits.LINE_ROWS):
            part = slice(start, start + limits.LINE_ROWS)
            moved = self._decrease(point, part, along[part], square, step)
            change, slope = change + moved[0], slope + moved[1]
        kink = point.weight_at * length
        return step * (change + kink), slope + kink

    def _decrease(self, point: Iterate, part: slice, along: Any, square: float, step: float) -> tuple[float, float]:
        """Parts of some rows, but for those at the point, in the change over the step, and in the slope."""
        xp, a, d = self.xp, self.weights[part], point.distances[part]
        if point.weight_at > 0.0:
            # Rows at the point are added by the caller: their distance is the length of the step.
            a, d = xp.where(d == 0.0, 0.0, a), xp.where(d == 0.0, 1.0, d)
        # In units of the distance, whose square may overflow.
        whole = (step * math.sqrt(square)) / d
        # (Negative by rounding only.)
        moved = d * xp.sqrt(abs(1.0 + whole * whole - (2.0 * step) * (along / d / d)))
        top = step * square - along
        slope = top / (moved if float(moved.min()) > 0.0 else xp.where(moved > 0.0, moved, d))
        return float(a @ ((top - along) / (moved + d))), float(a @ slope)

    def nearest(self, point: Iterate) -> tuple[int, float]:
        """Index and distance of the row nearest to a point."""
        index = int(point.distances.argmin())
        return index, float(point.distances[index])

    def _sum_weights(self, weights: Any, weiszfeld: Any, near: Any) -> Any:
        """Weights of the sums of :func:`~skbgmd.location.certificate.duality_gap_bound`: two or four."""
        lines = [weiszfeld, weights] if near is None else [weiszfeld, near * weiszfeld, weights, near * weights]
        return self._stack(lines)

    def _stack(self, lines: list[Any]) -> Any:
        # np.stack takes longer to check than this to copy.
        return np.array(lines) if self.xp is np else self.xp.stack(lines)

    def _assemble(
        self,
        position: Any,
        distances: Any,
        at: Any,
        residual: Any,
        products: list[list[float]],
        totals: list[float],
        lengths: list[float],
        *,
        doubtful: float,
        slack: float,
        rounded: list[float] | None = None,
        rounding: float = 2.0**-52,
    ) -> Iterate:
        """Pack an iterate with its proof.

        ``products`` (m, m) are of the sums of :meth:`_sum_weights`, ``totals`` (m,) the weights added up and
        ``lengths`` (m,) the same of the distances, m = 2 where all rows are near, else 4. ``at`` is a mask of rows,
        or None for none, and ``doubtful`` the largest sum of distances that they may have. ``rounded`` (m,) are the
        lengths by which the products are rounded, as in the bound, and ``rounding`` their relative error.
        """
        some_are_far = len(products) == 4
        objective = lengths[len(lengths) // 2]
        at_weights: Any = None if at is None else self.xp.where(at, self.weights, 0.0)
        weight_at = 0.0 if at is None else float(at_weights.sum())
        excess = duality_gap_bound(
            products,
            weight_all=self.weight,
            objective=objective,
            weight_near=totals[3] if some_are_far else None,
            near_objective=lengths[3] if some_are_far else None,
            weight_at=weight_at,
            at_objective=doubtful,
            slack=slack,
            lengths=rounded,
            rounding=rounding,
        )
        return Iterate(
            position=position,
            distances=distances,
            weights=self.weights,
            total_weiszfeld_weight=totals[0],
            residual=residual,
            residual_norm=math.sqrt(max(products[0][0], 0.0)),
            at=at_weights,
            weight_at=weight_at,
            objective=objective,
            excess=excess,
            doubtful=doubtful,
        )


#: Places of the four sums among two, if all rows are near.
ALL_NEAR = [0, 0, 1, 1]
