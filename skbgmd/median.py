"""The geometric median, with a proof of its accuracy."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from skbgmd.arrays import as_matrix, as_weights, check_integer, check_number, not_finite, without_autocast
from skbgmd.certificate import relative_gap
from skbgmd.gram import FloatArray, Gram, factors_to, middle
from skbgmd.rows import DenseRows, Rows
from skbgmd.solver import Solution, as_float_array, minimize
from skbgmd.spaces import GramSpace, PointSpace

#: Rows beyond which the start is the median of every so manieth row, and how many rows that takes.
SUBSAMPLE_ABOVE, SUBSAMPLE_ROWS = 8192, 2048
#: Rows whose coordinate-wise median is the origin in R^d.
ORIGIN_ROWS = 128
#: Sizes of typical rows in float64 whose squares, and those of their differences, have numbers.
TINY, HUGE = 1e-140, 1e140


@dataclass(frozen=True)
class GeometricMedianResult:
    """A geometric median and what is known about it.

    Attributes
    ----------
    median : array or tensor of shape (d,)
        The point; the caller's kind of array, dtype and device.
    weights : array or tensor of shape (n,)
        Non-negative, adding up to one; ``weights @ X`` is the median, to rounding.
    objective : float
        ``g = sum_i a_i ||x_i - median||``.
    gap : float
        Proved upper bound on the relative excess ``(g - g*) / g*``.
    n_iter : int
        Steps taken.
    converged : bool
        Whether ``gap <= tol``.
    """

    median: Any
    weights: Any
    objective: float
    gap: float
    n_iter: int
    converged: bool


@dataclass(frozen=True)
class Solved:
    """The answer of either path, before it is put in the caller's terms."""

    weights: FloatArray
    #: None: weights @ rows.
    median: torch.Tensor | None
    #: Sum of the weighted distances, and how much less it may be elsewhere; in any unit of length.
    objective: float
    excess: float
    n_iter: int

    @property
    def gap(self) -> float:
        return relative_gap(self.excess, self.objective)


@without_autocast
def geometric_median(
    X: ArrayLike | torch.Tensor,
    *,
    sample_weight: ArrayLike | torch.Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    return_result: bool = False,
) -> Any:
    r"""Point with the smallest sum of distances to the rows of a matrix.

    .. math:: \operatorname*{argmin}_y g(y), \qquad g(y) = \sum_i a_i \lVert x_i - y \rVert_2

    It stays bounded as long as rows of less than half the weight are moved, however far: its breakdown point
    is 1/2.

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        The rows. Lists, NumPy arrays, data frames, tensors on any device; any real dtype. Integers are computed in
        float64, half precision in float32. Gradients are not followed.
    sample_weight : array-like or tensor of shape (n,), default=None
        Non-negative weights :math:`a_i`; an integer weight counts as so many equal rows. None: all one.
    tol : float, default=1e-6
        Proved relative accuracy: the answer satisfies :math:`g \le (1 + tol) \, g^*`. Where rows are far out,
        iteration goes on until the same holds of the distances to the near rows.
    max_iter : int, default=1000
        Largest number of steps.
    return_result : bool, default=False
        Return a :class:`GeometricMedianResult` instead of the median alone.

    Returns
    -------
    median : array or tensor of shape (d,)
        A NumPy array, or a tensor on the input's device; of the input's floating dtype, float64 for integers.
        Or a :class:`GeometricMedianResult`.

    Raises
    ------
    TypeError
        Complex, object, text or sparse data; parameters of a wrong type.
    ValueError
        NaN or inf, a wrong shape, no rows; weights that are negative, all zero or of a wrong length; tol <= 0.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        The accuracy could not be proved within ``max_iter`` steps and the dtype's precision; the best point is
        returned.

    See Also
    --------
    block_geometric_median : The same on a block of the columns.

    Notes
    -----
    Safeguarded Newton steps from a robust start; the Vardi-Zhang rule on data points [1]_. With few rows of
    many columns all steps happen in the Gram matrix of the rows, which costs one product; else in R^d.
    The proof is a duality gap. See the guide's page on the mathematics.

    References
    ----------
    .. [1] Y. Vardi and C.-H. Zhang (2000). The multivariate L1-median and associated data depth. PNAS 97(4).

    Examples
    --------
    >>> import numpy as np
    >>> from skbgmd import geometric_median
    >>> X = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [1e9, 5e8]])
    >>> geometric_median(X).round(3)
    array([1., 1.])
    >>> result = geometric_median([[0, 0], [1, 0], [0, 1], [1, 1]], return_result=True)
    >>> result.median, result.gap <= 1e-6
    (array([0.5, 0.5]), True)
    """
    matrix, caller = as_matrix(X)
    weights = as_weights(sample_weight, len(matrix))
    tol = check_number(tol, "tol")
    max_iter = check_integer(max_iter, "max_iter")
    rows = DenseRows(matrix, weights)
    solved = solve(rows, tol=tol, max_iter=max_iter)
    warn_if_not_proved(solved.gap, tol, solved.n_iter)
    median = solved.median if solved.median is not None else rows.combine(solved.weights)
    if not return_result:
        return caller.give(median)
    # In float32 the proof needs fewer digits of the objective than its reader may want.
    scale = 1.0 if sample_weight is None else float(np.max(as_float_array(sample_weight)))
    return GeometricMedianResult(
        median=caller.give(median),
        weights=caller.give(torch.as_tensor(solved.weights, device=matrix.device)),
        objective=scale * float(weights @ rows.distances(median.double())),
        gap=solved.gap,
        n_iter=solved.n_iter,
        converged=bool(solved.gap <= tol),
    )


def gram_weights(gram: Gram, weights: FloatArray, *, tol: float, max_iter: int, at_centre: bool = False) -> Solution:
    """Weights of the geometric median of rows that are known by their Gram matrix.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows, all of them finite.
    weights : ndarray of shape (n,)
        Positive row weights.
    tol, max_iter
        As in :func:`geometric_median`; accuracy at the scale of the near rows.
    at_centre : bool, default=False
        Start at the point that the inner products are about, a solution of fewer digits.

    Returns
    -------
    Solution
    """
    space = GramSpace(gram, weights)
    start = np.zeros(space.n)
    if not at_centre:
        # One Huber step from the centre: far rows count by their direction alone.
        start = weights * factors_to(middle(gram.norms, upper=True), gram.norms)
        start /= start.sum()
    solution = minimize(space, space.vector(start), tol=tol, max_iter=max_iter)
    return replace(solution, weights=gram.restore(solution.weights))


def row_weights(rows: Rows, *, tol: float, max_iter: int) -> tuple[Solution, Gram, int]:
    """Weights of the geometric median of rows, by Gram matrices alone.

    About a likely centre first; about the solution, where the proof wants more digits.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite, and their weights.
    tol, max_iter
        As in :func:`gram_weights`.

    Returns
    -------
    solution : Solution
    gram : Gram
        The Gram matrix it was found in.
    n_iter : int
        Steps taken in all.
    """
    gram = rows.gram(tol=tol)
    solution = gram_weights(gram, rows.weights, tol=tol, max_iter=max_iter)
    n_iter = solution.n_iter
    for _ in range(2):
        if solution.converged or n_iter >= max_iter:
            break
        about = rows.gram(about=_place(solution))
        again = gram_weights(about, rows.weights, tol=tol, max_iter=max_iter - n_iter, at_centre=True)
        n_iter += again.n_iter
        known = solution.iterate.excess.absolute * gram.unit
        if np.isfinite(known) and not again.iterate.excess.absolute * about.unit <= known:
            break  # the first answer has the better proof
        solution, gram = again, about
    return solution, gram, n_iter


def median_distances(rows: Rows, *, tol: float, max_iter: int) -> tuple[FloatArray, Gram, FloatArray]:
    """Weights of the geometric median, the Gram matrix it was found in, and the distances (n,) of the rows to it.

    Distances are in the Gram matrix's unit. Parameters as in :func:`row_weights`.
    """
    solution, gram, _ = row_weights(rows, tol=tol, max_iter=max_iter)
    return solution.weights, gram, GramSpace(gram, rows.weights).distances(solution.position)


def takes_gram_path(n: int, d: int) -> bool:
    """Whether to work in the Gram matrix of the rows rather than in R^d.

    The Gram matrix costs n^2 d multiplications, once; in R^d each of some five evaluations and Newton steps costs some
    ten passes of n d, and a copy in float64. Measured (``benchmarks/results/paths.md``), R^d is ahead up to 100 columns
    at any number of rows, and the two are level at 400 rows of 400 columns. From 1000 columns on the Gram matrix is
    ahead as long as there are at most half as many rows, by 1.3 to 3 times; the two are level at 2500 rows of 5000
    columns. With as many rows as columns R^d is ahead.
    """
    return d >= 1000 and 2 * n <= d


def solve(rows: DenseRows, *, tol: float, max_iter: int, weights_only: bool = False) -> Solved:
    """Geometric median of dense rows on whichever path is cheaper; rows of weight zero are left out.

    With ``weights_only`` the proof is of the weights: what rounding their combination would cost is left open.

    Raises
    ------
    ValueError
        A row that isn't finite.
    """
    used = np.flatnonzero(rows.weights)
    if len(used) < rows.n_rows and not rows.finite.all():
        raise not_finite("X", rows.whole())
    part = rows if len(used) == rows.n_rows else rows.subset(used)
    if part.n_columns == 1:
        solved = _solve_column(part)
    elif takes_gram_path(part.n_rows, part.n_columns):
        solved = _solve_gram(part, tol, max_iter, weights_only)
    else:
        solved = _solve_points(part, tol, max_iter)
    if part is rows:
        return solved
    weights = np.zeros(rows.n_rows)
    weights[used] = solved.weights
    return Solved(weights, solved.median, solved.objective, solved.excess, solved.n_iter)


def lower_weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The smallest value that, with those below it, holds half of the weight.

    Parameters
    ----------
    values : ndarray of shape (n,)
    weights : ndarray of shape (n,)
        Non-negative, one of them positive.

    Examples
    --------
    >>> lower_weighted_median(np.array([3.0, 1.0, 2.0, 9.0]), np.ones(4))
    2.0
    """
    if weights.min() == weights.max():
        return middle(values)
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weights[order])
    # Sums of equal weights may differ in their last digits.
    return float(values[order[np.searchsorted(mass, 0.5 * mass[-1] * (1.0 - 1e-12))]])


def warn_if_not_proved(gap: float, tol: float, n_iter: int) -> None:
    """Warn who called a function of the package that a geometric median is less accurate than asked for."""
    if not gap <= tol:
        warnings.warn(
            f"The geometric median is proved to a relative accuracy of {gap:.2g} after {n_iter} steps, not to "
            f"tol={tol:g}. Raise max_iter or tol, or use a wider dtype.",
            ConvergenceWarning,
            stacklevel=4,  # past this function, the one that calls it, and what decorates that
        )


def _solve_gram(rows: DenseRows, tol: float, max_iter: int, weights_only: bool) -> Solved:
    """In the Gram matrix of the rows."""
    if not rows.gram().finite.all():
        raise not_finite("X", rows.whole())
    solution, gram, n_iter = row_weights(rows, tol=tol, max_iter=max_iter)
    iterate = solution.iterate
    if weights_only:
        return Solved(solution.weights, None, iterate.objective, iterate.excess.absolute, n_iter)
    if solution.converged and gram.unit == 1.0:
        median = rows.combine(_place(solution))
        # Each of the products and sums that make up the median is rounded; a row comes out as it is.
        spread = float(rows.weights.sum()) / iterate.total_pull if iterate.total_pull > 0.0 else 0.0
        moved = 4.0 * _rounding(median.dtype) * (float(torch.linalg.vector_norm(median)) + spread)
        moved = moved if solution.vertex is None else 0.0
        if (solved := _rounded(solution, median, moved, tol, n_iter)) is not None:
            return solved
    if gram.rounding > 2.0**-40:
        gram = rows.gram(about=_place(solution))
        solution = gram_weights(gram, rows.weights, tol=tol, max_iter=max_iter, at_centre=True)
        iterate, n_iter = solution.iterate, n_iter + solution.n_iter
    excess = iterate.excess.absolute + iterate.excess.near_objective * (gram.bending + gram.rounding)
    return _measured(rows, solution, rows.combine(_place(solution), torch.float64), gram.unit, excess, n_iter)


def _solve_points(rows: DenseRows, tol: float, max_iter: int) -> Solved:
    """In R^d, from the median of a subsample where there are many rows."""
    matrix, weights = rows.whole(), rows.weights
    exponent = _exponent(matrix)
    if exponent:
        scaled = _solve_points(DenseRows(_times_power(matrix, -exponent), weights), tol, max_iter)
        assert scaled.median is not None, "in R^d there always is one"
        return replace(scaled, median=_times_power(scaled.median, exponent))
    on_cpu = matrix.is_cpu and matrix.dtype in (torch.float32, torch.float64)
    xp = np if on_cpu else torch
    points: Any = matrix.numpy() if on_cpu else matrix
    row_weights: Any = weights if on_cpu else torch.as_tensor(weights, device=matrix.device)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(points.sum())
    # A sum that is finite has finite terms; only another needs a look at each number.
    if not (math.isfinite(total) or bool(xp.isfinite(points).all())):
        raise not_finite("X", matrix)
    few: Any = points[:: -(-len(points) // ORIGIN_ROWS)]
    middle = len(few) // 2
    if on_cpu:
        origin: Any = np.partition(few, middle, axis=0)[middle].astype(np.float64)
    else:
        origin = few.double().sort(dim=0).values[middle]
    step = -(-len(points) // SUBSAMPLE_ROWS) if len(points) > SUBSAMPLE_ABOVE else 1
    some: Any = points[::step]
    start, n_iter = 0.0 * origin, 0
    if step > 1 and weights[::step].any():
        first = minimize(
            PointSpace(some, row_weights[::step], origin, xp), start, tol=max(tol, 1e-3), max_iter=max_iter
        )
        start, n_iter = first.position, first.n_iter
    for _ in range(3):
        left = max(1, max_iter - n_iter)
        solution = minimize(PointSpace(points, row_weights, origin, xp), start, tol=tol, max_iter=left)
        n_iter += solution.n_iter
        exact: Any = origin + solution.position
        if solution.vertex is not None:
            exact = matrix[solution.vertex].double()
            exact = exact.numpy() if on_cpu else exact
        if solution.converged or n_iter >= max_iter:
            break
        # The origin was too far off for the digits that the proof wants.
        origin, start = exact, 0.0 * exact
    iterate, moved = solution.iterate, 0.0
    if solution.vertex is None:
        moved = _rounding(rows.work_dtype) * math.sqrt(float(exact @ exact))
    exact = torch.as_tensor(exact)
    median = exact.to(rows.work_dtype)
    if (solved := _rounded(solution, median, moved, tol, n_iter)) is not None:
        return solved
    return _measured(rows, solution, exact, 1.0, iterate.excess.absolute, n_iter)


def _exponent(matrix: torch.Tensor) -> int:
    """The power of two that a typical row is as large as, where squares of such rows have no number; else 0."""
    if matrix.dtype != torch.float64:
        return 0  # worked on in a wider dtype
    sizes = matrix[:: -(-len(matrix) // ORIGIN_ROWS)].abs().amax(dim=1).cpu().numpy()
    typical = middle(sizes)
    if typical == 0.0 or not math.isfinite(typical) or TINY <= typical <= HUGE:
        return 0
    # Brought to order one, no row must overflow.
    return max(math.frexp(typical)[1], math.frexp(float(matrix.abs().max()))[1] - 1000)


def _times_power(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Values times a power of two, which itself may have no number."""
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def _solve_column(rows: DenseRows) -> Solved:
    """On a line the geometric median is the weighted median."""
    column = rows.whole()[:, 0].to(rows.work_dtype)
    if not bool(torch.isfinite(column).all()):
        raise not_finite("X", column[:, None])
    values = column.cpu().numpy()
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(rows.weights[order])
    half = 0.5 * mass[-1]
    low = order[np.searchsorted(mass, half * (1.0 - 1e-15))]
    high = order[np.searchsorted(mass, half * (1.0 + 1e-15), side="right")]
    weights = np.zeros(rows.n_rows)
    weights[low] += 0.5
    weights[high] += 0.5
    objective = float(rows.weights @ np.abs(values - 0.5 * (values[low] + values[high]), dtype=np.float64))
    return Solved(weights, None, objective, 0.0, 0)


def _place(solution: Solution) -> FloatArray:
    """Weights that give the solution's position to the last digit: at a row, all weight on that row."""
    if solution.vertex is None:
        return as_float_array(solution.weights)
    weights = np.zeros(len(solution.weights))
    weights[solution.vertex] = 1.0
    return weights


def _norm(vector: torch.Tensor) -> float:
    """Norm of a vector of any finite size."""
    largest = float(vector.abs().max())
    return largest * float(torch.linalg.vector_norm(vector / largest)) if largest > 0.0 else 0.0


def _rounding(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2.0


def _rounded(solution: Solution, median: torch.Tensor, moved: float, tol: float, n_iter: int) -> Solved | None:
    """The answer with what rounding the median by at most ``moved`` can cost; None where that is too much.

    ``||z - e|| <= ||z|| - <z, e> / ||z|| + ||e||^2 / (2 ||z||)``, summed over the rows; rows at the point add
    ``||e||``. Twice that, for the step from the iterate to the median.
    """
    iterate = solution.iterate
    cost = moved * (2.0 * iterate.residual_norm + iterate.weight_at + iterate.total_pull * moved)
    if cost > 0.1 * tol * iterate.excess.near_objective:
        return None
    return Solved(as_float_array(solution.weights), median, iterate.objective, iterate.excess.absolute + cost, n_iter)


def _measured(
    rows: DenseRows, solution: Solution, exact: torch.Tensor, unit: float, excess: float, n_iter: int
) -> Solved:
    """Settle what rounding the median costs by measuring the distances to the rounded point, in float64.

    A point moved by rounding is worse by second order only, which a bound from the size of the move can't tell.
    """
    median = exact.to(rows.work_dtype)
    objective = float(rows.weights @ rows.distances(median.double()))
    if unit != 1.0:
        moved = _norm(median.double() - exact) + _rounding(torch.float64) * _norm(exact)
        total = unit * excess + float(rows.weights.sum()) * moved
    else:
        total = max(objective - solution.iterate.objective, 0.0) + excess + 2.0**-50 * objective
    return Solved(as_float_array(solution.weights), median, objective, total, n_iter)
