"""Other solvers of the geometric median, each as ``solve(X, effort)`` with more accuracy for more effort.

A peer stops by a rule of its own, the length of a step or the change of the objective. To compare at equal proved
accuracy its effort is raised until an independent certificate proves the accuracy, and that call is timed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from geom_median.numpy import compute_geometric_median as geom_median_numpy
from geom_median.torch import compute_geometric_median as geom_median_torch
from measure import proved_gap
from sklearn.linear_model._theil_sen import _spatial_median

Solver = Callable[[Any, int], Any]

#: Seconds after which a peer isn't asked for more.
LIMIT = 5.0
#: Efforts: the tolerance is 10 ** -effort, and so many iterations are allowed.
EFFORTS = range(2, 15)


def _iterations(effort: int) -> int:
    return 10 ** min(2 + effort // 2, 5)


def weiszfeld(X: Any, effort: int) -> Any:
    """Weiszfeld's iteration as the textbook has it, from the mean; distances kept off zero."""
    xp = torch if isinstance(X, torch.Tensor) else np
    y = X.mean(0)
    for _ in range(_iterations(effort)):
        z = X - y
        d = xp.sqrt((z * z).sum(1)).clip(1e-30, None)
        w = 1.0 / d
        new = (w @ X) / w.sum()
        moved = float(((new - y) ** 2).sum()) ** 0.5
        y = new
        if moved <= 10.0**-effort * float(d.mean()):
            break
    return y


def geom_median(X: Any, effort: int) -> Any:
    """PyPI's geom-median: smoothed Weiszfeld iterations."""
    eps, ftol, maxiter = 10.0 ** -min(effort, 12), 10.0 ** -(effort + 2), _iterations(effort)
    if isinstance(X, torch.Tensor):
        return geom_median_torch(list(X), eps=eps, ftol=ftol, maxiter=maxiter).median
    return geom_median_numpy(list(X), eps=eps, ftol=ftol, maxiter=maxiter).median


def theil_sen(X: Any, effort: int) -> Any:
    """scikit-learn's spatial median inside Theil-Sen regression: Weiszfeld after Vardi and Zhang."""
    X = X.numpy() if isinstance(X, torch.Tensor) else X
    return _spatial_median(X, max_iter=_iterations(effort), tol=10.0**-effort)[1]


PEERS: dict[str, Solver] = {"geom-median": geom_median, "scikit-learn": theil_sen, "Weiszfeld": weiszfeld}


def least_effort(solver: Solver, X: Any, tol: float) -> tuple[int | None, float, float]:
    """The least effort whose answer is proved to ``tol`` (None: not within the limit), the gap and the seconds."""
    best = float("inf")
    for effort in EFFORTS:
        start = time.perf_counter()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            y = solver(X, effort)
        seconds = time.perf_counter() - start
        best = min(best, proved_gap(X, y))
        if best <= tol:
            return effort, best, seconds
        if seconds > LIMIT:
            break
    return None, best, seconds
