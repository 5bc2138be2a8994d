"""Inner products of clipped rows about zero, in units of their typical squared norm."""

from __future__ import annotations

import numpy as np

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows import Rows
from skbgmd.rows.gram import Gram, lower_weighted_median


def products_about_zero(rows: Rows) -> FloatArray:
    """Inner products of the rows about zero (n, n), in units of the typical squared norm.

    Rows whose products would be out of range, those longer than ``limits.FARTHEST`` typical norms, count as zero.
    """
    norms, _ = row_norms(rows)
    typical = typical_norm(norms, rows.weights)
    products = np.zeros((rows.n_rows, rows.n_rows))
    near = np.flatnonzero(norms / limits.FARTHEST <= typical)
    some = rows if len(near) == rows.n_rows else rows.subset(near)
    products[np.ix_(near, near)] = clipped_products(some, np.ones(len(near)), norms[near], typical)
    return products


def row_norms(rows: Rows) -> tuple[FloatArray, BoolArray]:
    """Norms of the rows, and which are finite, at no other pass than that of the Gram matrix where it tells."""
    gram = rows.gram()
    return (gram.norms, gram.finite) if _tells_norms(gram) else (rows.norms(), rows.finite)


def clipped_products(rows: Rows, clip: FloatArray, norms: FloatArray, typical: float) -> FloatArray:
    """Inner products of the rows about zero, each clipped, in units of the typical squared norm."""
    if typical == 0.0:
        return np.zeros((rows.n_rows, rows.n_rows))
    gram = rows.gram()
    if gram.shrinkage is not None or gram.unit != 1.0:
        # It may be in a unit of rows that were left out.
        gram = rows.gram(np.zeros(rows.n_rows))
    if _tells_norms(gram):
        about_zero: FloatArray = gram.products / typical / typical * clip * clip[:, None]
        return about_zero
    # About c, <x_i - c, x_j - c> = <x_i, x_j> - s_i - s_j with 2 s_i = |x_i|^2 - |x_i - c|^2.
    unit = typical / gram.unit
    shift = 0.5 * ((norms / typical) ** 2 - np.diagonal(gram.products) / unit / unit)
    products: FloatArray = gram.products / unit / unit + shift + shift[:, None]
    return products * clip * clip[:, None]


def typical_norm(norms: FloatArray, weights: FloatArray) -> float:
    """Median norm of the rows, or of those that aren't zero, where these are the minority."""
    if not len(norms):
        return 0.0
    median = float(lower_weighted_median(norms, weights))
    some = norms > 0.0
    return median if median > 0.0 or not some.any() else float(lower_weighted_median(norms[some], weights[some]))


def _tells_norms(gram: Gram) -> bool:
    """True if the products are of the rows themselves, and none has lost its digits to underflow."""
    squares = gram.squares[gram.finite]
    return gram.about_zero and gram.unit == 1.0 and len(squares) > 0 and float(squares.min()) > 1e16 * gram.floor
