"""Other solvers of the geometric median, each as ``solve(steps)`` for a given matrix.

A peer stops by a rule of its own: the length of a step, the change of the objective, a number of steps. To compare at
equal proved accuracy these rules are looked at as ever, but with limits that don't stop them, and the least number of
steps is looked for whose answer an independent certificate proves. No rule of its own could stop a peer any better.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from geom_median.numpy import compute_geometric_median as geom_median_numpy
from geom_median.torch import compute_geometric_median as geom_median_torch
from measure import proved_gap, seconds
from sklearn.linear_model._theil_sen import _spatial_median

Solve = Callable[[int], Any]

#: Steps beyond which a peer isn't asked for more, and how closely the least number is found.
MOST_STEPS, CLOSENESS = 1_000_000, 1.1
#: What geom-median keeps distances above, and a change of the objective that never stops it.
FLOOR, NEVER = 1e-12, -1.0
#: The square of a step at which Weiszfeld's iteration has come to a stand.
STILL = 0.0


@dataclass(frozen=True)
class Found:
    """The least steps that reach the accuracy (None: not within the limit), the best gap proved, and seconds.

    The seconds are those of the last call that counted: the one that reached it, or the longest that didn't.
    """

    steps: int | None
    gap: float
    seconds: float


def peers(X: Any) -> dict[str, Solve]:
    """Every peer, for a NumPy array or a tensor on the CPU; no conversion copies."""
    array, tensor = np.asarray(X), torch.as_tensor(X)
    # geom-median loops over the rows in Python: a thousand of them tell which of its two versions is the faster one.
    by_array = partial(_geom_median, geom_median_numpy, array[:1000], 1)
    by_tensor = partial(_geom_median, geom_median_torch, tensor[:1000], 1)
    tensor_wins = min(seconds(by_tensor) for _ in range(2)) < min(seconds(by_array) for _ in range(2))
    chosen = (geom_median_torch, tensor) if tensor_wins else (geom_median_numpy, array)
    return {
        "geom-median": partial(_geom_median, *chosen),
        "scikit-learn": partial(_theil_sen, array),
        "Weiszfeld": partial(_weiszfeld, X),
    }


def least_steps(solve: Solve, X: Any, tol: float, limit: float) -> Found:
    """Double the steps until ``tol`` is proved or a call would take longer than ``limit`` seconds; then bisect."""
    solve(1)  # not counted: whatever is loaded or allocated once
    failed, steps, best = 0, 1, math.inf
    while True:
        gap, took = _attempt(solve, X, steps)
        best = min(best, gap)
        if gap <= tol:
            break
        more = min(2 * steps, int(steps * limit / took), MOST_STEPS)
        if more < steps * CLOSENESS:
            return Found(None, best, took)
        failed, steps = steps, more
    found = Found(steps, gap, took)
    while steps - failed > 1 and steps > CLOSENESS * failed:
        middle = math.isqrt(max(failed, 1) * steps)
        if middle in (failed, steps):
            break
        gap, took = _attempt(solve, X, middle)
        if gap <= tol:
            steps, found = middle, Found(middle, gap, took)
        else:
            failed = middle
    return found


def _attempt(solve: Solve, X: Any, steps: int) -> tuple[float, float]:
    """The gap proved of the answer after so many steps, and the seconds that the call took."""
    start = time.perf_counter()
    y = solve(steps)
    took = time.perf_counter() - start
    return proved_gap(X, y), took


def _weiszfeld(X: Any, steps: int) -> Any:
    """Weiszfeld's iteration as the textbook has it, from the mean to a standstill; distances are kept off zero."""
    y = X.mean(0)
    for _ in range(steps):
        z = X - y
        d = torch.linalg.vector_norm(z, dim=1) if isinstance(X, torch.Tensor) else np.sqrt(np.einsum("ij,ij->i", z, z))
        w = 1.0 / d.clip(1e-30, None)
        new = (w @ X) / w.sum()
        moved = new - y
        y = new
        if float(moved @ moved) <= STILL:
            break
    return y


def _geom_median(compute: Callable[..., Any], X: Any, steps: int) -> Any:
    """PyPI's geom-median: smoothed Weiszfeld iterations, in NumPy or torch."""
    return compute(X, eps=FLOOR, ftol=NEVER, maxiter=steps).median


def _theil_sen(X: Any, steps: int) -> Any:
    """scikit-learn's spatial median inside Theil-Sen regression: Weiszfeld after Vardi and Zhang."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # it warns that it took all its steps, which is what it was asked for
        return _spatial_median(X, max_iter=steps, tol=0.0)[1]
