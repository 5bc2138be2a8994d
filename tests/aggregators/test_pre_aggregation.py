"""The inner aggregator of a pre-aggregation, with its state and parameters."""

from __future__ import annotations

from aggregating import dense

from skbgmd.aggregators import (
    BlockGeometricMedian,
    NearestNeighborMixing,
)


def test_the_inner_state_is_kept(rng):
    mixing = NearestNeighborMixing(BlockGeometricMedian(complement="memory"))
    _, state = mixing(dense(rng.normal(size=(8, 40))))
    assert state.step == 1
    assert state.inner.step == 1
    assert state.inner.memory is not None
    _, state = mixing(dense(rng.normal(size=(8, 40))), state)
    assert state.inner.step == 2


def test_nested_parameters_can_be_set():
    mixing = NearestNeighborMixing(BlockGeometricMedian())
    mixing.set_params(aggregator__beta=0.3, fraction=0.1)
    assert mixing.aggregator.beta == 0.3
