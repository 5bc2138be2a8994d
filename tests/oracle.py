"""Slow, exact solutions of the geometric median, independent of the library."""

from __future__ import annotations

import clarabel
import mpmath
import numpy as np
from scipy import sparse

Long = np.longdouble


def objective(X, y, weights=None):
    """Sum of weighted distances, in extended precision, without overflow."""
    z = np.asarray(X).astype(Long) - np.asarray(y).astype(Long)
    distances = np.sqrt((z * z).sum(axis=1))
    return (np.ones(len(z), dtype=Long) if weights is None else np.asarray(weights).astype(Long)) @ distances


def extended(X, weights=None, hint=None):
    """Geometric median in 80-bit arithmetic: exact vertex tests, then damped Newton; point and objective.

    Checks itself: asserts that its own duality gap is at most 1e-11. Where it doesn't get there from the best row
    (rows that coincide but for rounding are as hard for it as for anyone) it goes on from ``hint``, any point:
    what it then returns is as good as its gap says, wherever it started.
    """
    X = np.asarray(X).astype(Long)
    a = np.ones(len(X), dtype=Long) if weights is None else np.asarray(weights).astype(Long)
    X, a = X[a > 0], a[a > 0]
    # Differences of the inputs are exact here; positions with a large common offset would not be.
    centre = X[np.abs(X - np.median(X, axis=0)).sum(axis=1).argmin()]
    y, value = _extended(X - centre, a)
    gap = _gap(X - centre, y, a)
    if gap > 1e-11 and hint is not None:
        y, value = _newton(X - centre, np.asarray(hint).astype(Long) - centre, a)
        gap = _gap(X - centre, y, a)
    assert gap <= 1e-11, f"the oracle did not converge: {gap}"
    return y + centre, value


def _extended(X, a):
    distances = np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))
    best = int((distances @ a).argmin())
    pull, at = _pull(X, X[best], a)
    if np.sqrt(pull @ pull) <= at * (1 + Long(1e-17)):
        return X[best], distances[best] @ a
    return _newton(X, _leave(X, X[best], a, pull, at), a)


def _newton(X, y, a):
    for _ in range(300):
        z = X - y
        d = np.sqrt((z * z).sum(axis=1))
        near = int(d.argmin())
        pull, at = _pull(X, X[near], a)
        if np.sqrt(pull @ pull) <= at * (1 + Long(1e-17)):
            return X[near], objective(X, X[near], a)
        if d[near] == 0:
            y = _leave(X, X[near], a, pull, at)
            continue
        e = z / d[:, None]
        gradient = -(a @ e)
        if np.sqrt(gradient @ gradient) <= Long(1e-17) * a.sum():
            break
        hessian = (a / d).sum() * np.eye(len(y), dtype=Long) - (e * (a / d)[:, None]).T @ e
        step = _search(X, y, a, _solve(hessian, -gradient))
        if step is None:
            step = _search(X, y, a, -gradient / (a / d).sum())
        if step is None:
            break
        y = y + step
    return y, objective(X, y, a)


def _pull(X, y, a):
    z = X - y
    d = np.sqrt((z * z).sum(axis=1))
    away = d > 0
    return (a[away] / d[away]) @ z[away], a[~away].sum()


def _leave(X, y, a, pull, at):
    z = X - y
    d = np.sqrt((z * z).sum(axis=1))
    away = d > 0
    size = np.sqrt(pull @ pull)
    return y + (1 - at / size) * pull / (a[away] / d[away]).sum()


def _search(X, y, a, direction):
    """A step along a direction of descent, by the sign of the slope: the objective has fewer digits to compare."""

    def slope(t):
        return -(_pull(X, y + t * direction, a)[0] @ direction)

    start = slope(Long(0))
    if not start < 0:
        return None
    if abs(slope(Long(1))) <= abs(start) / 4:
        return direction
    low, high = Long(0), Long(1)
    while slope(high) < 0:
        high *= 2
    for _ in range(70):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low * direction if low > 0 else None


def _gap(X, y, a):
    z = X - y
    d = np.sqrt((z * z).sum(axis=1))
    at = d <= 1e-15 * d.max()
    e = z[~at] / d[~at][:, None]
    r = a[~at] @ e
    size = np.sqrt(r @ r)
    r = r * max(Long(0), 1 - a[at].sum() / size) if size > 0 else r
    A = a.sum()
    size = np.sqrt(r @ r)
    excess = (size / A * (a @ d) + r @ (a @ z) / A) / (1 + size / A) + 2 * (a[at] @ d[at])
    return float(excess / (a @ d)) if a @ d > 0 else 0.0


def _solve(matrix, right):
    """Gaussian elimination with pivoting: LAPACK knows no long double."""
    m = np.concatenate([matrix, right[:, None]], axis=1)
    n = len(right)
    for i in range(n):
        pivot = i + int(np.abs(m[i:, i]).argmax())
        m[[i, pivot]] = m[[pivot, i]]
        if m[i, i] == 0:
            return right
        m[i + 1 :] -= (m[i + 1 :, i] / m[i, i])[:, None] * m[i]
    x = np.zeros(n, dtype=m.dtype)
    for i in reversed(range(n)):
        x[i] = (m[i, n] - m[i, i + 1 : n] @ x[i + 1 :]) / m[i, i]
    return x


def conic(X, weights=None):
    """Objective of the geometric median as a second-order cone programme, by an interior-point solver."""
    X = np.asarray(X, dtype=np.float64)
    n, d = X.shape
    a = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    # Variables (y, t): minimise a @ t subject to (t_i, x_i - y) in the cone of dimension d + 1.
    blocks, right = [], []
    for i in range(n):
        block = np.zeros((d + 1, d + n))
        block[0, d + i] = -1.0
        block[1:, :d] = np.eye(d)
        blocks.append(block)
        right.append(np.concatenate([[0.0], X[i]]))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    solver = clarabel.DefaultSolver(
        sparse.csc_matrix((d + n, d + n)),
        np.concatenate([np.zeros(d), a]),
        sparse.csc_matrix(np.vstack(blocks)),
        np.concatenate(right),
        [clarabel.SecondOrderConeT(d + 1)] * n,
        settings,
    )
    return solver.solve().obj_val


def many_digits(X, digits=400):
    """Geometric median by Newton steps with hundreds of digits, for rows at 1e160; few small rows only."""
    with mpmath.workdps(digits):
        rows = [mpmath.matrix([mpmath.mpf(float(v)) for v in row]) for row in np.asarray(X)]
        d = len(rows[0])
        y = mpmath.matrix([mpmath.mpf(float(v)) for v in np.median(np.asarray(X), axis=0)])
        for _ in range(60):
            gradient, hessian = mpmath.zeros(d, 1), mpmath.zeros(d, d)
            for x in rows:
                z = x - y
                length = mpmath.norm(z)
                e = z / length
                gradient -= e
                hessian += (mpmath.eye(d) - e * e.T) / length
            if mpmath.norm(gradient) < mpmath.mpf(10) ** -100:
                return np.array([float(v) for v in y])
            step = mpmath.lu_solve(hessian, -gradient)

            def value(point):
                # Changes of the distances, not distances: those of the far rows would drown the others.
                return mpmath.fsum(mpmath.norm(x - point) for x in rows)

            start, t = value(y), mpmath.mpf(1)
            while value(y + t * step) > start:
                t /= 2
            y = y + t * step
        raise AssertionError("the oracle did not converge")


#: Rounding of the objective of :func:`excess`.
ORACLE = 1e-18


def excess(X, median, weights=None):
    """True relative excess objective, in extended precision."""
    best = extended(X, weights, hint=median)[1]
    found = objective(X, median, weights)
    # Identical rows have an objective of zero: then relative to their size.
    return float((found - best) / best) if best > 0 else float(found) / max(float(np.abs(X).max()), 1e-300)
