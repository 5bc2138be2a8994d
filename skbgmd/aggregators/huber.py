"""Huber's mean: near rows count in full, far rows by their direction; with a scale that may remember earlier steps."""

from __future__ import annotations

import numpy as np

from skbgmd.aggregators.base import RowWeighting
from skbgmd.aggregators.scale import Scale
from skbgmd.arrays import check_integer, check_number
from skbgmd.gram import FloatArray, Gram, factors_to
from skbgmd.median import lower_weighted_median, median_distances
from skbgmd.rows import Rows
from skbgmd.spaces import GramSpace


class HuberMean(RowWeighting):
    r"""Huber's M-estimate of location: near rows count in full, far rows by their direction.

    Minimises :math:`\sum_i a_i \rho(\lVert x_i - y \rVert)` with :math:`\rho(t) = t^2 / 2` up to :math:`c M`
    and linear beyond; :math:`M` is the median distance of the rows to their geometric median. Weights
    :math:`\propto a_i \min(1, c M / d_i)`, iterated in the Gram matrix. A large ``c`` gives the mean, a small one the
    geometric median.

    Parameters
    ----------
    c : float, default=1.0
        Distance, in median distances, from which a row's weight falls.
    tol : float, default=1e-6
        Stop when no weight changes by more than this, in shares of 1/n.
    max_iter : int, default=100
        Largest number of iterations.
    """

    def __init__(self, c: float = 1.0, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.c, self.tol, self.max_iter = c, tol, max_iter

    def _validate(self) -> None:
        check_number(self.c, "c")
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _weigh(self, rows: Rows) -> FloatArray:
        _, gram, distances = median_distances(rows, tol=max(self.tol, 1e-4), max_iter=self.max_iter)
        limit = self.c * lower_weighted_median(distances, rows.weights)
        return huber_weights(gram, rows.weights, distances, limit, tol=self.tol, max_iter=self.max_iter)


def huber_weights(
    gram: Gram, weights: FloatArray, distances: FloatArray, limit: float, *, tol: float, max_iter: int
) -> FloatArray:
    """Weights of Huber's location estimate; they add up to one.

    Parameters
    ----------
    gram : Gram
        Inner products of the rows.
    weights, distances : ndarray of shape (n,)
        Row weights, none of them negative; distances to a robust first estimate.
    limit : float
        Distance from which a row's weight falls.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    space = GramSpace(gram, weights)
    current = _weights_at(distances, weights, limit)
    for _ in range(max_iter - 1):
        before, current = current, _weights_at(space.distances_to_mean(current), weights, limit)
        if np.abs(current - before).max() * len(current) <= tol:
            break
    return gram.restore(current)


def _weights_at(distances: FloatArray, weights: FloatArray, limit: float) -> FloatArray:
    # With a limit of zero most rows coincide: they are the estimate.
    result: FloatArray = weights * factors_to(limit, distances)
    result /= result.sum()
    return result


#: Relative accuracy of the median that Huber's mean starts from and that its scale is taken about.
START = 0.2
#: Least scale, in median distances of the step.
TINY = 1e-9


def huberised_weights(
    rows: Rows, huber: float, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> tuple[FloatArray, Scale]:
    """Weights of Huber's mean about the geometric median, far rows left out, and the scale for the next step.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber : float
        Distance, in median distances, from which a row's weight falls.
    rejection : float or None
        Distance, in median distances, from which a row has no weight, unless it is among the nearer half.
    before : Scale
        The scale of the step before.
    tol, max_iter
        As in :class:`HuberMean`.
    """
    # The way to the median begins at a mean of clipped rows and never goes up: wherever it is left, corrupt rows can do
    # no more than so much. Huber's mean goes on from there, so that it need not be the median's last digit.
    _, gram, distances = median_distances(rows, tol=max(tol, START), max_iter=max_iter)
    middle = lower_weighted_median(distances, rows.weights)
    scale = before.after(gram.unit * middle)
    # A smaller limit would change nothing but that weights may underflow.
    limit = max(scale.value / gram.unit, TINY * middle)
    # The nearer half is kept, however small the scale is that is remembered.
    reach = np.inf if rejection is None else max(rejection * limit, middle)
    kept = np.where(distances <= reach, rows.weights, 0.0)
    return huber_weights(gram, kept, distances, huber * limit, tol=tol, max_iter=max_iter), scale
