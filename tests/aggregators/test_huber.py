"""Huber's mean with a scale that remembers earlier steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.aggregators import BlockGeometricMedian, HuberMean
from skbgmd.aggregators.scale import DECAY, WINDOW
from skbgmd.columns import Units
from skbgmd.rows import DenseRows


def cloud(scale: float, seed: int = 0, d: int = 20) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(15, d))


def test_the_first_step_is_hubers_mean() -> None:
    values = torch.as_tensor(cloud(1.0))
    values[0] *= 5.0
    found, state = BlockGeometricMedian(1.0, huber=1.0, tol=1e-9)(DenseRows(values))
    expected = HuberMean(1.0, tol=1e-9)(DenseRows(values))[0]
    # The scale is that of a median of less accuracy.
    torch.testing.assert_close(found.vector, expected.vector, rtol=0.05, atol=0.02)
    assert state.scale.value > 0.0


def test_the_scale_is_remembered_and_fades() -> None:
    aggregator = BlockGeometricMedian(1.0, huber=1.0)
    first = None
    for seed in range(WINDOW):
        _, first = aggregator(DenseRows(torch.as_tensor(cloud(1.0, seed))), first)
    small = cloud(1e-3)
    small[0] += 0.05
    second = first
    for _ in range(WINDOW):
        aggregate, second = aggregator(DenseRows(torch.as_tensor(small)), second)
    assert 0.99 * DECAY**WINDOW < second.scale.value / first.scale.value < 1.01
    # Seen from this step alone the row is an outlier; seen from the steps before it is not.
    assert aggregate.weights is not None
    np.testing.assert_allclose(aggregate.weights, 1 / 15, rtol=1e-6)
    alone, _ = aggregator(DenseRows(torch.as_tensor(small)))
    assert alone.weights is not None
    assert alone.weights[0] < 0.2 / 15


def test_rejection_is_by_the_remembered_scale() -> None:
    aggregator = BlockGeometricMedian(1.0, huber=1.0, rejection=10.0)
    values = cloud(1.0)
    values[:6] = 1e9 * np.random.default_rng(1).normal(size=(6, 20))
    aggregate, state = aggregator(DenseRows(torch.as_tensor(values)))
    assert aggregate.weights is not None
    assert np.all(aggregate.weights[:6] == 0.0)
    assert float(aggregate.vector.norm()) < 3.0
    assert state.scale.value < 20.0


def test_the_nearer_half_is_kept_where_all_rows_are_farther_than_ever() -> None:
    aggregator = BlockGeometricMedian(1.0, huber=1.0, rejection=10.0)
    state = None
    for seed in range(WINDOW):
        _, state = aggregator(DenseRows(torch.as_tensor(cloud(1e-6, seed))), state)
    aggregate, after = aggregator(DenseRows(torch.as_tensor(cloud(1.0))), state)
    assert aggregate.weights is not None
    assert 8 <= np.count_nonzero(aggregate.weights) < 15
    assert aggregate.weights.sum() == pytest.approx(1.0)
    assert after.scale.value < 1e-5
    aggregate, _ = aggregator(DenseRows(torch.as_tensor(cloud(1e308 / 20))), state)
    assert aggregate.weights is not None
    assert aggregate.weights.sum() == pytest.approx(1.0)


def test_rows_that_coincide_are_no_scale_for_those_that_do_not() -> None:
    aggregator = BlockGeometricMedian(1.0, huber=1.0, rejection=10.0)
    same = torch.ones(15, 20, dtype=torch.float64)
    aggregate, state = aggregator(DenseRows(same))
    torch.testing.assert_close(aggregate.vector, same[0])
    for values in (cloud(1.0), cloud(1.0)[:1]):
        aggregate, _ = aggregator(DenseRows(torch.as_tensor(values)), state)
        assert aggregate.weights is not None
        assert aggregate.weights.sum() == pytest.approx(1.0)


def test_on_a_block_parts_outside_are_clipped_to_a_remembered_norm() -> None:
    units = Units.of([torch.zeros(5, 4)])
    aggregator = BlockGeometricMedian(0.2, block="unit", huber=1.0, rejection=10.0)
    values = torch.as_tensor(cloud(1.0))
    _, state = aggregator(DenseRows(values, units=units))
    assert state.outside.value > 0.0
    # Six rows look honest on the block, whichever it is, and are huge elsewhere: they can't.
    attacked = values.clone()
    attacked[:6, 4:] *= 1e6
    for before in (None, state):
        aggregate, after = aggregator(DenseRows(attacked, units=units), before)
        assert float(aggregate.vector.norm()) < 20.0
        assert after.outside.value < 20.0


def test_huber_is_checked() -> None:
    with pytest.raises(ValueError, match="huber must be"):
        BlockGeometricMedian(huber=0.0)(DenseRows(torch.zeros(3, 2)))
