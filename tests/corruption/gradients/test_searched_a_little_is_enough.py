"""Searched ALIE: the search is against the rule in its state."""

from __future__ import annotations

import torch
from attacking import matrix

from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.corruption import (
    SearchedALittleIsEnough,
)
from skbgmd.rows import DenseRows
from skbgmd.training._step.stateful import StatefulAggregator


def test_the_search_is_against_the_rule_in_its_state():
    """A memory of what was left out of blocks is a part of what an attack finds."""
    aggregator, gradients = StatefulAggregator(BlockGeometricMedian(0.2, complement="memory"), 0), matrix(20)
    fresh = aggregator.attack_context(DenseRows(gradients))
    before = SearchedALittleIsEnough(fraction=0.4)(gradients, 0, fresh)
    aggregator(DenseRows(matrix(20, seed=5) * 30.0))
    aggregator.commit()
    state, context = aggregator.state, aggregator.attack_context(DenseRows(gradients))
    found = SearchedALittleIsEnough(fraction=0.4)(gradients, 0, context)
    explicit = SearchedALittleIsEnough(
        fraction=0.4, aggregator=lambda rows: aggregator.aggregator(DenseRows(rows), state)[0].vector
    )
    assert aggregator.state is state
    assert torch.equal(found, explicit(gradients, 0))
    assert not torch.equal(found, before)
