"""Rows too far or too short for the digits of their products: which they are, and how far ones are shrunk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.gram import Gram, low_median, lower_weighted_median


def underflow_bound(dtype: torch.dtype, d: int) -> float:
    """Bound the error of products of d columns whose terms underflow."""
    return d * float(torch.finfo(dtype).tiny) * torch.finfo(dtype).eps


def out_of_range(squares: FloatArray, floor: float) -> bool:
    """Tell whether squared norms overflowed, or most of them lost their digits to underflow."""
    if not np.isfinite(squares).all():
        return True
    positive = squares[squares > 0.0]
    return not positive.size or low_median(positive) < 1e16 * floor


def shrink_outliers(norms: FloatArray, reach: float, weights: FloatArray | None = None) -> tuple[float, FloatArray]:
    """Typical norm, and factors that shrink rows beyond ``reach`` times that norm to there."""
    apart = (norms > 0.0) & np.isfinite(norms)
    if not apart.any():
        return 1.0, np.ones_like(norms)
    # Of all rows: with many at the center, far ones may be most of the others.
    of_rows = np.ones_like(norms) if weights is None else weights
    finite = np.isfinite(norms)
    typical = lower_weighted_median(norms[finite], of_rows[finite])
    typical = typical if typical > 0.0 else lower_weighted_median(norms[apart], of_rows[apart])
    # Where norms are so far apart that their ratio overflows, the factor of the far ones is zero.
    mantissas, powers = np.frexp(np.where(apart, norms, typical))
    mantissa, power = math.frexp(typical)
    shrinkage = np.ldexp(reach * mantissa / mantissas, np.minimum(power - powers, 0))
    return typical, np.minimum(shrinkage, 1.0)


def shrunk(gram: Gram, weights: FloatArray) -> Gram:
    """Shrink the rows that are too far for the digits of their products, in a Gram matrix that is in range.

    Parameters
    ----------
    gram : Gram
        Inner products of rows, none of which was shrunk.
    weights : ndarray of shape (n,)
        Weights of the rows, by which a typical length is.

    Returns
    -------
    Gram
        The same where no row is too far.
    """
    norms = gram.norms
    reach = limits.DISTANCE_RATIO if gram.rounding < limits.SINGLE_ROUNDING else limits.SINGLE_DISTANCE_RATIO
    # One row that is so much shorter is the center.
    if np.count_nonzero(reach * norms < norms[norms.argmax()]) <= 1:
        return gram
    _, shrinkage = shrink_outliers(norms, reach, weights)
    if np.all(shrinkage == 1.0):
        return gram
    products = gram.products * shrinkage[:, None] * shrinkage
    return replace(gram, products=products, shrinkage=shrinkage, original=gram, about_zero=False)
