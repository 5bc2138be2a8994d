"""Spectral filter: the mean after filtering along the direction of largest variance."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd._utils.checks import check_number
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.assumed_share import Fraction, FractionWeighting
from skbgmd.rows import Rows


class SpectralFilter(FractionWeighting):
    r"""Spectral filter: mean after filtering along the direction of largest variance, again and again.

    The iterative filter of Diakonikolas et al. (2017), as used by Sever (2019) and, with a breakdown point of 1/4, by
    Data and Diggavi (2020): in each round the weight of a row is multiplied by :math:`1 - \tau_i / \max_j
    \tau_j`, with :math:`\tau_i` the squared projection of the centered row on the top eigenvector of the weighted
    covariance, until the share ``fraction`` of the weight is gone. The eigenvector comes from the Gram matrix.

    Parameters
    ----------
    fraction : float or "auto", default=0.2
        Share of the weight to remove, in [0, 0.5). "auto": one row more than the largest estimate of
        the last steps, see :func:`estimate_corrupt_share`, if that isn't zero; blind to what hides in the rows' spread.
    threshold : float, default=None
        Stop before that once the direction of largest variance has no more than ``threshold`` / √r of all variance, r
        the number of directions with any; positive. Clean rows then keep most of their weight. Without, corrupt
        rows that lie close together may outlive honest ones, once the directions of large variance are those of
        honest rows. None: never.
    """

    def __init__(self, fraction: Fraction = 0.2, threshold: float | None = None) -> None:
        self.fraction, self.threshold = fraction, threshold

    def _validate(self) -> None:
        super()._validate()
        if self.threshold is not None:
            check_number(self.threshold, "threshold")

    def _weigh(self, rows: Rows, fraction: float) -> FloatArray:
        return spectral_weights(rows.gram().products, rows.weights, fraction, self.threshold)


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
    # Scaled to order one, or squares of products of huge rows overflow. A power of two changes no digit.
    gram = torch.from_numpy(np.ldexp(products, -np.frexp(np.abs(products).max())[1]))
    kept = weights.copy()
    target = (1.0 - fraction) * weights.sum() * (1.0 + 1e-12)
    # Each round takes at least one row out.
    for _ in range(len(weights)):
        if kept.sum() <= target:
            break
        share = kept / kept.sum()
        along, excess = _top_projection(gram, share)
        if threshold is not None and excess <= threshold:
            break
        tau = np.where(kept > 0.0, along * along, 0.0)
        if not tau.max() > 0.0:
            break
        fewer = kept * (1.0 - tau / tau.max())
        if not fewer.any():
            break
        kept = fewer
    result: FloatArray = kept / kept.sum()
    return result


def _top_projection(gram: torch.Tensor, share: FloatArray) -> tuple[FloatArray, float]:
    """Project the centered rows on the top eigenvector of their weighted covariance, up to a factor.

    The other result is its eigenvalue as a share of the sum of the r positive ones, times √r.
    """
    p = torch.from_numpy(share)
    image = gram @ p
    centered = gram - image - image[:, None] + p @ image
    root = p.sqrt()
    # The covariance's eigenvectors are the rows combined by those of this n x n matrix, times `root`.
    values, vectors = torch.linalg.eigh(root[:, None] * centered * root)
    projection: FloatArray = (centered @ (root * vectors[:, -1])).numpy()
    positive = values[values > 1e-9 * values[-1]]
    return projection, float(values[-1] / positive.sum()) * len(positive) ** 0.5 if len(positive) else 0.0
