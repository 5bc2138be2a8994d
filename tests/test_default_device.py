"""Torch's default device is for tensors of the user's: here all are where the data are, with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import seeded_rule
from skbgmd import BlockGMDClassifier, block_geometric_median, geometric_median, robust_backward
from skbgmd.aggregators import AGGREGATORS
from skbgmd.rows import DenseRows


def under_another_default(function):
    """What a function gives as torch comes, and where its default device is one whose tensors have no data."""
    with torch.device("meta"):
        there = function()
    return function(), there


ASK = {
    "geometric_median": lambda X, weights: geometric_median(X, sample_weight=weights, return_result=True),
    "block": lambda X, weights: block_geometric_median(X, sample_weight=weights, return_result=True),
    "memory": lambda X, weights: block_geometric_median(X, complement="memory", return_result=True),
    "filtered": lambda X, weights: block_geometric_median(X, complement="filtered", return_result=True),
}


@pytest.mark.parametrize("shape", [(9, 1), (9, 4), (3000, 3), (32, 2000)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("kind", ASK)
def test_medians(shape, dtype, convert, kind, rng):
    X, weights = convert(rng.normal(size=shape).astype(dtype)), rng.integers(1, 4, shape[0])
    here, there = under_another_default(lambda: ASK[kind](X, weights))
    assert type(there.median) is type(X)
    for found, expected in ((there.median, here.median), (there.weights, here.weights)):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_rules(name, rng):
    batches = [torch.from_numpy(X) for X in rng.normal(size=(2, 9, 40))]
    weights = rng.integers(1, 4, 9)

    def vectors() -> list[Any]:
        rule, state, found = seeded_rule(name), None, []
        for X in batches:
            aggregate, state = rule(DenseRows(X, weights), state)
            found.append(aggregate.vector.tolist())
        return found

    here, there = under_another_default(vectors)
    assert there == here


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strength": None},
        {"aggregator": "mean"},
        {"gradients": "micro_batches", "group_size": 8},
        {"shuffle": False},
    ],
    ids=str,
)
def test_fits(settings, rng, forked):
    X = rng.normal(size=(200, 4)).astype(np.float32)
    y, weights = (X[:, 0] > 0.0).astype(int), rng.integers(1, 4, 200)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

    def predicted() -> np.ndarray:
        estimator = BlockGMDClassifier(module, max_epochs=2, random_state=0, **settings)
        return estimator.fit(X, y, sample_weight=weights).predict_proba(X)

    here, there = under_another_default(predicted)
    np.testing.assert_array_equal(there, here)


def test_steps_of_a_loop(rng, forked):
    x, y = torch.from_numpy(rng.normal(size=(30, 4))).float(), torch.from_numpy(rng.integers(0, 2, 30))
    module = nn.Linear(4, 2)

    def gradients() -> list[Any]:
        state, found = None, []
        for _ in range(2):
            losses = nn.functional.cross_entropy(module(x), y, reduction="none")
            _, state = robust_backward(losses, module.parameters(), "huber_mean", state)
            found.append(module.weight.grad.tolist())
            module.zero_grad()
        return found

    here, there = under_another_default(gradients)
    assert there == here
