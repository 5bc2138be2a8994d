"""Aggregation of one row from each rank: parameters, states, and the record of the weights."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from skbgmd.aggregators import BlockGeometricMedian, HuberMean, NearestNeighborMixing, NonFiniteRowsError
from skbgmd.distributed import AcrossRanks
from skbgmd.distributed.rank_aggregator import RankAggregator
from skbgmd.rows import DenseRows


def test_history_is_bounded_and_callbacks_get_the_weights():
    seen: list[Any] = []
    aggregator = RankAggregator("mean", history_size=2, on_step=seen.append)
    for step in range(3):
        aggregator._record(aggregator._aggregate(DenseRows(torch.full((1, 2), float(step)))))
    assert [weights.tolist() for weights in seen] == [[1.0]] * 3
    assert len(aggregator.history) == 2
    assert aggregator.n_steps_ == 3


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"rule": "median"}, ValueError, "aggregator must be one of"),
        ({"rule": 3}, TypeError, "rule must be the name of an aggregator or an Aggregator; found 3"),
        (
            {"rule": AcrossRanks()},
            ValueError,
            "rule must be a rule for rows, which doesn't aggregate over ranks",
        ),
        ({"rule": BlockGeometricMedian(beta=2.0)}, ValueError, "beta must be"),
        ({"rule": NearestNeighborMixing(BlockGeometricMedian(run_length=0))}, ValueError, "run_length must be"),
        ({"transport_dtype": "bfloat16"}, TypeError, "transport_dtype must be a floating-point"),
        ({"transport_dtype": torch.int8}, TypeError, "transport_dtype must be a floating-point"),
        ({"random_state": -1}, ValueError, "random_state must be at least 0"),
        ({"random_state": 1.5}, TypeError, "random_state must be an integer"),
        ({"history_size": 0}, ValueError, "history_size must be at least 1"),
        ({"on_step": 1}, TypeError, "on_step must be callable or None"),
        ({"non_finite": "ignore"}, ValueError, "non_finite must be one of"),
    ],
)
def test_wrong_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        RankAggregator(**parameters)


@pytest.mark.parametrize("state", [None, {}, {"n_steps": 1}, {**RankAggregator().state_dict(), "more": 1}])
def test_wrong_states(state):
    with pytest.raises(ValueError, match="state must be what state_dict"):
        RankAggregator().load_state_dict(state)


def step(aggregator: RankAggregator, value: float) -> Any:
    found = aggregator._aggregate(DenseRows(torch.full((1, 8), value) * torch.arange(8.0)))
    aggregator._record(found)
    return found.vector.numpy()


def test_a_copy_goes_on_as_the_first_would():
    first = RankAggregator(BlockGeometricMedian(0.5, HuberMean(), complement="memory", selection="sample"))
    step(first, 1.0)
    second, third = pickle.loads(pickle.dumps(first)), RankAggregator(first.rule)
    third.load_state_dict(first.state_dict())
    # A copy of a copy before its first step is the same again.
    fourth = pickle.loads(pickle.dumps(third))
    expected = [step(first, value) for value in (2.0, 3.0)]
    for other in (second, third, fourth):
        assert other.random_state == first.random_state
        np.testing.assert_array_equal([step(other, value) for value in (2.0, 3.0)], expected)
        assert other.n_steps_ == 3


def test_a_state_of_another_model_is_refused():
    first, second = RankAggregator(), RankAggregator()
    step(first, 1.0)
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="state must be of a model with as many parameters, 3; found one of 8"):
        second._aggregate(DenseRows(torch.ones(1, 3)))


def test_a_step_that_is_not_finite_leaves_the_state_as_it_was():
    raising, passing = RankAggregator(HuberMean()), RankAggregator(HuberMean(), non_finite="propagate")
    for aggregator in (raising, passing):
        step(aggregator, 1.0)
    before = [aggregator.state_dict()["rule_state"] for aggregator in (raising, passing)]
    with pytest.raises(NonFiniteRowsError):
        step(raising, np.nan)
    assert np.isnan(step(passing, np.nan)).all()
    assert passing.weights_ is None
    assert [aggregator.state_dict()["rule_state"] for aggregator in (raising, passing)] == before
    assert (raising.n_steps_, passing.n_steps_) == (1, 2)


def test_seeds_are_those_of_rules_that_have_none():
    own = BlockGeometricMedian(selection="uniform", random_state=3)
    none = NearestNeighborMixing(BlockGeometricMedian(selection="uniform"))
    for rule, expected in ((own, 3), (none, 8)):
        aggregator = RankAggregator(rule, random_state=8)
        seeded = aggregator._agree().get_params()
        assert [value for name, value in seeded.items() if name.endswith("random_state")] == [expected]
    # The rule that was given stays as it is.
    assert none.aggregator.random_state is None
