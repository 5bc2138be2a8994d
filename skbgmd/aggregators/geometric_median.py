"""Geometric median of the rows (GMD's aggregate)."""

from __future__ import annotations

from skbgmd._utils.arrays import check_integer, check_number
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.aggregators.base import RowWeighting
from skbgmd.location.rejection import check_rejection, median_weights
from skbgmd.rows import Rows


class GeometricMedian(RowWeighting):
    """The geometric median of the rows (GMD's aggregate); breakdown point 1/2.

    Parameters
    ----------
    rejection : float or None, default=None
        Leave out rows farther from the median than this many times the median distance, more than 1, and take the
        median of the others. Rows that are far off then have no influence at all, where on the median alone they have
        as much as any other.
    tol : float, default=1e-6
        Proved relative accuracy, as in :func:`skbgmd.geometric_median`. There is no warning where it isn't reached.
    max_iter : int, default=100
        Largest number of steps.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import GeometricMedian
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [1e9, 5e8]]))
    >>> GeometricMedian()(rows)[0].vector
    tensor([1., 1.])
    """

    def __init__(self, rejection: float | None = None, tol: float = 1e-6, max_iter: int = 100) -> None:
        self.rejection, self.tol, self.max_iter = rejection, tol, max_iter

    def _validate(self) -> None:
        check_rejection(self.rejection)
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.gram(tol=self.tol).finite

    def _weigh(self, rows: Rows) -> FloatArray:
        return median_weights(rows, self.rejection, tol=self.tol, max_iter=self.max_iter)
