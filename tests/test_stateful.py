"""An aggregator and what it carries from batch to batch."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.rows import DenseRows
from skbgmd.stateful import StatefulAggregator


def stateful(seed=3):
    return StatefulAggregator(BlockGeometricMedian(0.2, complement="memory"), seed)


def rows(rng):
    return DenseRows(torch.from_numpy(rng.normal(size=(6, 40))))


def test_a_batch_counts_once_however_often_it_is_evaluated(rng):
    aggregator, first, second = stateful(), rows(rng), rows(rng)
    aggregator.commit()
    assert (aggregator.n_batches, aggregator.state) == (0, None)  # nothing was evaluated
    expected = aggregator.aggregator(first, None)[1]
    for given in (first, second, second):
        aggregator(given)
    assert aggregator.state is None
    aggregator.commit()
    assert aggregator.n_batches == 1
    torch.testing.assert_close(aggregator.state.memory, expected.memory)


def test_each_batch_draws_anew_and_each_evaluation_the_same(rng):
    aggregator = stateful()
    first = aggregator.random_state().random(3)
    np.testing.assert_array_equal(first, aggregator.random_state().random(3))
    aggregator(rows(rng))
    aggregator.commit()
    assert not np.array_equal(first, aggregator.random_state().random(3))


def test_it_is_saved_and_loaded(rng):
    aggregator = stateful()
    aggregator(rows(rng))
    aggregator.commit()
    again = stateful(seed=9)
    again.load_state_dict(aggregator.state_dict())
    torch.testing.assert_close(again.state.memory, aggregator.state.memory)
    np.testing.assert_array_equal(again.random_state().random(3), aggregator.random_state().random(3))
    given = rows(rng)
    torch.testing.assert_close(again(given).vector, aggregator(given).vector)
