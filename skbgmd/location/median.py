"""The geometric median, with a proof of its accuracy."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from skbgmd._utils import limits
from skbgmd._utils.arrays import as_matrix, as_weights
from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.checks import check_integer, check_number, not_finite
from skbgmd._utils.transfer import on_device
from skbgmd._utils.typing import FloatArray
from skbgmd.location.certificate import relative_gap
from skbgmd.location.paths import takes_gram_path, weiszfeld_pays
from skbgmd.location.ranges import RangedRows, coordinatewise_median, exponents
from skbgmd.location.solver import Iterate, Solution, approach, as_float_array, minimize, minimize_while
from skbgmd.location.spaces import EuclideanSpace, ExpandedSpace, GramSpace
from skbgmd.rows import DenseRows, Rows
from skbgmd.rows.chunked import means
from skbgmd.rows.gram import Gram, clip_factors, high_median
from skbgmd.rows.gram import lower_weighted_median as lower_weighted_median


@dataclass(frozen=True)
class GeometricMedianResult:
    """A geometric median with its weights and its proof.

    Attributes
    ----------
    median : array or tensor of shape (d,)
        The point; the caller's kind of array, dtype and device.
    weights : array or tensor of shape (n,)
        Non-negative, adding up to one; ``weights @ X`` is the median, to rounding. In float32 for half precision, in
        which they would not add up.
    objective : float
        ``g = sum_i a_i ||x_i - median||``, of the median as it is here, rounded to its dtype.
    gap : float
        Proved upper bound on the relative excess ``(g - g*) / g*``, of the same.
    n_iter : int
        Steps taken.
    converged : bool
        True if ``gap <= tol``.
    """

    median: Any
    weights: Any
    objective: float
    gap: float
    n_iter: int
    converged: bool


@dataclass(frozen=True)
class Solved:
    """Solution of either path, before its conversion to the caller's kind of array."""

    #: Gives the weights of the rows, (n,), which take memory and may not be asked for.
    weigh: Callable[[], FloatArray]
    #: Rounded to the answer's dtype; None: weights @ rows, in working precision, is to be rounded.
    median: torch.Tensor | None
    #: Sum of the weighted distances, and a bound on its excess; in units of 2**exponent.
    objective: float
    excess: float
    n_iter: int
    exponent: int = 0
    #: True where the median is a row, but for rounding.
    is_row: bool = False

    @property
    def weights(self) -> FloatArray:
        return self.weigh()

    @property
    def gap(self) -> float:
        return relative_gap(self.excess, self.objective)

    def of_rounded_rows(self, lost: FloatArray | None, weights: FloatArray) -> Solved:
        """Bounds for rows that lost digits in float64, given a norm (n,) of the loss for each."""
        if lost is None:
            return self
        moved = math.ldexp(float(weights @ lost), -self.exponent)
        return replace(self, objective=self.objective + moved, excess=self.excess + 2.0 * moved)


@without_autocast
def geometric_median(
    X: ArrayLike | torch.Tensor,
    *,
    sample_weight: ArrayLike | torch.Tensor | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    return_result: bool = False,
) -> Any:
    r"""Geometric median (spatial median, L1-median): the point with the smallest sum of distances to the rows.

    .. math:: \operatorname*{argmin}_y g(y), \qquad g(y) = \sum_i a_i \lVert x_i - y \rVert_2

    It stays bounded as long as rows of less than half the weight are moved, however far: its breakdown point
    is 1/2.

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        The rows. Lists, NumPy arrays, data frames, tensors on any device; any real dtype. Integers and extended
        precision are computed in float64, half precision in float32. Gradients are not followed.
    sample_weight : array-like or tensor of shape (n,), default=None
        Non-negative weights :math:`a_i`; an integer weight counts as that number of equal rows. None: all one.
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
        Complex, object, text or sparse data, dates or durations; parameters of a wrong type.
    ValueError
        NaN, NA or inf, masked entries, a wrong shape, no rows; weights that are negative, all zero or of a wrong
        length; tol <= 0. With ``return_result``, an objective that overflows float64.

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
    many columns all steps happen in the Gram matrix of the rows, which costs one product; else in R^d. With many
    rows of many columns accelerated Weiszfeld steps come first, as long as they are predicted to cost less.
    The proof is a duality gap: :doc:`/mathematics`.

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
    weights = as_weights(sample_weight, matrix.shape[0])
    tol = check_number(tol, "tol")
    max_iter = check_integer(max_iter, "max_iter")
    rows = DenseRows(matrix, weights)
    solved = solve(rows, tol=tol, max_iter=max_iter, dtype=caller.rounded_to)
    solved = solved.of_rounded_rows(caller.lost(), weights)
    warn_if_not_proved(solved.gap, tol, solved.n_iter)
    assert solved.median is not None, "asked for"
    median = solved.median
    if not return_result:
        return caller.convert(median)
    distances = rows.distances(median.double())
    of_rows = solved.weights
    if solved.is_row and distances[of_rows > 0.0].any():
        # Other rows were too near to be told from it.
        of_rows = np.where(distances == 0.0, of_rows, 0.0)
        of_rows = of_rows / of_rows.sum() if of_rows.any() else solved.weights
    # The proof in float32 needs fewer digits of the objective than a reader may want.
    return GeometricMedianResult(
        median=caller.convert(median),
        weights=caller.convert_weights(of_rows, matrix.device),
        objective=_objective(rows, median.double(), distances, sample_weight),
        gap=solved.gap,
        n_iter=solved.n_iter,
        converged=bool(solved.gap <= tol),
    )


def _objective(rows: DenseRows, point: torch.Tensor, distances: FloatArray, sample_weight: Any) -> float:
    """Sum of distances to a point by the caller's weights, of which the rows' are multiples.

    Raises
    ------
    ValueError
        It overflows float64.
    """
    given = 1.0 if sample_weight is None else float(np.max(as_float_array(sample_weight)))
    with np.errstate(over="ignore"):
        objective = given * float(rows.weights @ distances)
    largest, down = float(distances[distances.argmax()]), 0
    if 1e-290 <= objective <= 1e290 and largest <= 1e290:
        return objective
    if not largest < np.finfo(np.float64).max:
        distances, down = rows.huge_distances(point), 64
    size = float(distances.max())
    if size == 0.0:
        return 0.0
    # Each factor may be far from one where the product isn't.
    parts = [math.frexp(part) for part in (float(rows.weights @ (distances / size)), size, given)]
    mantissa, exponent = math.prod(part for part, _ in parts), sum(power for _, power in parts) + down
    with np.errstate(over="ignore"):
        objective = float(np.ldexp(mantissa, exponent))
    if not math.isfinite(objective):
        raise ValueError(
            "The weighted sum of the distances to the rows of X must have a number in float64; found one beyond "
            f"{np.finfo(np.float64).max:.2g}. Divide X by a constant, or ask for the median alone."
        )
    return objective


def gram_weights(gram: Gram, weights: FloatArray, *, tol: float, max_iter: int, at_center: bool = False) -> Solution:
    """Weights of the geometric median of rows that are known by their Gram matrix.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows, all of them finite.
    weights : ndarray of shape (n,)
        Positive row weights.
    tol, max_iter
        As in :func:`geometric_median`; accuracy at the scale of the near rows.
    at_center : bool, default=False
        Start at the point that the inner products are about, a solution of fewer digits.

    Returns
    -------
    Solution
    """
    space = GramSpace(gram, weights)
    start = np.zeros(space.n) if at_center else clipped_start(gram.norms, weights)
    solution = minimize(space, space.vector(start), tol=tol, max_iter=max_iter)
    return solution if gram.shrinkage is None else replace(solution, restored=gram.restore(solution.weights))


def clipped_start(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights (n,) of one Huber step from the center: far rows count by their direction alone."""
    start: FloatArray = weights * clip_factors(high_median(norms), norms)
    start /= start.sum()
    return start


def row_weights(rows: Rows, *, tol: float, max_iter: int) -> tuple[Solution, Gram, int]:
    """Weights of the geometric median of rows, by Gram matrices alone.

    About a likely center first; about the solution, where the proof wants more digits.

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
        again = gram_weights(about, rows.weights, tol=tol, max_iter=max_iter - n_iter, at_center=True)
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


def solve(
    rows: DenseRows, *, tol: float, max_iter: int, dtype: torch.dtype | None = None, combines: bool = False
) -> Solved:
    """Geometric median of dense rows on whichever path is cheaper; rows of weight zero are left out.

    The proof is of the answer as rounded.

    Parameters
    ----------
    rows : DenseRows
        The rows, with their weights.
    tol, max_iter
        As in :func:`geometric_median`.
    dtype : torch.dtype, default=None
        Dtype that the median is rounded to; None: the working precision.
    combines : bool, default=False
        True where the caller takes the weighted mean itself: then the median is left out where that will do.

    Raises
    ------
    ValueError
        A row that isn't finite.
    """
    dtype = dtype or rows.work_dtype
    # The rest of the tolerance is for rounding, and it is relative to the least objective, not to that of a point.
    solved = _solve(rows, 0.9 * tol / (1.0 + tol), max_iter, dtype, combines)
    left = max_iter - solved.n_iter
    if tol < solved.gap <= 2.0 * tol and left > 0:
        # A tighter lower bound may show that rounding costs less than that.
        again = _solve(rows, 0.01 * tol, left, dtype, combines)
        better = again if again.gap < solved.gap else solved
        solved = replace(better, n_iter=solved.n_iter + again.n_iter)
    return solved


def _solve(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype, combines: bool) -> Solved:
    used = None if np.count_nonzero(rows.weights) == rows.n_rows else np.flatnonzero(rows.weights)
    if used is not None and not rows.finite.all():
        raise not_finite("X", rows.whole())
    part = rows if used is None else rows.subset(used)
    if part.n_columns == 1:
        solved = _solve_column(part, dtype)
    elif (found := _solve_by_weiszfeld(part, tol, max_iter, dtype)) is not None:
        solved = found
    elif takes_gram_path(part.n_rows, part.n_columns):
        solved = _solve_gram(part, tol, max_iter, dtype, combines)
    else:
        solved = _solve_points(part, tol, max_iter, dtype)
    if used is None:
        return solved
    weights = np.zeros(rows.n_rows)
    weights[used] = solved.weights
    return replace(solved, weigh=lambda: weights)


def warn_if_not_proved(gap: float, tol: float, n_iter: int) -> None:
    """Warn the caller of a public function of a geometric median that is less accurate than ``tol``."""
    if not gap <= tol:
        warnings.warn(
            f"The geometric median is proved to a relative accuracy of {gap:.2g} after {n_iter} steps, not to "
            f"tol={tol:g}. Raise max_iter or tol, or use a wider dtype.",
            ConvergenceWarning,
            stacklevel=4,  # past this function, the one that calls it, and what decorates that
        )


def _solve_gram(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype, combines: bool) -> Solved:
    """Solve in the Gram matrix of the rows."""
    gram = rows.gram()
    if not gram.finite.all():
        raise not_finite("X", rows.whole())
    if gram.unit != 1.0:
        return _solve_ranged(rows, tol, max_iter, dtype)
    solution, gram, n_iter = row_weights(rows, tol=tol, max_iter=max_iter)
    if gram.unit != 1.0:
        return _solve_ranged(rows, tol, max_iter, dtype)
    iterate = solution.iterate
    if solution.converged:
        if solution.vertex is None and combines and rows.knows_norms:
            # The median's length isn't known yet; it is no more than the mean of the rows'.
            length = float(solution.weights @ rows.norms())
            moved = _combined(rows, length) + _moved(length, rows.work_dtype, dtype, rows.n_columns)
            if (excess := _after_move(iterate, moved, tol)) is not None:
                return Solved(solution.float_weights, None, iterate.objective, excess, n_iter)
        median = means(rows, _place(solution))
        # A median that is a row needs no rounding.
        total = iterate.total_weiszfeld_weight
        spread = float(rows.weights.sum()) / total if total > 0.0 else 0.0
        length = vector_norm(median)
        moved = _combined(rows, length + spread) if solution.vertex is None else 0.0
        moved += _moved_point(median, length, dtype, is_row=solution.vertex is not None)
        if (excess := _after_move(iterate, moved, tol)) is not None:
            return Solved(
                solution.float_weights,
                median.to(dtype),
                iterate.objective,
                excess,
                n_iter,
                is_row=solution.vertex is not None,
            )
    if not solution.converged and n_iter < max_iter and _are_far_apart(gram.norms):
        return _solve_ranged(rows, tol, max_iter, dtype)
    space = GramSpace(gram, rows.weights)
    settled = _measured(rows, solution, space.objective_error(iterate), _exact(rows, solution), dtype, n_iter)
    if settled.gap <= tol or gram.rounding <= 2.0**-40:
        return settled
    about = rows.gram(about=_place(solution))
    again = gram_weights(about, rows.weights, tol=tol, max_iter=max_iter, at_center=True)
    error = GramSpace(about, rows.weights).objective_error(again.iterate)
    better = _measured(rows, again, error, _exact(rows, again), dtype, n_iter + again.n_iter)
    return better if better.gap < settled.gap else replace(settled, n_iter=better.n_iter)


def _solve_by_weiszfeld(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved | None:
    """Solve in R^d by accelerated Weiszfeld steps in the rows' own dtype, as long as these pay; None if they don't."""
    n, d = rows.n_rows, rows.n_columns
    # Other rows would have to be copied.
    if not (weiszfeld_pays(n, d, limits.WEISZFELD_STEPS) and rows.is_plain):
        return None
    pays = partial(weiszfeld_pays, n, d)
    matrix, center = rows.matrix, None
    if rows.product_dtype != rows.dtype:
        if n * d > limits.FLOAT64_PRODUCT_ELEMENTS:
            return None
        matrix = matrix.double()
    elif rows.dtype == torch.float32 and (central := rows.central_index()) is not None:
        center = matrix[central]
    on_cpu = matrix.is_cpu
    xp: Any = np if on_cpu else torch
    points: Any = matrix.numpy() if on_cpu else matrix
    about: Any = center.numpy() if on_cpu and center is not None else center
    row_weights: Any = rows.weights if on_cpu else on_device(rows.weights, matrix.device)
    space = ExpandedSpace(points, row_weights, about, xp)
    with np.errstate(all="ignore"):
        start = space.start()
        if center is not None:
            # A row is as far off as the others are; there are more digits about what is between them.
            start = space.move_to(start)
        solution = minimize_while(space, start, tol=tol, max_iter=max_iter, pays=pays)
        n_iter = 0 if solution is None else solution.n_iter
        if solution is not None and not solution.converged:
            start = space.move_to(solution.position)
            solution = minimize_while(space, start, tol=tol, max_iter=max_iter - n_iter, pays=pays)
            n_iter += 0 if solution is None else solution.n_iter
    if solution is None or not solution.converged:
        return None
    place = solution.position if space.center is None else solution.position + space.center
    exact = torch.from_numpy(place) if on_cpu else place
    moved = _moved(math.sqrt(space.inner(place, place)), exact.dtype, dtype, d)
    moved += space.position_error(solution.iterate)
    iterate = solution.iterate
    if (excess := _after_move(iterate, moved, tol)) is not None:
        return Solved(solution.float_weights, exact.to(dtype), iterate.objective, excess, n_iter)
    return _measured(rows, solution, space.objective_error(iterate), exact, dtype, n_iter)


@np.errstate(all="ignore")
def _solve_points(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved:
    """Solve in R^d, from the median of a subsample where there are many rows."""
    matrix, weights = rows.whole(), rows.weights
    on_cpu = matrix.is_cpu and matrix.dtype in (torch.float32, torch.float64)
    xp = np if on_cpu else torch
    points: Any = matrix.numpy() if on_cpu else matrix
    row_weights: Any = weights if on_cpu else on_device(weights, matrix.device)
    few: Any = points[:: -(-len(points) // limits.ORIGIN_ROWS)]
    middle = len(few) // 2
    if on_cpu:
        origin: Any = np.partition(few, middle, axis=0)[middle].astype(np.float64)
    else:
        origin = few.double().sort(dim=0).values[middle]
    step = -(-len(points) // limits.SUBSAMPLE_ROWS) if len(points) > limits.SUBSAMPLE_ABOVE else 1
    some: Any = points[::step]
    start, n_iter, may_be_row = 0.0 * origin, 0, False
    if step > 1 and weights[::step].any():
        space = EuclideanSpace(some, row_weights[::step], origin, xp)
        first = minimize(space, start, tol=max(tol, 1e-3), max_iter=max_iter)
        start, n_iter, may_be_row = first.position, first.n_iter, first.iterate.weight_at > 0.0
    for _ in range(3):
        space = EuclideanSpace(points, row_weights, origin, xp)
        # Without bounds steps would go to and fro about a row.
        if not (space.newton_is_expensive or may_be_row):
            start, taken = approach(space, start, tol=tol, max_iter=max_iter - n_iter - 1)
            n_iter += taken
        solution = minimize(space, start, tol=tol, max_iter=max(1, max_iter - n_iter))
        if space.out_of_range:
            # As it is where a number isn't finite.
            return _solve_ranged(rows, tol, max_iter, dtype)
        n_iter += solution.n_iter
        exact: Any = origin + solution.position
        if solution.vertex is not None:
            exact = matrix[solution.vertex].double()
            exact = exact.numpy() if on_cpu else exact
        if solution.converged or n_iter >= max_iter:
            break
        if _are_far_apart(solution.iterate.distances):
            return _solve_ranged(rows, tol, max_iter, dtype)
        # The origin is too far off for the digits that the proof wants.
        origin, start = exact, 0.0 * exact
    length = math.sqrt(space.inner(origin, origin)) + math.sqrt(space.inner(solution.position, solution.position))
    exact = torch.from_numpy(exact) if on_cpu else exact
    moved = _moved_point(exact, length, dtype, is_row=solution.vertex is not None)
    if solution.vertex is None:
        # The sum of two parts is rounded, and each of them was.
        moved += 2.0**-51 * length
    iterate = solution.iterate
    if solution.converged and (excess := _after_move(iterate, moved, tol)) is not None:
        return Solved(
            solution.float_weights,
            exact.to(dtype),
            iterate.objective,
            excess,
            n_iter,
            is_row=solution.vertex is not None,
        )
    return _measured(rows, solution, space.objective_error(iterate), exact, dtype, n_iter)


def _are_far_apart(distances: Any) -> bool:
    """Check for distances of which some are too much larger than others for steps between them."""
    positive = as_float_array(distances)
    positive = positive[positive > 0.0]
    return bool(len(positive)) and float(positive.max()) > limits.DISTANCE_RATIO * float(positive.min())


def _solve_ranged(rows: DenseRows, tol: float, max_iter: int, dtype: torch.dtype) -> Solved:
    """Solve in R^d with rows scaled to order one, where squares overflow or sizes are far apart."""
    whole = rows.whole()
    matrix, weights = whole.double().cpu().numpy(), rows.weights
    if not np.isfinite(matrix).all():
        raise not_finite("X", whole)
    about, n_iter = coordinatewise_median(matrix, weights), 0
    for _ in range(4):
        with np.errstate(under="ignore"):
            ranged = RangedRows.of(matrix, weights, about)
        space = EuclideanSpace(ranged.points, weights, np.zeros(rows.n_columns))
        solution = minimize(space, np.zeros(rows.n_columns), tol=tol, max_iter=max(1, max_iter - n_iter))
        n_iter += solution.n_iter
        exact = matrix[solution.vertex] if solution.vertex is not None else ranged.restored(solution.position)
        exact = np.clip(exact, matrix.min(axis=0), matrix.max(axis=0))
        if solution.converged or n_iter >= max_iter:
            break
        about = exact
    answer = torch.from_numpy(exact).to(whole.device, dtype)
    with np.errstate(under="ignore"):
        place = ranged.place(answer.double().cpu().numpy())
        apart = np.sqrt(np.einsum("ij,ij->i", ranged.points - place, ranged.points - place))
    objective = float(weights @ apart)
    away = float(weights[apart > 0.0].sum())
    error = space.objective_error(solution.iterate) + 2.0**-52 * away * float(np.linalg.norm(place))
    excess = _excess(objective, solution.iterate, error)
    if ranged.shrinkage is not None:
        # For the rows as they are, the bound relative to the objective is at most three times as large.
        excess *= 3.0
    weights_of_rows = ranged.restored_weights(as_float_array(solution.weights))
    is_row = solution.vertex is not None
    return Solved(lambda: weights_of_rows, answer, objective, excess, n_iter, ranged.exponent, is_row)


def _solve_column(rows: DenseRows, dtype: torch.dtype) -> Solved:
    """Solve on a line, where the geometric median is the weighted median."""
    column = rows.whole()[:, 0].double()
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
    # Half of the smallest number underflows.
    point = values[low] if values[low] == values[high] else 0.5 * values[low] + 0.5 * values[high]
    point = min(max(point, values[low]), values[high])
    answer = torch.full((1,), point, dtype=torch.float64, device=column.device).to(dtype)
    # A power of two by which no difference overflows.
    exponent = int(exponents(np.abs(values).max())) + 2
    scaled = np.ldexp(values, -exponent)
    apart = scaled - np.ldexp(point, -exponent)
    whole, objective = float(mass[-1]), float(rows.weights @ np.abs(apart))
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


def _exact(rows: DenseRows, solution: Solution) -> torch.Tensor:
    return rows.weighted_sum(_place(solution), torch.float64)


def _place(solution: Solution) -> FloatArray:
    """Weights whose mean is the solution's position to the last digit: at a row, all weight on that row."""
    if solution.vertex is None:
        return as_float_array(solution.weights)
    weights = np.zeros(len(solution.weights))
    weights[solution.vertex] = 1.0
    return weights


def vector_norm(vector: torch.Tensor) -> float:
    """Norm of a vector whose square may over- or underflow."""
    norm = float(torch.linalg.vector_norm(vector))
    low, high = limits.SQUARED_RANGE[vector.dtype]
    if low <= norm <= high:
        return norm
    vector = vector.double()
    largest = float(vector.abs().max()) if len(vector) else 0.0
    return largest * float(torch.linalg.vector_norm(vector / largest)) if largest > 0.0 else 0.0


@cache
def _rounding(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2.0


@cache
def _least(dtype: torch.dtype) -> float:
    """The smallest positive number of a dtype."""
    return float(torch.finfo(dtype).tiny) * torch.finfo(dtype).eps


def _moved(length: float, dtype: torch.dtype, rounded_to: torch.dtype, d: int) -> float:
    """Bound the move of a point (d,) by rounding, from a bound on its norm, and its dtype."""
    if dtype == rounded_to:
        return 0.0
    return 2.0 * _rounding(rounded_to) * length + _least(rounded_to) * math.sqrt(d)


def _moved_point(point: torch.Tensor, length: float, rounded_to: torch.dtype, *, is_row: bool) -> float:
    """Bound the move of a point by rounding: none for a row whose numbers are exact in the dtype."""
    if point.dtype == rounded_to:
        return 0.0
    if is_row and torch.equal(point.to(rounded_to).to(point.dtype), point):
        return 0.0
    return _moved(length, point.dtype, rounded_to, len(point))


def _combined(rows: DenseRows, length: float) -> float:
    """Bound the error of a weighted mean of rows by rounding, from their mean norm.

    Each weight is rounded, each product, and each sum.
    """
    least = _least(rows.work_dtype) * rows.n_rows * math.sqrt(rows.n_columns)
    return (rows.n_rows + 2) * _rounding(rows.work_dtype) * length + least


def _after_move(iterate: Iterate, moved: float, tol: float) -> float | None:
    """Bound the excess of a median that is moved by at most ``moved``; None where that costs too much.

    ``||z - e|| <= ||z|| - <z, e> / ||z|| + ||e||^2 / (2 ||z||)``, summed over the rows; rows at the point add
    ``||e||``. Twice that, for the step from the iterate to the median.
    """
    cost = moved * (2.0 * iterate.residual_norm + iterate.weight_at + iterate.total_weiszfeld_weight * moved)
    if not cost <= 0.1 * tol * iterate.excess.near_objective:
        return None
    excess = iterate.excess.absolute + cost
    return excess if relative_gap(excess, iterate.objective) <= tol else None


def _excess(objective: float, iterate: Iterate, error: float) -> float:
    """Bound the excess of a point from its objective and the lower bound that the iterate proves."""
    lower = iterate.objective - error - iterate.excess.absolute
    return max(0.0, objective * (1.0 + 2.0**-50) - lower) if objective > 0.0 else 0.0


def _measured(
    rows: DenseRows, solution: Solution, error: float, exact: torch.Tensor, dtype: torch.dtype, n_iter: int
) -> Solved:
    """Measure the distances to the rounded median in float64, for a tighter bound on its excess.

    Rounding costs second order only, which a bound from the size of the move doesn't show.
    """
    answer, iterate = exact.to(dtype), solution.iterate
    distances = rows.distances(answer.double())
    objective = float(rows.weights @ distances)
    excess = _excess(objective, iterate, error)
    if solution.vertex is not None:
        # Rows that count as at the point may be seen to be so now.
        at = as_float_array(iterate.distances) == 0.0
        excess -= 2.0 * max(0.0, iterate.doubtful - float(rows.weights[at] @ distances[at]))
    is_row = solution.vertex is not None
    return Solved(solution.float_weights, answer, objective, excess, n_iter, is_row=is_row)
