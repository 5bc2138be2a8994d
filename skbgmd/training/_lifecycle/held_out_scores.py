"""Robust scores of held-out samples, whose labels and targets are as corrupt as the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skbgmd._utils import limits
from skbgmd.training._losses import wrong_probabilities


def bounded_likelihood(
    probabilities: NDArray[Any], codes: NDArray[np.intp], weight: NDArray[np.float64] | None = None
) -> float:
    r"""Score probabilities of classes by labels, wrong ones among which count for little.

    That is the mean of :math:`\log(p + 1 / 10K)`, where :math:`p` is the probability of a sample's label, one of
    :math:`K`. It tells more of a few samples than their accuracy does, which is the score of numbers that aren't
    probabilities.

    Parameters
    ----------
    probabilities : ndarray of shape (n, n_classes)
    codes : ndarray of shape (n,)
        Places of the labels.
    weight : ndarray of shape (n,), default=None
        Weights of the samples.
    """
    if wrong_probabilities(probabilities).any():
        points = (probabilities.argmax(axis=1) == codes).astype(np.float64)
    else:
        of_label = probabilities[np.arange(len(codes)), codes].astype(np.float64)
        points = np.log(of_label + limits.LEAST_LIKELIHOOD / probabilities.shape[1])
    return float(np.average(points, weights=weight))


def smallest_medians(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each output the smallest median (n_outputs,) that residuals (epochs, m, n_outputs) have in an epoch."""
    medians: NDArray[np.float64] = np.median(residuals, axis=1).min(axis=0)
    return np.maximum(medians, limits.LEAST_RESIDUAL)


def residual_scores(residuals: NDArray[np.float64], scale: ArrayLike | None = None) -> NDArray[np.float64]:
    r"""Score epochs by the sizes of their residuals, gross errors among which count for little.

    That is minus the mean of :math:`\log(1 + (r / s)^2)`, over all outputs.

    Parameters
    ----------
    residuals : ndarray of shape (epochs, m, n_outputs)
        Absolute residuals.
    scale : float or array-like of shape (n_outputs,), default=None
        s, of each output; None: three times the :func:`smallest_medians`.

    Returns
    -------
    scores : ndarray of shape (epochs,)
    """
    s = 3.0 * smallest_medians(residuals) if scale is None else np.asarray(scale, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        # Nothing overflows in it.
        scores: NDArray[np.float64] = -2.0 * np.log(np.hypot(1.0, residuals / s)).mean(axis=(1, 2))
    return np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)


def quantiles(values: NDArray[np.float64], weight: NDArray[np.float64] | None, m: int) -> NDArray[np.float64]:
    """At most m numbers, sorted, with the distribution of values (n, k) of some weights (n,): (m, k)."""
    n = len(values)
    if weight is None and n <= m:
        return np.sort(values, axis=0)
    order = np.argsort(values, axis=0)
    totals = np.cumsum((np.ones(n) if weight is None else weight)[order], axis=0)
    at = (np.arange(m) + 0.5) / m
    columns = [
        column[of][np.searchsorted(total / total[-1], at)]
        for column, of, total in zip(values.T, order.T, totals.T, strict=True)
    ]
    return np.stack(columns, axis=1)
