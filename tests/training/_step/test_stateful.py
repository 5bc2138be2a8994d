"""An aggregator and what it carries from batch to batch."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd.aggregators import BlockGeometricMedian, NearestNeighborMixing
from skbgmd.rows import DenseRows
from skbgmd.training._step.stateful import StatefulAggregator


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


def test_an_attack_may_ask_the_rule_in_its_state(rng):
    aggregator, first, second = stateful(), rows(rng), rows(rng)
    aggregator(first)
    aggregator.commit()
    state, without = aggregator.state, stateful()(second)
    context = aggregator.attack_context(first)
    assert context.step == 1
    # Asking is not evaluating: nothing is kept of it.
    asked, block = context.aggregate(second.matrix), context.block(second.matrix)
    assert aggregator.state is state
    aggregator.commit()
    assert aggregator.n_batches == 1
    found = aggregator(second)
    assert torch.equal(asked, found.vector)
    assert torch.equal(block, found.block)
    assert not torch.allclose(asked, without.vector)


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


def test_rules_without_a_seed_draw_by_that_of_the_training(rng):
    """Also what is within a rule, also after it was loaded; a seed of its own stays."""
    given = DenseRows(torch.from_numpy(rng.normal(size=(12, 40))))
    rule = NearestNeighborMixing(BlockGeometricMedian(beta=0.2, selection="uniform"))
    one, same, other = (StatefulAggregator(rule, seed) for seed in (0, 0, 1))
    drawn = one(given).vector
    assert torch.equal(drawn, same(given).vector)
    assert not torch.equal(drawn, other(given).vector)
    other.load_state_dict(StatefulAggregator(rule, 0).state_dict())
    assert torch.equal(drawn, other(given).vector)
    assert rule.aggregator.random_state is None
    own = rule.set_params(aggregator__random_state=5)
    assert torch.equal(StatefulAggregator(own, 0)(given).vector, StatefulAggregator(own, 1)(given).vector)
