"""Geometric median of the rows (GMD's aggregate)."""

from __future__ import annotations

from typing import Any

from skbgmd._utils.checks import check_choice, check_integer, check_number
from skbgmd._utils.typing import BoolArray
from skbgmd.aggregators.base import Judgement, LocationRule, finite_rows, state_of
from skbgmd.aggregators.huber_mean import huber_weights_about_median
from skbgmd.aggregators.memory import Scale
from skbgmd.location.rejection import check_rejection, median_weights
from skbgmd.rows import Rows

#: Rules for steps in which many rows are tied.
TIES = ("median", "huber")


class GeometricMedian(LocationRule):
    """Geometric median of the rows (GMD's aggregate), with breakdown point 1/2.

    Parameters
    ----------
    rejection : float or None, default=None
        Leave out the rows farther from the median than ``rejection`` times the median distance, and take the median of
        the others. More than 1. Rows that are far off then have no influence at all; in the plain median they have as
        much as any other row. None: no row is left out.
    ties : {"median", "huber"}, default="median"
        Rule for tied rows, such as gradients of empty, constant or repeated samples. "median": many tied rows may
        themselves be the geometric median, whatever the other rows are. "huber": in that case the answer is Huber's
        mean. Its scale is the typical distance of the other rows, remembered from step to step as in
        :class:`HuberMean`. Use "huber" for rows that are single samples.
    tol : float, default=1e-6
        Proved relative accuracy, as in :func:`skbgmd.geometric_median`. The rule doesn't warn if it can't reach it.
    max_iter : int, default=100
        Maximum number of steps.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import GeometricMedian
    >>> from skbgmd.rows import DenseRows
    >>> rows = DenseRows(torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [1e9, 5e8]]))
    >>> GeometricMedian()(rows)[0].vector
    tensor([1., 1.])
    """

    def __init__(
        self, rejection: float | None = None, ties: str = "median", tol: float = 1e-6, max_iter: int = 100
    ) -> None:
        self.rejection, self.ties, self.tol, self.max_iter = rejection, ties, tol, max_iter

    def _validate(self) -> None:
        check_rejection(self.rejection)
        check_choice(self.ties, "ties", TIES)
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _finite(self, rows: Rows) -> BoolArray:
        return finite_rows(rows, tol=self.tol if self.ties == "median" else 0.0)

    def judge(self, rows: Rows, state: Any = None) -> Judgement:
        before = state_of(self, state, Scale) or Scale()
        if self.ties == "median":
            median = median_weights(rows, self.rejection, tol=self.tol, max_iter=self.max_iter)
            return Judgement(median.weights, off_block=median.carried)
        found = huber_weights_about_median(rows, None, self.rejection, before, tol=self.tol, max_iter=self.max_iter)
        return found.judgement(None)
