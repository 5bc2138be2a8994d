"""The default rule on a block of a perceptron's units, in a fraction of the calls that any rows and blocks take."""

from __future__ import annotations

import math

import numpy as np

from skbgmd.aggregators import Aggregate, BlockGeometricMedian, HuberMean
from skbgmd.aggregators.block_geometric_median import BlockState
from skbgmd.ghost.perceptron_rows import PerceptronRows
from skbgmd.location.block_selection import median_clip_limit
from skbgmd.location.off_block import BlockPart, cap_weights, off_block_norms
from skbgmd.rows.gram import clip_factors, low_median, lower_weighted_median


def is_of_units(rule: BlockGeometricMedian) -> bool:
    """Tell whether a rule is Huber's mean on the units of the highest scores, by which the other units move as well."""
    of_units = rule.block == "unit" and rule.selection == "top" and rule.clip_scores and rule.beta < 1.0
    return of_units and rule.complement == "weighted" and type(rule.location) is HuberMean


def unit_block_mean(
    rows: PerceptronRows, rule: BlockGeometricMedian, state: BlockState
) -> tuple[Aggregate, BlockState] | None:
    """Aggregate rows as a rule of :func:`is_of_units` would, but for naming the columns that it looked at.

    A unit's columns share its output gradients. So the squares of these give the scores, and one product a layer the
    step, as each row has a weight on the block and another one elsewhere.

    Parameters
    ----------
    rows : PerceptronRows
        Rows of whole layers, all of them finite and of positive weight.
    rule : BlockGeometricMedian
        The rule.
    state : BlockState
        What its last call returned.

    Returns
    -------
    aggregate, state
        As the rule returns them; None where norms are of few digits, most of them are zero, or the block has all units:
        then it is for the rule.
    """
    norms, weights, units, location = rows.norms(), rows.weights, rows.units, rule.location
    limit = median_clip_limit(norms, None if rows.has_equal_weights else weights)
    longest = np.maximum.reduce(norms)
    if units is None or not isinstance(location, HuberMean) or limit == 0.0 or not rows.has_square(longest):
        return None
    clipped = clip_factors(limit, norms)
    scores = rows.scores_of_units(units, (weights * clipped * clipped).astype(rows.array_dtype))
    total = float(np.add.reduce(scores))
    if not math.isfinite(total):
        return None
    block = units.top(scores, max(1, math.ceil(rule.beta * rows.n_columns)))
    inside = rows.on_units(block)
    if inside.n_columns == rows.n_columns:
        return None
    judged = location.judge(inside, state.location)
    part = BlockPart(block, inside, judged.weights)
    carried = cap_weights(judged.weights, weights) if judged.off_block is None else judged.off_block
    elsewhere = off_block_norms(rows, part)
    typical = low_median(elsewhere) if rows.has_equal_weights else lower_weighted_median(elsewhere, weights)
    length = state.off_block.update(max(typical, judged.least))
    by_length = carried * clip_factors(location.c * length.value, elsewhere)
    vector = rows.sum_by_block(judged.weights, by_length, block)
    # Scores are squares of clipped rows.
    mass = min(1.0, float(np.add.reduce(scores.take(block.chosen))) / total)
    after = BlockState(None, state.step + 1, judged.state, length, rows.n_columns)
    return Aggregate(vector, judged.weights, None, mass), after
