"""Weights by the spectrum of a Gram matrix: rows that agree on a direction which stands out lose theirs."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from skbgmd._utils import limits
from skbgmd._utils.threads import one_thread_of_products
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.gram import lower_weighted_median


@one_thread_of_products()
def spectral_weights(
    products: FloatArray, weights: FloatArray, fraction: float, threshold: float | None = None
) -> FloatArray:
    """Weights of the rows after spectral filtering; they add up to one.

    Parameters
    ----------
    products : ndarray of shape (n, n)
        Inner products of the rows about any point.
    weights : ndarray of shape (n,)
        Positive row weights.
    fraction : float
        Share of the weight to remove.
    threshold : float, default=None
        Largest eigenvalue of the covariance at which to stop, as a share of the sum of the r positive ones, times √r.
    """
    gram, kept = _of_order_one(products), weights.copy()
    target = (1.0 - fraction) * weights.sum() * (1.0 + 1e-12)
    # Each round takes at least one row out.
    for _ in range(len(weights)):
        if kept.sum() <= target:
            break
        along, excess = _top_projection(gram, kept / kept.sum())
        if threshold is not None and excess <= threshold:
            break
        fewer = _without_farthest(kept, along)
        if fewer is None:
            break
        kept = fewer
    result: FloatArray = kept / kept.sum()
    return result


@one_thread_of_products()
def median_spectral_weights(products: FloatArray, weights: FloatArray, fraction: float, threshold: float) -> FloatArray:
    r"""Weights of the rows after spectral filtering about medians, which removes no more than a share.

    As :func:`spectral_weights`, but rows lose weight by their squared distances along the top eigenvector from the
    rows' weighted median along it, the middle between the lower and the upper one. About their mean, which corrupt rows
    draw to themselves, honest rows lose up to :math:`\psi / (1 - \psi)` of what a share :math:`\psi` of corrupt ones
    loses, however far these are. The last round is only as strong as the share allows.

    Parameters
    ----------
    products, weights
        As in :func:`spectral_weights`.
    fraction : float
        Largest share of the weight to remove.
    threshold : float
        As in :func:`spectral_weights`.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one; no row has more than ``1 / (1 - fraction)`` times its share.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1], [-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> median_spectral_weights(rows @ rows.T, np.ones(5), 0.4, 1.0).round(2)
    array([0.33, 0.33, 0.33, 0.  , 0.  ])
    """
    gram, kept = _of_order_one(products), weights.copy()
    target = (1.0 - fraction) * weights.sum()
    for _ in range(len(weights)):
        along, excess = _top_projection(gram, kept / kept.sum())
        fewer = None if excess <= threshold else _without_farthest(kept, along - _middle(along, kept))
        if fewer is None:
            break
        removed, allowed = kept.sum() - fewer.sum(), kept.sum() - target
        if removed >= allowed:
            kept = kept + (fewer - kept) * (allowed / removed)
            break
        kept = fewer
    result: FloatArray = kept / kept.sum()
    return result


def _of_order_one(products: FloatArray) -> FloatArray:
    """Scale to order one, or squares of products of huge rows overflow. A power of two changes no digit."""
    scaled: FloatArray = np.ldexp(products, -np.frexp(np.abs(products).max())[1])
    return scaled


def _middle(values: FloatArray, weights: FloatArray) -> float:
    """Weighted median in the middle between the lower and the upper one: that of ``-values`` is its opposite.

    An eigenvector has no sign, and so has nothing that is made of it.
    """
    return 0.5 * (lower_weighted_median(values, weights) - lower_weighted_median(-values, weights))


def _without_farthest(kept: FloatArray, along: FloatArray) -> FloatArray | None:
    """Take weight by squared distances (n,), all of it from the farthest row; None where there is nothing to tell."""
    tau = np.where(kept > 0.0, along * along, 0.0)
    if not tau.max() > 0.0:
        return None
    fewer: FloatArray = kept * (1.0 - tau / tau.max())
    # Where all rows are as far, what is left of them is rounding.
    return fewer if fewer.sum() > limits.LEAST_LEFT * kept.sum() else None


def _top_projection(gram: FloatArray, share: FloatArray) -> tuple[FloatArray, float]:
    """Project the centered rows on the top eigenvector of their weighted covariance, up to a factor.

    The other result is its eigenvalue as a share of the sum of the r positive ones, times √r.
    """
    image = gram @ share
    centered = gram - image
    centered += (share @ image - image)[:, None]
    root = np.sqrt(share)
    # The covariance's eigenvectors are the rows combined by those of this n x n matrix, times `root`.
    values, top = _spectrum(root[:, None] * centered * root)
    positive = values[values > limits.ZERO_VARIANCE * values[-1]]
    return centered @ (root * top), float(values[-1] / positive.sum()) * len(positive) ** 0.5 if len(positive) else 0.0


def _spectrum(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues of a symmetric matrix, ascending, and an eigenvector of the largest."""
    n = len(matrix)
    if n <= limits.NUMPY_PRODUCT_ROWS:
        values, vectors = np.linalg.eigh(matrix)
        return values, vectors[:, -1]
    # One vector takes half of the time of all of them.
    top = scipy.linalg.eigh(matrix, subset_by_index=[n - 1, n - 1], check_finite=False)[1]
    values = np.asarray(scipy.linalg.eigvalsh(matrix, check_finite=False), dtype=np.float64)
    return values, top[:, 0]
