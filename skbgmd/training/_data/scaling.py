"""Scales of targets; and features of very different scales, by which a training stalls or diverges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, ndtri

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.rows.gram import lower_weighted_median, lower_weighted_quantile


def scale_ratio(X: Any) -> float:
    """Ratio of the largest scale of a feature to the smallest, of samples (n, n_features); 1 where there is none.

    A scale is a root mean square or the median size of what isn't zero, whichever make the ratio smaller: gross errors
    in a few samples change the one, and columns that are mostly small the other.

    Examples
    --------
    >>> round(scale_ratio(np.array([[1.0, 200.0], [-1.0, 200.0], [1.0, 0.0]])), 1)
    163.3
    """
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "fiu" or not len(X):
        return 1.0
    # Lines are sorted in a fraction of the time that columns are.
    sizes = np.abs(np.ascontiguousarray(X[:: -(-len(X) // limits.SCALED_SAMPLES)].T, dtype=np.float64))
    sizes = np.sort(sizes[np.isfinite(sizes).all(axis=1) & sizes.any(axis=1)], axis=1)
    if len(sizes) < 2:
        return 1.0
    n, largest = sizes.shape[1], sizes[:, -1]
    lengths = largest * np.sqrt(np.mean((sizes / largest[:, None]) ** 2, axis=1))
    counts = np.count_nonzero(sizes, axis=1)
    middle = n - counts + np.stack([counts - 1, counts]) // 2
    medians = (0.5 * sizes[np.arange(len(sizes)), middle]).sum(axis=0)
    with np.errstate(over="ignore"):
        return float(min(scale.max() / scale.min() for scale in (lengths, medians)))


def cross_entropy_of_shares(shares: NDArray[np.float64]) -> float:
    """Cross-entropy of a constant prediction of classes, by their shares (k,) of the samples."""
    return float(entr(shares).sum())


def smooth_l1_of_zero(y: NDArray[Any], weight: NDArray[np.float64] | None, beta: float) -> float:
    """Smooth L1 loss of zero, the center of scaled targets (n, ...); linear from ``beta`` on."""
    sizes = np.abs(y.astype(np.float64)).reshape(len(y), -1)
    small = np.minimum(sizes, beta)
    # What overflows is as large as any.
    with np.errstate(over="ignore"):
        losses = sizes if beta == 0.0 else small / beta * (sizes - 0.5 * small)
        return float(np.average(losses.mean(axis=1), weights=weight))


def location_and_scale(y: FloatArray, weight: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Medians of the columns of targets (n, k), and :func:`deviation_of_most` of them, (k,) each.

    Parameters
    ----------
    y : ndarray of shape (n, k)
    weight : ndarray of shape (n,), or None
        Non-negative, one of them positive; None: all are one.
    """
    weight = np.ones(len(y)) if weight is None else weight
    center = np.array([lower_weighted_median(column, weight) for column in y.T])
    return center, np.array([deviation_of_most(column, weight) for column in y.T])


def deviation_of_most(y: FloatArray, weight: FloatArray | None = None) -> float:
    r"""Standard deviation of normal targets (n,), robustly: by their median deviation, but for the most common value.

    Where a share 1 - s is one value, such as zero, the corrupt are all among the others, unless it is theirs: of the
    deviations of the others from the median of all the quantile s / 2 counts, and the median where it says less, each
    as a share of what normal ones have. 1 where all are the same. That value is the median; or another, if the median
    is beside it: one that leaves at least ``limits.LEAST_OTHERS`` of all. Fewer may all be corrupt.

    Parameters
    ----------
    y : ndarray of shape (n,)
    weight : ndarray of shape (n,), default=None
        Non-negative, one of them positive; None: all are one.

    Examples
    --------
    >>> y = np.array([0.0] * 12 + [1.0, 2.0, 2.0, 3.0] + [1e6] * 4)
    >>> round(deviation_of_most(y), 1), round(float(y.std()))
    (4.4, 400000)
    """
    weight = np.ones(len(y)) if weight is None else weight
    deviations = np.abs(y - lower_weighted_median(y, weight))
    others = (deviations > 0.0) & (weight > 0.0)
    if not others.any():
        return 1.0
    places = np.unique(y, return_inverse=True)[1]
    of_value = np.bincount(places, weight)
    unusual = others & (places != of_value.argmax())
    if of_value.max() > of_value[of_value > 0.0].min() and weight[unusual].sum() > limits.LEAST_OTHERS * weight.sum():
        others = unusual
    half = 0.5 * float(weight[others].sum() / weight.sum())
    # Of others that lie apart from the median the lower quantile is a larger share than of normal ones.
    return min(
        lower_weighted_quantile(deviations[others], weight[others], share) / float(ndtri(0.5 + 0.5 * share))
        for share in (half, 0.5)
    )


def stalls(losses: list[float], of_constant: float) -> bool:
    """True if a training of enough epochs ends with a loss not much below that of a constant prediction."""
    if len(losses) < limits.STALLED_EPOCHS:
        return False
    last = float(np.mean(losses[-(len(losses) // limits.STALLED_EPOCHS) :]))
    return last > limits.STALLED_SHARE * of_constant


def scaling_advice(ratio: float) -> str:
    """Sentence that names the remedy; empty where the features' scales don't differ much."""
    if ratio < limits.SCALES_APART:
        return ""
    return (
        f"The features' scales differ by a factor of {ratio:.0e}: put a StandardScaler in front, as "
        f"make_pipeline(StandardScaler(), model)."
    )
