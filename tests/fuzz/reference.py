"""Slow reference points in extended precision, where neither squares nor sums overflow."""

from __future__ import annotations

import numpy as np

Long = np.longdouble
#: Columns up to which Newton's steps are tried; Weiszfeld's always are.
NEWTON_COLUMNS = 64


def distances(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = X - y
    return np.sqrt(np.einsum("ij,ij->i", z, z))


def objective(X: np.ndarray, y: np.ndarray, a: np.ndarray) -> Long:
    """Sum of the weighted distances."""
    return a @ distances(X, y)


def best_point(X: np.ndarray, a: np.ndarray, starts: list[np.ndarray], steps: int = 15) -> tuple[np.ndarray, Long]:
    """The best point found by a few steps from some starts and from the best row; a point and its objective."""
    X, a = X[a > 0], a[a > 0]
    if len(X) > 1:
        squares = np.stack([np.einsum("ij,ij->i", X - x, X - x) for x in X[:64]])
        starts = [*starts, X[int((np.sqrt(squares) @ a).argmin())]]
    found = [_improved(X, a, np.asarray(start, dtype=Long), steps) for start in starts]
    return min(found, key=lambda pair: pair[1])


def _improved(X: np.ndarray, a: np.ndarray, y: np.ndarray, steps: int) -> tuple[np.ndarray, Long]:
    d = distances(X, y)
    value = a @ d
    for _ in range(steps):
        z = X - y
        away = d > 0
        if not away.any():
            break
        pull = a[away] / d[away]
        total, residual = pull.sum(), pull @ z[away]
        step = residual / total
        if away.all():
            size, newton = np.abs(step).max(), np.zeros_like(y)
            if size > 0 and len(y) <= NEWTON_COLUMNS:
                e = z / d[:, None]
                hessian = np.eye(len(y)) - ((e * (pull / total)[:, None]).T @ e).astype(np.float64)
                newton = np.linalg.lstsq(hessian, (step / size).astype(np.float64), rcond=1e-14)[0].astype(Long) * size
            tries = [y + newton, y + step, y + newton / 8, X[int(d.argmin())]]
        else:
            size, at = np.sqrt(residual @ residual), a[~away].sum()
            if size <= at:
                break
            tries = [y + t * (1 - at / size) * step for t in (1, 8, Long(1) / 8, Long(1) / 512)]
        ahead = [(a @ distances(X, point), point) for point in tries]
        lowest, point = min(ahead, key=lambda pair: pair[0])
        if not lowest < value:
            break
        value, y = lowest, point
        d = distances(X, y)
    return y, value
