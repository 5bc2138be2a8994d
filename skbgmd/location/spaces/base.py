"""Operations that both spaces share: all that take one number a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skbgmd.location.certificate import duality_gap_bound
from skbgmd.location.solver import Iterate


class BaseSpace:
    """Operations that both spaces share: all that take one number a row."""

    xp: Any
    weights: Any
    weight: float
    newton_is_expensive: bool

    def decrease(self, point: Iterate, along: Any, square: float, step: float) -> tuple[float, float]:
        """Change of the objective, and its slope, ``step`` directions away from a point.

        ``d_i(t)^2 - d_i^2 = t^2 ||p||^2 - 2 t <z_i, p>`` divided by ``d_i(t) + d_i`` has no cancellation, so a
        row at 1e160 doesn't drown what happens among rows of order one.
        """
        xp, length = self.xp, math.sqrt(square)
        a, d = self.weights, point.distances
        if point.weight_at > 0.0:
            # Rows at the point are added below: their distance is the length of the step.
            a, d = xp.where(d == 0.0, 0.0, a), xp.where(d == 0.0, 1.0, d)
        # In units of the distance, whose square may overflow.
        whole = (step * length) / d
        # (Negative by rounding only.)
        moved = d * xp.sqrt(abs(1.0 + whole * whole - (2.0 * step) * (along / d / d)))
        top = step * square - along
        change = (top - along) / (moved + d)
        slope = top / (moved if float(moved.min()) > 0.0 else xp.where(moved > 0.0, moved, d))
        kink = point.weight_at * length
        return step * (float(a @ change) + kink), float(a @ slope) + kink

    def nearest(self, point: Iterate) -> tuple[int, float]:
        """Index and distance of the row nearest to a point."""
        index = int(point.distances.argmin())
        return index, float(point.distances[index])

    def _weiszfeld_weights(self, weights: Any, distances: Any, at: Any) -> Any:
        """Weights ``a_i / d_i`` of Weiszfeld's step; zero for the rows of the mask ``at`` (None: there are none)."""
        if at is None:
            return weights / distances
        return self.xp.where(at, 0.0, weights / self.xp.where(at, 1.0, distances))

    def _sum_weights(self, weights: Any, weiszfeld: Any, near: Any) -> Any:
        """Weights of the sums of :func:`~skbgmd.location.certificate.duality_gap_bound`: two or four."""
        lines = [weiszfeld, weights] if near is None else [weiszfeld, near * weiszfeld, weights, near * weights]
        # np.stack takes longer to check than this to copy.
        return np.array(lines) if self.xp is np else self.xp.stack(lines)

    def _assemble(
        self,
        position: Any,
        distances: Any,
        weiszfeld_weights: Any,
        at: Any,
        residual: Any,
        products: list[list[float]],
        totals: list[float],
        lengths: list[float],
        *,
        doubtful: float,
        slack: float,
    ) -> Iterate:
        """Pack an iterate with its proof.

        ``products`` (m, m) are of the sums of :meth:`_sum_weights`, ``totals`` (m,) the weights added up and
        ``lengths`` (m,) the same of the distances, m = 2 where all rows are near, else 4. ``at`` is a mask of rows,
        or None for none, and ``doubtful`` the largest sum of distances that they may have.
        """
        if len(products) == 2:
            products = [[products[i][j] for j in ALL_NEAR] for i in ALL_NEAR]
            totals, lengths = [totals[i] for i in ALL_NEAR], [lengths[i] for i in ALL_NEAR]
        total_weiszfeld_weight, _, _, weight_near = totals
        _, _, objective, near_objective = lengths
        at_weights: Any = None if at is None else self.xp.where(at, self.weights, 0.0)
        weight_at = 0.0 if at is None else float(at_weights.sum())
        excess = duality_gap_bound(
            products,
            weight_all=self.weight,
            objective=objective,
            weight_near=weight_near,
            near_objective=near_objective,
            weight_at=weight_at,
            at_objective=doubtful,
            slack=slack,
        )
        return Iterate(
            position=position,
            distances=distances,
            weiszfeld_weights=weiszfeld_weights,
            total_weiszfeld_weight=total_weiszfeld_weight,
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
