"""Gram matrices: all that a row-weighting rule needs to know of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skbgmd._utils.cumulated_weights import bounds, in_units
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import BoolArray, FloatArray


@dataclass(frozen=True)
class Gram:
    """Inner products of the rows about some point, in float64 on the CPU.

    Only differences and distances have a meaning, because they don't depend on that point.

    Attributes
    ----------
    products : ndarray of shape (n, n)
        ``<x_i - c, x_j - c>``; zero for rows that are not finite.
    finite : ndarray of shape (n,), bool
        Mask of the rows that hold neither NaN nor inf.
    rounding : float
        ``|error of products_ij| <= rounding * l_i * l_j``, where ``l`` are the lengths.
    lengths : ndarray of shape (n,), or None
        None stands for the norms ``||x_i - c||``. Means of rows may be much shorter than the rows; they have the means
        of the rows' lengths instead.
    unit : float
        Length that counts as one. It differs from 1 if squares of the rows are out of range.
    shrinkage : ndarray of shape (n,), or None
        Factors of at most one by which far rows were shrunk for the same reason.
    original : Gram, or None
        The products before that shrinkage, if they are in range.
    floor : float
        Additional error of every product, from terms that underflow.
    about_zero : bool
        True if the point is known to be zero: the products are then inner products of the rows themselves.
    """

    products: FloatArray
    finite: BoolArray
    rounding: float = 2.0**-50
    unit: float = 1.0
    shrinkage: FloatArray | None = None
    lengths: FloatArray | None = None
    original: Gram | None = None
    floor: float = 0.0
    about_zero: bool = False

    @cached_property
    def squares(self) -> FloatArray:
        """Squared norms of the rows."""
        # They may come out a little below zero.
        squares: FloatArray = np.maximum(np.diagonal(self.products), 0.0)
        return squares

    @cached_property
    def norms(self) -> FloatArray:
        """Norms of the rows."""
        norms: FloatArray = np.sqrt(self.squares)
        return norms

    @property
    def known_lengths(self) -> FloatArray:
        """The lengths, or the norms where none are given."""
        return self.norms if self.lengths is None else self.lengths

    @property
    def resolution(self) -> float:
        """Distance below which rows of typical length can't be told apart, because their products are rounded."""
        return resolution_of(self.known_lengths, self.rounding)

    def restore(self, weights: FloatArray) -> FloatArray:
        """Convert weights of the shrunk rows to weights of the original rows."""
        if self.shrinkage is None:
            return weights
        restored: FloatArray = weights * self.shrinkage
        whole = restored.sum()
        return restored / whole if whole > 0.0 else weights

    def subset(self, index: NDArray[np.intp] | BoolArray) -> Gram:
        """Select rows."""
        shrinkage = None if self.shrinkage is None else self.shrinkage[index]
        lengths = None if self.lengths is None else self.lengths[index]
        products = self.products[index][:, index]
        original = None if self.original is None else self.original.subset(index)
        return replace(
            self, products=products, finite=self.finite[index], shrinkage=shrinkage, lengths=lengths, original=original
        )

    @one_thread_of_products()
    def averaged(self, averaging: FloatArray) -> Gram:
        """The Gram matrix of ``averaging @ rows``; the lines of ``averaging`` add up to one."""
        shrinkage = None
        if self.shrinkage is not None:
            # A mean with a shrunk row in it is shrunk by about as much.
            gone = self.shrinkage == 0.0
            with np.errstate(over="ignore"):  # to nothing, as those that are gone
                # None is infinite, which zero times would be no number.
                shrinkage = 1.0 / (averaging @ np.minimum(1.0 / np.where(gone, 1.0, self.shrinkage), 1e300))
            shrinkage = np.where((averaging[:, gone] > 0.0).any(axis=1), 0.0, shrinkage)
        return replace(
            self,
            products=averaging @ self.products @ averaging.T,
            finite=np.ones(len(averaging), dtype=bool),
            lengths=averaging @ self.known_lengths,
            shrinkage=shrinkage,
            original=None if self.original is None else self.original.averaged(averaging),
        )

    def scaled(self, factors: FloatArray, norms: FloatArray) -> Gram | None:
        """Compute the Gram matrix about the origin of the rows times factors; None where squares are out of range.

        Norms of the rows (n,) say where the origin is: ``2 <x_i, x_j> = |x_i|^2 + |x_j|^2 - |x_i - x_j|^2``.
        """
        if self.unit != 1.0 or self.shrinkage is not None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            squares = norms**2
            products = 0.5 * (squares[:, None] + squares - self.squared_distances()) * factors[:, None] * factors
        if not np.isfinite(products).all():
            return None
        return Gram(products, self.finite, self.rounding, lengths=factors * norms, floor=self.floor)

    @property
    def noise(self) -> float:
        """Error of a typical squared distance between rows, relative to it.

        It grows where rows are closer to each other than to the point that the products are about.
        """
        distance = high_median(np.median(self.squared_distances(), axis=1))
        return self.rounding * high_median(self.known_lengths) ** 2 / max(distance, 1e-300)

    def squared_distances(self) -> FloatArray:
        """Squared distances between all pairs of rows."""
        squares = np.diagonal(self.products)
        result: FloatArray = np.maximum(squares[:, None] + squares - 2.0 * self.products, 0.0)
        np.fill_diagonal(result, 0.0)
        return result


def clip_factors(limit: float, norms: FloatArray) -> FloatArray:
    """Factors that clip vectors of given norms to a limit.

    Examples
    --------
    >>> clip_factors(2.0, np.array([0.0, 1.0, 8.0]))
    array([1.  , 1.  , 0.25])
    """
    if 0.0 < limit < np.inf:
        factors: FloatArray = limit / np.maximum(norms, limit)
        return factors
    return np.ones(len(norms)) if limit > 0.0 else (norms == 0.0).astype(np.float64)


def resolution_of(lengths: FloatArray, rounding: float) -> float:
    """Distance below which rows of these lengths (n,) can't be told apart, their products being rounded so much."""
    return 2.0 * math.sqrt(2.0 * rounding) * low_median(lengths)


def low_median(values: FloatArray) -> float:
    """Lower median, which withstands all but half of the numbers.

    Quicker than NumPy's median, which averages two and looks for NaN.

    Examples
    --------
    >>> low_median(np.array([4.0, 1.0, 9.0, 2.0]))
    2.0
    """
    at, found = (len(values) - 1) // 2, values.copy()
    found.partition(at)
    return float(found[at])


def high_median(values: FloatArray) -> float:
    """Upper median: for distances of a row, of which one is zero for its own, the lower median of the others.

    Examples
    --------
    >>> high_median(np.array([4.0, 1.0, 9.0, 2.0]))
    4.0
    """
    at = len(values) // 2
    return float(np.partition(values, at)[at])


def lower_weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """Lower weighted median: the smallest value that, with those below it, holds half of the weight.

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
        return low_median(values)
    return lower_weighted_quantile(values, weights, 0.5)


def lower_weighted_quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """Lower weighted quantile: the smallest value that, with those below it, holds a share of the weight.

    Parameters
    ----------
    values, weights : ndarray of shape (n,)
        As in :func:`lower_weighted_median`.
    share : float
        In (0, 1].

    Examples
    --------
    >>> lower_weighted_quantile(np.array([3.0, 1.0, 2.0, 9.0]), np.ones(4), 0.25)
    1.0
    """
    return lower_weighted_quantiles(values, weights, share)[0]


def lower_weighted_quantiles(values: FloatArray, weights: FloatArray, *shares: float) -> list[float]:
    """Lower weighted quantiles for several shares, see :func:`lower_weighted_quantile`.

    Examples
    --------
    >>> lower_weighted_quantiles(np.array([3.0, 1.0, 2.0, 9.0]), np.ones(4), 0.25, 0.5)
    [1.0, 2.0]
    """
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(in_units(weights)[order])
    total = int(mass[-1])
    return [float(values[order[mass.searchsorted(bounds(total, len(mass), share)[0])]]) for share in shares]
