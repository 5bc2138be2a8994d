"""Path for a single column: the weighted median."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd._utils.checks import not_finite
from skbgmd._utils.cumulated_weights import middle
from skbgmd.location.ranges import exponents
from skbgmd.location.solved import Solved
from skbgmd.rows import DenseRows


def solve_column(rows: DenseRows, dtype: torch.dtype) -> Solved:
    """Solve on a line, where the geometric median is the weighted median."""
    column = rows.whole()[:, 0].double()
    if not bool(torch.isfinite(column).all()):
        raise not_finite("X", column[:, None])
    values = column.cpu().numpy()
    order = np.argsort(values, kind="stable")
    low, high = (int(order[at]) for at in middle(rows.weights, order))
    weights = np.zeros(rows.n_rows)
    weights[low] += 0.5
    weights[high] += 0.5
    # Half of the smallest number underflows.
    point = values[low] if values[low] == values[high] else 0.5 * values[low] + 0.5 * values[high]
    point = min(max(point, values[low]), values[high])
    answer = torch.full((1,), point, dtype=torch.float64, device=column.device).to(dtype)
    # A power of two by which no difference overflows.
    exponent = int(exponents(np.abs(values).max())) + 2
    scaled = np.ldexp(values, -exponent)
    apart = scaled - np.ldexp(point, -exponent)
    whole, objective = float(rows.weights.sum()), float(rows.weights @ np.abs(apart))
    left, right = float(rows.weights[apart < 0.0].sum()), float(rows.weights[apart > 0.0].sum())
    residual, at = abs(left - right), float(rows.weights[apart == 0.0].sum())
    # Sums of ones are exact.
    doubt = 0.0 if np.all(rows.weights == 1.0) else 2.0**-50 * whole
    # As in R^d: what the rows at the point don't hold of the residual is repaired by all of them.
    share = max(residual + doubt - at, 0.0) / whole
    shift = share * abs(float(rows.weights @ apart))
    excess = (share * objective + shift) / (1.0 + share)
    if float(answer[0]) != point:
        moved = float(rows.weights @ np.abs(scaled - np.ldexp(float(answer[0]), -exponent)))
        objective, excess = moved, excess + max(0.0, moved * (1.0 + 2.0**-50) - objective)
    return Solved(lambda: weights, answer, objective, excess, 0, exponent)
