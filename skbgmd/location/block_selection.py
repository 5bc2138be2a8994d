"""Selection of a block of columns by their scores: of runs of columns, of units, or of single ones."""

from __future__ import annotations

import math

import numpy as np
import torch

from skbgmd._utils import limits
from skbgmd._utils.typing import FloatArray
from skbgmd.rows import Rows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock, largest, sums_of_runs
from skbgmd.rows.gram import clip_factors, lower_weighted_quantiles

SELECTIONS = ("top", "sample", "uniform")
BLOCKS = ("coordinate", "unit")


def take_norms(rows: Rows, selection: str, run_length: int, memory: torch.Tensor | None) -> None:
    """Compute the rows' norms, which tell finite rows, and those of runs if :func:`select_block` needs them."""
    rows.norms(run_length if selection != "uniform" and memory is None else 1)


def select_block(
    rows: Rows,
    beta: float,
    *,
    selection: str = "top",
    clip: bool = True,
    run_length: int = 1,
    units: ParameterBlock | None = None,
    memory: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> CoordinateBlock | ParameterBlock:
    """Select columns by their scores. Parameters as in :func:`block_geometric_median`.

    With ``units`` whole ones are selected, by the mean score of their columns. ``generator`` is needed unless
    ``selection="top"``; every row is finite.
    """
    d = rows.n_columns
    k = max(1, math.ceil(beta * d))
    if k == d:
        return rows.layout.held(CoordinateBlock.all(d, rows.device))
    if selection == "uniform":
        n = d if units is None else len(units.starts)
        scores = torch.ones(n, dtype=torch.float64, device=rows.device)
        scores = scores if units is not None or run_length == 1 else sums_of_runs(scores, run_length)
    else:
        norms = rows.norms(run_length)
        scale = _score_factors(norms, rows.weights) if clip else np.ones(rows.n_rows)
        furthest = None if memory is None else rows.layout.maximum(_largest_number(memory))
        scale, memory = _of_unit_size(scale * (rows.weights > 0.0), norms, memory, furthest)
        if units is not None:
            scores = rows.unit_scores(units, scale, memory)
        elif run_length > 1:
            scores = rows.run_scores(run_length, scale, memory)
        else:
            scores = rows.column_scores(scale, memory)
    if units is not None:
        if selection == "top":
            return rows.layout.held(units.top(scores.cpu().numpy(), k))
        return rows.layout.held(units.choose(_keys(scores, generator).cpu().numpy(), k))
    keys, rounding = scores, limits.TIED_ULPS * torch.finfo(scores.dtype).eps
    if selection != "top":
        # What is drawn has no ties.
        keys, rounding = _keys(scores, generator), 0.0
    wanted = min(len(keys), -(-k // run_length))
    block = CoordinateBlock(largest(keys, wanted, rounding), run_length, d)
    # The last run of columns may be short.
    if len(block) < k:
        block = CoordinateBlock(largest(keys, wanted + 1, rounding), run_length, d)
    return rows.layout.held(block)


def _of_unit_size(
    scale: FloatArray, norms: FloatArray, memory: torch.Tensor | None, furthest: torch.Tensor | None
) -> tuple[FloatArray, torch.Tensor | None]:
    """Scale factors of the rows, and a memory, so that scores of huge or tiny rows don't over- or underflow.

    Only ratios of scores matter; a power of two changes no digit of them. ``furthest`` is the memory's largest number.
    """
    largest = float((scale * norms).max())
    if furthest is not None:
        largest = max(largest, float(furthest))
    low, high = limits.SQUARED_RANGE[torch.float32]  # in which the scores of any rows may be
    if largest == 0.0 or low <= largest <= high:
        return scale, memory
    factor = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000))
    return scale * factor, None if memory is None else memory.double() * factor


def median_clip_factors(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Factors that scale each row to at most the weighted median norm, see :func:`median_clip_limit`."""
    return clip_factors(median_clip_limit(norms, weights), norms)


def median_clip_limit(norms: FloatArray, weights: FloatArray | None) -> float:
    """Norm that rows are clipped to for their scores: their weighted median norm; zero where most are zero.

    It is no less than a small share of the norm that just over half of the weight is below. Where a shorter half of the
    rows is nothing but rounding, as one row of two may be, the lower median is one of these: clipped to it, all rows
    would count alike. So rows of rounding have a share of the scores that is rounding itself. Rows of just less than
    half of the weight raise the limit above no norm that isn't among the others'. Weights of None are equal ones.
    """
    if weights is None or weights.min() == weights.max():
        ordered = np.sort(norms)
        lower, upper = ordered.item((len(norms) - 1) // 2), ordered.item(math.ceil(limits.OVER_HALF * len(norms)) - 1)
    else:
        lower, upper = lower_weighted_quantiles(norms, weights, 0.5, limits.OVER_HALF)
    return max(lower, limits.LEAST_CLIP * upper)


def _score_factors(norms: FloatArray, weights: FloatArray) -> FloatArray:
    """Clip as :func:`median_clip_factors`, but never to zero by a majority of zero rows, which have no scores."""
    factors = median_clip_factors(norms, weights)
    if factors[norms > 0.0].any():
        return factors
    return median_clip_factors(norms, weights * (norms > 0.0)) if norms.any() else factors


def _keys(scores: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Keys whose k largest are a sample without replacement, with probabilities proportional to the scores.

    Efraimidis and Spirakis (2006): the smallest of E / s with E exponential; the logarithm is the Gumbel form.
    """
    waits = torch.empty(len(scores), dtype=torch.float64, device=scores.device).exponential_(generator=generator)
    return scores.double().log_() - waits.log_()


def _largest_number(values: torch.Tensor) -> torch.Tensor:
    return values.abs().max() if len(values) else values.new_zeros(())
