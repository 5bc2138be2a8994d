"""Noise of rows against their mean: how large groups must be for any rule to tell honest from corrupt means."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd.aggregators.base import Aggregate, check_fraction
from skbgmd.rows import Rows
from skbgmd.rows.gram import lower_weighted_median


def indistinguishable_distance(fraction: float) -> float:
    r"""Compute the distance of means, in standard deviations of a row, up to which no rule can tell them apart.

    Let a share ε of the rows be anything at all. Then :math:`(1 - ε) N(μ_1, σ^2) + ε Q_1` and
    :math:`(1 - ε) N(μ_2, σ^2) + ε Q_2` can be the same distribution if and only if the total variation distance of the
    two normal distributions, :math:`2 Φ(|μ_1 - μ_2| / 2 σ) - 1`, is at most :math:`ε / (1 - ε)`. Hence

    .. math:: |μ_1 - μ_2| \le 2 σ \, Φ^{-1}\Big(\frac{1}{2 (1 - ε)}\Big).

    Parameters
    ----------
    fraction : float
        Share ε of corrupt rows, in [0, 0.5).

    Examples
    --------
    >>> round(indistinguishable_distance(0.38), 2)
    1.73
    """
    return 2.0 * float(ndtri(0.5 / (1.0 - check_fraction(fraction))))


def group_size_needed(noise_to_signal: float, fraction: float = 0.4) -> int:
    r"""Compute the samples that a row must be the mean of, for any rule to tell a mean gradient from its opposite.

    Means :math:`μ` and :math:`-μ` of normal rows are :math:`2 |μ|` apart. A row that is the mean of g samples has the
    standard deviation :math:`σ / \sqrt{g}`. A rule can tell the two means apart only if (see
    :func:`indistinguishable_distance`)

    .. math:: g > \Big(\frac{σ}{|μ|} \, Φ^{-1}\Big(\frac{1}{2 (1 - ε)}\Big)\Big)^2,

    whatever the rule and the number of rows. This is necessary and not sufficient: a rule that doesn't know the
    distribution of honest rows needs more.

    Parameters
    ----------
    noise_to_signal : float
        :math:`σ / |μ|` of single samples: the standard deviation of their gradients along the mean, over its norm. A
        training whose rows are means of g samples records the ratio of rows, which is smaller by :math:`\sqrt{g}`.
    fraction : float, default=0.4
        Share ε of corrupt rows, in [0, 0.5).

    Returns
    -------
    int
        Number of samples, at least 1.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    Rows of 8 samples recorded a ratio of 2.5:

    >>> group_size_needed(2.5 * 8**0.5, 0.4)
    47
    """
    check_number(noise_to_signal, "noise_to_signal", at_least=0.0)
    return 1 + math.floor((0.5 * indistinguishable_distance(fraction) * noise_to_signal) ** 2)


def noise_to_signal(rows: Rows, aggregate: Aggregate) -> float | None:
    r"""Estimate the standard deviation of a row along the mean, over the norm of the mean.

    The deviation is the median one along the aggregate, for normal rows, each with its weight in the aggregate. The
    squared norm of the aggregate is corrected for its own noise, the median squared distance of a row over the
    effective number of rows :math:`1 / \sum w_i^2`; a hundredth of it is left at least.

    Parameters
    ----------
    rows : Rows
        Finite rows.
    aggregate : Aggregate
        Aggregate of the rows.

    Returns
    -------
    float or None
        None where the aggregate is zero, or squares are out of range.
    """
    norm = math.sqrt(float(rows.layout.add_up(aggregate.vector.double().square().sum())))
    if not 0.0 < norm < math.inf:
        return None
    weights = rows.weights if aggregate.weights is None else aggregate.weights
    shares = weights / weights.sum()
    # In units of the aggregate's norm, so that squares stay in range.
    along = rows.inner_products(aggregate.vector / norm) / norm
    if not np.isfinite(along).all():
        return None
    deviation = lower_weighted_median(np.abs(along - lower_weighted_median(along, shares)), shares) / ndtri(0.75)
    with np.errstate(over="ignore"):  # a huge row among tiny ones
        squares = np.maximum((rows.norms() / norm) ** 2 - 2.0 * along + 1.0, 0.0)
    noise = lower_weighted_median(squares, shares) * float(np.square(shares).sum())
    return float(deviation / math.sqrt(max(1.0 - noise, limits.LEAST_SIGNAL)))
