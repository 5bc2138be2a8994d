"""Aggregators that keep some rows and drop the others: mean, norm filter, Krum, spectral filter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skbgmd.aggregators.base import Aggregate, RowWeighting, check_fraction, check_rows, corrupt_count
from skbgmd.arrays import check_integer
from skbgmd.gram import BoolArray, FloatArray
from skbgmd.rows import Rows
from skbgmd.streaming import in_range


class Mean(RowWeighting):
    """Weighted mean: plain SGD's aggregate. One bad row moves it anywhere (breakdown point 0).

    Examples
    --------
    >>> import torch
    >>> from skbgmd.aggregators import Mean
    >>> from skbgmd.rows import DenseRows
    >>> aggregate, state = Mean()(DenseRows(torch.tensor([[1.0], [2.0], [float("nan")]])))
    >>> aggregate.vector, aggregate.weights
    (tensor([1.5000]), array([0.5, 0.5, 0. ]))
    """

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        check_rows(rows)
        # A sum without NaN or inf has none among its rows: the look at every row is only for the other case.
        weights = rows.weights / rows.weights.sum()
        vector = rows.combine(weights)
        if math.isfinite(float(vector.sum())):
            return Aggregate(vector, weights), None
        if bool(rows.finite[weights > 0.0].all()):
            return Aggregate(in_range(rows, vector, weights), weights), None
        return super().__call__(rows)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows) -> FloatArray:
        weights: FloatArray = rows.weights / rows.weights.sum()
        return weights


class NormFilter(RowWeighting):
    r"""Mean of the rows without those of largest norm.

    Drops :math:`f = \lceil \psi n \rceil` rows (less than half). Blind to a row of ordinary length that points the
    wrong way. Ghosh et al. (2019); Gupta et al. (2020), comparative gradient elimination.

    Parameters
    ----------
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).
    both_tails : bool, default=False
        Drop as many rows of the smallest norms too, which leaves the mean of those of middling length.
    """

    def __init__(self, fraction: float = 0.4, both_tails: bool = False) -> None:
        self.fraction, self.both_tails = fraction, both_tails

    def _validate(self) -> None:
        check_fraction(self.fraction)

    def _finite(self, rows: Rows) -> BoolArray:
        return rows.finite

    def _weigh(self, rows: Rows) -> FloatArray:
        f = corrupt_count(self.fraction, rows.n_rows)
        kept = np.argsort(rows.norms(), kind="stable")[f if self.both_tails else 0 : rows.n_rows - f]
        return _mean_of(kept, rows)


class Krum(RowWeighting):
    r"""Mean of the rows that lie closest to their neighbours. Blanchard et al. (2017).

    The score of a row is the sum of its squared distances to its :math:`n - f - 2` nearest other rows,
    :math:`f = \lceil \psi n \rceil` (less than half); the ``n_selected`` rows of least score are averaged. The row
    itself is no neighbour of its own; at least one neighbour counts, however few the rows.

    Parameters
    ----------
    fraction : float, default=0.4
        Assumed share ψ of corrupt rows, in [0, 0.5).
    n_selected : int, default=1
        Rows to average: 1 is Krum, more is multi-Krum. At most :math:`n - f` are used.
    """

    def __init__(self, fraction: float = 0.4, n_selected: int = 1) -> None:
        self.fraction, self.n_selected = fraction, n_selected

    def _validate(self) -> None:
        check_fraction(self.fraction)
        check_integer(self.n_selected, "n_selected")

    def _weigh(self, rows: Rows) -> FloatArray:
        n = rows.n_rows
        if n == 1:
            return np.ones(1)
        f = corrupt_count(self.fraction, n)
        distances = rows.gram().squared_distances()
        np.fill_diagonal(distances, np.inf)
        neighbours = max(1, n - f - 2)
        scores = np.partition(distances, neighbours - 1, axis=1)[:, :neighbours].sum(axis=1)
        selected = np.argsort(scores, kind="stable")[: min(self.n_selected, n - f)]
        return _mean_of(selected, rows)


class SpectralFilter(RowWeighting):
    r"""Mean after filtering along the direction of largest variance, again and again.

    The iterative filter of Diakonikolas et al. (2017), as used by Sever (2019) and, with a breakdown point of 1/4, by
    Data and Diggavi (2020): in each round the weight of a row is multiplied by :math:`1 - \tau_i / \max_j
    \tau_j`, with :math:`\tau_i` the squared projection of the centred row on the top eigenvector of the weighted
    covariance, until the share ``fraction`` of the weight is gone. The eigenvector comes from the Gram matrix.

    Parameters
    ----------
    fraction : float, default=0.2
        Share of the weight to remove, in [0, 0.5).
    """

    def __init__(self, fraction: float = 0.2) -> None:
        self.fraction = fraction

    def _validate(self) -> None:
        check_fraction(self.fraction)

    def _weigh(self, rows: Rows) -> FloatArray:
        return spectral_weights(rows.gram().products, rows.weights, self.fraction)


def spectral_weights(products: FloatArray, weights: FloatArray, fraction: float) -> FloatArray:
    """Weights of the rows after spectral filtering; they add up to one.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        Inner products of the rows about any point.
    weights : ndarray of shape (n,)
        Positive row weights.
    fraction : float
        Share of the weight to remove.
    """
    # Of order one: squares of products of huge rows have no number. A power of two changes no digit.
    gram = torch.from_numpy(np.ldexp(products, -np.frexp(np.abs(products).max())[1]))
    kept = weights.copy()
    target = (1.0 - fraction) * weights.sum() * (1.0 + 1e-12)
    # Each round takes at least one row out.
    for _ in range(len(weights)):
        if kept.sum() <= target:
            break
        share = kept / kept.sum()
        along = _top_projection(gram, share)
        tau = np.where(kept > 0.0, along * along, 0.0)
        if not tau.max() > 0.0:
            break
        fewer = kept * (1.0 - tau / tau.max())
        if not fewer.any():
            break
        kept = fewer
    result: FloatArray = kept / kept.sum()
    return result


def _top_projection(gram: torch.Tensor, share: FloatArray) -> FloatArray:
    """Projections of the centred rows on the top eigenvector of their weighted covariance, up to a factor."""
    p = torch.from_numpy(share)
    image = gram @ p
    centred = gram - image - image[:, None] + p @ image
    root = p.sqrt()
    # The covariance's eigenvectors are the rows combined by those of this n x n matrix, times `root`.
    vectors = torch.linalg.eigh(root[:, None] * centred * root).eigenvectors
    projection: FloatArray = (centred @ (root * vectors[:, -1])).numpy()
    return projection


def _mean_of(index: Any, rows: Rows) -> FloatArray:
    weights = np.zeros(rows.n_rows)
    weights[index] = rows.weights[index]
    result: FloatArray = weights / weights.sum()
    return result
