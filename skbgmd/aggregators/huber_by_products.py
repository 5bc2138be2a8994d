"""Huber's mean about the median by a few products with the Gram matrix, which isn't formed."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.huber_active_set import HuberActiveSet
from skbgmd.aggregators.memory import Scale
from skbgmd.location.huber import HuberIterate, iterate_huber
from skbgmd.location.rejection import kept_weights
from skbgmd.location.row_weights import clipped_start, median_distances
from skbgmd.location.solver import as_float_array, minimize
from skbgmd.location.spaces import UnformedGramSpace
from skbgmd.location.typical_distance import tied_with_median, typical_distance, typical_distance_of_step
from skbgmd.rows import Rows
from skbgmd.rows.gram import lower_weighted_median
from skbgmd.rows.protocol import FactoredRows


def huber_by_products(
    rows: Rows, huber: float, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> HuberActiveSet | None:
    """Huber's mean and its scale as by the Gram matrix, in steps that may raise the scale; None where that's dearer.

    The median that the scale is taken about needs no digits (:data:`skbgmd._utils.limits.HUBER_START_TOL`): its first
    iterate mostly proves enough, and Huber's weights mostly settle at once, as no row is far.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber, rejection, before, tol, max_iter
        As in :func:`skbgmd.aggregators.huber_mean.huber_weights_about_median`.
    """
    norms, weights = rows.norms(), rows.weights
    typical = lower_weighted_median(norms, weights)
    largest = min(limits.SQUARED_RANGE[torch.float32][1], limits.SAME_SIZE * typical)
    # The first steps are looked at more closely, by all distances between rows.
    if before.is_new or not 0.0 < norms.max(initial=0.0) <= largest:
        return None
    product = rows.gram_product() if _is_factored(rows) else None
    if product is None:
        return None
    space = UnformedGramSpace(product, norms, weights, limits.GRAM_PRODUCT_ROUNDING)
    start = space.vector(clipped_start(norms, weights))
    median = minimize(space, start, tol=max(tol, limits.HUBER_START_TOL), max_iter=0)
    distances = space.distances(median.position)
    tied = tied_with_median(distances, norms)
    if not median.converged or tied.any():
        return None
    now = typical_distance(distances, norms, weights, tied).distance
    few = min(max_iter, limits.GRAM_PRODUCT_ITERATIONS)
    found, after = _huber_about(space, distances, now, huber, rejection, before, tol=tol, max_iter=few)
    if not found.settled:
        return None
    return HuberActiveSet(found.weights, after, rows.weighted_sum(as_float_array(found.weights)))


def huber_of_many(
    rows: Rows, huber: float, rejection: float | None, before: Scale, *, tol: float, max_iter: int
) -> HuberActiveSet | None:
    """Huber's mean and its scale for more rows than a Gram matrix has room for, by passes; None: out of range.

    The first steps, with which later ones are compared, are looked at more closely, by all distances between some of
    the rows.

    Parameters
    ----------
    rows : Rows
        The rows, all of them finite.
    huber, rejection, before, tol, max_iter
        As in :func:`skbgmd.aggregators.huber_mean.huber_weights_about_median`.
    """
    norms, weights = rows.norms(), rows.weights
    least, largest = limits.SQUARED_RANGE[torch.float32]
    longest = float(norms.max())
    if longest > 0.0 and not least <= longest <= largest:
        return None
    space = UnformedGramSpace(
        lambda vector: rows.inner_products(rows.weighted_sum(vector)), norms, weights, limits.GRAM_PRODUCT_ROUNDING
    )
    start = space.vector(clipped_start(norms, weights) if longest > 0.0 else weights / weights.sum())
    median = minimize(space, start, tol=max(tol, limits.HUBER_START_TOL), max_iter=max_iter)
    distances = space.distances(median.position)
    if before.is_new:
        now = _closely(rows, tol=tol, max_iter=max_iter)
    else:
        now = typical_distance(distances, norms, weights, tied_with_median(distances, norms)).distance
    found, after = _huber_about(space, distances, now, huber, rejection, before, tol=tol, max_iter=max_iter)
    return HuberActiveSet(found.weights, after, rows.weighted_sum(as_float_array(found.weights)))


def _closely(rows: Rows, *, tol: float, max_iter: int) -> float:
    """Typical distance of rows in a first step, by the distances between some of them.

    They are drawn, always alike: every k-th row would be of one kind, where those of k kinds take turns.
    """
    drawn = np.random.default_rng(0).choice(rows.n_rows, limits.GRAM_ROWS, replace=False, shuffle=False)
    some = rows.subset(np.sort(drawn))
    rough = max(tol, limits.HUBER_START_TOL)
    _, gram, distances = median_distances(some, tol=rough, max_iter=max_iter, about_zero=True)
    return typical_distance_of_step(gram, distances, some.norms(), some.weights, is_first=True).distance


def _huber_about(
    space: UnformedGramSpace,
    distances: FloatArray,
    now: float,
    huber: float,
    rejection: float | None,
    before: Scale,
    *,
    tol: float,
    max_iter: int,
) -> tuple[HuberIterate, Scale]:
    """Huber's weights at distances (n,) from a median, and the scale after a step of typical distance ``now``."""
    after = before.update(now)
    limit = max(after.value, limits.LEAST_SCALE * now)
    kept = space.weights
    if rejection is not None:
        kept = kept_weights(kept, distances, rejection * max(limit, after.largest))
    # Rows that coincide lie as far apart as their products are rounded.
    reach = max(huber * limit, space.resolution)
    return iterate_huber(space, kept, distances, reach, tol=tol, max_iter=max_iter), after


def _is_factored(rows: Rows) -> TypeGuard[FactoredRows]:
    # Not by isinstance, which looks a protocol's attributes up one by one.
    return hasattr(rows, "gram_product")
