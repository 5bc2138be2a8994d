"""The geometric median, with a proof of its accuracy."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning

from skbgmd._utils.arrays import as_matrix, as_weights
from skbgmd._utils.autocast import without_autocast
from skbgmd._utils.checks import check_flag, check_integer, check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.location.paths.choice import solve
from skbgmd.location.solver import as_float_array
from skbgmd.rows import DenseRows


@dataclass(frozen=True)
class GeometricMedianResult:
    """Geometric median with row weights and a proof of its accuracy.

    Attributes
    ----------
    median : array or tensor of shape (d,)
        The median, as the caller's kind of array, with its dtype and on its device.
    weights : array or tensor of shape (n,)
        Non-negative row weights that add up to one; ``weights @ X`` is the median, to rounding. For half-precision
        input they are float32, because half-precision weights would not add up.
    objective : float
        ``g = sum_i a_i ||x_i - median||``, for the median as returned, rounded to its dtype.
    gap : float
        Proved upper bound on the relative excess ``(g - g*) / g*``, for the same rounded median.
    n_iter : int
        Number of steps.
    converged : bool
        True if ``gap <= tol``.
    """

    median: Any
    weights: Any
    objective: float
    gap: float
    n_iter: int
    converged: bool


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

    Use it in place of the mean when some of the rows may be wrong.

    .. math:: \operatorname*{argmin}_y g(y), \qquad g(y) = \sum_i a_i \lVert x_i - y \rVert_2

    The median stays bounded as long as the rows that are moved, however far, hold less than half of the weight. Its
    breakdown point is 1/2.

    Parameters
    ----------
    X : array-like or tensor of shape (n, d)
        The rows: a list, a NumPy array, a data frame, or a tensor on any device, of any real dtype. The computation
        runs in float64 for integers and extended precision, and in float32 for half precision. Autograd doesn't track
        it.
    sample_weight : array-like or tensor of shape (n,), default=None
        Non-negative weights :math:`a_i`. An integer weight counts as that number of equal rows. None: all weights are
        one.
    tol : float, default=1e-6
        Proved relative accuracy, positive: the median satisfies :math:`g \le (1 + tol) \, g^*`. If some rows are far
        out, iteration goes on until the same holds for the distances to the near rows.
    max_iter : int, default=1000
        Maximum number of steps.
    return_result : bool, default=False
        Return a :class:`GeometricMedianResult` instead of the median alone.

    Returns
    -------
    median : array or tensor of shape (d,)
        A NumPy array, or a tensor on the input's device. It has the input's floating dtype, or float64 for integers.
        With ``return_result=True``, a :class:`GeometricMedianResult`.

    Raises
    ------
    TypeError
        If X holds complex numbers, objects, text, dates or durations, or is sparse; or if a parameter has a wrong type.
    ValueError
        If X holds NaN, NA, inf or masked entries, has a wrong shape or has no rows; if weights are negative, all zero
        or of a wrong length; or if ``tol <= 0``. With ``return_result=True``, also if the objective overflows float64.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        If the accuracy could not be proved within ``max_iter`` steps and the dtype's precision. The function then
        returns the best point that it found.

    See Also
    --------
    block_geometric_median : The same on a block of the columns.

    Notes
    -----
    The algorithm takes safeguarded Newton steps from a robust start, with the Vardi-Zhang rule on data points [1]_.

    - With few rows of many columns, all steps happen in the Gram matrix of the rows, which costs one product.
    - Otherwise they happen in R^d.
    - With many rows of many columns, accelerated Weiszfeld steps come first, as long as they are predicted to cost
      less.

    The proof of accuracy is a duality gap: :doc:`/mathematics`.

    The median is unique unless the rows lie on a line with half of the weight on either side of a gap. In that case
    every point between the two rows at the gap is a median. The function returns their midpoint, as ``numpy.median``
    does for a single column.

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
    >>> geometric_median([[1.0], [2.0], [4.0], [9.0]])
    array([3.])
    >>> geometric_median([[0.0, 0.0], [2.0, 2.0]])
    array([1., 1.])
    >>> result = geometric_median([[0, 0], [1, 0], [0, 1], [1, 1]], return_result=True)
    >>> result.median, result.gap <= 1e-6
    (array([0.5, 0.5]), True)
    """
    matrix, caller = as_matrix(X)
    weights = as_weights(sample_weight, matrix.shape[0])
    tol = check_number(tol, "tol")
    max_iter = check_integer(max_iter, "max_iter")
    check_flag(return_result, "return_result")
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


def warn_if_not_proved(gap: float, tol: float, n_iter: int) -> None:
    """Warn the caller of a public function of a geometric median that is less accurate than ``tol``."""
    if not gap <= tol:
        warnings.warn(
            f"The geometric median is proved to a relative accuracy of {gap:.2g} after {n_iter} steps, not to "
            f"tol={tol:g}. Raise max_iter or tol, or use a wider dtype.",
            ConvergenceWarning,
            stacklevel=4,  # past this function, the one that calls it, and what decorates that
        )
