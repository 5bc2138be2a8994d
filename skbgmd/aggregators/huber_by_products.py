"""Huber's mean about the median by a few products with the Gram matrix, which isn't formed."""

from __future__ import annotations

from typing import TypeGuard

import torch

from skbgmd._utils import limits
from skbgmd.aggregators.huber_active_set import HuberActiveSet
from skbgmd.aggregators.memory import Scale
from skbgmd.location.huber import iterate_huber
from skbgmd.location.rejection import kept_weights
from skbgmd.location.row_weights import clipped_start
from skbgmd.location.solver import as_float_array, minimize
from skbgmd.location.spaces import UnformedGramSpace
from skbgmd.location.typical_distance import tied_with_median, typical_distance
from skbgmd.rows import Rows
from skbgmd.rows.gram import lower_weighted_median
from skbgmd.rows.protocol import FactoredRows
from skbgmd.rows.unformed_gram import UnformedGram


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
    space = UnformedGramSpace(UnformedGram(product, norms, limits.GRAM_PRODUCT_ROUNDING), weights)
    start = space.vector(clipped_start(norms, weights))
    median = minimize(space, start, tol=max(tol, limits.HUBER_START_TOL), max_iter=0)
    distances = space.distances(median.position)
    tied = tied_with_median(distances, norms)
    if not median.converged or tied.any():
        return None
    now = typical_distance(distances, norms, weights, tied).distance
    after = before.update(now)
    limit = max(after.value, limits.LEAST_SCALE * now)
    kept = weights
    if rejection is not None:
        kept = kept_weights(weights, distances, rejection * max(limit, after.largest))
    few = min(max_iter, limits.GRAM_PRODUCT_ITERATIONS)
    found = iterate_huber(space, kept, distances, huber * limit, tol=tol, max_iter=few)
    if not found.settled:
        return None
    return HuberActiveSet(found.weights, after, rows.weighted_sum(as_float_array(found.weights)))


def _is_factored(rows: Rows) -> TypeGuard[FactoredRows]:
    # Not by isinstance, which looks a protocol's attributes up one by one.
    return hasattr(rows, "gram_product")
