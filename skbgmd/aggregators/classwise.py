"""Medians of the rows of each class, which overrule no minority."""

from __future__ import annotations

import numpy as np

from skbgmd._utils.arrays import check_integer, check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import RowWeighting
from skbgmd.location.median import gram_weights, lower_weighted_median, median_distances
from skbgmd.location.rejection import check_rejection
from skbgmd.rows import Rows


class ClasswiseMedian(RowWeighting):
    r"""Geometric median of the rows of each class, averaged by the classes' weights.

    A median of gradients of single samples overrules whatever is unlike the most, a rare class to begin with. Within
    a class samples are more alike, and each class keeps its share, :math:`w_i = (A_k / A) \, w_i^{(k)}` for a row
    of class k. A class may be corrupt for the most part, or be a single corrupt row; therefore rows far from the
    median of all rows are left out first, and what remains pulls no farther than the limit.

    Rows that say no class (groups of several samples) are all of one.

    Parameters
    ----------
    rejection : float, default=10.0
        Leave out rows farther from the median of all than this many times the median distance, more than 1.
    tol : float, default=1e-4
        Proved relative accuracy of the medians, as in :func:`skbgmd.geometric_median`.
    max_iter : int, default=100
        Largest number of steps of each.
    """

    def __init__(self, rejection: float = 10.0, tol: float = 1e-4, max_iter: int = 100) -> None:
        self.rejection, self.tol, self.max_iter = rejection, tol, max_iter

    def _validate(self) -> None:
        check_rejection(self.rejection)
        check_number(self.tol, "tol")
        check_integer(self.max_iter, "max_iter")

    def _weigh(self, rows: Rows) -> FloatArray:
        _, gram, distances = median_distances(rows, tol=self.tol, max_iter=self.max_iter)
        near = distances <= self.rejection * lower_weighted_median(distances, rows.weights)
        labels = np.zeros(rows.n_rows) if rows.labels is None else rows.labels.cpu().numpy()
        weights = np.zeros(rows.n_rows)
        for label in np.unique(labels[near]):
            members = np.flatnonzero(near & (labels == label))
            of_class = rows.weights[members]
            found = gram_weights(gram.subset(members), of_class, tol=self.tol, max_iter=self.max_iter)
            weights[members] = of_class.sum() * found.weights
        weights /= weights.sum()
        return weights
