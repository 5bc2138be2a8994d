"""A block step from the rows' weights on the block: what the rows, weighted anew, say off it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skbgmd._utils import limits
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.location.block_memory import check_range, limit_memory
from skbgmd.location.spectral import median_spectral_weights
from skbgmd.rows import Rows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock
from skbgmd.rows.gram import clip_factors, lower_weighted_median
from skbgmd.rows.means import in_range, means
from skbgmd.rows.scaled import ScaledRows

OFF_BLOCK_RULES = ("weighted", "filtered", "zero", "memory")


class BlockPart(NamedTuple):
    """A block with the rows on it, and their weights there.

    Attributes
    ----------
    columns : CoordinateBlock or ParameterBlock
        The block.
    rows : Rows
        The rows on it.
    weights : ndarray of shape (n,)
        Weights of the rows, which add up to one.
    off_block : ndarray of shape (n,), or None
        Weights of the rows on the other columns; None: by :func:`cap_weights`.
    """

    columns: CoordinateBlock | ParameterBlock
    rows: Rows
    weights: FloatArray
    off_block: FloatArray | None = None


def block_step(
    rows: Rows,
    part: BlockPart,
    *,
    off_block: str = "weighted",
    memory_rule: str = "weighted",
    memory: torch.Tensor | None = None,
    off_block_limit: float | None = None,
    norms: FloatArray | None = None,
    memory_lengths: float = math.inf,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Step (d,) and new memory (d,), or None, from the weights that rows have on a block.

    ``off_block`` is the ``complement`` of :func:`block_geometric_median`, and ``off_block_limit`` the norm that the
    rows' off-block parts are clipped to; None: their (lower, weighted) median. ``norms`` (n,) are those of these parts,
    if they are known. A weighted memory is scaled to at most ``memory_lengths`` times that limit.
    """
    if len(part.columns) == rows.n_columns and memory is None:
        step = means(part.rows, part.weights)
        return step, torch.zeros_like(step) if off_block == "memory" else None
    if off_block == "zero":
        on_block = means(part.rows, part.weights)
        return on_block.new_zeros(rows.n_held).index_copy_(0, part.columns.indices, on_block), None
    is_published = off_block == "memory" and memory_rule == "mean"
    limit = 0.0
    if len(part.columns) == rows.n_columns:
        moved = means(part.rows, part.weights)
    else:
        if is_published:
            elsewhere = rows.weights / rows.weights.sum()
        else:
            norms = off_block_norms(rows, part) if norms is None else norms
            limit = lower_weighted_median(norms, rows.weights) if off_block_limit is None else off_block_limit
            carried = cap_weights(part.weights, part.rows.weights) if part.off_block is None else part.off_block
            if off_block == "filtered" and rows.n_rows <= limits.FILTERED_ROWS:
                carried = filter_off_block(rows, part, carried > 0.0, norms, limit)
            elsewhere = carried * clip_factors(limit, norms)
        moved = rows.weighted_sum_by_block(part.weights, elsewhere, part.columns)
        if not math.isfinite(float(moved.sum())):
            on_block = in_range(part.rows, moved[part.columns.indices], part.weights)
            moved = in_range(rows, moved, elsewhere).index_copy_(0, part.columns.indices, on_block)
    if off_block != "memory":
        return moved, None
    if memory is not None:
        moved += memory
        check_range(moved, rows.layout)
    index = part.columns.indices
    step = torch.zeros_like(moved).index_copy_(0, index, moved[index])
    # A copy, as the memory lasts: the vector may be a view of something larger.
    kept = moved.index_fill(0, index, 0.0)
    return step, kept if is_published else limit_memory(kept, memory_lengths * limit, rows.layout)


def cap_weights(weights: FloatArray, shares: FloatArray) -> FloatArray:
    """Cap the weights of a block before they are carried to columns that it doesn't see.

    No row counts for more, relative to its share, than the (weighted) median row does, and so none for more than twice
    its share. Weights of a geometric median off the rows become Huber's for the median distance. Where rows of less
    than half of the shares have weight, that is the rule's decision, and the weights are left as they are.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Weights, non-negative and adding up to one.
    shares : ndarray of shape (n,)
        The rows' own weights, one of them positive.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one.

    Examples
    --------
    >>> cap_weights(np.array([0.9, 0.04, 0.04, 0.02]), np.ones(4))
    array([0.28571429, 0.28571429, 0.28571429, 0.14285714])
    """
    shares = shares / shares.sum()
    multiples = weights / np.where(shares > 0.0, shares, 1.0)
    # The upper median: rows of half of the shares have as much.
    typical = -lower_weighted_median(-multiples, shares)
    if typical == 0.0 or multiples.max() <= typical:
        return weights
    capped: FloatArray = shares * np.minimum(multiples, typical)
    capped /= capped.sum()
    return capped


def filter_off_block(rows: Rows, part: BlockPart, kept: BoolArray, norms: FloatArray, limit: float) -> FloatArray:
    """Weights off a block by the spectrum of the clipped off-block parts, however near rows are on it.

    Parameters
    ----------
    rows, part
        All columns, and the block.
    kept : ndarray of shape (n,), bool
        Rows that have weight on the block; others have none off it.
    norms : ndarray of shape (n,)
        Norms of the off-block parts.
    limit : float
        Norm that they are clipped to.

    Returns
    -------
    ndarray of shape (n,)
        Adding up to one.
    """
    used, weights = np.flatnonzero(kept), np.zeros(rows.n_rows)
    weights[used] = median_spectral_weights(
        _clipped_products(rows, part, used, norms[used], limit),
        rows.weights[used],
        limits.FILTERED_SHARE,
        limits.STANDING_OUT,
    )
    return weights


def _clipped_products(
    rows: Rows, part: BlockPart, used: NDArray[np.intp], norms: FloatArray, limit: float
) -> FloatArray:
    """Inner products of some rows' clipped off-block parts: those of all columns without those on the block."""
    factors, whole, inside = clip_factors(limit, norms), rows.gram(), part.rows.gram()
    in_range = whole.unit == inside.unit == 1.0 and whole.shrinkage is None and inside.shrinkage is None
    in_range = in_range and norms.max(initial=0.0) <= limits.SQUARED_RANGE[torch.float64][1]
    lengths = np.maximum(whole.known_lengths, inside.known_lengths)[used]
    root = np.sqrt(factors)
    reach = float((np.add.outer(lengths, lengths) * root * root[:, None]).max())
    rounding = max(whole.rounding, inside.rounding)
    # Parts that are short beside their rows, or beside another, lose their digits in differences of squared distances.
    if not in_range or reach * math.sqrt(rounding / limits.CANCELLED_SHARE) > limit:
        return ScaledRows(rows.subset(used).block(part.columns.off_block), factors).gram().products
    between = (whole.squared_distances() - inside.squared_distances())[np.ix_(used, used)]
    squares = norms**2
    products: FloatArray = 0.5 * (squares[:, None] + squares - between) * factors[:, None] * factors
    return products


def off_block_norms(rows: Rows, part: BlockPart) -> FloatArray:
    """Norms of the rows' off-block parts."""
    whole = rows.norms()
    # Norms may come out as zero of rows that aren't on the block.
    share = part.rows.norms() / np.where(whole > 0.0, whole, 1.0)
    # With nearly all of a row in the block, the difference loses its digits.
    lost = (share > 0.999).nonzero()[0] if np.maximum.reduce(share, initial=0.0) > 0.999 else None
    share *= share
    off_block: FloatArray = np.subtract(1.0, share, out=share)
    if lost is not None:
        off_block[lost] = 0.0
    np.sqrt(off_block, out=off_block)
    off_block *= whole
    if lost is not None:
        off_block[lost] = rows.subset(lost).block(part.columns.off_block).norms()
    return off_block
